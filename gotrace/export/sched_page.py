"""What a scheduler did as one HTML page of charts, from the JSON records of `gotrace sched`."""

from __future__ import annotations

from collections.abc import Sequence

from gotrace.export.charts.page import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SAND,
    Page,
    Record,
    bar_chart,
    line,
    over_time,
    percent,
    solid,
    time_chart,
)
from gotrace.text import count_text, duration_text, printable

_STATUSES = {"running": BLUE, "syscall": PURPLE, "stopped": RED, "idle": SAND}
_WAITS = {"p50": GREEN, "p99": ORANGE, "max": RED}
_HEADS = ("mean", "p50", "p90", "p95", "p99", "p99.9", "max")


def page(title: str, records: Sequence[Record]) -> str:
    """The whole page, of the intervals and of the result among the records."""
    made = Page()
    intervals = [each for each in records if each["type"] == "sched_interval"]
    results = [each for each in records if each["type"] == "sched"]
    if results:
        _result(made, results[-1])
    if intervals:
        made.draw("Over time", over_time(intervals, _charts(intervals)))
    if results:
        _histogram(made, results[-1]["latency"]["buckets"])
        _tables(made, results[-1])
    else:
        made.say("There is nothing to draw.")
    for each in (each for each in records if each["type"] == "sched_events"):
        _events(made, each)
    for each in (each for each in records if each["type"] == "sched_wakeups"):
        _wakeups(made, each)
    return made.made(title)


def _result(made: Page, found: Record) -> None:
    latency, limits, threads, length = found["latency"], found["limits"], found["threads"], found["length_ns"]
    wanted = threads["ran_ns"] + threads["waited_ns"]
    made.tiles(
        [
            ("observed for", duration_text(length)),
            ("GOMAXPROCS", f"{limits['gomaxprocs']}"),
            ("CPU quota", "none" if limits["quota_cpus"] is None else f"{limits['quota_cpus']:.3g} CPUs"),
            ("wait for a P, p99", _ns(latency["p99_ns"])),
            ("threads without a CPU", percent(threads["waited_ns"] / wanted if wanted else None)),
        ]
    )
    for sentence in found["advice"]:
        made.say(sentence)


def _histogram(made: Page, buckets: Sequence[Record]) -> None:
    """By powers of two: the runtime's own buckets are in the JSON."""
    counts: dict[int | None, int] = {}
    for each in buckets:
        end = None if each["to_ns"] is None else 1 << (each["to_ns"] - 1).bit_length()
        counts[end] = counts.get(end, 0) + each["count"]
    if counts:
        longest = max((end for end in counts if end is not None), default=0)
        rows = [f"below {duration_text(end)}" if end is not None else f"{duration_text(longest)} or more" for end in counts]
        bars = [solid("bar", "waits", [*counts.values()], BLUE)]
        made.draw("How long goroutines were runnable before they ran", bar_chart(rows, bars, "waits, every eighth"))


def _charts(intervals: Sequence[Record]) -> list[Record]:
    def of(part: str, name: str) -> list[float]:
        return [each[part][name] for each in intervals]

    def cpus(part: str, name: str) -> list[float | None]:
        values = [(each[part][name], each["length_ns"]) for each in intervals]
        return [None if value is None else round(value / length, 4) for value, length in values]

    waits = [line(name, of("latency", f"{name}_ns"), colour) for name, colour in _WAITS.items()]
    queues = [
        solid("area", "in queues of Ps", of("queue", "local"), BLUE),
        solid("area", "in the global queue", of("queue", "global"), ORANGE),
    ]
    statuses = [solid("area", name, of("statuses", name), colour) for name, colour in _STATUSES.items()]
    threads = [
        line("ran", cpus("threads", "ran_ns"), BLUE),
        line("runnable without a CPU", cpus("threads", "waited_ns"), RED),
    ]
    if any(value for value in cpus("limits", "throttled_ns")):
        threads.append(line("throttled by the quota", cpus("limits", "throttled_ns"), PURPLE, "dash"))
    charts = [
        time_chart("wait for a P, logarithmic", waits, "ns", log=True),
        time_chart("runnable goroutines", queues),
        time_chart("Ps", statuses),
        time_chart("threads, CPUs", threads),
    ]
    if all(each["goroutines"] is not None for each in intervals):
        charts.append(time_chart("goroutines", [line("goroutines", of("goroutines", "count"), INK)]))
    return charts


