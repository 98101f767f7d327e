/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which processes are no longer what their settings were made for, where probes are set for many: one that executes another
 * program is forgotten before the first instruction of that, and one that is gone before its number is given to another.
 *
 * `forget`, in front of this text, does so for each probe.
 */

/* The number of a process by its first thread, 0 for any other thread. */
static __always_inline u32 tgid_of(void *task)
{
	u32 tid = 0, tgid = 0;

	bpf_probe_read_kernel(&tid, sizeof(tid), task + TASK_PID);
	bpf_probe_read_kernel(&tgid, sizeof(tgid), task + TASK_TGID);
	return tid == tgid ? tgid : 0;
}

/* The new program is in place, all other threads are gone. */
int on_tracepoint__sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	forget(target_key());
	emit(KIND_EXECUTED, bpf_ktime_get_ns(), 0, 0, 0, 0, 0);
	return 0;
}

/* args are the task. */
int on_tracepoint__sched_process_free(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = tgid_of((void *)ctx->args[0]);

	if (tgid)
		forget(tgid);
	return 0;
}
