"""Which type of machine to take for a service: those that keep what is asked of them, and of these the ones that no other
beats in everything.

The unit is the host: of each the median over days, of a type the median of its hosts with a 95 % interval. A limit is kept
by the end of the interval that is nearer to it. Runs of one plan (one load) are taken together, never of several.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stats.values import Estimate
from gotrace.errors import UsageError
from gotrace.fleet.choose_burst import FULL_USE, PAST_CREDITS_NS, burstable
from gotrace.fleet.database import Database
from gotrace.fleet.prices import Price
from gotrace.fleet.show_hosts import Enough, Stability, letters, median_of, quarters, stability
from gotrace.fleet.tables import QUARTER_NS
from gotrace.fleet.trend_points import day_text, make
from gotrace.lab.metrics import METRICS
from gotrace.lab.requirements import Requirement
from gotrace.text import count_text, percent_text, printable

RATE = "throughput"


@dataclass
class Measured:
    """One load of a type: a host's values by metric, each the median over days; and of each day."""

    plan: str
    hosts: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    daily: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(dict))
    estimates: dict[str, Estimate] = field(default_factory=dict)


@dataclass
class Candidate:
    """A type of machine. ``cut`` says why it was left out, "" if it was not; ``letters`` of the ranked metric."""

    provider: str | None
    instance: str
    measured: Measured
    enough: Enough
    runs: int
    days: tuple[int, int]
    versions: tuple[str, ...]
    go_versions: tuple[str, ...]
    price: Price | None = None
    cost: Estimate | None = None  # of a million requests
    stability: Stability = Stability(None, None)
    letters: str = ""
    burst: tuple[str, str] | None = None
    past_credits: bool = False
    cut: str = ""
    beaten_by: str = ""

    @property
    def name(self) -> str:
        return f"{self.provider} {self.instance}" if self.provider else self.instance

    @property
    def is_lent(self) -> bool:
        """Burstable, and never measured past its credits."""
        return bool(self.burst) and not self.past_credits

    @property
    def lacks_cost(self) -> str:
        """Why there is no cost."""
        return "no price is known" if self.price is None else "no rate was measured"

    @property
    def spread(self) -> float | None:
        """The larger one of that between hosts and that from day to day."""
        return max((each for each in self.stability if each is not None), default=None)


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
    """The way to the choice: ``steps`` in their order, then ``rules``; ``metric`` is the one that types are ranked by."""

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
    """Raises UsageError if the fleet lacks the service, or has several and none is named; for a budget without prices."""
    if not slos:
        raise UsageError("nothing is asked of the machines", "give --slo 'latency.p99<=80ms'")
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


def services(database: Database) -> list[str]:
    """Of which something was measured, as `make` found it."""
    rows = database.rows("select distinct service from points where service is not null order by 1")
    return [str(name) for (name,) in rows]


def _service(database: Database, service: str | None) -> str:
    names = services(database)
    shown = ", ".join(map(printable, names[:10]))
    if not names:
        raise UsageError("this fleet has no measurements", "gotrace fleet add DIR FILE... adds some")
    if service is None and len(names) > 1:
        raise UsageError("this fleet has several services", f"choose one with --service: {shown}")
    if service is not None and service not in names:
        raise UsageError(f"this fleet has no service {printable(service)!r}", f"there are {shown}")
    return service or names[0]


def _ranked(slos: Sequence[Requirement]) -> str:
    """The metric that types are ordered by: the first percentile of a time that is asked for, or what is first."""
    return next((each.metric for each in slos if METRICS[each.metric].dimension == "time"), slos[0].metric)


