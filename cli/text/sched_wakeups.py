"""What `gotrace sched --wakeups` adds, for people."""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.cli.text.clock import clock
from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.text import count_text, duration_text, printable
from gotrace.views.sched_wakeups import SchedulerWakeups
from gotrace.views.view import Record

TELLS_LOST = True

_PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9", "max")
_ROWS = (
    Column("a goroutine", 26, left=True),
    Column("count", 10),
    *(Column(name, 9, rank=rank) for name, rank in zip(_PERCENTILES, (0, 3, 1, 0, 4, 2), strict=True)),
)
_LONGEST = (Column("ran at", 12), Column("goroutine", 10), Column("on P", 5), Column("waited", 9))
_EXPLAINED = (*_LONGEST, Column("P held by", left=True, elastic=30, gap=2))
_MOST_NAMED = 4
_LITTLE = 0.05  # of a wait: what is less is not worth a word


def line(view: SchedulerWakeups, record: Record) -> Row | None:
    return None


def summary(view: SchedulerWakeups) -> Iterator[str | Rows]:
    found = view.result
    waited, moves, seconds = found["waited"], found["moves"], found["length_ns"] / 1e9
    yield ""
    yield f"Individual goroutines, over {duration_text(found['length_ns'])}:"
    yield ""
    rows: list[Row] = []
    if waited["count"]:
        times = (duration_text(waited[f"{name}_ns"]) for name in _PERCENTILES)
        rows.append(("waited for a P (1 of 8)", f"{waited['count']:,}", *times))
    if moves["count"]:
        times = (duration_text(moves["stays"][f"{name}_ns"]) for name in _PERCENTILES)
        rows.append(("stayed on one P for", f"{moves['count']:,}", *times))
        rows.append(("turns on that P", f"{moves['count']:,}", *(f"{moves['turns'][name]:,}" for name in _PERCENTILES)))
    if rows:
        yield Rows(_ROWS, rows)
    if moves["count"]:
        yield (
            f"{count_text(moves['goroutines'], 'goroutine')} moved to another P, "
            f"{moves['count'] / seconds:,.1f} times per second."
        )
    elif "moves" not in found["missing"]:
        yield "No goroutine moved to another P."
    if found["longest"]:
        yield ""
        rows = [(clock(each, 1), each["goid"], each["p"], duration_text(each["wait_ns"])) for each in found["longest"]]
        if view.explain:
            rows = [(*row, _who(each)) for row, each in zip(rows, found["longest"], strict=True)]
        yield Rows(_EXPLAINED if view.explain else _LONGEST, rows)
        yield ""
    for what, reason in found["missing"].items():
        yield f"Not available: {what} ({reason})."
    yield f"{count_text(found['lost'], 'event')} lost."


def _who(wait: Record) -> str:
    """Who had the P for which a goroutine waited."""
    if "had_p" not in wait:
        return "-"
    least = _LITTLE * wait["wait_ns"]
    shown = [each for each in wait["had_p"][:_MOST_NAMED] if each["held_ns"] >= least]
    told = [_part(each, least) for each in shown]
    rest = wait["wait_ns"] - sum(each["held_ns"] for each in shown) - wait["unknown_ns"]
    if rest >= least:
        told.append(f"others {duration_text(rest)}")
    if wait["unknown_ns"] >= least:
        told.append(f"? {duration_text(wait['unknown_ns'])}")
    return ", ".join(told)


def _part(part: Record, least: float) -> str:
    if part["what"] == "stop":
        who = f"stopped world ({part['reason']})"
    elif part["what"] == "nobody":
        who = f"nobody ({part['reason'].replace('locked', 'for its locked')})"
    elif (part["function"] or "").startswith("runtime.gcBgMark"):  # since Go 1.23 by a wrapper in gcBgMarkStartWorkers
        who = "GC mark worker"
    else:
        who = f"{printable(part['function'] or '?')} (goroutine {part['goid']})"
    about = []
    if part["taken"]:
        about.append("in a system call, P taken")
    if part["throttled_ns"] >= least:
        about.append(f"no CPU for {duration_text(part['throttled_ns'])}: quota")
    others = part["no_cpu_ns"] - part["throttled_ns"]
    if others >= least:
        name = max(part["behind"], key=lambda name: part["behind"][name])
        about.append(f"no CPU for {duration_text(others)}: {name or 'idle'}")
    return f"{who} {duration_text(part['held_ns'])}" + (f" [{'; '.join(about)}]" if about else "")
