"""The types of machines that a service ran on: what was measured of each, by which load, and what it costs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gotrace.analysis.stats.values import Estimate
from gotrace.fleet.choose_burst import FULL_USE, PAST_CREDITS_NS, burstable
from gotrace.fleet.database import Database
from gotrace.fleet.prices import Price
from gotrace.fleet.show_hosts import Enough, Stability, median_of, quarters, stability
from gotrace.fleet.tables import QUARTER_NS
from gotrace.lab.metrics import METRICS
from gotrace.lab.requirements import Requirement

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


def services(database: Database) -> list[str]:
    """Of which something was measured, as `make` found it."""
    rows = database.rows("select distinct service from points where service is not null order by 1")
    return [str(name) for (name,) in rows]


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


def kept_by(slo: Requirement, estimate: Estimate | None) -> bool:
    """By the end of the interval that is nearer to the limit."""
    if estimate is None:
        return False
    end = estimate.high if slo.operator in ("<=", "<") else estimate.low
    return slo.check({slo.metric: end}).verdict == "met"


def _merit(measured: Measured, slos: Sequence[Requirement], metric: str) -> tuple[int, float, float]:
    """Of several loads the one that keeps most, then the one with the highest rate: what a machine sustains."""
    kept = sum(kept_by(slo, measured.estimates.get(slo.metric)) for slo in slos)
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


def estimate_text(each: Candidate, metric: str) -> str:
    """latency.p99 71.2 ms (68.0 ms to 74.9 ms)."""
    of = each.measured.estimates[metric]
    text = METRICS[metric].text
    return f"{metric} {text(of.value)} ({text(of.low)} to {text(of.high)})" if math.isfinite(of.high) else text(of.value)
