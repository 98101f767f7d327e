/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls that ask for GPU memory and give it back: of the CUDA runtime (libcudart), of the driver (libcuda), and the events
 * of PyTorch's allocator.
 *
 * The address that a call hands out is behind its first argument, and there only when it has returned. So the entry keeps
 * the arguments, and the return, by a return probe, reads what they point to: these are C functions, that nothing unwinds.
 * A frame's stack pointer tells whether a return belongs to a kept entry, and which calls are made by others: what a
 * runtime's function asks of the driver is the same memory, and marked as nested; what a function does by way of another of
 * its own library is not reported at all.
 *
 * A probe sits on a file, whoever maps it, so that a process which is forked, or loads that file later, misses nothing:
 * whose calls count is in a table, by the number of the process. With no number of a target (CONFIG_TGID is 0) the probes
 * are set for it alone.
 */

#define RUNTIME 0
#define DRIVER 1
#define NESTED (1 << 8)
#define FRAMES 6
#define EXACT (1ULL << 62) /* a flag of a stack: gotrace.analysis.stacks */

struct call {
	u64 sp;
	u64 time_ns;
	u64 arg[4];
	u32 op;
	u32 stack;
};

/* By thread and layer. */
BPF_HASH(calls, u64, struct call, 16384);
BPF_HASH(told, u32, u8, 65536);
/* How many programs a process has executed, from 1 on; and the process of each thread that was reported. */
BPF_HASH(followed, u32, u8, 16384);
BPF_HASH(threads, u32, u32, 65536);

static __always_inline bool is_followed(void)
{
	struct config *cfg = settings();
	u32 tgid = current_tgid();

	return cfg && (!cfg->slot[CONFIG_TGID] || followed.lookup(&tgid));
}

/* Whose thread this is, once: before its first call. */
static __always_inline void tell_process(u64 time_ns)
{
	u32 tid = bpf_get_current_pid_tgid(), tgid = current_tgid(), *known = threads.lookup(&tid);

	if (known && *known == tgid)
		return;
	threads.update(&tid, &tgid);
	emit(KIND_THREAD, time_ns, tgid, 0, 0, 0, 0);
}

static __always_inline u64 key_of(int layer)
{
	return bpf_get_current_pid_tgid() << 1 | layer;
}

/* Whether a call that this thread has not returned from began further out on its stack. */
static __always_inline bool is_within(int layer, u64 sp)
{
	u64 key = key_of(layer);
	struct call *outer = calls.lookup(&key);

	return outer && outer->sp > sp;
}

/*
 * The callers, innermost first, as far as frame pointers lead: reported once, and then known by their number. A return
 * address is behind the call: what is looked up is the byte before it.
 */
static __always_inline u32 callers(struct pt_regs *ctx)
{
	u64 pc[FRAMES] = {}, frame[2] = {GO_FP(ctx), 0}, fp, hash, time_ns = bpf_ktime_get_ns(), count = 1;
	u32 number, tgid = current_tgid();
	u8 one = 1, *program = followed.lookup(&tgid);

	/* Of this program of this process: addresses of others mean something else. */
	hash = tgid | (u64)(program ? *program : 0) << 32;

	pc[0] = GO_CALLER(ctx) - 1;
#pragma unroll
	for (int i = 1; i < FRAMES; i++) {
		fp = frame[0];
		if (!fp || fp & 7 || bpf_probe_read_user(frame, sizeof(frame), (void *)fp) || frame[0] <= fp || !frame[1])
			break;
		pc[i] = frame[1] - 1;
		count++;
	}
#pragma unroll
	for (int i = 0; i < FRAMES; i++)
		hash = (hash ^ pc[i] ^ hash >> 32) * 0xff51afd7ed558ccdULL;
	number = hash >> 32 | 1;
	if (told.lookup(&number))
		return number;
	told.update(&number, &one);
#pragma unroll
	for (int i = 0; i < FRAMES; i += 3)
		if (i < count)
			emit(KIND_CALL_STACK, time_ns, number, i | count << 32 | EXACT, pc[i], pc[i + 1], pc[i + 2]);
	return number;
}

static __always_inline int begin(struct pt_regs *ctx, int layer, int op)
{
	u64 key = key_of(layer);
	struct call call = {
		.sp = GO_SP(ctx),
		.time_ns = bpf_ktime_get_ns(),
		.arg = {C_ARG0(ctx), C_ARG1(ctx), C_ARG2(ctx), C_ARG3(ctx)},
		.op = op,
	};
	struct config *cfg = settings();

	if (is_within(layer, call.sp))
		return 0;
	tell_process(call.time_ns);
	if (layer == DRIVER && is_within(RUNTIME, call.sp))
		call.op |= NESTED;
	else if (cfg && cfg->slot[CONFIG_STACKS] && op <= OP_LAST_REQUEST)
		call.stack = callers(ctx);
	if (calls.update(&key, &call))
		count_loss();
	return 0;
}

