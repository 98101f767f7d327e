/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The start of a Go program, from the execve that begins it: when each boundary of it is passed, and what the kernel did
 * meanwhile. What is told of which event stands in probes/coldstart.py.
 *
 * Until a process is known to execute the wanted file nothing is emitted; what may be needed then is kept for every task
 * of the machine, by its number, and the oldest are forgotten. Every boundary carries the process's faults and pages read
 * so far, so that any two of them give what happened in between.
 */

#define PATH_CHUNKS 4
#define ENTERED 1
#define LISTENING 2
#define ACCEPTED 4
#define COLLECTING 8
#define COLLECTED 16

struct name {
	u64 low;
	u64 high;
};

struct start {
	u64 run_ns; /* when the first process of its run was forked, or executed the file; 0: none of a run's */
	u64 fork_ns;
	u64 attach_ns; /* put into its cgroup by somebody else */
	u64 enter_ns;  /* execve's entry */
	u64 exec_ns;   /* the new program is in place; 0 before */
	u64 bias;
	u64 minor_faults;
	u64 major_faults;
	u64 pages;
	u64 runnable_ns; /* until the process is known */
	u64 blocked_ns;
	u64 throttled_ns;
	u64 open_ns; /* the dynamic linker opens a file */
	u64 open_name;
	struct name name; /* of the starter */
	u32 starter;
	u32 flags;
};

struct absence {
	u64 off_ns;
	u64 wake_ns;
	u64 state;
	u64 throttled;	  /* when it could go on */
	u64 queue;	  /* which it was in then */
	u64 throttled_ns; /* and how long that had been throttled */
};

struct name_chunk {
	u64 word[4];
};

BPF_TABLE("lru_hash", u32, struct start, pending, 16384);
BPF_HASH(starts, u32, struct start, 4096);
BPF_TABLE("lru_hash", u32, struct absence, absences, 4096);
BPF_TABLE("lru_hash", u32, u64, gc_kinds, 1024);
BPF_TABLE("lru_hash", u64, u64, cgroups, 1024); /* when each was made */

static u64 (*ancestor_cgroup_id)(int level) = (void *)123; /* BPF_FUNC_get_current_ancestor_cgroup_id */

/* A word of what a program was called with: the verifier wants to see that ``offset`` is small. */
static __always_inline u64 context_u64(void *ctx, u64 offset)
{
	return kernel_u64(ctx, offset & 0x1f8);
}

/* The start of a process that is followed and not over. */
static __always_inline struct start *start_of(struct config *cfg, u32 tgid, u64 time_ns)
{
	struct start *start = starts.lookup(&tgid);

	if (!start)
		return NULL;
	if (cfg->slot[CONFIG_UNTIL_NS] && time_ns - start->enter_ns > cfg->slot[CONFIG_UNTIL_NS]) {
		starts.delete(&tgid);
		return NULL;
	}
	return start;
}

static __always_inline struct start *pending_of(u32 tid)
{
	struct start fresh = {};
	struct start *start = pending.lookup(&tid);

	if (start)
		return start;
	pending.update(&tid, &fresh);
	return pending.lookup(&tid);
}

static __always_inline void tell_of(u32 tid, u16 kind, u64 time_ns, u32 tgid, struct start *start, u64 c, u64 d, u64 e)
{
	emit_of(tid, kind, time_ns, tgid | start->pages << 32, (u32)start->minor_faults | start->major_faults << 32, c, d,
		e);
}

static __always_inline void tell(u16 kind, u64 time_ns, struct start *start, u64 c, u64 d, u64 e)
{
	u64 id = bpf_get_current_pid_tgid();

	tell_of(id, kind, time_ns, id >> 32, start, c, d, e);
}

static __always_inline void over(struct config *cfg, u64 what)
{
	u32 tgid = current_tgid();

	if (cfg->slot[CONFIG_UNTIL] == what)
		starts.delete(&tgid);
}

