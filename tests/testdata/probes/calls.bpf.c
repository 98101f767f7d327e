/* SPDX-License-Identifier: GPL-2.0 */

int own_call(struct pt_regs *ctx)
{
	struct config *cfg = settings();

	if (!cfg || !cfg->slot[CONFIG_WANTED])
		return 0;
	count_hit(HIT_OWN_CALL);
	emit(KIND_OWN_CALL, bpf_ktime_get_ns(), C_ARG0(ctx), C_ARG1(ctx), GO_PC(ctx), 0, 0);
	return 0;
}

int libc_call(struct pt_regs *ctx)
{
	count_hit(HIT_LIBC_CALL);
	emit(KIND_LIBC_CALL, bpf_ktime_get_ns(), GO_PC(ctx), 0, 0, 0, 0);
	return 0;
}
