/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What code runs while a program starts: sampled stacks of every process that executes the file, and the stacks of calls
 * that tend to be dear there. Which of it belongs to a start is decided by its reader, who knows the starts.
 */

static __always_inline bool executes_target(struct config *cfg)
{
	void *at = (void *)bpf_get_current_task();

	at = (void *)kernel_u64(at, cfg->slot[CONFIG_TASK_MM]);
	if (!at)
		return false;
	at = (void *)kernel_u64(at, cfg->slot[CONFIG_MM_EXE_FILE]);
	at = (void *)kernel_u64(at, cfg->slot[CONFIG_FILE_INODE]);
	return at && kernel_u64(at, cfg->slot[CONFIG_INODE_INO]) == cfg->slot[CONFIG_TARGET_INO];
}

int on_sample(struct perf_event_context *ctx)
{
	struct config *cfg = settings();
	u64 tgid = bpf_get_current_pid_tgid() >> 32, time_ns, user, kernel;

	if (!cfg || !tgid || !executes_target(cfg))
		return 0;
	count_hit(HIT_ON_SAMPLE);
	time_ns = bpf_ktime_get_ns();
	/* It may come while a stack of a call is walked. */
	user = user_stack_at(WALK_IN_INTERRUPT, ctx, time_ns);
	kernel = kernel_stack_at(WALK_IN_INTERRUPT, ctx, time_ns);
	emit(KIND_START_SAMPLE, time_ns, tgid, user, kernel, 0, 0);
	return 0;
}

/* The fault that a thread is in. */
struct fault {
	u64 begin_ns;
	u64 address;
};

BPF_TABLE("lru_hash", u32, struct fault, open_faults, 1024);

int on_software_event__page_faults(struct perf_event_context *ctx)
{
	struct fault fault = {.address = ctx->addr};
	u32 tid = bpf_get_current_pid_tgid();
	struct config *cfg = settings();

	if (!cfg || !tid || !executes_target(cfg))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS);
	fault.begin_ns = bpf_ktime_get_ns();
	open_faults.update(&tid, &fault);
	return 0;
}

static __always_inline int fault_ends(struct perf_event_context *ctx, u64 major)
{
	u64 time_ns = bpf_ktime_get_ns(), tgid = bpf_get_current_pid_tgid() >> 32;
	u32 tid = bpf_get_current_pid_tgid();
	struct fault *fault = open_faults.lookup(&tid);

	if (!fault)
		return 0;
	if (fault->address == ctx->addr)
		emit(KIND_START_FAULT, time_ns, tgid | major << 32, fault->begin_ns, fault->address, 0, 0);
	open_faults.delete(&tid);
	return 0;
}

int on_software_event__page_faults_min(struct perf_event_context *ctx)
{
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MIN);
	return fault_ends(ctx, 0);
}

int on_software_event__page_faults_maj(struct perf_event_context *ctx)
{
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MAJ);
	return fault_ends(ctx, 1);
}

int call(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();

	count_hit(HIT_CALL);
	emit(KIND_START_CALL, time_ns, bpf_get_current_pid_tgid() >> 32, user_stack(ctx, time_ns), 0, 0, 0);
	return 0;
}

/* Entry of procresize(nprocs), which makes so many Ps: as the program starts, and when GOMAXPROCS changes. */
int procs_made(struct pt_regs *ctx)
{
	count_hit(HIT_PROCS_MADE);
	emit(KIND_START_PROCS, bpf_ktime_get_ns(), bpf_get_current_pid_tgid() >> 32, GO_ARG0(ctx) & 0xffffffff, 0, 0, 0);
	return 0;
}

/* A name was looked up, or could not be. */
int returned(struct pt_regs *ctx)
{
	count_hit(HIT_RETURNED);
	emit(KIND_START_RETURN, bpf_ktime_get_ns(), bpf_get_current_pid_tgid() >> 32, 0, 0, 0, 0);
	return 0;
}
