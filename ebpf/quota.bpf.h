/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whether a task is throttled, for probes with QUOTA among their parts: what the scheduler itself keeps of it, at the
 * places that gotrace/kernel/btf.py's QUOTA_FIELDS names.
 */

/* Whether the CPU quota of its cgroup keeps a task from running. */
static __always_inline bool is_throttled(struct config *cfg, void *task)
{
	void *queue = NULL;
	u32 count = 0;
	u8 throttled = 0;

	if (cfg->slot[CONFIG_TASK_THROTTLED]) {
		bpf_probe_read_kernel(&throttled, sizeof(throttled), task + cfg->slot[CONFIG_TASK_THROTTLED]);
		if (throttled)
			return true;
	}
	if (!cfg->slot[CONFIG_TASK_QUEUE])
		return false;
	bpf_probe_read_kernel(&queue, sizeof(queue), task + cfg->slot[CONFIG_TASK_QUEUE]);
	if (queue)
		bpf_probe_read_kernel(&count, sizeof(count), queue + cfg->slot[CONFIG_QUEUE_THROTTLE_COUNT]);
	return count;
}

/* The queue that a task is in, and for how long that was throttled so far; both 0 where the kernel does not count it. */
static __always_inline u64 throttled_before(struct config *cfg, void *task, u64 *queue)
{
	u64 time_ns = 0;

	*queue = 0;
	if (!cfg->slot[CONFIG_TASK_QUEUE] || !cfg->slot[CONFIG_QUEUE_THROTTLED_TIME])
		return 0;
	bpf_probe_read_kernel(queue, sizeof(*queue), task + cfg->slot[CONFIG_TASK_QUEUE]);
	if (*queue)
		bpf_probe_read_kernel(&time_ns, sizeof(time_ns), (void *)*queue + cfg->slot[CONFIG_QUEUE_THROTTLED_TIME]);
	return time_ns;
}
