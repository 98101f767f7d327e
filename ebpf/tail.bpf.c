/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whom a stop-the-world waits for, and what the kernel does meanwhile: when each P stops, when threads of the target are
 * off the CPU and why, which page faults they take, and where they are when the preemption signal reaches them. What each
 * event means is told in probes/tail.py; nothing but what a stop needs is emitted.
 *
 * What runs in the kernel sees every process, and looks up whether it is a target: the number is all that a bystander is
 * asked for.
 */

#define BURST_GAP_NS 4000 /* user code between two faults of one burst: a 4 KiB fault leaves less */
#define BURST_MIN_NS 10000
#define SIGURG 23

/* The stop that is under way. */
struct stop {
	u64 tgid; /* of a single target: its number in the first PID namespace; 0 until a thread of it has told */
	u64 active;
	u64 number;
	u64 begin_ns;
	u64 restart_ns; /* when the world began to be restarted */
	u64 end_ns;	/* when the last stop was over */
};

/* What is known of a thread of the target. */
struct thread {
	u64 off_ns; /* since when it is off the CPU, 0 while it is on it */
	u64 wake_ns;
	u64 stack;
	u64 kernel_stack; /* where a page fault went to sleep */
	u64 fault_ns;	  /* since when a page fault is open */
	u64 fault_address;
	u64 burst_ns; /* the beginning and the end of page faults in close succession */
	u64 burst_end_ns;
	u64 burst_faults; /* their number, and FAULT_* flags */
	u64 signal_ns;	  /* since when a SIGURG is sent and not delivered */
	u64 blocked;	  /* whether the thread had blocked it by then: SIGNAL_BLOCKED or 0 */
	u64 stop;	  /* the number of the stop in which one was delivered last */
	u64 told_ns;	  /* when a delivery in that stop was told last */
	u32 deliveries;	  /* how many there were in it */
	u32 state;
	u32 flags;
	u32 waker; /* who woke it */
};

PER_TARGET(stops, struct stop);
BPF_TABLE("lru_hash", u32, struct thread, threads, 16384);
BPF_PERCPU_ARRAY(slices, u64, 1); /* when this CPU turned to another task last, if that was during a stop */

static __always_inline struct stop *current_stop(void)
{
	u32 key = target_key();

	return stops.lookup(&key);
}

#ifdef MANY
#define MOST_STOPPING 16

/* The targets that stop the world, or did when they ended: their numbers, 0 for none. */
struct stopping {
	union {
		u32 tgid[MOST_STOPPING];
		u64 pairs[MOST_STOPPING / 2]; /* to see at once that there is none */
	};
};

BPF_ARRAY(stopping, struct stopping, 1);

/* The stop of a process; NULL if it is no target. */
static __always_inline struct stop *stop_of(u32 tgid)
{
	return config.lookup(&tgid) ? stops.lookup(&tgid) : NULL;
}

static __always_inline void stop_begins(struct stop *stop, u64 time_ns)
{
	u32 tgid = target_key(), i, at;
	u64 *era = current_era();
	int zero = 0;
	struct stopping *all = stopping.lookup(&zero);

	if (era)
		*era = time_ns;
	if (!all || stop->active)
		return;
	for (i = 0; i < MOST_STOPPING; i++) {
		at = (tgid + i) % MOST_STOPPING;
		if (!all->tgid[at]) {
			all->tgid[at] = tgid;
			return;
		}
	}
}

static __always_inline void stop_ends(struct stop *stop)
{
	u32 tgid = target_key(), i;
	bool known = false;
	int zero = 0;
	struct stopping *all = stopping.lookup(&zero);

	if (!all || !stop->active)
		return;
	for (i = 0; i < MOST_STOPPING; i++) {
		if (all->tgid[i] == tgid) {
			all->tgid[i] = 0;
			known = true;
		}
	}
	if (!known) /* there were too many at once: who had the CPUs meanwhile was not told */
		count_loss();
}
#else
static __always_inline struct stop *stop_of(u32 tgid)
{
	struct stop *stop = current_stop();
	struct config *cfg = settings();

	if (!stop || !cfg)
		return NULL;
	if (!stop->tgid)
		stop->tgid = cfg->slot[CONFIG_TGID];
	return stop->tgid && stop->tgid == tgid ? stop : NULL;
}

