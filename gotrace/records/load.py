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
    version: Annotated[str | None, "as the tool reports it; null: it does not"]
    asked: Annotated[list[str], "the command as it was given"]
    command: Annotated[list[str], "the command as it was run"]
    model: Annotated[
        Model, "open: requests begin by the clock; closed: after the previous response; unknown: a script decides"
    ]
    wanted_rate: Annotated[float | None, "requests per second asked for; null: as many as possible"]
    requests: Annotated[int, "completed, with a response or without"]
    answered: Annotated[int, "responses with any status"]
    errors: Annotated[dict[str, int], Keys(KINDS), "by kind; kinds with none are omitted"]
    duration_ns: int
    throughput: Annotated[float, "responses per second"]
    percentiles_ns: Annotated[_Percentiles, "null: the tool does not report it"]
    percentiles_are: Annotated[Trust, "exact: of all values; interpolated: between values; estimated: by the tool"]
    resolution_ns: Annotated[int, "the step in which the tool reports latencies"]
    printed_ns: Annotated[_Percentiles, "what the tool itself prints, if that differs"]
    mean_ns: float | None
    min_ns: float | None
    max_ns: float | None
    histogram: Annotated[Distribution | None, "null: the tool does not report one"]
    notes: Annotated[list[str], "what to know about these numbers"]
