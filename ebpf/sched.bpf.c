/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a thread of the target waits for a CPU, every time, and what Ps steal of one another. What each event means is told
 * in probes/sched.py.
 */

#define TURNS 16

/* What is known of a thread of the target that has no CPU. */
struct thread {
	u64 runnable_ns; /* since when it could run, 0: it sleeps, or nobody knows */
	u64 flags;
};

/* A search for work that is under way. */
struct search {
	u64 thief; /* addresses of Ps */
	u64 victim;
};

BPF_TABLE("lru_hash", u32, struct thread, threads, 16384);
BPF_TABLE("lru_hash", u32, struct search, searches, 16384);

/* A task that had this CPU, or has it; its name is known when it leaves. */
struct turn {
	u64 begin_ns;
	struct name name;
	u32 tid;
	u32 tgid;
};

/* The last turns on a CPU, in a circle: ``at`` counts them. */
struct turns {
	u64 at;
	struct turn last[TURNS];
};

BPF_PERCPU_ARRAY(turns, struct turns, 1);

static __always_inline void leaves_cpu(struct bpf_raw_tracepoint_args *ctx, struct config *cfg, u64 time_ns)
{
	void *prev = (void *)ctx->args[1];
	u32 tid = bpf_get_current_pid_tgid();
	struct thread thread = {.runnable_ns = time_ns, .flags = PREEMPTED};
	struct thread *before = threads.lookup(&tid);

	if (state_left_in(ctx, cfg) & STATE_SLEEPING) {
		/* Another CPU may have woken it already. */
		if (before && before->runnable_ns + WAKE_RACE_NS > time_ns)
			return;
		thread.runnable_ns = 0;
	}
	if (is_throttled(cfg, prev))
		thread.flags |= THROTTLED;
	threads.update(&tid, &thread);
}

/* The target's thread ``tid`` gets this CPU, after the turns that were. */
static __always_inline void gets_cpu(u32 tid, struct turns *turns, u64 time_ns)
{
	struct thread *thread = threads.lookup(&tid);
	struct turn *turn = &turns->last[turns->at % TURNS];
	u64 runnable_ns, end_ns;
	int i;

	if (!thread || !thread->runnable_ns)
		return;
	runnable_ns = thread->runnable_ns;
	if (turn->tid)
		tell_name(turn->tid, turn->tgid, &turn->name, time_ns);
	emit_of(tid, KIND_GOT_CPU, time_ns, runnable_ns, turn->tid, turn->begin_ns, thread->flags, 0);
	thread->runnable_ns = 0;
	if (time_ns - runnable_ns < LONG_NS)
		return;
#pragma unroll
	for (i = 1; i < TURNS; i++) {
		end_ns = turn->begin_ns;
		if (end_ns <= runnable_ns)
			return;
		turn = &turns->last[(turns->at - i) % TURNS];
		if (!turn->begin_ns)
			return;
		if (turn->tid)
			tell_name(turn->tid, turn->tgid, &turn->name, time_ns);
		emit_of(turn->tid, KIND_HELD, time_ns, tid, turn->begin_ns, end_ns, 0, 0);
	}
}

/* A CPU turns from one task to another, in any process: args are preempt, prev, next and, from 5.18 on, prev's state. */
int on_tracepoint__sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	void *prev = (void *)ctx->args[1], *next = (void *)ctx->args[2];
	u64 time_ns = bpf_ktime_get_ns(), tgid;
	struct config *cfg = settings();
	int zero = 0;
	struct turns *own = turns.lookup(&zero);
	struct turn *turn;
	u32 tid, next_tgid;

	if (!cfg || !own)
		return 0;
	tid = read_kernel(next, cfg->slot[CONFIG_TASK_PID], 4);
	next_tgid = read_kernel(next, cfg->slot[CONFIG_TASK_TGID], 4);
	tgid = target_tgid(cfg);
	if (tgid && (tgid == next_tgid || tgid == bpf_get_current_pid_tgid() >> 32))
		count_hit(HIT_ON_TRACEPOINT__SCHED_SWITCH);
	/* The turn that ends: its beginning is known if another has ended before. */
	turn = &own->last[own->at % TURNS];
	turn->tid = bpf_get_current_pid_tgid();
	turn->tgid = bpf_get_current_pid_tgid() >> 32;
	read_name(cfg, prev, &turn->name);
	if (tgid && tgid == bpf_get_current_pid_tgid() >> 32)
		leaves_cpu(ctx, cfg, time_ns);
	if (tgid && tgid == next_tgid)
		gets_cpu(tid, own, time_ns);
	own->at++;
	turn = &own->last[own->at % TURNS];
	turn->begin_ns = time_ns;
	return 0;
}

static __always_inline int wakes(struct bpf_raw_tracepoint_args *ctx, int hit)
{
	struct thread fresh = {.runnable_ns = bpf_ktime_get_ns()};
	void *task = (void *)ctx->args[0];
	struct config *cfg = settings();
	struct thread *thread;
	u64 tgid;
	u32 tid;

	if (!cfg)
		return 0;
	tgid = target_tgid(cfg);
	if (!tgid || tgid != read_kernel(task, cfg->slot[CONFIG_TASK_TGID], 4))
		return 0;
	count_hit(hit);
	tid = read_kernel(task, cfg->slot[CONFIG_TASK_PID], 4);
	thread = threads.lookup(&tid);
	if (thread && thread->runnable_ns)
		return 0;
	if (is_throttled(cfg, task))
		fresh.flags = THROTTLED;
	threads.update(&tid, &fresh);
	return 0;
}

/* A task is about to be woken. args: the task. */
int on_tracepoint__sched_waking(struct bpf_raw_tracepoint_args *ctx)
{
	return wakes(ctx, HIT_ON_TRACEPOINT__SCHED_WAKING);
}

/* A new task gets its first turn. args: the task. */
int on_tracepoint__sched_wakeup_new(struct bpf_raw_tracepoint_args *ctx)
{
	return wakes(ctx, HIT_ON_TRACEPOINT__SCHED_WAKEUP_NEW);
}

/* Entry of runqsteal(pp, p2, stealRunNextG): a P without work looks into the queue of another. */
int steal_begin(struct pt_regs *ctx)
{
	struct search search = {.thief = GO_ARG0(ctx), .victim = GO_ARG1(ctx)};
	u32 tid = bpf_get_current_pid_tgid();

	count_hit(HIT_STEAL_BEGIN);
	searches.update(&tid, &search);
	return 0;
}

/* Behind its call of runqgrab, which returns how many goroutines it took. */
int steal_end(struct pt_regs *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct search *search = searches.lookup(&tid);

	count_hit(HIT_STEAL_END);
	if (!search)
		return 0;
	emit(KIND_STEAL, bpf_ktime_get_ns(), (u32)read_user(search->thief), (u32)read_user(search->victim),
	     (u32)GO_RESULT0(ctx), 0, 0);
	searches.delete(&tid);
	return 0;
}
