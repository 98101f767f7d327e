/* SPDX-License-Identifier: GPL-2.0 */
/* A stand-in for libcuda.so.1: names, arguments and results of the driver's memory calls; the memory is made up. */
#include <pthread.h>
#include <string.h>

#include "pool.h"
#include "truth.h"

#define DEVICE (64UL << 20) /* bytes that cuMemAlloc has in all */
#define POOLS 4
#define ATTRIBUTES 9

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pool device = {.base = 0x7000000000UL, .most = DEVICE};
static struct pool pools[POOLS];
static unsigned long thresholds[POOLS], reserved_at = 0x7f0000000000UL, handles = 0x100;
static int made, fails;

/* The next so many requests are refused; for the test program. */
void standin_fail(int count)
{
	fails = count;
}

void standin_synchronise(void)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < POOLS; i++)
		pool_synchronise(&pools[i]);
	pool_synchronise(&device);
	pthread_mutex_unlock(&lock);
}

static struct pool *pool_of(void *handle)
{
	long number = handle ? (long)handle - 0xd00 : 0;

	if (!pools[number].base)
		pools[number].base = 0x7100000000UL + (number << 32);
	if (!pools[number].most)
		pools[number].most = 256 * MIB;
	return &pools[number];
}

static int refused(void)
{
	if (fails <= 0)
		return 0;
	fails--;
	return 2;
}

static int alloc(const char *name, struct pool *pool, unsigned long *out, size_t size, void *stream, void *handle)
{
	uintptr_t at = 0;

	pthread_mutex_lock(&lock);
	if (!refused())
		at = pool_alloc(pool, size, stream);
	pthread_mutex_unlock(&lock);
	if (at)
		*out = at;
	truth(name, at, size, (unsigned long)stream, (unsigned long)handle, at ? 0 : 2);
	return at ? 0 : 2;
}

static int release(const char *name, struct pool *pool, unsigned long at, void *stream)
{
	/* Noted before anybody can be given it, as its time is. */
	pthread_mutex_lock(&lock);
	int found = pool_free(pool, at, stream);
	truth(name, at, 0, (unsigned long)stream, 0, found ? 0 : 1);
	pthread_mutex_unlock(&lock);
	return found ? 0 : 1;
}

int cuMemAlloc_v2(unsigned long *out, size_t size)
{
	return alloc("cuMemAlloc_v2", &device, out, size, NULL, NULL);
}

int cuMemAllocManaged(unsigned long *out, size_t size, unsigned flags)
{
	(void)flags;
	return alloc("cuMemAllocManaged", &device, out, size, NULL, NULL);
}

int cuMemAllocPitch_v2(unsigned long *out, size_t *pitch, size_t width, size_t height, unsigned elem)
{
	(void)elem;
	uintptr_t at = 0;

	pthread_mutex_lock(&lock);
	if (!refused())
		at = pool_alloc(&device, rounded(width) * height, NULL);
	pthread_mutex_unlock(&lock);
	if (at) {
		*out = at;
		*pitch = rounded(width);
	}
	truth("cuMemAllocPitch_v2", at, (at ? *pitch : width) * height, 0, 0, at ? 0 : 2);
	return at ? 0 : 2;
}

int cuMemFree_v2(unsigned long at)
{
	return release("cuMemFree_v2", &device, at, NULL);
}

int cuMemAllocAsync(unsigned long *out, size_t size, void *stream)
{
	return alloc("cuMemAllocAsync", pool_of(NULL), out, size, stream, NULL);
}

int cuMemAllocAsync_ptsz(unsigned long *out, size_t size, void *stream)
{
	return alloc("cuMemAllocAsync_ptsz", pool_of(NULL), out, size, stream, NULL);
}

int cuMemAllocFromPoolAsync(unsigned long *out, size_t size, void *pool, void *stream)
{
	return alloc("cuMemAllocFromPoolAsync", pool_of(pool), out, size, stream, pool);
}

