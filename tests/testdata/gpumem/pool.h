/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A pool of memory that nobody has, as a driver would manage it: best fit, blocks that are split and merged, growth by
 * 2 MiB, frees that other streams may reuse after a synchronise only, trim, failures on demand.
 *
 * Blocks of one pool lie in one range of addresses of its own; what is got is put behind what there is.
 */
#ifndef POOL_H
#define POOL_H

#include <stddef.h>
#include <stdint.h>

#define MIB (1UL << 20)
#define GROWTH (2 * MIB)
#define BLOCKS 4096

struct block {
	uintptr_t at;
	size_t size;
	int used;
	void *stream; /* on which it was freed; NULL: anybody may have it */
};

struct pool {
	uintptr_t base;
	size_t top, reserved, most; /* bytes got since the beginning, got and kept, and how many can be */
	int count;
	struct block blocks[BLOCKS];
};

static size_t rounded(size_t size)
{
	return (size + 511) / 512 * 512;
}

static void pool_put(struct pool *pool, int at, struct block block)
{
	for (int i = pool->count++; i > at; i--)
		pool->blocks[i] = pool->blocks[i - 1];
	pool->blocks[at] = block;
}

static void pool_drop(struct pool *pool, int at)
{
	pool->count--;
	for (int i = at; i < pool->count; i++)
		pool->blocks[i] = pool->blocks[i + 1];
}

static void pool_merge(struct pool *pool)
{
	for (int i = 0; i + 1 < pool->count;) {
		struct block *one = &pool->blocks[i], *two = one + 1;

		if (!one->used && !two->used && one->stream == two->stream && one->at + one->size == two->at) {
			one->size += two->size;
			pool_drop(pool, i + 1);
		} else {
			i++;
		}
	}
}

/* 0 where there is no memory. */
static uintptr_t pool_alloc(struct pool *pool, size_t asked, void *stream)
{
	size_t size = rounded(asked), more;
	int best = -1;

	for (int i = 0; i < pool->count; i++) {
		struct block *each = &pool->blocks[i];

		if (!each->used && each->size >= size && (!each->stream || each->stream == stream) &&
		    (best < 0 || each->size < pool->blocks[best].size))
			best = i;
	}
	if (best < 0) {
		more = (size + GROWTH - 1) / GROWTH * GROWTH;
		if (pool->reserved + more > pool->most || pool->count + 2 > BLOCKS)
			return 0;
		best = pool->count;
		pool_put(pool, best, (struct block){pool->base + pool->top, more, 0, NULL});
		pool->top += more;
		pool->reserved += more;
	}
	struct block *found = &pool->blocks[best];
	if (found->size > size) {
		pool_put(pool, best + 1, (struct block){found->at + size, found->size - size, 0, found->stream});
		found->size = size;
	}
	found->used = 1;
	return found->at;
}

static int pool_free(struct pool *pool, uintptr_t at, void *stream)
{
	for (int i = 0; i < pool->count; i++) {
		if (pool->blocks[i].used && pool->blocks[i].at == at) {
			pool->blocks[i].used = 0;
			pool->blocks[i].stream = stream;
			pool_merge(pool);
			return 1;
		}
	}
	return 0;
}

static void pool_synchronise(struct pool *pool)
{
	for (int i = 0; i < pool->count; i++)
		pool->blocks[i].stream = NULL;
	pool_merge(pool);
}

/* Give back what is free, from the end, as long as so many bytes stay; addresses are not used again. */
static void pool_trim(struct pool *pool, size_t keep)
{
	for (int i = pool->count - 1; i >= 0; i--) {
		size_t size = pool->blocks[i].size;

		if (!pool->blocks[i].used && pool->reserved - size >= keep) {
			pool->reserved -= size;
			pool_drop(pool, i);
		}
	}
}

static size_t pool_used(const struct pool *pool)
{
	size_t sum = 0;

	for (int i = 0; i < pool->count; i++)
		sum += pool->blocks[i].used ? pool->blocks[i].size : 0;
	return sum;
}

#endif
