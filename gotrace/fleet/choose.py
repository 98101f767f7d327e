"""Which type of machine to take for a service: those that keep what is asked of them, and of these the ones that no other
beats in everything.

The unit is the host: of each the median over days, of a type the median of its hosts with a 95 % interval. A limit is kept
by the end of the interval that is nearer to it. Runs of one plan (one load) are taken together, never of several.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gotrace.errors import UsageError
from gotrace.fleet.choose_types import Candidate, candidates, estimate_text, kept_by, services
from gotrace.fleet.database import Database
from gotrace.fleet.prices import Price
from gotrace.fleet.show_hosts import letters
from gotrace.fleet.trend_points import SOURCES, make
from gotrace.lab.metrics import METRICS
from gotrace.lab.requirements import Requirement
from gotrace.text import printable

_NAMED = 5  # types with prices, where none is one of the fleet's


@dataclass(frozen=True)
class Step:
    """A question that all that are left are asked, and whom it cut."""

    question: str
    kept: list[Candidate]
    cut: list[Candidate]


@dataclass(frozen=True)
class Rule:
    """ "if ``when``: ``take``"; ``unsure`` names the cheaper one that it cannot be told apart from."""

    when: str
    take: Candidate
    unsure: str = ""


@dataclass
class Choice:
    """Decision tree: ``steps`` in their order, then ``rules``; ``metric`` is the one that types are ranked by."""

    service: str
    metric: str
    slos: tuple[Requirement, ...]
    steps: list[Step] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    beaten: list[Candidate] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    by_cost: bool = False

    @property
    def status(self) -> int:
        return 3 if self.broken else 0 if self.rules else 1


def budget_of(text: str) -> float:
    """The most per hour: "0.12/h". Raises UsageError."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?/h", text, re.ASCII) or not float(text[:-2]):
        raise UsageError(f"invalid budget {printable(text)!r}", "write 0.12/h")
    return float(text[:-2])


