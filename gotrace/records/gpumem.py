"""The records of `gotrace.views.gpumem`: GPU memory of a process and its descendants, by allocator."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from gotrace.analysis.gpumem.layers import DIRECT, MAPPED, POOL, TORCH
from gotrace.analysis.gpumem.space import GROWTHS
from gotrace.analysis.gpumem.summary import OOM_BY_FRAGMENTATION
from gotrace.records.schema import Keys, OneOf
from gotrace.records.times import Moment
from gotrace.records.watched import Watched

_Growths = Annotated[dict[str, int], Keys(tuple(GROWTHS.values()))]
_Kind = Annotated[str, OneOf((DIRECT, POOL, MAPPED, TORCH))]
_Device = Annotated[int | None, "null: unknown, because the thread was not seen to choose one"]


class GpuMemoryInterval(Moment):
    """What happened since the last record, in all processes together, and the state now."""

    type: Literal["gpumem_interval"]
    length_ns: int
    live: Annotated[int, "bytes"]
    reserved: Annotated[int, "bytes, at least: live, or free but held by the allocators"]
    fragmentation: Annotated[float, "1 - largest hole / free, summed over the spaces"]
    requests: int
    growths: _Growths
    ooms: int


class Library(TypedDict):
    """A file with functions that are probed."""

    path: Annotated[str, "empty: the executable"]
    functions: Annotated[list[str], "those probed"]
    missing: Annotated[list[list[str]], "those not probed, and why"]
    late_ns: Annotated[
        int | None, "it was mapped at most this long before its probes were set; null: none of it ran before"
    ]


class Other(TypedDict):
    """A descendant of the target that could not be followed, or whose libraries loaded later could not be probed."""

    pid: int
    exe: str
    libraries: list[str]
    reason: str


class Pieces(TypedDict):
    """Neighboring free ranges that lie in different segments."""

    at: Annotated[int, "the address where they meet"]
    bytes: int


class Space(TypedDict):
    """Memory of one allocator: of direct calls, of a pool, of mappings, or of PyTorch on a device."""

    kind: _Kind
    device: _Device
    handle: Annotated[int, "the pool (0: the device's default) or the allocator, as the process numbers them"]
    at_least: Annotated[
        bool, "reserved, and what is derived from it, are lower bounds: the driver does not say what it holds"
    ]
    live: Annotated[int | None, "bytes; null: nothing reports how much of mappings is live"]
    reserved: int
    largest_hole: int | None
    fragmentation: Annotated[float | None, "1 - largest hole / free"]
    peak_live: int | None
    peak_reserved: int
    worst_fragmentation: float | None
    requests: int
    streams: Annotated[int, "on which memory was requested or freed"]
    growths: Annotated[_Growths, "requests not served from reserved memory"]
    ooms: Annotated[int, "requests that failed for lack of memory"]
    ooms_by_fragmentation: Annotated[int, "those for which enough was free"]
    too_small_share: Annotated[
        float | None, "of free memory, in holes smaller than 90 % of the requests; null: none is free"
    ]
    adjacent: list[Pieces]
    unknown_frees: Annotated[int, "of memory allocated before tracing, or while calls were lost"]
    missed_frees: Annotated[int, "blocks handed out again that were not seen to be freed"]
    release_threshold: Annotated[int | None, "as the program set or read it during tracing"]
    told_reserved: Annotated[int | None, "what the driver told the program last"]
    reserved_when_told: Annotated[int | None, "reserved at that time; more if the driver has released some"]


class Failed(TypedDict):
    """Requests not served from free memory."""

    kind: _Kind
    device: _Device
    handle: int
    why: Annotated[str, OneOf((*tuple(GROWTHS.values())[1:], "oom", OOM_BY_FRAGMENTATION))]
    size: int
    count: int
    tid: int
    stack: Annotated[list[str], "innermost first, as far as frame pointers lead; empty: unknown"]


class Called(TypedDict):
    """How often an operation was requested."""

    count: int
    failed: int


class GpuMemory(Watched, Moment):
    """The summary of one process that requested memory; if none did, of the target."""

    type: Literal["gpumem"]
    pid: int
    exe: str
    processes: Annotated[int, "number of these records"]
    libraries: Annotated[list[Library], "of all processes together, like the next two fields"]
    others: list[Other]
    running: Annotated[int, "descendants that still run, though the target has ended"]
    calls: Annotated[dict[str, Called], "by operation, of whichever layer the program called"]
    nested: Annotated[int, "driver calls made by the runtime: the same memory, counted once"]
    traced: Annotated[int, "events of PyTorch's allocator"]
    peak_live: int
    peak_reserved: int
    spaces: list[Space]
    failed: list[Failed]
    advice: list[str]
    device_free: Annotated[int | None, "what the program was last told is free on its device; null: it did not ask"]


def name_of(each: dict[str, Any]) -> str:
    """A space in words; pools other than the default are known by their handles."""
    device = "?" if each["device"] is None else each["device"]
    if each["kind"] == POOL:
        return f"pool {each['handle']:#x}" if each["handle"] else f"default pool, GPU {device}"
    return {
        DIRECT: f"cudaMalloc, GPU {device}",
        MAPPED: "mapped (cuMemMap)",
        TORCH: f"PyTorch, GPU {device}",
    }[each["kind"]]
