/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A program that uses GPU memory: program SCENARIO WHEN. For each line it reads it plays SCENARIO and prints a line of
 * JSON.
 *
 * Or, where WHEN is "once", it plays it once and reads nothing.
 *
 * WHEN the CUDA libraries come in: "start", before the first line is read, or "late", with the first line. Linked with
 * them, or built with STATIC, it has them from the beginning. With "forks" they are there from the start, and with each
 * line it forks first: the child, which executes nothing, plays "pieces" and ends.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef STATIC
#include "cudart.c"
#else
#include <stddef.h>
#endif

#define MIB (1UL << 20)
#define THREADS 3
#define CALLS 337

static void *library, *driver, *torch;

static int (*malloc_)(void **, size_t);
static int (*managed)(void **, size_t, unsigned);
static int (*pitch_)(void **, size_t *, size_t, size_t);
static int (*malloc_async)(void **, size_t, void *);
static int (*malloc_async_ptsz)(void **, size_t, void *);
static int (*malloc_from_pool)(void **, size_t, void *, void *);
static int (*free_)(void *);
static int (*free_async)(void *, void *);
static int (*free_async_ptsz)(void *, void *);
static int (*pool_create)(void **, const void *);
static int (*default_pool)(void **, int);
static int (*use_pool)(int, void *);
static int (*pool_trim)(void *, size_t);
static int (*pool_get)(void *, int, void *);
static int (*pool_set)(void *, int, void *);
static int (*mem_info)(size_t *, size_t *);
static int (*set_device)(int);
static void (*fail)(int);
static void (*synchronise)(void);
static int (*driver_malloc)(void **, size_t);
static int (*driver_free)(void *);

static void *named(void *from, const char *name)
{
	void *found = dlsym(from, name);

	if (!found) {
		fprintf(stderr, "%s: %s\n", name, dlerror());
		exit(2);
	}
	return found;
}

static void *opened(const char *name)
{
	void *found = dlopen(name, RTLD_NOW | RTLD_GLOBAL);

	if (!found) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	return found;
}

static void load(void)
{
	if (driver)
		return;
	driver = opened("libcuda.so.1");
#ifdef STATIC
#define FROM_LIBRARY(variable, name) variable = name
#else
	library = opened("libcudart.so.12");
#define FROM_LIBRARY(variable, name) variable = named(library, #name)
#endif
	FROM_LIBRARY(malloc_, cudaMalloc);
	FROM_LIBRARY(managed, cudaMallocManaged);
	FROM_LIBRARY(pitch_, cudaMallocPitch);
	FROM_LIBRARY(malloc_async, cudaMallocAsync);
	FROM_LIBRARY(malloc_async_ptsz, cudaMallocAsync_ptsz);
	FROM_LIBRARY(malloc_from_pool, cudaMallocFromPoolAsync);
	FROM_LIBRARY(free_, cudaFree);
	FROM_LIBRARY(free_async, cudaFreeAsync);
	FROM_LIBRARY(free_async_ptsz, cudaFreeAsync_ptsz);
	FROM_LIBRARY(pool_create, cudaMemPoolCreate);
	FROM_LIBRARY(default_pool, cudaDeviceGetDefaultMemPool);
	FROM_LIBRARY(use_pool, cudaDeviceSetMemPool);
	FROM_LIBRARY(pool_trim, cudaMemPoolTrimTo);
	FROM_LIBRARY(pool_get, cudaMemPoolGetAttribute);
	FROM_LIBRARY(pool_set, cudaMemPoolSetAttribute);
	FROM_LIBRARY(mem_info, cudaMemGetInfo);
	FROM_LIBRARY(set_device, cudaSetDevice);
	fail = named(driver, "standin_fail");
	synchronise = named(driver, "standin_synchronise");
	driver_malloc = named(driver, "cuMemAlloc_v2");
	driver_free = named(driver, "cuMemFree_v2");
}

