/* SPDX-License-Identifier: GPL-2.0 */
/* One event per getppid system call, numbered, for measuring the reader: behind ebpf/ring.bpf.h. */

BPF_ARRAY(sequence, u64, 1);

TRACEPOINT_PROBE(syscalls, sys_enter_getppid)
{
	int zero = 0;
	u64 *next = sequence.lookup(&zero);
	struct config *cfg = settings();
	u64 number;

	if (!next || !cfg || bpf_get_current_pid_tgid() >> 32 != cfg->slot[CONFIG_TGID])
		return 0;
	number = __sync_fetch_and_add(next, 1);
	emit(KIND_FLOOD, number, number, number * 3, ~number, number ^ 0x5555, 7);
	return 0;
}
