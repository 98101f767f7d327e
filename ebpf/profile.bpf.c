/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the target's threads spend their time on a CPU: every so often each CPU is looked at, and if a thread of the
 * target is on it, its stacks are taken. What is sampled may be another event than the clock.
 */

int on_sample(struct perf_event_context *ctx)
{
	struct config *cfg = settings();
	u64 time_ns, tgid = bpf_get_current_pid_tgid() >> 32;

	if (!cfg || !tgid || tgid != target_tgid(cfg))
		return 0;
	count_hit(HIT_ON_SAMPLE);
	time_ns = bpf_ktime_get_ns();
	emit(KIND_SAMPLE, time_ns, ctx->sample_period, user_stack(ctx, time_ns), kernel_stack(ctx, time_ns), 0, 0);
	return 0;
}
