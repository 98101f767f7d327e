"""A fleet as one HTML page: percentile curves that can be filtered, the tables, and what the longest pauses waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gotrace.export.charts.page import OTHERS, Markup, Page
from gotrace.export.charts.runs import COLOURS
from gotrace.export.flame.draw import still, svg
from gotrace.export.picture.frame import asset
from gotrace.fleet.costs import SCRIPT as COST_SCRIPT
from gotrace.fleet.costs import Costs, costs, figure
from gotrace.fleet.database import JOINED, REAL, VALID, Database
from gotrace.fleet.percentiles import BY
from gotrace.fleet.prices import Price
from gotrace.fleet.show import PERCENTS, UNKNOWN, Fleet, shown
from gotrace.fleet.show_memory import Along, Amplification, Resident, Stage, amplification, resident, starts
from gotrace.fleet.show_sections import ALL_VALUES, Claim, sections, title, warnings
from gotrace.fleet.show_stragglers import Stragglers, stragglers
from gotrace.text import printable

_FILTERS = ("vendor", "type", "service", "version")
_WORDS = {"metric": "metric", "by": "a curve for each", **{name: name for name in _FILTERS}}
_MOST_BUCKETS = 400_000  # in a page: some 4 MB
_STRAGGLERS = "What the longest pauses waited for"
_SCRIPT, _STYLE = asset("fleet_page/page.js"), asset("fleet_page/page.css")


@dataclass(frozen=True)
class Shown:
    """All that is shown of a fleet."""

    fleet: Fleet
    memory: tuple[list[Amplification], Mapping[str, Sequence[Along]]]
    resident: list[Resident]
    stages: list[Stage]
    stragglers: Stragglers
    cells: list[dict[str, Any]]
    claims: Sequence[Claim] = ()
    costs: Sequence[Costs] = ()
    cut: bool = False  # the cells are of one metric, as there are too many


def looked_at(
    database: Database,
    metric: str,
    by: str,
    emulated: bool = False,
    claims: Sequence[Claim] = (),
    prices: Mapping[tuple[str, str], Price] | None = None,
) -> Shown:
    """Raises what `shown` does."""
    fleet = shown(database, metric, by, emulated)
    cells = _cells(database, emulated)
    cut = sum(len(cell["buckets"]) for cell in cells) > _MOST_BUCKETS
    if cut:
        cells = [cell for cell in cells if cell["metric"] == fleet.asked.of]
    return Shown(
        fleet,
        amplification(database, by),
        resident(database, by),
        starts(database, by, emulated),
        stragglers(database, emulated),
        cells,
        claims,
        costs(database, prices or {}),
        cut,
    )


def picture(found: Stragglers) -> str:
    """The flame graph as a file of its own."""
    return svg(found.profile, _STRAGGLERS, found.subtitle, counted="pauses")


def page(found: Shown) -> str:
    """The whole page."""
    fleet, made = found.fleet, Page()
    for told in warnings(fleet):
        made.say(told, "lost")
    if found.cut:
        made.say(f"Too many histograms for one page: curves are shown for {fleet.asked.of} only.", "lost")
    if found.cells:
        curves = {
            "kind": "fleet",
            "cells": found.cells,
            "metric": fleet.asked.of,
            "by": fleet.by if fleet.by in _FILTERS else "type",
            "bys": _FILTERS,
            "texts": _WORDS,
            "percents": PERCENTS,
            "colours": [*COLOURS, *OTHERS],
        }
        made.draw("Percentiles", curves)
    for each in found.costs:
        made.draw(f"Cost against {each.metric}: {each.service}", figure(each))
    for section in sections(fleet, found.memory, found.resident, found.stages, found.claims, found.costs):
        folded = bool(found.cells) and section.title.startswith(ALL_VALUES)  # the figure has its own
        made.table(section.title, section.heads, section.rows, names=section.names, folded=folded)
        for note in section.notes:
            made.say(note)
    style = _STYLE
    if found.stragglers.explained:
        drawn, flame_style = still(found.stragglers.profile, counted="pauses")
        made.head(_STRAGGLERS)
        made.say(f"{found.stragglers.subtitle}. -o stragglers.svg draws a zoomable one.")
        made.put(Markup(f'<div class="wide" role="region" aria-label="{_STRAGGLERS}" tabindex="0">\n{drawn}</div>'))
        style += flame_style
    made.head("Add your host")
    made.say("Two commands: measure a service there, then add the result to the folder that this page was made from.")
    made.put(
        Markup(
            "<pre>gotrace baseline --load 'wrk -t2 -c50 -d30s http://127.0.0.1:8080/' --out out -- ./service\n"
            "gotrace fleet add DIR out</pre>"
        )
    )
    return made.made(title(fleet), style, [_SCRIPT, COST_SCRIPT] if found.costs else [_SCRIPT])


def _cells(database: Database, emulated: bool) -> list[dict[str, Any]]:
    """Buckets of each metric by vendor, type, service and version; hosts by number, the 16 longest values in ns."""
    only = f"where {VALID} " if emulated else f"where {VALID} and {REAL} "
    keys = ", ".join(f"{BY[name]} as {name}" for name in _FILTERS)
    joined = f"part {JOINED}"
    what = f"{keys}, {BY['emulated']} as made_up, part.metric as metric"
    names = f"{', '.join(_FILTERS)}, made_up, metric"
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    numbers: dict[str, int] = {}
    for *key, hosts, zeros in database.rows(
        f"select {what}, list(distinct part.host), coalesce(sum(part.zeros), 0)::bigint from total {joined} {only}"
        "group by all"
    ):
        *of, made_up, metric = key
        found[tuple(key)] = {
            **{name: printable(value or UNKNOWN) for name, value in zip(_FILTERS, of, strict=True)},
            "emulated": bool(made_up),
            "metric": printable(metric),
            "hosts": sorted(numbers.setdefault(host, len(numbers)) for host in sorted(hosts)),
            "zeros": zeros,
            "buckets": [],
            "counts": [],
            "worst": [],
            "known": True,
        }
    for *key, buckets, counts in database.rows(
        f"select {names}, list(bucket order by bucket), list(n order by bucket) from (select {what}, part.bucket, "
        f"sum(part.n)::bigint as n from hist {joined} {only}group by all) group by all"
    ):
        if tuple(key) in found:
            found[tuple(key)] |= {"buckets": buckets, "counts": counts}
    for *key, longest in database.rows(f"select {what}, max(part.value_ns, 16) from worst {joined} {only}group by all"):
        if tuple(key) in found:
            found[tuple(key)]["worst"] = longest
    # Of a window whose longest values are not kept no percentile is exact.
    for row in database.rows(
        f"select distinct {what} from total {joined} anti join worst on part.source = worst.source "
        f"and part.start_ns = worst.start_ns and part.service = worst.service and part.metric = worst.metric {only}"
    ):
        if row in found:
            found[row] |= {"worst": [], "known": False}
    return [found[key] for key in sorted(found, key=lambda key: [str(each) for each in key])]
