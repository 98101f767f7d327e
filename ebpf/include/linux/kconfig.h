/* SPDX-License-Identifier: GPL-2.0 */
/* Stand-in for the kernel's own header: BCC force-includes it before every program. */
#ifndef GOTRACE_LINUX_KCONFIG_H
#define GOTRACE_LINUX_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

#endif
