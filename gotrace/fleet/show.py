"""What all hosts of a fleet had, by groups of them: of a metric, of its reasons, of memory, of starts.

A host's value is that of all it had; a group's is the median of its hosts. Emulated machines have no times here unless
they are asked for, and then they are groups of their own.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gotrace.analysis.stats.percentiles import enough
from gotrace.analysis.stats.values import Estimate
from gotrace.errors import UsageError
from gotrace.fleet.database import JOINED, REAL, VALID, Database
from gotrace.fleet.percentiles import BY, Merged, merged
from gotrace.fleet.show_hosts import Enough, Letters, Stability, letters, median_of, quarters, stability
from gotrace.fleet.tables import MOST_SKEW_NS
from gotrace.lab.metrics import METRICS
from gotrace.text import duration_text, printable

UNKNOWN = "unknown"
PERCENTS = (50, 90, 99, 99.9, 99.99)
LONGEST = 16
_PERCENTILE = re.compile(r"(.+)\.(?:p(\d+(?:\.\d+)?)|(max))")
# What a program or machine is run with, and differs for reasons of its own: of periods and runs, and of machines.
_OF_HOST = ("page_bytes", "huge_pages", "numa_nodes")
SETTINGS = ("go_version", "gogc", *_OF_HOST)

Key = tuple[str, str, bool]  # group, service, emulated


@dataclass(frozen=True)
class Asked:
    """A metric: a ``percent`` of the values of the histogram ``of``, or where that is None a value of each run."""

    metric: str
    of: str
    percent: float | None

    def text(self, value: float | None) -> str:
        """A value for people."""
        if value is None or math.isnan(value):
            return "?"
        known = METRICS.get(self.metric)
        return duration_text(value) if known is None else known.text(value)


@dataclass
class Series:
    """A service on a group of hosts. ``percentiles``: (value in ns, whether it is exact), None where values are too few."""

    key: Key
    hosts: int = 0
    values: int = 0
    percentiles: tuple[tuple[float, bool] | None, ...] = ()
    median: Estimate | None = None  # of what each host had
    counted: int = 0  # hosts that had enough values for that
    stability: Stability = Stability(None, None)
    measured: Enough = Enough(0, 0, 0)
    letters: str = ""
    lost: int = 0
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    per_host: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reason:
    """Stops for one reason; ``percentiles`` and ``longest`` as in `Series`."""

    key: Key
    reason: str
    values: int
    percentiles: tuple[tuple[float, bool] | None, ...]
    longest: float


@dataclass(frozen=True)
class Long:
    """One of the longest pauses of all. ``time_ns`` since 1970; None: unknown, or never explained."""

    length_ns: int
    time_ns: int | None
    host: str
    service: str
    version: str | None
    reason: str
    cause: str | None
    recording: str | None
    emulated: bool


@dataclass(frozen=True)
class Counted:
    """What an emulated machine has of a service besides times: valid runs, pauses by reason, explained ones by cause."""

    host: str
    service: str
    runs: int
    pauses: Mapping[str, int]
    causes: Mapping[str, int]


@dataclass
class Fleet:
    """All that is shown. ``absent``: of each host that was not reached its address, how often, when last (ns), and why."""

    by: str
    asked: Asked
    emulated: bool
    series: list[Series]
    tests: Mapping[str, Letters]  # of each service
    reasons: list[Reason]
    longest: list[Long]
    absent: list[tuple[str, str, int, int, str]]
    skewed: list[tuple[str, int]]
    broken: list[tuple[str, str]]
    notes: list[str]
    left_out: list[str]  # emulated hosts
    emulated_counts: list[Counted]  # of those
    invalid: int  # runs that do not count

    @property
    def at_least(self) -> bool:
        return any(each.lost for each in self.series)


def asked_for(database: Database, metric: str) -> Asked:
    """What ``metric`` is in this fleet. Raises UsageError, with those that there are, or SkippedError."""
    found = _PERCENTILE.fullmatch(metric)
    has = {name for (name,) in database.rows("select distinct metric from total")}
    if found and found[1] in has:
        percent = 100.0 if found[3] else float(found[2])
        if not 0 < percent <= 100:
            raise UsageError(f"there is no {printable(metric[:80])!r}", "percentiles lie between p0 and p100")
        return Asked(metric, found[1], percent)
    values = {name for (name,) in database.rows("select distinct metric from value")}
    if metric in values:
        return Asked(metric, metric, None)
    there = [*(f"{name}.p99" for name in sorted(has)), *sorted(values - {f"{name}.p99" for name in has})]
    raise database.lacks(f"metric {printable(metric[:80])!r}", there, ("total", "value"))


def shown(database: Database, metric: str, by: str, emulated: bool = False) -> Fleet:
    """All about a metric. Raises UsageError for one that there is not, or for what nobody can group by; SkippedError for
    one that may be in files that could not be read."""
    asked = asked_for(database, metric)
    rows = {each.key: each for each in _series(database, asked, by, emulated)}
    _tell_settings(database, rows.values(), by)
    _tell_losses(database, rows.values(), by)
    _tell_overlaps(database)
    return Fleet(
        by,
        asked,
        emulated,
        [rows[key] for key in sorted(rows, key=lambda key: (key[1], key))],
        {} if by == "host" else _compared(rows.values()),
        list(_reasons(database, by, emulated)),
        _longest(database, emulated),
        database.rows(
            "select arg_max(host, time_ns), url, count(problem), max(time_ns), arg_max(problem, time_ns) "
            # but for those that answered since
            "from absent group by url having max(time_ns) filter (where problem is not null) = max(time_ns) order by url"
        ),
        database.rows(
            "select host, arg_max(skew_ns, abs(skew_ns)) from period where abs(skew_ns) > ? group by host order by host",
            MOST_SKEW_NS,
        ),
        database.broken,
        database.notes,
        []
        if emulated
        else [host for (host,) in database.rows("select distinct host from machine where emulated order by 1")],
        [] if emulated else list(_counted(database)),
        database.rows("select count(*) from run where not valid")[0][0],
    )


def _series(database: Database, asked: Asked, by: str, emulated: bool) -> Iterator[Series]:
    rows: dict[Key, Series] = {}
    hosts: defaultdict[Key, dict[str, float]] = defaultdict(dict)
    slots: defaultdict[Key, defaultdict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    every: defaultdict[Key, set[str]] = defaultdict(set)
    if asked.percent is not None:
        names = (by, "service", "emulated")
        for each in merged(database, asked.of, names, PERCENTS, emulated=emulated):
            key = _key(each)
            rows[key] = Series(key, each.hosts, each.count, _percentiles(each))
        for each in merged(database, asked.of, (*names, "host"), [asked.percent], emulated=emulated):
            if asked.percent == 100 or enough(each.count, asked.percent):
                hosts[_key(each)][str(each.group[3])] = each.values_ns[0]
        for each in merged(database, asked.of, (*names, "host", "slot"), [asked.percent], emulated=emulated):
            every[_key(each)].add(str(each.group[4]))
            if asked.percent == 100 or enough(each.count, asked.percent):
                slots[_key(each)][str(each.group[3])][str(each.group[4])] = each.values_ns[0]
    else:
        found: defaultdict[tuple[Key, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for group, service, made_up, host, slot, value in _values(database, [asked.of], by, emulated, "part.value"):
            found[(group or UNKNOWN, service or UNKNOWN, bool(made_up)), host][slot].append(value)
        for (key, host), of in found.items():
            hosts[key][host] = statistics.median(value for values in of.values() for value in values)
            slots[key][host] = {slot: statistics.median(values) for slot, values in of.items()}
            every[key] |= of.keys()
            row = rows.setdefault(key, Series(key))
            row.hosts, row.values = row.hosts + 1, row.values + sum(map(len, of.values()))
    for key, row in rows.items():
        row.per_host, row.counted = hosts[key], len(hosts[key])
        row.median = median_of(list(hosts[key].values())) if hosts[key] else None
        row.stability = stability(list(hosts[key].values()), [list(of.values()) for of in slots[key].values()])
        row.measured = Enough(len(hosts[key]), *quarters(sorted(every[key])))
        yield row


def _key(each: Merged) -> Key:
    group, service, emulated = each.group[:3]
    return group or UNKNOWN, service or UNKNOWN, bool(emulated)


def _percentiles(each: Merged, percents: Iterable[float] = PERCENTS) -> tuple[tuple[float, bool] | None, ...]:
    found = zip(percents, each.values_ns, each.exact, strict=False)
    return tuple((value, exact) if enough(each.count, percent) else None for percent, value, exact in found)


def _values(
    database: Database, metrics: Sequence[str], by: str, emulated: bool, what: str
) -> list[tuple[str | None, str | None, str, str, str, Any]]:
    """(group, service, "emulated" or "", host, quarter of a day, ``what``) of valid runs' metrics."""
    only = "" if emulated else f"and {REAL} "
    return database.rows(
        f"select {BY[by]}, part.service, {BY['emulated']}, part.host, {BY['slot']}, {what} from value part "
        f"{JOINED} "
        "left join run on part.source = run.source and part.run = run.run and part.host = run.host "
        f"where list_contains(?, part.metric) and coalesce(run.valid, true) and isfinite(part.value) {only}",
        list(metrics),
    )


