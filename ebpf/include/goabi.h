/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Go's internal calling convention (ABIInternal, Go 1.17 and later) in terms of pt_regs. The only file with an
 * architecture #if: to port, give the registers as the kernel lays them out for uprobe programs, then the argument
 * registers in order, the result register, the g register, SP, the frame pointer, and the return address as long as the
 * function has no frame record of its own: at its entry, at its RET, and anywhere in a leaf function. Sub-word arguments
 * leave garbage in the upper bits of their register: mask them. Then the arguments of C functions, those of system calls as
 * they still are when the call ends, and the instruction that makes one.
 *
 * For stacks: GO_UNRECORDED_CALLER is where the current function returns to if it has no frame record (yet, or any more),
 * with NO_RECORD if the registers prove that it has none; otherwise it counts only where the function table tells the same.
 * GO_RECORDS_END_AT_SYSTEMSTACK and GO_RECORDS_END_AT_ASMCGOCALL say that the records may end where a goroutine changes
 * to the thread's stack.
 * GO_SAVED_CALLER is the return address of a function that called runtime.morestack, from what the goroutine has saved.
 *
 * GO_STACK_GROWS, by the flags at a stack check's branch or right behind it, says whether that is taken (JBE, B.LS): the
 * function then begins anew.
 */
#ifndef GOTRACE_GOABI_H
#define GOTRACE_GOABI_H

#include <linux/types.h>

#define NO_RECORD (1ULL << 63)

#if defined(__TARGET_ARCH_x86) || defined(__x86_64__)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;
	unsigned long r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};

#define GO_ARG0(ctx) ((ctx)->ax)
#define GO_ARG1(ctx) ((ctx)->bx)
#define GO_ARG2(ctx) ((ctx)->cx)
#define GO_ARG3(ctx) ((ctx)->di)
#define GO_ARG4(ctx) ((ctx)->si)
#define GO_ARG5(ctx) ((ctx)->r8)
#define GO_ARG6(ctx) ((ctx)->r9)
#define GO_RESULT0(ctx) ((ctx)->ax)
#define GO_G(ctx) ((ctx)->r14)
#define GO_SP(ctx) ((ctx)->sp)
#define GO_FP(ctx) ((ctx)->bp)
#define GO_PC(ctx) ((ctx)->ip)
#define GO_CALLER(ctx) read_user((ctx)->sp)
#define GO_STACK_GROWS(ctx) ((ctx)->flags & 0x41) /* carry or zero */

#define C_ARG0(ctx) ((ctx)->di)
#define C_ARG1(ctx) ((ctx)->si)
#define C_ARG2(ctx) ((ctx)->dx)
#define C_ARG3(ctx) ((ctx)->cx)
#define C_ARG4(ctx) ((ctx)->r8)
#define C_ARG5(ctx) ((ctx)->r9)

/* SP is at the return address, or below it at the caller's frame pointer that was just pushed. */
#define GO_UNRECORDED_CALLER(regs)                                                                                         \
	({                                                                                                                 \
		__u64 _sp = USER_WORD(regs, GO_SP), _fp = USER_WORD(regs, GO_FP), _top = user_word(_sp);                   \
		_sp == _fp ? 0 : _top == _fp ? user_word(_sp + 8) | NO_RECORD : _top;                                      \
	})

/* The word that a goroutine has saved for it, SP, is where the return address stands. */
#define GO_SAVED_CALLER(saved) user_word(saved)

#define SYSCALL_ARG0(ctx) ((ctx)->di)
#define SYSCALL_ARG1(ctx) ((ctx)->si)
#define SYSCALL_ARG2(ctx) ((ctx)->dx)
#define SYSCALL_ARG3(ctx) ((ctx)->r10)
#define SYSCALL_ARG4(ctx) ((ctx)->r8)

#define SYSCALL_INSTRUCTION 0x050f
#define SYSCALL_BYTES 2
#else
struct pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

#define GO_ARG0(ctx) ((ctx)->regs[0])
#define GO_ARG1(ctx) ((ctx)->regs[1])
#define GO_ARG2(ctx) ((ctx)->regs[2])
#define GO_ARG3(ctx) ((ctx)->regs[3])
#define GO_ARG4(ctx) ((ctx)->regs[4])
#define GO_ARG5(ctx) ((ctx)->regs[5])
#define GO_ARG6(ctx) ((ctx)->regs[6])
#define GO_RESULT0(ctx) ((ctx)->regs[0])
#define GO_G(ctx) ((ctx)->regs[28])
#define GO_SP(ctx) ((ctx)->sp)
#define GO_FP(ctx) ((ctx)->regs[29])
#define GO_PC(ctx) ((ctx)->pc)
#define GO_CALLER(ctx) ((ctx)->regs[30])
#define GO_STACK_GROWS(ctx) (((ctx)->pstate >> 29 & 3) != 1) /* no carry, or zero */

#define C_ARG0(ctx) ((ctx)->regs[0])
#define C_ARG1(ctx) ((ctx)->regs[1])
#define C_ARG2(ctx) ((ctx)->regs[2])
#define C_ARG3(ctx) ((ctx)->regs[3])
#define C_ARG4(ctx) ((ctx)->regs[4])
#define C_ARG5(ctx) ((ctx)->regs[5])

/* A record is right below SP: the function's own, or in a function that never moves SP its caller's. */
#define GO_UNRECORDED_CALLER(regs)                                                                                         \
	(USER_WORD(regs, GO_CALLER) | (USER_WORD(regs, GO_FP) == USER_WORD(regs, GO_SP) - 8 ? 0 : NO_RECORD))
#define GO_RECORDS_END_AT_SYSTEMSTACK
#define GO_RECORDS_END_AT_ASMCGOCALL
/* The word that a goroutine has saved for it is LR. */
#define GO_SAVED_CALLER(saved) (saved)

#define SYSCALL_ARG0(ctx) (((__u64 *)((ctx) + 1))[0]) /* orig_x0: the result is in the register by then */
#define SYSCALL_ARG1(ctx) ((ctx)->regs[1])
#define SYSCALL_ARG2(ctx) ((ctx)->regs[2])
#define SYSCALL_ARG3(ctx) ((ctx)->regs[3])
#define SYSCALL_ARG4(ctx) ((ctx)->regs[4])

#define SYSCALL_INSTRUCTION 0xd4000001
#define SYSCALL_BYTES 4
#endif

/* What a perf event's program gets (struct bpf_perf_event_data): the registers as user space had them, then these. */
struct perf_event_context {
	struct pt_regs regs;
	__u64 sample_period;
	__u64 addr;
};

#endif
