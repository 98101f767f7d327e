"""The record of `gotrace.views.heap`: a heap profile, with its stacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from gotrace.analysis.goroutines import Called
from gotrace.analysis.heap_profile import HeapProfile, by_stack
from gotrace.records.times import Moment
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.runtime.profiles import ProfileReader


class Function(TypedDict):
    """A function of a stack."""

    function: str
    file: str
    line: int
    inlined: Annotated[bool, "it was compiled into the next one"]


class Allocations(TypedDict):
    """What one stack has allocated since the program started, and how much is in use, by samples."""

    stack: Annotated[list[Function], "innermost first, without the runtime's own allocation functions"]
    alloc_objects: int
    alloc_bytes: int
    inuse_objects: int
    inuse_bytes: int
    samples: Annotated[int, "how many of its allocations were sampled"]


class Heap(Moment):
    """A heap profile: estimates from samples, those with the most bytes in use first."""

    type: Literal["heap"]
    pid: int
    rate_bytes: Annotated[int, "bytes allocated between samples, on average (runtime.MemProfileRate)"]
    cycle: Annotated[int, "how many times the profile was published"]
    published: Annotated[bool, "as in pprof: without what was allocated since the collection before the last"]
    alloc_objects: int
    alloc_bytes: int
    inuse_objects: int
    inuse_bytes: int
    stacks: list[Allocations]


class AllocatedBy(TypedDict):
    """What one stack of functions has allocated, by samples."""

    code: Annotated[list[str], "innermost first, without the runtime's own allocation functions"]
    bytes: int
    objects: int
    samples: int


class Allocated(TypedDict):
    """What a program allocated between the first and the last reading of its heap profile, by samples."""

    unknown: Annotated[str | None, "why it is unknown"]
    length_ns: Annotated[int, "from the first reading to the last"]
    rate_bytes: Annotated[int, "bytes allocated between samples, on average (runtime.MemProfileRate)"]
    bytes: int
    objects: int
    samples: int
    by: Annotated[list[AllocatedBy], "the 20 stacks that allocated the most bytes"]


class LiveOf(TypedDict):
    """How much of the live heap one stack of functions has allocated, by samples."""

    code: Annotated[list[str], "innermost first, without the runtime's own allocation functions"]
    bytes: int
    objects: int


class Live(TypedDict):
    """The live heap by code, as of the collection before the last."""

    unknown: Annotated[str | None, "why it is unknown"]
    bytes: int
    by: Annotated[list[LiveOf], "the 20 stacks with the most bytes"]


VALUES = ("alloc_objects", "alloc_bytes", "inuse_objects", "inuse_bytes")
_MOST_STACKS = 20


def heap_record(profile: HeapProfile, reader: ProfileReader, at_ns: int) -> dict[str, Any]:
    """A profile without its wall time."""
    stacks = _named(profile, reader)
    return {
        "type": "heap",
        "monotonic_ns": at_ns,
        "pid": reader.pid,
        "rate_bytes": profile.rate,
        "cycle": profile.cycle,
        "published": profile.published,
        **{name: sum(each[name] for each in stacks) for name in VALUES},
        "stacks": sorted(stacks, key=lambda each: (-each["inuse_bytes"], -each["alloc_bytes"])),
    }


def allocated_record(profile: HeapProfile, reader: ProfileReader, length_ns: int) -> dict[str, Any]:
    """`Allocated`; ``profile`` is what was sampled in ``length_ns`` (`gotrace.analysis.heap_profile.between`)."""
    rows = _by_code(profile, reader, {"bytes": "alloc_bytes", "objects": "alloc_objects", "samples": "samples"})
    return {
        "unknown": None,
        "length_ns": length_ns,
        "rate_bytes": profile.rate,
        **{name: sum(row[name] for row in rows) for name in ("bytes", "objects", "samples")},
        "by": rows[:_MOST_STACKS],
    }


def allocated_unknown(why: str) -> dict[str, Any]:
    """`Allocated` of a program that takes no profile, or none that we can read."""
    return {
        "unknown": printable(why),
        **dict.fromkeys(("length_ns", "rate_bytes", "bytes", "objects", "samples"), 0),
        "by": [],
    }


def live_record(profile: HeapProfile, reader: ProfileReader) -> dict[str, Any]:
    """`Live` of a published profile."""
    rows = _by_code(profile, reader, {"bytes": "inuse_bytes", "objects": "inuse_objects"})
    return {"unknown": None, "bytes": sum(row["bytes"] for row in rows), "by": rows[:_MOST_STACKS]}


def live_unknown(why: str) -> dict[str, Any]:
    """`Live` of a program that takes no profile, or none that we can read."""
    return {"unknown": printable(why), "bytes": 0, "by": []}


def _by_code(profile: HeapProfile, reader: ProfileReader, names: dict[str, str]) -> list[dict[str, Any]]:
    """Some values, as they are called, of the stacks that go through the same functions; most bytes first."""
    stacks = by_functions(_named(profile, reader))
    rows = [{"code": list(functions_of(each)), **{name: each[of] for name, of in names.items()}} for each in stacks]
    return sorted((row for row in rows if row["bytes"]), key=lambda row: -int(row["bytes"]))


def functions_of(sampled: dict[str, Any]) -> tuple[str, ...]:
    """What samples have in common that go through the same functions, at whatever lines."""
    return tuple(each["function"] for each in sampled["stack"])


def by_functions(stacks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stacks of a profile put together where they go through the same functions, at whatever lines."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    summed = ("samples", *VALUES)
    for each in stacks:
        into = found.setdefault(functions_of(each), {**each, **dict.fromkeys(summed, 0)})
        for name in summed:
            into[name] += each[name]
    return list(found.values())


def _named(profile: HeapProfile, reader: ProfileReader) -> list[dict[str, Any]]:
    """What each stack of functions has allocated: several of addresses, and of sizes, may be one of these."""
    found: dict[tuple[Called, ...], dict[str, int]] = {}
    for addresses, values in by_stack(profile).items():
        if not any(values.values()):  # nothing to name
            continue
        sums = found.setdefault(tuple(_of_program(reader.called(addresses))), dict.fromkeys(values, 0))
        for name, value in values.items():
            sums[name] += value
    return [{"stack": functions(stack), **sums} for stack, sums in found.items() if any(sums.values())]


def _of_program(called: list[Called]) -> list[Called]:
    """Without the runtime's own functions that allocate for the program, and the root, as pprof leaves them out."""
    called = [each for each in called if each.function != "runtime.goexit"]
    return called[next((at for at, each in enumerate(called) if not is_runtimes(each.function)), 0) :]


def functions(called: Sequence[Called]) -> list[dict[str, Any]]:
    """`Function` of each."""
    return [
        {
            "function": printable(each.function),
            "file": printable(each.file),
            "line": each.line,
            "inlined": each.offset is None,
        }
        for each in called
    ]


def is_runtimes(name: str) -> bool:
    """Whether a function is part of the runtime."""
    return name.startswith(("runtime.", "internal/runtime/"))
