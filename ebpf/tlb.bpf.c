/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the processor's counters count while the target's threads have a CPU, stretch by stretch.
 *
 * A stretch is read at both ends: where a thread gets and loses its CPU, where the collector goes from one phase to the
 * next, where a thread begins or ends to work for it, and at least every millisecond. Stretches of one phase are added up
 * on their CPU and told together, so that a program that switches a hundred thousand times a second costs no more events.
 */

#define CPUS 1024
#define TOLD_NS 1000000 /* a sum waits no longer than that for another stretch */

struct reading {
	u64 count;
	u64 enabled_ns;
	u64 running_ns;
};

/* What a CPU is at: the stretch that is open, and the sum of those that are closed and not told. */
struct turn {
	u64 begin_ns; /* of the open stretch; 0: no thread of the target has this CPU */
	u64 other_ns; /* when another process was last known to have it; 0 in a stretch, and before anything is known */
	u64 phase;    /* how many phases had changed by then */
	u64 work;     /* WORK_*: what the thread does in it */
	u64 first_ns; /* of the sum; 0: nothing waits */
	u64 end_ns;
	u64 ran_ns;
	u64 sum_phase;
	u64 sum_work;
	u64 busy; /* a uprobe's program, which can be interrupted, is at it */
	u64 torn; /* and was */
	struct reading last[COUNTERS];
	struct reading sum[COUNTERS];
};

BPF_PERF_ARRAY(counters, CPUS *COUNTERS); /* [cpu * COUNTERS + number] */
BPF_PERCPU_ARRAY(turns, struct turn, 1);
BPF_ARRAY(phases, u64, 1);
BPF_TABLE("lru_hash", u32, u64, works, 16384); /* what a thread does for the collector */
BPF_ARRAY(target_mm, u64, 1);

static __always_inline struct turn *this_turn(void)
{
	int zero = 0;

	return turns.lookup(&zero);
}

static __always_inline u64 phase_now(void)
{
	int zero = 0;
	u64 *phase = phases.lookup(&zero);

	return phase ? *phase : 0;
}

/*
 * Read every counter; what it counted since the last time goes to the sum if that was within the stretch. The time is read
 * next to them, at both ends behind them: on a CPU that was idle the way there alone takes microseconds, which would be of
 * the stretch by the clock and not by the counters.
 */
static __always_inline u64 read_counters(struct config *cfg, struct turn *turn, bool in_stretch)
{
	u32 first = bpf_get_smp_processor_id() * COUNTERS;
	struct reading now, *last, *sum;
	u32 number;

#pragma unroll
	for (number = 0; number < COUNTERS; number++) {
		if (number >= cfg->slot[CONFIG_COUNTERS])
			break;
		last = &turn->last[number];
		sum = &turn->sum[number];
		/* Of another kind of core: this event is not counted here. */
		if (counters.perf_counter_value(first + number, &now, sizeof(now)))
			continue;
		if (in_stretch) {
			sum->count += now.count - last->count;
			sum->enabled_ns += now.enabled_ns - last->enabled_ns;
			sum->running_ns += now.running_ns - last->running_ns;
		}
		*last = now;
	}
	return bpf_ktime_get_ns();
}

static __always_inline void forget(struct turn *turn)
{
	__builtin_memset(turn->sum, 0, sizeof(turn->sum));
	turn->first_ns = 0;
	turn->ran_ns = 0;
}

static __always_inline void tell(struct config *cfg, struct turn *turn)
{
	u32 number;

	if (!turn->first_ns)
		return;
	emit(KIND_STRETCH, turn->end_ns, turn->first_ns, turn->ran_ns, turn->sum_work, 0, 0);
#pragma unroll
	for (number = 0; number < COUNTERS; number++) {
		struct reading *sum = &turn->sum[number];

		if (number >= cfg->slot[CONFIG_COUNTERS])
			break;
		if (sum->enabled_ns)
			emit(KIND_COUNTED, turn->end_ns, turn->first_ns, number | turn->sum_work << 8, sum->count,
			     sum->enabled_ns, sum->running_ns);
	}
	forget(turn);
}