/* Follow the current process, whose program is in place, if it is one that was asked for. */
static __always_inline struct start *adopt(struct config *cfg, struct start *waiting, u64 copy)
{
	u32 tgid = current_tgid();
	struct start start = *waiting;
	u64 cgroup = bpf_get_current_cgroup_id();
	u64 *made;
	void *spaces;

	if (cfg->slot[CONFIG_STARTER] && !start.run_ns)
		return NULL;
	if (cfg->slot[CONFIG_CGROUP] && ancestor_cgroup_id(cfg->slot[CONFIG_CGROUP_LEVEL]) != cfg->slot[CONFIG_CGROUP])
		return NULL;
	if (cfg->slot[CONFIG_PID_NS]) {
		spaces = (void *)kernel_u64((void *)bpf_get_current_task(), cfg->slot[CONFIG_TASK_NSPROXY]);
		spaces = (void *)kernel_u64(spaces, cfg->slot[CONFIG_NSPROXY_PID_NS]);
		if (kernel_u32(spaces, cfg->slot[CONFIG_PID_NS_INUM]) != cfg->slot[CONFIG_PID_NS])
			return NULL;
	}
	if (!start.run_ns)
		start.run_ns = start.exec_ns;
	start.flags = 0;
	if (starts.update(&tgid, &start)) {
		count_loss();
		return NULL;
	}
	made = cgroups.lookup(&cgroup);
	tell(KIND_EXEC, start.exec_ns, &start, start.enter_ns, start.fork_ns, copy);
	tell(KIND_EXEC_WAIT, start.exec_ns, &start, start.runnable_ns, start.blocked_ns, start.throttled_ns);
	emit(KIND_STARTER, start.exec_ns, tgid | (u64)start.starter << 32, start.run_ns, start.name.low, start.name.high,
	     0);
	if (made || start.attach_ns)
		tell(KIND_CGROUP, start.exec_ns, &start, cgroup, made ? *made : 0, start.attach_ns);
	/* What the process executes next is started by itself, and what was before this exec is no part of that. */
	waiting->fork_ns = waiting->attach_ns = 0;
	waiting->run_ns = start.run_ns;
	waiting->starter = tgid;
	bpf_get_current_comm(&waiting->name, sizeof(waiting->name));
	return starts.lookup(&tgid);
}

/*
 * Before and at exec.
 */

int on_tracepoint__sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	void *child = (void *)ctx->args[1];
	u64 time_ns = bpf_ktime_get_ns();
	u32 parent = current_tgid();
	struct config *cfg = settings();
	struct start start = {.fork_ns = time_ns};
	struct start *from;
	u32 tid;

	if (!cfg)
		return 0;
	tid = kernel_u32(child, cfg->slot[CONFIG_TASK_PID]);
	if (tid != kernel_u32(child, cfg->slot[CONFIG_TASK_TGID]))
		return 0; /* a thread */
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_FORK);
	from = pending.lookup(&parent);
	start.run_ns = parent == cfg->slot[CONFIG_STARTER] ? time_ns : from ? from->run_ns : 0;
	start.starter = parent;
	bpf_get_current_comm(&start.name, sizeof(start.name));
	pending.update(&tid, &start);
	return 0;
}

static __always_inline void begins(struct start *start, u64 time_ns)
{
	start->enter_ns = time_ns;
	start->exec_ns = 0;
	start->minor_faults = start->major_faults = start->pages = 0;
	start->runnable_ns = start->blocked_ns = start->throttled_ns = 0;
}

static __always_inline int enters_exec(void)
{
	struct start *start = pending_of(bpf_get_current_pid_tgid());

	if (start)
		begins(start, bpf_ktime_get_ns());
	return 0;
}

int on_trace_event__syscalls__sys_enter_execve(void *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_EXECVE);
	return enters_exec();
}

int on_trace_event__syscalls__sys_enter_execveat(void *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_EXECVEAT);
	return enters_exec();
}

