/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How long mark assists hold each goroutine: from the beginning of runtime.gcAssistAlloc until its debt is paid, by its
 * own work, or by others while it is parked; and where it allocated. Where each probe sits is told in probes/assist.py.
 */

/* The assist that a goroutine is in, or was in last. */
struct assist {
	u64 begin_ns;
	u64 last_ns;	/* when it was seen last */
	u64 checked_ns; /* when its debt was looked at last, which it parks right after */
	u64 parked_ns;
	u64 works; /* how often it has marked */
	u64 stack; /* who allocates, 0 if that is not known */
};

BPF_TABLE("lru_hash", u64, struct assist, assists, 16384); /* by the address of g */

static __always_inline void emit_assist(struct config *cfg, u64 g, struct assist *assist)
{
	u64 goid = cfg->slot[CONFIG_HAS_GOID] ? read_user(g + cfg->slot[CONFIG_G_GOID]) : 0;

	emit(KIND_ASSIST, bpf_ktime_get_ns(), goid, assist->begin_ns, assist->last_ns, assist->parked_ns, assist->works);
	if (assist->begin_ns)
		emit(KIND_ASSIST_BY, bpf_ktime_get_ns(), goid, assist->begin_ns, assist->last_ns, assist->parked_ns,
		     assist->stack);
}

/* Whose walk is in this CPU's place for it: where the kernel may take the CPU from us, another thread may come in between.
 */
BPF_PERCPU_ARRAY(walkers, u64, 1);

/* Remember who allocates. */
static __always_inline void note_stack(void *ctx, struct assist *assist)
{
	u64 self = bpf_get_current_pid_tgid(), stack;
	int zero = 0;
	volatile u64 *walker = walkers.lookup(&zero);

	if (!walker || assist->stack)
		return;
	*walker = self;
	stack = user_stack(ctx, bpf_ktime_get_ns());
	if (*walker == self)
		assist->stack = stack;
}

static __always_inline struct assist *assist_of(u64 g)
{
	struct assist none = {};
	struct assist *found = assists.lookup(&g);

	if (found)
		return found;
	/* It had begun before the probes were there: its beginning stays 0. */
	assists.update(&g, &none);
	return assists.lookup(&g);
}

/* Entry of gcAssistAlloc. Most calls take credit that the background workers have earned, and are over at once. */
int assist_begin(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	struct assist fresh = {.begin_ns = bpf_ktime_get_ns()};
	struct assist *before;
	u64 g = GO_G(ctx);

	if (!cfg)
		return 0;
	count_hit(HIT_ASSIST_BEGIN);
	before = assists.lookup(&g);
	/* One that tried again, and found credit then. */
	if (before && before->works)
		emit_assist(cfg, g, before);
	if (assists.update(&g, &fresh))
		count_loss();
	return 0;
}

/* It has marked, and looks whether that was enough: otherwise it parks, or tries again. */
int assist_checked(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	struct assist *assist;
	u64 g = GO_G(ctx);

	if (!cfg)
		return 0;
	count_hit(HIT_ASSIST_CHECKED);
	assist = assist_of(g);
	if (!assist) {
		count_loss();
		return 0;
	}
	assist->works++;
	assist->last_ns = assist->checked_ns = bpf_ktime_get_ns();
	note_stack(ctx, assist);
	if ((s64)read_user(g + cfg->slot[CONFIG_G_ASSIST_BYTES]) >= 0) {
		emit_assist(cfg, g, assist);
		assists.delete(&g);
	}
	return 0;
}

/* gcParkAssist is back: true once its debt is paid or the cycle over, false if it was not parked and has to try again. */
int assist_parked(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	struct assist *assist;
	u64 g = GO_G(ctx);

	if (!cfg)
		return 0;
	count_hit(HIT_ASSIST_PARKED);
	assist = assist_of(g);
	if (!assist) {
		count_loss();
		return 0;
	}
	assist->last_ns = bpf_ktime_get_ns();
	if (!(GO_RESULT0(ctx) & 0xff))
		return 0;
	note_stack(ctx, assist);
	if (assist->checked_ns)
		assist->parked_ns += assist->last_ns - assist->checked_ns;
	emit_assist(cfg, g, assist);
	assists.delete(&g);
	return 0;
}
