/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every stop-the-world pause and every GC cycle of one Go process, by the runtime's own time stamps.
 *
 * Only one goroutine can stop the world at a time (it holds worldsema), so what one probe leaves for the next fits
 * in a single slot. Where each probe sits, and which Go versions have which, is told in probes/gc.py.
 */

/* The stop that is under way. */
struct stop {
	u64 reason;	/* stwReason; Go <= 1.20: address of the reason's string, 0 for a collection */
	u64 reason_len; /* Go <= 1.20: length of that string */
	u64 start_ns;	/* nanotime when stopping began; up to Go 1.21 bpf_ktime at the request */
	u64 finish_ns;	/* nanotime when all Ps had stopped; 0 where it is not known */
	u64 goid;	/* the goroutine that stopped the world */
	u64 flags;
};

PER_TARGET(stops, struct stop);

/* What the executable does not tell; gotrace.analysis.pauses has the same number. */
#define UNKNOWN (~0ULL)

static __always_inline struct stop *current_stop(void)
{
	u32 key = target_key();

	return stops.lookup(&key);
}

/* The goroutine on whose behalf this thread runs: g is the system stack's own in here, m.curg is the user's. */
static __always_inline u64 user_g(struct config *cfg, struct pt_regs *ctx)
{
	u64 m = read_user(GO_G(ctx) + cfg->slot[CONFIG_G_M]);

	return read_user(m + cfg->slot[CONFIG_M_CURG]);
}

static __always_inline void note_goroutine(struct config *cfg, struct pt_regs *ctx, struct stop *stop)
{
	u64 g;

	stop->goid = 0;
	if (!cfg->slot[CONFIG_HAS_GOID])
		return;
	g = user_g(cfg, ctx);
	stop->goid = read_user(g + cfg->slot[CONFIG_G_GOID]);
	if (cfg->slot[CONFIG_FORCEGC_PC] && read_user(g + cfg->slot[CONFIG_G_STARTPC]) == cfg->slot[CONFIG_FORCEGC_PC])
		stop->flags |= FLAG_FORCEGC_GOROUTINE;
}

/* Go <= 1.21, entry of stopTheWorldWithSema: no worldStop carries the reason and the start, so keep them here. */
int stop_begin(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	struct stop *stop = current_stop();
	u64 m;

	if (!cfg || !stop)
		return 0;
	count_hit(HIT_STOP_BEGIN);
	stop->start_ns = bpf_ktime_get_ns();
	stop->flags = FLAG_ASKED;
	if (cfg->slot[CONFIG_REASON_IS_STRING]) {
		/* stopTheWorld(reason) leaves the reason in m.preemptoff; a collection leaves it empty. */
		m = read_user(GO_G(ctx) + cfg->slot[CONFIG_G_M]);
		stop->reason = read_user(m + cfg->slot[CONFIG_M_PREEMPTOFF]);
		stop->reason_len = read_user(m + cfg->slot[CONFIG_M_PREEMPTOFF] + 8);
		if (stop->reason_len == 0)
			stop->reason = 0;
	} else {
		stop->reason = GO_ARG0(ctx) & 0xff;
		stop->reason_len = 0;
	}
	return 0;
}

/* Go 1.22, the calls of timeHistogram.record in stopTheWorldWithSema: their argument is the stopping time. */
int stop_recorded(struct pt_regs *ctx)
{
	struct stop *stop = current_stop();

	if (!stop)
		return 0;
	count_hit(HIT_STOP_RECORDED);
	stop->finish_ns = GO_ARG1(ctx);
	return 0;
}

/* Go >= 1.22, entry of startTheWorldWithSema(now, worldStop). */
int restart_begin(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	struct stop *stop = current_stop();

	if (!cfg || !stop)
		return 0;
	count_hit(HIT_RESTART_BEGIN);
	stop->flags = FLAG_WORLDSTOP;
	stop->reason = GO_ARG1(ctx) & 0xff;
	stop->start_ns = GO_ARG2(ctx);
	if (cfg->slot[CONFIG_HAS_FINISH])
		stop->finish_ns = GO_ARG3(ctx);
	else if (stop->finish_ns) /* Go 1.22: the duration left by stop_recorded */
		stop->finish_ns += stop->start_ns;
	return 0;
}

/*
 * Near the end of startTheWorldWithSema every P has been handed out. The pause as the runtime reports it ends at
 * `now`; this probe's own time tells how much later the world really ran.
 */
static __always_inline int restarted(struct config *cfg, struct pt_regs *ctx, u64 now)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct stop *stop = current_stop();
	u64 cycle = 0, work;

	if (!cfg || !stop)
		return 0;
	work = cfg->slot[CONFIG_WORK_CYCLES];
	if (work)
		cycle = (u32)read_user(work);
	note_goroutine(cfg, ctx, stop);
	/* Only here: once a cycle is under way the next gcStart may set userForced for its own. */
	if (cfg->slot[CONFIG_WORK_USER_FORCED] && (read_user(cfg->slot[CONFIG_WORK_USER_FORCED]) & 0xff))
		stop->flags |= FLAG_USER_FORCED;
	if (!(stop->flags & FLAG_WORLDSTOP)) {
		/* Go <= 1.21: `now` is read after the restart, and a collection's own times are in `work`. */
		if (!(stop->flags & FLAG_ASKED))
			stop->start_ns = stop->reason = stop->reason_len = 0;
		if (work)
			emit(KIND_STW_WORK, time_ns, stop->reason_len ? stop->reason | stop->reason_len << 48 : 0,
			     read_user(work + WORK_PAUSE_START), read_user(work + WORK_T_SWEEP_TERM),
			     read_user(work + WORK_T_MARK_TERM), read_user(work + WORK_T_END));
	}
	emit(KIND_STW, time_ns, (stop->reason_len ? 0 : stop->reason & 0xff) | stop->flags << 8 | cycle << 32, stop->goid,
	     stop->start_ns, stop->finish_ns, now);
	stop->flags = 0;
	stop->finish_ns = 0;
	return 0;
}

