/* SPDX-License-Identifier: GPL-2.0 */

int on_trace_event__syscalls__sys_enter_getppid(void *ctx)
{
	struct config *cfg = settings();

	if (!cfg || bpf_get_current_pid_tgid() >> 32 != cfg->slot[CONFIG_TGID])
		return 0;
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_GETPPID);
	emit(KIND_ASKED, bpf_ktime_get_ns(), 0, 0, 0, 0, 0);
	return 0;
}
