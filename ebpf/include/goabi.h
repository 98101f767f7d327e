/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Go's internal calling convention (ABIInternal, Go 1.17 and later) in terms of pt_regs. The only file with an
 * architecture #if: to port, give the argument registers in order, the g register, SP and the result register.
 * Sub-word arguments leave garbage in the upper bits of their register: mask them.
 */
#ifndef GOTRACE_GOABI_H
#define GOTRACE_GOABI_H

#include <asm/ptrace.h>

#if defined(__TARGET_ARCH_x86) || defined(__x86_64__)
#define GO_ARG0(ctx) ((ctx)->ax)
#define GO_ARG1(ctx) ((ctx)->bx)
#define GO_ARG2(ctx) ((ctx)->cx)
#define GO_ARG3(ctx) ((ctx)->di)
#define GO_ARG4(ctx) ((ctx)->si)
#define GO_RESULT0(ctx) ((ctx)->ax)
#define GO_G(ctx) ((ctx)->r14)
#define GO_SP(ctx) ((ctx)->sp)
#else
#define GO_ARG0(ctx) ((ctx)->regs[0])
#define GO_ARG1(ctx) ((ctx)->regs[1])
#define GO_ARG2(ctx) ((ctx)->regs[2])
#define GO_ARG3(ctx) ((ctx)->regs[3])
#define GO_ARG4(ctx) ((ctx)->regs[4])
#define GO_RESULT0(ctx) ((ctx)->regs[0])
#define GO_G(ctx) ((ctx)->regs[28])
#define GO_SP(ctx) ((ctx)->sp)
#endif

#endif