def candidates(
    database: Database,
    service: str,
    metrics: Sequence[str],
    prices: Mapping[tuple[str, str], Price],
    slos: Sequence[Requirement] = (),
) -> Iterator[Candidate]:
    """Every type, of the load that keeps most of ``slos``, with these metrics where they were measured.

    ``database`` has what `make` makes; how stable a type is, is that of the first metric.
    """
    wanted = list(dict.fromkeys([*metrics, RATE]))
    rows = database.rows(
        "select vendor, coalesce(type, 'unknown'), plan, host, metric, list(value order by point) from "
        "(select vendor, type, plan, host, metric, point, median(value) as value from points where service = ? "
        "group by all) where list_contains(?, metric) group by all order by all",
        service,
        wanted,
    )
    loads: defaultdict[tuple[str | None, str], dict[str, Measured]] = defaultdict(dict)
    for vendor, type_, plan, host, metric, values in rows:
        measured = loads[vendor, type_].setdefault(plan, Measured(plan))
        measured.hosts[metric][host] = float(np.median(values))
        measured.daily[metric][host] = values
    facts = _facts(database, service)
    for (vendor, type_), of in loads.items():
        for each in of.values():
            each.estimates = {metric: median_of(list(hosts.values())) for metric, hosts in each.hosts.items()}
        best = max(of.values(), key=lambda each: _merit(each, slos, metrics[0]))
        runs, days, versions, go_versions, past = facts[vendor, type_, best.plan]
        counted = set.intersection(*(set(best.hosts.get(metric, ())) for metric in metrics))
        found = Candidate(vendor, type_, best, Enough(len(counted), *days[2:]), runs, days[:2], versions, go_versions)
        found.stability = stability(list(best.hosts[metrics[0]].values()), list(best.daily[metrics[0]].values()))
        found.price = prices.get((vendor or "", type_))
        found.burst, found.past_credits = burstable(vendor, type_), past
        found.cost = _cost(found.price, best.estimates.get(RATE))
        yield found


def _facts(
    database: Database, service: str
) -> dict[tuple[str | None, str, str], tuple[int, tuple[int, int, int, int], tuple[str, ...], tuple[str, ...], bool]]:
    """Of each (vendor, type, plan): runs or periods; (first day, last day, quarters of the day, days); versions; whether
    every host had a run that outlasts its credits."""
    rows = database.rows(
        "with type as (select distinct vendor, coalesce(type, 'unknown') as type, host, plan from points "
        "where service = ?), "
        "measured as ("
        "select host, version, go_version, start_ns, coalesce(plan, '') as plan, length_ns, cpu from run left join "
        "(select host, run, source, max(value) as cpu from value where metric = 'cpu' group by all) "
        "using (host, run, source) "
        "where service = ? and coalesce(valid, true) "
        "union all select host, version, go_version, start_ns, '', null, null from period where service = ?), "
        "cpus as (select host, max(cpus) as cpus from machine group by host), "
        "hosts as (select vendor, type, type.plan, host, count(*) as runs, list(distinct start_ns // ?) as slots, "
        "list(distinct version) as versions, list(distinct go_version) as go_versions, "
        "bool_or(coalesce(length_ns >= ? and cpu >= ? * cpus, false)) as past "
        "from type join measured using (host, plan) left join cpus using (host) group by all) "
        "select vendor, type, plan, sum(runs)::bigint, flatten(list(slots)), flatten(list(versions)), "
        "flatten(list(go_versions)), bool_and(past) from hosts group by all",
        service,
        service,
        service,
        QUARTER_NS,
        PAST_CREDITS_NS,
        FULL_USE,
    )
    nothing = (0, (0, 0, 0, 0), (), (), False)
    found: defaultdict[
        tuple[str | None, str, str], tuple[int, tuple[int, int, int, int], tuple[str, ...], tuple[str, ...], bool]
    ] = defaultdict(lambda: nothing)
    for vendor, type_, plan, runs, slots, versions, go_versions, past in rows:
        days = min(slots) // 4, max(slots) // 4, *quarters(slots)
        texts = [tuple(sorted({each or "unknown" for each in names})) for names in (versions, go_versions)]
        found[vendor, type_, plan] = (runs, days, texts[0], texts[1], bool(past))
    return found


