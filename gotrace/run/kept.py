"""Recordings of single pauses that an agent keeps: small, whole or not there, and all of a folder together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gotrace.errors import GotraceError
from gotrace.run.target import UNKNOWN_COST, StopRequest, Traced
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.analysis.evidence import Slice
    from gotrace.recording.reader import Recording
    from gotrace.records.kept import KeptPause
    from gotrace.shared import SharedSession
    from gotrace.views.view import Record

NAME = re.compile(r"[0-9]{19}\.[0-9]{1,10}\.gotrace")
_UNFINISHED = ".part"
_MOST_S = 60  # for writing one


def name_of(slice_: Slice, wall_offset_ns: int, pid: int) -> str:
    """By when the pause began (ns since 1970) and whose it was."""
    return f"{slice_.start_ns + wall_offset_ns:019}.{pid}.gotrace"


def recordings_in(folder: str) -> list[str]:
    """The paths of the recordings in a folder, the oldest first. Raises GotraceError."""
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if NAME.fullmatch(name)]
    except OSError as error:
        raise GotraceError(
            f"cannot read {printable(folder)}: {error.strerror}", "check that it is a spool of `gotrace serve`"
        ) from None


def forget_unfinished(folder: str) -> None:
    """Remove what somebody was writing who was killed."""
    for name in os.listdir(folder):
        if NAME.fullmatch(name.removesuffix(_UNFINISHED)) and name.endswith(_UNFINISHED):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def write(session: SharedSession, slice_: Slice, path: str, about: Mapping[str, Any]) -> KeptPause | None:
    """Make a recording of a slice, with the names of its code; ``about`` goes into the header. For a child process.

    Returns what is `told` of it. One is written after the other, whoever writes them. Raises GotraceError.
    """
    from gotrace.recording.reader import Recording  # large, and not wanted in the parent, as all that is imported late here
    from gotrace.run.files import cannot_write, complain_of
    from gotrace.run.recorder import Recorder

    signal.alarm(_MOST_S)
    os.nice(10)
    traced = Traced(session, session.symbols, StopRequest(), lambda _: None)
    unfinished = path + _UNFINISHED
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # what names are read from takes memory
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "wb", buffering=0) as file:
            recorder = Recorder(file, path, traced)
            recorder.begin({**session.header(slice_.begin_ns), **about})
            recorder.add(slice_.events, slice_.lost)
            recorder.end(
                {
                    "duration_ns": slice_.end_ns - slice_.begin_ns,
                    "ended": "it is a slice",
                    "received": len(slice_.events),
                    "lost": slice_.lost,
                    "cost": UNKNOWN_COST,
                }
            )
            complain_of(recorder)
        os.rename(unfinished, path)
        with contextlib.suppress(GotraceError), Recording.open(path) as source:
            return told(source)
        return None
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)


def told(source: Recording) -> KeptPause | None:
    """The pause that a recording was kept for; None if it is in none."""
    from gotrace.analysis.causes import UNKNOWN
    from gotrace.run.sources import Replayed
    from gotrace.views.gc import Gc
    from gotrace.views.view import records_of

    header, pauses, explained = source.header, [], None
    for _, records in records_of(Replayed(source, 1), [Gc(explained=1)]):
        for record in records:
            if record["type"] == "stw":
                pauses.append(record)
            elif record["type"] == "explained":
                explained = record
    if not pauses:
        return None
    lengths = [int(each["total_ns"] + each["restart_lag_ns"]) for each in pauses]
    length_ns, pause = max(zip(lengths, pauses, strict=True), key=lambda each: each[0])
    if explained is not None and explained["total_ns"] != pause["total_ns"]:
        explained = None
    return {
        "type": "kept",
        "file": os.path.basename(source.path),
        "service": printable(str(header.get("service", {}).get("service.name", "")) or header["target"]["exe"]),
        "pid": int(header["target"]["pid"]),
        "exe": printable(str(header["target"]["exe"])),
        "time": pause["time"],
        "monotonic_ns": pause["monotonic_ns"],
        "reason": pause["reason"],
        "length_ns": explained["length_ns"] if explained is not None else length_ns,
        "total_ns": pause["total_ns"],
        "whole": bool(header.get("kept", {}).get("whole", True)) and not source.lost and not source.cut_off,
        "cause": explained["cause"] if explained is not None else UNKNOWN,
        "code": code_of(explained) if explained is not None else [],
        "sentence": explained["sentence"] if explained is not None else "the request to stop was not seen",
    }


def code_of(explained: Record) -> list[str]:
    """What ran in the part of an explained pause in which its cause took most time; innermost first."""
    cause, parts = explained["cause"], explained["parts"]
    part = max(parts, key=lambda name: int(parts[name].get(cause, 0)))
    return list(explained["code"][part].get(cause, []))
