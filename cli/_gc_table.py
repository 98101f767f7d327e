"""The table of `gotrace gc`: a line per interval while it runs, and the summary at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from gotrace.analysis.causes import UNKNOWN, Explainer, Explanation, class_sums, sentence
from gotrace.analysis.gc_summary import PERCENTILES, GcSummary, percentiles
from gotrace.text import Stream, bytes_text, duration_text, printable

if TYPE_CHECKING:
    from typing import IO

    from gotrace.analysis.histogram import Histogram

_HEADER_EVERY = 20
_SUMMARY_WIDTH = 125
_LIVE = "{:>8}  {:>6}  {:>6}  {:>8}  {:>8}  {:>8}  {:<22} {:>9}  {:>9}  {:>5}"
_LIVE_NAMES = ("time", "GC/s", "pauses", "p50", "p99", "max", "longest", "heap live", "goal", "lost")


class Table:
    """Writes for people; to a terminal with colours and boxes, to a file or pipe without."""

    def __init__(self, file: Stream) -> None:
        self._file = file
        self._lines = 0

    def start(self) -> None:
        self._file.flush()

    def interval(self, summary: GcSummary, length_ns: int, lost: int, end: float) -> None:
        """A line for one interval, which ended at ``end``, seconds since 1970."""
        if self._lines % _HEADER_EVERY == 0:
            self._print(_LIVE.format(*_LIVE_NAMES))
        self._lines += 1
        pauses = summary.all_pauses()
        longest = max(summary.pauses.items(), key=lambda item: item[1]["total"].max, default=("-", {}))[0]
        times = ["-"] * 3
        if pauses.count:
            times = [duration_text(value) for value in (*percentiles(pauses, (50.0, 99.0)), pauses.max)]
        heap = [_heap_text(summary.last_heap[name]) if summary.last_heap else "-" for name in ("live", "goal")]
        rate = f"{summary.cycles * 1e9 / length_ns:.1f}"
        clock = time.strftime("%H:%M:%S", time.localtime(end))
        self._print(_LIVE.format(clock, rate, pauses.count, *times, longest[:22], *heap, lost))

    def summary(self, summary: GcSummary, about: dict[str, Any], header: dict[str, Any]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        console = Console(file=cast("IO[str]", self._file), highlight=False)
        console.width = max(console.width, _SUMMARY_WIDTH)  # numbers that wrap can be read, numbers that are cut cannot
        seconds = about["duration_ns"] / 1e9
        self._print("")
        table = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("stop reason / GC phase", no_wrap=True)
        table.add_column("part", no_wrap=True)
        names = ["count", "min", *(f"p{p:g}" for p in PERCENTILES), "max", "total", "share"]
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        previous = ""
        for reason, part, histogram in summary.rows():
            style = "bold" if part == "total" else ""
            cells = [Text(reason if reason != previous else ""), Text(part), *map(Text, _cells(histogram, about))]
            table.add_row(*cells, style=style)
            previous = reason
        if summary.pauses or summary.phases:
            console.print(table)
        else:
            self._print("No stop-the-world pause and no GC cycle in this time.\n")
        if summary.last_heap:
            heap = {name: _heap_text(value) for name, value in summary.last_heap.items()}
            self._print(
                f"GC cycles: {summary.cycles} ({summary.cycles / seconds:.1f}/s)   last heap: "
                f"{heap['start']} -> {heap['end']} -> {heap['live']} live, goal {heap['goal']}"
            )
        self._trust(about, header, seconds)

    def explanations(self, told: list[Explanation], explainer: Explainer, reasons: list[str], wall_offset_ns: int) -> None:
        """The longest pauses, each with its parts and a sentence."""
        self._print(f"\nThe {len(told)} longest pauses, and what they waited for:" if told else "\nNo pause to explain.")
        for number, each in enumerate(told, 1):
            stop = each.stop
            seconds, rest = divmod(stop.begin + wall_offset_ns, 10**9)
            clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 10**6:03}"
            self._print(
                f"\n{number:>3}. {duration_text(stop.length)} {reasons[stop.pause['reason']]}, at {clock}: {each.cause}\n"
                f"     {printable(sentence(each, explainer))}"
            )
            for part, pieces in (("stopping", each.stopping), ("stopped", each.stopped), ("restart", each.restart)):
                sums = sorted(class_sums(pieces).items(), key=lambda item: -item[1])
                length = duration_text(sum(ns for _, ns in sums))
                self._print(f"     {part:<9} {length:>8}  " + ", ".join(f"{kind} {duration_text(ns)}" for kind, ns in sums))
            if each.run_again:
                tid, after = each.run_again[0]
                count = len(each.run_again)
                self._print(f"     after it, the last of {count} threads it woke ran {duration_text(after)} later ({tid})")
        total = sum(each.stop.length for each in told)
        unknown = sum(each.classes().get(UNKNOWN, 0) for each in told)
        if told:
            self._print(f"\nunknown: {unknown / max(1, total):.2%} of these {duration_text(total)}")
        if explainer.without_evidence:
            self._print(f"not seen from their beginning: {explainer.without_evidence} pauses")

    def _trust(self, about: dict[str, Any], header: dict[str, Any], seconds: float) -> None:
        """How far to trust these numbers."""
        events, cost = about["events"], about["cost"]
        points = [point for probe in header["probes"].values() for point in probe["points"]]
        stepped = sum(not point["emulated"] for point in points)
        kind = "all on emulated instructions" if not stepped else f"{stepped} single-stepped"
        share = cost["target_ns_estimate"] / max(1, about["duration_ns"])
        self._print(
            f"trust: {len(points)} probes ({kind}), events {events['received']} received, {events['lost']} lost; "
            f"clock: {header['probes']['gc']['facts']['clock']}"
        )
        self._print(
            f"cost: {cost['probe_hits']} probe hits, about {duration_text(cost['target_ns_estimate'])} of the target's "
            f"time ({share:.4%}); gotrace {cost['tool_cpu_s']:.2f} s CPU, {bytes_text(cost['tool_rss_bytes'])}; "
            f"ready after {duration_text(about['attach_ns'])}; {seconds:.1f} s, ended by: {about['ended']}"
        )
        for probe in header["probes"].values():
            for item in probe["missing"]:
                self._print(f"missing: {item['name']}: {item['reason']}")

    def _print(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()


def _heap_text(size: int) -> str:
    """A size; the goal of a collector that is turned off (GOGC=off) is as good as infinite."""
    return "off" if size < 0 or size >= 1 << 60 else bytes_text(size)


def _cells(histogram: Histogram, about: dict[str, Any]) -> list[str]:
    values = [histogram.min, *percentiles(histogram), histogram.max, histogram.sum]
    share = histogram.sum / max(1, about["duration_ns"])
    return [str(histogram.count), *map(duration_text, values), f"{share:.3%}"]