def _kept_by(slo: Requirement, estimate: Estimate | None) -> bool:
    """By the end of the interval that is nearer to the limit."""
    if estimate is None:
        return False
    end = estimate.high if slo.operator in ("<=", "<") else estimate.low
    return slo.check({slo.metric: end}).verdict == "met"


def _merit(measured: Measured, slos: Sequence[Requirement], metric: str) -> tuple[int, float, float]:
    """Of several loads the one that keeps most, then the one with the highest rate: what a machine sustains."""
    kept = sum(_kept_by(slo, measured.estimates.get(slo.metric)) for slo in slos)
    rate, first = measured.estimates.get(RATE), measured.estimates.get(metric)
    return kept, rate.value if rate else -math.inf, -first.value if first else -math.inf


def _cost(price: Price | None, rate: Estimate | None) -> Estimate | None:
    """Of a million requests, in the price's currency; a low rate makes it dear."""
    if price is None or rate is None or rate.value <= 0:
        return None
    if not math.isfinite(rate.low):
        return Estimate(price.per_hour / (rate.value * 3600) * 1e6, -math.inf, math.inf, rate.confidence)
    value, low, high = (
        price.per_hour / (each * 3600) * 1e6 if each > 0 else math.inf for each in (rate.value, rate.high, rate.low)
    )
    return Estimate(value, low, high, rate.confidence)


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
                "" if _kept_by(slo, each.measured.estimates[slo.metric]) else estimate_text(each, slo.metric)
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
        choice.notes.append("No prices: no cost, in the order of latency instead. --prices FILE gives some.")
    elif left and not choice.by_cost:
        choice.notes.append(
            "No cost: none of what is left has both a price and a measured rate (throughput); in the order of latency."
        )
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
    choice.steps.append(Step("beaten by none in everything?", chosen, choice.beaten))
    metric = METRICS[choice.metric]
    for number, each in enumerate(chosen):
        before = chosen[:number]
        alike = next((other.name for other in before if set(other.letters) & set(each.letters)), "")
        if not before:
            when = "the cheapest that keeps all" if choice.by_cost else f"the best {choice.metric}"
            choice.rules.append(Rule(when, each))
        elif value(each) < min(map(value, before)):
            best = min(before, key=value).measured.estimates[choice.metric].value
            word = "above" if sign < 0 else "below"
            choice.rules.append(Rule(f"if {choice.metric} must be {word} {metric.text(best)}", each, alike))
        elif spread(each) >= min(map(spread, before)):
            choice.rules.append(Rule("the cheapest whose speed is not lent", each, alike))
        else:
            least = min(map(spread, before))
            limit = f"less than {least:.1%}" if math.isfinite(least) else "a known amount"
            choice.rules.append(Rule(f"if hosts and days must differ by {limit}", each))


def _note(choice: Choice, metrics: Sequence[str]) -> None:
    if not choice.candidates:
        choice.notes.append(
            f"Nothing in the fleet has a value of {' or '.join(metrics)} for {choice.service}: "
            "a percentile needs enough values in a run or a day (a p99: 368), and emulated machines do not count."
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
                f"{each.name} {each.burst[0]} ({each.burst[1]}), and no run of 16 h at full use shows what it does without."
            )


def estimate_text(each: Candidate, metric: str) -> str:
    """latency.p99 71.2 ms (68.0 ms to 74.9 ms)."""
    of = each.measured.estimates[metric]
    text = METRICS[metric].text
    return f"{metric} {text(of.value)} ({text(of.low)} to {text(of.high)})" if math.isfinite(of.high) else text(of.value)


def evidence(each: Candidate) -> str:
    """On what a type was measured: 6 hosts, 24 measurements, 2026-08-01 to 2026-08-02."""
    days = " to ".join(dict.fromkeys(day_text(day) for day in each.days)) if each.runs else "days unknown"
    return f"{count_text(each.enough.hosts, 'host')}, {count_text(each.runs, 'measurement')}, {days}"


