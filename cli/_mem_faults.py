"""`gotrace mem --faults`: what a process's page faults were for, and in which phase of the collector they came."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np

from gotrace.analysis.fault_table import PHASES, FaultTable, PhaseTimes, fault_table
from gotrace.analysis.gc_summary import PERCENTILES, percentiles
from gotrace.analysis.heap_pages import LIVE, PARTS
from gotrace.analysis.histogram import Histogram
from gotrace.cli._gc_run import created
from gotrace.cli._mem_run import Looker
from gotrace.cli._target import POLL_NS
from gotrace.cli._watch import watching
from gotrace.kernel.memory import PAGE
from gotrace.text import duration_text

_SPANS = "heap objects"
_NAMES = tuple(_SPANS if name == LIVE else name for name in PARTS)


def run(pid: int, duration: int, format_: str, output: str | None, force: bool, screen: TextIO) -> None:
    """Watch for ``duration`` nanoseconds, or until Ctrl-C or the process ends, and print. Raises GotraceError."""
    with watching(pid, ("gc", "faults")) as target:
        tracing, stop, name = target.tracing, target.stop, target.name
        gc, faulting = target.modules
        kind = next(each.number for each in faulting.PROBE.kinds if each.name == "fault")
        looker = Looker(target.process)
        begin = time.monotonic_ns()
        decoder = gc.decoder(tracing.header(begin), tracing.static_text)
        phases, faults, exited = PhaseTimes(), [], False
        while not exited and not stop.signal and (left := begin + duration - time.monotonic_ns()) > 0:
            exited = tracing.wait(min(left, POLL_NS) / 1e9)
            events = tracing.read()
            phases.add(decoder.feed(events))
            faults.append(events[events["kind"] == kind])
        watched = time.monotonic_ns() - begin
        found = np.concatenate(faults) if faults else tracing.read()[:0]
        pages = (found["b"] // np.uint64(PAGE) * np.uint64(PAGE)).astype(np.int64)
        parts = looker.parts_of(pages) if not exited else np.full(len(pages), PARTS.index("unexplained"), np.int8)
        lost = tracing.lost
    table = fault_table(
        found["time_ns"].astype(np.int64),
        found["a"].astype(np.int64),
        found["d"] == 1,
        parts,
        _NAMES,
        phases.windows(),
        watched,
    )
    text = json.dumps(record(table, name, watched, lost)) + "\n"
    if output is not None:
        with created(output, force) as file:
            file.write(text)
    if format_ == "ndjson":
        screen.write(text)
        return
    for line in lines(table, name, watched, lost, exited):
        print(line, file=screen)


def record(table: FaultTable, name: str, watched_ns: int, lost: int) -> dict[str, Any]:
    """The result as a JSON object."""

    def statistics(histogram: Histogram) -> dict[str, int]:
        if not histogram.count:
            return {"count": 0}
        values = {f"p{each:g}_ns": value for each, value in zip(PERCENTILES, percentiles(histogram), strict=True)}
        return {"count": histogram.count, **values, "max_ns": histogram.max}

    return {
        "type": "faults",
        "target": name,
        "watched_ns": watched_ns,
        "faults": table.total,
        "counts": table.counts,
        "phases_ns": table.lengths_ns,
        "minor": {phase: statistics(table.minor[phase]) for phase in PHASES},
        "major": {phase: statistics(table.major[phase]) for phase in PHASES},
        "lost": lost,
    }


def lines(table: FaultTable, name: str, watched_ns: int, lost: int, exited: bool) -> Iterator[str]:
    """The result for people."""
    yield ""
    yield f"{name}: {table.total:,} page faults in {duration_text(watched_ns)}"
    yield ""
    yield f"{'':<26}" + "".join(f" {phase:>16}" for phase in PHASES) + f" {'all':>10}"
    for part, counts in table.counts.items():
        numbers = "".join(f" {counts[phase]:>16,}" for phase in PHASES)
        yield f"{part:<26}{numbers} {sum(counts.values()):>10,}"
    sums = {phase: sum(counts[phase] for counts in table.counts.values()) for phase in PHASES}
    yield f"{'all':<26}" + "".join(f" {sums[phase]:>16,}" for phase in PHASES) + f" {table.total:>10,}"
    rates = [sums[phase] / (table.lengths_ns[phase] / 1e9) if table.lengths_ns[phase] else 0 for phase in PHASES]
    yield f"{'a second of the phase':<26}" + "".join(f" {rate:>16,.0f}" for rate in rates)
    for title, histograms in (("minor", table.minor), ("major", table.major)):
        if any(histograms[phase].count for phase in PHASES):
            cells = []
            for phase in PHASES:
                p50, p99 = histograms[phase].percentiles((50.0, 99.0)) if histograms[phase].count else (0, 0)
                cells.append(f" {duration_text(p50) + ' / ' + duration_text(p99) if p99 else '-':>16}")
            yield f"{title + ', p50 / p99':<26}" + "".join(cells)
    if exited:
        yield "It exited meanwhile: what the faults were for can no longer be told."
    if lost:
        yield f"{lost:,} events were LOST."
