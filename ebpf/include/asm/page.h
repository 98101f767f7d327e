/* SPDX-License-Identifier: GPL-2.0 */
/* Stand-in for the one constant BCC's helpers.h takes from this header. */
#ifndef GOTRACE_ASM_PAGE_H
#define GOTRACE_ASM_PAGE_H

#define PAGE_SIZE 4096

#endif