static __always_inline void stop_begins(struct stop *stop, u64 time_ns)
{
	stop->tgid = bpf_get_current_pid_tgid() >> 32;
}

static __always_inline void stop_ends(struct stop *stop)
{
}
#endif

/* The stop of the process that the current task is a thread of; NULL if that is no target. */
static __always_inline struct stop *own_stop(void)
{
	return stop_of(bpf_get_current_pid_tgid() >> 32);
}

static __always_inline struct thread *thread_of(u32 tid)
{
	struct thread fresh = {};
	struct thread *thread = threads.lookup(&tid);

	if (thread)
		return thread;
	threads.update(&tid, &fresh);
	return threads.lookup(&tid);
}

/* Whether the stack that `user_stack_at` has just walked is that of a system call: it will go on behind the instruction. */
static __always_inline u64 is_in_syscall(int place)
{
	u32 code = 0;
	struct frames *walk = walks.lookup(&place);

	if (!walk || !walk->pc[1])
		return 0;
	bpf_probe_read_user(&code, SYSCALL_BYTES, (void *)(walk->pc[1] - SYSCALL_BYTES));
	return code == SYSCALL_INSTRUCTION;
}

/* Emit the page faults that came one right after the other, and forget them. */
static __always_inline void end_burst(u32 tid, struct thread *thread, u64 time_ns)
{
	u64 begin = thread->burst_ns;

	if (begin && (thread->burst_end_ns - begin >= BURST_MIN_NS || thread->burst_faults >> 32))
		emit_of(tid, KIND_FAULTS, time_ns, begin, thread->burst_end_ns, thread->burst_faults, thread->fault_address,
			0);
	thread->burst_ns = 0;
}

static __always_inline void extend_burst(u32 tid, struct thread *thread, u64 end_ns, u64 flags)
{
	if (thread->burst_ns && thread->fault_ns > thread->burst_end_ns + BURST_GAP_NS)
		end_burst(tid, thread, end_ns);
	if (!thread->burst_ns) {
		thread->burst_ns = thread->fault_ns;
		thread->burst_faults = 0;
	}
	thread->burst_end_ns = end_ns;
	thread->burst_faults = (thread->burst_faults + 1) | flags << 32;
}

/* A page fault is over. */
static __always_inline void fault_ended(struct stop *stop, u64 flags)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = threads.lookup(&tid);

	if (!thread || !thread->fault_ns)
		return;
	if (stop->active)
		extend_burst(tid, thread, bpf_ktime_get_ns(), flags);
	thread->fault_ns = 0;
}

/* Entry of stopTheWorldWithSema(reason): the current thread asks for a stop. */
int stop_asked(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct stop *stop = current_stop();

	if (!stop || !settings())
		return 0;
	count_hit(HIT_STOP_ASKED);
	stop_begins(stop, time_ns);
	stop->number++;
	stop->begin_ns = time_ns;
	stop->active = 1;
	emit(KIND_STOP_ASKED, time_ns, GO_ARG0(ctx) & 0xff, user_stack_at(WALK_ASLEEP, ctx, time_ns), 0, 0, 0);
	return 0;
}

/* The current thread gives up the P it holds. */
static __always_inline void p_given_up(struct pt_regs *ctx, u64 p, u64 how)
{
	u64 time_ns = bpf_ktime_get_ns();
	u32 tid = bpf_get_current_pid_tgid();
	struct config *cfg = settings();
	struct stop *stop = own_stop();
	struct thread *thread;
	u64 deliveries = 0, signal_ns = 0, blocked = 0, m;

	if (!cfg || !stop || !stop->active)
		return;
	if (!p && cfg->slot[CONFIG_M_P]) {
		m = read_user(GO_G(ctx) + cfg->slot[CONFIG_G_M]);
		p = read_user(m + cfg->slot[CONFIG_M_P]);
	}
	thread = threads.lookup(&tid);
	if (thread) {
		end_burst(tid, thread, time_ns);
		signal_ns = thread->signal_ns;
		blocked = signal_ns ? thread->blocked : 0;
		if (thread->stop == stop->number)
			deliveries = thread->deliveries;
	}
	emit(KIND_P_STOPPED, time_ns, p ? (u32)read_user(p) : ~0ULL, how, signal_ns, deliveries, blocked);
}

/* Entry of gcstopm: the thread's P stops. */
int p_stopped(struct pt_regs *ctx)
{
	count_hit(HIT_P_STOPPED);
	p_given_up(ctx, 0, STOPPED);
	return 0;
}

