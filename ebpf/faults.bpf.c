/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The target's page faults one by one, on which node its threads run, and where the kernel moves threads and pages.
 */

/* The page fault that a thread is in. */
struct fault {
	u64 begin_ns;
	u64 address;
	u64 since_ns; /* the first try: a signal breaks some faults off, as Go's preemption does, and they begin anew */
	struct hints hints;
	/* One that was broken off, while its signal's handler takes faults of its own: it begins anew right after. */
	u64 outer_address;
	u64 outer_since_ns;
	u64 paused_ns; /* since when it is only the outer one, which is not in progress; 0: it is a fault */
};

#define HANDLER_NS 200000000 /* a handler that is over later has gone elsewhere */

BPF_TABLE("lru_hash", u32, struct fault, open_faults, 16384);
BPF_PERCPU_ARRAY(turns, u64, 1); /* when this CPU turned to its present task */

static int (*node_id)(void) = (void *)42; /* BPF_FUNC_get_numa_node_id */

/* A fault begins; what kind of fault it was, its end tells. */
int on_software_event__page_faults(struct perf_event_context *ctx)
{
	struct fault fault = {.address = ctx->addr};
	u32 tid = bpf_get_current_pid_tgid();
	struct config *cfg = settings();
	struct fault *before;

	if (!cfg || !is_own(cfg))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS);
	read_hints(cfg, &fault.hints);
	fault.begin_ns = fault.since_ns = bpf_ktime_get_ns(); /* last: what was done here is no part of the fault */
	if (!open_faults.insert(&tid, &fault))
		return 0;
	before = open_faults.lookup(&tid); /* one without an end, which is seldom */
	if (before && (!before->paused_ns || fault.begin_ns - before->paused_ns < HANDLER_NS)) {
		if (before->address == ctx->addr) {
			fault.since_ns = before->since_ns;
			fault.outer_address = before->outer_address;
			fault.outer_since_ns = before->outer_since_ns;
		} else {
			fault.outer_address = before->address;
			fault.outer_since_ns = before->since_ns;
		}
	}
	open_faults.update(&tid, &fault);
	return 0;
}

/* A fault of this thread is over: what is left of it is one that was broken off, if there is that. */
static __always_inline void leave(u32 tid, struct fault *fault, u64 time_ns)
{
	struct fault outer = {};

	if (!fault || !fault->outer_address) {
		open_faults.delete(&tid);
		return;
	}
	outer.address = fault->outer_address;
	outer.begin_ns = outer.since_ns = fault->outer_since_ns;
	outer.paused_ns = time_ns;
	open_faults.update(&tid, &outer);
}

static __always_inline int ends(struct perf_event_context *ctx, struct config *cfg, u64 how)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 time_ns = bpf_ktime_get_ns(), begin_ns = 0;
	struct fault *fault = open_faults.lookup(&tid);
	struct hints hints = {};

	if (fault && is_one_page(fault->address, ctx->addr)) {
		begin_ns = fault->begin_ns;
		read_hints(cfg, &hints);
		if (how == MINOR && differ(&fault->hints, &hints))
			how = HINTING;
	}
	emit(KIND_FAULT, time_ns, begin_ns, ctx->addr, node_id(), how, GO_PC(&ctx->regs));
	leave(tid, fault, time_ns);
	return 0;
}

int on_software_event__page_faults_min(struct perf_event_context *ctx)
{
	struct config *cfg = settings();

	if (!cfg || !is_own(cfg))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MIN);
	return ends(ctx, cfg, MINOR);
}

int on_software_event__page_faults_maj(struct perf_event_context *ctx)
{
	struct config *cfg = settings();

	if (!cfg || !is_own(cfg))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MAJ);
	return ends(ctx, cfg, MAJOR);
}

/* A thread of the target leaves the CPU: it had it since this CPU's last switch. args: preempt, prev, next. */
int on_tracepoint__sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	int zero = 0;
	u64 *turn = turns.lookup(&zero);

	if (!turn)
		return 0;
	if (is_own(cfg)) {
		count_hit(HIT_ON_TRACEPOINT__SCHED_SWITCH);
		if (*turn)
			emit(KIND_RAN_ON, time_ns, *turn, node_id(), 0, 0, 0);
	}
	*turn = time_ns;
	return 0;
}

/* The number of the target's thread that ``task`` is, 0 if it is none of its. */
static __always_inline u32 own_thread(struct config *cfg, void *task)
{
	u32 tgid = 0, tid = 0;

	if (!cfg || !task)
		return 0;
	bpf_probe_read_kernel(&tgid, sizeof(tgid), task + cfg->slot[CONFIG_TASK_TGID]);
	if (!tgid || tgid != target_tgid(cfg))
		return 0;
	bpf_probe_read_kernel(&tid, sizeof(tid), task + cfg->slot[CONFIG_TASK_PID]);
	return tid;
}

/* args: the task and the CPU it is moved to, by whoever wakes or balances. */
int on_tracepoint__sched_migrate_task(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = own_thread(settings(), (void *)ctx->args[0]);

	if (!tid)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_MIGRATE_TASK);
	emit_of(tid, KIND_MOVED_THREAD, bpf_ktime_get_ns(), ctx->args[1], 0, 0, 0, 0);
	return 0;
}

/* Balancing is about to move a thread to the node of its memory. args: the task, from which CPU and to which. */
int on_tracepoint__sched_move_numa(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = own_thread(settings(), (void *)ctx->args[0]);

	if (!tid)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_MOVE_NUMA);
	emit_of(tid, KIND_BALANCED, bpf_ktime_get_ns(), ctx->args[1], ctx->args[2], 0, 0, 0);
	return 0;
}

/* Balancing is about to let two tasks change places; either or both may be ours. args: task, its CPU, task, its CPU. */
int on_tracepoint__sched_swap_numa(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	u32 one = own_thread(cfg, (void *)ctx->args[0]), other = own_thread(cfg, (void *)ctx->args[2]);

	if (!one && !other)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_SWAP_NUMA);
	if (one)
		emit_of(one, KIND_SWAPPED, time_ns, ctx->args[1], ctx->args[3], 0, 0, 0);
	if (other)
		emit_of(other, KIND_SWAPPED, time_ns, ctx->args[3], ctx->args[1], 0, 0, 0);
	return 0;
}

/*
 * Balancing could not move a thread. args: the task, its CPU, the task that it would have changed places with or NULL, and
 * the CPU it would have gone to or -1.
 */
int on_tracepoint__sched_stick_numa(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = own_thread(settings(), (void *)ctx->args[0]);

	if (!tid)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_STICK_NUMA);
	emit_of(tid, KIND_STUCK, bpf_ktime_get_ns(), ctx->args[1], (s64)(int)ctx->args[3], 0, 0, 0);
	return 0;
}

/* Pages are moved by a thread of the target, as balancing does within a fault. args: how many were, how many were not. */
int on_tracepoint__mm_migrate_pages(struct bpf_raw_tracepoint_args *ctx)
{
	if (!is_own(settings()))
		return 0;
	count_hit(HIT_ON_TRACEPOINT__MM_MIGRATE_PAGES);
	emit(KIND_MOVED_PAGES, bpf_ktime_get_ns(), ctx->args[0], ctx->args[1], 0, 0, 0);
	return 0;
}
