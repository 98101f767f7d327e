/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The target's page faults one by one, on which node its threads run, and where the kernel moves threads and pages.
 */

/* The page fault that a thread is in. */
struct fault {
	u64 begin_ns;
	u64 address;
};

BPF_TABLE("lru_hash", u32, struct fault, open_faults, 16384);
BPF_PERCPU_ARRAY(turns, u64, 1); /* when this CPU turned to its present task */

static int (*node_id)(void) = (void *)42; /* BPF_FUNC_get_numa_node_id */

static __always_inline bool is_own(struct config *cfg)
{
	u64 tgid = bpf_get_current_pid_tgid() >> 32;

	return cfg && tgid && tgid == target_tgid(cfg);
}

/* A fault begins; whether it was a minor or a major one, its end tells. */
int on_software_event__page_faults(struct perf_event_context *ctx)
{
	struct fault fault = {.begin_ns = bpf_ktime_get_ns(), .address = ctx->addr};
	u32 tid = bpf_get_current_pid_tgid();

	if (!is_own(settings()))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS);
	open_faults.update(&tid, &fault);
	return 0;
}

static __always_inline int ends(struct perf_event_context *ctx, u64 major)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 time_ns = bpf_ktime_get_ns();
	struct fault *fault = open_faults.lookup(&tid);

	emit(KIND_FAULT, time_ns, fault && fault->address == ctx->addr ? fault->begin_ns : 0, ctx->addr, node_id(), major,
	     GO_PC(&ctx->regs));
	open_faults.delete(&tid);
	return 0;
}

int on_software_event__page_faults_min(struct perf_event_context *ctx)
{
	if (!is_own(settings()))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MIN);
	return ends(ctx, 0);
}

int on_software_event__page_faults_maj(struct perf_event_context *ctx)
{
	if (!is_own(settings()))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MAJ);
	return ends(ctx, 1);
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

/* args: the task and the CPU it is moved to, by whoever wakes or balances. */
int on_tracepoint__sched_migrate_task(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	struct config *cfg = settings();
	u32 tgid = 0, tid = 0;

	if (!cfg)
		return 0;
	bpf_probe_read_kernel(&tgid, sizeof(tgid), task + cfg->slot[CONFIG_TASK_TGID]);
	if (!tgid || tgid != target_tgid(cfg))
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_MIGRATE_TASK);
	bpf_probe_read_kernel(&tid, sizeof(tid), task + cfg->slot[CONFIG_TASK_PID]);
	emit_of(tid, KIND_MOVED_THREAD, bpf_ktime_get_ns(), ctx->args[1], 0, 0, 0, 0);
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
