"""Since when a fleet is slower, and what else changed on that day: of the machines first, then of the program.

A series is the daily median over hosts of a metric, of one service on one type of machine (or what else it is grouped by);
runs of different plans are different series. Its changes are those of `gotrace.analysis.stats.e_divisive`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gotrace.analysis.stats.e_divisive import LEAST_P, LEAST_SIDE, PERMUTATIONS, change_points
from gotrace.analysis.stats.multiple import benjamini_hochberg
from gotrace.errors import UsageError
from gotrace.fleet.database import Database
from gotrace.fleet.tables import DAY_NS
from gotrace.fleet.trend_daily import MACHINE, RUNTIME, day_text, make
from gotrace.lab.metrics import METRICS
from gotrace.text import printable

BY = {"vendor": "vendor", "type": "type", "arch": "arch", "host": "host", "service": "service", "version": "version"}
LEAST_CHANGE = 0.05
LEAST_DAYS = 14  # of fewer not even a perfect step has a p of 0.001
ALPHA = 0.05
NEW_DAYS = 14
_MOST_PERMUTATIONS = 99_999
_BESIDE = 3  # days of each side whose machines and versions are compared


@dataclass(frozen=True)
class Series:
    """Of ``group``, by name; ``days`` since 1970, ascending, with the medians of ``hosts`` of them."""

    group: tuple[tuple[str, str | None], ...]
    metric: str
    plan: str
    days: tuple[int, ...]
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
    """A new level from ``day`` on. ``p`` is that of the maximum, ``q`` the one of its series, adjusted."""

    series: Series
    day: int
    before: float
    after: float
    p: float
    q: float
    new: bool
    days_before: int
    days_after: int

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
    """All changes of one group on one day, and what else differs there: (field, before, after), machines first."""

    day: int
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
    """All that was found; ``last_day`` is the newest in the folder, which "new" is counted from."""

    series: int
    short: int
    without_ratio: int
    last_day: int | None
    new_days: int
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
    since_days: int | None = None,
    new_days: int = NEW_DAYS,
) -> Trend:
    """Every change of the last ``since_days`` (counted from the newest day). Raises UsageError for an unknown metric."""
    if unknown := [each for each in by if each not in BY]:
        raise UsageError(f"nothing can be grouped by {printable(unknown[0])!r}", f"there are {', '.join(BY)}")
    make(database)
    ((last,),) = database.rows("select max(day) from daily")
    rows = list(_series(database, by, metric, last, since_days))
    if metric is not None and not rows:
        names = [name for (name,) in database.rows("select distinct metric from daily order by 1")]
        hint = f"there are {', '.join(map(printable, names))}" if names else "nothing has been added: gotrace fleet add"
        raise UsageError(f"this fleet has no metric {printable(metric[:80])!r}", hint)
    long = [each for each in rows if len(each.days) >= LEAST_DAYS]
    judged = [each for each in long if min(each.values) > 0]
    # The least p has to be small enough for one change among so many series to be seen.
    permutations = min(max(PERMUTATIONS, math.ceil(len(judged) / ALPHA) - 1), _MOST_PERMUTATIONS)
    found = Trend(len(rows), len(rows) - len(long), len(long) - len(judged), last, new_days, permutations)
    found.broken, found.notes = database.broken, list(database.notes)
    if judged and len(judged) > ALPHA * (permutations + 1):
        found.notes.append(f"of {len(judged)} series at once a change of one alone cannot be shown; ask for a --metric")
    changes = list(_changes(judged, permutations, (last or 0) - new_days))
    changes.sort(key=lambda each: (each.day, repr(each.series.group), each.series.metric))
    for (day, group), each in itertools.groupby(changes, lambda change: (change.day, change.series.group)):
        of = list(each)
        begin, end = (
            [day_ for day_ in of[0].series.days if day_ < day][-_BESIDE:],
            [day_ for day_ in of[0].series.days if day_ >= day][:_BESIDE],
        )
        found.found.append(Together(day, group, of, _side(database, group, begin), _side(database, group, end)))
    found.found.sort(key=lambda each: -each.day)
    return found


def _series(
    database: Database, by: Sequence[str], metric: str | None, last: int | None, since_days: int | None
) -> Iterator[Series]:
    names = ", ".join(BY[each] for each in by)
    after = last - since_days if last is not None and since_days is not None else -1
    rows = database.rows(
        f"with hosts as (select {names}, metric, plan, host as of_host, day, median(value) as value from daily "
        f"where day > ? {'and metric = ?' if metric is not None else ''} group by all), "
        f"days as (select {names}, metric, plan, day, median(value) as value, count(*) as hosts from hosts group by all) "
        f"select {names}, metric, plan, list(day order by day), list(value order by day), list(hosts order by day) "
        f"from days group by all order by {names}, metric, plan",
        after,
        *([metric] if metric is not None else []),
    )
    for *group, name, plan, days, values, hosts in rows:
        yield Series(tuple(zip(by, group, strict=True)), name, plan, tuple(days), tuple(values), tuple(hosts))


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
            # The day matters, not the days that were missing; 5 % is meant in either direction.
            if len(after) >= LEAST_SIDE and abs(math.log(new / old)) >= math.log1p(LEAST_CHANGE) - 1e-12:
                day = series.days[place]
                yield Change(series, day, old, new, p, q, day > new_after, len(before), len(after))


def _side(database: Database, group: Iterable[tuple[str, str | None]], days: Sequence[int]) -> Side:
    """The machines, runtimes and versions of a group on these days."""
    where = " and ".join(f"{BY[name]} is not distinct from ?" for name, _ in group) or "true"
    columns = [f"machine.{name}" for name in MACHINE] + [f"runtime.{name}" for name in RUNTIME]
    lists = ", ".join(
        f"coalesce(list(distinct coalesce({column}::varchar, 'unknown')), [])" for column in (*columns, "who.version")
    )
    runtimes = " union all ".join(
        f"select host, service, version, start_ns // {DAY_NS} as day, {', '.join(RUNTIME)} from {table}"
        for table in ("run", "period")
    )
    ((*found, hosts, fingerprints),) = database.rows(
        f"with who as (select distinct host, fingerprint, service, version, day from daily "
        f"where list_contains(?, day) and {where}), "
        f"runtime as (select distinct * from ({runtimes}) where list_contains(?, day)) "
        f"select {lists}, count(distinct who.host), list(distinct who.fingerprint) from who "
        "left join machine on who.host = machine.host and who.fingerprint = machine.fingerprint "
        "left join runtime on who.host = runtime.host and who.service = runtime.service and who.day = runtime.day "
        "and who.version is not distinct from runtime.version",
        list(days),
        *(value for _, value in group),
        list(days),
    )
    names = (*MACHINE, *RUNTIME, "version")
    fields = {name: tuple(sorted(values)) for name, values in zip(names, found, strict=True)}
    return Side(fields, hosts, tuple(sorted(str(each) for each in fingerprints or () if each)))


def _texts(values: Sequence[str]) -> str:
    return ", ".join(values) or "unknown"


def to_json(found: Trend) -> dict[str, Any]:
    """As JSON; times of metrics in ns, sizes in bytes."""
    return {
        "schema": "gotrace.trend/1",
        "series": found.series,
        "too_short": found.short,
        "without_ratio": found.without_ratio,
        "permutations": found.permutations,
        "new_days": found.new_days,
        "changes": [
            {
                "day": day_text(each.day),
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
                        "days": [change.days_before, change.days_after],
                    }
                    for change in each.changes
                ],
            }
            for each in found.found
        ],
        "broken": [{"file": file, "problem": problem} for file, problem in found.broken],
        "notes": found.notes,
    }
