/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a process starts, as a tree: every fork, execve (with its arguments) and exit, with the CPU time in between, and the
 * files that tell what a build does: of a Go build cache and a module cache, known by how their names end.
 */

#define CHUNK 32	  /* of a text in one event */
#define MOST_ARGUMENTS 64 /* chunks */
#define PATH_BYTES 512
#define LONGEST_TICK_NS 10000000
#define OPENED 0
#define RENAMED 1
#define REMOVED 2

struct process {
	u64 cpu_ns;
	u64 runnable_ns;
};

/* Which task has a CPU, and since when. */
struct turn {
	u64 since_ns;
	u64 task;
};

/* A call on a file that has not returned. */
struct call {
	u64 begin_ns;
	u64 name;
	u64 what; /* with the flags of an open in its upper half */
};

struct path {
	char text[PATH_BYTES + CHUNK];
};

BPF_HASH(processes, u32, struct process, 16384);
BPF_TABLE("lru_hash", u32, u64, ready, 16384); /* threads that wait for a CPU, and since when */
BPF_PERCPU_ARRAY(on_since, struct turn, 1);
/* How much of a thread's sum is in its process's. By task: a thread that calls execve gets the number of the first one. */
BPF_HASH(accounted, u64, u64, 16384);
BPF_TABLE("lru_hash", u32, struct call, calls, 16384);
BPF_PERCPU_ARRAY(paths, struct path, 1);

static __always_inline struct process *current_process(void)
{
	u32 tgid = current_tgid();

	return processes.lookup(&tgid);
}

/*
 * What the kernel has added to a thread's CPU time since this was asked last. A sum: a switch that it does not report takes
 * nothing away. It begins a turn some microseconds earlier than sched_switch says, when it decides on it, which is a third
 * of the time of a thread that sleeps after every 10 us.
 */
static __always_inline u64 newly_accounted(struct config *cfg)
{
	u64 task = bpf_get_current_task(), sum = kernel_u64((void *)task, cfg->slot[CONFIG_TASK_CPU_NS]), before;
	u64 *known = accounted.lookup(&task);

	if (!known) {
		if (!accounted.update(&task, &sum))
			return sum;
		count_loss(); /* rather than add all of it again at each switch */
		return 0;
	}
	before = *known;
	*known = sum;
	return sum - before;
}

/*
 * What the current thread's process has had. The kernel adds what a thread has since it got its CPU at its next tick: no
 * more than a tick is to come, but on CPUs that work without one (nohz_full). While the hypervisor has the CPU there is
 * none, and that time is not the thread's.
 */
static __always_inline u64 had_by_now(struct config *cfg, struct process *process, u64 time_ns)
{
	u64 task = bpf_get_current_task(), *known = accounted.lookup(&task);
	u64 sum = kernel_u64((void *)task, cfg->slot[CONFIG_TASK_CPU_NS]) - (known ? *known : 0);
	int zero = 0;
	struct turn *turn = on_since.lookup(&zero);
	u64 slice = turn && turn->task == task ? time_ns - turn->since_ns : 0;

	if (slice > sum + LONGEST_TICK_NS)
		slice = sum + LONGEST_TICK_NS;
	return process->cpu_ns + (slice > sum ? slice : sum);
}

int on_tracepoint__sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct process fresh = {};
	u64 task = ctx->args[1];
	u32 parent = current_tgid(), tid, tgid;

	if (!cfg || !cfg->slot[CONFIG_ATTACHED])
		return 0;
	if (parent != cfg->slot[CONFIG_STARTER] && !processes.lookup(&parent))
		return 0;
	tid = kernel_u32((void *)task, cfg->slot[CONFIG_TASK_PID]);
	tgid = kernel_u32((void *)task, cfg->slot[CONFIG_TASK_TGID]);
	if (tid != tgid && parent == cfg->slot[CONFIG_STARTER])
		return 0; /* a thread of who starts it */
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_FORK);
	ready.update(&tid, &time_ns);
	/* Its place may have been another's, whose end was not seen: where a softirq frees it, programs may be held off. */
	accounted.delete(&task);
	if (tid != tgid)
		return 0;
	if (processes.update(&tgid, &fresh)) {
		count_loss();
		return 0;
	}
	emit(KIND_FORKED, time_ns, tgid, parent, 0, 0, 0);
	return 0;
}

int on_tracepoint__sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct process *process = current_process();
	u64 begin, length, chunk[CHUNK / 8];
	void *mm;
	u32 i;

	if (!cfg || !process)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_EXEC);
	mm = (void *)kernel_u64((void *)bpf_get_current_task(), cfg->slot[CONFIG_TASK_MM]);
	begin = kernel_u64(mm, cfg->slot[CONFIG_MM_ARG_START]);
	length = kernel_u64(mm, cfg->slot[CONFIG_MM_ARG_END]) - begin;
	emit(KIND_EXECUTED, time_ns, current_tgid(), length, had_by_now(cfg, process, time_ns), process->runnable_ns, 0);
	for (i = 0; i < MOST_ARGUMENTS; i++) {
		if (i * CHUNK >= length)
			break;
		__builtin_memset(chunk, 0, sizeof(chunk));
		if (bpf_probe_read_user(chunk, sizeof(chunk), (void *)begin + i * CHUNK)) {
			count_loss();
			break;
		}
		emit(KIND_ARGUMENTS, time_ns, i, chunk[0], chunk[1], chunk[2], chunk[3]);
	}
	return 0;
}

