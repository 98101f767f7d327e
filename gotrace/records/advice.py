"""Advice as JSON: what `gotrace.advice` found, in the summary of the command that was asked for it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, TypedDict

from gotrace.advice.finding import Advice


class Gain(TypedDict):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float
    unit: Annotated[Literal["ns", "ns/s", "cycles/s", "bytes/s"], "per start, or per second"]
    share: Annotated[float, "of the start, or of the time that was traced"]
    basis: Annotated[str, "what the interval comes from"]


class Finding(TypedDict):
    """One finding of a rule."""

    rule: str
    title: str
    evidence: list[str]
    gain: Gain
    mend: str
    check: str
    excluded: Annotated[str, "why it is not something else"]
    part_of: Annotated[str, "the rule whose finding causes this one; empty if it stands alone"]


class Advised(TypedDict):
    """At most five findings, largest gain first, each followed by those that are part of it."""

    findings: list[Finding]
    left_out: Annotated[int, "number of findings with smaller gains"]
    looked_at: Annotated[list[str], "the rules"]
    not_seen: Annotated[list[str], "what could not be examined"]


class WithAdvice(TypedDict, total=False):
    """A record with advice, if it was asked for."""

    advice: Annotated[Advised, "with --advise"]


def advice_record(advice: Advice | None) -> dict[str, Any]:
    """`WithAdvice`."""
    if advice is None:
        return {}
    found = dataclasses.asdict(advice)
    del found["cost"]
    for finding in found["findings"]:
        del finding["by"]
    return {"advice": found}
