"""GPU memory: what a process asks of the CUDA runtime, of the driver and of PyTorch's allocator, and what it is given.

The functions are those of ``cuda_runtime_api.h`` and ``cuda.h``: C functions, which return an error code (0: success, 2:
out of memory). Each has a probe at its entry and one at its return; that a runtime's call asks the driver in turn is seen
by the stack (``nested``). ``_ptsz`` names are what programs call that were compiled for a default stream per thread. Where
a library or program has the runtime inside, its names are local symbols.

PyTorch's ``DeviceCachingAllocator::record_trace`` (c10/cuda/CUDACachingAllocator.cpp) is called at every event of its
allocator, be its history recorded or not, with the action as a number that is the same in torch 2.5 and 2.14. It is a local
symbol, and a C++ function: only its entry is probed.

Processes that the target forks are followed, and what they execute: the probes sit on files, and count who is in the table
``followed``. Where the kernel's own numbers of processes are not known (in a PID namespace) it is the target alone.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from gotrace.analysis.gpumem.calls import ACTIONS, LAST_OUT, LAST_REQUEST, OPS
from gotrace.kernel.btf import TASK_FIELDS, task_settings
from gotrace.kernel.host import kernel_pid
from gotrace.probe import Kind, Plan, PlanBuilder, Probe

if TYPE_CHECKING:
    from gotrace.binary.elf import Elf
    from gotrace.binary.program import Program
    from gotrace.probe import Traceable

RECORD_TRACE = "_ZN3c104cuda20CUDACachingAllocator6Native22DeviceCachingAllocator12record_trace"
TORCH = "libc10_cuda"
FORKED, EXECUTED = 1, 2  # what a process did

_POOL = {
    "MemPoolCreate": "pool_create",
    "DeviceGetDefaultMemPool": "pool_default",
    "DeviceSetMemPool": "pool_use",
    "MemPoolDestroy": "pool_destroy",
    "MemPoolTrimTo": "pool_trim",
    "MemPoolGetAttribute": "pool_get",
    "MemPoolSetAttribute": "pool_set",
}
_RUNTIME = {
    "cudaMalloc": "malloc",
    "cudaMallocManaged": "managed",
    "cudaMallocPitch": "pitch",
    "cudaMallocAsync": "malloc_async",
    "cudaMallocFromPoolAsync": "malloc_from_pool",
    "cudaFree": "free",
    "cudaFreeAsync": "free_async",
    "cudaMemGetInfo": "mem_info",
    "cudaSetDevice": "set_device",
    **{f"cuda{name}": op for name, op in _POOL.items()},
}
_DRIVER = {
    "cuMemAlloc_v2": "malloc",
    "cuMemAllocManaged": "managed",
    "cuMemAllocPitch_v2": "pitch",
    "cuMemAllocAsync": "malloc_async",
    "cuMemAllocFromPoolAsync": "malloc_from_pool",
    "cuMemFree_v2": "free",
    "cuMemFreeAsync": "free_async",
    "cuMemGetInfo_v2": "mem_info",
    "cuMemAddressReserve": "reserve",
    "cuMemAddressFree": "address_free",
    "cuMemCreate": "create",
    "cuMemMap": "map",
    "cuMemUnmap": "unmap",
    "cuMemRelease": "release",
    **{f"cu{name}": op for name, op in _POOL.items()},
}
# symbol -> (program at its entry, program at its return)
FUNCTIONS = {
    f"{name}{ending}": (f"{layer}_{op}", f"{layer}_returns")
    for layer, table in (("rt", _RUNTIME), ("cu", _DRIVER))
    for name, op in table.items()
    for ending in ("", "_ptsz")
}

PROBE = Probe(
    stem="gpumem",
    summary="GPU memory: calls of the CUDA runtime and driver, events of PyTorch's allocator",
    kinds=(
        # call: what was asked (8 bits), nested (1), of the driver (1), the result (16 from bit 16), the callers' stack (32
        # from bit 32). Of a free the time is that of its beginning; what asks for a default pool has its device as the
        # size, and what chooses a pool has it as the address.
        Kind("call", 0xD01, ("call", "address", "size", "stream", "pool")),
        # trace: action (8 bits), device (8), the stack of an allocation or an OOM (32 from bit 32)
        Kind("trace", 0xD02, ("trace", "address", "size", "stream", "allocator")),
        # of requests: the callers, by frame pointers; of the process of the thread
        Kind("call_stack", 0xD03, ("stack", "place", "pc0", "pc1", "pc2"), once=True),
        Kind("thread", 0xD04, ("process",), once=True),  # whose it is: before its first call
        Kind("process", 0xD05, ("what", "process", "parent"), once=True),  # it was forked, or has executed a program
    ),
    config=("stacks", "tgid", "task_pid", "task_tgid"),
    hits=(
        *dict.fromkeys(itertools.chain.from_iterable(FUNCTIONS.values())),
        "torch_trace",
        *(f"on_tracepoint__sched_process_{what}" for what in ("fork", "exec", "free")),
    ),
    constants={f"OP_{name.upper()}": number for name, number in OPS.items()}
    | {"PROCESS_FORKED": FORKED, "PROCESS_EXECUTED": EXECUTED}
    | {"OP_LAST_OUT": LAST_OUT, "OP_LAST_REQUEST": LAST_REQUEST}
    | {f"TRACED_{name.upper()}": ACTIONS.index(name) for name in ("alloc", "oom")},
    go=False,
    libraries=("libcudart", "libcuda", TORCH, "libnccl"),
    later=True,
    inside=(b"cudaMalloc", b"cuMemAlloc"),
    tree=True,
    ring_bytes=16 << 20,
)


def settings(target: Traceable) -> dict[str, int]:
    """Which process is followed, and where the kernel keeps what is read of its tasks. Raises HostError without BTF."""
    fields = task_settings(TASK_FIELDS)
    return {"stacks": 1, "tgid": kernel_pid(target.pid), **{name: fields[name] for name in ("task_pid", "task_tgid")}}


def plan(program: Program) -> Plan:
    """Both ends of each function that the program or one of its libraries has. Raises BinaryError."""
    build = PlanBuilder(program)
    for path, elf in {"": program.elf, **program.libraries}.items():
        _add(build, path, elf)
    return build.plan({})


def _add(build: PlanBuilder[Program], path: str, elf: Elf) -> None:
    from gotrace.binary import code
    from gotrace.probe import is_library

    names = {name.split("@", 1)[0] for name, _, _ in elf.functions()}
    for symbol in sorted(names & FUNCTIONS.keys()):
        entry, returns = FUNCTIONS[symbol]
        if build.add(symbol, entry, lambda symbol=symbol: [code.function_site(elf, symbol)], path):  # type: ignore[misc]
            build.add_return(returns)
    if not is_library(path, TORCH):
        return
    for symbol in sorted(name for name in names if name.startswith(RECORD_TRACE) and "." not in name):
        build.add("record_trace", "torch_trace", lambda symbol=symbol: [code.function_site(elf, symbol)], path)  # type: ignore[misc]
    if not any(point.name == "record_trace" and point.file == path for point in build.points):
        build.lacks("record_trace", f"{path} has no symbol for it: of PyTorch's allocator only segments are seen")
