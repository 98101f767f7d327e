/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The stacks of the current thread, in front of the text of each probe that takes some (not an #include, for its maps).
 *
 * A stack is a number, and its frames are events of the kind "stack": three addresses each, innermost first, as
 * analysis/stacks.py reads them. They are emitted when the stack is seen for the first time; should the ring be full then,
 * it is not remembered, so that they come with the next.
 */

#define SLOTS 126 /* addresses that are kept: a multiple of FRAMES_PER_EVENT below the 127 that the kernel walks */
#define FRAMES_PER_EVENT 3
#define HAS_CALLER (1ULL << 63) /* in front of the addresses stands GO_UNRECORDED_CALLER, or 0 */

struct frames {
	u64 pc[SLOTS];
};

BPF_TABLE("lru_hash", u64, u8, stacks, 16384);
BPF_PERCPU_ARRAY(walks, struct frames, 1);

static __always_inline struct frames *empty_walk(void)
{
	int zero = 0;
	struct frames *walk = walks.lookup(&zero);

	if (walk)
		__builtin_memset(walk, 0, sizeof(*walk));
	return walk;
}

/* The number of the stack of ``count`` addresses; its frames are told if nobody knows them. */
static __always_inline u64 told(struct frames *walk, u64 count, u64 flags, u64 time_ns)
{
	u64 number = 0x9e3779b97f4a7c15ULL ^ flags;
	u8 seen = 1;
	int i;

	/* Unrolled, and without a branch where that can be: the verifier follows every path. */
#pragma unroll
	for (i = 0; i < SLOTS; i++)
		number = (number ^ walk->pc[i] ^ number >> 32) * 0xff51afd7ed558ccdULL;
	if (stacks.lookup(&number))
		return number;
#pragma unroll
	for (i = 0; i < SLOTS; i += FRAMES_PER_EVENT)
		if (i < count)
			emit(KIND_STACK, time_ns, number, (u64)i | count << 32 | flags, walk->pc[i], walk->pc[i + 1],
			     walk->pc[i + 2]);
	stacks.update(&number, &seen);
	return number;
}

#ifdef TASK_REGISTERS
/* Memory of the target where no page fault can be taken; 0 where there is none. */
static __always_inline u64 user_word(u64 at)
{
	u64 value = 0;

	bpf_probe_read_user(&value, sizeof(value), (void *)at);
	return value;
}

static __always_inline bool is_between(u64 address, u64 begin, u64 end)
{
	return address >= begin && address < end;
}
#endif

#if defined(TASK_REGISTERS) && defined(GO_RECORDS_END_AT_SYSTEMSTACK)
/*
 * Where to go on from runtime.systemstack: the frame pointer that the goroutine had when it changed stacks, if it did so
 * there, which its saved PC proves. 0 on a goroutine's own stack, or where the places of these fields are not known.
 */
static __always_inline u64 goroutine_fp(struct config *cfg, u64 g)
{
	u64 m, user_g;

	if (!cfg->slot[CONFIG_STACK_SWITCH_BEGIN])
		return 0;
	m = user_word(g + cfg->slot[CONFIG_STACK_G_M]);
	if (!m || user_word(m + cfg->slot[CONFIG_STACK_M_G0]) != g)
		return 0;
	user_g = user_word(m + cfg->slot[CONFIG_STACK_M_CURG]);
	if (!user_g || !is_between(user_word(user_g + cfg->slot[CONFIG_STACK_G_SCHED_PC]),
				   cfg->slot[CONFIG_STACK_SWITCH_BEGIN], cfg->slot[CONFIG_STACK_SWITCH_END]))
		return 0;
	return user_word(user_g + cfg->slot[CONFIG_STACK_G_SCHED_BP]);
}

/*
 * How many slots of ``walk`` are in use: the addresses come behind the first.
 *
 * Follow the frame records ourselves: the kernel follows them to higher addresses only, and goroutines' stacks may lie
 * below threads' (user_backtrace in arch/arm64/kernel/perf_callchain.c).
 */
static __always_inline u64 walk_user(void *ctx, struct config *cfg, void *regs, struct frames *walk)
{
	u64 fp = USER_WORD(regs, GO_FP), next = goroutine_fp(cfg, USER_WORD(regs, GO_G));
	u64 record[2];
	int i;

	walk->pc[1] = USER_WORD(regs, GO_PC);
	for (i = 2; i < SLOTS; i++) {
		if (!fp) {
			fp = next;
			next = 0;
		}
		if (!fp || bpf_probe_read_user(record, sizeof(record), (void *)fp))
			break;
		walk->pc[i] = record[1];
		fp = record[0];
	}
	return i;
}
#else
static __always_inline u64 walk_user(void *ctx, struct config *cfg, void *regs, struct frames *walk)
{
	long size = bpf_get_stack(ctx, &walk->pc[1], (SLOTS - 1) * 8, BPF_F_USER_STACK);

	return size > 0 ? 1 + size / 8 : 0;
}
#endif

/* The user stack, 0 if there is none. */
static __always_inline u64 user_stack(void *ctx, u64 time_ns)
{
	struct frames *walk = empty_walk();
	struct config *cfg = settings();
	void *regs = NULL;
	u64 count, caller;

	if (!walk || !cfg)
		return 0;
#ifdef TASK_REGISTERS
	regs = registers_of(current_task());
#endif
	count = walk_user(ctx, cfg, regs, walk);
	if (!count)
		return 0;
#ifdef TASK_REGISTERS
	/* The innermost function may have no record yet, none any more, or it may be a leaf, which never has. */
	caller = GO_UNRECORDED_CALLER(regs);
	if (caller != walk->pc[2] &&
	    is_between(caller & ~NO_RECORD, cfg->slot[CONFIG_STACK_TEXT_BEGIN], cfg->slot[CONFIG_STACK_TEXT_END]))
		walk->pc[0] = caller;
#endif
	return told(walk, count, HAS_CALLER, time_ns);
}

/* Where the current thread is in the kernel, 0 if it is not in there. */
static __always_inline u64 kernel_stack(void *ctx, u64 time_ns)
{
	struct frames *walk = empty_walk();
	long size;

	if (!walk)
		return 0;
	size = bpf_get_stack(ctx, walk, SLOTS * 8, 0);
	return size > 0 ? told(walk, size / 8, 0, time_ns) : 0;
}
