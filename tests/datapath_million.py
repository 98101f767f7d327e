"""Many files as a data loader has them, each opened, looked at, read and closed, put to the view as the events that they
are.

Run by itself (FILES TIMES OPTIONS, which are JSON) it prints the peak of its resident memory in bytes before the first
event and at the end, the seconds of CPU in between, and the result: what that took, a process of its own took.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gotrace.kernel.ring import Events, no_events, wire_dtype
from gotrace.kernel.system_calls import names as call_names
from gotrace.probes.datapath import PROBE
from gotrace.views.datapath import DataPath
from gotrace.views.view import Source

CALLS = ("openat", "fstat", "read", "close")
IN_A_FOLDER, AT_ONCE = 1000, 10_000
_NUMBERS = {name: number for number, name in call_names().items()}
_KINDS = {kind.name: kind for kind in PROBE.kinds}


def events(kind: str, count: int, **columns: Any) -> Events:
    """``count`` events of a kind; what is not said is 0."""
    found = np.zeros(count, wire_dtype())
    found["kind"] = _KINDS[kind].number
    for name, column in columns.items():
        found[dict(zip(_KINDS[kind].columns, "abcde", strict=False)).get(name, name)] = column
    return found


def node(numbers: Any) -> Any:
    """As the probe has them: numbers that say nothing."""
    return (np.atleast_1d(numbers).astype(np.uint64) + np.uint64(1)) * np.uint64(0xFF51AFD7ED558CCD)


def name_columns(names: list[bytes]) -> dict[str, Any]:
    words = np.frombuffer(b"".join(each.ljust(24, b"\0") for each in names), np.uint64).reshape(-1, 3)
    return {f"name{word}": words[:, word] for word in range(3)}


class Loader(Source):
    """``times`` over ``files`` files. A call of file N took 1, 2, 3 or 4 us and N % 1000 ns."""

    def __init__(self, files: int, times: int) -> None:
        self._files, self._times = files, times
        told = {
            "kinds": PROBE.header_kinds(),
            "missing": [],
            "facts": {"calls": {str(_NUMBERS[each]): each for each in CALLS}},
        }
        target = {"pid": 1, "exe": "loader", "go_version": ""}
        self.header = {"target": target, "clock": {"begin_ns": 0, "wall_offset_ns": 0}, "probes": {"datapath": told}}
        self.end = {"ended": "all was told"}

    def ask(self, what: str, answer: Any, due: bool = True, of_host: bool = False) -> Any:
        return None

    def portions(self) -> Iterator[Events]:
        root, folders = 1 << 40, (1 << 41) + np.arange(-(-self._files // IN_A_FOLDER))
        above = np.append(root, folders)
        about = {"node": node(above), "parent": np.append(np.uint64(0), np.full(len(folders), node(root)))}
        yield events("file", len(above), **about, place=7 << 32, mode=0x41ED)
        yield events(
            "name", len(above), node=node(above), **name_columns([b"", *(b"class-%04d" % at for at in range(len(folders)))])
        )
        for time_ in range(self._times):
            for begin in range(0, self._files, AT_ONCE):
                yield self._portion(np.arange(begin, min(begin + AT_ONCE, self._files)), time_)
        self.last = True
        yield no_events()

    def _portion(self, files: Any, time_: int) -> Events:
        parts = []
        if not time_:
            parent = node((1 << 41) + files // IN_A_FOLDER)
            parts.append(
                events("file", len(files), node=node(files), parent=parent, inode=files, place=7 << 32, mode=0x81A4)
            )
            names = name_columns([b"image-%07d.jpg" % each for each in files.tolist()])
            parts.append(events("name", len(files), node=node(files), **names))
        calls = np.tile(np.arange(len(CALLS)), len(files))
        each = np.repeat(files, len(CALLS))
        self.now_ns += 5000 * len(calls)
        end_ns = self.now_ns - 5000 * np.arange(len(calls), 0, -1) + 4000
        begin_ns = end_ns - 1000 * (1 + calls) - each % 1000
        what = np.array([_NUMBERS[name] for name in CALLS])[calls]
        result = np.array([3, 0, 1000, 0])[calls]
        parts.append(
            events(
                "call",
                len(calls),
                time_ns=end_ns,
                tid=1,
                begin_ns=begin_ns,
                what=what,
                file=node(each),
                result=result,
                process=1,
            )
        )
        return np.concatenate(parts)


def peak() -> int:
    """Not getrusage's, which has what the parent had until our execve."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def main() -> None:
    files, times, options = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    source, view = Loader(files, times), DataPath(**options)
    before, began = peak(), time.process_time()
    for _ in view.over(source):
        pass
    print(json.dumps([before, peak(), time.process_time() - began, view.result]))


if __name__ == "__main__":
    main()
