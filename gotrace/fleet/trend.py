"""Since when a fleet is slower, and what else changed at that time: of the machines first, then of the program.

A series is the daily (or hourly) median over hosts of a metric, of one service on one type of machine (or what else it
is grouped by); runs of different plans are different series. Its changes are those of `gotrace.analysis.stats.e_divisive`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gotrace.analysis.stats.e_divisive import LEAST_P, LEAST_SIDE, PERMUTATIONS, change_points
from gotrace.analysis.stats.multiple import benjamini_hochberg
from gotrace.errors import UsageError
from gotrace.fleet.database import Database
from gotrace.fleet.tables import DAY_NS, HOUR_NS, MOST_SKEW_NS
from gotrace.fleet.trend_points import MACHINE, RUNTIME, SOURCES, day_text, hour_text, make
from gotrace.lab.metrics import METRICS
from gotrace.text import printable

BY = {"vendor": "vendor", "type": "type", "arch": "arch", "host": "host", "service": "service", "version": "version"}
LEAST_CHANGE = 0.05
LEAST_POINTS = 14  # of fewer not even a perfect step has a p of 0.001
ALPHA = 0.05
_MOST_PERMUTATIONS = 99_999
_BESIDE = 3  # points of each side whose machines and versions are compared


@dataclass(frozen=True)
class Unit:
    """What a point of a series is: so many ns, counted since 1970 (UTC). A change of the last ``new`` points is new."""

    name: str
    ns: int
    new: int
    text: Callable[[int], str]


UNITS = {"day": Unit("day", DAY_NS, 14, day_text), "hour": Unit("hour", HOUR_NS, 24, hour_text)}


@dataclass(frozen=True)
class Series:
    """Of ``group``, by name; ``at``: units since 1970, ascending, each with the median of ``hosts`` of them."""

    group: tuple[tuple[str, str | None], ...]
    metric: str
    plan: str
    at: tuple[int, ...]
    values: tuple[float, ...]
    hosts: tuple[int, ...]


@dataclass(frozen=True)
class Side:
    """What stood on one side of a change: by field, all that was there."""

    fields: dict[str, tuple[str, ...]]
    hosts: int
    fingerprints: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """A new level from ``at`` on. ``p`` is that of the maximum, ``q`` the one of its series, adjusted."""

    series: Series
    at: int
    before: float
    after: float
    p: float
    q: float
    new: bool
    points_before: int
    points_after: int

    @property
    def ratio(self) -> float:
        return self.after / self.before

    @property
    def worse(self) -> bool:
        """Less is better of what has no other name."""
        known = METRICS.get(self.series.metric)
        return (self.after < self.before) if known and known.better == "more" else (self.after > self.before)


@dataclass(frozen=True)
class Together:
    """All changes of one group at one time, and what else differs there: (field, before, after), machines first."""

    at: int
    group: tuple[tuple[str, str | None], ...]
    changes: list[Change]
    before: Side
    after: Side

    @property
    def differences(self) -> list[tuple[str, str, str]]:
        return [
            (name, _texts(self.before.fields[name]), _texts(self.after.fields[name]))
            for name in self.before.fields
            if self.before.fields[name] != self.after.fields[name]
        ]

    @property
    def of_machines(self) -> list[tuple[str, str, str]]:
        return [each for each in self.differences if each[0] != "version"]


@dataclass
class Trend:
    """All that was found; ``new`` is counted in points from the newest one in the folder on."""

    unit: Unit
    series: int
    short: int
    without_ratio: int
    new: int
    permutations: int
    found: list[Together] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def new_worse(self) -> list[Change]:
        return [each for together in self.found for each in together.changes if each.new and each.worse]

    @property
    def status(self) -> int:
        return 1 if self.new_worse else 3 if self.broken else 0


def trend(
    database: Database,
    by: Sequence[str] = ("service", "type"),
    metric: str | None = None,
    since: int | None = None,
    new: int | None = None,
    unit: Unit = UNITS["day"],
) -> Trend:
    """Every change of the last ``since`` points (counted from the newest). Raises UsageError for an unknown metric,
    SkippedError for one that may be in files that could not be read."""
    if unknown := [each for each in by if each not in BY]:
        raise UsageError(f"cannot group by {printable(unknown[0])!r}", f"there are {', '.join(BY)}")
    make(database, unit.ns)
    new = unit.new if new is None else new
    last, ahead = _newest(database, unit)
    rows = list(_series(database, by, metric, last, since))
    if metric is not None and not rows:
        names = [name for (name,) in database.rows("select distinct metric from points order by 1")]
        raise database.lacks(f"metric {printable(metric[:80])!r}", names, SOURCES)
    long = [each for each in rows if len(each.at) >= LEAST_POINTS]
    judged = [each for each in long if min(each.values) > 0]
    # The least p has to be small enough for one change among so many series to be seen.
    permutations = min(max(PERMUTATIONS, math.ceil(len(judged) / ALPHA) - 1), _MOST_PERMUTATIONS)
    found = Trend(unit, len(rows), len(rows) - len(long), len(long) - len(judged), new, permutations)
    found.broken, found.notes = database.broken, [*database.notes, *ahead]
    if judged and len(judged) > ALPHA * (permutations + 1):
        found.notes.append(f"of {len(judged)} series at once, a change in only one cannot be shown; choose a --metric")
    changes = list(_changes(judged, permutations, (last or 0) - new))
    changes.sort(key=lambda each: (each.at, repr(each.series.group), each.series.metric))
    for (at, group), each in itertools.groupby(changes, lambda change: (change.at, change.series.group)):
        of = list(each)
        begin, end = (
            [each_ for each_ in of[0].series.at if each_ < at][-_BESIDE:],
            [each_ for each_ in of[0].series.at if each_ >= at][:_BESIDE],
        )
        found.found.append(Together(at, group, of, *(_side(database, group, side, unit.ns) for side in (begin, end))))
    found.found.sort(key=lambda each: -each.at)
    return found


def _newest(database: Database, unit: Unit) -> tuple[int | None, list[str]]:
    """The newest point, and what is to be told of clocks: nothing is newer than the addition that it came with."""
    ((last, most),) = database.rows(
        "select (select max(point) from points), (select max(added_ns) + ? from source) // ?", MOST_SKEW_NS, unit.ns
    )
    if last is None or most is None or last <= most:
        return last, []
    hosts = [host for (host,) in database.rows("select distinct host from points where point > ? order by 1", most)]
    shown = ", ".join(map(printable, hosts[:3])) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
    return most, [
        f"The clock of {shown} was ahead: data up to {unit.text(last)}, which is later than it was added. "
        f"New is counted from {unit.text(most)}."
    ]


def _series(
    database: Database, by: Sequence[str], metric: str | None, last: int | None, since: int | None
) -> Iterator[Series]:
    names = ", ".join(BY[each] for each in by)
    after = last - since if last is not None and since is not None else -1
    rows = database.rows(
        f"with hosts as (select {names}, metric, plan, host as of_host, point, median(value) as value from points "
        f"where point > ? {'and metric = ?' if metric is not None else ''} group by all), "
        f"medians as (select {names}, metric, plan, point, median(value) as value, count(*) as hosts from hosts "
        f"group by all) "
        f"select {names}, metric, plan, list(point order by point), list(value order by point), list(hosts order by point) "
        f"from medians group by all order by {names}, metric, plan",
        after,
        *([metric] if metric is not None else []),
    )
    for *group, name, plan, at, values, hosts in rows:
        yield Series(tuple(zip(by, group, strict=True)), name, plan, tuple(at), tuple(values), tuple(hosts))


def _changes(rows: Sequence[Series], permutations: int, new_after: int) -> Iterator[Change]:
    """A series is looked at for all its changes if its first one stands among those of all series."""
    found = [change_points(np.array(each.values), LEAST_P, permutations) for each in rows]
    adjusted = benjamini_hochberg([min((p for _, p in points), default=1.0) for points in found])
    for series, points, q in zip(rows, found, adjusted.tolist(), strict=True):
        if q > ALPHA:
            continue
        places = [0, *(place for place, _ in points), len(series.values)]
        for number, (place, p) in enumerate(points, 1):
            before, after = series.values[places[number - 1] : place], series.values[place : places[number + 1]]
            old, new = float(np.median(before)), float(np.median(after))
            # The point matters, not those that were missing; 5 % is meant in either direction.
            if len(after) >= LEAST_SIDE and abs(math.log(new / old)) >= math.log1p(LEAST_CHANGE) - 1e-12:
                at = series.at[place]
                yield Change(series, at, old, new, p, q, at > new_after, len(before), len(after))


def _side(database: Database, group: Iterable[tuple[str, str | None]], points: Sequence[int], unit_ns: int) -> Side:
    """The machines, runtimes and versions of a group at these points."""
    where = " and ".join(f"{BY[name]} is not distinct from ?" for name, _ in group) or "true"
    columns = [f"machine.{name}" for name in MACHINE] + [f"runtime.{name}" for name in RUNTIME]
    lists = ", ".join(
        f"coalesce(list(distinct coalesce({column}::varchar, 'unknown')), [])" for column in (*columns, "who.version")
    )
    runtimes = " union all ".join(
        f"select host, service, version, start_ns // {unit_ns} as point, {', '.join(RUNTIME)} from {table}"
        for table in ("run", "period")
    )
    ((*found, hosts, fingerprints),) = database.rows(
        f"with who as (select distinct host, fingerprint, service, version, point from points "
        f"where list_contains(?, point) and {where}), "
        f"runtime as (select distinct * from ({runtimes}) where list_contains(?, point)) "
        f"select {lists}, count(distinct who.host), list(distinct who.fingerprint) from who "
        "left join machine on who.host = machine.host and who.fingerprint = machine.fingerprint "
        "left join runtime on who.host = runtime.host and who.service = runtime.service and who.point = runtime.point "
        "and who.version is not distinct from runtime.version",
        list(points),
        *(value for _, value in group),
        list(points),
    )
    names = (*MACHINE, *RUNTIME, "version")
    fields = {name: tuple(sorted(values)) for name, values in zip(names, found, strict=True)}
    return Side(fields, hosts, tuple(sorted(str(each) for each in fingerprints or () if each)))


def _texts(values: Sequence[str]) -> str:
    return ", ".join(values) or "unknown"


def to_json(found: Trend) -> dict[str, Any]:
    """As JSON; times of metrics in ns, sizes in bytes."""
    return {
        "schema": "gotrace.trend/2",
        "per": found.unit.name,
        "series": found.series,
        "too_short": found.short,
        "without_ratio": found.without_ratio,
        "permutations": found.permutations,
        "new": found.new,
        "changes": [
            {
                "at": found.unit.text(each.at),
                "group": dict(each.group),
                "machines_changed": bool(each.of_machines),
                "differences": [
                    {"field": name, "before": before, "after": after} for name, before, after in each.differences
                ],
                "hosts": [each.before.hosts, each.after.hosts],
                "fingerprints": [list(each.before.fingerprints), list(each.after.fingerprints)],
                "metrics": [
                    {
                        "metric": change.series.metric,
                        "plan": change.series.plan or None,
                        "before": change.before,
                        "after": change.after,
                        "ratio": change.ratio,
                        "p": change.p,
                        "q": change.q,
                        "new": change.new,
                        "worse": change.worse,
                        "points": [change.points_before, change.points_after],
                    }
                    for change in each.changes
                ],
            }
            for each in found.found
        ],
        "broken": [{"file": file, "problem": problem} for file, problem in found.broken],
        "notes": found.notes,
    }
