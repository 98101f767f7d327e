"""Which runs of a baseline count, and what is noted of those that do."""

from __future__ import annotations

from typing import Any

import pytest

from gotrace.lab.baseline import judged
from gotrace.lab.load import parse_load
from gotrace.lab.load_result import LoadResult
from gotrace.lab.measure import Seen
from gotrace.lab.plan import Plan
from gotrace.lab.service import Ready
from gotrace.records.load import PERCENTILES

PLAN = Plan((), parse_load("wrk -d1s http://127.0.0.1:1/"), 1, 0, Ready("127.0.0.1", 1), 1)
SATURATED = "the load tool was saturated (its threads ran for {} of the time and waited for a CPU for {}): latency and"
SATURATED += " throughput are its own"
GOOD: dict[str, Any] = {"requests": 10_000, "answered": 10_000, "errors": {}, "wanted_rate": None}


def verdict(
    load: dict[str, Any] | None = None,
    stolen: float = 0.0,
    throttled_ns: int | None = 0,
    yardsticks: tuple[float, float] = (100.0, 100.0),
    unsteady: str | None = None,
    planned: bool = False,
    lost: int = 0,
    used: tuple[float, float, int | None, int] | None = None,
) -> tuple[list[str], list[str]]:
    """Of a run of ten seconds in which nothing is wrong but that."""
    result = LoadResult(
        tool="wrk",
        duration_ns=10**10,
        percentiles_ns=dict.fromkeys(PERCENTILES),
        percentiles_are="exact",
        **{**GOOD, **(load or {})},
    )
    seen = Seen(stolen_share=stolen, sched={"limits": {"throttled_ns": throttled_ns}}, summary={"events": {"lost": lost}})
    preload: Any = {"length_ns": 180 * 10**9, "course": None, "unsteady": unsteady}
    took: Any = None
    if used is not None:
        ran, waited, threads, cpus = used
        took = {"length_ns": 10**10, "cpu_ns": ran * 1e10, "waited_ns": waited * 1e10, "threads": threads, "cpus": cpus}
    return judged(PLAN, seen, result, yardsticks, preload, planned, took)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"load": {"errors": {"status": 11}}}, "0.11% of the requests failed"),
        ({"load": {"wanted_rate": 1011.0}}, "the load reached only 98.9% of its rate"),
        ({"stolen": 0.011}, "the hypervisor took 1.1% of the CPUs' time"),
        ({"yardsticks": (100.0, 96.9)}, "the machine's own speed changed by 3.1% meanwhile"),
        (
            {"throttled_ns": 5_000_000},
            "a CPU quota throttled its threads for 5.00 ms, summed over CPUs, though none was planned",
        ),
        ({"used": (0.96, 0, 1, 8)}, SATURATED.format("96%", "0%")),
        (
            {"used": (0.5, 0.46, 1, 2)},
            SATURATED.format("50%", "46%"),
        ),
        (
            {"used": (1.96, 0, None, 2)},
            SATURATED.format("98%", "0%"),
        ),
        ({"used": (1.96, 0, 8, 2)}, SATURATED.format("24.5%", "0%")),
        (
            {"unsteady": "GC cycles changed in the last 15 s"},
            "no steady state after 3.00 min of warm-up: GC cycles changed in the last 15 s",
        ),
    ],
)
def test_a_run_that_does_not_count(wrong: dict[str, Any], reason: str) -> None:
    assert verdict(**wrong) == ([reason], [])


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"load": {"errors": {"status": 10}}},
        {"load": {"wanted_rate": 1010.0}},
        {"stolen": 0.01},
        {"yardsticks": (100.0, 97.1)},
        {"throttled_ns": None},
        {"used": (0.94, 0, 1, 8)},
        {"used": (1.8, 0.09, 2, 8)},  # its two threads
        {"used": (1.8, 0.19, None, 2)},
    ],
)
def test_a_run_that_counts(fine: dict[str, Any]) -> None:
    assert verdict(**fine) == ([], [])


def test_what_is_noted() -> None:
    planned = "a CPU quota throttled its threads for 5.00 ms, summed over CPUs"
    assert verdict(throttled_ns=5_000_000, planned=True) == ([], [planned])
    _, (note,) = verdict(used=(0.3, 0.1, 1, 2))
    assert note.startswith("the load tool waited for a CPU for more than a tenth of the time")
    assert verdict(lost=2) == ([], ["2 events lost: pauses are lower bounds"])