/* Entry of entersyscall_gcwait, or entersyscallHandleGCWait: it stops because its goroutine enters a system call. */
int p_stopped_in_syscall(struct pt_regs *ctx)
{
	count_hit(HIT_P_STOPPED_IN_SYSCALL);
	p_given_up(ctx, 0, STOPPED);
	return 0;
}

/* Entry of handoffp(p): this thread blocks and leaves its P to another thread, which has to wake up to stop it. */
int p_handed_off(struct pt_regs *ctx)
{
	count_hit(HIT_P_HANDED_OFF);
	p_given_up(ctx, GO_ARG0(ctx), HANDED_OFF);
	return 0;
}

/* Entry of startTheWorldWithSema. */
int restart_asked(struct pt_regs *ctx)
{
	struct stop *stop = own_stop();

	if (!stop)
		return 0;
	count_hit(HIT_RESTART_ASKED);
	stop->restart_ns = bpf_ktime_get_ns();
	return 0;
}

/* Near the end of startTheWorldWithSema: every P has been handed out. */
int restart_done(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	u32 tid = bpf_get_current_pid_tgid();
	struct stop *stop = own_stop();
	struct thread *thread;

	if (!stop)
		return 0;
	count_hit(HIT_RESTART_DONE);
	thread = threads.lookup(&tid);
	if (thread)
		end_burst(tid, thread, time_ns);
	emit(KIND_RESTART_DONE, time_ns, stop->restart_ns, stop->number, 0, 0, 0);
	stop_ends(stop);
	stop->active = 0;
	stop->end_ns = time_ns;
	return 0;
}

static __always_inline void leaves_cpu(struct bpf_raw_tracepoint_args *ctx, struct config *cfg, struct stop *stop,
				       u64 time_ns)
{
	void *prev = (void *)ctx->args[1];
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = thread_of(tid);
	u32 state;
	bool wanted;

	if (!thread)
		return;
	state = state_left_in(ctx, cfg);
	end_burst(tid, thread, time_ns);
	thread->off_ns = time_ns;
	/* Another CPU may have woken it already, while it was on its way here. */
	if (!(state & STATE_SLEEPING) || thread->wake_ns + WAKE_RACE_NS < time_ns) {
		thread->wake_ns = 0;
		thread->flags = 0;
	}
	thread->state = state;
	thread->flags &= WAKE_THROTTLED;
	if (is_throttled(cfg, prev))
		thread->flags |= OFF_THROTTLED;
	if (thread->fault_ns)
		thread->flags |= OFF_IN_FAULT;
	/* A stack is dear: only where it may be asked for, in a stop or a sleep that no signal ends. */
	wanted = stop->active | ((state & ~STATE_SLEEPING) != 0) | ((state & STATE_SLEEPING) == 2);
	thread->stack = wanted ? user_stack(ctx, time_ns) : 0;
	/* Read again: what the verifier knows of a variable makes it follow the walk of the stack once more. */
	state = *(volatile u32 *)&thread->state;
	thread->kernel_stack =
		thread->stack && thread->fault_ns && (state & STATE_SLEEPING) ? kernel_stack(ctx, time_ns) : 0;
}

/* A thread of the target ``tgid`` does. */
static __always_inline void gets_cpu(struct bpf_raw_tracepoint_args *ctx, struct config *host, u32 tgid, struct stop *stop,
				     u64 time_ns)
{
	void *next = (void *)ctx->args[2];
	u32 tid = read_kernel(next, host->slot[CONFIG_TASK_PID], 4);
	struct thread *thread = threads.lookup(&tid);

	if (!thread || !thread->off_ns)
		return;
	if (stop->active || thread->off_ns < stop->end_ns)
		emit_to(tgid, tid, KIND_OFF_CPU, time_ns, thread->off_ns, thread->wake_ns,
			(u64)(thread->state & 0xffff) | (u64)thread->flags << 16 | (u64)thread->waker << 32, thread->stack,
			thread->kernel_stack);
	thread->off_ns = 0;
	thread->wake_ns = 0;
}

