/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who executes a program: a process, and while the first Go program of a command is looked for, all that it starts. And who
 * loads a library, where a probe sits on the place to which the dynamic linker comes when it has mapped some.
 *
 * What is not seen of a program's beginning cannot be made good, so the process waits for its tracer right here, behind
 * the point of no return of execve and before the program's first instruction: until ptrace has asked it to stop, at most
 * some hundred microseconds. If nobody comes (the tracer was killed, or has no CPU), it goes on.
 */
#include <linux/types.h>
#include <goabi.h>

#define FORCE_WAKEUP 2 /* BPF_RB_FORCE_WAKEUP */
/* A third to two thirds of a millisecond, by how long reading the clock takes. */
#define SPINS 512
/* In a uprobe, from which the tracer can take the CPU, and several may come at once. */
#define SPINS_LINKED 2048
#define CLOCKS_PER_SPIN 32

struct notice {
	u64 time_ns;
	u32 pid; /* as gotrace numbers it; 0 where it has no number there */
	u32 tid;
	u32 number; /* of the notice, from 1 */
	u32 unused;
	u64 at; /* where it is in its dynamic linker, and will return to; 0: it has executed a program */
	u64 caller;
};

BPF_ARRAY(words, u64, WORDS);
BPF_HASH(followed, u32, u8, 16384);
BPF_RINGBUF_OUTPUT(notices, 1);

struct in_namespace {
	u32 pid;
	u32 tgid;
};

static long (*number_in_namespace)(u64 dev, u64 ino, struct in_namespace *found,
				   u32 size) __maybe_unused = (void *)120; /* BPF_FUNC_get_ns_current_pid_tgid */

static __always_inline u64 read_user(u64 address)
{
	u64 value = 0;

	bpf_probe_read_user(&value, sizeof(value), (void *)address);
	return value;
}

static __always_inline u64 *word(int slot)
{
	return words.lookup(&slot);
}

static __always_inline u64 value_of(int slot)
{
	u64 *value = word(slot);

	return value ? *value : 0;
}

static __always_inline u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* The current thread and its process as gotrace numbers them. */
static __always_inline struct in_namespace own_numbers(void)
{
	struct in_namespace found = {};

	if (!value_of(WORD_NAMESPACE)) {
		found.pid = bpf_get_current_pid_tgid();
		found.tgid = current_tgid();
	} else if (number_in_namespace(value_of(WORD_NAMESPACE_DEV), value_of(WORD_NAMESPACE), &found, sizeof(found))) {
		found.pid = found.tgid = 0;
	}
	return found;
}

static __always_inline bool is_followed(void)
{
	u32 tgid = current_tgid();
	u8 yes = 1;

	if (own_numbers().tgid == value_of(WORD_PID)) {
		if (value_of(WORD_TREE))
			followed.update(&tgid, &yes);
		return true;
	}
	return value_of(WORD_TREE) && followed.lookup(&tgid);
}

/* The number of a process by its first thread, 0 for any other thread. */
static __always_inline u32 tgid_of(void *task)
{
	u32 tid = 0, tgid = 0;

	bpf_probe_read_kernel(&tid, sizeof(tid), task + value_of(WORD_TASK_PID));
	bpf_probe_read_kernel(&tgid, sizeof(tgid), task + value_of(WORD_TASK_TGID));
	return tid == tgid ? tgid : 0;
}

/* args are the parent and the child. */
int on_tracepoint__sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u32 child = value_of(WORD_TREE) ? tgid_of((void *)ctx->args[1]) : 0;
	u8 yes = 1;

	if (child && is_followed())
		followed.update(&child, &yes);
	return 0;
}

/*
 * A number may be given to somebody else. Not at its exit: if another thread executes a program, the first one exits, and
 * its number goes on.
 */
int on_tracepoint__sched_process_free(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = value_of(WORD_TREE) ? tgid_of((void *)ctx->args[0]) : 0;

	if (tgid)
		followed.delete(&tgid);
	return 0;
}

static __always_inline int tell(u64 at, u64 caller, int spins)
{
	struct notice notice = {.time_ns = bpf_ktime_get_ns(), .at = at, .caller = caller};
	struct in_namespace own;
	u64 *count = word(WORD_NOTICES), *seen = word(WORD_SEEN);
	int i, j;

	if (!count || !seen || !is_followed())
		return 0;
	own = own_numbers();
	notice.pid = own.tgid;
	notice.tid = own.pid;
	notice.number = __sync_fetch_and_add(count, 1) + 1;
	if (notices.ringbuf_output(&notice, sizeof(notice), FORCE_WAKEUP))
		return 0; /* the gap in the numbers tells */
	/* A tracer that last ran here gets this CPU when we are done: it must not be kept from it. */
	if (value_of(WORD_CPU) == bpf_get_smp_processor_id())
		return 0;
	for (i = 0; i < spins; i++) {
		if (*(volatile u64 *)seen >= notice.number)
			break;
#pragma unroll
		for (j = 0; j < CLOCKS_PER_SPIN; j++)
			bpf_ktime_get_ns();
	}
	return 0;
}

/* The new program is in place, all other threads are gone. */
int on_tracepoint__sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	return tell(0, 0, SPINS);
}

/* Entry of _dl_debug_state, which is for debuggers: libraries are mapped, and nothing of them has run. */
int linked(struct pt_regs *ctx)
{
	return tell(GO_PC(ctx), GO_CALLER(ctx), SPINS_LINKED);
}
