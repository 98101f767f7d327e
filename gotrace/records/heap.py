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
    """What one stack has allocated since the program began, and what of it is in use, as far as samples tell."""

    stack: Annotated[list[Function], "innermost first, without the runtime's own that allocate for it"]
    alloc_objects: int
    alloc_bytes: int
    inuse_objects: int
    inuse_bytes: int


class Heap(Moment):
    """A heap profile: estimates from samples, those with the most bytes in use first."""

    type: Literal["heap"]
    pid: int
    rate_bytes: Annotated[int, "how many bytes are allocated from one sample to the next (runtime.MemProfileRate)"]
    cycle: Annotated[int, "how often the profile was published"]
    published: Annotated[bool, "as pprof has it, so without what was allocated since the collection before the last"]
    alloc_objects: int
    alloc_bytes: int
    inuse_objects: int
    inuse_bytes: int
    stacks: list[Allocations]


VALUES = ("alloc_objects", "alloc_bytes", "inuse_objects", "inuse_bytes")


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


def _named(profile: HeapProfile, reader: ProfileReader) -> list[dict[str, Any]]:
    """What each stack of functions has allocated: several of addresses, and of sizes, may be one of these."""
    found: dict[tuple[Called, ...], dict[str, int]] = {}
    for addresses, values in by_stack(profile).items():
        sums = found.setdefault(tuple(_of_program(reader.called(addresses))), dict.fromkeys(values, 0))
        for name, value in values.items():
            sums[name] += value
    return [{"stack": _functions(stack), **sums} for stack, sums in found.items() if any(sums.values())]


def _of_program(called: list[Called]) -> list[Called]:
    """Without the runtime's own functions that allocate for the program, and the root, as pprof leaves them out."""
    called = [each for each in called if each.function != "runtime.goexit"]
    return called[next((at for at, each in enumerate(called) if not _is_runtimes(each.function)), 0) :]


def _functions(called: Sequence[Called]) -> list[dict[str, Any]]:
    return [
        {
            "function": printable(each.function),
            "file": printable(each.file),
            "line": each.line,
            "inlined": each.offset is None,
        }
        for each in called
    ]


def _is_runtimes(name: str) -> bool:
    return name.startswith(("runtime.", "internal/runtime/"))