/* The new program is in place; args are the task, its number before (it may have been a thread), and linux_binprm. */
/* Whether a file that was not there when we were attached is the wanted one, as far as its size and its name tell. */
static __always_inline bool is_copy(struct config *cfg, void *inode)
{
	struct name name = {};

	if (!cfg->slot[CONFIG_TARGET_SIZE] ||
	    kernel_u64(inode, cfg->slot[CONFIG_INODE_SIZE]) != cfg->slot[CONFIG_TARGET_SIZE])
		return false;
	bpf_get_current_comm(&name, sizeof(name));
	return name.low == cfg->slot[CONFIG_TARGET_NAME_LOW] && name.high == cfg->slot[CONFIG_TARGET_NAME_HIGH];
}

int on_tracepoint__sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = current_tgid(), before = ctx->args[1];
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start moved = {};
	struct start *start, *process;
	void *inode;

	if (!cfg)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_EXEC);
	start = starts.lookup(&tgid);
	if (start) {
		tell(KIND_REPLACED, time_ns, start, 0, 0, 0);
		starts.delete(&tgid);
	}
	if (!cfg->slot[CONFIG_ATTACHED]) { /* some of what follows would be missed */
		pending.delete(&before);
		return 0;
	}
	start = pending_of(before);
	if (!start)
		return 0;
	/* Its entry was before we were attached, or met another program: the kernel then leaves ours out. */
	if (!start->enter_ns || start->exec_ns)
		begins(start, time_ns);
	if (before != tgid) {
		moved = *start;
		process = pending.lookup(&tgid);
		if (process) {
			moved.fork_ns = process->fork_ns;
			moved.attach_ns = process->attach_ns;
			moved.run_ns = process->run_ns;
			moved.name = process->name;
			moved.starter = process->starter;
		}
		pending.delete(&before);
		pending.update(&tgid, &moved);
		start = pending.lookup(&tgid);
		if (!start)
			return 0;
	}
	start->exec_ns = time_ns;
	inode = (void *)kernel_u64((void *)ctx->args[2], cfg->slot[CONFIG_BPRM_FILE]);
	inode = (void *)kernel_u64(inode, cfg->slot[CONFIG_FILE_INODE]);
	if (kernel_u64(inode, cfg->slot[CONFIG_INODE_INO]) == cfg->slot[CONFIG_TARGET_INO] &&
	    kernel_u32((void *)kernel_u64(inode, cfg->slot[CONFIG_INODE_SB]), cfg->slot[CONFIG_SB_DEV]) ==
		    cfg->slot[CONFIG_TARGET_DEV])
		adopt(cfg, start, 0);
	else if (is_copy(cfg, inode))
		adopt(cfg, start, kernel_u64(inode, cfg->slot[CONFIG_INODE_INO]));
	return 0;
}

/* args are the cgroup and its path. */
int on_tracepoint__cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	void *cgroup = (void *)ctx->args[0];
	u64 time_ns = bpf_ktime_get_ns(), id;
	struct config *cfg = settings();
	void *root;

	if (!cfg)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__CGROUP_MKDIR);
	root = (void *)kernel_u64(cgroup, cfg->slot[CONFIG_CGROUP_ROOT]);
	id = kernel_u64((void *)kernel_u64(cgroup, cfg->slot[CONFIG_CGROUP_KN]), cfg->slot[CONFIG_KN_ID]);
	if (!kernel_u32(root, cfg->slot[CONFIG_ROOT_HIERARCHY])) /* of version 2 */
		cgroups.update(&id, &time_ns);
	return 0;
}

/* args are the cgroup, its path, the task that is moved, and whether its whole process is. */
int on_tracepoint__cgroup_attach_task(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start;

	if (!cfg)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__CGROUP_ATTACH_TASK);
	start = pending_of(kernel_u32((void *)ctx->args[2], cfg->slot[CONFIG_TASK_PID]));
	if (start)
		start->attach_ns = time_ns;
	return 0;
}

/*
 * The dynamic linker.
 */

static __always_inline struct start *linking(struct config *cfg, u64 time_ns)
{
	struct start *start = start_of(cfg, current_tgid(), time_ns);

	return start && !(start->flags & ENTERED) ? start : NULL;
}

int linker_entry(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? linking(cfg, time_ns) : NULL;

	count_hit(HIT_LINKER_ENTRY);
	if (start)
		tell(KIND_LINKER_ENTRY, time_ns, start, GO_PC(ctx), 0, 0);
	return 0;
}