static __always_inline int end(struct pt_regs *ctx, int layer)
{
	u64 key = key_of(layer), time_ns = bpf_ktime_get_ns(), sp = GO_SP(ctx);
	u64 address, size, stream = 0, pool = 0;
	struct call *kept = calls.lookup(&key), call;
	u32 result, op;

	if (!kept || sp < kept->sp || sp > kept->sp + 8)
		return 0;
	call = *kept;
	calls.delete(&key);
	result = (u32)GO_RESULT0(ctx);
	op = call.op & 0xff;
	address = call.arg[0];
	size = call.arg[1];
	switch (op) {
	case OP_MALLOC_FROM_POOL:
		pool = call.arg[2];
		stream = call.arg[3];
		break;
	case OP_MALLOC_ASYNC:
		stream = call.arg[2];
		break;
	case OP_PITCH:
		size = (result ? call.arg[2] : read_user(call.arg[1])) * call.arg[3];
		break;
	case OP_SET_DEVICE:
	case OP_POOL_CREATE:
		size = 0;
		break;
	case OP_FREE:
		size = 0;
		time_ns = call.time_ns; /* somebody may be given it before the call has returned */
		break;
	case OP_FREE_ASYNC:
		size = 0;
		stream = call.arg[1];
		time_ns = call.time_ns;
		break;
	case OP_MAP:
		stream = call.arg[3]; /* the handle */
		break;
	case OP_RELEASE:
		size = 0;
		time_ns = call.time_ns;
		break;
	case OP_ADDRESS_FREE:
	case OP_UNMAP:
		time_ns = call.time_ns;
		break;
	case OP_POOL_USE:
		pool = size;
		size = 0;
		break;
	case OP_POOL_DEFAULT:
		size = (u32)size;
		break;
	case OP_POOL_DESTROY:
		size = 0; /* falls through */
	case OP_POOL_TRIM:
		pool = address;
		address = 0;
		break;
	case OP_POOL_GET:
	case OP_POOL_SET:
		pool = address;
		address = call.arg[1]; /* which attribute */
		size = result ? 0 : read_user(call.arg[2]);
		break;
	case OP_MEM_INFO:
		size = result ? 0 : read_user(call.arg[1]);
		break;
	}
	/* Those whose first argument is where the answer goes. */
	if (op <= OP_LAST_OUT)
		address = result ? 0 : read_user(call.arg[0]);
	emit(KIND_CALL, time_ns, call.op | layer << 9 | (u64)(result & 0xffff) << 16 | (u64)call.stack << 32, address, size,
	     stream, pool);
	return 0;
}

/* A program at the entry of a function, and the one at the returns of a layer's. */
#define ENTRY(name, HIT, layer, op)                                                                                        \
	int name(struct pt_regs *ctx)                                                                                      \
	{                                                                                                                  \
		if (!is_followed())                                                                                        \
			return 0;                                                                                          \
		count_hit(HIT);                                                                                            \
		return begin(ctx, layer, op);                                                                              \
	}

ENTRY(rt_malloc, HIT_RT_MALLOC, RUNTIME, OP_MALLOC)
ENTRY(rt_managed, HIT_RT_MANAGED, RUNTIME, OP_MANAGED)
ENTRY(rt_pitch, HIT_RT_PITCH, RUNTIME, OP_PITCH)
ENTRY(rt_malloc_async, HIT_RT_MALLOC_ASYNC, RUNTIME, OP_MALLOC_ASYNC)
ENTRY(rt_malloc_from_pool, HIT_RT_MALLOC_FROM_POOL, RUNTIME, OP_MALLOC_FROM_POOL)
ENTRY(rt_free, HIT_RT_FREE, RUNTIME, OP_FREE)
ENTRY(rt_free_async, HIT_RT_FREE_ASYNC, RUNTIME, OP_FREE_ASYNC)
ENTRY(rt_pool_create, HIT_RT_POOL_CREATE, RUNTIME, OP_POOL_CREATE)
ENTRY(rt_pool_default, HIT_RT_POOL_DEFAULT, RUNTIME, OP_POOL_DEFAULT)
ENTRY(rt_pool_use, HIT_RT_POOL_USE, RUNTIME, OP_POOL_USE)
ENTRY(rt_pool_destroy, HIT_RT_POOL_DESTROY, RUNTIME, OP_POOL_DESTROY)
ENTRY(rt_pool_trim, HIT_RT_POOL_TRIM, RUNTIME, OP_POOL_TRIM)
ENTRY(rt_pool_get, HIT_RT_POOL_GET, RUNTIME, OP_POOL_GET)
ENTRY(rt_pool_set, HIT_RT_POOL_SET, RUNTIME, OP_POOL_SET)
ENTRY(rt_mem_info, HIT_RT_MEM_INFO, RUNTIME, OP_MEM_INFO)
ENTRY(rt_set_device, HIT_RT_SET_DEVICE, RUNTIME, OP_SET_DEVICE)

int rt_returns(struct pt_regs *ctx)
{
	if (!is_followed())
		return 0;
	count_hit(HIT_RT_RETURNS);
	return end(ctx, RUNTIME);
}

