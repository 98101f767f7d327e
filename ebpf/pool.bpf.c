/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What collections drop out of each sync.Pool, and which of its objects are made anew because of that; see probes/pool.py.
 */

/*
 * Of one collection: the world is stopped meanwhile. Steps are cheap, unless memory is slow or has to be faulted in. For
 * each the verifier goes through 800 instructions, and through a million at most.
 */
#define STEPS 512
#define MOST_NS 200000

/* sync.Pool, sync.poolLocal (its beginning) and sync.poolChainElt */
struct go_pool {
	u64 local, local_size, victim, victim_size;
};

#define LOCAL_BYTES 128

struct go_local {
	u64 type, data, head, tail;
};

struct go_queue {
	u64 ends, values, length, capacity, next, previous;
};

/* abi.Type, abi.PtrType, abi.SliceType, abi.StructType */
#define TYPE_KIND 23
#define TYPE_ELEMENT 48
#define TYPE_FIELDS 56
#define GO_KIND_MASK 31
#define GO_KIND_POINTER 22
#define GO_KIND_SLICE 23
#define GO_KIND_STRUCT 25

/*
 * What was dropped of a pool and has not been made anew, and the size of one object. Two Ps that find the last one at once
 * both take it: it is below 0 then, and the next that is dropped makes up for it.
 */
struct pool {
	s64 shared, private;
	u64 bytes;
};

BPF_TABLE("lru_hash", u64, struct pool, pools, 4096); /* by the address of the Pool */

static __always_inline u64 pool_key(u64 pool)
{
	return pool ^ (u64)target_key() * 0x9e3779b97f4a7c15ULL;
}

/* Memory of the target, 0 if it cannot be read: without the branches of read_user, of which the verifier follows each. */
static __always_inline u64 word(u64 at)
{
	u64 value = 0;

	read_if_there(&value, sizeof(value), at);
	return value;
}

/* The size of what an interface has, with the array behind a slice that it is, or begins with. */
static __always_inline u64 object_bytes(u64 type, u64 at)
{
	u64 size;

	if ((word(type + TYPE_KIND) & GO_KIND_MASK) == GO_KIND_POINTER)
		type = word(type + TYPE_ELEMENT);
	size = word(type);
	if ((word(type + TYPE_KIND) & GO_KIND_MASK) == GO_KIND_STRUCT)
		type = word(word(type + TYPE_FIELDS) + 8); /* the first field: its name, then its type */
	if ((word(type + TYPE_KIND) & GO_KIND_MASK) == GO_KIND_SLICE)
		size += word(at + 16) * word(word(type + TYPE_ELEMENT));
	return size;
}

/*
 * Where a walk through the victims is: the next of the pools, the pool, the next of its Ps and of a P's queue. It is in a
 * map, for of what is not the verifier would follow every value that each number may have come to.
 */
struct cleanup {
	u64 next, end, pool, local, locals_end, queue;
	u64 shared, private, type, data;
};

PER_TARGET(cleanups, struct cleanup);

static __always_inline void drop(struct cleanup *at)
{
	struct pool fresh = {}, *pool;
	u64 key = pool_key(at->pool);

	if (!at->shared && !at->private)
		return;
	pool = pools.lookup_or_try_init(&key, &fresh);
	if (!pool) {
		count_loss();
		return;
	}
	pool->shared += at->shared;
	pool->private += at->private;
	pool->bytes = object_bytes(at->type, at->data);
	emit(KIND_POOL_DROPPED, bpf_ktime_get_ns(), at->pool, at->shared, at->private, 0, 0);
}

/* Some of a P's victims that others may take: one link of the chain. */
static __always_inline void look_at_queue(struct cleanup *at)
{
	struct go_queue queue = {};
	u32 count;
	u64 last;

	read_bytes(&queue, sizeof(queue), at->queue);
	count = (u32)(queue.ends >> 32) - (u32)queue.ends;
	at->shared += count;
	at->queue = queue.previous;
	if (count) {
		last = queue.values + 16 * ((u32)queue.ends & (queue.length - 1));
		at->type = word(last);
		at->data = word(last + 8);
	}
}

static __always_inline void look_at_local(struct cleanup *at)
{
	struct go_local local = {};

	read_bytes(&local, sizeof(local), at->local);
	at->local += LOCAL_BYTES;
	at->queue = local.head;
	if (local.type) {
		at->private++;
		at->type = local.type;
		at->data = local.data;
	}
}

static __always_inline void look_at_pool(struct cleanup *at, u64 pool)
{
	struct go_pool found = {};

	read_bytes(&found, sizeof(found), pool);
	at->pool = pool;
	at->local = found.victim;
	at->locals_end = found.victim + LOCAL_BYTES * found.victim_size;
	at->shared = at->private = 0;
}

static __always_inline void look_at_victims(struct config *cfg, u64 began_ns)
{
	struct cleanup fresh = {}, *at;
	u32 key = target_key();
	int i;

	fresh.next = read_user(cfg->slot[CONFIG_OLD_POOLS]);
	fresh.end = fresh.next + 8 * read_user(cfg->slot[CONFIG_OLD_POOLS] + 8);
	cleanups.update(&key, &fresh);
	at = cleanups.lookup(&key);
	if (!at)
		return;
#pragma clang loop unroll(disable)
	for (i = 0; i < STEPS; i++) {
		if (i % 8 == 7 && bpf_ktime_get_ns() - began_ns > MOST_NS)
			break;
		if (at->queue) {
			look_at_queue(at);
		} else if (at->local < at->locals_end) {
			look_at_local(at);
		} else {
			drop(at);
			if (at->next >= at->end)
				return;
			look_at_pool(at, word(at->next));
			at->next += 8;
		}
	}
	emit(KIND_POOL_DROPPED, bpf_ktime_get_ns(), 0, 0, 0, 0, 0);
}

/* Entry of poolCleanup: the victims of the old pools are dropped. */
int pool_cleaned(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	u64 began_ns = bpf_ktime_get_ns();

	if (!cfg)
		return 0;
	count_hit(HIT_POOL_CLEANED);
	look_at_victims(cfg, began_ns);
	add_to_count_of(target_key(), HIT_POOL_CLEANED_NS, bpf_ktime_get_ns() - began_ns);
	return 0;
}

/* Get has no object: it calls New, or its caller makes one. */
int pool_missed(struct pt_regs *ctx)
{
	struct config *cfg = settings();
	u64 at, key, time_ns = bpf_ktime_get_ns();
	struct pool *pool;
	bool private;

	if (!cfg)
		return 0;
	count_hit(HIT_POOL_MISSED);
	at = kernel_u64(ctx, cfg->slot[CONFIG_POOL_REGISTER] & 0x1f8);
	key = pool_key(at);
	pool = pools.lookup(&key);
	if (!pool)
		return 0;
	private = pool->shared <= 0;
	if (private && pool->private <= 0)
		return 0;
	__sync_fetch_and_add(private ? &pool->private : &pool->shared, -1);
	emit(KIND_POOL_REFILL, time_ns, at, user_stack(ctx, time_ns), pool->bytes, private, pool->shared + pool->private);
	return 0;
}
