"""What a rule finds, and which of it is said."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from gotrace.text import bytes_text, count_text, duration_text, printable

MOST = 5

# runtime/cgroup_linux.go, adjustCgroupGOMAXPROCS
BY_ITSELF = "Go 1.25 and later derives it from the quota (but at least 2) unless GOMAXPROCS is set"


@dataclass(frozen=True)
class Gain:
    """``value`` lies in ``low``..``high`` with 95 %, in ``unit``: "ns" of a start, "ns/s", "cycles/s" or "bytes/s" of a
    process at work.

    ``share`` is of the whole that it belongs to: the start, or the time that was traced. ``basis`` says what the
    interval comes from.
    """

    value: float
    low: float
    high: float
    unit: str
    share: float
    basis: str


@dataclass(frozen=True)
class Finding:
    """``title`` is the claim with its numbers, ``evidence`` what proves it, ``mend`` what to do, ``check`` how to check it.

    ``excluded`` says why it is not something else. Names in it are the target's, and escaped already. If one of the rules
    in ``by`` found something too, that is its cause: `advice` then makes it ``part_of`` that finding, of the same gain.
    """

    rule: str
    title: str
    evidence: tuple[str, ...]
    gain: Gain
    mend: str
    check: str
    excluded: str
    by: tuple[str, ...] = ()
    part_of: str = ""


@dataclass(frozen=True)
class Advice:
    """The findings, largest gain first, behind each what is part of it.

    ``looked_at`` and ``not_seen`` say what stands behind there being no more.
    """

    findings: tuple[Finding, ...]
    left_out: int
    looked_at: tuple[str, ...]
    not_seen: tuple[str, ...]
    cost: str = ""


def rules(package: str) -> Iterator[ModuleType]:
    """Every rule of gotrace.advice.PACKAGE, by name."""
    folder = importlib.import_module(f"gotrace.advice.{package}")
    for found in sorted(pkgutil.iter_modules(folder.__path__), key=lambda each: each.name):
        module = importlib.import_module(f"{folder.__name__}.{found.name}")
        if hasattr(module, "find"):
            yield module


def advice(package: str, seen: Any, not_seen: Iterable[str], cost: str = "") -> Advice:
    """What the rules of a command find in what was seen."""
    modules = list(rules(package))
    found = [finding for module in modules for finding in module.find(seen)]
    found.sort(key=lambda each: -each.gain.share)
    names = {each.rule for each in found}
    found = [replace(each, part_of=next((rule for rule in each.by if rule in names), "")) for each in found]
    causes = [each for each in found if not each.part_of]
    told = [part for each in causes[:MOST] for part in (each, *_parts(found, each))]
    looked_at = tuple(module.__name__.rpartition(".")[2].replace("_", " ") for module in modules)
    return Advice(tuple(told), len(found) - len(told), looked_at, tuple(not_seen), cost)


def _parts(found: Sequence[Finding], cause: Finding) -> list[Finding]:
    return [each for each in found if each.part_of == cause.rule][:MOST]


def gain_text(gain: Gain) -> str:
    """ "14.2 ms (95 %: 13.8 ms to 14.9 ms)"."""
    if gain.unit == "cycles/s":
        return f"{gain.value:.1f} cycles per second ({gain.low:.1f} to {gain.high:.1f})"
    if gain.unit == "bytes/s":
        return f"{bytes_text(gain.value)} per second ({bytes_text(gain.low)} to {bytes_text(gain.high)})"
    each = "" if gain.unit == "ns" else " per second"
    if gain.low == gain.high:
        return f"{duration_text(gain.value)}{each}"
    return f"{duration_text(gain.value)}{each} (95 %: {duration_text(gain.low)} to {duration_text(gain.high)})"


def place_of(place: tuple[str, int]) -> str:
    """The last two parts of a file's path, and the line."""
    path, line = place
    return f"{printable('/'.join(path.split('/')[-2:]))}:{line}" if path else "an unknown line"


def lines(found: Advice) -> Iterator[str]:
    """What people read, a paragraph of lines for each finding."""
    if not found.findings:
        yield f"Advice: nothing found. Checked: {', '.join(found.looked_at)}."
    else:
        yield "Advice, largest gain first:"
    for number, each in enumerate((each for each in found.findings if not each.part_of), 1):
        yield f"  {number}. {each.title}"
        for told in each.evidence:
            yield f"     Evidence: {told.rstrip('.')}."
        for part in _parts(found.findings, each):
            yield f"     Because of it: {part.title}. {part.evidence[0].rstrip('.')}."
        yield f"     {each.excluded}"
        yield f"     {each.mend}"
        yield f"     Check: {each.check}."
    if found.left_out:
        yield f"  {count_text(found.left_out, 'smaller finding')} left out."
    if found.not_seen:
        yield f"Not seen: {'; '.join(map(printable, found.not_seen))}."
    if found.cost:
        yield found.cost
