/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Page faults of memory that the runtime had returned, and those that NUMA balancing provokes; see probes/refaults.py.
 */

#define PAGE_SHIFT 12 /* no page is smaller; of a larger one each part counts as a page of its own */
#define CHUNK_SHIFT 22
#define CHUNK_PAGES (1 << (CHUNK_SHIFT - PAGE_SHIFT))
#define OWNERS 16      /* whose faults are added up at a time, on each CPU */
#define OWNED_PAGES 16 /* what the scavenger returns at once, 64 KiB: the pages of one owner */

/* 4 MiB of address space, of which the runtime returns a part at a time (pallocChunkPages in runtime/mpagealloc.go). */
struct chunk {
	u8 returned[CHUNK_PAGES]; /* and not touched since; bytes, for CPUs change neighbours at once */
	u64 owner[CHUNK_PAGES / OWNED_PAGES];
};

struct fault {
	u64 begin_ns;
	u64 address;
	u64 switches;
	u64 moved;
	struct hints hints;
};

/* Faults of one CPU that no event has told yet: those that kept their CPU, and those that lost it. */
struct sums {
	u64 time_ns; /* of the last one */
	u64 stack;
	u64 kept, lost; /* how many */
	u64 kept_ns, lost_ns;
	u64 address;
	u64 moved;
};

BPF_TABLE("lru_hash", u32, struct fault, open_faults, 16384);
BPF_TABLE("hash", u64, struct chunk, chunks, 4096);
BPF_PERCPU_ARRAY(blank, struct chunk, 1);
BPF_PERCPU_ARRAY(refaults, struct sums, OWNERS);
BPF_PERCPU_ARRAY(hinting, struct sums, 1);

/* Whether these pages can be followed: there is room for that many chunks. */
static __always_inline bool note(u64 at, u64 pages, u64 stack)
{
	u64 key = at >> (CHUNK_SHIFT - PAGE_SHIFT), i;
	struct chunk *chunk = chunks.lookup(&key), *empty;
	int zero = 0;

	if (!chunk) {
		empty = blank.lookup(&zero);
		if (empty)
			chunks.insert(&key, empty); /* another CPU may be doing it */
		chunk = chunks.lookup(&key);
	}
	if (!chunk)
		return false;
#pragma clang loop unroll(disable)
	for (i = 0; i < CHUNK_PAGES; i++) {
		/* Or clang counts down instead, by a number of which verifiers of Linux 6.1 lose the bounds. */
		asm volatile("" : "+r"(i));
		if (i >= pages)
			break;
		chunk->returned[(at + i) & (CHUNK_PAGES - 1)] = 1;
		chunk->owner[((at + i) & (CHUNK_PAGES - 1)) / OWNED_PAGES] = stack;
	}
	return true;
}

/* Entry of sysUnusedOS: the address, and the size in bytes, which lies in one chunk. */
int returned(struct pt_regs *ctx)
{
	u64 time_ns = bpf_ktime_get_ns(), address = GO_ARG0(ctx), bytes = GO_ARG1(ctx), stack;
	bool followed;

	count_hit(HIT_RETURNED);
	stack = user_stack(ctx, time_ns);
	followed = note(address >> PAGE_SHIFT, bytes >> PAGE_SHIFT, stack);
	emit(KIND_RETURNED, time_ns, stack, bytes, followed ? 0 : bytes, 0, 0);
	return 0;
}

static __always_inline u64 field(u64 offset)
{
	return offset ? kernel_u64((void *)bpf_get_current_task(), offset) : 0;
}

static __always_inline void look(struct config *cfg, struct fault *fault)
{
	fault->switches = field(cfg->slot[CONFIG_TASK_SLEPT]) + field(cfg->slot[CONFIG_TASK_PREEMPTED]);
	if (!cfg->slot[CONFIG_TASK_NUMA_FAULTS])
		return;
	fault->moved = field(cfg->slot[CONFIG_TASK_MOVED]);
	read_hints(cfg, &fault->hints);
}