/* amd64: the call of wakep, after which the result is loaded from its stack slot. */
int restart_end_slot(struct pt_regs *ctx)
{
	struct config *cfg = settings();

	count_hit(HIT_RESTART_END_SLOT);
	return cfg ? restarted(cfg, ctx, read_user(GO_SP(ctx) + cfg->slot[CONFIG_NOW_SLOT])) : 0;
}

/* Anywhere else: the RET, with the result in its register. */
int restart_end_ret(struct pt_regs *ctx)
{
	count_hit(HIT_RESTART_END_RET);
	return restarted(settings(), ctx, GO_RESULT0(ctx));
}

static __always_inline u64 read_if_known(u64 address)
{
	return address ? read_user(address) : UNKNOWN;
}

/* What is set, and what the next cycle's goal comes from: it was computed while the world was stopped. */
static __always_inline void emit_pacing(struct config *cfg, u64 time_ns, u64 cycle, u64 pacer)
{
	u64 limiter = cfg->slot[CONFIG_LIMITER_CYCLE];

	emit(KIND_CYCLE_PACING, time_ns, cycle, (u32)read_user(pacer + cfg->slot[CONFIG_GC_PERCENT]),
	     read_user(pacer + cfg->slot[CONFIG_GC_MEMORY_LIMIT]), read_user(pacer + cfg->slot[CONFIG_GC_HEAP_MINIMUM]),
	     read_user(pacer + cfg->slot[CONFIG_GC_PERCENT_GOAL]));
	emit(KIND_CYCLE_LIMIT, time_ns, cycle, read_user(pacer + cfg->slot[CONFIG_GC_MAPPED_READY]),
	     read_if_known(cfg->slot[CONFIG_RETURNED_EAGER]), read_if_known(cfg->slot[CONFIG_SCAVENGE_ASSIST]),
	     limiter ? (u32)read_user(limiter) : UNKNOWN);
}

/*
 * Entry of prepareFreeWorkbufs, right after the world runs again at the end of a cycle: `work` holds what gctrace prints.
 * With GODEBUG=gcstoptheworld=2 it is called while the world is stopped, too, to sweep: then the end is the last cycle's.
 */
int cycle_end(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	u64 words[11] = {};
	u64 pacer, cycle;
	bool late;

	if (!cfg)
		return 0;
	count_hit(HIT_CYCLE_END);
	if (!read_bytes(words, sizeof(words), cfg->slot[CONFIG_WORK_CYCLES]))
		return 0;
	if (words[WORK_T_END / 8] < words[WORK_T_MARK_TERM / 8])
		return 0;
	cycle = (u32)words[0];
	emit(KIND_CYCLE_CLOCK, time_ns, cycle, words[WORK_T_SWEEP_TERM / 8], words[WORK_T_MARK / 8],
	     words[WORK_T_MARK_TERM / 8], words[WORK_T_END / 8]);
	pacer = cfg->slot[CONFIG_GC_CONTROLLER];
	late = cfg->slot[CONFIG_WORK_HEAPS] != WORK_HEAPS; /* up to Go 1.21 pauseStart stands in front of them */
	emit(KIND_CYCLE_HEAP, time_ns, cycle, late ? words[WORK_HEAPS / 8 + 1] : words[WORK_HEAPS / 8],
	     late ? words[WORK_HEAPS / 8 + 2] : words[WORK_HEAPS / 8 + 1],
	     late ? words[WORK_HEAPS / 8 + 3] : words[WORK_HEAPS / 8 + 2],
	     pacer ? read_user(pacer + cfg->slot[CONFIG_GC_LAST_HEAP_GOAL]) : UNKNOWN);
	if (pacer && cfg->slot[CONFIG_HAS_PACING])
		emit_pacing(cfg, time_ns, cycle, pacer);
	emit(KIND_CYCLE_WORK, time_ns, cycle, words[WORK_PAUSE_NS / 8],
	     pacer ? read_user(pacer + cfg->slot[CONFIG_GC_ASSIST_TIME]) : UNKNOWN, (u32)words[WORK_MAXPROCS / 8], 0);
	return 0;
}

/* The last gopark of bgsweep: every span of the finished cycle has been swept. */
int sweep_end(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();

	if (!cfg)
		return 0;
	count_hit(HIT_SWEEP_END);
	emit(KIND_SWEEP_END, time_ns, cfg->slot[CONFIG_WORK_CYCLES] ? (u32)read_user(cfg->slot[CONFIG_WORK_CYCLES]) : 0, 0,
	     0, 0, 0);
	return 0;
}
