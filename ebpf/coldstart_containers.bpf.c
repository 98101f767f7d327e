/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What container tools do before a program in a container is executed: the processes they start, the control groups,
 * namespaces and mounts they make, and when functions of their own begin and end. What is told of which event stands in
 * probes/coldstart_containers.py.
 *
 * Only of a family is anything told: processes that execute a tool, by the kernel's name for it, and all they fork.
 */

#define PATH_CHUNKS 8
#define NAME_CHUNKS 6
#define LAYER_SIZE 56		    /* of dockerd's roLayer, whose first field is its chain's digest */
#define NEW_NAMESPACES 0x7e020080UL /* CLONE_NEW*, as clone, clone3 and unshare know them */
#define IN_VAIN (1ULL << 63)	    /* a result: done again in another way */

struct call {
	u64 begin_ns;
	u64 flags;
};

struct name {
	u64 low;
	u64 high;
};

struct path_chunk {
	u64 word[4];
};

BPF_TABLE("lru_hash", u32, u64, family, 16384);
BPF_TABLE("lru_hash", u32, struct call, calls, 4096);

static __always_inline bool is_tool(u64 low)
{
	return low == TOOL_PODMAN || low == TOOL_CONMON || low == TOOL_RUNC || low == TOOL_CRUN || low == TOOL_CONTAINERD ||
	       low == TOOL_CTR || low == TOOL_NERDCTL || low == TOOL_DOCKER || low == TOOL_DOCKERD || low == TOOL_KUBELET ||
	       low == TOOL_CRIO;
}

/* Whether the current process is one of a family; a tool that ran before we did is. */
static __always_inline bool is_member(void)
{
	u32 tgid = current_tgid();
	struct name name = {};
	u64 one = 1;

	if (family.lookup(&tgid))
		return true;
	bpf_get_current_comm(&name, sizeof(name));
	if (!is_tool(name.low))
		return false;
	family.update(&tgid, &one);
	return true;
}

int on_tracepoint__sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	void *child = (void *)ctx->args[1];
	u64 time_ns = bpf_ktime_get_ns(), one = 1;
	struct config *cfg = settings();
	struct name name = {};
	u32 tid;

	if (!cfg)
		return 0;
	tid = kernel_u32(child, cfg->slot[CONFIG_TASK_PID]);
	if (tid != kernel_u32(child, cfg->slot[CONFIG_TASK_TGID]) || !is_member())
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_FORK);
	family.update(&tid, &one);
	bpf_get_current_comm(&name, sizeof(name));
	emit(KIND_FORKED, time_ns, tid, current_tgid(), name.low, name.high, 0);
	return 0;
}

int on_tracepoint__sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct name name = {};

	if (!is_member()) /* by its new name, too */
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_EXEC);
	bpf_get_current_comm(&name, sizeof(name));
	emit(KIND_EXECUTED, time_ns, current_tgid(), name.low, name.high, 0, 0);
	return 0;
}

int on_tracepoint__sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[0];
	u32 tgid = current_tgid();
	struct config *cfg = settings();

	if (!cfg || !family.lookup(&tgid))
		return 0;
	if (kernel_u32((void *)kernel_u64(task, cfg->slot[CONFIG_TASK_SIGNAL]), cfg->slot[CONFIG_SIGNAL_LIVE]))
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_EXIT);
	family.delete(&tgid);
	emit(KIND_ENDED, bpf_ktime_get_ns(), tgid, 0, 0, 0, 0);
	return 0;
}

/* The path of a control group, in its hierarchy; the end of a string takes the last byte of a chunk. */
static __always_inline void tell_path(u64 time_ns, char *path)
{
	struct path_chunk chunk;
	long length;
	int i;

#pragma unroll
	for (i = 0; i < PATH_CHUNKS; i++) {
		__builtin_memset(&chunk, 0, sizeof(chunk));
		length = bpf_probe_read_kernel_str(&chunk, sizeof(chunk), path + i * (sizeof(chunk) - 1));
		if (length <= 1)
			break;
		emit(KIND_PATH, time_ns, i, chunk.word[0], chunk.word[1], chunk.word[2], chunk.word[3]);
		if (length < sizeof(chunk))
			break;
	}
}