def rule_text(rule: Rule, choice: Choice) -> str:
    """One rule as a sentence, with what it costs."""
    take = rule.take
    price = f"within {take.price.per_hour:.4g} {take.price.currency}/h: " if take.price and choice.by_cost else ""
    unsure = f" (not told apart from {rule.unsure} in {choice.metric})" if rule.unsure else ""
    flag = " [burstable: not measured past its credits]" if take.is_lent else ""
    return f"{rule.when}: {take.name}{unsure}{flag}" if not price else f"{price}{take.name}, {rule.when}{unsure}{flag}"


def cost_text(each: Candidate) -> str:
    """Of a million requests, with its interval; "-" if it is not known."""
    if each.cost is None or each.price is None:
        return "-"
    interval = f" ({each.cost.low:.3g} to {each.cost.high:.3g})" if math.isfinite(each.cost.low) else ""
    return f"{each.cost.value:.3g}{interval} {each.price.currency}"


def spread_text(each: Candidate) -> tuple[str, str]:
    """Between hosts, and from day to day."""
    between, within = ("-" if of is None else percent_text(of) for of in each.stability)
    return between, within


def heads(choice: Choice) -> list[str]:
    """Of the table of what kept all."""
    return ["type", choice.metric, "letters", "a million requests", "between hosts", "between days", "price", "measured on"]


def rows(choice: Choice) -> list[list[str]]:
    """What kept all: those of the rules first, then those that others beat."""
    taken = list({rule.take.name: rule.take for rule in choice.rules}.values())
    return [
        [
            each.name,
            estimate_text(each, choice.metric).removeprefix(f"{choice.metric} "),
            each.letters,
            cost_text(each),
            *spread_text(each),
            str(each.price) if each.price else "unknown",
            evidence(each),
        ]
        for each in (*taken, *choice.beaten)
    ]


def cut_text(each: Candidate) -> str:
    """Why a type is not among those that are left, and on what evidence."""
    return f"{each.name}: {each.cut or f'beaten by {each.beaten_by}'}; {evidence(each)}"


def estimate_to_json(of: Estimate) -> dict[str, float | None]:
    """Null for ends that are not known."""
    low, high = (end if math.isfinite(end) else None for end in (of.low, of.high))
    return {"value": of.value, "low": low, "high": high, "confidence": of.confidence}


def type_to_json(each: Candidate) -> dict[str, Any]:
    """`gotrace.records.fleet.ChoiceType`; times in ns."""
    return {
        "type": each.name,
        "provider": each.provider,
        "instance": each.instance,
        "hosts": each.enough.hosts,
        "runs": each.runs,
        "days": [day_text(day) for day in each.days] if each.runs else None,
        "plan": each.measured.plan or None,
        "versions": list(each.versions),
        "go_versions": list(each.go_versions),
        "metrics": {metric: estimate_to_json(of) for metric, of in each.measured.estimates.items()},
        "price": vars(each.price) if each.price else None,
        "cost_of_a_million": each.cost and estimate_to_json(each.cost),
        "stability": each.stability._asdict(),
        "letters": each.letters or None,
        "burstable": each.burst and {"what": each.burst[0], "source": each.burst[1], "past": each.past_credits},
        "cut": each.cut or None,
        "beaten_by": each.beaten_by or None,
    }


def to_json(choice: Choice) -> dict[str, Any]:
    """As JSON; times in ns."""
    return {
        "schema": "gotrace.choice/1",
        "service": choice.service,
        "ranked_by": choice.metric,
        "slos": [str(each) for each in choice.slos],
        "steps": [
            {
                "question": step.question,
                "kept": [each.name for each in step.kept],
                "cut": [{"type": each.name, "why": each.cut or f"beaten by {each.beaten_by}"} for each in step.cut],
            }
            for step in choice.steps
        ],
        "rules": [
            {"when": rule.when, "take": rule.take.name, "not_told_apart_from": rule.unsure or None} for rule in choice.rules
        ],
        "types": [type_to_json(each) for each in choice.candidates],
        "broken": [{"file": file, "problem": problem} for file, problem in choice.broken],
        "notes": choice.notes,
    }
