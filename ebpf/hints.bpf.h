/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whether the begin and the end that were seen are of one page fault, and whether that was one that automatic NUMA
 * balancing provoked, for probes with HINTS among their parts; see probes/faults.py.
 */

/*
 * What balancing keeps of a thread in task_struct: each hinting fault changes some of it, and nothing else does
 * (task_numa_fault in kernel/sched/fair.c).
 */
struct hints {
	u64 faults;	 /* numa_faults: a buffer, made at the first one */
	u64 locality[2]; /* numa_faults_locality: sums of pages, begun anew once per scan of the memory */
	u64 scan;	 /* numa_scan_seq: the scan that it saw last */
};

#define LARGEST_PAGE_SHIFT 16 /* some kernels for ARM64 tell the end of a fault with the address of its page */

static __always_inline bool is_one_page(u64 begin_address, u64 end_address)
{
	return !((begin_address ^ end_address) >> LARGEST_PAGE_SHIFT);
}

static __always_inline void read_hints(struct config *cfg, struct hints *hints)
{
	void *task = (void *)bpf_get_current_task();

	if (!cfg->slot[CONFIG_TASK_NUMA_FAULTS])
		return;
	bpf_probe_read_kernel(&hints->faults, 8, task + cfg->slot[CONFIG_TASK_NUMA_FAULTS]);
	bpf_probe_read_kernel(hints->locality, 16, task + cfg->slot[CONFIG_TASK_NUMA_LOCALITY]);
	bpf_probe_read_kernel(&hints->scan, 4, task + cfg->slot[CONFIG_TASK_NUMA_SCAN]);
}

static __always_inline bool differ(struct hints *one, struct hints *other)
{
	return one->faults != other->faults || one->locality[0] != other->locality[0] ||
	       one->locality[1] != other->locality[1] || one->scan != other->scan;
}