/* args are the cgroup and its path. */
int on_tracepoint__cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();

	if (!is_member())
		return 0;
	count_hit(HIT_ON_TRACEPOINT__CGROUP_MKDIR);
	emit(KIND_GROUP_MADE, time_ns, current_tgid(), 0, 0, 0, 0);
	tell_path(time_ns, (char *)ctx->args[1]);
	return 0;
}

/* args are the cgroup, its path, and the task that is moved. */
int on_tracepoint__cgroup_attach_task(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time_ns = bpf_ktime_get_ns();
	struct config *cfg = settings();

	if (!cfg || !is_member())
		return 0;
	count_hit(HIT_ON_TRACEPOINT__CGROUP_ATTACH_TASK);
	emit(KIND_GROUP_JOINED, time_ns, kernel_u32((void *)ctx->args[2], cfg->slot[CONFIG_TASK_TGID]), 0, 0, 0, 0);
	tell_path(time_ns, (char *)ctx->args[1]);
	return 0;
}

static __always_inline int begins(u64 flags)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct call call = {.begin_ns = bpf_ktime_get_ns(), .flags = flags};

	if (is_member())
		calls.update(&tid, &call);
	return 0;
}

static __always_inline int ends(u64 which, s64 result)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct call *call = calls.lookup(&tid);

	if (!call)
		return 0;
	emit(KIND_CALLED, bpf_ktime_get_ns(), current_tgid(), which, call->begin_ns, call->flags, result);
	calls.delete(&tid);
	return 0;
}

#define CALL(name, flags, number, hit_enter, hit_exit)                                                                     \
	int on_trace_event__syscalls__sys_enter_##name(struct syscall_enter *ctx)                                          \
	{                                                                                                                  \
		count_hit(hit_enter);                                                                                      \
		return begins(flags);                                                                                      \
	}                                                                                                                  \
	int on_trace_event__syscalls__sys_exit_##name(struct syscall_exit *ctx)                                            \
	{                                                                                                                  \
		count_hit(hit_exit);                                                                                       \
		return ends(number, ctx->result);                                                                          \
	}

CALL(mount, ctx->args[3], CALL_MOUNT, HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_MOUNT,
     HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_MOUNT)
CALL(move_mount, 0, CALL_MOVE_MOUNT, HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_MOVE_MOUNT,
     HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_MOVE_MOUNT)
CALL(umount, ctx->args[1], CALL_UMOUNT, HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_UMOUNT,
     HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_UMOUNT)
CALL(pivot_root, 0, CALL_PIVOT_ROOT, HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_PIVOT_ROOT,
     HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_PIVOT_ROOT)
CALL(unshare, ctx->args[0], CALL_UNSHARE, HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_UNSHARE,
     HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_UNSHARE)
CALL(setns, ctx->args[1], CALL_SETNS, HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_SETNS,
     HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_SETNS)

/* A process in new namespaces; threads and other processes are none of our business. */
int on_trace_event__syscalls__sys_enter_clone(struct syscall_enter *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_ENTER_CLONE);
	return ctx->args[0] & NEW_NAMESPACES & ~0xffUL ? begins(ctx->args[0]) : 0;
}

int on_trace_event__syscalls__sys_exit_clone(struct syscall_exit *ctx)
{
	count_hit(HIT_ON_TRACE_EVENT__SYSCALLS__SYS_EXIT_CLONE);
	return ctx->result > 0 ? ends(CALL_CLONE, ctx->result) : 0;
}

/*
 * Functions of the tools: Go moves goroutines between threads, so a call is known by its goroutine.
 */
#define ENDS(name, number, hit, result)                                                                                    \
	int name##_ends(struct pt_regs *ctx)                                                                               \
	{                                                                                                                  \
		count_hit(hit);                                                                                            \
		emit(KIND_STAGE_ENDS, bpf_ktime_get_ns(), current_tgid(), number, GO_G(ctx), (result), 0);                 \
		return 0;                                                                                                  \
	}

#define STAGE(name, number, hit_begins, hit_ends, result)                                                                  \
	int name##_begins(struct pt_regs *ctx)                                                                             \
	{                                                                                                                  \
		count_hit(hit_begins);                                                                                     \
		emit(KIND_STAGE_BEGINS, bpf_ktime_get_ns(), current_tgid(), number, GO_G(ctx), 0, 0);                      \
		return 0;                                                                                                  \
	}                                                                                                                  \
	ENDS(name, number, hit_ends, result)

