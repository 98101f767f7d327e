"""The records of `gotrace.views.goroutines`: every goroutine of a process at one moment, grouped by likeness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import numpy as np

from gotrace.analysis import goroutines as analysis
from gotrace.analysis.goroutines import TORN, alike, is_shown, is_system, shown
from gotrace.records.times import Moment
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.kernel.system_calls import SystemCall
    from gotrace.runtime.goroutines import GoroutineReader


class Called(TypedDict):
    """A function of a stack."""

    function: str
    file: str
    line: int
    offset: Annotated[int | None, "bytes from the function's entry to where it resumes; null: it was inlined"]
    shown: Annotated[bool, "whether the runtime's own traceback shows it"]


class Call(TypedDict):
    """A system call."""

    name: str
    fd: Annotated[int | None, "its first argument, if that is a descriptor"]
    file: Annotated[str, "what is open there; empty: unknown"]
    kernel: Annotated[list[str], "the kernel functions the thread sleeps in, innermost first; empty: unknown"]


class Goroutine(TypedDict):
    goid: int
    parent: Annotated[int | None, "the goroutine that created it; null: unknown (up to Go 1.20)"]
    waits_ns: Annotated[
        int | None, "at least this long: from a collection that saw it wait until the dump began; null: unknown"
    ]
    waits_most_ns: Annotated[
        int | None,
        "at most this long: since the collection before that one had marked, as in the runtime's own tracebacks",
    ]
    locked: Annotated[bool, "locked to its thread"]
    tid: Annotated[int | None, "its thread, while it has one"]
    channel: Annotated[str | None, "the address of the channel it waits for; null: none, or several"]
    system_call: Annotated[Call | None, "the one its thread is in, from Go or from C; null: none, or unknown"]
    turns: Annotated[int, "how often it has left the CPU, modulo 256"]


class Group(TypedDict):
    """Goroutines in one state, with one stack, created at one place, with the same labels."""

    state: Annotated[str, "the wait reason or status, in the runtime's words"]
    stack: Annotated[
        list[Called] | None, "innermost first; null: it was running, or changed every time it was read (torn says which)"
    ]
    torn: bool
    sampled: Annotated[bool, "it was running, and this is where a timer (perf's cpu-clock) found it"]
    system: Annotated[bool, "the runtime's own"]
    created_by: Called | None
    labels: dict[str, str]
    count: int
    longest_wait_ns: int | None
    longest_wait_most_ns: int | None
    goroutines: list[Goroutine]


class Goroutines(Moment):
    """A dump: goroutines in groups, largest first. Nothing was stopped: it covers the ``took_ns`` before its time."""

    type: Literal["goroutines"]
    pid: int
    count: int
    system: Annotated[int, "how many of them are the runtime's own"]
    states: Annotated[dict[str, int], "how many are in each state"]
    torn: Annotated[int, "how many changed every time they were read: their stacks are unknown"]
    broken: Annotated[int, "stacks that do not end in a root"]
    took_ns: int
    groups: list[Group]


def goroutines_record(dump: analysis.Dump, reader: GoroutineReader) -> dict[str, Any]:
    """A dump without its wall time: ``monotonic_ns`` is when it was complete."""
    at_ns, version = dump.began_ns + dump.took_ns, reader.program.version
    stacks = [reader.called(stack) for stack in dump.stacks]
    told = [_stack(stack, version) for stack in stacks]
    groups, states = [], Counter[str]()
    for places in alike(dump):
        rows = dump.rows[places]
        first = rows[0]
        number = int(first["stack"])
        begins_in = reader.called_at(int(first["begins_at"]))
        # Each was read at some time from the beginning on.
        waits, waits_most = (
            np.where(rows[name] > 0, until_ns - rows[name], -1).tolist()
            for name, until_ns in (("waits_since_ns", dump.began_ns), ("not_before_ns", at_ns))
        )
        state = reader.state(int(first["status"]), int(first["reason"]))
        states[state] += len(rows)
        groups.append(
            {
                "state": state,
                "stack": told[number] if number >= 0 else None,
                "torn": number == TORN,
                "sampled": bool(first["sampled"]),
                "system": is_system(begins_in.function if begins_in else "", stacks[number] if number >= 0 else ()),
                "created_by": _created_by(reader.called_at(int(first["created_at"]), returned=True), version),
                "labels": {printable(key): printable(text) for key, text in dump.labels[int(first["labels"])]},
                "count": len(rows),
                "longest_wait_ns": _known(max(waits)),
                "longest_wait_most_ns": _known(max(waits_most)),
                "goroutines": [
                    _goroutine(row, wait, wait_most, dump.calls.get(row[0]))
                    for row, wait, wait_most in zip(rows[_OF_ONE].tolist(), waits, waits_most, strict=True)
                ],
            }
        )
    return {
        "type": "goroutines",
        "monotonic_ns": at_ns,
        "pid": reader.pid,
        "count": len(dump.rows),
        "system": sum(group["count"] for group in groups if group["system"]),
        "states": dict(states.most_common()),
        "torn": dump.torn,
        "broken": dump.broken,
        "took_ns": dump.took_ns,
        "groups": groups,
    }


_OF_ONE = ["goid", "parent", "locked", "tid", "channel", "turns"]


def _goroutine(row: tuple[int, ...], wait: int, wait_most: int, call: SystemCall | None) -> dict[str, Any]:
    goid, parent, locked, tid, channel, turns = row
    return {
        "goid": goid,
        "parent": parent or None,
        "waits_ns": _known(wait),
        "waits_most_ns": _known(wait_most),
        "locked": bool(locked),
        "tid": tid or None,
        "channel": f"{channel:#x}" if channel else None,
        "system_call": _call(call) if call is not None else None,
        "turns": turns,
    }


def _call(call: SystemCall) -> dict[str, Any]:
    return {"name": call.name, "fd": call.fd, "file": printable(call.file), "kernel": list(map(printable, call.kernel))}


def _known(ns: int) -> int | None:
    return ns if ns >= 0 else None


def _stack(stack: Sequence[analysis.Called], version: tuple[int, int]) -> list[dict[str, Any]]:
    return [_called(each, show) for each, show in zip(stack, shown(stack, version), strict=True)]


def _called(each: analysis.Called, show: bool) -> dict[str, Any]:
    return {
        "function": printable(each.function),
        "file": printable(each.file),
        "line": each.line,
        "offset": each.offset,
        "shown": show,
    }


def _created_by(each: analysis.Called | None, version: tuple[int, int]) -> dict[str, Any] | None:
    return _called(each, is_shown(each.function, version)) if each is not None else None
