"""`gotrace tlb`: what translating addresses cost a process, by phase of the collector."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gotrace.analysis.counted import PLACES, Counted, scaled, whole
from gotrace.analysis.phases import PhaseTimes
from gotrace.cli._watch import Live, Record, View
from gotrace.kernel import huge_pages, tlb_reach
from gotrace.kernel.memory import PAGE, Memory
from gotrace.kernel.tlb_events import MEANING
from gotrace.text import bytes_text, duration_text, printable

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

# A stretch is put into phases once these are known: at the end, or after this time (a mark phase is told at its end).
_SETTLED_NS = 60_000_000_000
_WAITING = 1 << 21  # events

# enum tlb_flush_reason of include/linux/mm_types.h
_REASONS = (
    "task switch",
    "remote shootdown",
    "local shootdown",
    "local mm shootdown",
    "remote IPI send",
    "remote wrong CPU",
)
_ALL_PAGES = (1 << 64) - 1
_SUCCEEDED = 1  # enum scan_result of mm/khugepaged.c: SCAN_SUCCEED
_NOT_LOOKED: Record = {"flushes_left_out": 0, "splits": {}, "pages": [], "tlb": None, "reach": []}
_INSTRUCTIONS = ("instructions", "inst_retired")


class Translation(View):
    """Counts by place, and the rest that tells of it. ``missing`` is what this host cannot count, and why.

    There is a record of what was counted in every ``interval_ns`` (0: none).
    """

    name = "tlb"
    stems = ("gc", "tlb")

    def __init__(self, missing: Sequence[Sequence[str]] = (), interval_ns: int = 0) -> None:
        self._missing = [list(each) for each in missing]
        self._interval_ns = interval_ns
        self._told_ns = 0
        self._since = _Since(0)
        self._phases = PhaseTimes()
        self._waiting: list[Events] = []
        self._held = 0
        self._counted: Counted | None = None
        self._flushes: dict[str, dict[str, int]] = {}
        self._collapses = {"succeeded": 0, "failed": 0}
        self._unseen = {"times": 0, "at_most_ns": 0}
        self._begin: Record = {}
        self._result: Record = {}

    @property
    def options(self) -> Record:
        return {"missing": self._missing, "interval_ns": self._interval_ns}

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        assert batch is not None
        source = self.source
        if self._counted is None:
            self._counted = Counted.empty(len(source.header["counters"]))
            self._begin = source.ask("splits so far", huge_pages.splits) or {}
            self._since = _Since(len(source.header["counters"]))
            self._told_ns = source.begin_ns
        self._phases.add(batch)
        stretch, counted, flush, collapse, unseen = (
            source.kind("tlb", name) for name in ("stretch", "counted", "flush", "collapse", "unseen")
        )
        mine = events[(events["kind"] == stretch) | (events["kind"] == counted)]
        self._waiting.append(mine)
        self._held += len(mine)
        if self._held > _WAITING:
            self._settle(source.now_ns - _SETTLED_NS)
        self._add_flushes(events[events["kind"] == flush])
        status = events["a"][events["kind"] == collapse]
        self._collapses["succeeded"] += int((status == _SUCCEEDED).sum())
        self._collapses["failed"] += int((status != _SUCCEEDED).sum())
        came = events[events["kind"] == unseen]
        self._unseen["times"] += len(came)
        self._unseen["at_most_ns"] += int((came["time_ns"] - came["a"]).sum())
        if self._interval_ns:
            self._since.add(mine[mine["kind"] == stretch], mine[mine["kind"] == counted], events[events["kind"] == flush])
            length = source.now_ns - self._told_ns
            if length >= self._interval_ns or source.last:
                yield self._interval(length)

    def _interval(self, length: int) -> Record:
        source, since = self.source, self._since
        self._since = _Since(len(source.header["counters"]))
        self._told_ns = source.now_ns
        return {
            "type": "tlb_interval",
            "time": (source.now_ns + source.wall_offset_ns) / 1e9,
            "length_ns": length,
            "ran_ns": since.ran_ns,
            "flushes": since.flushes,
            "counts": dict(zip(source.header["counters"], since.counts(), strict=True)),
        }

    def heading(self) -> str:
        return self._line("time", "on CPU", "flushes", *(f"{printable(each)}/s" for each in self.source.header["counters"]))

    def line(self, record: Record) -> str:
        if record["type"] != "tlb_interval":
            return ""
        ran = record["ran_ns"]
        clock = time.strftime("%H:%M:%S", time.localtime(record["time"]))
        rates = (_rate(count, ran) for count in record["counts"].values())
        return self._line(clock, duration_text(ran), f"{record['flushes']:,}", *rates)

    def _line(self, *cells: str) -> str:
        widths = [8, 10, 10, *(max(14, len(printable(each)) + 2) for each in self.source.header["counters"])]
        return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))

    def _settle(self, until_ns: int) -> None:
        assert self._counted is not None
        events = np.concatenate(self._waiting)
        old = events["time_ns"] <= until_ns
        settled = events[old]
        stretch = settled["kind"] == self.source.kind("tlb", "stretch")
        self._counted.add(settled[stretch], settled[~stretch], self._phases.windows())
        self._waiting = [events[~old]]
        self._held = len(self._waiting[0])

    def _add_flushes(self, flushes: Events) -> None:
        for number in np.unique(flushes["a"]).tolist():
            pages = flushes["b"][flushes["a"] == number]
            reason = _REASONS[number] if number < len(_REASONS) else f"reason {number}"
            sums = self._flushes.setdefault(reason, {"flushes": 0, "pages": 0, "whole": 0})
            whole = pages == np.uint64(_ALL_PAGES)
            sums["flushes"] += len(pages)
            sums["whole"] += int(whole.sum())
            sums["pages"] += int(pages[~whole].sum())

    def _looked(self) -> Record:
        """What can be told at the end: splits so far, resident bytes by size of page, and this processor's TLB."""
        source = self.source
        assert isinstance(source, Live)
        rollup = Memory(source.process.pid).rollup()
        huge = sum(rollup.get(name, 0) for name in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"))
        setting = huge_pages.setting()
        pages = {PAGE: rollup["Rss"] - huge} | ({setting.size: huge} if setting is not None else {})
        tlb = tlb_reach.processor()
        assert source.tracing is not None
        return {
            # an interrupt's flush, while another was told of
            "flushes_left_out": source.tracing.parts["tlb"].left_out("on_tracepoint__tlb_flush"),
            "splits": huge_pages.splits(),
            "pages": [list(each) for each in pages.items()],
            "tlb": dataclasses.asdict(tlb) if tlb is not None else None,
            "reach": [dataclasses.asdict(each) for each in tlb_reach.reach(tlb, pages)] if tlb is not None else [],
        }

    def end(self) -> Iterator[Record]:
        assert self._counted is not None
        source = self.source
        looked = source.ask("translation", self._looked) or _NOT_LOOKED
        self._settle(1 << 62)
        counted, totals = self._counted, self._counted.scaled()
        ran = float(counted.ran_ns.sum())
        counters = []
        for number, event in enumerate(source.header["counters"]):
            enabled = float(counted.enabled_ns[number].sum())
            counts = {place: whole(value) for place, value in zip(PLACES, totals[number].tolist(), strict=True)}
            counters.append(
                {
                    "event": event,
                    "meaning": MEANING.get(event, ""),
                    "total": sum(value for value in counts.values() if value is not None),
                    "running_share": float(counted.running_ns[number].sum()) / enabled if enabled else None,
                    "phases": counts,
                }
            )
        self._result = {
            "type": self.name,
            "target": source.name,
            "watched_ns": source.now_ns - source.begin_ns,
            "phases_ns": dict(zip(PLACES, (round(each) for each in counted.ran_ns.tolist()), strict=True)),
            "unseen": self._unseen,
            "divided_share": counted.minor_ns / ran if ran else 0.0,
            "counters": counters,
            "missing": self._missing,
            "flushes": self._flushes,
            "flushes_left_out": looked["flushes_left_out"],
            "collapses": self._collapses,
            "splits_of_the_machine": {
                name: count - self._begin[name] for name, count in looked["splits"].items() if name in self._begin
            },
            "pages": looked["pages"],
            "processor": looked["tlb"],
            "reach": looked["reach"],
            "lost": source.lost,
        }
        yield self._result

    def summary(self) -> Iterator[str]:
        yield from table(self._result)


class _Since:
    """What was counted since the last interval ended, for all phases together."""

    def __init__(self, counters: int) -> None:
        self.ran_ns = self.flushes = 0
        self._sums = np.zeros((3, counters))  # counts, time enabled, time counting

    def add(self, stretches: Events, counted: Events, flushes: Events) -> None:
        self.ran_ns += int(stretches["b"].sum())
        self.flushes += len(flushes)
        numbers = (counted["b"] & np.uint64(0xFF)).astype(np.int64)
        for sums, column in zip(self._sums, "cde", strict=True):
            np.add.at(sums, numbers, counted[column].astype(np.float64))

    def counts(self) -> list[int | None]:
        """By counter."""
        return [whole(value) for value in scaled(*self._sums).tolist()]


def table(result: Record) -> Iterator[str]:
    """The result for people, a line each."""
    ran = result["phases_ns"]
    total_ns = sum(ran.values())
    yield ""
    on_cpu = f"{duration_text(total_ns)} on CPU"
    yield f"{result['target']}, watched for {duration_text(result['watched_ns'])}: {on_cpu}"
    yield ""
    shown = [place for place in PLACES if ran[place]]
    yield _row("", [*shown, "all"])
    yield _row("on CPU", [*(duration_text(ran[place]) for place in shown), duration_text(total_ns)])
    instructions = next((each for each in result["counters"] if each["event"] in _INSTRUCTIONS and each["total"]), None)
    for each in result["counters"]:
        phases = each["phases"]
        yield _row(printable(each["event"]), [_count(phases[place]) for place in shown] + [_count(each["total"])])
        if instructions is not None and each is not instructions:
            per = [_per(phases[place], instructions["phases"][place]) for place in shown]
            yield _row("  per 1000 instructions", [*per, _per(each["total"], instructions["total"])])
        else:
            rates = [_rate(phases[place], ran[place]) for place in shown]
            yield _row("  a second on CPU", [*rates, _rate(each["total"], total_ns)])
    partly = [each for each in result["counters"] if each["running_share"] is not None and each["running_share"] < 0.999]
    if partly:
        words = ", ".join(f"{printable(each['event'])} {each['running_share']:.0%}" for each in partly)
        yield f"There are fewer counters than events, so these were counted part of the time and scaled up: {words}."
        yield "What such a one says of a phase of milliseconds is an estimate; ask for fewer (-e)."
    unseen = result["unseen"]
    if unseen["times"]:
        most = duration_text(unseen["at_most_ns"])
        yield f"{unseen['times']:,} switches of a thread were not told by the kernel: up to {most} on CPU is missing."
    if result["divided_share"] >= 0.001:
        yield f"{result['divided_share']:.1%} of the time was divided between phases by their length alone."
    for what, why in result["missing"]:
        yield f"Not counted: {printable(what)} ({printable(why)})."
    yield from _rest(result)


def _rest(result: Record) -> Iterator[str]:
    """What can be told without counters."""
    yield ""
    if result["flushes"]:
        for reason, sums in sorted(result["flushes"].items(), key=lambda item: -item[1]["flushes"]):
            whole = f", {sums['whole']:,} of the whole TLB" if sums["whole"] else ""
            yield f"TLB flushes, {printable(reason)}: {sums['flushes']:,} ({sums['pages']:,} pages{whole})"
        if result["flushes_left_out"]:
            yield f"TLB flushes that came while another was told of, and are not in these: {result['flushes_left_out']:,}"
    else:
        yield "TLB flushes: none was told of (ARM64 flushes by broadcast, and its kernel tells of none)."
    collapses, splits = result["collapses"], result["splits_of_the_machine"]
    split = ", ".join(f"{name} {count:,}" for name, count in splits.items())
    yield (
        f"Huge pages: {collapses['succeeded']:,} were made of small ones ({collapses['failed']:,} attempts failed)"
        + (f"; split on the whole machine: {split}." if split else ".")
    )
    sizes = ", ".join(f"{bytes_text(size)} in pages of {bytes_text(page)}" for page, size in result["pages"] if size)
    if sizes:
        yield f"Resident: {sizes}."
    processor = result["processor"]
    if processor is None:
        yield "How much this processor's TLB can map at once is not in gotrace's table."
        return
    for each in result["reach"]:
        if each["share"] is not None:
            yield (
                f"{processor['name']}: its second-level TLB can map {each['share']:.1%} of what is in pages of "
                f"{bytes_text(each['page'])} at once, at most."
            )


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:<24}" + "".join(f" {cell:>16}" for cell in cells)


def _count(value: int | None) -> str:
    return "not counted" if value is None else f"{value:,}"


def _per(value: int | None, instructions: int | None) -> str:
    return "-" if value is None or not instructions else f"{value * 1000 / instructions:.3g}"


def _rate(value: int | None, ran_ns: int) -> str:
    return "-" if value is None or not ran_ns else f"{value * 1e9 / ran_ns:,.0f}"
