"""Where threads are while they run: registers and stacks as the kernel's timer finds them, without stopping anything.

perf's cpu-clock needs no hardware counters. The format is that of include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gotrace.arch import host_arch
from gotrace.errors import HostError
from gotrace.kernel.barrier import Barrier
from gotrace.kernel.bpf import perf_event_open

_SOFTWARE, _CPU_CLOCK = 1, 0
_TID, _REGS_USER, _STACK_USER = 1 << 1, 1 << 12, 1 << 13
_EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 5, 1 << 6
_SAMPLE = 9  # PERF_RECORD_SAMPLE
_EVERY_NS = 250_000
_STACK_BYTES = 32 << 10
_DATA = 32 * mmap.PAGESIZE
_HEAD, _TAIL = 1024, 1032  # in struct perf_event_mmap_page
_LOOK_S = 0.001
_barrier = Barrier()


class Sample(NamedTuple):
    """A thread as it ran: registers, and its stack from ``sp`` up, as far as it was copied."""

    tid: int
    pc: int
    sp: int
    lr: int
    stack: bytes


def samples(tids: Sequence[int], seconds: float) -> dict[int, Sample]:
    """The last sample of each thread that ran in user mode within ``seconds``; as soon as there is one of each.

    None of a thread that has ended, or that the kernel does not let us sample: it may allow no more memory for this.
    """
    found: dict[int, Sample] = {}
    with contextlib.ExitStack() as stack:
        rings = []
        for tid in tids:
            with contextlib.suppress(HostError, OSError):
                rings.append(stack.enter_context(_ring(tid)))
        end = time.monotonic() + seconds
        while rings and len(found) < len(rings) and time.monotonic() < end:
            time.sleep(_LOOK_S)
            for ring in rings:
                for sample in _read(ring):
                    found[sample.tid] = sample
    return found


@contextlib.contextmanager
def _ring(tid: int) -> Iterator[mmap.mmap]:
    kind = _TID | _REGS_USER | _STACK_USER
    registers = host_arch().perf_registers
    fd = perf_event_open(
        *(_SOFTWARE, (_CPU_CLOCK, 0, 0), _EXCLUDE_KERNEL | _EXCLUDE_HV, 0, tid, "sample running threads", _EVERY_NS),
        sampled=(kind, sum(1 << number for number in registers), _STACK_BYTES),
    )
    try:
        with mmap.mmap(fd, mmap.PAGESIZE + _DATA) as ring:
            yield ring
    finally:
        os.close(fd)


def _read(ring: mmap.mmap) -> Iterator[Sample]:
    """What is new in a ring; it is given back to the kernel."""
    head, tail = struct.unpack_from("<QQ", ring, _HEAD)
    _barrier()  # what is in front of the head was written before it
    while tail < head:
        at = tail % _DATA
        kind, _, size = struct.unpack_from("<IHH", ring, mmap.PAGESIZE + at)
        data = ring[mmap.PAGESIZE + at : mmap.PAGESIZE + min(at + size, _DATA)]
        data += ring[mmap.PAGESIZE : mmap.PAGESIZE + size - len(data)]
        if kind == _SAMPLE and (sample := _sample(data)) is not None:
            yield sample
        tail += size
    _barrier()
    struct.pack_into("<Q", ring, _TAIL, tail)


def _sample(data: bytes) -> Sample | None:
    registers = host_arch().perf_registers
    tid, abi = struct.unpack_from("<4xIQ", data, 8)
    if not abi:  # a kernel thread's
        return None
    values = struct.unpack_from(f"<{len(registers)}Q", data, 24)
    at = 24 + 8 * len(registers)
    (size,) = struct.unpack_from("<Q", data, at)
    if not size:
        return None
    (copied,) = struct.unpack_from("<Q", data, at + 8 + size)
    by_number = dict(zip(sorted(registers), values, strict=True))
    pc, sp, *lr = (by_number[number] for number in registers)
    return Sample(tid, pc, sp, lr[0] if lr else 0, data[at + 8 : at + 8 + min(size, copied)])
