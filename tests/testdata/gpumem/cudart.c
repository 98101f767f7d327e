/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A stand-in for libcudart: each call asks the driver in turn. With STATIC it is part of the program that includes it, and
 * its names are local, as libcudart_static.a leaves them.
 */
#include <stddef.h>

#include "truth.h"

#ifdef STATIC
#define API static __attribute__((noinline, used))
#else
#define API
#endif

int cuMemAlloc_v2(unsigned long *out, size_t size);
int cuMemAllocManaged(unsigned long *out, size_t size, unsigned flags);
int cuMemAllocPitch_v2(unsigned long *out, size_t *pitch, size_t width, size_t height, unsigned elem);
int cuMemFree_v2(unsigned long at);
int cuMemAllocAsync(unsigned long *out, size_t size, void *stream);
int cuMemAllocAsync_ptsz(unsigned long *out, size_t size, void *stream);
int cuMemAllocFromPoolAsync(unsigned long *out, size_t size, void *pool, void *stream);
int cuMemFreeAsync(unsigned long at, void *stream);
int cuMemFreeAsync_ptsz(unsigned long at, void *stream);
int cuMemPoolCreate(void **out, const void *props);
int cuMemPoolDestroy(void *pool);
int cuDeviceGetDefaultMemPool(void **out, int device);
int cuDeviceSetMemPool(int device, void *pool);
int cuMemPoolTrimTo(void *pool, size_t keep);
int cuMemPoolGetAttribute(void *pool, int attribute, void *value);
int cuMemPoolSetAttribute(void *pool, int attribute, void *value);
int cuMemGetInfo_v2(size_t *unused, size_t *total);
void standin_synchronise(void);

/* A request, noted as the driver answered it. */
static int asked(const char *name, int result, void **out, size_t size, void *stream, void *pool)
{
	truth(name, result ? 0 : (unsigned long)*out, size, (unsigned long)stream, (unsigned long)pool, result);
	return result;
}

API int cudaMalloc(void **out, size_t size)
{
	return asked("cudaMalloc", cuMemAlloc_v2((unsigned long *)out, size), out, size, NULL, NULL);
}

API int cudaMallocManaged(void **out, size_t size, unsigned flags)
{
	return asked("cudaMallocManaged", cuMemAllocManaged((unsigned long *)out, size, flags), out, size, NULL, NULL);
}

API int cudaMallocPitch(void **out, size_t *pitch, size_t width, size_t height)
{
	int result = cuMemAllocPitch_v2((unsigned long *)out, pitch, width, height, 4);

	return asked("cudaMallocPitch", result, out, (result ? width : *pitch) * height, NULL, NULL);
}

API int cudaMallocAsync(void **out, size_t size, void *stream)
{
	return asked("cudaMallocAsync", cuMemAllocAsync((unsigned long *)out, size, stream), out, size, stream, NULL);
}

API int cudaMallocAsync_ptsz(void **out, size_t size, void *stream)
{
	return asked("cudaMallocAsync_ptsz", cuMemAllocAsync_ptsz((unsigned long *)out, size, stream), out, size, stream,
		     NULL);
}

API int cudaMallocFromPoolAsync(void **out, size_t size, void *pool, void *stream)
{
	return asked("cudaMallocFromPoolAsync", cuMemAllocFromPoolAsync((unsigned long *)out, size, pool, stream), out,
		     size, stream, pool);
}

API int cudaFree(void *at)
{
	int result = at ? cuMemFree_v2((unsigned long)at) : 0;

	truth("cudaFree", (unsigned long)at, 0, 0, 0, result);
	return result;
}

API int cudaFreeAsync(void *at, void *stream)
{
	int result = cuMemFreeAsync((unsigned long)at, stream);

	truth("cudaFreeAsync", (unsigned long)at, 0, (unsigned long)stream, 0, result);
	return result;
}

API int cudaFreeAsync_ptsz(void *at, void *stream)
{
	int result = cuMemFreeAsync_ptsz((unsigned long)at, stream);

	truth("cudaFreeAsync_ptsz", (unsigned long)at, 0, (unsigned long)stream, 0, result);
	return result;
}

API int cudaMemPoolCreate(void **out, const void *props)
{
	int result = cuMemPoolCreate(out, props);

	truth("cudaMemPoolCreate", (unsigned long)*out, 0, 0, 0, result);
	return result;
}

API int cudaDeviceGetDefaultMemPool(void **out, int device)
{
	int result = cuDeviceGetDefaultMemPool(out, device);

	truth("cudaDeviceGetDefaultMemPool", (unsigned long)*out, device, 0, 0, result);
	return result;
}

API int cudaDeviceSetMemPool(int device, void *pool)
{
	int result = cuDeviceSetMemPool(device, pool);

	truth("cudaDeviceSetMemPool", device, 0, 0, (unsigned long)pool, result);
	return result;
}

API int cudaMemPoolDestroy(void *pool)
{
	int result = cuMemPoolDestroy(pool);

	truth("cudaMemPoolDestroy", 0, 0, 0, (unsigned long)pool, result);
	return result;
}

API int cudaMemPoolTrimTo(void *pool, size_t keep)
{
	int result = cuMemPoolTrimTo(pool, keep);

	truth("cudaMemPoolTrimTo", 0, keep, 0, (unsigned long)pool, result);
	return result;
}

API int cudaMemPoolGetAttribute(void *pool, int attribute, void *value)
{
	int result = cuMemPoolGetAttribute(pool, attribute, value);

	truth("cudaMemPoolGetAttribute", attribute, *(unsigned long *)value, 0, (unsigned long)pool, result);
	return result;
}

API int cudaMemPoolSetAttribute(void *pool, int attribute, void *value)
{
	int result = cuMemPoolSetAttribute(pool, attribute, value);

	truth("cudaMemPoolSetAttribute", attribute, *(unsigned long *)value, 0, (unsigned long)pool, result);
	return result;
}

API int cudaMemGetInfo(size_t *unused, size_t *total)
{
	int result = cuMemGetInfo_v2(unused, total);

	truth("cudaMemGetInfo", *unused, *total, 0, 0, result);
	return result;
}

API int cudaDeviceSynchronize(void)
{
	standin_synchronise();
	return 0;
}

API int cudaSetDevice(int device)
{
	truth("cudaSetDevice", device, 0, 0, 0, 0);
	return 0;
}
