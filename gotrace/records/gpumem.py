"""The records of `gotrace.views.gpumem`: GPU memory of a process and of those that it starts, by allocator."""

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
_Device = Annotated[int | None, "null: unknown, the thread was not seen to choose one"]


class GpuMemoryInterval(Moment):
    """What happened since the last one in all processes together, and how it stands."""

    type: Literal["gpumem_interval"]
    length_ns: int
    live: Annotated[int, "bytes"]
    reserved: Annotated[int, "bytes, at least: live, and free in the allocators' hands"]
    fragmentation: Annotated[float, "1 - largest hole / free, summed over the spaces"]
    requests: int
    growths: _Growths
    ooms: int


class Library(TypedDict):
    """A file with functions that are probed."""

    path: Annotated[str, "empty: the executable"]
    functions: Annotated[list[str], "those probed"]
    missing: Annotated[list[list[str]], "what is not, and why"]
    late_ns: Annotated[
        int | None, "it was mapped at most so long before its probes were set; null: nothing of it ran before"
    ]


class Other(TypedDict):
    """A process that the target has started, or one of these, that could not be followed, or not what it loaded then."""

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
    at_least: Annotated[bool, "reserved, and what follows from it, are lower bounds: the driver does not say what it holds"]
    live: Annotated[int | None, "bytes; null: nobody reports what of mappings is live"]
    reserved: int
    largest_hole: int | None
    fragmentation: Annotated[float | None, "1 - largest hole / free"]
    peak_live: int | None
    peak_reserved: int
    worst_fragmentation: float | None
    requests: int
    streams: Annotated[int, "on which was asked or freed"]
    growths: Annotated[_Growths, "requests that were not served from what was held"]
    ooms: Annotated[int, "requests refused for want of memory"]
    ooms_by_fragmentation: Annotated[int, "those of them for which enough was free"]
    too_small_share: Annotated[float | None, "of what is free, in holes smaller than 90 % of the requests; null: none"]
    adjacent: list[Pieces]
    unknown_frees: Annotated[int, "of memory got before tracing, or while calls were lost"]
    missed_frees: Annotated[int, "blocks handed out again that nobody was seen to free"]
    release_threshold: Annotated[int | None, "as the program set it, or read it, while tracing"]
    told_reserved: Annotated[int | None, "what the driver told the program last"]
    reserved_when_told: Annotated[int | None, "reserved at that time; more, if the driver has given some back"]


class Failed(TypedDict):
    """Requests that were not served from what was free."""

    kind: _Kind
    device: _Device
    handle: int
    why: Annotated[str, OneOf((*tuple(GROWTHS.values())[1:], "oom", OOM_BY_FRAGMENTATION))]
    size: int
    count: int
    tid: int
    stack: Annotated[list[str], "functions, innermost first, as far as frame pointers lead; empty: unknown"]


class Called(TypedDict):
    """How often an operation was asked for."""

    count: int
    failed: int


class GpuMemory(Watched, Moment):
    """All of one process that asked for memory, at the end; of none that did, the target."""

    type: Literal["gpumem"]
    pid: int
    exe: str
    processes: Annotated[int, "how many there are of these records"]
    libraries: Annotated[list[Library], "of all processes together, as the two that follow"]
    others: list[Other]
    running: Annotated[int, "processes that it has started and that run still, though the target has ended"]
    calls: Annotated[dict[str, Called], "by operation, of whichever layer the program called"]
    nested: Annotated[int, "calls of the driver by the runtime: the same memory, counted once"]
    traced: Annotated[int, "events of PyTorch's allocator"]
    peak_live: int
    peak_reserved: int
    spaces: list[Space]
    failed: list[Failed]
    advice: list[str]
    device_free: Annotated[int | None, "what the program was last told to be free on its device; null: it did not ask"]


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
