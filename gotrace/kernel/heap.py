"""Our own heap."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _LARGE = -3, 256 << 10


def keep_large_arrays_apart() -> None:
    """Give each large array a mapping of its own, which goes back to the kernel with it.

    glibc puts ever larger ones into the heap, once one was freed, and the heap then keeps the holes that they leave
    (mallopt(3), M_MMAP_THRESHOLD). Another C library does as it likes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