STAGE(pull, STAGE_PULL, HIT_PULL_BEGINS, HIT_PULL_ENDS, 0)
STAGE(unpack, STAGE_UNPACK, HIT_UNPACK_BEGINS, HIT_UNPACK_ENDS, GO_RESULT0(ctx))
STAGE(snapshot, STAGE_SNAPSHOT, HIT_SNAPSHOT_BEGINS, HIT_SNAPSHOT_ENDS, 0)
STAGE(sandbox, STAGE_SANDBOX, HIT_SANDBOX_BEGINS, HIT_SANDBOX_ENDS, 0)
STAGE(create, STAGE_CREATE, HIT_CREATE_BEGINS, HIT_CREATE_ENDS, 0)
/* Its other result, too long for registers, is above the return address: an interface, a string, the size, ... */
STAGE(chunked, STAGE_CHUNKED, HIT_CHUNKED_BEGINS, HIT_CHUNKED_ENDS, GO_RESULT0(ctx) ? IN_VAIN : read_user(GO_SP(ctx) + 40))
ENDS(commit, STAGE_COMMIT, HIT_COMMIT_ENDS, 0)
ENDS(store, STAGE_STORE, HIT_STORE_ENDS, 0)

/* After an event of the same time: bytes of a string of the tool, as if a path. */
static __always_inline void tell_name(u64 time_ns, u64 address, u64 length)
{
	struct path_chunk chunk;
	int i;

#pragma unroll
	for (i = 0; i < NAME_CHUNKS; i++) {
		if (length <= i * sizeof(chunk))
			break;
		__builtin_memset(&chunk, 0, sizeof(chunk));
		read_bytes(&chunk, sizeof(chunk), address + i * sizeof(chunk));
		emit(KIND_PATH, time_ns, i, chunk.word[0], chunk.word[1], chunk.word[2], chunk.word[3]);
	}
}

static __always_inline void tell_of(u64 time_ns, u64 address, u64 length)
{
	if (!length)
		return;
	emit(KIND_OF, time_ns, current_tgid(), length, 0, 0, 0);
	tell_name(time_ns, address, length);
}

/* A function that is told what it works on, and, from ``of`` on, what that is made of. */
#define NAMED(name, number, hit, address, length, of, of_length)                                                           \
	int name##_begins(struct pt_regs *ctx)                                                                             \
	{                                                                                                                  \
		u64 time_ns = bpf_ktime_get_ns(), bytes = (length);                                                        \
                                                                                                                           \
		count_hit(hit);                                                                                            \
		emit(KIND_STAGE_BEGINS, time_ns, current_tgid(), number, GO_G(ctx), bytes, 0);                             \
		tell_name(time_ns, (address), bytes);                                                                      \
		tell_of(time_ns, (of), (of_length));                                                                       \
		return 0;                                                                                                  \
	}

/* containerd: Prepare(ctx, key, parent); the key has the name of the container in it, or that of a layer to come */
NAMED(prepare, STAGE_SNAPSHOT, HIT_PREPARE_BEGINS, GO_ARG3(ctx), GO_ARG4(ctx), GO_ARG5(ctx), GO_ARG6(ctx))
/* Commit(ctx, name, key): from now on that snapshot is the layer ``name`` */
NAMED(commit, STAGE_COMMIT, HIT_COMMIT_BEGINS, GO_ARG3(ctx), GO_ARG4(ctx), GO_ARG5(ctx), GO_ARG6(ctx))
/* writer(ctx, ref, ...): a blob comes; Commit(ctx, size, digest): it is whole */
NAMED(fetch, STAGE_FETCH, HIT_FETCH_BEGINS, GO_ARG3(ctx), GO_ARG4(ctx), 0, 0)
NAMED(store, STAGE_STORE, HIT_STORE_BEGINS, GO_ARG4(ctx), GO_ARG5(ctx), 0, 0)
/* Apply(ctx, descriptor, mounts): too long for registers, so it is above the return address: media type, digest, ... */
NAMED(apply, STAGE_UNPACK, HIT_APPLY_BEGINS, read_user(GO_SP(ctx) + 24), read_user(GO_SP(ctx) + 32), 0, 0)

