"""What one hit of a probe costs on this machine, measured on a few instructions of our own.

The price of the trap differs by a factor of fifty between machines (bare metal, virtual, emulated), so no table can tell
it. A tiny function is put into a file in memory, mapped, called many times without and with a probe, and forgotten.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterator

from gotrace.arch import host_arch
from gotrace.errors import GotraceError, HostError
from gotrace.kernel import bpf

_LOOKS = 500
_ROUNDS, _CALLS = 20, 100  # short ones: whoever takes the CPU meanwhile spoils few of them
_PAGES, _MAPPINGS = 8, 5
_TICKING_S = 0.05
# What our programs themselves take on top of an empty one: a few reads of user memory and ring records, in a target that
# has other things in its caches. By the kernel's own statistics (x86-64, virtual machine) a hit of the gc probe takes
# 1.1 us with 1,400 collections per second of CPU time, 1.4 us with 350 and 1.9 us with 18.
_PROGRAM_NS = 1500.0


def probe_cost_ns() -> tuple[float, float]:
    """(emulated, single-stepped) cost of one hit in nanoseconds; zeros where it cannot be measured.

    The least of some rounds. On a machine that is busy throughout it may still be several times too much.
    """
    code, emulated_at, stepped_at = host_arch().calibration
    try:
        with contextlib.ExitStack() as stack:
            descriptor = stack.enter_context(_file_of(code.ljust(mmap.PAGESIZE, b"\0")))
            function = ctypes.CFUNCTYPE(None)(stack.enter_context(_mapped(descriptor, mmap.PAGESIZE)))
            program = bpf.load_program("calibration", bpf.RETURN_ZERO)
            stack.callback(os.close, program)
            plain = _per_call_ns(function)
            costs = []
            for offset in (emulated_at, stepped_at):
                event = bpf.attach_uprobe(program, f"/proc/self/fd/{descriptor}", offset, os.getpid())
                try:
                    costs.append(max(0.0, _per_call_ns(function) - plain) + _PROGRAM_NS)
                finally:
                    os.close(event)
            return costs[0], costs[1]
    except (OSError, GotraceError):
        return 0.0, 0.0


def install_cost_ns(per_page: int = 4) -> float:
    """What execve takes longer for each probe in the program, ``per_page`` of which share a page; 0 if not measurable.

    Probes of a file are set when it is mapped, so mapping one with and without them shows it.
    """
    code, emulated_at, _ = host_arch().calibration
    size = _PAGES * mmap.PAGESIZE
    step = mmap.PAGESIZE // per_page // 16 * 16
    try:
        with contextlib.ExitStack() as stack:
            page = (code.ljust(step, b"\0") * per_page).ljust(mmap.PAGESIZE, b"\0")
            descriptor = stack.enter_context(_file_of(page * _PAGES))
            plain = _per_mapping_ns(descriptor, size)
            program = bpf.load_program("calibration", bpf.RETURN_ZERO)
            stack.callback(os.close, program)
            places = [number * mmap.PAGESIZE + part * step for number in range(_PAGES) for part in range(per_page)]
            events: list[int] = []
            stack.enter_context(bpf.closing_all(events))
            for place in places:
                events.append(bpf.attach_uprobe(program, f"/proc/self/fd/{descriptor}", place + emulated_at, os.getpid()))
            return max(0.0, _per_mapping_ns(descriptor, size) - plain) / len(places)
    except (OSError, GotraceError):
        return 0.0


def tick_ns() -> float:
    """How long a tick of the runtime's own timer (`runtime.cputicks`) is, in ns. Raises HostError if that is unknown."""
    code = host_arch().ticks
    if not code:
        return 1.0
    try:
        with _file_of(code.ljust(mmap.PAGESIZE, b"\0")) as descriptor, _mapped(descriptor, mmap.PAGESIZE) as address:
            ticks = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
            first = _ticks_at(ticks)
            time.sleep(_TICKING_S)
            last = _ticks_at(ticks)
    except OSError as error:
        raise HostError(f"the processor's clock cannot be read: {error}", "allow gotrace to map memory as code") from None
    return (last[0] - first[0]) / (last[1] - first[1])


def _ticks_at(ticks: Callable[[], int]) -> tuple[float, int]:
    """CLOCK_MONOTONIC and the ticks at the same moment: the closest of some."""
    found = []
    for _ in range(_LOOKS):
        before, now, after = time.monotonic_ns(), ticks(), time.monotonic_ns()
        found.append((after - before, (before + after) / 2, now))
    return min(found)[1:]


@contextlib.contextmanager
def _file_of(content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("calibration")
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _mapped(descriptor: int, size: int) -> Iterator[int]:
    """Where a file's code is. Breakpoints go only into mappings that cannot be written, which ctypes cannot borrow."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    try:
        yield address
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))


def _per_mapping_ns(descriptor: int, size: int) -> float:
    best = float("inf")
    for _ in range(_MAPPINGS):
        begin = time.perf_counter_ns()
        with _mapped(descriptor, size):
            best = min(best, time.perf_counter_ns() - begin)
    return best


def _per_call_ns(function: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        begin = time.perf_counter_ns()
        for _ in range(_CALLS):
            function()
        best = min(best, (time.perf_counter_ns() - begin) / _CALLS)
    return best
