"""`gotrace mem --cycles`: memory amplification at the end of each GC cycle."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from gotrace.analysis.pauses import UNKNOWN
from gotrace.cli._gc_run import Sink, complain_of, created
from gotrace.cli._target import POLL_NS
from gotrace.cli._watch import watching
from gotrace.export.gc_json import wall_time
from gotrace.kernel.memory import PAGE
from gotrace.text import bytes_text

_LINE = "{:>8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>6}"
_NAMES = ("cycle", "RSS", "swapped", "live", "heap end", "goal", "MAF")


def run(pid: int, duration: int, format_: str, output: str | None, force: bool, screen: TextIO) -> None:
    """Watch for ``duration`` nanoseconds, or until Ctrl-C or the process ends, and print. Raises GotraceError."""
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(watching(pid, ("gc", "rss")))
        tracing, stop, name = target.tracing, target.stop, target.name
        gc, rss = target.modules
        kind = rss.PROBE.kinds[0].number
        file = None
        if output is not None:
            file = Sink(created(output, force), output)
            stack.callback(file.close)
        begin = time.monotonic_ns()
        header = tracing.header(begin)
        decoder = gc.decoder(header, tracing.static_text)
        resident: dict[int, tuple[int, int]] = {}
        found: list[dict[str, Any]] = []
        if format_ == "table":
            print(_LINE.format(*_NAMES), file=screen)
        ended = False
        while not ended:
            left = begin + duration - time.monotonic_ns()
            ended = tracing.wait(max(0, min(left, POLL_NS)) / 1e9) or stop.signal is not None or left <= 0
            events = tracing.read()
            for cycle, *pages in events[events["kind"] == kind][["a", "b", "c", "d", "e"]].tolist():
                resident[cycle] = ((pages[0] + pages[1] + pages[3]) * PAGE, pages[2] * PAGE)
            new = list(_cycles(decoder.feed(events).cycles, resident, header["clock"]["wall_offset_ns"]))
            found += new
            for each in new:
                text = json.dumps(each) + "\n"
                if file is not None:
                    file.write(text)
                screen.write(text if format_ == "ndjson" else _line(each) + "\n")
            screen.flush()
            if file is not None:
                file.flush()
                complain_of(file)
        lost = tracing.lost
    if format_ == "table":
        for line in summary(found, name, lost):
            print(line, file=screen)


def _cycles(
    cycles: npt.NDArray[Any], resident: dict[int, tuple[int, int]], wall_offset_ns: int
) -> Iterator[dict[str, Any]]:
    """Each cycle with what was resident at its end; sizes in bytes."""
    for row in cycles:
        number = int(row["cycle"])
        if number not in resident or row["heap_live_bytes"] == UNKNOWN:
            continue
        rss, swapped = resident.pop(number)
        live = int(row["heap_live_bytes"])
        yield {
            "type": "cycle",
            "time": wall_time(int(row["time_ns"]), wall_offset_ns),
            "cycle": number,
            "rss_bytes": rss,
            "swapped_bytes": swapped,
            "heap_live_bytes": live,
            "heap_end_bytes": int(row["heap_end_bytes"]),
            "heap_goal_bytes": int(row["heap_goal_bytes"]),
            "amplification": round(rss / live, 4) if live else None,
        }


def _line(each: dict[str, Any]) -> str:
    sizes = (bytes_text(each[f"{name}_bytes"]) for name in ("rss", "swapped", "heap_live", "heap_end", "heap_goal"))
    factor = "-" if each["amplification"] is None else f"{each['amplification']:.2f}"
    return _LINE.format(each["cycle"], *sizes, factor)


def summary(found: list[dict[str, Any]], name: str, lost: int) -> Iterator[str]:
    """All cycles together."""
    factors = [each["amplification"] for each in found if each["amplification"] is not None]
    yield ""
    if not factors:
        yield f"{name}: no GC cycle ended meanwhile."
        return
    low, half, high = np.percentile(factors, (0, 50, 100)).tolist()
    rss = max(each["rss_bytes"] for each in found)
    yield (
        f"{name}: {len(found)} cycles, RSS / live heap {low:.2f} to {high:.2f}, median {half:.2f}; "
        f"largest RSS {bytes_text(rss)}"
    )
    if lost:
        yield f"{lost:,} events were LOST."
