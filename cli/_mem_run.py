"""Looking at a process's memory again and again: from the target's bytes to lines, and the parts at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from gotrace import session
from gotrace.analysis.heap_pages import FREE as FREE_PART
from gotrace.analysis.heap_pages import (
    LIVE,
    METADATA,
    OTHER,
    PARTS,
    STACKS,
    WASTE,
    WHY,
    Pages,
    SizeClass,
    classify,
    size_classes,
    sizes,
)
from gotrace.analysis.heap_pages import RELEASED as RELEASED_PART
from gotrace.binary.heap import HeapPlaces
from gotrace.cli._gc_run import Sink, complain_of, created
from gotrace.cli._target import StopRequest
from gotrace.errors import TargetError
from gotrace.heap import Counters, HeapReader
from gotrace.kernel.memory import PAGE, RANGE, Memory
from gotrace.kernel.process import Process
from gotrace.text import bytes_text, printable

_DRIFT = 0.01  # of RSS: what changed more while it was looked at is looked at again
_TRIES = 3
_UNLIMITED = (1 << 63) - 1
_LINE = "{:>8}  {:>9} {:>9} {:>5}  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  {:>6}"
_NAMES = ("time", "RSS", "HeapAlloc", "MAF", "live", "waste", "free", "released", "stacks", "metadata", "other", "GCs")


@dataclass(frozen=True)
class Look:
    """One look: the parts add up to ``rss``. ``drift`` is how much RSS changed meanwhile, as a share of it."""

    time: float
    rss: int
    parts: dict[str, int]
    counters: Counters
    classes: list[SizeClass]
    huge_bytes: int
    lazy_free_bytes: int
    swap_bytes: int
    drift: float
    took_ns: int
    pages: Pages

    @property
    def amplification(self) -> float:
        return self.rss / self.counters.heap_alloc if self.counters.heap_alloc > 0 else float("inf")


class Looker:
    """Looks at one process."""

    def __init__(self, process: Process) -> None:
        found = HeapPlaces(**session.of_executable(process, "heap", heap_of))
        self.places = found
        self._memory = Memory(process.pid)
        self._reader = HeapReader(found, self._memory, process.load_bias(found.first_vaddr) if found.pie else 0)
        self._exe = os.readlink(process.exe_path)

    def look(self) -> Look:
        """What is resident now; taken again when it changed too much meanwhile. Raises TargetError or HostError."""
        best: Look | None = None
        for left in reversed(range(_TRIES)):
            try:
                found = self._look()
            except TargetError:  # it has exited, or a list was changed while it was followed
                if left or best is not None:
                    continue
                raise
            if best is None or found.drift < best.drift:
                best = found
            if best.drift <= _DRIFT:
                break
        assert best is not None
        return best

    def parts_of(self, addresses: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """What the pages at ``addresses`` belong to now, resident or not: indices into `PARTS`. Raises as `look` does."""
        pages, back = np.unique(addresses, return_inverse=True)
        ranges = np.zeros(len(pages), RANGE)
        ranges["begin"], ranges["end"] = pages, pages + PAGE
        return classify(self._reader.snapshot(), ranges, self._memory.vmas(), self._exe, PAGE).part[back]

    def _look(self) -> Look:
        begin = time.monotonic_ns()
        counters = self._reader.counters()
        snapshot = self._reader.snapshot()
        vmas = self._memory.vmas()
        resident = self._memory.resident(vmas)
        rollup = self._memory.rollup()
        took = time.monotonic_ns() - begin
        pages = classify(snapshot, resident, vmas, self._exe, PAGE)
        parts = sizes(pages, PAGE)
        rss = sum(parts.values())
        return Look(
            time=time.time(),
            rss=rss,
            parts=parts,
            counters=counters,
            classes=size_classes(snapshot.spans),
            huge_bytes=rollup.get("AnonHugePages", 0),
            lazy_free_bytes=rollup.get("LazyFree", 0),
            swap_bytes=rollup.get("Swap", 0),
            drift=abs(rollup["Rss"] - rss) / max(rollup["Rss"], 1),
            took_ns=took,
            pages=pages,
        )


def heap_of(path: str) -> HeapPlaces:
    """Where the heap of an executable is; disassembles, so run it in a child."""
    from gotrace.binary.heap import find_heap
    from gotrace.binary.program import GoProgram

    with GoProgram.open(path) as program:
        session.require_same_arch(program)
        return find_heap(program)


def record(look: Look) -> dict[str, Any]:
    """One look as a JSON object; sizes in bytes."""
    return {
        "type": "memory",
        "time": look.time,
        "rss_bytes": look.rss,
        "amplification": round(look.amplification, 4) if look.counters.heap_alloc > 0 else None,
        "parts": look.parts,
        "counters": dataclasses.asdict(look.counters),
        "size_classes": [{**dataclasses.asdict(each), "waste": each.waste} for each in look.classes],
        "huge_bytes": look.huge_bytes,
        "lazy_free_bytes": look.lazy_free_bytes,
        "swap_bytes": look.swap_bytes,
        "drift": round(look.drift, 6),
        "took_ns": look.took_ns,
    }


def run(
    pid: int, duration: int, interval: int, classes: int, format_: str, output: str | None, force: bool, screen: TextIO
) -> None:
    """Look until the end (once, without a ``duration``) and print. Times in nanoseconds."""
    stop = StopRequest()
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(Process.open(pid))
        looker = Looker(process)
        file = None
        if output is not None:
            file = Sink(created(output, force), output)
            stack.callback(file.close)
        stack.enter_context(stop.installed())
        last = None
        for look in _looks(looker, process, duration, interval, stop):
            text = json.dumps(record(look)) + "\n"
            if file is not None:
                file.write(text)
                file.flush()
                complain_of(file)
            if format_ == "ndjson":
                screen.write(text)
                screen.flush()
            elif duration:
                if last is None:
                    print(_LINE.format(*_NAMES), file=screen)
                print(line(look), file=screen, flush=True)
            last = look
        if last is not None and format_ == "table":
            name = f"pid {pid} ({printable(process.exe_name)}, {looker.places.go_version})"
            for text in table(last, name, classes, looker.places.missing):
                print(text, file=screen)


def _looks(looker: Looker, process: Process, duration: int, interval: int, stop: StopRequest) -> Iterator[Look]:
    begin = tick = time.monotonic_ns()
    while True:
        yield looker.look()
        tick += interval
        now = time.monotonic_ns()
        if stop.signal or now - begin + interval > duration:
            return
        if process.wait_exit(max(0, tick - now) / 1e9) or process.exec_changed():
            return


def line(look: Look) -> str:
    """A look in a line."""
    shown = (LIVE, WASTE, FREE_PART, RELEASED_PART, STACKS, METADATA)
    rest = look.rss - sum(look.parts[name] for name in shown)
    sizes = [bytes_text(look.parts[name]) for name in shown]
    clock = time.strftime("%H:%M:%S", time.localtime(look.time))
    alloc = bytes_text(look.counters.heap_alloc)
    amplification = f"{look.amplification:.2f}" if look.amplification < 1000 else "-"
    return _LINE.format(clock, bytes_text(look.rss), alloc, amplification, *sizes, bytes_text(rest), look.counters.num_gc)


def table(look: Look, name: str, classes: int, missing: dict[str, str]) -> Iterator[str]:
    """The parts of a look, what is behind them, and what stands out, a line each."""
    counters = look.counters
    yield ""
    yield f"{name}: RSS {bytes_text(look.rss)}, HeapAlloc {bytes_text(counters.heap_alloc)}" + (
        f", amplification {look.amplification:.2f}" if look.amplification < 1000 else ""
    )
    yield ""
    for part in PARTS:
        size = look.parts[part]
        if size or part in (LIVE, OTHER):
            yield f"{part:<26} {bytes_text(size):>10} {size / max(look.rss, 1):>7.1%}  {WHY[part]}"
    yield f"{'RSS':<26} {bytes_text(look.rss):>10}"
    yield ""
    yield _sentence(look)
    yield _settings(counters)
    huge = f"{bytes_text(look.huge_bytes)} of it in huge pages" if look.huge_bytes else "no huge pages"
    swap = f"; {bytes_text(look.swap_bytes)} swapped out" if look.swap_bytes else ""
    took = f"Looked for {look.took_ns / 1e6:.1f} ms, meanwhile RSS changed by {look.drift:.2%}."
    yield f"Kernel pages of {bytes_text(PAGE)}, {huge}{swap}. {took}"
    wasteful = [each for each in look.classes if each.waste > 0][:classes]
    if wasteful and look.parts[WASTE] > 0.01 * look.rss:
        yield ""
        yield f"{'size class':>12} {'spans':>8} {'in spans':>10} {'objects':>10} {'waste':>10}"
        for each in wasteful:
            label = f"{each.size:,} B" if each.size else "large"
            sizes = [bytes_text(value) for value in (each.bytes, each.live, each.waste)]
            yield f"{label:>12} {each.spans:>8,} {sizes[0]:>10} {sizes[1]:>10} {sizes[2]:>10}"
    for what, reason in missing.items():
        yield f"{what} was not found: {reason}"


def _settings(counters: Counters) -> str:
    limit = "off" if counters.memory_limit == _UNLIMITED else bytes_text(counters.memory_limit)
    percent = "off" if counters.gc_percent < 0 else str(counters.gc_percent)
    return (
        f"GOGC {percent}, GOMEMLIMIT {limit} (what it counts: {bytes_text(counters.mapped_ready)}); "
        f"{counters.num_gc} GCs; returned to the kernel so far: {bytes_text(counters.heap_released)}."
    )


def _sentence(look: Look) -> str:
    """Which part makes RSS larger than the heap."""
    others = {name: size for name, size in look.parts.items() if name != LIVE}
    name = max(others, key=lambda each: others[each])
    return (
        f"{look.parts[LIVE] / max(look.rss, 1):.0%} of RSS are live objects; the largest other part is {name}: "
        f"{bytes_text(others[name])} ({WHY[name]})."
    )
