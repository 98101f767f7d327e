"""The record of `gotrace.views.contention`: the runtime's mutex and block profiles, with their stacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from gotrace.analysis.contention import BLOCK, MUTEX
from gotrace.analysis.contention import Contention as Profile
from gotrace.records.heap import Function, functions
from gotrace.records.times import Moment

if TYPE_CHECKING:
    from gotrace.runtime.profiles import ContentionReader


class Waited(TypedDict):
    """The total of one stack since the program started."""

    stack: Annotated[list[Function], "innermost first"]
    count: Annotated[int, "waits"]
    delay_ns: Annotated[int, "total time waited"]


class Waits(TypedDict):
    """A profile, as the runtime estimates it; empty if the program does not collect it, or nothing has waited."""

    count: int
    delay_ns: int
    stacks: Annotated[list[Waited], "longest delays first"]


class Contention(Moment):
    """Both profiles."""

    type: Literal["contention"]
    pid: int
    mutex: Annotated[Waits, "by the code that held a lock, recorded as it unlocked: how long others had waited for it"]
    block: Annotated[Waits, "by the code that waited for a lock, a channel, or anything else"]


def contention_record(found: dict[str, Profile], reader: ContentionReader, at_ns: int) -> dict[str, Any]:
    """Both profiles without their wall time."""
    return {
        "type": "contention",
        "monotonic_ns": at_ns,
        "pid": reader.pid,
        **{kind: _waits(found[kind], reader) for kind in (MUTEX, BLOCK)},
    }


def _waits(profile: Profile, reader: ContentionReader) -> dict[str, Any]:
    sums: dict[tuple[Any, ...], list[float]] = {}
    for stack, count, delay in zip(profile.stacks, profile.counts.tolist(), profile.delays_ns.tolist(), strict=True):
        called = tuple(each for each in reader.called(stack) if each.function != "runtime.goexit")
        found = sums.setdefault(called, [0, 0])
        found[0] += count
        found[1] += delay
    stacks = [
        {"stack": functions(called), "count": int(count), "delay_ns": int(delay)} for called, (count, delay) in sums.items()
    ]
    return {
        "count": int(profile.counts.sum()),
        "delay_ns": int(profile.delays_ns.sum()),
        "stacks": sorted(stacks, key=lambda each: -each["delay_ns"]),
    }