/* Tell a target that stops the world who had this CPU: a thread that waits for it may be waiting for anybody. */
static __always_inline void tell_slice(u32 key, u64 era, struct stop *stop, u32 tgid, struct name *name, u64 begin_ns,
				       u64 time_ns)
{
	u32 tid = bpf_get_current_pid_tgid();

	tell_name_to(key, era, tid, tgid, name, time_ns);
	emit_to(key, tid, KIND_RAN, time_ns, begin_ns > stop->begin_ns ? begin_ns : stop->begin_ns, 0, 0, 0, 0);
}

#ifdef MANY
/* The current task leaves its CPU: for whoever stops the world now. */
static __always_inline void ends_slice(void *prev, struct config *host)
{
	u32 tid = bpf_get_current_pid_tgid(), tgid = bpf_get_current_pid_tgid() >> 32, i, key;
	u64 time_ns, *begin;
	struct name name = {};
	struct stop *stop;
	int zero = 0;
	struct stopping *all = stopping.lookup(&zero);

	if (!all || !(all->pairs[0] | all->pairs[1] | all->pairs[2] | all->pairs[3] | all->pairs[4] | all->pairs[5] |
		      all->pairs[6] | all->pairs[7]))
		return;
	begin = slices.lookup(&zero);
	if (!begin)
		return;
	time_ns = bpf_ktime_get_ns();
	read_name(host, prev, &name);
#pragma clang loop unroll(disable)
	for (i = 0; i < MOST_STOPPING; i++) {
		key = all->tgid[i];
		if (!key)
			continue;
		stop = stop_of(key);
		if (!stop || !stop->active) /* it ended in a stop, or is to be left alone */
			all->tgid[i] = 0;
		else if (tid)
			tell_slice(key, stop->begin_ns, stop, tgid, &name, *begin, time_ns);
	}
	*begin = time_ns;
}
#else
static __always_inline void ends_slice(void *prev, struct config *host)
{
	u64 time_ns = bpf_ktime_get_ns(), *begin;
	u32 tid = bpf_get_current_pid_tgid(), tgid = bpf_get_current_pid_tgid() >> 32;
	struct name name = {};
	struct stop *stop = current_stop();
	int zero = 0;

	if (!stop || !stop->active)
		return;
	begin = slices.lookup(&zero);
	if (!begin)
		return;
	if (tid) {
		read_name(host, prev, &name);
		tell_slice(0, 0, stop, tgid, &name, *begin, time_ns);
	}
	*begin = time_ns;
}
#endif

/* A CPU turns from one task to another, in any process: args are preempt, prev, next and, from 5.18 on, prev's state. */
int on_tracepoint__sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	struct config *host = host_settings();
	u32 leaving = bpf_get_current_pid_tgid() >> 32, getting;
	struct stop *stop;

	if (!host)
		return 0;
	getting = read_kernel((void *)ctx->args[2], host->slot[CONFIG_TASK_TGID], 4);
	ends_slice((void *)ctx->args[1], host);
	stop = leaving ? stop_of(leaving) : NULL;
	if (stop) {
		count_hit_of(leaving, HIT_ON_TRACEPOINT__SCHED_SWITCH);
		leaves_cpu(ctx, host, stop, bpf_ktime_get_ns());
	}
	if (getting != leaving)
		stop = getting ? stop_of(getting) : NULL;
	if (stop) {
		if (getting != leaving)
			count_hit_of(getting, HIT_ON_TRACEPOINT__SCHED_SWITCH);
		gets_cpu(ctx, host, getting, stop, bpf_ktime_get_ns());
	}
	return 0;
}

/* A task is about to be woken, by the current one: args are the task. */
int on_tracepoint__sched_waking(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	struct config *cfg = host_settings();
	struct thread *thread;
	u32 tid, tgid;

	if (!cfg)
		return 0;
	tgid = read_kernel(task, cfg->slot[CONFIG_TASK_TGID], 4);
	if (!stop_of(tgid))
		return 0;
	count_hit_of(tgid, HIT_ON_TRACEPOINT__SCHED_WAKING);
	tid = read_kernel(task, cfg->slot[CONFIG_TASK_PID], 4);
	thread = threads.lookup(&tid);
	if (thread && (!thread->wake_ns || thread->wake_ns < thread->off_ns)) {
		thread->wake_ns = bpf_ktime_get_ns();
		thread->waker = bpf_get_current_pid_tgid();
		thread->flags &= ~WAKE_THROTTLED;
		if (is_throttled(cfg, task))
			thread->flags |= WAKE_THROTTLED;
	}
	return 0;
}

