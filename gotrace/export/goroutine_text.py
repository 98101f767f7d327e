"""Goroutines as the runtime itself prints them (runtime/traceback.go), for the tools that read its tracebacks.

It differs in one thing: arguments are not shown, for what lies in their places is often stale.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from gotrace.analysis.goroutines import printed_name

Record = dict[str, Any]

_INNER, _OUTER = 50, 50  # frames that are shown where a stack has more
_MINUTE_NS = 60_000_000_000
_PLAIN = re.compile(r"[\w.+@/-]+")


def blocks(record: Record) -> Iterator[str]:
    """A text for each goroutine of a record of `gotrace.records.goroutines`, in the order of their numbers."""
    ordered = sorted(
        ((one, number) for number, group in enumerate(record["groups"]) for one in group["goroutines"]),
        key=lambda pair: pair[0]["goid"],
    )
    bodies = [_body(group) for group in record["groups"]]
    for one, number in ordered:
        group = record["groups"][number]
        yield f"{_header(one, group)}{bodies[number]}{_created(one, group)}"


def _header(one: Record, group: Record) -> str:
    minutes = (one["waits_most_ns"] or 0) // _MINUTE_NS
    waits = f", {minutes} minutes" if minutes else ""
    locked = ", locked to thread" if one["locked"] else ""
    labels = ", ".join(f"{_quoted(key)}: {_quoted(text)}" for key, text in group["labels"].items())
    return f"goroutine {one['goid']} [{group['state']}{waits}{locked}]{f' {{{labels}}}' if labels else ''}:\n"


def _quoted(text: str) -> str:
    """Part of a label: as it is where nobody can take it for something else."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _body(group: Record) -> str:
    if group["stack"] is None:
        why = "it changed while being read" if group["torn"] else "goroutine running on other thread"
        return f"\t{why}; stack unavailable\n"
    frames = [each for each in group["stack"] if each["shown"]]
    more = len(frames) - _INNER - _OUTER
    if more > 0:
        inner, outer = frames[:_INNER], frames[-_OUTER:]
        return f"{_text(inner)}...{more} frames elided...\n{_text(outer)}"
    return _text(frames)


def _text(frames: list[Record]) -> str:
    return "".join(f"{printed_name(each['function'])}(...)\n{_place(each)}" for each in frames)


def _place(frame: Record) -> str:
    offset = f" +{frame['offset']:#x}" if frame["offset"] else ""
    return f"\t{frame['file']}:{frame['line']}{offset}\n"


def _created(one: Record, group: Record) -> str:
    by = group["created_by"]
    if by is None or not by["shown"] or one["goid"] == 1:
        return ""
    parent = f" in goroutine {one['parent']}" if one["parent"] else ""
    return f"created by {printed_name(by['function'])}{parent}\n{_place(by)}"