def _compared(rows: Iterable[Series]) -> dict[str, Letters]:
    """Groups of each service by their hosts, if those are enough; emulated ones never."""
    found = {}
    ready: defaultdict[str, list[Series]] = defaultdict(list)
    for row in rows:
        if not row.key[2] and not row.measured.lacking:
            ready[row.key[1]].append(row)
    for service, of in ready.items():
        if len(of) > 1:
            found[service] = letters({row.key[0]: list(row.per_host.values()) for row in of})
            for row in of:
                row.letters = found[service].of[row.key[0]]
    return found


def _tell_settings(database: Database, rows: Iterable[Series], by: str) -> None:
    """What else may differ within each group, and between them."""
    found: defaultdict[Key, dict[str, defaultdict[str, set[str]]]] = defaultdict(
        lambda: {name: defaultdict(set) for name in SETTINGS}
    )
    measured = "select distinct host, fingerprint, service, version, go_version, gogc from "
    for group, service, emulated, host, *values in database.rows(
        f"select distinct {BY[by]}, part.service, {BY['emulated']}, part.host, part.go_version, part.gogc, "
        f"machine.page_bytes, machine.huge_pages, machine.numa_nodes from ({measured} run union {measured} period) part "
        f"{JOINED}"
    ):
        for name, value in zip(SETTINGS, values, strict=True):
            of = found[group or UNKNOWN, service or UNKNOWN, bool(emulated)][name]
            of[host].add(UNKNOWN if value is None else str(value))
    for row in rows:
        row.settings = {
            # A recording does not say of its host what a report of the same one does.
            name: sorted({each for of in hosts.values() for each in (name in _OF_HOST and of - {UNKNOWN} or of)})
            for name, hosts in found[row.key].items()
        }