int on_tracepoint__sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct process *process = current_process();
	u32 tgid = current_tgid();

	if (!cfg || !process)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_EXIT);
	if (kernel_u32((void *)kernel_u64(task, cfg->slot[CONFIG_TASK_SIGNAL]), cfg->slot[CONFIG_SIGNAL_LIVE]))
		return 0; /* a thread, and not the last */
	emit(KIND_EXITED, time_ns, tgid, kernel_u32(task, cfg->slot[CONFIG_TASK_EXIT_CODE]),
	     had_by_now(cfg, process, time_ns), process->runnable_ns, 0);
	processes.delete(&tgid);
	return 0;
}

/* args are the task, which is a thread. */
int on_tracepoint__sched_process_free(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];

	if (!accounted.delete(&task))
		count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_FREE);
	return 0;
}

/* args are preempt, prev, next and, from 5.18 on, prev's state. */
int on_tracepoint__sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	void *next = (void *)ctx->args[2];
	u32 tid = bpf_get_current_pid_tgid(), tgid;
	struct config *cfg = settings();
	struct process *process = current_process();
	int zero = 0;
	struct turn *turn = on_since.lookup(&zero);
	u64 *since, state = 0;

	if (!cfg || !turn)
		return 0;
	turn->task = 0;
	if (process) {
		count_hit(HIT_ON_TRACEPOINT__SCHED_SWITCH);
		__sync_fetch_and_add(&process->cpu_ns, newly_accounted(cfg));
		if (!ctx->args[0]) { /* not preempted */
#ifdef SWITCH_HAS_STATE
			state = (u32)ctx->args[3];
#else
			state = kernel_u32((void *)ctx->args[1], cfg->slot[CONFIG_TASK_STATE]);
#endif
		}
		if (state)
			ready.delete(&tid);
		else
			ready.update(&tid, &time_ns);
	}
	tgid = kernel_u32(next, cfg->slot[CONFIG_TASK_TGID]);
	process = processes.lookup(&tgid);
	if (!process)
		return 0;
	tid = kernel_u32(next, cfg->slot[CONFIG_TASK_PID]);
	turn->since_ns = time_ns;
	turn->task = (u64)next;
	since = ready.lookup(&tid);
	if (since) {
		__sync_fetch_and_add(&process->runnable_ns, time_ns - *since);
		ready.delete(&tid);
	}
	return 0;
}

int on_tracepoint__sched_waking(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	u32 tid, tgid;

	if (!cfg)
		return 0;
	tgid = kernel_u32((void *)ctx->args[0], cfg->slot[CONFIG_TASK_TGID]);
	if (!processes.lookup(&tgid))
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_WAKING);
	tid = kernel_u32((void *)ctx->args[0], cfg->slot[CONFIG_TASK_PID]);
	if (!ready.lookup(&tid))
		ready.update(&tid, &time_ns);
	return 0;
}

/*
 * Files.
 */

static __always_inline int begins(int slot, u64 name, u64 what)
{
	struct call call = {.begin_ns = bpf_ktime_get_ns(), .name = name, .what = what};
	u32 tid = bpf_get_current_pid_tgid();

	if (!current_process())
		return 0;
	count_hit(slot);
	calls.update(&tid, &call);
	return 0;
}

/* Whether it may be one of those that tell something: ...-a and -d of the build cache; .mod, .zip and so on of modules'. */
static __always_inline bool is_wanted(char last, char before)
{
	return (before == '-' && (last == 'a' || last == 'd')) || (before == 'a' && last == 'l') || /* .partial */
	       (before == 'm' && last == 'p') ||						    /* .tmp */
	       (before == 'i' && last == 'p') || (before == 's' && last == 'h') ||		    /* .zip, .ziphash */
	       (before == 'o' && last == 'd') || (before == 'f' && last == 'o');		    /* .mod, .info */
}

static __always_inline int ends(int slot, s64 result)
{
	u64 time_ns = bpf_ktime_get_ns(), *words;
	u32 tid = bpf_get_current_pid_tgid(), i;
	struct call *call = calls.lookup(&tid);
	int zero = 0;
	struct path *path = paths.lookup(&zero);
	long length;

	if (!call || !path)
		return 0;
	count_hit(slot);
	length = bpf_probe_read_user_str(path->text, PATH_BYTES, (void *)call->name);
	if (length < 3 || length > PATH_BYTES)
		goto done;
	if (!is_wanted(path->text[(length - 2) & (PATH_BYTES - 1)], path->text[(length - 3) & (PATH_BYTES - 1)]))
		goto done;
	emit(KIND_FILE, time_ns, current_tgid(), call->what, result, call->begin_ns, length - 1);
	for (i = 0; i < PATH_BYTES / CHUNK; i++) {
		if (i * CHUNK >= length - 1)
			break;
		words = (u64 *)&path->text[i * CHUNK];
		emit(KIND_PATH, time_ns, i, words[0], words[1], words[2], words[3]);
	}
done:
	calls.delete(&tid);
	return 0;
}

int on_trace_event__syscalls__sys_enter_openat(struct syscall_enter *ctx)
{
	return begins(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_OPENAT, ctx->args[1], OPENED | ctx->args[2] << 32);
}

int on_trace_event__syscalls__sys_exit_openat(struct syscall_exit *ctx)
{
	return ends(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_OPENAT, ctx->result);
}

int on_trace_event__syscalls__sys_enter_renameat(struct syscall_enter *ctx)
{
	return begins(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_RENAMEAT, ctx->args[3], RENAMED);
}

int on_trace_event__syscalls__sys_exit_renameat(struct syscall_exit *ctx)
{
	return ends(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_RENAMEAT, ctx->result);
}

int on_trace_event__syscalls__sys_enter_unlinkat(struct syscall_enter *ctx)
{
	return begins(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_UNLINKAT, ctx->args[1], REMOVED);
}

int on_trace_event__syscalls__sys_exit_unlinkat(struct syscall_exit *ctx)
{
	return ends(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_UNLINKAT, ctx->result);
}