/* Calls of _dl_debug_state: the linker's own words for debuggers, before it maps libraries and when it is done. */
int linker_state(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? linking(cfg, time_ns) : NULL;

	count_hit(HIT_LINKER_STATE);
	if (start)
		tell(KIND_LINKER_STATE, time_ns, start, GO_PC(ctx), 0, 0);
	return 0;
}

static __always_inline int opens(u64 name)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? linking(cfg, time_ns) : NULL;

	if (start) {
		start->open_ns = time_ns;
		start->open_name = name;
	}
	return 0;
}

static __always_inline int opened(s64 result)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? linking(cfg, time_ns) : NULL;
	struct name_chunk chunk;
	int i;
	long length;

	if (!start || !start->open_ns)
		return 0;
	tell(KIND_OPEN, time_ns, start, start->open_ns, result, 0);
#pragma unroll
	for (i = 0; i < PATH_CHUNKS; i++) {
		__builtin_memset(&chunk, 0, sizeof(chunk));
		/* The string's end takes the last byte of a chunk: 31 of it are told. */
		length = bpf_probe_read_user_str(&chunk, sizeof(chunk), (void *)start->open_name + i * (sizeof(chunk) - 1));
		if (length <= 1)
			break;
		emit(KIND_NAME, time_ns, current_tgid() | (u64)i << 32, chunk.word[0], chunk.word[1], chunk.word[2],
		     chunk.word[3]);
		if (length < sizeof(chunk))
			break;
	}
	start->open_ns = 0;
	return 0;
}

int on_trace_event__syscalls__sys_enter_open(struct syscall_enter *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_OPEN);
	return opens(ctx->args[0]);
}

int on_trace_event__syscalls__sys_exit_open(struct syscall_exit *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_OPEN);
	return opened(ctx->result);
}

int on_trace_event__syscalls__sys_enter_openat(struct syscall_enter *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_OPENAT);
	return opens(ctx->args[1]);
}

int on_trace_event__syscalls__sys_exit_openat(struct syscall_exit *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_OPENAT);
	return opened(ctx->result);
}

int on_trace_event__syscalls__sys_enter_mmap(struct syscall_enter *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? linking(cfg, time_ns) : NULL;

	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_MMAP);
	if (start && (s32)ctx->args[4] >= 0)
		tell(KIND_MAP, time_ns, start, ctx->args[4], ctx->args[1], ctx->args[2]);
	return 0;
}

int on_trace_event__syscalls__sys_enter_close(struct syscall_enter *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? linking(cfg, time_ns) : NULL;

	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_CLOSE);
	if (start)
		tell(KIND_CLOSE, time_ns, start, ctx->args[0], 0, 0);
	return 0;
}

/*
 * The program.
 */

/* The executable's first instructions. A process that was not known by its file (it has another on overlays) is by this. */
int entry(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	u32 tgid = current_tgid();
	struct config *cfg = settings();
	struct start *start, *waiting;

	if (!cfg)
		return 0;
	count_hit(HIT_ENTRY);
	start = starts.lookup(&tgid);
	if (!start) {
		waiting = pending.lookup(&tgid);
		if (waiting && waiting->exec_ns)
			start = adopt(cfg, waiting, 0);
		if (!start)
			return 0;
	}
	if (start->flags & ENTERED)
		return 0;
	start->flags |= ENTERED;
	start->bias = GO_PC(ctx) - cfg->slot[CONFIG_ENTRY];
	tell(KIND_ENTRY, time_ns, start, GO_PC(ctx), 0, 0);
	return 0;
}

/* A boundary that is known by its address alone. */
static __always_inline int passes(struct pt_regs *ctx, u64 until)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? start_of(cfg, current_tgid(), time_ns) : NULL;

	if (!start)
		return 0;
	tell(KIND_STEP, time_ns, start, GO_PC(ctx) - start->bias, 0, 0);
	if (until)
		over(cfg, until);
	return 0;
}

