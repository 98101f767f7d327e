/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The stacks of the current thread, in front of the text of each probe that takes some (not an #include, for its maps).
 *
 * A stack is a number, and its frames are events of the kind "stack": three addresses each, innermost first, as
 * analysis/stacks.py reads them. They are emitted when the stack is seen for the first time; should the ring be full then,
 * it is not remembered, so that they come with the next. A probe for many processes may begin an era of one, in which
 * its stacks are told again: who keeps a part of its events then has what these mean.
 */

#define SLOTS 126 /* addresses that are kept: a multiple of FRAMES_PER_EVENT below the 127 that the kernel walks */
#define FRAMES_PER_EVENT 3
#define HAS_CALLER (1ULL << 63) /* in front of the addresses stands GO_UNRECORDED_CALLER, or 0 */

#define MOST_C_FRAME (1ULL << 20)

/*
 * A stack, and how far its walk is. What is kept here the verifier knows nothing of, unlike variables (hence `volatile`):
 * it would follow every combination of what they may be, for each frame again.
 */
struct frames {
	u64 pc[SLOTS];
	volatile u64 count;	       /* of the slots in use */
	volatile u64 fp, below;	       /* the next record, and the one before */
	volatile u64 next_pc, then_pc; /* of functions that have no record, and come ahead of it */
	volatile u64 goroutine;	       /* for which the thread runs on its own stack */
	volatile u64 call_pc, call_fp; /* in C: where Go had called that */
};

BPF_TABLE("lru_hash", u64, u64, stacks, 16384); /* the era in which each was told */
PER_TARGET(eras, u64);

static __always_inline u64 *current_era(void)
{
	u32 key = target_key();

	return eras.lookup(&key);
}

/* Who may come in between on the same CPU walks in a place of its own: an interrupt, and whoever runs while we sleep. */
enum { WALK, WALK_IN_INTERRUPT, WALK_ASLEEP, WALKS };

BPF_PERCPU_ARRAY(walks, struct frames, WALKS);

static __always_inline struct frames *empty_walk(int place)
{
	struct frames *walk = walks.lookup(&place);

	if (walk)
		__builtin_memset(walk->pc, 0, sizeof(walk->pc));
	return walk;
}

/* The number of the stack of ``walk->count`` addresses; its frames are told if nobody knows them. */
static __always_inline u64 told(struct frames *walk, u64 flags, u64 time_ns)
{
	u64 number = 0x9e3779b97f4a7c15ULL ^ flags ^ target_key(), *known, *era = current_era();
	int i;

	if (!era)
		return 0;

	/* Without a branch where that can be, for the verifier follows every path; not unrolled, for the compiler's sake.
	 */
#pragma clang loop unroll(disable)
	for (i = 0; i < SLOTS; i++)
		number = (number ^ walk->pc[i] ^ number >> 32) * 0xff51afd7ed558ccdULL;
	known = stacks.lookup(&number);
	if (known && *known == *era)
		return number;
#pragma clang loop unroll(disable)
	for (i = 0; i < SLOTS; i += FRAMES_PER_EVENT)
		if (i < walk->count)
			emit(KIND_STACK, time_ns, number, (u64)i | walk->count << 32 | flags, walk->pc[i], walk->pc[i + 1],
			     walk->pc[i + 2]);
	stacks.update(&number, era);
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

#ifdef TASK_REGISTERS
/* Whether ``address`` is in a function, by the settings of its bounds: never, if they are 0. */
static __always_inline bool is_in(struct config *cfg, u64 address, int begin, int end)
{
	return is_between(address, cfg->slot[begin], cfg->slot[end]);
}

/* The goroutine that the thread runs while it is on its own stack, which ``g`` is for: 0 if it is not, or runs none. */
static __always_inline u64 goroutine_behind(struct config *cfg, u64 g)
{
	u64 m;

	if (!cfg->slot[CONFIG_STACK_G_SCHED_BP])
		return 0;
	m = user_word(g + cfg->slot[CONFIG_STACK_G_M]);
	if (!m || user_word(m + cfg->slot[CONFIG_STACK_M_G0]) != g)
		return 0;
	return user_word(m + cfg->slot[CONFIG_STACK_M_CURG]);
}

/* Whether ``goroutine`` is where it changed to the thread's stack: its saved PC proves it. */
static __always_inline bool has_changed_stacks(struct config *cfg, u64 goroutine)
{
	return is_in(cfg, user_word(goroutine + cfg->slot[CONFIG_STACK_G_SCHED_PC]), CONFIG_STACK_SWITCH_BEGIN,
		     CONFIG_STACK_SWITCH_END);
}

#ifdef GO_RECORDS_END_AT_SYSTEMSTACK
static __always_inline void go_on_from_systemstack(struct config *cfg, struct frames *walk)
{
	if (cfg->slot[CONFIG_STACK_UNLINKED] && has_changed_stacks(cfg, walk->goroutine))
		walk->fp = user_word(walk->goroutine + cfg->slot[CONFIG_STACK_G_SCHED_BP]);
	walk->goroutine = 0;
}
#endif

static __always_inline void go_on_from_morestack(struct config *cfg, struct frames *walk)
{
	u64 goroutine = walk->goroutine;

	walk->fp = 0;
	if (!goroutine)
		return;
	walk->next_pc = user_word(goroutine + cfg->slot[CONFIG_STACK_G_SCHED_PC]);
	walk->then_pc = GO_SAVED_CALLER(user_word(goroutine + cfg->slot[CONFIG_STACK_G_SCHED_CALLER]));
	walk->fp = user_word(goroutine + cfg->slot[CONFIG_STACK_G_SCHED_BP]);
	walk->goroutine = 0;
}

/* The record before is the callback's, on the goroutine's stack. */
static __always_inline void go_into_c(struct config *cfg, struct frames *walk)
{
	u64 callback = walk->below, call_pc = user_word(callback + cfg->slot[CONFIG_STACK_CALLBACK_PC]);

	walk->call_pc = is_in(cfg, call_pc, CONFIG_STACK_CGOCALL_BEGIN, CONFIG_STACK_CGOCALL_END) ? call_pc : 0;
	walk->call_fp = callback + cfg->slot[CONFIG_STACK_CALLBACK_FP];
	walk->below = walk->fp;
}

/* The function that had called C. */
static __always_inline u64 come_out_of_c(struct frames *walk)
{
	u64 pc = walk->call_pc;

	walk->fp = walk->call_fp;
	walk->call_pc = 0;
	return pc;
}

/* It begins in C, where no register need hold the ``g``: the thread's own memory has it. */
static __always_inline void begin_in_c(struct config *cfg, void *regs, struct frames *walk)
{
	u64 tls, g, goroutine, fp, pc;

	if (!cfg->slot[CONFIG_STACK_TASK_TLS] || !cfg->slot[CONFIG_STACK_TLS_G] ||
	    is_in(cfg, walk->pc[1], CONFIG_STACK_TEXT_BEGIN, CONFIG_STACK_TEXT_END))
		return;
	tls = kernel_u64((void *)bpf_get_current_task(), cfg->slot[CONFIG_STACK_TASK_TLS]);
	g = user_word(tls + cfg->slot[CONFIG_STACK_TLS_G]);
	goroutine = goroutine_behind(cfg, g);
	if (!goroutine || !has_changed_stacks(cfg, goroutine))
		return;
	fp = user_word(goroutine + cfg->slot[CONFIG_STACK_G_SCHED_BP]);
	pc = user_word(fp + 8);
	walk->call_pc = is_in(cfg, pc, CONFIG_STACK_TEXT_BEGIN, CONFIG_STACK_TEXT_END) ? pc : 0;
	walk->call_fp = user_word(fp);
	walk->below = USER_WORD(regs, GO_SP);
}

#ifdef GO_RECORDS_END_AT_ASMCGOCALL
/* The record before is that of the C function that Go has called: behind it the thread's stack begins once more. */
static __always_inline void come_to_asmcgocall(struct config *cfg, void *regs, struct frames *walk)
{
	u64 goroutine = walk->goroutine;

	if (walk->call_pc) {
		walk->next_pc = come_out_of_c(walk);
	} else if (goroutine && walk->fp == user_word(USER_WORD(regs, GO_G) + cfg->slot[CONFIG_STACK_G_SCHED_BP])) {
		walk->fp = user_word(goroutine + cfg->slot[CONFIG_STACK_G_SCHED_BP]);
		walk->goroutine = 0;
	}
}
#endif

/*
 * Take the addresses of the user stack: behind the first slot, which is for who called the innermost function.
 *
 * We follow the frame records ourselves, for they do not lead across every change of stacks:
 *
 * - where runtime.systemstack does not link them (ARM64, up to Go 1.24) they go on where the goroutine was when it changed
 *   stacks, if it did so there, which its saved PC proves;
 * - runtime.morestack is called by a function that has no record yet. The goroutine has saved where it was, and who had
 *   called that function; then the records go on;
 * - on ARM64 runtime.asmcgocall, which calls C, does not link them either;
 * - C need not keep records. Where the goroutine had called it is known as for systemstack; if C has called back, it
 *   stands at a fixed distance above the record of the callback: the runtime lays it out by hand (cgocallback in asm_*.s),
 *   and a stack is moved as a whole. There the walk goes on when C's records lead to no higher place of the same stack.
 *
 * The kernel's own walk does none of that, and on ARM64 it follows records to higher addresses only, where goroutines'
 * stacks may lie below threads' (user_backtrace in arch/arm64/kernel/perf_callchain.c).
 */
static __always_inline void walk_user(void *ctx, struct config *cfg, struct frames *walk)
{
	void *regs = registers_of(current_task());
	u64 record[2], pc, caller;
	int i;

	walk->next_pc = walk->then_pc = walk->call_pc = 0;
	walk->fp = USER_WORD(regs, GO_FP);
	walk->goroutine = goroutine_behind(cfg, USER_WORD(regs, GO_G));
	walk->pc[1] = USER_WORD(regs, GO_PC);
	begin_in_c(cfg, regs, walk);
#pragma clang loop unroll(disable)
	for (i = 2; i < SLOTS; i++) {
#ifdef GO_RECORDS_END_AT_SYSTEMSTACK
		if (!walk->fp && walk->goroutine && !walk->next_pc)
			go_on_from_systemstack(cfg, walk);
#endif
		pc = walk->next_pc;
		if (pc) {
			walk->next_pc = walk->then_pc;
			walk->then_pc = 0;
		} else if (walk->fp && (!walk->call_pc || walk->fp - walk->below < MOST_C_FRAME) &&
			   !bpf_probe_read_user(record, sizeof(record), (void *)walk->fp)) {
			pc = record[1];
			walk->below = walk->fp;
			walk->fp = record[0];
			if (is_in(cfg, pc, CONFIG_STACK_MORESTACK_BEGIN, CONFIG_STACK_MORESTACK_END))
				go_on_from_morestack(cfg, walk);
			else if (is_in(cfg, pc, CONFIG_STACK_CGOCALLBACK_BEGIN, CONFIG_STACK_CGOCALLBACK_END))
				go_into_c(cfg, walk);
#ifdef GO_RECORDS_END_AT_ASMCGOCALL
			else if (is_in(cfg, pc, CONFIG_STACK_ASMCGOCALL_BEGIN, CONFIG_STACK_ASMCGOCALL_END))
				come_to_asmcgocall(cfg, regs, walk);
#endif
		} else if (walk->call_pc) {
			pc = come_out_of_c(walk);
		} else {
			break;
		}
		walk->pc[i] = pc;
	}
	walk->count = i;
	/* The innermost function may have no record yet, none any more, or it may be a leaf, which never has. */
	caller = GO_UNRECORDED_CALLER(regs);
	if (caller != walk->pc[2] && is_in(cfg, caller & ~NO_RECORD, CONFIG_STACK_TEXT_BEGIN, CONFIG_STACK_TEXT_END))
		walk->pc[0] = caller;
}
#else
static __always_inline void walk_user(void *ctx, struct config *cfg, struct frames *walk)
{
	long size = bpf_get_stack(ctx, &walk->pc[1], (SLOTS - 1) * 8, BPF_F_USER_STACK);

	walk->count = size > 0 ? 1 + size / 8 : 0;
}
#endif

/* The user stack, 0 if there is none. */
static __always_inline u64 user_stack_at(int place, void *ctx, u64 time_ns)
{
	struct frames *walk = empty_walk(place);
	struct config *cfg = settings();

	if (!walk || !cfg)
		return 0;
	walk_user(ctx, cfg, walk);
	return walk->count ? told(walk, HAS_CALLER, time_ns) : 0;
}

static __always_inline u64 user_stack(void *ctx, u64 time_ns)
{
	return user_stack_at(WALK, ctx, time_ns);
}

/* Where the current thread is in the kernel, 0 if it is not in there. */
static __always_inline u64 kernel_stack_at(int place, void *ctx, u64 time_ns)
{
	struct frames *walk = empty_walk(place);
	long size;

	if (!walk)
		return 0;
	size = bpf_get_stack(ctx, walk, SLOTS * 8, 0);
	walk->count = size > 0 ? size / 8 : 0;
	return size > 0 ? told(walk, 0, time_ns) : 0;
}

static __always_inline u64 kernel_stack(void *ctx, u64 time_ns)
{
	return kernel_stack_at(WALK, ctx, time_ns);
}
