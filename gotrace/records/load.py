"""The record of `gotrace.lab.load`: what a load tool measured in one run."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from gotrace.records.schema import Keys

Model = Literal["open", "closed", "unknown"]
Trust = Literal["exact", "interpolated", "estimated"]

PERCENTILES = ("p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99")
KINDS = ("connect", "read", "write", "timeout", "status", "length", "other")

_Percentiles = Annotated[dict[str, float | None], Keys(PERCENTILES)]


class Distribution(TypedDict):
    """Every latency: how many requests took how long."""

    value_ns: Annotated[list[int], "ascending"]
    count: Annotated[list[int], "requests, one for each value"]


class Load(TypedDict):
    """One run of a load tool."""

    type: Literal["load"]
    tool: str
    version: Annotated[str | None, "as the tool says it; null: it does not"]
    asked: Annotated[list[str], "the command as it was given"]
    command: Annotated[list[str], "and as it was run"]
    model: Annotated[Model, "open: requests begin by the clock; closed: after the answer before; unknown: a script decides"]
    wanted_rate: Annotated[float | None, "requests per second that were asked for; null: as many as there could be"]
    requests: Annotated[int, "that ended, with an answer or without"]
    answered: Annotated[int, "with any status"]
    errors: Annotated[dict[str, int], Keys(KINDS), "by kind; those of which there were none are left out"]
    duration_ns: int
    throughput: Annotated[float, "answers per second"]
    percentiles_ns: Annotated[_Percentiles, "null: the tool does not give it"]
    percentiles_are: Annotated[Trust, "exact: of all values; interpolated: between values; estimated: by the tool"]
    resolution_ns: Annotated[int, "the step in which the tool gives latencies"]
    printed_ns: Annotated[_Percentiles, "what the tool prints itself, where that is something else"]
    mean_ns: float | None
    min_ns: float | None
    max_ns: float | None
    histogram: Annotated[Distribution | None, "null: the tool does not give one"]
    notes: Annotated[list[str], "what to know about these numbers"]