/* dockerd: CreateRWLayer(name, parent) */
NAMED(rwlayer, STAGE_SNAPSHOT, HIT_RWLAYER_BEGINS, GO_ARG1(ctx), GO_ARG2(ctx), GO_ARG3(ctx), GO_ARG4(ctx))
/* Create(ctx, id, ...) and NewContainer(ctx, id, ...), called by containerStart */
NAMED(container, STAGE_CONTAINER, HIT_CONTAINER_BEGINS, GO_ARG3(ctx), GO_ARG4(ctx), 0, 0)
/* registerWithDescriptor(reader, parent, ...), which returns a layer */
NAMED(register, STAGE_UNPACK, HIT_REGISTER_BEGINS, 0, 0, GO_ARG3(ctx), GO_ARG4(ctx))

int register_ends(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns(), layer;

	count_hit(HIT_REGISTER_ENDS);
	if (!GO_RESULT0(ctx)) { /* an error */
		emit(KIND_STAGE_ENDS, time_ns, current_tgid(), STAGE_UNPACK, GO_G(ctx), 0, 0);
		return 0;
	}
	layer = read_user(GO_ARG1(ctx)); /* the interface's data, a reference to it, is where the second argument was */
	emit(KIND_STAGE_ENDS, time_ns, current_tgid(), STAGE_UNPACK, GO_G(ctx), read_user(layer + LAYER_SIZE), 0);
	tell_of(time_ns, read_user(layer), read_user(layer + 8));
	return 0;
}

/* containerd's CRI plugin. Its requests begin with what they are about, and a response with the id that it gives. */
static __always_inline void tell_label(u64 time_ns, u64 label, u64 string, u64 attempt)
{
	u64 bytes = read_user(string + 8);

	emit(KIND_LABEL, time_ns, current_tgid(), label, bytes, attempt, 0);
	tell_name(time_ns, read_user(string), bytes);
}

/* Where the fields of a message begin: behind a word of the library's from containerd 2.2 on; 0 if it is not there. */
static __always_inline u64 fields(u64 message)
{
	struct config *cfg = settings();

	return message && cfg ? message + cfg->slot[CONFIG_MESSAGE_STATE] : 0;
}

/* Those of a message that another refers to. */
static __always_inline u64 member(u64 of, u64 offset)
{
	return of ? fields(read_user(of + offset)) : 0;
}

/* Of a PodSandboxConfig: its metadata are name, UID, and namespace. */
static __always_inline void tell_pod(u64 time_ns, u64 config)
{
	u64 metadata = member(config, 0);

	if (!metadata)
		return; /* a client need not name the pod that it pulls for */
	tell_label(time_ns, LABEL_POD, metadata, 0);
	tell_label(time_ns, LABEL_UID, metadata + 16, 0);
	tell_label(time_ns, LABEL_NAMESPACE, metadata + 32, 0);
}

/* Each is called with a context and a request, in whose ``config`` stands the pod, and answers with an id. */
#define CRI(name, number, hit_begins, hit_ends, of, of_length, config, metadata)                                           \
	int name##_begins(struct pt_regs *ctx)                                                                             \
	{                                                                                                                  \
		u64 time_ns = bpf_ktime_get_ns(), request = fields(GO_ARG3(ctx)), container = (metadata);                  \
                                                                                                                           \
		count_hit(hit_begins);                                                                                     \
		emit(KIND_STAGE_BEGINS, time_ns, current_tgid(), number, GO_G(ctx), 0, 0);                                 \
		tell_of(time_ns, (of), (of_length));                                                                       \
		tell_pod(time_ns, (config));                                                                               \
		if (container)                                                                                             \
			tell_label(time_ns, LABEL_CONTAINER, container, (u32)read_user(container + 16));                   \
		return 0;                                                                                                  \
	}                                                                                                                  \
	int name##_ends(struct pt_regs *ctx)                                                                               \
	{                                                                                                                  \
		u64 time_ns = bpf_ktime_get_ns(), response = fields(GO_RESULT0(ctx));                                      \
                                                                                                                           \
		count_hit(hit_ends);                                                                                       \
		emit(KIND_STAGE_ENDS, time_ns, current_tgid(), number, GO_G(ctx), !!response, 0);                          \
		if (response)                                                                                              \
			tell_of(time_ns, read_user(response), read_user(response + 8));                                    \
		return 0;                                                                                                  \
	}