def _tables(made: Page, found: Record) -> None:
    seconds, latency = found["length_ns"] / 1e9, found["latency"]
    row = [f"{found['turns'] / seconds:,.0f}/s", *(_ns(latency[f"{name}_ns"]) for name in _HEADS)]
    made.table("Runnable until running", ("Turns", *_HEADS), [row])
    rows = []
    for each in found["ps"]:
        on = ", ".join(f"{cpu}: {percent(share)}" for cpu, share in each["cpus"].items())
        rates = (each["slices"], each["moves"]["threads"], each["moves"]["cpus"])
        numbers = [f"{count / seconds:,.1f}" for count in rates]
        rows.append((f"P {each['p']}", percent(each["running"]), f"{each['queued']:.2f}", *numbers, on or "-"))
    heads = ("P", "Running", "Queued", "Slices/s", "New thread/s, at least", "New CPU/s, at least", "On CPU")
    made.table("Ps", heads, rows)
    cpus, length = found["cpus"], found["length_ns"]
    had = {"its threads": found["threads"]["ran_ns"], "others": cpus["others_ns"]}
    had |= {"taken by the hypervisor": cpus["stolen_ns"], "idle": cpus["idle_ns"]}
    of_them = count_text(len(found["limits"]["cpus"]), "CPU")
    made.table(f"Who had its {of_them}", ("Who", "CPUs"), [(name, f"{ns / length:.2f}") for name, ns in had.items()])
    if found["goroutines"] is not None:
        states = [(printable(state), f"{count:,}") for state, count in found["goroutines"]["states"].items()]
        made.table("The program's goroutines at the end", ("State", "Goroutines"), states)
    for what, reason in found["missing"].items():
        made.say(f"Not available: {what} ({reason}).")


def _ns(value: float | None) -> str:
    return "-" if value is None else duration_text(value)


def _lost(made: Page, found: Record) -> None:
    if found["lost"]:
        made.say(f"{count_text(found['lost'], 'event')} lost: the true numbers are higher.", "lost")


def _wakeups(made: Page, found: Record) -> None:
    _lost(made, found)
    names = ("p50", "p90", "p95", "p99", "p99.9", "max")
    waited, moves = found["waited"], found["moves"]
    rows = []
    if waited["count"]:
        of = (duration_text(waited[f"{name}_ns"]) for name in names)
        rows.append(("one goroutine wait in eight", f"{waited['count']:,}", *of))
    if moves["count"]:
        of = (duration_text(moves["stays"][f"{name}_ns"]) for name in names)
        rows.append(("a goroutine stayed on one P for", f"{moves['count']:,}", *of))
        of = (f"{moves['turns'][name]:,}" for name in names)
        rows.append(("turns on that P", f"{moves['count']:,}", *of))
    made.table("Single goroutines", ("What", "Count", *names), rows)
    rows = [(f"{each['goid']}", f"P {each['p']}", duration_text(each["wait_ns"])) for each in found["longest"]]
    made.table("Longest waits of goroutines for a P", ("Goroutine", "Got", "Waited"), rows)


def _events(made: Page, found: Record) -> None:
    _lost(made, found)
    names = ("p50_ns", "p90_ns", "p99_ns", "p99.9_ns", "max_ns")
    kinds = (("after it was woken", "woken"), ("after it was preempted", "preempted"))
    rows = []
    for name, kind in kinds:
        of = found["waits"][kind]
        rows.append((name, f"{of['count']:,}", *(_ns(of.get(each)) for each in names)))
    heads = ("A thread was runnable without a CPU", "Count", *(name.removesuffix("_ns") for name in names))
    made.table("Waits of threads for a CPU", heads, rows)
    rows = [
        (printable(each["name"]), "the program" if each["own"] else "another", duration_text(each["held_ns"]))
        for each in found["holders"]
    ]
    made.table("What held the CPUs that threads waited for", ("Task", "Of", "Share of waits"), rows)
    rows = [
        (f"{each['tid']}", f"{each['cpu']}", duration_text(each["wait_ns"]), _held_by(each)) for each in found["longest"]
    ]
    made.table("The longest waits", ("Thread", "CPU", "Waited", "Who had the CPU"), rows)
    steals = found["steals"]
    if "steals" not in found["missing"]:
        in_vain = percent(steals["failure_rate"])
        made.say(
            f"Ps tried to steal work {steals['attempts']:,} times, {in_vain} of them in vain, and took"
            f" {steals['goroutines']:,} goroutines."
        )
        rows = [(f"P {each['victim']}", f"P {each['thief']}", f"{each['goroutines']:,}") for each in steals["by"]]
        made.table("Goroutines that were stolen", ("From", "To", "Goroutines"), rows)


def _held_by(wait: Record) -> str:
    held = [f"{printable(each['name'])} {duration_text(each['held_ns'])}" for each in wait["holders"]]
    if wait["unknown_ns"]:
        held.append(f"? {duration_text(wait['unknown_ns'])}")
    return "the CPU quota" if wait["throttled"] else ", ".join(held) or "?"
