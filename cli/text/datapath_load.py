"""`gotrace datapath replay` for people: the load curve, and what became of a replay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.text import bytes_text, count_text, duration_text, percent_text, printable
from gotrace.views.datapath_load import DataPathLoad
from gotrace.views.view import Record

if TYPE_CHECKING:
    from gotrace.lab.replay import Material

TELLS_LOST = True

_BAR = 20
_CURVE = (
    *(Column("from", 8), Column("reads/s", 9), Column("writes/s", 9), Column("syncs/s", 8, rank=3)),
    *(Column("metadata/s", 10), Column("read MiB/s", 10, rank=1), Column("written MiB/s", 13, rank=2)),
    *(Column("in flight", 9), Column("most", 5, rank=4), Column("p99", 8), Column("calls", _BAR, left=True, rank=5, gap=2)),
)
_CALLS = (
    *(Column("call", 12, left=True), Column("recorded", 9), Column("replayed", 9), Column("failed", 7, rank=2)),
    *(Column("p50 then", 9), Column("p50 now", 9), Column("p99 then", 9), Column("p99 now", 9)),
)
_KINDS = ("reads", "writes", "syncs", "metadata")


def line(view: DataPathLoad, record: Record) -> Row | None:
    return None


def summary(view: DataPathLoad) -> Iterator[str | Rows]:
    result = view.result
    parts = ", ".join(
        f"{name} {duration_text(result[f'{name}_ns'])} ({sum(each[name] for each in result['intervals']):,} calls)"
        for name in _KINDS
    )
    yield (
        f"{result['target']}: {count_text(result['calls'], 'call')} on files in {duration_text(result['watched_ns'])} "
        f"({count_text(result['threads'], 'thread')})"
    )
    yield f"{parts}; left out: {count_text(result['other_calls'], 'call')} on pipes, sockets and devices"
    yield ""
    most = max((_calls(each) / each["length_ns"] for each in result["intervals"]), default=0)
    begin_ns = result["intervals"][0]["monotonic_ns"]
    yield Rows(_CURVE, [_interval(each, begin_ns, most) for each in result["intervals"]])
    yield (
        f"Intervals of {duration_text(result['width_ns'])}. A call counts in the interval in which it begins; in flight is "
        "the mean number of concurrent calls, most the maximum."
    )
    if result["lost"]:
        yield f"{count_text(result['lost'], 'event')} LOST: the true load was higher."


def _calls(interval: Record) -> int:
    return sum(interval[name] for name in _KINDS)


def _interval(each: Record, begin_ns: int, most: float) -> Row:
    seconds = each["length_ns"] / 1e9
    return (
        duration_text(each["monotonic_ns"] - begin_ns),
        *(_rate(each[name], seconds) for name in _KINDS),
        *(_rate(each[name] / (1 << 20), seconds) for name in ("read_bytes", "written_bytes")),
        f"{each['in_flight']:.2f}",
        each["most_in_flight"],
        duration_text(each["p99_ns"]) if each["p99_ns"] is not None else "-",
        "█" * round(_BAR * _calls(each) / each["length_ns"] / most) if most else "",
    )


def _rate(count: float, seconds: float) -> str:
    rate = count / seconds
    return "-" if not count else f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def material(of: Material, cold: bool) -> Iterator[str]:
    """What a replay is going to make, and how close that is to what was recorded."""
    made = f"{count_text(of.files, 'file')} and {count_text(of.folders, 'folder')}"
    yield (
        f"Replay: {count_text(len(of.operations), 'call')} by {count_text(of.workers, 'process', 'processes')}, on {made}; "
        f"{bytes_text(of.filled)} {'are left empty' if of.sparse else 'are written'} first, the calls write up to "
        f"{bytes_text(of.written)} more."
    )
    yield (
        "Assumed, because it was not recorded: files are read and written sequentially from the start, except where lseek "
        "was seen; all files are in one directory."
    )
    if direct := int(of.operations["direct"].sum()):
        yield f"O_DIRECT when recorded, through the page cache now: {count_text(direct, 'call')}."
    state = "their pages are dropped first" if cold else "they have just been written, so whatever fits into memory is warm"
    cold_reads, reads = of.cold_reads
    yield f"Page cache: {cold_reads:,} of {count_text(reads, 'read')} missed it when recorded; now {state}."
    if of.sparse:
        yield "Sparse: reads return holes, and never reach a disk."


def replayed(result: Record) -> Iterator[str | Rows]:
    """The result of a replay."""
    speed = "without waiting" if result["speed"] is None else f"at {result['speed']:g} times the speed"
    yield (
        f"{result['target']}: {result['replayed']:,} of {count_text(result['recorded'], 'call')} on files replayed {speed} "
        f"in {duration_text(result['took_ns'])}; ended by: {result['ended']}"
    )
    if result["speed"] is not None and result["late"]["count"]:
        late = result["late"]
        times = ", ".join(f"{name} {duration_text(late[f'{name}_ns'])}" for name in ("p50", "p99", "max"))
        yield f"Late: {times}."
    if result["resident"] is not None:
        yield f"In the page cache at the start: {percent_text(result['resident'])} of the files' pages."
    yield ""
    yield Rows(_CALLS, [_call(each) for each in result["calls"]])
    own = duration_text(result["overhead_ns"])
    yield f"Recorded times were taken in the kernel; each replayed time includes about {own} of the replay's own."
    for each in result["left_out"]:
        yield f"Not replayed: {count_text(each['calls'], 'call')} of {printable(each['call'])}: {each['why']}."
    yield f"Not replayed: {count_text(result['other_calls'], 'call')} on pipes, sockets and devices."
    if result["not_reached"]:
        yield f"NOT REACHED: {count_text(result['not_reached'], 'call')}."
    if result["failed"]:
        yield f"FAILED: {count_text(result['failed'], 'call')} did not have their recorded result."


def _call(each: Record) -> Row:
    times = (of.get(f"{name}_ns") for name in ("p50", "p99") for of in (each["then"], each["now"]))
    return (
        each["call"],
        f"{each['recorded']:,}",
        f"{each['replayed']:,}",
        f"{each['failed']:,}",
        *("-" if ns is None else duration_text(ns) for ns in times),
    )