/* The open stretch ends. What was closed before in another phase, or in other work, is told by itself. */
static __always_inline u64 stretch_ends(struct config *cfg, struct turn *turn)
{
	u64 now_ns;

	if (turn->sum_phase != turn->phase || turn->sum_work != turn->work)
		tell(cfg, turn);
	if (!turn->first_ns) {
		turn->first_ns = turn->begin_ns;
		turn->sum_phase = turn->phase;
		turn->sum_work = turn->work;
	}
	now_ns = read_counters(cfg, turn, true);
	turn->ran_ns += now_ns - turn->begin_ns;
	turn->end_ns = now_ns;
	turn->begin_ns = 0;
	if (turn->phase != phase_now() || now_ns - turn->first_ns >= TOLD_NS)
		tell(cfg, turn);
	return now_ns;
}

/* A thread of the target has this CPU, and nothing told when it came: what it did until now is not counted. */
static __always_inline void came_unseen(struct turn *turn)
{
	if (turn->other_ns)
		emit(KIND_UNSEEN, bpf_ktime_get_ns(), turn->other_ns, 0, 0, 0, 0);
}

/* Another process has this CPU, and nothing told when the target's thread left: the open stretch has no end. */
static __always_inline void left_unseen(struct turn *turn)
{
	if (turn->begin_ns)
		emit(KIND_UNSEEN, bpf_ktime_get_ns(), turn->begin_ns, 0, 0, 0, 0);
	turn->begin_ns = 0;
}

/* The next one begins where one ends, or where none was open: then a switch has just told of it, or none did. */
static __always_inline void stretch_begins(struct config *cfg, struct turn *turn, u32 tid)
{
	u64 *work = works.lookup(&tid);

	came_unseen(turn);
	turn->other_ns = 0;
	turn->begin_ns = turn->begin_ns ? stretch_ends(cfg, turn) : read_counters(cfg, turn, false);
	turn->phase = phase_now();
	turn->work = work ? *work : WORK_PROGRAM;
}

/* Whoever takes the CPU from a uprobe's program leaves the turn alone, and that one finds out. */
static __always_inline bool is_torn(struct turn *turn)
{
	if (!turn->busy)
		return false;
	turn->torn = 1;
	return true;
}

/*
 * In a uprobe: one stretch ends and the next begins. This program may lose the CPU half-way, to one that comes here too.
 * What it was counting is then not known, and counted as a loss.
 */
static __always_inline void split(struct config *cfg)
{
	struct turn *turn = this_turn();

	if (!turn || is_torn(turn))
		return;
	turn->torn = 0;
	turn->busy = 1;
	asm volatile("" ::: "memory");
	stretch_begins(cfg, turn, bpf_get_current_pid_tgid());
	asm volatile("" ::: "memory");
	turn->busy = 0;
	if (turn->torn) {
		turn->begin_ns = 0;
		forget(turn);
		count_loss();
	}
}

/* args: preempt, prev, next. */
int on_tracepoint__sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	void *next = (void *)ctx->args[2];
	struct config *cfg = settings();
	struct turn *turn = this_turn();
	u64 mm = 0;
	u32 tgid = 0, tid = 0;
	bool own = is_own(cfg);
	int zero = 0;

	if (!cfg || !turn)
		return 0;
	if (own) {
		count_hit(HIT_ON_TRACEPOINT__SCHED_SWITCH);
		if (cfg->slot[CONFIG_TASK_MM]) {
			bpf_probe_read_kernel(&mm, sizeof(mm), (void *)ctx->args[1] + cfg->slot[CONFIG_TASK_MM]);
			if (mm)
				target_mm.update(&zero, &mm);
		}
	}
	if (is_torn(turn))
		return 0;
	if (!own)
		left_unseen(turn);
	else if (turn->begin_ns)
		stretch_ends(cfg, turn);
	else
		came_unseen(turn);
	bpf_probe_read_kernel(&tgid, sizeof(tgid), next + cfg->slot[CONFIG_TASK_TGID]);
	if (!tgid || tgid != target_tgid(cfg)) {
		turn->other_ns = bpf_ktime_get_ns();
		return 0;
	}
	bpf_probe_read_kernel(&tid, sizeof(tid), next + cfg->slot[CONFIG_TASK_PID]);
	turn->other_ns = 0;
	stretch_begins(cfg, turn, tid);
	return 0;
}

