"""`gotrace gpumem` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.analysis.gpumem.layers import DIRECT, MAPPED, POOL, TORCH
from gotrace.cli.text.clock import clock, width
from gotrace.cli.text.layout import Column, Row, Rows, more_rows
from gotrace.records.gpumem import name_of
from gotrace.text import bytes_text, cost_text, count_text, duration_text, percent_text, printable
from gotrace.views.gpumem import GpuMemory
from gotrace.views.view import Record

HEADING_EVERY = 40
_LINE = (
    *(Column("live", 10), Column("reserved", 10), Column("fragmentation", 13), Column("requests", 9, rank=1)),
    *(Column("needed", 7, rank=3), Column("merge failures", 14), Column("refused", 8, rank=2), Column("OOM", 5)),
)
_SPACES = (
    Column("memory", left=True, elastic=16),
    *(Column("live", 10, gap=2), Column("reserved", 10, gap=2), Column("largest hole", 12, rank=1, gap=2)),
    *(Column("frag.", 6, gap=2), Column("worst", 6, rank=2, gap=2), Column("peak live", 10, rank=3, gap=2)),
    *(Column("requests", 8, gap=2), Column("needed", 6, rank=4, gap=2), Column("merge failures", 14, gap=2)),
    *(Column("refused reuse", 13, rank=5, gap=2), Column("OOM", 4, gap=2)),
)
_FAILED = (
    Column("why", left=True),
    *(Column("times", 6, gap=2), Column("size", 9, gap=2), Column("thread", 7, rank=2, gap=2)),
    *(Column("memory", left=True, gap=2, rank=1), Column("asked by", left=True, elastic=24, gap=2)),
)
_PROCESSES = (
    Column("process", left=True, elastic=24),
    *(Column("calls", 8, gap=2), Column("peak live", 10, gap=2), Column("peak reserved", 13, gap=2)),
    *(Column("merge failures", 14, gap=2), Column("refused reuse", 13, rank=1, gap=2), Column("OOM", 4, gap=2)),
)
_MOST_OTHERS, _MOST_DETAILED = 8, 4
_WHY = {
    "merge_failure": "merge failure",
    "refused_reuse": "refused reuse",
    "oom": "out of memory",
    "oom_by_fragmentation": "OOM by fragmentation",
}


def columns(view: GpuMemory) -> Sequence[Column]:
    return (Column("time", width(view.interval_ns)), *_LINE)


def line(view: GpuMemory, record: Record) -> Row | None:
    if record["type"] != "gpumem_interval" or not view.sees:
        return None
    growths = record["growths"]
    return (
        *(clock(record, view.interval_ns), bytes_text(record["live"]), bytes_text(record["reserved"])),
        *(percent_text(record["fragmentation"]), f"{record['requests']:,}", f"{growths['needed']:,}"),
        *(f"{growths['merge_failure']:,}", f"{growths['refused_reuse']:,}", f"{record['ooms']:,}"),
    )


def summary(view: GpuMemory) -> Iterator[str | Rows]:
    results = view.results
    if not results:
        return
    first = results[0]
    yield ""
    ended = f"ended by: {view.source.end['ended']}"
    if len(results) > 1:
        calls = sum(map(_calls, results))
        yield (
            f"{first['target']}: {len(results)} processes made {count_text(calls, 'call')} for GPU memory in "
            f"{duration_text(first['watched_ns'])}; {ended}"
        )
        yield ""
        yield Rows(_PROCESSES, [_process(each) for each in results])
    for each in results[:_MOST_DETAILED]:
        yield ""
        yield from _details(view, each, ended if len(results) == 1 else "")
    if len(results) > _MOST_DETAILED:
        yield ""
        yield f"{more_rows(len(results), _MOST_DETAILED)} The files of -o have all of them."
    yield ""
    yield from _trust(first)
    yield f"cost: {cost_text(view.source.end['cost'], first['watched_ns'])}"


def _name(result: Record) -> str:
    return f"pid {result['pid']} ({printable(result['exe'])})"


def _calls(result: Record) -> int:
    return sum(each["count"] for each in result["calls"].values())


def _process(result: Record) -> Row:
    spaces = result["spaces"]
    return (
        *(_name(result), f"{_calls(result):,}", bytes_text(result["peak_live"])),
        _size(result["peak_reserved"], any(each["at_least"] for each in spaces)),
        *(f"{sum(each['growths'][name] for each in spaces):,}" for name in ("merge_failure", "refused_reuse")),
        f"{sum(each['ooms'] for each in spaces):,}",
    )


def _details(view: GpuMemory, result: Record, ended: str) -> Iterator[str | Rows]:
    calls = count_text(_calls(result), "call")
    if ended:
        yield f"{_name(result)}: {calls} for GPU memory in {duration_text(result['watched_ns'])}; {ended}"
    else:
        yield f"{_name(result)}: {calls}"
    if result["nested"]:
        yield f"{count_text(result['nested'], 'call')} from the runtime to the driver: the same memory, counted once."
    if not result["spaces"]:
        yield "Nothing was allocated, and nothing freed."
    else:
        live, reserved = bytes_text(result["peak_live"]), bytes_text(result["peak_reserved"])
        least = "at least " if any(each["at_least"] for each in result["spaces"]) else ""
        yield f"Peak in total, allocated since tracing began: {live} live, {least}{reserved} reserved."
        yield ""
        yield Rows(_SPACES, [_space(each) for each in result["spaces"]])
        if notes := list(_notes(result)):
            yield ""
            yield from notes
    if result["failed"]:
        yield ""
        yield Rows(_FAILED, [_failed(each) for each in result["failed"][: view.top]])
        if len(result["failed"]) > view.top:
            yield more_rows(len(result["failed"]), view.top)
    if result["advice"]:
        yield ""
        for each in result["advice"]:
            yield f"Advice: {each}."


def _size(value: int | None, least: bool = False) -> str:
    return "?" if value is None else f"{'>=' if least and value else ''}{bytes_text(value)}"


def _share(value: float | None) -> str:
    return "?" if value is None else percent_text(value)


def _space(each: Record) -> Row:
    growths, ooms = each["growths"], f"{each['ooms']:,}"
    told = each["kind"] not in (DIRECT, MAPPED)
    return (
        *(name_of(each), _size(each["live"]), _size(each["reserved"], each["at_least"]), _size(each["largest_hole"])),
        *(_share(each["fragmentation"]), _share(each["worst_fragmentation"]), _size(each["peak_live"])),
        f"{each['requests']:,}",
        *(f"{growths[name]:,}" if told else "-" for name in ("needed", "merge_failure", "refused_reuse")),
        ooms,
    )


def _notes(result: Record) -> Iterator[str]:
    for each in result["spaces"]:
        name = name_of(each)
        if each["ooms_by_fragmentation"]:
            ooms = count_text(each["ooms_by_fragmentation"], "OOM")
            yield f"{name}: {ooms} BY FRAGMENTATION: enough was free, but in pieces."
        if each["too_small_share"]:
            share = percent_text(each["too_small_share"])
            yield f"{name}: {share} of the free memory is in holes too small for the largest 10% of requests."
        if each["adjacent"]:
            size = bytes_text(sum(pieces["bytes"] for pieces in each["adjacent"]))
            yield f"{name}: {size} long free in adjacent segments, which cannot be merged."
        if each["told_reserved"] is not None:
            told, seen = bytes_text(each["told_reserved"]), bytes_text(each["reserved_when_told"])
            yield f"{name}: the driver reported {told} reserved, when {seen} were known."
        if each["unknown_frees"]:
            yield f"{name}: {count_text(each['unknown_frees'], 'free')} of memory allocated before tracing, or unseen."
        if each["missed_frees"] > 0:
            yield f"{name}: {count_text(each['missed_frees'], 'block')} reused although no free was seen."
        if each["at_least"] and each["kind"] == TORCH:
            yield f"{name}: it has segments from before tracing, of which only later allocations are known."
    if any(each["at_least"] and each["kind"] == POOL for each in result["spaces"]):
        yield "For a pool, reserved is what it was seen to hand out and not take back. The driver may hold more, so some of"
        yield "the growth may not be real; it may also have returned some (release threshold), or merged holes by mapping."


def _failed(each: Record) -> Row:
    stack = " < ".join(map(printable, each["stack"])) or "?"
    return (_WHY[each["why"]], f"{each['count']:,}", bytes_text(each["size"]), each["tid"], name_of(each), stack)


def _trust(result: Record) -> Iterator[str]:
    """What was probed, since when, and what was not."""
    for each in result["libraries"]:
        what = printable(each["path"]) or "the executable"
        if each["functions"]:
            since = (
                "" if each["late_ns"] is None else f", probed at most {duration_text(each['late_ns'])} after it was mapped"
            )
            yield f"{what}: {count_text(len(each['functions']), 'function')}{since}"
        for name, reason in each["missing"]:
            yield f"Not probed: {printable(name)} ({printable(reason)})."
    others = result["others"]
    if not any(each["functions"] for each in result["libraries"]):
        yield "No CUDA library was mapped by the process or its children: nothing was probed."
    for each in others[:_MOST_OTHERS]:
        yield f"NOT TRACED: pid {each['pid']} ({printable(each['exe'])}): {printable(each['reason'])}."
    if len(others) > _MOST_OTHERS:
        yield f"NOT TRACED: {count_text(len(others) - _MOST_OTHERS, 'more process', 'more processes')}."
    if result["running"]:
        what = count_text(result["running"], "child process is", "child processes are")
        yield f"{what} still running: later requests are not included."
