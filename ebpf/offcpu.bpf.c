/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the target's threads leave the CPU, and how long they are off it: every time, not sampled.
 */

/* A thread that is off the CPU. */
struct absence {
	u64 off_ns;
	u64 stack;
	u64 kernel_stack;
	u64 state; /* as sched_switch gives it: 0 for a thread that could go on */
};

BPF_TABLE("lru_hash", u32, struct absence, absences, 16384);

static __always_inline void leaves_cpu(struct bpf_raw_tracepoint_args *ctx, struct config *cfg)
{
	u64 time_ns = bpf_ktime_get_ns();
	u32 tid = bpf_get_current_pid_tgid();
	struct absence absence = {
		.off_ns = time_ns,
		.stack = user_stack(ctx, time_ns),
		.kernel_stack = kernel_stack(ctx, time_ns),
	};

#ifdef SWITCH_HAS_STATE
	absence.state = (u32)ctx->args[3];
#else
	bpf_probe_read_kernel(&absence.state, 4, (void *)ctx->args[1] + cfg->slot[CONFIG_TASK_STATE]);
#endif
	absences.update(&tid, &absence);
}

static __always_inline void gets_cpu(u32 tid)
{
	struct absence *absence = absences.lookup(&tid);

	if (!absence)
		return;
	emit_of(tid, KIND_OFF_CPU_STACK, bpf_ktime_get_ns(), absence->off_ns, absence->stack, absence->kernel_stack,
		absence->state, 0);
	absences.delete(&tid);
}

/* A CPU turns from one task to another, in any process: args are preempt, prev, next and, from 5.18 on, prev's state. */
int on_tracepoint__sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	void *next = (void *)ctx->args[2];
	struct config *cfg = settings();
	u32 next_tgid = 0, next_tid = 0;
	u64 tgid;

	if (!cfg)
		return 0;
	tgid = target_tgid(cfg);
	bpf_probe_read_kernel(&next_tgid, sizeof(next_tgid), next + cfg->slot[CONFIG_TASK_TGID]);
	if (!tgid || (tgid != bpf_get_current_pid_tgid() >> 32 && tgid != next_tgid))
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_SWITCH);
	if (tgid == bpf_get_current_pid_tgid() >> 32)
		leaves_cpu(ctx, cfg);
	if (tgid == next_tgid) {
		bpf_probe_read_kernel(&next_tid, sizeof(next_tid), next + cfg->slot[CONFIG_TASK_PID]);
		gets_cpu(next_tid);
	}
	return 0;
}