/* A thread that keeps its CPU is looked at too; and what waits on a CPU that the target left is told. */
int on_software_event__cpu_clock(struct perf_event_context *ctx)
{
	struct config *cfg = settings();
	struct turn *turn = this_turn();

	if (!cfg || !turn || turn->busy)
		return 0;
	if (is_own(cfg)) {
		count_hit(HIT_ON_SOFTWARE_EVENT__CPU_CLOCK);
		stretch_begins(cfg, turn, bpf_get_current_pid_tgid());
	} else {
		left_unseen(turn);
		turn->other_ns = bpf_ktime_get_ns();
		if (turn->other_ns - turn->first_ns >= TOLD_NS)
			tell(cfg, turn);
	}
	return 0;
}

/* The collector goes from one phase to the next, on every CPU. */
int phase_changes(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	int zero = 0;
	u64 *phase = phases.lookup(&zero);

	if (!cfg || !phase)
		return 0;
	count_hit(HIT_PHASE_CHANGES);
	__sync_fetch_and_add(phase, 1);
	split(cfg);
	return 0;
}

static __always_inline void works_as(u64 work)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct config *cfg = settings();

	if (!cfg)
		return;
	if (work == WORK_PROGRAM)
		works.delete(&tid);
	else
		works.update(&tid, &work);
	split(cfg);
}

/* gcAssistAlloc1, entry: a goroutine that allocates is made to mark. */
int assist_begins(struct pt_regs *ctx)
{
	count_hit(HIT_ASSIST_BEGINS);
	works_as(WORK_ASSIST);
	return 0;
}

int assist_ends(struct pt_regs *ctx)
{
	count_hit(HIT_ASSIST_ENDS);
	works_as(WORK_PROGRAM);
	return 0;
}

/* gcDrain, entry: a mark worker is at work. */
int worker_begins(struct pt_regs *ctx)
{
	count_hit(HIT_WORKER_BEGINS);
	works_as(WORK_WORKER);
	return 0;
}

int worker_ends(struct pt_regs *ctx)
{
	count_hit(HIT_WORKER_ENDS);
	works_as(WORK_PROGRAM);
	return 0;
}

/* args: why (enum tlb_flush_reason), how many pages, -1 for all. */
int on_tracepoint__tlb_flush(struct bpf_raw_tracepoint_args *ctx)
{
	if (!is_own(settings()))
		return 0;
	count_hit(HIT_ON_TRACEPOINT__TLB_FLUSH);
	emit(KIND_FLUSH, bpf_ktime_get_ns(), ctx->args[0], ctx->args[1], 0, 0, 0);
	return 0;
}

/* khugepaged makes a huge page of small ones, or not. args: mm, how many were isolated, status (enum scan_result). */
int on_tracepoint__mm_collapse_huge_page(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	u64 *mm = target_mm.lookup(&zero);

	if (!mm || !*mm || *mm != ctx->args[0])
		return 0;
	count_hit(HIT_ON_TRACEPOINT__MM_COLLAPSE_HUGE_PAGE);
	emit(KIND_COLLAPSE, bpf_ktime_get_ns(), ctx->args[2], 0, 0, 0, 0);
	return 0;
}
