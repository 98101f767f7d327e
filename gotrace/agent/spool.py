"""What the agent keeps on disk: a line for each service and minute, in segments that are bounded together.

A line is written whole or, by who is killed, cut off: whoever reads leaves out a line without its end. Where there is no
room the minute is not written, and counted. The oldest segment goes when the bound would be passed.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gotrace.analysis.exponential import SCHEMA as BUCKETS
from gotrace.analysis.exponential import buckets_of
from gotrace.errors import GotraceError
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.analysis.columns import Array
    from gotrace.export.metrics.model import Family

SCHEMA = "gotrace.spool/1"
WORST = 16  # the longest pauses of a window that are kept themselves
MOST_BYTES = 100 << 20
_SEGMENTS = 64
_NAME = re.compile(r"[0-9]{19}\.ndjson")


class Window:
    """What was seen of a service since the last snapshot, as values: their buckets are exact, whatever came before.

    It begins and ends by the monotonic clock (ns), which nobody sets.
    """

    def __init__(self, begin_ns: int) -> None:
        self._begin_ns = begin_ns
        self._values: defaultdict[tuple[Family, tuple[str, ...]], list[Array]] = defaultdict(list)
        self._worst: list[tuple[int, int, str, int]] = []

    def add(self, family: Family, labels: tuple[str, ...], values_ns: Array) -> None:
        """Values of a histogram."""
        self._values[family, labels].append(values_ns.astype(np.int64))

    @property
    def least_ns(self) -> int:
        """A pause that is not longer is not among the longest."""
        return self._worst[0][0] if len(self._worst) == WORST else -1

    def note(self, length_ns: int, time_ns: int, reason: str, pid: int) -> None:
        """A pause that may be among the longest; ``time_ns`` since 1970."""
        heapq.heappush(self._worst, (length_ns, time_ns, reason, pid))
        if len(self._worst) > WORST:
            heapq.heappop(self._worst)

    def ended(self, end_ns: int, since_1970_ns: int = 0) -> dict[str, Any]:
        """What was seen up to ``end_ns``, as JSON; the next window begins there.

        ``since_1970_ns`` is added to a time of this clock for one since 1970.
        """
        histograms = []
        for (family, labels), parts in self._values.items():
            values = np.concatenate(parts)
            indexes, counts = buckets_of(values)
            histograms.append(
                {
                    "name": family.name,
                    "labels": dict(zip(family.labels, labels, strict=True)),
                    "schema": BUCKETS,
                    "count": len(values),
                    "zeros": int((values == 0).sum()),
                    "sum_ns": int(values.sum()),
                    "min_ns": int(values.min()),
                    "max_ns": int(values.max()),
                    "buckets": [indexes.tolist(), counts.tolist()],
                }
            )
        worst = [
            {"length_ns": length, "time_ns": at, "reason": reason, "pid": pid}
            for length, at, reason, pid in sorted(self._worst, reverse=True)
        ]
        length = {"begin_ns": self._begin_ns + since_1970_ns, "length_ns": end_ns - self._begin_ns}
        told = {**length, "histograms": histograms, "worst": worst}
        self._begin_ns = end_ns
        self._values.clear()
        self._worst.clear()
        return told


class Spool:
    """A folder of segments, each named by when it began (ns since 1970), of ``most_bytes`` together. ``failures`` are lines
    that were not written, ``problem`` is why the last of them was not."""

    def __init__(self, folder: str, most_bytes: int = MOST_BYTES) -> None:
        """Raises GotraceError where it cannot be written, or another agent writes."""
        self.failures, self.problem = 0, ""
        self._folder, self.most_bytes = folder, most_bytes
        self._file: int | None = None
        self._written = 0
        try:
            os.makedirs(folder, mode=0o750, exist_ok=True)
            if _is_written(folder):
                raise GotraceError(
                    f"another agent writes the spool {printable(folder)}", "give another folder with --spool"
                )
            self._open()
        except OSError as error:
            raise _unwritable(folder, error) from None

    def write(self, records: list[Mapping[str, Any]]) -> None:
        """Append records. What does not fit on the disk is counted, and nothing of it stays."""
        data = b"".join(json.dumps({"schema": SCHEMA, **record}).encode() + b"\n" for record in records)
        if self._file is None or self._written + len(data) > self.most_bytes // _SEGMENTS:
            try:
                self._open()
            except OSError as error:
                self._failed(records, error)
                return
        assert self._file is not None
        try:
            rest = data
            while rest:  # the write after one that was cut short says why
                rest = rest[os.write(self._file, rest) :]
            self._written += len(data)
        except OSError as error:
            os.ftruncate(self._file, self._written)
            self._failed(records, error)

    def _failed(self, records: list[Mapping[str, Any]], error: OSError) -> None:
        self.failures += len(records)
        self.problem = str(error.strerror)

    def close(self) -> None:
        """No more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        self.close()
        segments = segments_of(self._folder)
        sizes = [os.path.getsize(path) for path in segments]
        while segments and (sum(sizes) > self.most_bytes * (_SEGMENTS - 1) // _SEGMENTS or len(segments) >= 4 * _SEGMENTS):
            os.unlink(segments.pop(0))
            sizes.pop(0)
        # Behind all that are there even if the clock was put back: who collects goes on from the last that it knows.
        last_ns = int(os.path.basename(segments[-1]).partition(".")[0]) if segments else 0
        path = os.path.join(self._folder, f"{max(time.time_ns(), last_ns + 1):019}.ndjson")
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        with contextlib.suppress(OSError):  # of a file system that has no locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # for `_is_written`
        self._written = 0


def check(folder: str) -> None:
    """Whether a spool can be there, or be made: raises what `Spool` would. Nothing is left behind."""
    import tempfile

    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def _is_written(folder: str) -> bool:
    """Whether an agent is there that would lose what another one takes for old. Raises OSError."""
    for path in segments_of(folder)[-1:]:
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:
                return False
    return False


def _unwritable(folder: str, error: OSError) -> GotraceError:
    return GotraceError(f"cannot write the spool {printable(folder)}: {error.strerror}", "give another folder with --spool")


def segments_of(folder: str) -> list[str]:
    """The paths of a spool's segments, the oldest first. Raises OSError."""
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if _NAME.fullmatch(name)]


def records_in(folder: str) -> Iterator[dict[str, Any]]:
    """Every record of a spool, the oldest first; what was cut off is left out. Raises OSError."""
    for path in segments_of(folder):
        with open(path, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)
