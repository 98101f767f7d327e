"""Recordings of calls on files whose events are chosen, hostile ones too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gotrace.kernel.ring import wire_dtype
from gotrace.probes.datapath import PROBE, TEXT
from gotrace.recording.writer import Writer

CALLS = ("read", "pread64", "write", "openat", "close", "lseek", "newfstatat", "fstat", "fsync", "mmap", "getdents64")
_KINDS = {kind.name: kind.number for kind in PROBE.kinds}
REGULAR, FOLDER, DEVICE = 0x8000, 0x4000, 0x2000
BEGIN_NS = 1_000_000_000


class Made:
    """``with Made(path) as made:`` and then files and calls, in any order."""

    def __init__(self, path: Path, **header: Any) -> None:
        self._path, self._header = path, header
        self._rows: list[tuple[int, ...]] = []

    def __enter__(self) -> Made:
        return self

    def event(self, kind: str, *words: int, time_ns: int = BEGIN_NS, tid: int = 10) -> None:
        self._rows.append((time_ns, tid, _KINDS[kind], 0, *(word & (1 << 64) - 1 for word in words)))

    def file(self, node: int, name: bytes, parent: int = 1, mode: int = REGULAR) -> None:
        """One of a folder; a name may be anything. The root is 1."""
        if mode & TEXT or node != 1:
            for at in range(0, len(name), 24):
                part = name[at : at + 24].ljust(24, b"\0")
                self.event("name", node, at, *(int.from_bytes(part[word : word + 8], "little") for word in (0, 8, 16)))
        self.event("file", node, 0 if node == 1 else parent, node, 1 << 32 | 5, mode)

    def call(
        self, name: str, node: int, result: int, at_ns: int, took_ns: int = 1000, tid: int = 10, process: int = 10
    ) -> None:
        begin_ns = BEGIN_NS + at_ns
        self.event("call", begin_ns, CALLS.index(name), node, result, process, time_ns=begin_ns + took_ns, tid=tid)

    def __exit__(self, *_: object) -> None:
        about = {"kinds": PROBE.header_kinds(), "points": [], "missing": []}
        header = {
            "target": {"pid": 10, "exe": "/bin/made", "go_version": ""},
            "clock": {"begin_ns": BEGIN_NS, "wall_offset_ns": 0, "target_offset_ns": 0},
            "host": {},
            "probes": {"datapath": {**about, "facts": {"calls": {str(at): name for at, name in enumerate(CALLS)}}}},
            **self._header,
        }
        with self._path.open("wb", buffering=0) as file:
            writer = Writer(file, header, wire_dtype())
            writer.events(np.array(self._rows, wire_dtype()))
            writer.close({"ended": "chosen", "duration_ns": 0})
