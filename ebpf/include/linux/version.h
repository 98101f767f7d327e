/* SPDX-License-Identifier: GPL-2.0 */
/* Stand-in: BCC asks for LINUX_VERSION_CODE; kernels since 5.0 ignore it for every program type we load. */
#ifndef GOTRACE_LINUX_VERSION_H
#define GOTRACE_LINUX_VERSION_H

#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)

#endif
