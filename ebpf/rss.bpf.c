/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How much of the target's memory is resident when a GC cycle ends, by the kernel's own counters.
 */

/* Pages of one kind: file 0, anonymous 1, swapped out 2, shared 3 (include/linux/mm_types_task.h). */
static __always_inline u64 pages(struct config *cfg, u64 mm, int kind)
{
	s64 count = kernel_u64((void *)mm, cfg->slot[CONFIG_MM_RSS] + kind * cfg->slot[CONFIG_COUNTER_SIZE] +
						   cfg->slot[CONFIG_COUNTER_COUNT]);

	return count > 0 ? count : 0;
}

/* Entry of prepareFreeWorkbufs, once a cycle, right after the world runs again. */
int cycle_ends(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns(), mm;
	struct config *cfg = settings();

	if (!cfg)
		return 0;
	count_hit(HIT_CYCLE_ENDS);
	mm = kernel_u64((void *)bpf_get_current_task(), cfg->slot[CONFIG_TASK_MM]);
	emit(KIND_RSS, time_ns, cfg->slot[CONFIG_WORK_CYCLES] ? (u32)read_user(cfg->slot[CONFIG_WORK_CYCLES]) : 0,
	     pages(cfg, mm, 0), pages(cfg, mm, 1), pages(cfg, mm, 2), pages(cfg, mm, 3));
	return 0;
}