ENTRY(cu_malloc, HIT_CU_MALLOC, DRIVER, OP_MALLOC)
ENTRY(cu_managed, HIT_CU_MANAGED, DRIVER, OP_MANAGED)
ENTRY(cu_pitch, HIT_CU_PITCH, DRIVER, OP_PITCH)
ENTRY(cu_malloc_async, HIT_CU_MALLOC_ASYNC, DRIVER, OP_MALLOC_ASYNC)
ENTRY(cu_malloc_from_pool, HIT_CU_MALLOC_FROM_POOL, DRIVER, OP_MALLOC_FROM_POOL)
ENTRY(cu_free, HIT_CU_FREE, DRIVER, OP_FREE)
ENTRY(cu_free_async, HIT_CU_FREE_ASYNC, DRIVER, OP_FREE_ASYNC)
ENTRY(cu_pool_create, HIT_CU_POOL_CREATE, DRIVER, OP_POOL_CREATE)
ENTRY(cu_pool_default, HIT_CU_POOL_DEFAULT, DRIVER, OP_POOL_DEFAULT)
ENTRY(cu_pool_use, HIT_CU_POOL_USE, DRIVER, OP_POOL_USE)
ENTRY(cu_pool_destroy, HIT_CU_POOL_DESTROY, DRIVER, OP_POOL_DESTROY)
ENTRY(cu_pool_trim, HIT_CU_POOL_TRIM, DRIVER, OP_POOL_TRIM)
ENTRY(cu_pool_get, HIT_CU_POOL_GET, DRIVER, OP_POOL_GET)
ENTRY(cu_pool_set, HIT_CU_POOL_SET, DRIVER, OP_POOL_SET)
ENTRY(cu_mem_info, HIT_CU_MEM_INFO, DRIVER, OP_MEM_INFO)
ENTRY(cu_reserve, HIT_CU_RESERVE, DRIVER, OP_RESERVE)
ENTRY(cu_address_free, HIT_CU_ADDRESS_FREE, DRIVER, OP_ADDRESS_FREE)
ENTRY(cu_create, HIT_CU_CREATE, DRIVER, OP_CREATE)
ENTRY(cu_map, HIT_CU_MAP, DRIVER, OP_MAP)
ENTRY(cu_unmap, HIT_CU_UNMAP, DRIVER, OP_UNMAP)
ENTRY(cu_release, HIT_CU_RELEASE, DRIVER, OP_RELEASE)

int cu_returns(struct pt_regs *ctx)
{
	if (!is_followed())
		return 0;
	count_hit(HIT_CU_RETURNS);
	return end(ctx, DRIVER);
}

/* DeviceCachingAllocator::record_trace(this, action, address, size, stream, device, ...) of libc10_cuda. */
int torch_trace(struct pt_regs *ctx)
{
	u64 action = C_ARG1(ctx) & 0xff, stack = 0;

	if (!is_followed())
		return 0;
	count_hit(HIT_TORCH_TRACE);
	tell_process(bpf_ktime_get_ns());
	if (action == TRACED_ALLOC || action == TRACED_OOM)
		stack = callers(ctx);
	emit(KIND_TRACE, bpf_ktime_get_ns(), action | (C_ARG5(ctx) & 0xff) << 8 | stack << 32, C_ARG2(ctx), C_ARG3(ctx),
	     C_ARG4(ctx), C_ARG0(ctx));
	return 0;
}

/* args are the parent and the child. */
int on_tracepoint__sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct config *cfg = settings();
	u32 tid, tgid, parent = current_tgid();
	u8 *program, first = 1;

	if (!cfg || !cfg->slot[CONFIG_TGID])
		return 0;
	program = followed.lookup(&parent);
	tid = kernel_u32((void *)ctx->args[1], cfg->slot[CONFIG_TASK_PID]);
	tgid = kernel_u32((void *)ctx->args[1], cfg->slot[CONFIG_TASK_TGID]);
	if (!program || tid != tgid)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_FORK);
	if (followed.update(&tgid, &first))
		count_loss();
	emit(KIND_PROCESS, bpf_ktime_get_ns(), PROCESS_FORKED, tgid, parent, 0, 0);
	return 0;
}

/* The new program is in place, all other threads are gone. */
int on_tracepoint__sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = current_tgid();
	u8 *program = followed.lookup(&tgid);

	if (!program)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_EXEC);
	*program += 1;
	emit(KIND_PROCESS, bpf_ktime_get_ns(), PROCESS_EXECUTED, tgid, 0, 0, 0);
	return 0;
}

/* args are the task. Its number may be given to somebody else. */
int on_tracepoint__sched_process_free(struct bpf_raw_tracepoint_args *ctx)
{
	struct config *cfg = settings();
	u32 tid, tgid;
	u64 key;

	if (!cfg || !cfg->slot[CONFIG_TGID])
		return 0;
	tid = kernel_u32((void *)ctx->args[0], cfg->slot[CONFIG_TASK_PID]);
	tgid = kernel_u32((void *)ctx->args[0], cfg->slot[CONFIG_TASK_TGID]);
	key = ((u64)tgid << 32 | tid) << 1;
	calls.delete(&key);
	key |= 1;
	calls.delete(&key);
	threads.delete(&tid);
	if (tid == tgid && !followed.delete(&tgid))
		count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_FREE);
	return 0;
}
