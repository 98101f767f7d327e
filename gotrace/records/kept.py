"""The record of `gotrace report --longest`: a pause that the agent kept."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from gotrace.analysis.causes import CLASSES
from gotrace.records.schema import OneOf


class KeptPause(TypedDict):
    """A long pause, and what is in its recording."""

    type: Literal["kept"]
    file: Annotated[str, "the recording: gotrace report FILE --explain has all of it"]
    service: str
    pid: int
    exe: str
    time: Annotated[str, "when it began: ISO 8601, UTC"]
    monotonic_ns: int
    reason: str
    length_ns: Annotated[int, "until the world ran again"]
    total_ns: Annotated[int, "what the runtime reports"]
    whole: Annotated[bool, "whether all of it was seen; false: events were lost, or it had begun before"]
    cause: Annotated[str, OneOf(CLASSES)]
    code: Annotated[list[str], "what ran for most of the cause's time, innermost first; empty if unknown"]
    sentence: Annotated[str, "what the world waited for"]
