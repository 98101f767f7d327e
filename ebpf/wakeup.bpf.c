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

#define LONG_NS 1000000 /* of a wait that is as long it is told who had the P */
#define TURNS 32
#define PS 1024

/* From then on a goroutine has the P, or none, if goid is 0: startpc says then why. */
struct turn {
	u64 begin_ns;
	u64 goid;
	u64 startpc;
	u64 tid; /* of the thread that did that */
};

/* The last turns of a P, in a circle: ``at`` counts them. */
struct turns {
	u64 at;
	struct turn last[TURNS];
};

BPF_ARRAY(ps, struct turns, PS); /* by number */

static __always_inline void next_turn(u64 p, u64 goid, u64 startpc, u64 time_ns)
{
	u32 number = p;
	struct turns *turns = ps.lookup(&number);
	struct turn *turn;

	if (!turns)
		return;
	turn = &turns->last[++turns->at % TURNS];
	turn->begin_ns = time_ns;
	turn->goid = goid;
	turn->startpc = startpc;
	turn->tid = (u32)bpf_get_current_pid_tgid();
}

/* Goroutine ``goid`` has got the P, after what the last turns on it were while it waited. */
static __always_inline void tell_turns(u64 p, u64 goid, u64 since_ns, u64 time_ns)
{
	u32 number = p;
	struct turns *turns = ps.lookup(&number);
	struct turn *turn;
	u64 end_ns;
	int i;

	if (!turns)
		return;
	turn = &turns->last[turns->at % TURNS];
	if (turn->goid != goid)
		return;
#pragma unroll
	for (i = 1; i < TURNS; i++) {
		end_ns = turn->begin_ns;
		if (end_ns <= since_ns)
			return;
		turn = &turns->last[(turns->at - i) % TURNS];
		if (!turn->begin_ns)
			return;
		emit_of(turn->tid, KIND_HAD_P, time_ns, goid, turn->goid, turn->startpc, turn->begin_ns, end_ns);
	}
}

/* The number of the P that thread ``m`` has: a 32-bit field. */
static __always_inline u64 p_of(struct config *cfg, u64 m)
{
	return (u32)read_user(read_user(m + cfg->slot[CONFIG_M_P]) + cfg->slot[CONFIG_P_ID]);
}

/* casgstatus calls timeHistogram.record with the time for which the goroutine that its thread has now was runnable. */
int wakeup_kept(struct pt_regs *ctx)
{
	u64 m, goid, p, time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();

	if (!cfg)
		return 0;
	count_hit(HIT_WAKEUP_KEPT);
	m = read_user(GO_G(ctx) + cfg->slot[CONFIG_G_M]);
	goid = read_user(read_user(m + cfg->slot[CONFIG_M_CURG]) + cfg->slot[CONFIG_G_GOID]);
	p = p_of(cfg, m);
	emit(KIND_RAN, time_ns, goid, GO_ARG1(ctx), p, 0, 0);
	if (GO_ARG1(ctx) >= LONG_NS)
		tell_turns(p, goid, time_ns - GO_ARG1(ctx), time_ns);
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
	next_turn(p, goid, read_user(GO_ARG0(ctx) + cfg->slot[CONFIG_G_STARTPC]), time_ns);
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

static __always_inline int given_up(struct pt_regs *ctx, u64 how, int hit)
{
	struct config *cfg = settings();

	if (!cfg)
		return 0;
	count_hit(hit);
	next_turn((u32)read_user(GO_ARG0(ctx) + cfg->slot[CONFIG_P_ID]), 0, how, bpf_ktime_get_ns());
	return 0;
}

/* Entry of pidleput(pp): there is nothing to do for the P. */
int wakeup_p_idle(struct pt_regs *ctx)
{
	return given_up(ctx, IDLE, HIT_WAKEUP_P_IDLE);
}

/* Entry of handoffp(pp): another thread is to have the P, for the goroutine that had it is in a system call, or blocks. */
int wakeup_p_handed_over(struct pt_regs *ctx)
{
	return given_up(ctx, HANDED_OVER, HIT_WAKEUP_P_HANDED_OVER);
}

/* Entry of startlockedm(gp): the goroutine that is to run has a thread of its own, which gets this one's P. */
int wakeup_p_for_locked(struct pt_regs *ctx)
{
	struct config *cfg = settings();

	if (!cfg)
		return 0;
	count_hit(HIT_WAKEUP_P_FOR_LOCKED);
	next_turn(p_of(cfg, read_user(GO_G(ctx) + cfg->slot[CONFIG_G_M])), 0, LOCKED, bpf_ktime_get_ns());
	return 0;
}

/* Entry of acquirep(pp): a thread has the P, to look for work, or to go on with a goroutine behind its system call. */
int wakeup_p_acquired(struct pt_regs *ctx)
{
	u64 p, curg, goid = 0, startpc = ACQUIRED;
	struct config *cfg = settings();

	if (!cfg)
		return 0;
	count_hit(HIT_WAKEUP_P_ACQUIRED);
	p = (u32)read_user(GO_ARG0(ctx) + cfg->slot[CONFIG_P_ID]);
	curg = read_user(read_user(GO_G(ctx) + cfg->slot[CONFIG_G_M]) + cfg->slot[CONFIG_M_CURG]);
	if (curg) {
		goid = read_user(curg + cfg->slot[CONFIG_G_GOID]);
		startpc = read_user(curg + cfg->slot[CONFIG_G_STARTPC]);
	}
	next_turn(p, goid, startpc, bpf_ktime_get_ns());
	return 0;
}
