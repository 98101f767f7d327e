"""The start of a run by stage, from execve until the service was ready: what a report has of it."""

from __future__ import annotations

from typing import Annotated, TypedDict

from gotrace.analysis import timeline
from gotrace.analysis.timeline import FirstGc, Place
from gotrace.records.starts import CostOfStart, Row, start_record
from gotrace.run.starts import Result

# Of the metrics: the stage of a start that each is of.
STAGES = {
    "start.exec": timeline.EXEC,
    "start.linker": timeline.LINKER,
    "start.bootstrap": timeline.BOOTSTRAP,
    "start.inits": timeline.MAIN,
    "start.main": timeline.PROGRAM,
}


class StartOf(TypedDict):
    """A start that was traced; nanoseconds, since execve's entry."""

    total_ns: Annotated[int, "until the service was ready: what the stages and unattributed_ns add up to"]
    stages: list[Row]
    unattributed_ns: int
    listen_ns: Annotated[int | None, "the first listen; null: none by then"]
    gc: Annotated[FirstGc | None, "the first collection; null: none by then"]
    lost: Annotated[int, "events"]
    cost: Annotated[CostOfStart, "what tracing added, by estimate"]
    notes: list[str]
    recording: Annotated[str, "the raw events, in which the stages are divided; relative to the report"]


def record(result: Result, recording: str) -> StartOf:
    """What was seen of one start."""
    (start,) = result.starts
    found = start_record(start, 0, Place(0, 0), result.wall_offset_ns)
    return {
        "total_ns": start.total_ns,
        "stages": [
            row for row in found["rows"] if row["depth"] == 0 and row["stage"] not in (timeline.CONTAINER, timeline.BEFORE)
        ],
        "unattributed_ns": start.unattributed_ns,
        "listen_ns": start.listen_ns,
        "gc": found["gc"],
        "lost": result.about["lost"],
        "cost": result.about["cost_per_start"],
        "notes": list(start.notes),
        "recording": recording,
    }


def metrics(start: StartOf) -> dict[str, float | None]:
    """None: there was no such stage, as there is no linker in a static program, or no collection by then.

    Where events were lost, there is no more than how long all of it took.
    """
    ready = {"start.ready": float(start["total_ns"])}
    if start["lost"]:
        return {**ready}
    lasted = {row["stage"]: float(row["duration_ns"]) for row in start["stages"]}
    gc = start["gc"]
    begun = None if gc is None else gc["begin_ns"]  # type: ignore[index]
    return {
        **{name: lasted.get(stage) for name, stage in STAGES.items()},
        **ready,
        "start.listen": as_metric(start["listen_ns"]),
        "start.first_gc": as_metric(begun),
    }


def as_metric(value: int | None) -> float | None:
    """Nanoseconds; None: unknown, or there was no such thing."""
    return None if value is None else float(value)
