/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tasks at the scheduler's tracepoints, for probes with TASKS among their parts: what they are called, and in which state
 * they leave a CPU.
 */

#define STATE_SLEEPING 0x3 /* TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE */
#define WAKE_RACE_NS 20000 /* another CPU may wake a task that is still on its way off its own */

struct name {
	u64 low;
	u64 high;
};

/* ``era``: see `tell_name_to`. */
struct told_name {
	struct name name;
	u64 era;
};

BPF_TABLE("lru_hash", u64, struct told_name, names, 4096); /* by whom it was told to, and the task */

/* What is read of tasks before it is known whose they are. */
#ifdef MANY
BPF_ARRAY(of_host, struct config, 1);

static __always_inline struct config *host_settings(void)
{
	int zero = 0;
	struct config *host = of_host.lookup(&zero);

	return host && host->slot[CONFIG_TASK_TGID] ? host : NULL;
}
#else
#define host_settings settings
#endif

static __always_inline u64 read_kernel(void *base, u64 offset, u32 size)
{
	u64 value = 0;

	if (size == 4)
		bpf_probe_read_kernel(&value, 4, base + offset);
	else
		bpf_probe_read_kernel(&value, 8, base + offset);
	return value;
}

/* The state in which the task that has the CPU leaves it; args are preempt, prev, next and, from 5.18 on, prev's state. */
static __always_inline u32 state_left_in(struct bpf_raw_tracepoint_args *ctx, struct config *cfg)
{
#ifdef SWITCH_HAS_STATE
	return ctx->args[3];
#else
	return read_kernel((void *)ctx->args[1], cfg->slot[CONFIG_TASK_STATE], 4);
#endif
}

/* What a task is called now: nothing where the kernel does not say where it keeps that. */
static __always_inline void read_name(struct config *cfg, void *task, struct name *name)
{
	if (cfg->slot[CONFIG_TASK_COMM])
		bpf_probe_read_kernel(name, sizeof(*name), task + cfg->slot[CONFIG_TASK_COMM]);
}

/* Tell the target ``key`` a task's name, if there is one: once as long as it is remembered, and again in each ``era``. */
static __always_inline void tell_name_to(u32 key, u64 era, u32 tid, u32 tgid, struct name *name, u64 time_ns)
{
	struct told_name told = {.name = *name, .era = era};
	struct told_name *known;
	u64 whom = (u64)key << 32 | tid;

	if (!name->low)
		return;
	known = names.lookup(&whom);
	if (known && known->name.low == name->low && known->name.high == name->high && known->era == era)
		return;
	names.update(&whom, &told);
	emit_to(key, tid, KIND_TASK, time_ns, name->low, name->high, tgid, 0, 0);
}

static __always_inline void tell_name(u32 tid, u32 tgid, struct name *name, u64 time_ns)
{
	tell_name_to(target_key(), 0, tid, tgid, name, time_ns);
}