def _tell_losses(database: Database, rows: Iterable[Series], by: str) -> None:
    lost: defaultdict[Key, int] = defaultdict(int)
    for group, service, emulated, count in database.rows(
        f"select {BY[by]}, part.service, {BY['emulated']}, sum(part.lost)::bigint from "
        "(select host, fingerprint, service, version, lost from run where lost > 0 union all "
        "select host, fingerprint, service, version, lost from period where lost > 0) part "
        f"{JOINED} group by all"
    ):
        lost[group or UNKNOWN, service or UNKNOWN, bool(emulated)] += count
    for row in rows:
        row.lost = lost[row.key]


def _tell_overlaps(database: Database) -> None:
    """Of services that two sources (agents, or one and a recording) measured at the same time."""
    for host, service in database.rows(
        "select distinct host, service from (select host, service, source, start_ns, "
        "lag(source) over same as before, lag(start_ns + length_ns) over same as before_ns "
        f"from total part where metric = 'stw.total' and {VALID} "
        "window same as (partition by host, service, version, label order by start_ns)) "
        "where before <> source and start_ns < before_ns - 1_000_000_000 order by all"
    ):
        database.notes.append(
            f"{printable(host)}: {printable(service)} was measured twice at the same time: its pauses count twice"
        )


def _reasons(database: Database, by: str, emulated: bool) -> Iterator[Reason]:
    percents = (*PERCENTS, 100)
    for each in merged(database, "stw.total", (by, "service", "emulated", "reason"), percents, emulated=emulated):
        yield Reason(_key(each), each.group[3] or UNKNOWN, each.count, _percentiles(each), each.values_ns[-1])


