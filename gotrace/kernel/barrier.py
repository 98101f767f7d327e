"""The order in which this process reads and writes memory that it shares with the kernel."""

from __future__ import annotations

import threading


class Barrier:
    """A full memory barrier, which Python has no name for: a lock is released and taken again.

    What has to be ordered (Documentation/bpf/ringbuf.rst of the kernel): the producer writes a record, clears its busy
    bit, and has published the producer position with a store-release; we read the position, then busy bits and records,
    and may say that their place is free only after the last of these reads.

    Why this orders it on ARM64: releasing a lock is a Store-Release (L), taking one a Load-Acquire (A): glibc's sem_post
    and sem_wait, or CPython's own sequentially consistent exchange. By the Arm Architecture Reference Manual
    (DDI 0487, B2.3, "Barrier-ordered-before") a read or write before L in program order is ordered before L, one after
    A is ordered after A, and an L that comes before an A in program order is ordered before it. So everything before the
    pair comes before everything after it, reads before reads and reads before writes included. (That would not hold for
    the weaker LDAPR, which none of them compiles to: an exchange that acquires is LDAXR or CASA.) On x86-64 either is a
    locked instruction, a full barrier by itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def __call__(self) -> None:
        self._lock.release()
        self._lock.acquire()
