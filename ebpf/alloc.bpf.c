/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which code allocates: where a P has used up a span of small objects, and where a large object is made. The runtime adds
 * the same bytes to gcController.totalAlloc there.
 */

/* Whose walk is in this CPU's place for it: where the kernel may take the CPU from us, another thread may come in between.
 */
BPF_PERCPU_ARRAY(walkers, u64, 1);

static __always_inline void emit_allocated(void *ctx, u64 bytes, u64 objects)
{
	u64 self = bpf_get_current_pid_tgid(), time_ns = bpf_ktime_get_ns(), stack;
	int zero = 0;
	volatile u64 *walker = walkers.lookup(&zero);

	if (!walker)
		return;
	*walker = self;
	stack = user_stack(ctx, time_ns);
	if (*walker == self)
		emit(KIND_ALLOCATED, time_ns, bytes, objects, stack, 0, 0);
	else
		count_loss();
}

static __always_inline u64 read_half(u64 address)
{
	u16 value = 0;

	read_bytes(&value, sizeof(value), address);
	return value;
}

/*
 * Prologue of mcache.refill(class): the span that this P allocated from has no room any more. What was put into it since
 * the P has it, not what was in it before, stands for the stack that needs another one. A P's first "span" is an empty one.
 */
int span_used_up(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	u64 span, before, count;

	if (!cfg)
		return 0;
	count_hit(HIT_SPAN_USED_UP);
	if (GO_STACK_GROWS(ctx))
		return 0;
	span = read_user(GO_ARG0(ctx) + cfg->slot[CONFIG_MCACHE_ALLOC] + 8 * (GO_ARG1(ctx) & 0xff));
	if (!span)
		return 0;
	before = read_half(span + cfg->slot[CONFIG_MSPAN_COUNT_BEFORE]);
	count = read_half(span + cfg->slot[CONFIG_MSPAN_COUNT]);
	if (count > before)
		emit_allocated(ctx, (count - before) * read_user(span + cfg->slot[CONFIG_MSPAN_SIZE]), count - before);
	return 0;
}

/* Prologue of mcache.allocLarge(size): an object that has pages of its own. */
int large_object(struct pt_regs *ctx)
{
	count_hit(HIT_LARGE_OBJECT);
	if (!GO_STACK_GROWS(ctx))
		emit_allocated(ctx, (GO_ARG1(ctx) + GO_PAGE - 1) & ~(GO_PAGE - 1), 1);
	return 0;
}
