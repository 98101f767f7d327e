/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The maps every probe shares, put in front of each program's text (BCC rewrites map calls in the main file only,
 * so this cannot be an #include).
 *
 * CONFIG_SLOTS, HIT_SLOTS and the CONFIG_*, HIT_*, KIND_* names come from the probe's declaration in Python.
 */
#include <linux/types.h>
#include <event.h>
#include <goabi.h>

/* What the ring carries. */
struct sent {
	struct event event;
#ifdef MANY
	u64 tgid; /* whose event it is */
#endif
};

#define NO_WAKEUP 1 /* BPF_RB_NO_WAKEUP: a wake-up is an interrupt inside somebody's pause; the reader has a timer */

struct config {
	u64 slot[CONFIG_SLOTS];
};

BPF_RINGBUF_OUTPUT(events, 256);

#ifdef MANY
/*
 * For many processes at once, each known by its number: what belongs to one is in tables instead of single places. A
 * process that is in none of them runs into a probe only because it runs the same file.
 */
#define PER_TARGET(name, type) BPF_HASH(name, u32, type, MANY)

struct counted {
	u64 lost;
	u64 hits[HIT_SLOTS];
};

PER_TARGET(config, struct config);
PER_TARGET(counts, struct counted);

static __always_inline u32 target_key(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* Of another process than the current one, as all that ends in _of. */
static __always_inline struct config *settings_of(u32 key)
{
	return config.lookup(&key);
}

static __always_inline void add_to_count_of(u32 key, int slot, u64 more)
{
	struct counted *own = counts.lookup(&key);

	if (own)
		__sync_fetch_and_add(&own->hits[slot], more);
}

static __always_inline void count_loss_of(u32 key)
{
	struct counted *own = counts.lookup(&key);

	if (own)
		__sync_fetch_and_add(&own->lost, 1);
}
#else
#define PER_TARGET(name, type) BPF_ARRAY(name, type, 1)

PER_TARGET(config, struct config);
BPF_ARRAY(lost, u64, 1);
BPF_ARRAY(hits, u64, HIT_SLOTS);

static __always_inline u32 target_key(void)
{
	return 0;
}

static __always_inline struct config *settings_of(u32 key)
{
	key = 0;
	return config.lookup(&key);
}

static __always_inline void add_to_count_of(u32 key, int slot, u64 more)
{
	u64 *count = hits.lookup(&slot);

	if (count)
		__sync_fetch_and_add(count, more);
}

static __always_inline void count_loss_of(u32 key)
{
	int zero = 0;
	u64 *count = lost.lookup(&zero);

	if (count)
		__sync_fetch_and_add(count, 1);
}
#endif

static __always_inline struct config *settings(void)
{
	return settings_of(target_key());
}

static __always_inline void count_hit_of(u32 key, int slot)
{
	add_to_count_of(key, slot, 1);
}

static __always_inline void count_hit(int slot)
{
	count_hit_of(target_key(), slot);
}

static __always_inline void count_loss(void)
{
	count_loss_of(target_key());
}

/* An event of the target ``key``, of whichever thread. */
static __always_inline void emit_to(u32 key, u32 tid, u16 kind, u64 time_ns, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	struct sent sent = {
		.event =
			{
				.time_ns = time_ns,
				.tid = tid,
				.kind = kind,
				.cpu = bpf_get_smp_processor_id(),
				.a = a,
				.b = b,
				.c = c,
				.d = d,
				.e = e,
			},
#ifdef MANY
		.tgid = key,
#endif
	};

	if (events.ringbuf_output(&sent, sizeof(sent), NO_WAKEUP))
		count_loss_of(key);
}

static __always_inline void emit_of(u32 tid, u16 kind, u64 time_ns, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	emit_to(target_key(), tid, kind, time_ns, a, b, c, d, e);
}

static __always_inline void emit(u16 kind, u64 time_ns, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	emit_of((u32)bpf_get_current_pid_tgid(), kind, time_ns, a, b, c, d, e);
}

static __always_inline u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* Memory of the kernel. */
static __always_inline u64 kernel_u64(void *base, u64 offset)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), base + offset);
	return value;
}

static __always_inline u32 kernel_u32(void *base, u64 offset)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), base + offset);
	return value;
}

/* What a perf tracepoint of a system call hands over: its arguments on entry, or its result. */
struct syscall_enter {
	u64 common;
	u64 number;
	u64 args[6];
};

struct syscall_exit {
	u64 common;
	u64 number;
	s64 result;
};

#ifdef TASK_REGISTERS
static void *(*current_task)(void)__maybe_unused = (void *)158;	      /* BPF_FUNC_get_current_task_btf */
static void *(*registers_of)(void *task)__maybe_unused = (void *)175; /* BPF_FUNC_task_pt_regs */

#define USER_WORD(regs, NAME) kernel_u64(&NAME((struct pt_regs *)(regs)), 0)
#endif

/*
 * Memory of the target, in uprobes only. A read that must not fault costs half of one that may, and nearly always does.
 * Where the kernel lets a uprobe sleep, a page that is away at the moment (NUMA balancing, swap) is then faulted in as
 * by the target itself; elsewhere it is a loss, which `read_bytes` counts.
 */
static __always_inline bool read_if_there(void *to, u32 size, u64 address)
{
	long failed = bpf_probe_read_user(to, size, (void *)address);

#ifdef MAY_FAULT
	if (failed)
		failed = bpf_copy_from_user(to, size, (void *)address);
#endif
	return !failed;
}

static __always_inline bool read_bytes(void *to, u32 size, u64 address)
{
	bool is_read = read_if_there(to, size, address);

	if (!is_read)
		count_loss();
	return is_read;
}

static __always_inline u64 read_user(u64 address)
{
	u64 value = 0;

	read_bytes(&value, sizeof(value), address);
	return value;
}