int cuMemFreeAsync(unsigned long at, void *stream)
{
	return release("cuMemFreeAsync", &pools[(at - 0x7100000000UL) >> 32], at, stream);
}

int cuMemFreeAsync_ptsz(unsigned long at, void *stream)
{
	return release("cuMemFreeAsync_ptsz", &pools[(at - 0x7100000000UL) >> 32], at, stream);
}

int cuMemPoolCreate(void **out, const void *props)
{
	(void)props;
	*out = (void *)(0xd01L + made++);
	truth("cuMemPoolCreate", (unsigned long)*out, 0, 0, 0, 0);
	return 0;
}

int cuDeviceGetDefaultMemPool(void **out, int device)
{
	*out = (void *)0xd00L;
	truth("cuDeviceGetDefaultMemPool", (unsigned long)*out, device, 0, 0, 0);
	return 0;
}

int cuDeviceSetMemPool(int device, void *pool)
{
	truth("cuDeviceSetMemPool", device, 0, 0, (unsigned long)pool, 0);
	return 0;
}

int cuMemPoolDestroy(void *pool)
{
	truth("cuMemPoolDestroy", 0, 0, 0, (unsigned long)pool, 0);
	return 0;
}

int cuMemPoolTrimTo(void *pool, size_t keep)
{
	pthread_mutex_lock(&lock);
	pool_trim(pool_of(pool), keep);
	pthread_mutex_unlock(&lock);
	truth("cuMemPoolTrimTo", 0, keep, 0, (unsigned long)pool, 0);
	return 0;
}

int cuMemPoolGetAttribute(void *pool, int attribute, void *value)
{
	unsigned long found = attribute == 4   ? thresholds[(long)pool - 0xd00]
			      : attribute == 5 ? pool_of(pool)->reserved
			      : attribute == 7 ? pool_used(pool_of(pool))
					       : 0;

	memcpy(value, &found, sizeof(found));
	truth("cuMemPoolGetAttribute", attribute, found, 0, (unsigned long)pool, 0);
	return 0;
}

int cuMemPoolSetAttribute(void *pool, int attribute, void *value)
{
	memcpy(&thresholds[(long)pool - 0xd00], value, sizeof(long));
	truth("cuMemPoolSetAttribute", attribute, thresholds[(long)pool - 0xd00], 0, (unsigned long)pool, 0);
	return 0;
}

int cuMemGetInfo_v2(size_t *unused, size_t *total)
{
	*total = DEVICE;
	*unused = DEVICE - pool_used(&device);
	truth("cuMemGetInfo_v2", *unused, *total, 0, 0, 0);
	return 0;
}

int cuMemAddressReserve(unsigned long *out, size_t size, size_t align, unsigned long at, unsigned long long flags)
{
	(void)align, (void)at, (void)flags;
	*out = reserved_at;
	reserved_at += size + GROWTH;
	truth("cuMemAddressReserve", *out, size, 0, 0, 0);
	return 0;
}

int cuMemAddressFree(unsigned long at, size_t size)
{
	truth("cuMemAddressFree", at, size, 0, 0, 0);
	return 0;
}

int cuMemCreate(unsigned long long *out, size_t size, const void *prop, unsigned long long flags)
{
	int result = refused();

	(void)prop, (void)flags;
	if (!result)
		*out = handles++;
	truth("cuMemCreate", result ? 0 : *out, size, 0, 0, result);
	return result;
}

int cuMemMap(unsigned long at, size_t size, size_t offset, unsigned long long handle, unsigned long long flags)
{
	(void)offset, (void)flags;
	truth("cuMemMap", at, size, handle, 0, 0);
	return 0;
}

int cuMemUnmap(unsigned long at, size_t size)
{
	truth("cuMemUnmap", at, size, 0, 0, 0);
	return 0;
}

int cuMemRelease(unsigned long long handle)
{
	truth("cuMemRelease", handle, 0, 0, 0, 0);
	return 0;
}
