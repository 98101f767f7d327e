"""What was measured, whatever kind of file it is in, into a fleet's folder: once, and whole or not at all."""

from __future__ import annotations

import codecs
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gotrace.agent.spool import segments_of
from gotrace.errors import GotraceError
from gotrace.fleet import hlogs, prices, recordings, reports, spools
from gotrace.fleet.machines import Told
from gotrace.fleet.series import Part
from gotrace.fleet.store import Addition, Known, adding, check_columns, sources_in
from gotrace.lab.report import NAME as REPORT
from gotrace.text import printable


@dataclass(frozen=True)
class Outcome:
    """What became of a file. ``kind`` is "" where it was refused, and ``problem`` says why; ``skipped``: nothing of it was
    added, as it was there, or, if it is ``incomplete``, has no whole line yet."""

    path: str
    kind: str = ""
    problem: str = ""
    hint: str = ""
    skipped: bool = False
    incomplete: bool = False
    notes: tuple[str, ...] = ()


def add(folder: str, paths: Sequence[str], told: Told) -> list[Outcome]:
    """Add files and folders to a fleet. What cannot be read is left out, the others are added. Raises GotraceError."""
    with adding(folder) as addition:
        known = sources_in(folder)
        return [outcome for path in paths for outcome in _one(addition, path, told, known)]


def source_row(name: str, path: str, about: Mapping[str, Any], upto_bytes: int, notes: Sequence[str]) -> Part:
    """In the table "source"."""
    row = {**about, "path": path, "added_ns": time.time_ns(), "upto_bytes": upto_bytes, "notes": [list(notes)]}
    return "source", {**row, "source": name}


def put(addition: Addition, parts: Sequence[Part]) -> None:
    """All rows of one source."""
    for table, columns in parts:
        addition.add_columns(table, columns)


def _one(addition: Addition, path: str, told: Told, known: dict[str, Known]) -> Iterator[Outcome]:
    try:
        if os.path.isdir(path) and not os.path.exists(os.path.join(path, REPORT)):
            segments = segments_of(path)
            if not segments:
                raise GotraceError("it has neither a report nor a spool", "give the folder of a report or a spool")
            for segment in segments:
                yield from _segment(addition, segment, told, known)
            return
        file = os.path.join(path, REPORT) if os.path.isdir(path) else path
        if not os.path.isfile(file):
            raise GotraceError("it is not a file" if os.path.exists(file) else "there is no such file", "check the path")
        if not os.path.getsize(file):
            raise GotraceError("it is empty", "was it cut off?")
        kind, begin = _kind_of(file)
        if kind is spools:
            yield from _segment(addition, file, told, known)
            return
        name = f"{begin}:{_hash_of(file)}"
        if name in known:
            yield Outcome(path, begin, skipped=True)
            return
        about, parts, notes = kind.parts_of(file, told, name)
        for part in parts:
            check_columns(*part)
        put(addition, [*parts, source_row(name, file, about, os.path.getsize(file), notes)])
        known[name] = Known(os.path.getsize(file), file)
        yield Outcome(path, about["kind"], notes=tuple(notes))
    except GotraceError as error:
        yield Outcome(path, problem=error.message, hint=error.hint)
    except OSError as error:
        yield Outcome(path, problem=f"it cannot be read: {error.strerror}", hint="check its permissions")
    except (ValueError, OverflowError) as error:  # numbers of any size among them
        yield Outcome(path, problem=f"it is damaged: {error}", hint="record it again")


def _kind_of(file: str) -> tuple[Any, str]:
    """What reads a file, and what it is."""
    with open(file, "rb") as opened:
        begin = opened.read(4096)
    if begin.lstrip()[:1] == b"{":
        return (spools, "spool") if b'"gotrace.spool/' in begin[:200] else (reports, "baseline")
    if begin[:1] in (b"#", b'"') or begin[:4] == b"Tag=":
        return hlogs, "hlog"
    if begin.removeprefix(codecs.BOM_UTF8).startswith(",".join(prices.COLUMNS).encode()):
        return prices, "prices"
    return recordings, "recording"


def _hash_of(file: str) -> str:
    found = hashlib.sha256()
    with open(file, "rb") as opened:
        while part := opened.read(1 << 20):
            found.update(part)
    return found.hexdigest()[:24]


def _segment(addition: Addition, path: str, told: Told, known: dict[str, Known]) -> Iterator[Outcome]:
    """What a segment of a spool has that is not there yet."""
    try:
        with open(path, "rb") as file:
            data = spools.whole_lines(file.read())
        if not data:
            yield Outcome(path, "spool", skipped=True, incomplete=True, notes=("it has no complete line yet",))
            return
        name = spools.name_of(data)
        upto = known[name].upto_bytes if name in known else 0
        if len(data) <= upto:
            yield Outcome(path, "spool", skipped=True)
            return
        records = list(spools.records_of(data[upto:]))
        causes, broken = spools.causes_in(os.path.dirname(path) or ".", *spools.span_of(records))
        about, parts, used, damaged = spools.parts_of(records, told, name, causes)
        if not used:
            raise GotraceError("it is damaged", "copy it again")
        notes = [f"the recording {printable(each)} cannot be read" for each in broken]
        if damaged:
            notes.append(spools.damage_of(damaged))
        put(addition, [*parts, source_row(name, path, about, len(data), notes)])
        known[name] = Known(len(data), path)
        yield Outcome(path, "spool", notes=tuple(notes))
    except GotraceError as error:
        yield Outcome(path, problem=error.message, hint=error.hint)