/* A signal is sent by the current task: args are the signal, its information, and the task it goes to. */
int on_tracepoint__signal_generate(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[2];
	struct config *cfg = host_settings();
	struct thread *thread;
	u32 tgid;

	if ((int)ctx->args[0] != SIGURG || !cfg)
		return 0;
	tgid = read_kernel(task, cfg->slot[CONFIG_TASK_TGID], 4);
	if (!stop_of(tgid))
		return 0;
	count_hit_of(tgid, HIT_ON_TRACEPOINT__SIGNAL_GENERATE);
	thread = thread_of(read_kernel(task, cfg->slot[CONFIG_TASK_PID], 4));
	if (thread && !thread->signal_ns) {
		thread->signal_ns = bpf_ktime_get_ns();
		thread->blocked = 0;
		if (cfg->slot[CONFIG_TASK_BLOCKED] &&
		    read_kernel(task, cfg->slot[CONFIG_TASK_BLOCKED], 8) >> (SIGURG - 1) & 1)
			thread->blocked = SIGNAL_BLOCKED;
	}
	return 0;
}

/* A signal reaches the current task: args are the signal and more. */
int on_tracepoint__signal_deliver(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct stop *stop;
	struct thread *thread;
	u64 time_ns, sent_ns, stack;

	if ((int)ctx->args[0] != SIGURG)
		return 0;
	stop = own_stop();
	if (!stop)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SIGNAL_DELIVER);
	thread = thread_of(tid);
	if (!thread)
		return 0;
	time_ns = bpf_ktime_get_ns();
	sent_ns = thread->signal_ns;
	thread->signal_ns = 0;
	/* A fault that a signal interrupts returns to user space without ever being counted, and is then taken again. */
	if (stop->active && thread->fault_ns)
		extend_burst(tid, thread, time_ns, FAULT_INTERRUPTED);
	thread->fault_ns = 0;
	if (!stop->active)
		return 0;
	if (thread->stop != stop->number) {
		thread->stop = stop->number;
		thread->deliveries = 0;
		thread->told_ns = 0;
	}
	/* The first, and then as many as leave no more than an eighth of the stop untold. */
	if (time_ns - thread->told_ns >= (time_ns - stop->begin_ns) / 8) {
		thread->told_ns = time_ns;
		stack = user_stack(ctx, time_ns);
		emit(KIND_PREEMPT_SIGNAL, time_ns, sent_ns, stack, is_in_syscall(WALK) | thread->blocked, 0, 0);
	}
	thread->deliveries++;
	return 0;
}

/* The clock, on every CPU: what the current thread runs while it keeps the world from stopping, or the stop from ending. */
int on_software_event__cpu_clock(struct perf_event_context *ctx)
{
	struct stop *stop = own_stop();
	struct config *cfg;
	u8 waiting = 0;
	u64 time_ns, stack;

	if (!stop)
		return 0;
	cfg = settings();
	if (!cfg)
		return 0;
	if (cfg->slot[CONFIG_GCWAITING]) /* a stop may be older than we are */
		bpf_probe_read_user(&waiting, sizeof(waiting), (void *)cfg->slot[CONFIG_GCWAITING]);
	if (!waiting && !stop->active)
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__CPU_CLOCK);
	time_ns = bpf_ktime_get_ns();
	stack = user_stack_at(WALK_IN_INTERRUPT, ctx, time_ns);
	emit(KIND_IN_STOP, time_ns, stack, is_in_syscall(WALK_IN_INTERRUPT), 0, 0, 0);
	return 0;
}

/* A page fault begins, in any process. */
int on_software_event__page_faults(struct perf_event_context *ctx)
{
	struct stop *stop = own_stop();
	struct thread *thread;

	if (!stop)
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS);
	thread = thread_of(bpf_get_current_pid_tgid());
	if (thread) {
		thread->fault_ns = bpf_ktime_get_ns();
		thread->fault_address = ctx->addr;
	}
	return 0;
}

int on_software_event__page_faults_min(struct perf_event_context *ctx)
{
	struct stop *stop = own_stop();

	if (!stop)
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MIN);
	fault_ended(stop, 0);
	return 0;
}

int on_software_event__page_faults_maj(struct perf_event_context *ctx)
{
	struct stop *stop = own_stop();

	if (!stop)
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MAJ);
	fault_ended(stop, FAULT_MAJOR);
	return 0;
}
