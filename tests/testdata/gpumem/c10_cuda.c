/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A stand-in for libc10_cuda.so: PyTorch's caching allocator in small. Segments of 2 or 20 MiB come from cudaMalloc, blocks
 * out of them, by best fit; each event goes through a function with record_trace's name, which only .symtab has.
 */
#include <stddef.h>

#include "pool.h"
#include "truth.h"

int cudaMalloc(void **out, size_t size);
int cudaFree(void *at);
int cuMemAddressReserve(unsigned long *out, size_t size, size_t align, unsigned long at, unsigned long long flags);
int cuMemCreate(unsigned long long *out, size_t size, const void *prop, unsigned long long flags);
int cuMemMap(unsigned long at, size_t size, size_t offset, unsigned long long handle, unsigned long long flags);
int cuMemUnmap(unsigned long at, size_t size);

enum { ALLOC, FREE_REQUESTED, FREE_COMPLETED, SEGMENT_ALLOC, SEGMENT_FREE, SEGMENT_MAP, SEGMENT_UNMAP, SNAPSHOT, OOM };
static const char *const names[] = {"alloc",	     "free_requested", "free_completed",
				    "segment_alloc", "segment_free",   "segment_map",
				    "segment_unmap", "snapshot",       "oom"};

static struct pool segments[64];
static int count;

static void record_trace(void *self, int action, uintptr_t at, size_t size, void *stream,
			 unsigned char gpu) __asm__("_ZN3c104cuda20CUDACachingAllocator6Native22DeviceCachingAllocator12rec"
						    "ord_traceENS_10TraceEntry6ActionEmmP11CUstream");

static __attribute__((noinline, used)) void record_trace(void *self, int action, uintptr_t at, size_t size, void *stream,
							 unsigned char gpu)
{
	truth(names[action], at, size, (unsigned long)stream, (unsigned long)self, gpu);
}

static uintptr_t fit(size_t size)
{
	for (int i = 0; i < count; i++) {
		uintptr_t at = pool_alloc(&segments[i], size, NULL);

		if (at)
			return at;
	}
	return 0;
}

uintptr_t c10_malloc(size_t size, void *stream, int gpu)
{
	void *self = segments, *at = NULL;
	uintptr_t found = fit(size);

	if (!found) {
		size_t segment = size <= MIB	    ? 2 * MIB
				 : size <= 10 * MIB ? 20 * MIB
						    : (size + GROWTH - 1) / GROWTH * GROWTH;

		if (count == 64 || cudaMalloc(&at, segment)) {
			record_trace(self, OOM, 0, size, stream, gpu);
			return 0;
		}
		record_trace(self, SEGMENT_ALLOC, (uintptr_t)at, segment, stream, gpu);
		segments[count] = (struct pool){
			.base = (uintptr_t)at, .most = segment, .top = segment, .reserved = segment, .count = 1};
		segments[count++].blocks[0] = (struct block){(uintptr_t)at, segment, 0, NULL};
		found = fit(size);
	}
	record_trace(self, ALLOC, found, size, stream, gpu);
	return found;
}

void c10_free(uintptr_t at, size_t size, void *stream, int gpu)
{
	record_trace(segments, FREE_REQUESTED, at, size, stream, gpu);
	for (int i = 0; i < count; i++)
		pool_free(&segments[i], at, NULL);
	record_trace(segments, FREE_COMPLETED, at, size, stream, gpu);
}

void c10_empty_cache(int gpu)
{
	for (int i = 0; i < count;) {
		if (pool_used(&segments[i])) {
			i++;
			continue;
		}
		record_trace(segments, SEGMENT_FREE, segments[i].base, segments[i].reserved, NULL, gpu);
		cudaFree((void *)segments[i].base);
		segments[i] = segments[--count];
	}
}

/* The first segment, which grows and shrinks at its end, instead of one from cudaMalloc. */
void c10_map(size_t size, int gpu)
{
	unsigned long long handle;
	struct pool *pool = &segments[0];

	if (!count) {
		count = 1;
		pool->most = 64 * MIB;
		cuMemAddressReserve(&pool->base, pool->most, 0, 0, 0);
	}
	cuMemCreate(&handle, size, NULL, 0);
	cuMemMap(pool->base + pool->top, size, 0, handle, 0);
	record_trace(segments, SEGMENT_MAP, pool->base + pool->top, size, NULL, gpu);
	pool_put(pool, pool->count, (struct block){pool->base + pool->top, size, 0, NULL});
	pool->top += size;
	pool->reserved += size;
	pool_merge(pool);
}

void c10_unmap(size_t size, int gpu)
{
	struct pool *pool = &segments[0];

	pool->top -= size;
	pool->reserved -= size;
	pool->blocks[pool->count - 1].size -= size;
	record_trace(segments, SEGMENT_UNMAP, pool->base + pool->top, size, NULL, gpu);
	cuMemUnmap(pool->base + pool->top, size);
}
