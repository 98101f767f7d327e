"""The records of `gotrace.views.faults`: page faults by part of memory and phase of the collector."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from gotrace.analysis.phases import PHASES
from gotrace.records.schema import Keys
from gotrace.records.times import Moment
from gotrace.records.watched import Statistics, Watched

_ByPhase = Annotated[dict[str, int], Keys(PHASES)]
_Times = Annotated[dict[str, Statistics], Keys(PHASES)]


class Second(Moment):
    """The faults in the second that begins then."""

    counts: _ByPhase


class OpenFault(TypedDict):
    """A fault that had not ended when tracing did."""

    tid: int
    lasted_ns: Annotated[int, "until tracing ended: it took longer"]
    address: int
    part: Annotated[str, "of memory"]


class Faults(Watched):
    """All of them, at the end."""

    type: Literal["faults"]
    faults: int
    counts: Annotated[dict[str, _ByPhase], "part of memory (unknown: the program had exited), then phase"]
    phases_ns: _ByPhase
    minor: Annotated[_Times, "service times"]
    major: Annotated[_Times, "service times of major faults"]
    in_progress: Annotated[list[OpenFault] | None, "those seen to begin that had not ended; null: unknown"]
    series: Annotated[list[Second], "second by second"]
