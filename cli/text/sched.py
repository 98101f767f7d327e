"""`gotrace sched` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.cli.text.clock import clock, width
from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.text import count_text, duration_text, printable
from gotrace.views.sched import Scheduler
from gotrace.views.view import Record

HEADING_EVERY = 20

_LINE = (
    Column("goroutines", 10),
    Column("turns/s", 10, rank=2),
    Column("wait p50", 9),
    Column("p99", 9),
    Column("max", 9, rank=1),
    Column("queued", 7),
    Column("idle Ps", 7, rank=3),
    Column("CPUs", 5, rank=1),
    Column("no CPU", 6),
    Column("throttled", 9, rank=2),
)
_PS = (
    Column("P", 3),
    Column("running", 8),
    Column("slices/s", 10),
    Column("queued", 7),
    Column("max", 5, rank=3),
    Column("new thread/s", 13, rank=1),
    Column("new CPU/s", 10, rank=1),
    Column("where", left=True, gap=2, elastic=12),
)
_SHOWN = 0.005  # what would be 0 % is left out
_WHILE = {"world_stopped": "the world was stopped", "p_idle": "a P was idle", "ps_taken": "every P was taken"}


def columns(view: Scheduler) -> Sequence[Column]:
    return (Column("time", width(view.interval_ns)), *_LINE)


def line(view: Scheduler, record: Record) -> Row | None:
    if record["type"] != "sched_interval":
        return None
    seconds, latency, threads = record["length_ns"] / 1e9, record["latency"], record["threads"]
    queue, limits, goroutines = record["queue"], record["limits"], record["goroutines"]
    return (
        clock(record, view.interval_ns),
        "?" if goroutines is None else f"{goroutines['count']:,}",
        f"{record['turns'] / seconds:,.0f}",
        *(_ns(latency[name]) for name in ("p50_ns", "p99_ns", "max_ns")),
        f"{queue['local'] + queue['global']:.1f}",
        f"{record['statuses']['idle']:.1f}",
        f"{threads['ran_ns'] / record['length_ns']:.2f}",
        f"{threads['waited_ns'] / record['length_ns']:.2f}",
        _throttled(limits),
    )


def _throttled(limits: Record) -> str:
    if limits["throttled_ns"] is None:
        return "?"
    return "-" if limits["quota_cpus"] is None else duration_text(limits["throttled_ns"])


def _ns(value: int | None) -> str:
    return "-" if value is None else duration_text(value)


def summary(view: Scheduler) -> Iterator[str | Rows]:
    found = view.result
    yield ""
    if found is None:
        yield "It ended before anything was seen."
        return
    seconds, source = found["length_ns"] / 1e9, view.source
    yield (
        f"{source.name}: observed for {duration_text(found['length_ns'])}, {count_text(found['samples'], 'sample')}; "
        f"ended by: {source.end['ended']}"
    )
    yield from _limits(found["limits"])
    yield ""
    yield from _waits(found, seconds)
    yield ""
    yield Rows(_PS, [_p(each, seconds) for each in found["ps"]])
    statuses = ", ".join(f"{mean:.2f} {name}" for name, mean in found["statuses"].items() if mean or name != "syscall")
    yield f"Ps on average: {statuses}."
    classes = found["cpu_classes"]
    if classes is not None:
        busy = classes["total_ns"] - classes["idle_ns"]
        shares = ", ".join(
            f"{what} {classes[name] / busy:.1%}"
            for what, name in (("the program", "user_ns"), ("the collector", "gc_ns"), ("returning memory", "scavenge_ns"))
            if busy
        )
        yield f"Time in which Ps were not idle, up to the last GC cycle: {shares}."
    yield ""
    yield from _threads(found)
    yield from _goroutines(found, seconds)
    for what, reason in found["missing"].items():
        yield f"Not available: {what} ({reason})."
    if found["advice"]:
        yield ""
        yield from found["advice"]


def _limits(limits: Record) -> Iterator[str]:
    cpus = count_text(len(limits["cpus"]), "CPU")
    quota = "no CPU quota" if limits["quota_cpus"] is None else f"a quota of {limits['quota_cpus']:.3g} CPUs"
    if limits["throttled_ns"] is None:
        quota = "quota: ?"
    where = f" (of {printable(limits['limited_by'])})" if limits["limited_by"] else ""
    yield f"GOMAXPROCS {limits['gomaxprocs']}; {cpus} on {count_text(limits['cores'], 'core')}; {quota}{where}."


def _waits(found: Record, seconds: float) -> Iterator[str | Rows]:
    latency, queue = found["latency"], found["queue"]
    if not latency["samples"]:
        yield "No goroutine was seen waiting for a P."
    else:
        names = ("mean_ns", "p50_ns", "p90_ns", "p95_ns", "p99_ns", "p99.9_ns", "max_ns")
        heads = ("mean", "p50", "p90", "p95", "p99", "p99.9", "max")
        first = Column("runnable until running", 22, left=True)
        shown = [Column(name, 9, rank=rank) for name, rank in zip(heads, (1, 0, 3, 2, 0, 4, 0), strict=True)]
        yield Rows(
            (first, *shown),
            [(f"{found['turns'] / seconds:,.0f}/s", *(_ns(latency[name]) for name in names))],
        )
        yield (
            f"Goroutines waited {duration_text(found['waiting_ns'] / seconds)} per second for a P, summed over all "
            f"goroutines. "
            f"{count_text(latency['samples'], 'sample')}: the runtime records one wait in eight, to within 25% of its "
            f"length."
        )
    if latency["calls"]:
        calls = count_text(latency["calls"], "return")
        yield f"Not counted: {calls} from system calls, which this Go release records as waits of 0."
    yield (f"In run queues on average: {queue['local']:.2f} local, {queue['global']:.2f} global; max {queue['max']}.")
    if found["while_queued"]:
        shares = ", ".join(
            f"{share:.0%} while {_WHILE[why]}" for why, share in found["while_queued"].items() if share >= _SHOWN
        )
        yield f"Waits: {shares}."
    if found["mutex_wait_ns"] is not None:
        yield f"Mutex waits: {duration_text(found['mutex_wait_ns'] / seconds)} per second, summed over all goroutines."


def _p(each: Record, seconds: float) -> Row:
    cpus = ", ".join(f"CPU {cpu}: {share:.0%}" for cpu, share in each["cpus"].items() if share >= _SHOWN)
    rates = (each["slices"], each["moves"]["threads"], each["moves"]["cpus"])
    slices, threads, moved = (f"{count / seconds:,.1f}" for count in rates)
    return (
        each["p"],
        f"{each['running']:.1%}",
        slices,
        f"{each['queued']:.2f}",
        each["queued_max"],
        f">={threads}",
        f">={moved}",
        cpus or "-",
    )


def _threads(found: Record) -> Iterator[str]:
    threads, limits, length = found["threads"], found["limits"], found["length_ns"]
    ran, waited = threads["ran_ns"], threads["waited_ns"]
    share = f" ({waited / (ran + waited):.1%} of the time they needed one)" if ran + waited else ""
    yield (
        f"{count_text(threads['count'], 'thread')} ran for {duration_text(ran)} ({ran / length:.2f} CPUs), and were "
        f"runnable without a CPU for {duration_text(waited)}{share}; switched in {threads['switched']:,} times."
    )
    if limits["quota_cpus"] is not None and limits["throttled_ns"] is not None:
        yield (
            f"The quota throttled the group in {limits['throttled_periods']:,} of {limits['periods']:,} periods, for "
            f"{duration_text(limits['throttled_ns'])}, summed over CPUs."
        )
    cpus = found["cpus"]
    had = [("this process", ran), ("others", cpus["others_ns"]), ("idle", cpus["idle_ns"])]
    if cpus["stolen_ns"]:
        had.insert(2, ("taken by the hypervisor", cpus["stolen_ns"]))
    shares = ", ".join(f"{name} {ns / length:.2f}" for name, ns in had)
    yield f"Of its {count_text(len(limits['cpus']), 'CPU')}: {shares}."
    yield f"Ms on average: {threads['spinning']:.2f} spinning, {threads['idle']:.2f} idle."


def _goroutines(found: Record, seconds: float) -> Iterator[str]:
    there, created = found["goroutines"], found["created"]
    new = f"{created / seconds:,.1f} created per second"
    if there is None:
        yield f"Goroutines: ?; {new}."
        return
    states = ", ".join(f"{count:,} {state}" for state, count in list(there["states"].items())[:6])
    own = f"{there['system']:,} of them the runtime's own"
    yield f"{count_text(there['count'], 'goroutine')} at the end, {own}{f': {states}' if states else ''}; {new}."
