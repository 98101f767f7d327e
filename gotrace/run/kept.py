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
from gotrace.run.files import cannot_write, complain_of
from gotrace.run.target import UNKNOWN_COST, StopRequest, Traced

if TYPE_CHECKING:
    from gotrace.analysis.evidence import Slice
    from gotrace.shared import SharedSession

_NAME = re.compile(r"[0-9]{19}\.[0-9]+\.gotrace")
_UNFINISHED = ".part"
_MOST_S = 60  # for writing one


def name_of(slice_: Slice, wall_offset_ns: int, pid: int) -> str:
    """By when the pause began (ns since 1970) and whose it was."""
    return f"{slice_.start_ns + wall_offset_ns:019}.{pid}.gotrace"


def recordings_in(folder: str) -> list[str]:
    """The paths of the recordings in a folder, the oldest first. Raises GotraceError."""
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if _NAME.fullmatch(name)]
    except OSError as error:
        raise GotraceError(f"cannot read {folder}: {error.strerror}", "is it the spool of `gotrace serve`?") from None


def forget_unfinished(folder: str) -> None:
    """Remove what somebody was writing who was killed."""
    for name in os.listdir(folder):
        if _NAME.fullmatch(name.removesuffix(_UNFINISHED)) and name.endswith(_UNFINISHED):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def write(session: SharedSession, slice_: Slice, path: str, about: Mapping[str, Any]) -> None:
    """Make a recording of a slice, with the names of its code; ``about`` goes into the header. For a child process.

    One is written after the other, whoever writes them. Raises GotraceError.
    """
    from gotrace.run.recorder import Recorder  # large, and not wanted in the parent

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
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
