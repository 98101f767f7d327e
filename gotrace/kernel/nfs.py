"""What an NFS client counts of each mount's requests: /proc/PID/mountstats (fs/nfs/super.c, net/sunrpc/stats.c)."""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple

from gotrace.kernel.mounts import plain

_DEVICE = re.compile(r"device .* mounted on (\S+) with fstype nfs4? statvers=")
_OPERATION = re.compile(r"\s*([A-Z][A-Z_0-9]*): (\d+(?: \d+){7,})\s*$")


class Operation(NamedTuple):
    """The first words of an operation's line, milliseconds as they are; a request that is sent again counts in ``sent``."""

    calls: int
    sent: int
    timeouts: int
    bytes_sent: int
    bytes_received: int
    queue_ms: int  # until it was sent
    server_ms: int  # from then to the answer: the round trip
    total_ms: int

    def since(self, before: Operation) -> Operation:
        return Operation(*(now - then for now, then in zip(self, before, strict=True)))


Operations = dict[str, dict[str, Operation]]  # by mount point and name
NONE = Operation(0, 0, 0, 0, 0, 0, 0, 0)


def parsed(text: str) -> Operations:
    """Of each mount of NFS; lines of other kinds, and words that newer kernels add, are left out."""
    found: Operations = {}
    mount: dict[str, Operation] | None = None
    for line in text.splitlines():
        if line.startswith("device "):
            match = _DEVICE.match(line)
            mount = found.setdefault(plain(match[1]), {}) if match else None
        elif mount is not None and (match := _OPERATION.match(line)):
            mount[match[1]] = Operation(*map(int, match[2].split(" ")[: len(NONE)]))
    return found


def between(before: Operations, after: Operations) -> Operations:
    """What was done meanwhile: mounts and operations that were used. A mount that is new began with nothing."""
    found: Operations = {}
    for point, operations in after.items():
        known = before.get(point, {})
        changes = {name: now.since(known.get(name, NONE)) for name, now in operations.items()}
        if used := {name: each for name, each in changes.items() if each.calls > 0}:
            found[point] = used
    return found


class Mountstats:
    """A process's mounts of NFS; still to be read when the process is gone."""

    def __init__(self, pid: int) -> None:
        self._file = None
        with contextlib.suppress(OSError):  # gone, or another's
            self._file = open(f"/proc/{pid}/mountstats", encoding="utf-8", errors="surrogateescape")

    def read(self) -> Operations | None:
        """None if that is unknown."""
        if self._file is None:
            return None
        try:
            self._file.seek(0)
            return parsed(self._file.read())
        except OSError:
            return None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
