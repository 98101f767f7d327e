/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The one record that travels from the kernel to user space. Python derives its dtype from this text, so the
 * fields must leave no implicit padding. What a..e mean depends on the kind; each probe names them.
 */
#ifndef GOTRACE_EVENT_H
#define GOTRACE_EVENT_H

#include <linux/types.h>

struct event {
	u64 time_ns; /* bpf_ktime_get_ns: CLOCK_MONOTONIC, the clock behind the Go runtime's nanotime */
	u32 tid;
	u16 kind;
	u16 cpu;
	u64 a;
	u64 b;
	u64 c;
	u64 d;
	u64 e;
};

#endif
