"""Percentiles of merged histograms, of any groups of hosts, services or versions.

A value is exact where at most 16 are larger, for the longest of every period are kept themselves; else it is the middle
of its bucket, which is at most 1.1 % off. Percentiles are never averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gotrace.errors import UsageError
from gotrace.fleet.database import JOINED, REAL, VALID, Database
from gotrace.fleet.tables import QUARTER_NS, middle_ns
from gotrace.text import printable

# What people may group by, and the column of it: of the machine, or of what was measured.
BY = {
    "vendor": "machine.provider",
    "type": "machine.instance",
    "arch": "machine.architecture",
    "host": "part.host",
    "service": "part.service",
    "version": "part.version",
    # For us, within these: the reason of a stop, and the quarter of a day (their number since 1970).
    "reason": "part.label",
    "slot": f"(part.start_ns // {QUARTER_NS})::varchar",
    "emulated": "case when machine.emulated then 'emulated' else '' end",
}


@dataclass(frozen=True)
class Merged:
    """All values of a metric in one group. ``group`` has a name for each thing it is grouped by, None if unknown; values in
    the order of the percentiles that were asked for, in ns; ``exact`` says of which that is true to the nanosecond."""

    group: tuple[str | None, ...]
    count: int
    hosts: int
    values_ns: tuple[float, ...]
    exact: tuple[bool, ...]


def merged(
    database: Database, metric: str, by: Sequence[str], percents: Sequence[float], *, emulated: bool = False
) -> list[Merged]:
    """Of each group, in the order of their names. Emulated machines are left out of times unless ``emulated``.

    ``metric`` is a histogram's name in the tables ("stw.total"), ``percents`` are 0 to 100. Raises UsageError for what
    nobody can group by.
    """
    if unknown := [each for each in by if each not in BY]:
        raise UsageError(f"cannot group by {printable(unknown[0])!r}", f"there are {', '.join(BY)}")
    keys = ", ".join(f"{BY[each]} as by{number}" for number, each in enumerate(by)) or "0 as by0"
    names = ", ".join(f"by{number}" for number in range(max(1, len(by))))
    joined = f"{{table}} part {JOINED} where metric = ? and {VALID}" + ("" if emulated else f" and {REAL}")
    # By group: hosts, values of 0, and whether the longest of every window are known.
    totals: dict[tuple[Any, ...], tuple[int, int, bool]] = {
        row[:-3]: row[-3:]
        for row in database.rows(
            f"with of as (select {keys}, part.host as of_host, part.source, part.start_ns, part.service as of_service, "
            f"zeros from {joined.format(table='total')}), "
            "known as (select distinct source, start_ns, service as of_service, true as is_known from worst "
            f"where metric = ?) select {names}, count(distinct of_host), coalesce(sum(zeros), 0)::bigint, "
            "bool_and(coalesce(is_known, false)) "
            f"from of left join known using (source, start_ns, of_service) group by all order by {names}",
            metric,
            metric,
        )
    }
    buckets: dict[tuple[Any, ...], tuple[list[int], list[int]]] = {
        row[:-2]: row[-2:]
        for row in database.rows(
            f"select {names}, list(bucket order by bucket), list(n order by bucket) from "
            f"(select {keys}, bucket, sum(n)::bigint as n from {joined.format(table='hist')} group by all) summed "
            "group by all",
            metric,
        )
    }
    # The longest of a window are those of all reasons: which of one reason are missing among them, nobody knows.
    kept, table = ("[max(max_ns)]", "total") if "reason" in by else ("max(value_ns, 16)", "worst")
    worst: dict[tuple[Any, ...], list[int]] = {
        row[:-1]: row[-1]
        for row in database.rows(f"select {keys}, {kept} from {joined.format(table=table)} group by all", metric)
    }
    found = []
    for group, (hosts, zeros, is_known) in totals.items():
        indexes, counts = (np.array(each, np.int64) for each in buckets.get(group, ([], [])))
        longest = np.array(worst.get(group, []) if is_known or "reason" in by else [], np.int64)
        if (count := int(counts.sum()) + zeros) == 0:
            continue
        values, exact = values_at(indexes, counts, zeros, longest, percents)
        found.append(Merged(group if by else (), count, hosts, values, exact))
    return found


def values_at(
    indexes: Any, counts: Any, zeros: int, longest_ns: Any, percents: Sequence[float]
) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """The percentiles (nearest rank) of a histogram, and which of them are exact.

    ``indexes`` ascend, schema 5; ``longest_ns`` are the largest values themselves, at most 16 and descending.
    """
    total = int(counts.sum()) + zeros
    up_to = np.cumsum(counts) + zeros
    values, exact = [], []
    for percent in percents:
        rank = max(1, math.ceil(round(percent / 100 * total, 6)))
        from_top = total - rank
        if from_top < len(longest_ns):
            values.append(float(longest_ns[from_top]))
            exact.append(True)
        elif rank <= zeros:
            values.append(0.0)
            exact.append(True)
        else:
            values.append(middle_ns(int(indexes[np.searchsorted(up_to, rank)])))
            exact.append(False)
    return tuple(values), tuple(exact)
