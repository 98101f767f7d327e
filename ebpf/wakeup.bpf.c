/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How long single goroutines were runnable before they ran, and for how many turns they stay on a P. Where each probe sits
 * is told in probes/wakeup.py.
 */

/* The P that a goroutine ran on last. */
struct stay {
	u64 p;
	u64 since_ns;
	u64 turns;
};

BPF_TABLE("lru_hash", u64, struct stay, stays, 65536); /* by goid */

/* The number of the P that thread ``m`` has: a 32-bit field. */
static __always_inline u64 p_of(struct config *cfg, u64 m)
{
	return (u32)read_user(read_user(m + cfg->slot[CONFIG_M_P]) + cfg->slot[CONFIG_P_ID]);
}

/* casgstatus calls timeHistogram.record with the time for which the goroutine that its thread has now was runnable. */
int wakeup_kept(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	u64 m, g;

	if (!cfg)
		return 0;
	count_hit(HIT_WAKEUP_KEPT);
	m = read_user(GO_G(ctx) + cfg->slot[CONFIG_G_M]);
	g = read_user(m + cfg->slot[CONFIG_M_CURG]);
	emit(KIND_RAN, bpf_ktime_get_ns(), read_user(g + cfg->slot[CONFIG_G_GOID]), GO_ARG1(ctx), p_of(cfg, m), 0, 0);
	return 0;
}

/* Entry of execute(gp, inheritTime), on the thread's own stack: gp gets the P of this thread. */
int wakeup_executes(struct pt_regs *ctx)
{
	u64 goid, p, time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct stay *stay;

	if (!cfg)
		return 0;
	count_hit(HIT_WAKEUP_EXECUTES);
	goid = read_user(GO_ARG0(ctx) + cfg->slot[CONFIG_G_GOID]);
	p = p_of(cfg, read_user(GO_G(ctx) + cfg->slot[CONFIG_G_M]));
	stay = stays.lookup(&goid);
	if (!stay) {
		struct stay fresh = {.p = p, .since_ns = time_ns, .turns = 1};

		if (stays.update(&goid, &fresh))
			count_loss();
	} else if (stay->p == p) {
		stay->turns++;
	} else {
		emit(KIND_MOVED, time_ns, goid, stay->since_ns, stay->turns, stay->p, p);
		stay->p = p;
		stay->since_ns = time_ns;
		stay->turns = 1;
	}
	return 0;
}