def _longest(database: Database, emulated: bool) -> list[Long]:
    only = "" if emulated else f"and {REAL} "
    rows = database.rows(
        "select part.value_ns, part.time_ns, part.host, part.service, part.version, part.label, part.cause, "
        "part.recording, coalesce(machine.emulated, false) from worst part "
        f"{JOINED} "
        f"where metric = 'stw.total' and {VALID} {only}order by part.value_ns desc, part.time_ns limit {LONGEST}"
    )
    return [
        Long(length, time, host, service or UNKNOWN, version, reason or UNKNOWN, *more)
        for length, time, host, service, version, reason, *more in rows
    ]


def _counted(database: Database) -> Iterator[Counted]:
    def counts(what: str, table: str, only: str) -> dict[tuple[str, str], dict[str, int]]:
        found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for host, service, name, count in database.rows(
            f"select part.host, coalesce(part.service, '{UNKNOWN}'), {what} from {table} part {JOINED} "
            f"where machine.emulated and {only} group by all order by all"
        ):
            found[host, service][name or UNKNOWN] = count
        return found

    runs = counts("'runs', count(*)", "run", "part.valid")
    pauses = counts("part.label, sum(part.count)::bigint", "total", f"part.metric = 'stw.total' and {VALID}")
    causes = counts("part.cause, count(*)", "worst", f"part.metric = 'stw.total' and part.cause is not null and {VALID}")
    for key in sorted({*runs, *pauses}):
        yield Counted(*key, runs.get(key, {}).get("runs", 0), pauses.get(key, {}), causes.get(key, {}))


def to_json(fleet: Fleet) -> dict[str, Any]:
    """All of it, times in ns; null is unknown, or not shown for lack of values or hosts."""
    percent_names = [f"p{percent:g}" for percent in PERCENTS]

    def about(key: Key) -> dict[str, Any]:
        return {"group": key[0], "service": key[1], "emulated": key[2]}

    def values(percentiles: Sequence[tuple[float, bool] | None]) -> dict[str, Any]:
        found = [each and {"value": each[0], "exact": each[1]} for each in percentiles]
        return dict(zip(percent_names, found, strict=False))

    return {
        "schema": "gotrace.fleet-show/1",
        "by": fleet.by,
        "metric": fleet.asked.metric,
        "groups": [
            {
                **about(each.key),
                "hosts": each.hosts,
                "values": each.values,
                "percentiles_ns": values(each.percentiles),
                "median_of_hosts": each.median and _estimate(each.median),
                "hosts_counted": each.counted,
                "quarters_of_day": each.measured.slots,
                "days": each.measured.days,
                "not_enough": each.measured.lacking or None,
                "between_hosts": each.stability.between,
                "within_host": each.stability.within,
                "letters": each.letters or None,
                "lost": each.lost,
                "settings": each.settings,
            }
            for each in fleet.series
        ],
        "tests": [
            {"service": service, "a": a, "b": b, "p": p}
            for service, of in fleet.tests.items()
            for (a, b), p in of.p.items()
        ],
        "reasons": [
            {
                **about(each.key),
                "reason": each.reason,
                "values": each.values,
                "percentiles_ns": values(each.percentiles),
                "longest_ns": each.longest,
            }
            for each in fleet.reasons
        ],
        "longest": [vars(each) for each in fleet.longest],
        "absent": [dict(zip(("host", "url", "times", "last_ns", "problem"), each, strict=True)) for each in fleet.absent],
        "skewed_clocks": [{"host": host, "skew_ns": skew} for host, skew in fleet.skewed],
        "broken_files": [{"file": file, "problem": problem} for file, problem in fleet.broken],
        "emulated_left_out": fleet.left_out,
        "emulated_counts": [vars(each) for each in fleet.emulated_counts],
        "invalid_runs": fleet.invalid,
        "notes": fleet.notes,
    }


def _estimate(of: Estimate) -> dict[str, float | None]:
    ends = (of.low, of.high) if math.isfinite(of.low) else (None, None)
    return {"value": of.value, "low": ends[0], "high": ends[1]}
