"""What a million requests cost on each type of machine, against a percentile: the front of those that no other beats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gotrace.export.charts.page import label
from gotrace.export.picture.frame import asset
from gotrace.fleet.choose import front_of
from gotrace.fleet.choose_types import Candidate, candidates, services
from gotrace.fleet.choose_words import estimate_to_json, type_to_json
from gotrace.fleet.database import Database
from gotrace.fleet.prices import Price
from gotrace.fleet.trend_points import make

METRIC = "latency.p99"
SCRIPT = asset("fleet_page/costs.js")


@dataclass(frozen=True)
class Costs:
    """Types with a cost and the metric; ``front`` are the names of those of which none is both cheaper and faster.

    Types that were cut, or are measured on too few hosts, are on no front; one whose CPU is lent beats no other.
    """

    service: str
    metric: str
    types: Sequence[Candidate]
    front: frozenset[str]
    without: Sequence[tuple[str, str]] = ()  # types without a cost, and why


def costs(database: Database, prices: Mapping[tuple[str, str], Price]) -> list[Costs]:
    """Of each service that has any; none without prices."""
    if not prices:
        return []
    make(database)
    found = []
    for service in services(database):
        every = sorted(candidates(database, service, [METRIC], prices), key=lambda each: each.name)
        for each in every:
            each.cut = f"not enough: {each.enough.lacking}" if each.enough.lacking else ""
        found.append(costs_of(service, METRIC, [each for each in every if METRIC in each.measured.estimates]))
    return [each for each in found if each.types]


def costs_of(service: str, metric: str, every: Sequence[Candidate]) -> Costs:
    """Of candidates that have the metric."""
    priced = [each for each in every if each.cost]
    without = [(each.name, each.lacks_cost) for each in every if not each.cost]
    left = [each for each in priced if not each.cut]
    front: frozenset[str] = frozenset()
    if left:
        points = np.array([(each.cost.value, each.measured.estimates[metric].value) for each in left if each.cost])
        chosen = front_of(points, np.array([each.is_lent for each in left]))
        front = frozenset(each.name for each, on in zip(left, chosen, strict=True) if on)
    return Costs(service, metric, priced, front, without)


def figure(found: Costs) -> dict[str, Any]:
    """For costs.js: points from the cheapest on, with intervals where hosts are enough for them; ns."""
    priced = sorted(found.types, key=lambda each: each.cost.value if each.cost else 0)
    return {
        "kind": "costs",
        "metric": found.metric,
        "currency": next(each.price.currency for each in priced if each.price),
        "points": list(_points(found, priced)),
    }


def _points(found: Costs, priced: Sequence[Candidate]) -> Iterator[dict[str, Any]]:
    for each in priced:
        if each.cost:
            yield {
                "name": label(each.name),
                "cost": estimate_to_json(each.cost),
                "value": estimate_to_json(each.measured.estimates[found.metric]),
                "front": each.name in found.front,
                "cut": bool(each.cut),
                "lent": each.is_lent,
            }


def to_json(found: Costs) -> dict[str, Any]:
    """`gotrace.records.fleet.ShownCosts`."""
    return {
        "service": found.service,
        "metric": found.metric,
        "types": [type_to_json(each) for each in found.types],
        "front": sorted(found.front),
        "without": [{"type": name, "why": why} for name, why in found.without],
    }
