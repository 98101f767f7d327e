"""What can be measured of a service under load: every metric by name, as data.

A value is a float in the metric's base unit: ns, bytes, bytes per second, 1/s, CPUs, a share from 0 to 1, or a bare
number. None is unknown.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gotrace.errors import UsageError
from gotrace.text import bytes_text, duration_text, percent_text, printable

Dimension = Literal["time", "bytes", "rate", "share", "growth", "cpus", "plain"]
Better = Literal["less", "more"]

# What a metric of each is measured in, for people.
MEASURED_IN: Mapping[Dimension, str] = {
    "time": "time (ns, us, ms, s, min)",
    "bytes": "bytes (B, kB, MB, GB, KiB, MiB, GiB)",
    "rate": "a rate (/s, /min, /h)",
    "share": "a share (%)",
    "growth": "bytes per time (B, KiB, MiB, … with /s, /min, /h)",
    "cpus": "CPUs",
    "plain": "a plain number",
}


@dataclass(frozen=True)
class Metric:
    """One metric. ``unit`` is that of its values as text; ``primary``: one of the few that a comparison is judged by."""

    name: str
    dimension: Dimension
    better: Better
    meaning: str
    primary: bool = False
    as_share: str = ""  # the metric that is meant where this one is required in percent

    @property
    def unit(self) -> str:
        return _UNITS[self.dimension]

    def text(self, value: float | None) -> str:
        """A value for people; "?" if it is unknown."""
        return "?" if value is None or value != value else _TEXT[self.dimension](value)


_UNITS: Mapping[Dimension, str] = {
    "time": "ns",
    "bytes": "B",
    "rate": "/s",
    "share": "share",
    "growth": "B/s",
    "cpus": "CPUs",
    "plain": "",
}


def _number(value: float) -> str:
    """Three significant digits, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


_TEXT = {
    "time": duration_text,
    "bytes": bytes_text,
    "rate": lambda value: f"{_number(value)}/s",
    "share": percent_text,
    "growth": lambda value: f"{bytes_text(value * 60)}/min",
    "cpus": lambda value: f"{_number(value)} CPU{'' if value == 1 else 's'}",
    "plain": _number,
}


def _percentiles(of: str, meaning: str, names: str, primary: str = "", better: Better = "less") -> Iterator[Metric]:
    words = {"max": "the longest", "mean": "the mean"}
    for name in names.split():
        yield Metric(f"{of}.{name}", "time", better, f"{meaning}: {words.get(name, name)}", name in primary.split())


def _all() -> Iterator[Metric]:
    yield Metric("throughput", "rate", "more", "responses per second, as counted by the load tool", primary=True)
    yield from _percentiles("latency", "how long answers took", "p50 p90 p95 p99 p99.9 max mean", "p50 p99")
    yield Metric("errors.share", "share", "less", "share of requests that failed")
    for part, meaning, primary in (
        ("total", "stop-the-world pauses, from the request to the restart", "p99 max"),
        ("stopping", "from the request until all Ps had stopped", ""),
        ("stopped", "how long all Ps were stopped", ""),
    ):
        yield from _percentiles(f"stw.{part}", meaning, "p50 p90 p95 p99 p99.9 max", primary)
    yield Metric("stw.share", "share", "less", "share of time in which the world was stopped or stopping")
    yield Metric("gc.cycles_per_s", "rate", "less", "GC cycles per second")
    yield Metric("gc.cpu_share", "share", "less", "share of the process's CPU time used by the collector", primary=True)
    yield Metric("gc.mark.mean", "time", "less", "concurrent marking: the mean")
    yield Metric("gc.mark.p95", "time", "less", "concurrent marking: p95")
    yield Metric("gc.assist.share", "share", "less", "share of the process's CPU time used by mark assists")
    yield Metric("alloc.per_request", "bytes", "less", "bytes allocated per response", primary=True)
    yield Metric("rss.peak", "bytes", "less", "RSS: the most", primary=True)
    yield Metric("rss.mean", "bytes", "less", "RSS: mean over time")
    yield Metric("rss.growth", "growth", "less", "how fast RSS grows", primary=True, as_share="rss.growth.share")
    yield Metric("rss.growth.share", "share", "less", "growth of RSS from start to end")
    yield Metric("heap.live.mean", "bytes", "less", "live heap after a GC cycle: mean")
    yield Metric("heap.goal.mean", "bytes", "less", "heap goal of the next GC cycle: mean")
    yield Metric("mem.amplification", "plain", "less", "MAF: RSS / HeapAlloc")
    yield Metric("cpu", "cpus", "less", "CPUs used by the process")
    yield Metric("cpu.per_request", "time", "less", "CPU time of the process per response")
    yield from _percentiles("sched.latency", "how long runnable goroutines waited for a P", "mean p50 p95 p99")
    yield Metric("sched.wait.p95", "time", "less", "how long individual goroutines waited for a P, exactly: p95")
    yield Metric("sched.cpu_wait.p95", "time", "less", "how long runnable threads waited for a CPU: p95")
    yield Metric("sched.p_moves.nodes", "rate", "less", "moves of Ps to another NUMA node")
    yield Metric("sched.binding.p95", "time", "more", "how long a goroutine stays on one P before moving to another: p95")
    yield Metric("steal.failure_rate", "share", "less", "share of work-stealing attempts that found nothing")
    yield Metric("throttled.share", "share", "less", "time in which a CPU quota throttled the process")
    yield Metric("start.ready", "time", "less", "from execve until the service is ready")
    for name, meaning in (
        ("exec", "execve: the old program is torn down, the new one mapped"),
        ("linker", "the dynamic linker"),
        ("bootstrap", "the runtime's bootstrap"),
        ("inits", "runtime.main, which runs package inits"),
        ("main", "main.main until the service is ready"),
    ):
        yield Metric(f"start.{name}", "time", "less", f"a stage of the start: {meaning}")
    yield Metric("start.listen", "time", "less", "from execve until the service listens")
    yield Metric("start.first_gc", "time", "less", "from execve until the first GC cycle begins, if before ready")


METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _all()}
PRIMARY: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.primary)


def find(name: str) -> Metric:
    """A metric by its name; UsageError with the nearest ones if there is none."""
    if name in METRICS:
        return METRICS[name]
    within = [each for each in METRICS if each.startswith(f"{name}.")]
    if within:
        raise UsageError(f"{printable(name)!r} is several metrics", f"there are {', '.join(within)}")
    near = difflib.get_close_matches(name, METRICS, 3)
    if not near:
        # Its last name may be all that was meant: "peak", "growth".
        near = [each for each in METRICS if name and each.endswith(f".{name}")][:3]
    groups = list(dict.fromkeys(each.partition(".")[0] for each in METRICS))
    hint = f"did you mean {' or '.join(near)}?" if near else f"metrics begin with {', '.join(groups)}"
    raise UsageError(f"there is no metric {printable(name[:80])!r}", hint)


def least_values(name: str) -> int:
    """How many values a run must have for this metric of it to be taken, by its percentile: "p99", "latency.p99".

    So many that there is a two-sided 95 % interval at all: 6 for p50, 36 for p90, 368 for p99, 3,688 for p99.9.
    """
    from gotrace.analysis.stats.percentiles import values_needed

    percentile = re.search(r"(?:^|\.)p(\d+(?:\.\d+)?)$", name)
    return values_needed(float(percentile[1])) if percentile else 1