/* A RunPodSandboxRequest is the pod's configuration; */
CRI(run_sandbox, STAGE_RUN_SANDBOX, HIT_RUN_SANDBOX_BEGINS, HIT_RUN_SANDBOX_ENDS, 0, 0, member(request, 0), 0)
/* a PullImageRequest is the image, the registry's key, and that; */
CRI(pull_image, STAGE_PULL_IMAGE, HIT_PULL_IMAGE_BEGINS, HIT_PULL_IMAGE_ENDS, 0, 0, member(request, 16), 0)
/* a CreateContainerRequest is the sandbox's id, the container's configuration (metadata: name, attempt), and that. */
CRI(create_container, STAGE_CREATE_CONTAINER, HIT_CREATE_CONTAINER_BEGINS, HIT_CREATE_CONTAINER_ENDS, read_user(request),
    read_user(request + 8), member(request, 24), member(member(request, 16), 0))
/* A StartContainerRequest is the container's id; the response is empty. */
NAMED(start_container, STAGE_START_CONTAINER, HIT_START_CONTAINER_BEGINS, read_user(fields(GO_ARG3(ctx))),
      read_user(fields(GO_ARG3(ctx)) + 8), 0, 0)
ENDS(start_container, STAGE_START_CONTAINER, HIT_START_CONTAINER_ENDS, GO_RESULT0(ctx))

/*
 * The kubelet: its functions for a pod are called one in another, by one goroutine, so the pod's UID is told of the
 * outermost alone. A pod begins with its kind and version, and its metadata with name, generated name, namespace, link,
 * UID.
 */
#define POD_UID 96

static __always_inline int tell_of_pod(u64 stage, u64 g, u64 pod)
{
	u64 time_ns = bpf_ktime_get_ns();

	emit(KIND_STAGE_BEGINS, time_ns, current_tgid(), stage, g, 0, 0);
	if (pod)
		tell_label(time_ns, LABEL_UID, pod + POD_UID, 0);
	return 0;
}

/* recordFirstSeenTime(pod) */
int pod_seen_begins(struct pt_regs *ctx)
{
	count_hit(HIT_POD_SEEN_BEGINS);
	return tell_of_pod(STAGE_POD_SEEN, GO_G(ctx), GO_ARG0(ctx));
}

/* Since 1.35, recordFirstSeenTime(logger, pod), where the logger is three words */
int pod_seen_logged_begins(struct pt_regs *ctx)
{
	count_hit(HIT_POD_SEEN_LOGGED_BEGINS);
	return tell_of_pod(STAGE_POD_SEEN, GO_G(ctx), GO_ARG3(ctx));
}

/* SyncPod(ctx, updateType, pod, ...) */
int pod_sync_begins(struct pt_regs *ctx)
{
	count_hit(HIT_POD_SYNC_BEGINS);
	return tell_of_pod(STAGE_POD_SYNC, GO_G(ctx), GO_ARG4(ctx));
}

ENDS(pod_sync, STAGE_POD_SYNC, HIT_POD_SYNC_ENDS, 0)
STAGE(pod_volumes, STAGE_POD_VOLUMES, HIT_POD_VOLUMES_BEGINS, HIT_POD_VOLUMES_ENDS, 0)
STAGE(pod_sandbox, STAGE_POD_SANDBOX, HIT_POD_SANDBOX_BEGINS, HIT_POD_SANDBOX_ENDS, 0)
STAGE(pod_image, STAGE_POD_IMAGE, HIT_POD_IMAGE_BEGINS, HIT_POD_IMAGE_ENDS, 0)

/* startContainer(ctx, sandbox's id, its configuration, what to start, ...), where that is a container, whose name is first
 */
int pod_container_begins(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns(), start = GO_ARG6(ctx);
	u64 container = start ? read_user(start) : 0; /* of the kubelet's own, not a message */

	count_hit(HIT_POD_CONTAINER_BEGINS);
	emit(KIND_STAGE_BEGINS, time_ns, current_tgid(), STAGE_POD_CONTAINER, GO_G(ctx), 0, 0);
	if (container)
		tell_label(time_ns, LABEL_CONTAINER, container, 0);
	return 0;
}

ENDS(pod_container, STAGE_POD_CONTAINER, HIT_POD_CONTAINER_ENDS, 0)