/* The calls in the runtime's bootstrap. */
int step(struct pt_regs *ctx)
{
	count_hit(HIT_STEP);
	return passes(ctx, 0);
}

int milestone(struct pt_regs *ctx)
{
	count_hit(HIT_MILESTONE);
	return passes(ctx, 0);
}

int program_main(struct pt_regs *ctx)
{
	count_hit(HIT_PROGRAM_MAIN);
	return passes(ctx, UNTIL_MAIN);
}

static __always_inline u64 heap_live(struct config *cfg, struct start *start)
{
	return cfg->slot[CONFIG_HEAP_LIVE] ? read_user(cfg->slot[CONFIG_HEAP_LIVE] + start->bias) : 0;
}

/* The loop over a package's init functions: `initTask` and the index are in registers, which depend on the build. */
int init_function(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? start_of(cfg, current_tgid(), time_ns) : NULL;
	u64 task, index, count, functions, function = 0;

	count_hit(HIT_INIT_FUNCTION);
	if (!start)
		return 0;
	task = context_u64(ctx, cfg->slot[CONFIG_INIT_TASK_REGISTER]);
	index = context_u64(ctx, cfg->slot[CONFIG_INIT_INDEX_REGISTER]);
	if (cfg->slot[CONFIG_INIT_NFNS] == 4) {
		index = (u32)index;
		count = read_user(task) >> 32;
		functions = task + 8;
	} else {
		count = read_user(task + cfg->slot[CONFIG_INIT_NFNS]);
		functions = task + cfg->slot[CONFIG_INIT_NFNS] + 8 * (1 + read_user(task + 8));
	}
	if (index < count)
		function = read_user(functions + 8 * index) - start->bias;
	tell(KIND_INIT, time_ns, start, index | count << 32, function, heap_live(cfg, start));
	return 0;
}

/* Entry of gcStart, which mostly finds that there is nothing to do: its argument is what it was called for. */
int gc_wanted(struct pt_regs *ctx)
{
	u32 tid = bpf_get_current_pid_tgid(), tgid = current_tgid();
	u64 kind = GO_ARG0(ctx);
	struct start *start = starts.lookup(&tgid);

	count_hit(HIT_GC_WANTED);
	if (start && !(start->flags & (COLLECTING | COLLECTED)))
		gc_kinds.update(&tid, &kind);
	return 0;
}

int gc_begin(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? start_of(cfg, current_tgid(), time_ns) : NULL;
	u32 tid = bpf_get_current_pid_tgid();
	u64 *kind;

	count_hit(HIT_GC_BEGIN);
	if (!start || start->flags & (COLLECTING | COLLECTED))
		return 0;
	start->flags |= COLLECTING;
	kind = gc_kinds.lookup(&tid);
	tell(KIND_GC_BEGIN, time_ns, start, kind ? *kind : -1, heap_live(cfg, start), 0);
	return 0;
}

/* Entry of prepareFreeWorkbufs, right after the world runs again. */
int gc_end(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? start_of(cfg, current_tgid(), time_ns) : NULL;
	u64 clock[5] = {}; /* tSweepTerm, tMark, tMarkTerm, tEnd, pauseNS */

	count_hit(HIT_GC_END);
	if (!start || !(start->flags & (COLLECTING | COLLECTED)))
		return 0;
	if (start->flags & COLLECTED) { /* one more: it swept what the heap had grown by */
		tell(KIND_GC_END, time_ns, start, 0, heap_live(cfg, start), 0);
		return 0;
	}
	start->flags = (start->flags & ~COLLECTING) | COLLECTED;
	if (cfg->slot[CONFIG_WORK_CLOCK])
		read_bytes(clock, sizeof(clock), cfg->slot[CONFIG_WORK_CLOCK] + start->bias);
	emit(KIND_GC_CLOCK, time_ns, current_tgid(), clock[0], clock[1], clock[2], clock[3]);
	tell(KIND_GC_END, time_ns, start, clock[4], heap_live(cfg, start), 0);
	over(cfg, UNTIL_FIRST_GC);
	return 0;
}