/* Everything, in an order that a seed decides. */
static void *mixed(void *argument)
{
	unsigned seed = (uintptr_t)argument;
	void *pool = NULL, *stream = (void *)(0x5000UL + 16 * (uintptr_t)argument);
	struct {
		void *at;
		int how;
	} live[64] = {};
	size_t pitch, total;
	unsigned long value = 64 * MIB;

	set_device((int)(uintptr_t)argument % 2);
	pool_create(&pool, NULL);
	pool_set(pool, 4, &value);
	for (int i = 0; i < CALLS; i++) {
		int slot = rand_r(&seed) % 64, how = rand_r(&seed) % 6, result = 0;
		size_t size = 1 + rand_r(&seed) % (256 << 10);
		void *at = live[slot].at;

		if (at && live[slot].how == 0)
			free_(at);
		else if (at && live[slot].how == 1)
			free_async(at, stream);
		else if (at && live[slot].how == 2)
			free_async_ptsz(at, stream);
		else if (at)
			driver_free(at);
		live[slot].at = NULL;
		if (at)
			continue;
		if (rand_r(&seed) % 20 == 0)
			fail(1);
		if (how == 0)
			result = malloc_(&live[slot].at, size);
		else if (how == 1)
			result = malloc_async(&live[slot].at, size, stream);
		else if (how == 2)
			result = malloc_async_ptsz(&live[slot].at, size, stream);
		else if (how == 3)
			result = malloc_from_pool(&live[slot].at, size, pool, stream);
		else if (how == 4)
			result = pitch_(&live[slot].at, &pitch, 1000, 7);
		else
			result = driver_malloc(&live[slot].at, size);
		live[slot].how = how == 3 ? 1 : how == 4 ? 0 : how;
		if (result)
			live[slot].at = NULL;
		if (i % 50 == 0) {
			pool_get(pool, 5, &value);
			pool_get(pool, 7, &value);
			mem_info(&value, &total);
			synchronise();
		}
	}
	for (int slot = 0; slot < 64; slot++) {
		if (live[slot].at && live[slot].how == 0)
			free_(live[slot].at);
		else if (live[slot].at && live[slot].how < 3)
			free_async(live[slot].at, stream);
		else if (live[slot].at)
			driver_free(live[slot].at);
	}
	free_((void *)0x1234); /* nobody's: refused */
	pool_trim(pool, 0);
	return NULL;
}

