/* SPDX-License-Identifier: GPL-2.0 */
/* Stand-in: the register file as the kernel lays it out for uprobe programs on each architecture. */
#ifndef GOTRACE_ASM_PTRACE_H
#define GOTRACE_ASM_PTRACE_H

#if defined(__TARGET_ARCH_x86) || defined(__x86_64__)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;
	unsigned long r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#else
struct pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};
#endif

#endif
