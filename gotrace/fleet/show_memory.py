"""What stands in memory for each byte of heap (MAF), and how starts divide, by groups of hosts."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gotrace.analysis.stats.values import Estimate
from gotrace.fleet.database import JOINED, REAL, Database
from gotrace.fleet.percentiles import BY
from gotrace.fleet.show import SETTINGS, UNKNOWN, Key
from gotrace.fleet.show_hosts import median_of

# Sizes of a process, each a median: of an agent's minutes, or of runs.
PARTS = ("rss", "heap", "live", "goal")
STAGES = ("exec", "linker", "bootstrap", "inits", "main")


@dataclass(frozen=True)
class Amplification:
    """MAF of a group's hosts, and what it consists of: medians over hosts, in bytes, None where unknown.

    ``heap`` is HeapAlloc, of which ``live`` is reachable; ``goal`` is where a collection is to end."""

    key: Key
    hosts: int
    maf: Estimate
    parts: Mapping[str, float | None]
    settings: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Resident:
    """What RSS consists of, where a look at memory was recorded: medians over hosts, in bytes, the largest first."""

    key: Key
    hosts: int
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Along:
    """MAF by the values of a setting: (value, hosts, median). ``together``: settings that part the hosts in the same way:
    which of them matters cannot be told, nor whether any of them does."""

    setting: str
    values: Sequence[tuple[str, int, float]]
    together: Sequence[str]


@dataclass(frozen=True)
class Stage:
    """A value of a start, over hosts; in ns."""

    key: Key
    stage: str
    hosts: int
    runs: int
    median: Estimate


def amplification(database: Database, by: str, emulated: bool = True) -> tuple[list[Amplification], dict[str, list[Along]]]:
    """Of each group; and of each service along which settings MAF differs between hosts.

    Sizes are no times: those of emulated machines count, and are marked.
    """
    hosts: defaultdict[tuple[Key, str], _Host] = defaultdict(_Host)
    columns = ", ".join(f"{name}::varchar" for name in SETTINGS)
    about = f"{BY[by]}, part.service, {BY['emulated']}, part.host, {columns}"
    rows = database.rows(
        f"select {about}, rss_bytes / nullif(heap_bytes, 0)::double, rss_bytes::double, heap_bytes::double, "
        f"live_bytes::double, goal_bytes::double from period part {JOINED} where rss_bytes > 0"
    ) + database.rows(
        "with part as (select run.*, "
        + ", ".join(
            f"(select any_value(value) from value v where v.source = run.source and v.run = run.run and v.host = run.host "
            f"and v.metric = '{metric}') as {name}"
            for name, metric in (
                ("maf", "mem.amplification"),
                ("rss", "rss.mean"),
                ("live", "heap.live.mean"),
                ("goal", "heap.goal.mean"),
            )
        )
        + " from run where coalesce(valid, true)) "
        f"select {about}, maf, rss, rss / nullif(maf, 0), live, goal from part {JOINED} where maf is not null"
    )
    for row in rows:
        group, service, made_up, host = row[:4]
        settings, sizes = row[4 : 4 + len(SETTINGS)], row[4 + len(SETTINGS) :]
        of = hosts[(group or UNKNOWN, service or UNKNOWN, bool(made_up)), host]
        of.add(settings, sizes)
    groups: defaultdict[Key, list[_Host]] = defaultdict(list)
    for (key, _), of in hosts.items():
        if of.maf is not None:
            groups[key].append(of)
    found = [_amplification(key, groups[key]) for key in sorted(groups, key=lambda key: (key[1], key))]
    services = sorted({key[1] for key in groups})
    along = {name: list(_along([of for key in groups if key[1] == name for of in groups[key]])) for name in services}
    return found, {name: of for name, of in along.items() if of}


def resident(database: Database, by: str) -> list[Resident]:
    """The parts of RSS (`gotrace.analysis.heap_pages.PARTS`) of each group of which they are known."""
    found: defaultdict[Key, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, service, made_up, metric, _, size in database.rows(
        f"select {BY[by]}, part.service, {BY['emulated']}, part.metric, part.host, median(part.value) "
        f"from value part {JOINED} where starts_with(part.metric, 'rss.part.') group by all"
    ):
        key = (group or UNKNOWN, service or UNKNOWN, bool(made_up))
        found[key][metric.removeprefix("rss.part.")].append(size)
    rows = []
    for key in sorted(found, key=lambda key: (key[1], key)):
        sizes = {name: statistics.median(of) for name, of in found[key].items()}
        most = max(map(len, found[key].values()))
        rows.append(Resident(key, most, dict(sorted(sizes.items(), key=lambda each: -each[1]))))
    return rows


class _Host:
    def __init__(self) -> None:
        self.settings: dict[str, set[str]] = {name: set() for name in SETTINGS}
        self._sizes: dict[str, list[float]] = {name: [] for name in ("maf", *PARTS)}

    def add(self, settings: Sequence[str | None], sizes: Sequence[float | None]) -> None:
        for name, value in zip(SETTINGS, settings, strict=True):
            self.settings[name].add(value or UNKNOWN)
        for name, size in zip(self._sizes, sizes, strict=True):
            if size is not None:
                self._sizes[name].append(size)

    def size(self, name: str) -> float | None:
        return statistics.median(self._sizes[name]) if self._sizes[name] else None

    @property
    def maf(self) -> float | None:
        return self.size("maf")


def _amplification(key: Key, hosts: Sequence[_Host]) -> Amplification:
    parts = {}
    for name in PARTS:
        known = [size for host in hosts if (size := host.size(name)) is not None]
        parts[name] = statistics.median(known) if known else None
    settings = {name: sorted(set().union(*(host.settings[name] for host in hosts))) for name in SETTINGS}
    return Amplification(key, len(hosts), median_of([host.maf or 0.0 for host in hosts]), parts, settings)


def _along(hosts: Sequence[_Host]) -> Iterator[Along]:
    """Settings that have more than one value."""
    values = {name: [" and ".join(sorted(host.settings[name])) for host in hosts] for name in SETTINGS}
    parted = {name: _partition(of) for name, of in values.items()}
    for name, of in values.items():
        different = sorted(set(of))
        if len(different) < 2:
            continue
        rows = []
        for value in different:
            mafs = [host.maf or 0.0 for host, each in zip(hosts, of, strict=True) if each == value]
            rows.append((value, len(mafs), statistics.median(mafs)))
        together = [other for other in SETTINGS if other != name and parted[other] == parted[name]]
        yield Along(name, rows, together)


def _partition(values: Iterable[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def starts(database: Database, by: str, emulated: bool = False) -> list[Stage]:
    """The stages of starts, and how long until it was ready, of each group: medians over hosts of their runs' medians."""
    only = "" if emulated else f"and {REAL} "
    rows = database.rows(
        f"select {BY[by]}, part.service, {BY['emulated']}, part.metric, part.host, median(part.value), count(*) "
        f"from value part {JOINED} "
        "left join run on part.source = run.source and part.run = run.run and part.host = run.host "
        f"where starts_with(part.metric, 'start.') and coalesce(run.valid, true) and isfinite(part.value) {only}"
        "group by all"
    )
    found: defaultdict[tuple[Key, str], list[tuple[float, int]]] = defaultdict(list)
    for group, service, made_up, metric, _, value, runs in rows:
        key = (group or UNKNOWN, service or UNKNOWN, bool(made_up))
        found[key, metric.removeprefix("start.")].append((value, runs))
    order = {name: at for at, name in enumerate((*STAGES, "listen", "ready", "first_gc"))}
    return [
        Stage(key, stage, len(of), sum(runs for _, runs in of), median_of([value for value, _ in of]))
        for (key, stage), of in sorted(
            found.items(), key=lambda each: (each[0][0][1], each[0][0], order.get(each[0][1], 99))
        )
    ]


def to_json(
    groups: Sequence[Amplification],
    along: Mapping[str, Sequence[Along]],
    parts: Sequence[Resident],
    stages: Sequence[Stage],
) -> dict[str, Any]:
    """As `gotrace.fleet.show.to_json` has the others."""

    def about(key: Key) -> dict[str, Any]:
        return {"group": key[0], "service": key[1], "emulated": key[2]}

    return {
        "amplification": [
            {
                **about(each.key),
                "hosts": each.hosts,
                "maf": each.maf.value,
                **{f"{name}_bytes": each.parts[name] for name in PARTS},
                "settings": each.settings,
            }
            for each in groups
        ],
        "resident": [{**about(each.key), "hosts": each.hosts, "parts_bytes": each.parts} for each in parts],
        "amplification_along": [
            {
                "service": service,
                "setting": each.setting,
                "values": [dict(zip(("value", "hosts", "maf"), row, strict=True)) for row in each.values],
                "differs_together_with": each.together,
            }
            for service, of in along.items()
            for each in of
        ],
        "starts": [
            {**about(each.key), "stage": each.stage, "hosts": each.hosts, "runs": each.runs, "median_ns": each.median.value}
            for each in stages
        ],
    }
