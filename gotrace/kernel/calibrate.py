"""What one hit of a probe costs on this machine, measured on a few instructions of our own.

The price of the trap differs by a factor of fifty between machines (bare metal, virtual, emulated), so no table can tell
it. A tiny function is put into a file in memory, mapped, called many times without and with a probe, and forgotten.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import time
from collections.abc import Callable

from gotrace.errors import GotraceError
from gotrace.kernel import bpf

# The function's code, and the offsets of an instruction the kernel emulates and of one it has to single-step.
_CODE = {
    "x86_64": (bytes.fromhex("55 4889e5 5d c3"), 0, 1),  # push rbp; mov rbp, rsp; pop rbp; ret
    "aarch64": (bytes.fromhex("01000014 e00300aa c0035fd6"), 0, 4),  # b +4; mov x0, x0; ret
}
_CALLS = 500
# What our programs themselves take on top of an empty one: a few reads of user memory and ring records.
_PROGRAM_NS = 400.0


def probe_cost_ns() -> tuple[float, float]:
    """(emulated, single-stepped) cost of one hit in nanoseconds; zeros where it cannot be measured."""
    code, emulated_at, stepped_at = _CODE[platform.machine()]
    try:
        with contextlib.ExitStack() as stack:
            descriptor = os.memfd_create("calibration")
            stack.callback(os.close, descriptor)
            os.write(descriptor, code.ljust(mmap.PAGESIZE, b"\0"))
            # Breakpoints go only into mappings that cannot be written, which ctypes cannot borrow from mmap.mmap.
            libc = ctypes.CDLL(None, use_errno=True)
            libc.mmap.restype = ctypes.c_void_p
            libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
            protection = mmap.PROT_READ | mmap.PROT_EXEC
            address = libc.mmap(None, mmap.PAGESIZE, protection, mmap.MAP_PRIVATE, descriptor, 0)
            if address == ctypes.c_void_p(-1).value:
                return 0.0, 0.0
            stack.callback(libc.munmap, ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE))
            function = ctypes.CFUNCTYPE(None)(address)
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


def _per_call_ns(function: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter_ns()
        for _ in range(_CALLS):
            function()
        best = min(best, (time.perf_counter_ns() - begin) / _CALLS)
    return best