static void mix(void)
{
	pthread_t threads[THREADS];

	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, mixed, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static __attribute__((noinline)) void asks_for_the_sum(void **out, void *pool)
{
	malloc_from_pool(out, 60 * MIB, pool, NULL);
	__asm__ volatile(""); /* no tail call */
}

/* 40, 20 and 40 MiB; the outer two freed; 60; the inner one freed; 90; and then more than there is. */
static void example(void)
{
	void *pool, *a, *b, *c, *d, *e;
	unsigned long reserved;

	set_device(0);
	pool_create(&pool, NULL);
	malloc_from_pool(&a, 40 * MIB, pool, NULL);
	malloc_from_pool(&b, 20 * MIB, pool, NULL);
	malloc_from_pool(&c, 40 * MIB, pool, NULL);
	free_async(a, NULL);
	free_async(c, NULL);
	synchronise();
	asks_for_the_sum(&d, pool);
	pool_get(pool, 5, &reserved);
	fail(1);
	malloc_from_pool(&e, 70 * MIB, pool, NULL); /* 80 free, in two pieces */
	fail(1);
	malloc_from_pool(&e, 200 * MIB, pool, NULL); /* more than is free */
	free_async(b, NULL);
	synchronise();
	malloc_from_pool(&e, 90 * MIB, pool, NULL);
	free_async(d, NULL);
	free_async(e, NULL);
	pool_trim(pool, 0);
}

/* Four blocks of 8 MiB, every other one freed; 12 MiB do not fit, and 10 are refused though 16 are free. */
static void pieces(void)
{
	void *pool, *at[4], *more;

	set_device(1);
	pool_create(&pool, NULL);
	for (int i = 0; i < 4; i++)
		malloc_from_pool(&at[i], 8 * MIB, pool, NULL);
	free_async(at[0], NULL);
	free_async(at[2], NULL);
	synchronise();
	malloc_from_pool(&more, 12 * MIB, pool, NULL);
	fail(1);
	malloc_from_pool(&at[0], 10 * MIB, pool, NULL);
}

/* Reserve 8 MiB of addresses, map two pieces of 2 MiB, unmap one. */
static void vmm(void)
{
	int (*reserve)(unsigned long *, size_t, size_t, unsigned long, unsigned long long) =
		named(driver, "cuMemAddressReserve");
	int (*create)(unsigned long long *, size_t, const void *, unsigned long long) = named(driver, "cuMemCreate");
	int (*map)(unsigned long, size_t, size_t, unsigned long long, unsigned long long) = named(driver, "cuMemMap");
	int (*unmap)(unsigned long, size_t) = named(driver, "cuMemUnmap");
	int (*release)(unsigned long long) = named(driver, "cuMemRelease");
	unsigned long long one, two;
	unsigned long at;

	reserve(&at, 8 * MIB, 0, 0, 0);
	create(&one, 2 * MIB, NULL, 0);
	create(&two, 2 * MIB, NULL, 0);
	map(at, 2 * MIB, 0, one, 0);
	map(at + 2 * MIB, 2 * MIB, 0, two, 0);
	fail(1);
	create(&two, 2 * MIB, NULL, 0);
	unmap(at, 2 * MIB);
	release(one);
}

/* Three names of pools: the default one, by its handle and by none, and one that takes its place. */
static void pools(void)
{
	void *whole, *own, *a, *b, *c;
	unsigned long reserved;

	set_device(1);
	default_pool(&whole, 1);
	malloc_async(&a, 3 * MIB, NULL);
	malloc_from_pool(&b, 5 * MIB, whole, NULL);
	pool_get(whole, 5, &reserved);
	pool_create(&own, NULL);
	use_pool(1, own);
	malloc_async(&c, 7 * MIB, NULL);
}

/* PyTorch's expandable segment: addresses for 8 MiB, mapped piece by piece, in which blocks join. */
static void expandable(void)
{
	void (*grow)(size_t, int), (*shrink)(size_t, int);
	uintptr_t (*get)(size_t, void *, int), a, b;
	void (*put)(uintptr_t, size_t, void *, int);

	if (!torch)
		torch = opened("libc10_cuda.so");
	*(void **)&grow = named(torch, "c10_map");
	*(void **)&shrink = named(torch, "c10_unmap");
	*(void **)&get = named(torch, "c10_malloc");
	*(void **)&put = named(torch, "c10_free");
	grow(2 * MIB, 0);
	a = get(1 * MIB, NULL, 0);
	b = get(1 * MIB, NULL, 0);
	grow(2 * MIB, 0);
	put(a, 1 * MIB, NULL, 0);
	put(b, 1 * MIB, NULL, 0);
	get(3 * MIB, NULL, 0);
	grow(2 * MIB, 0);
	shrink(2 * MIB, 0);
}

/* PyTorch's: two small segments side by side; both free, and a request that fits into neither. */
static void caching(void)
{
	uintptr_t (*get)(size_t, void *, int), a, b, c;
	void (*put)(uintptr_t, size_t, void *, int), (*empty)(int);

	if (!torch)
		torch = opened("libc10_cuda.so");
	*(void **)&get = named(torch, "c10_malloc");
	*(void **)&put = named(torch, "c10_free");
	*(void **)&empty = named(torch, "c10_empty_cache");
	a = get(1 * MIB, NULL, 0);
	b = get(1 * MIB, NULL, 0);
	c = get(1000, NULL, 0);
	put(a, 1 * MIB, NULL, 0);
	put(b, 1 * MIB, NULL, 0);
	put(c, 1000, NULL, 0);
	a = get(3 * MIB, NULL, 0); /* 4 MiB are free, in two segments */
	get(60 * MIB, NULL, 0);	   /* more than the device has left */
	put(a, 3 * MIB, NULL, 0);
	empty(0);
}

int main(int argc, char **argv)
{
	const char *scenario = argc > 1 ? argv[1] : "mix", *when = argc > 2 ? argv[2] : "start";
	char line[16];

	if (strcmp(when, "late"))
		load();
	int once = !strcmp(when, "once"), left = 1;

	while (once ? left-- > 0 : fgets(line, sizeof(line), stdin) != NULL) {
		load();
		if (!strcmp(when, "forks")) {
			pid_t child = fork();

			if (!child) {
				pieces();
				_exit(0);
			}
			waitpid(child, NULL, 0);
		}
		if (!strcmp(scenario, "mix"))
			mix();
		else if (!strcmp(scenario, "example"))
			example();
		else if (!strcmp(scenario, "pieces"))
			pieces();
		else if (!strcmp(scenario, "vmm"))
			vmm();
		else if (!strcmp(scenario, "pools"))
			pools();
		else if (!strcmp(scenario, "expandable"))
			expandable();
		else
			caching();
		printf("{\"done\": true}\n");
		fflush(stdout);
	}
	return 0;
}