int on_software_event__page_faults(struct perf_event_context *ctx)
{
	struct fault fault = {.address = ctx->addr};
	u32 tid = bpf_get_current_pid_tgid();
	struct config *cfg = settings();

	if (!cfg || !is_own(cfg))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS);
	look(cfg, &fault);
	fault.begin_ns = bpf_ktime_get_ns(); /* last: what was done here is no part of the fault */
	open_faults.update(&tid, &fault);
	return 0;
}

static __always_inline void tell(struct sums *sums, bool is_hinting)
{
	u64 counts = sums->kept | sums->lost << 32;

	if (!counts)
		return;
	if (is_hinting)
		emit(KIND_HINTING, sums->time_ns, counts, sums->kept_ns, sums->lost_ns, sums->address, sums->moved);
	else
		emit(KIND_REFAULTS, sums->time_ns, counts, sums->kept_ns, sums->lost_ns, sums->address, sums->stack);
	sums->kept = sums->lost = sums->kept_ns = sums->lost_ns = sums->moved = 0;
}

static __always_inline void add(struct sums *sums, u64 time_ns, u64 took_ns, u64 address, bool lost)
{
	sums->time_ns = time_ns;
	sums->address = address;
	sums->kept += !lost;
	sums->lost += lost;
	if (lost)
		sums->lost_ns += took_ns;
	else
		sums->kept_ns += took_ns;
}

/* The owner of a returned page, which it no longer is; 0 if it is none. */
static __always_inline u64 take(u64 address)
{
	u64 key = address >> CHUNK_SHIFT, page = address >> PAGE_SHIFT & (CHUNK_PAGES - 1);
	struct chunk *chunk = chunks.lookup(&key);

	if (!chunk || !chunk->returned[page])
		return 0;
	chunk->returned[page] = 0;
	return chunk->owner[page / OWNED_PAGES];
}

static __always_inline int ends(struct perf_event_context *ctx, struct config *cfg, bool minor)
{
	u64 time_ns = bpf_ktime_get_ns(), stack;
	u32 tid = bpf_get_current_pid_tgid();
	struct fault *fault = open_faults.lookup(&tid), now = {};
	struct sums *sums;
	int zero = 0, slot;

	stack = take(ctx->addr);
	if (!fault || !is_one_page(fault->address, ctx->addr))
		return 0;
	look(cfg, &now);
	if (minor && differ(&fault->hints, &now.hints)) {
		sums = hinting.lookup(&zero);
		if (sums) {
			sums->moved += now.moved - fault->moved;
			add(sums, time_ns, time_ns - fault->begin_ns, ctx->addr, now.switches != fault->switches);
		}
	} else if (minor && stack) { /* what was returned is read from nowhere, but what the kernel has swapped out */
		slot = (stack ^ stack >> 4) & (OWNERS - 1);
		sums = refaults.lookup(&slot);
		if (sums && sums->stack != stack) {
			tell(sums, false);
			sums->stack = stack;
		}
		if (sums)
			add(sums, time_ns, time_ns - fault->begin_ns, ctx->addr, now.switches != fault->switches);
	}
	open_faults.delete(&tid);
	return 0;
}

int on_software_event__page_faults_min(struct perf_event_context *ctx)
{
	struct config *cfg = settings();

	if (!cfg || !is_own(cfg))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MIN);
	return ends(ctx, cfg, true);
}

int on_software_event__page_faults_maj(struct perf_event_context *ctx)
{
	struct config *cfg = settings();

	if (!cfg || !is_own(cfg))
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MAJ);
	return ends(ctx, cfg, false);
}

/* The clock, on every CPU: what was added up is told. The kernel runs no program of a perf event inside another. */
int on_software_event__cpu_clock(struct perf_event_context *ctx)
{
	struct sums *sums;
	int zero = 0, slot, key;

	if (is_own(settings())) /* elsewhere the target does not wait for it */
		count_hit(HIT_ON_SOFTWARE_EVENT__CPU_CLOCK);
#pragma clang loop unroll(disable)
	for (slot = 0; slot < OWNERS; slot++) {
		key = slot; /* the counter itself stays in a register: not every verifier follows 4 bytes of the stack */
		sums = refaults.lookup(&key);
		if (sums)
			tell(sums, false);
	}
	sums = hinting.lookup(&zero);
	if (sums)
		tell(sums, true);
	return 0;
}