int on_trace_event__syscalls__sys_exit_listen(struct syscall_exit *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? start_of(cfg, current_tgid(), time_ns) : NULL;

	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_LISTEN);
	if (!start || ctx->result || start->flags & LISTENING)
		return 0;
	start->flags |= LISTENING;
	tell(KIND_LISTEN, time_ns, start, 0, 0, 0);
	over(cfg, UNTIL_LISTEN);
	return 0;
}

static __always_inline int accepted(s64 result)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start = cfg ? start_of(cfg, current_tgid(), time_ns) : NULL;

	if (!start || result < 0 || start->flags & ACCEPTED)
		return 0;
	start->flags |= ACCEPTED;
	tell(KIND_ACCEPT, time_ns, start, 0, 0, 0);
	return 0;
}

int on_trace_event__syscalls__sys_exit_accept(struct syscall_exit *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_ACCEPT);
	return accepted(ctx->result);
}

int on_trace_event__syscalls__sys_exit_accept4(struct syscall_exit *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_ACCEPT4);
	return accepted(ctx->result);
}

/* A thread exits, whichever is the last of its process. */
int on_tracepoint__sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	u32 tid = bpf_get_current_pid_tgid(), tgid = current_tgid();
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();
	struct start *start;

	if (!cfg)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_EXIT);
	/* The first thread's is the process's too, which goes on when another calls execve. */
	if (tid != tgid)
		pending.delete(&tid);
	if (kernel_u32((void *)kernel_u64(task, cfg->slot[CONFIG_TASK_SIGNAL]), cfg->slot[CONFIG_SIGNAL_LIVE]))
		return 0;
	pending.delete(&tgid);
	start = start_of(cfg, tgid, time_ns);
	if (!start)
		return 0;
	tell(KIND_EXITED, time_ns, start, kernel_u32(task, cfg->slot[CONFIG_TASK_EXIT_CODE]), 0, 0);
	starts.delete(&tgid);
	return 0;
}

/*
 * What the kernel does meanwhile.
 */

/* The execve that a task is in, which may become a start. */
static __always_inline struct start *executing(u32 tid)
{
	struct start *start = pending.lookup(&tid);

	return start && start->enter_ns && !start->exec_ns ? start : NULL;
}

/* What the faults and pages of the current task count to: a start, and an execve; in a start's execve both. */
static __always_inline bool count(u64 minor, u64 major, u64 pages)
{
	u32 tgid = current_tgid();
	struct start *both[] = {starts.lookup(&tgid), executing(bpf_get_current_pid_tgid())};
	int i;

#pragma unroll
	for (i = 0; i < 2; i++) {
		if (!both[i])
			continue;
		if (minor)
			__sync_fetch_and_add(&both[i]->minor_faults, minor);
		if (major)
			__sync_fetch_and_add(&both[i]->major_faults, major);
		if (pages)
			__sync_fetch_and_add(&both[i]->pages, pages);
	}
	return both[0] || both[1];
}

int on_software_event__page_faults_min(struct perf_event_context *ctx)
{
	if (count(1, 0, 0))
		count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MIN);
	return 0;
}

int on_software_event__page_faults_maj(struct perf_event_context *ctx)
{
	if (count(0, 1, 0))
		count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MAJ);
	return 0;
}

/* A page, or 1 << order of them, comes from a file into memory. */
int on_trace_event__filemap__mm_filemap_add_to_page_cache(void *ctx)
{
	struct config *cfg = settings();
	u64 order = 0;

	if (!cfg)
		return 0;
	if (cfg->slot[CONFIG_PAGE_ORDER])
		order = context_u64(ctx, cfg->slot[CONFIG_PAGE_ORDER]) >> 8 * (cfg->slot[CONFIG_PAGE_ORDER] & 7) & 15;
	if (count(0, 0, 1ULL << order))
		count_hit(HIT_ON_TRACE_EVENT__FILEMAP__MM_FILEMAP_ADD_TO_PAGE_CACHE);
	return 0;
}

static __always_inline void could_go_on(struct config *cfg, struct absence *absence, void *task)
{
	u64 queue;

	absence->throttled = is_throttled(cfg, task);
	absence->throttled_ns = throttled_before(cfg, task, &queue);
	absence->queue = queue;
}

