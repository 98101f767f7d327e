/* SPDX-License-Identifier: GPL-2.0 */
/* Stand-in for the one macro BCC's helpers.h takes from this header. */
#ifndef GOTRACE_LINUX_LOG2_H
#define GOTRACE_LINUX_LOG2_H

#define roundup_pow_of_two(n) (1UL << (64 - __builtin_clzl((n) - 1)))

#endif
