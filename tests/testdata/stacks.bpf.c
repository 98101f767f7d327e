/* SPDX-License-Identifier: GPL-2.0 */
/* The user stack as the kernel walks it at a uprobe: behind ebpf/ring.bpf.h. */

#define DEPTH 125 /* of the kernel's 127, in whole records of five */

struct walk {
	u64 pc[DEPTH];
};

BPF_PERCPU_ARRAY(walks, struct walk, 1);

/* One head record, then the frames, five to a record: only one thread of the program gets here at a time. */
static __always_inline int walk(struct pt_regs *ctx, u64 site)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct walk *walk;
	long size;
	int zero = 0, i;

	walk = walks.lookup(&zero);
	if (!walk)
		return 0;
	__builtin_memset(walk, 0, sizeof(*walk));
	size = bpf_get_stack(ctx, walk, sizeof(*walk), BPF_F_USER_STACK);
	count_hit(HIT_WALK);
	emit(KIND_HEAD, time_ns, site, (u64)size, GO_CALLER(ctx), GO_FP(ctx), read_user(GO_FP(ctx)));
#pragma unroll
	for (i = 0; i < DEPTH; i += 5)
		if (i * 8 < size)
			emit(KIND_FRAMES, time_ns, walk->pc[i], walk->pc[i + 1], walk->pc[i + 2], walk->pc[i + 3],
			     walk->pc[i + 4]);
	return 0;
}

int at_entry(struct pt_regs *ctx)
{
	return walk(ctx, 0);
}

int in_body(struct pt_regs *ctx)
{
	return walk(ctx, 1);
}

int in_leaf(struct pt_regs *ctx)
{
	return walk(ctx, 2);
}

int at_stop(struct pt_regs *ctx)
{
	return walk(ctx, 3);
}
