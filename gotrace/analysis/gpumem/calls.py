"""What the probe reports, by names: the operations of the CUDA runtime and driver, and of PyTorch's allocator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

# In this order: those that are requests, those with an address behind their first argument, the rest.
_REQUESTS = ("malloc", "managed", "pitch", "malloc_async", "malloc_from_pool")
_OUT = ("reserve", "create", "pool_create", "pool_default", "mem_info")
_REST = (
    *("free", "free_async", "address_free", "map", "unmap", "release"),
    *("pool_destroy", "pool_trim", "pool_get", "pool_set", "pool_use", "set_device"),
)
OPS = {name: number for number, name in enumerate((*_REQUESTS, *_OUT, *_REST), 1)}
NAMES = {number: name for name, number in OPS.items()}
LAST_REQUEST, LAST_OUT = len(_REQUESTS), len(_REQUESTS) + len(_OUT)

# c10::cuda::CUDACachingAllocator::TraceEntry::Action
ACTIONS = (
    *("alloc", "free_requested", "free_completed", "segment_alloc", "segment_free", "segment_map", "segment_unmap"),
    *("snapshot", "oom", "annotate"),
)

OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY
RELEASE_THRESHOLD, RESERVED_NOW, USED_NOW = 4, 5, 7  # attributes of a pool


def op(word: Words) -> Words:
    """The number of `OPS`, of an event's ``call``."""
    return np.asarray(word & np.uint64(0xFF))


def nested(word: Words) -> Flags:
    """Whether a runtime's function asked the driver."""
    return np.asarray(word >> np.uint64(8) & np.uint64(1), bool)


def of_driver(word: Words) -> Flags:
    return np.asarray(word >> np.uint64(9) & np.uint64(1), bool)


def result(word: Words) -> Words:
    """The error code, 0 for success."""
    return np.asarray(word >> np.uint64(16) & np.uint64(0xFFFF))


def stack(word: Words) -> Words:
    """The number of the stack that asked; 0 for none."""
    return np.asarray(word >> np.uint64(32))