/*
 * How long a task that gets a CPU was throttled since it could go on. By the kernel's own account, which has what it waited
 * for a CPU afterwards taken off; where there is none, or the task is in another queue by now, all or nothing of it.
 */
static __always_inline u64 throttled_since(struct config *cfg, struct absence *absence, void *task, u64 waited_ns)
{
	u64 queue, now_ns = throttled_before(cfg, task, &queue);

	if (!queue || queue != absence->queue)
		return absence->throttled ? waited_ns : 0;
	now_ns -= absence->throttled_ns;
	return now_ns < waited_ns ? now_ns : waited_ns;
}

static __always_inline void leaves_cpu(struct bpf_raw_tracepoint_args *ctx, struct config *cfg, u64 time_ns)
{
	u32 tid = bpf_get_current_pid_tgid(), tgid = current_tgid();
	struct absence absence = {.off_ns = time_ns};
	struct start *start = starts.lookup(&tgid);
	u64 pc = 0;

	if (!start && !executing(tid))
		return;
	if (!ctx->args[0]) { /* not preempted */
#ifdef SWITCH_HAS_STATE
		absence.state = (u32)ctx->args[3];
#else
		absence.state = kernel_u32((void *)ctx->args[1], cfg->slot[CONFIG_TASK_STATE]);
#endif
	}
	if (!absence.state)
		could_go_on(cfg, &absence, (void *)ctx->args[1]);
	absences.update(&tid, &absence);
	if (!start)
		return;
#ifdef TASK_REGISTERS
	/* A thread may have to leave between a breakpoint and its program, which will then see a later time. */
	pc = USER_WORD(registers_of(current_task()), GO_PC);
#endif
	tell(KIND_CPU_OFF, time_ns, start, absence.state, pc, absence.throttled);
}

static __always_inline void gets_cpu(struct config *cfg, void *task, u64 time_ns)
{
	u32 tid = kernel_u32(task, cfg->slot[CONFIG_TASK_PID]), tgid = kernel_u32(task, cfg->slot[CONFIG_TASK_TGID]);
	struct absence *absence = absences.lookup(&tid);
	struct start *start;
	u64 ready_ns, throttled_ns;

	if (!absence) {
		start = starts.lookup(&tgid);
		if (start) /* a new thread */
			tell_of(tid, KIND_CPU_ON, time_ns, tgid, start, 0, time_ns, 0);
		return;
	}
	ready_ns = absence->state ? absence->wake_ns : absence->off_ns;
	if (!ready_ns)
		ready_ns = time_ns;
	throttled_ns = throttled_since(cfg, absence, task, time_ns - ready_ns);
	start = starts.lookup(&tgid);
	if (start)
		tell_of(tid, KIND_CPU_ON, time_ns, tgid, start, absence->off_ns, ready_ns, throttled_ns);
	start = executing(tid);
	if (start) {
		start->blocked_ns += ready_ns - absence->off_ns;
		start->throttled_ns += throttled_ns;
		start->runnable_ns += time_ns - ready_ns - throttled_ns;
	}
	absences.delete(&tid);
}

/* args are preempt, prev, next and, from 5.18 on, prev's state. */
int on_tracepoint__sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();

	if (!cfg)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_SWITCH);
	leaves_cpu(ctx, cfg, time_ns);
	gets_cpu(cfg, (void *)ctx->args[2], time_ns);
	return 0;
}

int on_tracepoint__sched_waking(struct bpf_raw_tracepoint_args *ctx)
{
	struct config *cfg = settings();
	struct absence *absence;
	u32 tid;

	if (!cfg)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_WAKING);
	tid = kernel_u32((void *)ctx->args[0], cfg->slot[CONFIG_TASK_PID]);
	absence = absences.lookup(&tid);
	if (absence && !absence->wake_ns) {
		absence->wake_ns = bpf_ktime_get_ns();
		if (absence->state)
			could_go_on(cfg, absence, (void *)ctx->args[0]);
	}
	return 0;
}
