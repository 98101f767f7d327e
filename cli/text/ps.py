"""`gotrace ps`, for people."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

from gotrace.cli.text.layout import Column, Row, Rows, cut
from gotrace.cli.text.lines import write_json
from gotrace.cli.text.table import Table
from gotrace.find.processes import Scan
from gotrace.records.ps import Ps, PsPlace, PsProcess
from gotrace.run.files import Sink
from gotrace.text import bytes_text, count_text, duration_text, printable

_COLUMNS = (
    Column("pid"),
    Column("name", left=True, elastic=12, gap=2),
    Column("Go", left=True, rank=6, gap=2),
    Column("where", left=True, elastic=16, rank=2, gap=2),
    Column("used", rank=4, gap=2),
    Column("CPUs", rank=7),
    Column("Ps", rank=3),
    Column("quota", rank=5),
    Column("RSS", rank=1, gap=2),
    Column("live heap", rank=1, gap=2),
    Column("GC/s", rank=1, gap=2),
    Column("longest", rank=2, gap=2),
    Column("age", rank=8, gap=2),
    Column("symbols", left=True, rank=9, gap=2),
)
_MOST_NAMED = 8
_LONGEST = 40  # of a name, in characters: where there is no terminal, nothing else bounds it
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def summary(scan: Scan, shown: int, wait_s: float | None) -> Ps:
    """The last record."""
    return {
        "type": "ps",
        "seen": scan.seen,
        "go": len(scan.processes),
        "shown": shown,
        "wait_s": wait_s,
        "unreadable": len(scan.unreadable),
        "unreadable_pids": scan.unreadable,
    }


def write(stream: Sink, format_: str, processes: Sequence[PsProcess], summary: Ps, unanswered: str = "") -> None:
    """In one of `gotrace.export.formats.PROCESSES`. ``unanswered``: why no agent could be asked; "" if one was."""
    if not write_json(stream, format_, [*map(_harmless, processes), summary]):
        Table(stream).print(_lines(processes, summary, unanswered))


def _harmless(process: PsProcess) -> dict[str, object]:
    """As JSON: bytes that are not UTF-8 would not survive it."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in process.items()}


def _lines(processes: Sequence[PsProcess], summary: Ps, unanswered: str = "") -> Iterator[str | Rows]:
    if processes:
        yield Rows(_COLUMNS, [_row(each, bool(unanswered)) for each in processes])
        since = (
            f"over {summary['wait_s']:g} s"
            if summary["wait_s"]
            else "since each process started (-w 2s measures the next 2 s)"
        )
        yield f"CPUs used and GC/s: averages {since}."
        if traced := [each["traced_s"] for each in processes if each["traced_s"] is not None]:
            yield f"Longest pause: since the agent began tracing the process, {_age(min(traced))} ago or more."
        if unanswered:
            yield f"Longest pause: unknown without an agent: {unanswered} (--connect URL)."
    else:
        yield "No Go processes found."
    for each in processes:
        if each["refusal"]:
            hint = f" ({printable(each['hint'])})" if each["hint"] else ""
            yield f"{each['pid']} cannot be traced: {printable(each['refusal'])}{hint}."
    yield from _unknown(processes)
    if summary["unreadable"]:
        of = f"{summary['unreadable']:,} of {count_text(summary['seen'], 'process', 'processes')}"
        why = "run as root" if os.geteuid() else f"pid {_some(summary['unreadable_pids'])}"
        yield f"{of} could not be inspected ({why})."


def _unknown(processes: Sequence[PsProcess]) -> Iterator[str]:
    """Each reason once, with whom it is about."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for each in processes:
        if not each["refusal"]:
            for reason in dict.fromkeys(each["unknown"].values()):
                by_reason[reason].append(each["pid"])
    for reason, pids in by_reason.items():
        yield f"Unknown for {_some(pids)}: {printable(reason)}."


def _some(pids: Sequence[int]) -> str:
    more = f" and {len(pids) - _MOST_NAMED} more" if len(pids) > _MOST_NAMED else ""
    return f"{', '.join(map(str, pids[:_MOST_NAMED]))}{more}"


def _row(each: PsProcess, unasked: bool) -> Row:
    return [
        each["pid"],
        cut(printable(each["name"]), _LONGEST),
        (each["go_version"] or "?").removeprefix("go"),
        cut(where(each), 2 * _LONGEST),
        _number(each["cpus_used"]),
        _number(each["cpus"]),
        _number(each["gomaxprocs"]),
        "?" if "quota_cpus" in each["unknown"] else "-" if each["quota_cpus"] is None else _number(each["quota_cpus"]),
        "?" if each["rss_bytes"] is None else bytes_text(each["rss_bytes"]),
        "?" if each["heap_live_bytes"] is None else bytes_text(each["heap_live_bytes"]),
        _number(each["gc_per_s"]),
        _longest(each, unasked),
        _age(each["age_s"]),
        "stripped" if each["stripped"] else "yes",
    ]


def _longest(each: PsProcess, unasked: bool) -> str:
    if each["longest_pause_ns"] is None:
        return "?" if unasked or "longest_pause_ns" in each["unknown"] else "-"
    return duration_text(each["longest_pause_ns"])


def where(each: PsPlace) -> str:
    """Its pod, container, unit, or user, in this order; "-" where there is none."""
    container = each["container"] or (each["container_id"] or "")[:12]
    if each["pod"] or each["pod_uid"]:
        pod = f"{each['namespace'] or '?'}/{each['pod'] or each['pod_uid']}"
        return printable(f"{pod} ({container})" if container else pod)
    if container:
        return printable(f"{each['runtime']} {container}")
    if each["unit"]:
        return printable(each["unit"])
    return f"user {printable(each['user'])}" if each["user"] else "-"


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return str(value) if isinstance(value, int) else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _age(seconds: float) -> str:
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