def pareto(rows: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which rows no other beats: none is at most as large everywhere, and smaller somewhere. Less is better."""
    points = np.asarray(rows, np.float64)
    no_more = (points[:, None] <= points[None]).all(axis=2)
    less = (points[:, None] < points[None]).any(axis=2)
    beaten: npt.NDArray[np.bool_] = np.asarray((no_more & less).any(axis=0), bool)
    return ~beaten


def front_of(points: npt.NDArray[np.float64], lent: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """`pareto`, but for what a machine does on borrowed time, which beats no other."""
    front = pareto(points)
    front[~lent] = pareto(points[~lent])
    return front


def choose(
    database: Database,
    slos: Sequence[Requirement],
    prices: Mapping[tuple[str, str], Price],
    budget: float | None = None,
    service: str | None = None,
) -> Choice:
    """Raises UsageError if the fleet lacks the service, or has several and none is named; for a budget without prices.

    Raises SkippedError if the service may be in files that could not be read.
    """
    if not slos:
        raise UsageError("no SLO was given", "give --slo 'latency.p99<=80ms'")
    if any(each.operator == "==" for each in slos):
        raise UsageError("an SLO is a limit, not a value", "write <= or >=")
    if budget is not None and not prices:
        raise UsageError("a budget needs prices", "give --prices FILE")
    make(database)
    service = _service(database, service)
    choice = Choice(service, _ranked(slos), tuple(slos), broken=database.broken, notes=list(database.notes))
    metrics = list(dict.fromkeys([choice.metric, *(each.metric for each in slos)]))
    choice.candidates = sorted(candidates(database, service, metrics, prices, slos), key=lambda each: each.name)
    left = choice.candidates
    for question, refusal in _questions(slos, budget):
        for each in left:
            each.cut = refusal(each)
        kept = [each for each in left if not each.cut]
        choice.steps.append(Step(question, kept, [each for each in left if each.cut]))
        left = kept
    _rank(choice, left, prices)
    _note(choice, metrics)
    return choice


def _service(database: Database, service: str | None) -> str:
    names = services(database)
    if not names:
        raise database.lacks("measurements", [], SOURCES)
    if service is None and len(names) > 1:
        shown = ", ".join(map(printable, names[:10]))
        raise UsageError("this fleet has several services", f"choose one with --service: {shown}")
    if service is not None and service not in names:
        raise database.lacks(f"service {printable(service)!r}", names[:10], SOURCES)
    return service or names[0]


def _ranked(slos: Sequence[Requirement]) -> str:
    """The metric that types are ordered by: the first percentile of a time that is asked for, or what is first."""
    return next((each.metric for each in slos if METRICS[each.metric].dimension == "time"), slos[0].metric)


def _questions(slos: Sequence[Requirement], budget: float | None) -> Iterator[tuple[str, Callable[[Candidate], str]]]:
    """And who of the candidates is cut by it, with the reason; "" for those that are kept."""

    def measured(each: Candidate) -> str:
        missing = [slo.metric for slo in slos if slo.metric not in each.measured.estimates]
        if missing:
            return f"not measured: {', '.join(missing)}"
        return f"not enough: {each.enough.lacking}" if each.enough.lacking else ""

    yield "measured on at least 5 hosts, in 3 quarters of the day, on 2 days?", measured
    for slo in slos:
        yield (
            f"{slo}, by its 95 % interval?",
            lambda each, slo=slo: (  # type: ignore[misc]
                "" if kept_by(slo, each.measured.estimates[slo.metric]) else estimate_text(each, slo.metric)
            ),
        )
    if budget is not None:
        yield (
            f"within {budget:g}/h?",
            lambda each: (
                "no price is known" if each.price is None else "" if each.price.per_hour <= budget else str(each.price)
            ),
        )


def _rank(choice: Choice, left: list[Candidate], prices: Mapping[tuple[str, str], Price]) -> None:
    """The front, from the cheapest on, as rules."""
    sign = -1 if METRICS[choice.metric].better == "more" else 1
    if left:
        found = letters({each.name: list(each.measured.hosts[choice.metric].values()) for each in left})
        for each in left:
            each.letters = found.of[each.name]
    choice.by_cost = any(each.cost for each in left)
    if not prices:
        choice.notes.append(f"No prices, so no cost: ranked by {choice.metric} instead. Give prices with --prices FILE.")
    elif left and not choice.by_cost:
        choice.notes.append(
            f"No cost: none of the remaining types has both a price and a measured rate (throughput); "
            f"ranked by {choice.metric}."
        )
        if not any(each.price for each in left):
            names = sorted(" ".join(key) for key in prices)
            more = ", …" if len(names) > _NAMED else ""
            choice.notes.append(f"There are prices for other types: {', '.join(names[:_NAMED])}{more}.")
    if choice.by_cost and (without := [each for each in left if not each.cost]):
        for each in without:
            each.cut = f"no cost: {each.lacks_cost}"
        left = [each for each in left if each.cost]
        choice.steps.append(Step("with a price and a measured rate?", left, without))
    if not left:
        return

    def value(each: Candidate) -> float:
        return sign * each.measured.estimates[choice.metric].value

    def spread(each: Candidate) -> float:
        return math.inf if each.spread is None else each.spread

    def cost(each: Candidate) -> float:
        return each.cost.value if choice.by_cost and each.cost else 0.0

    points = np.array([(cost(each), value(each), spread(each)) for each in left])
    lent = np.array([each.is_lent for each in left])
    front = front_of(points, lent)
    order = sorted(range(len(left)), key=lambda at: (*points[at].tolist(), left[at].name))
    chosen = [left[at] for at in order if front[at]]
    for at in order:
        if not front[at]:
            by = next(o for o in order if front[o] and (lent[at] or not lent[o]) and (points[o] <= points[at]).all())
            left[at].beaten_by = left[by].name
            choice.beaten.append(left[at])
    choice.steps.append(Step("not beaten in everything by another?", chosen, choice.beaten))
    best = "the cheapest" if choice.by_cost else f"the best {choice.metric}"
    for number, each in enumerate(chosen):
        before = chosen[:number]
        alike = next((other.name for other in before if set(other.letters) & set(each.letters)), "")
        # A burstable type beats none that is not: what it has does not say for what one would take another.
        peers = [other for other in before if each.is_lent or not other.is_lent]
        lasting = " on a type that is not burstable" if len(peers) < len(before) else ""
        if not before:
            when = f"{best} that meets every limit" if choice.by_cost else best
        elif value(each) < min(map(value, before)):
            when = _limit(choice.metric, min(before, key=value))
        elif spread(each) < min(map(spread, before)):
            when = _steadier(min(map(spread, before)))
        elif not peers:
            when = f"{best} that is not burstable"
        elif value(each) < min(map(value, peers)):
            when = _limit(choice.metric, min(peers, key=value)) + lasting
        elif spread(each) < min(map(spread, peers)):
            when = _steadier(min(map(spread, peers))) + lasting
        else:
            when = f"as good as {peers[-1].name}"
        choice.rules.append(Rule(when, each, alike))


def _limit(metric: str, than: Candidate) -> str:
    word = "above" if METRICS[metric].better == "more" else "below"
    return f"if {metric} must be {word} {METRICS[metric].text(than.measured.estimates[metric].value)}"


def _steadier(least: float) -> str:
    return f"if hosts and days must differ by {f'less than {least:.1%}' if math.isfinite(least) else 'a known amount'}"


def _note(choice: Choice, metrics: Sequence[str]) -> None:
    if not choice.candidates:
        choice.notes.append(
            f"Nothing in the fleet has a value of {' or '.join(metrics)} for {choice.service}: "
            "a percentile needs enough values in a run or a day (p99: 368), and emulated machines do not count."
        )
    for what, names in (
        ("versions of the service", {each for of in choice.candidates for each in of.versions}),
        ("Go versions", {each for of in choice.candidates for each in of.go_versions}),
        ("loads (plans)", {of.measured.plan[:8] for of in choice.candidates}),
    ):
        if len(names) > 1:
            choice.notes.append(f"Not all types had the same {what}: {', '.join(sorted(names))}.")
    for each in choice.candidates:
        if each.burst and each.is_lent:
            choice.notes.append(
                f"{each.name} {each.burst[0]} ({each.burst[1]}), and no run of 16 h at full load shows its speed"
                " without credits."
            )
