"""Old days made small: an agent's minutes become hours, and the files of many additions one of each table and day.

Nothing is lost that a percentile, a count or a trend is made of: sums by bucket, and by total, are exact, and the longest
values of an hour are the 16 longest of its minutes. What goes is which minute a value is of, and the sizes of memory of
single minutes, of which the mean stays. Runs and recordings are not merged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gotrace.agent.spool import WORST
from gotrace.errors import UsageError
from gotrace.fleet.database import Database, UnreadableError, duckdb, opened, select_of
from gotrace.fleet.store import MOST_ROWS, adding, check, files_of
from gotrace.fleet.tables import DAY_NS, DAY_OF, HOUR_NS, columns_of
from gotrace.text import printable

_AT_ONCE = 1 << 16  # rows on their way
_WHOSE = "host, fingerprint, service, version, source"
_SERIES = f"{_WHOSE}, metric"
_KNOWN_BY = "source, service, metric"  # whether the longest values of a window are, for gotrace.fleet.percentiles
_WEIGHT = "greatest(coalesce(length_ns, 1), 1)::double"
_SIZES = ", ".join(
    f"round(sum({name} * {_WEIGHT}) / (sum({_WEIGHT}) filter (where {name} is not null)))::bigint as {name}"
    for name in ("rss_bytes", "heap_bytes", "live_bytes", "goal_bytes")
)
# Windows of a series as hours. Where the longest values of some minutes of an hour are known and of others are not, those
# minutes stay: of the hour it would look as if all were known.
_HOURS = f"""
create or replace temp view hour as
select {_KNOWN_BY}, start_ns // {HOUR_NS} as hour from (
  select {_KNOWN_BY}, start_ns, bool_or(known) as known from (
    select {_KNOWN_BY}, start_ns, false as known from total_of union all select {_KNOWN_BY}, start_ns, true from worst_of)
  where source in (select source from spool) group by all)
group by all having bool_or(known) = bool_and(known)
"""
_MERGED = {
    "period": f"select {_WHOSE}, go_version, gogc, gomaxprocs, begin_ns as start_ns, sum(length_ns)::bigint as length_ns, "
    f"max(processes) as processes, {_SIZES}, sum(lost)::bigint as lost, "
    "arg_max(skew_ns, abs(skew_ns)) as skew_ns from part group by all",
    "total": f"select {_SERIES}, label, begin_ns as start_ns, sum(length_ns)::bigint as length_ns, "
    "sum(count)::bigint as count, sum(zeros)::bigint as zeros, sum(sum_ns)::bigint as sum_ns, min(min_ns) as min_ns, "
    "max(max_ns) as max_ns from part group by all",
    "hist": f"select {_SERIES}, label, begin_ns as start_ns, bucket, sum(n)::bigint as n from part group by all",
    "worst": "select * replace (begin_ns as start_ns) from part qualify row_number() over "
    f"(partition by {_SERIES}, begin_ns order by value_ns desc, time_ns) <= {WORST}",
}


@dataclass
class Compacted:
    """What became of a fleet. ``left`` are days that stay as they are, since a file of theirs cannot be read, and why."""

    days: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=lambda: [0, 0])  # before and after
    files: list[int] = field(default_factory=lambda: [0, 0])
    size: list[int] = field(default_factory=lambda: [0, 0])  # bytes
    left: list[tuple[str, str]] = field(default_factory=list)


def compact(folder: str, older_days: int) -> Compacted:
    """Every day (UTC) that ended so many days ago. One that is cut off has done some days, and others not at all.

    Raises GotraceError, UsageError.
    """
    if older_days < 1:
        raise UsageError("today is still being written", "give at least 1d")
    last = time.strftime("%Y-%m-%d", time.gmtime(time.time() - (older_days + 1) * DAY_NS / 1e9))
    path, found = check(folder), Compacted()
    database, module = opened(folder), duckdb()
    database.rows("create temp table spool as select distinct source from source where kind = 'spool'")
    with adding(folder):
        days = sorted({_day(file) for table in DAY_OF for file in files_of(path, table)})
    for day in days:
        if day <= last:
            try:
                _compact(database, path, day, found)
            except (module.Error, UnreadableError) as error:
                found.left.append((day, printable(str(error).splitlines()[0])))
    return found


def _day(file: str) -> str:
    return Path(file).parent.name.removeprefix("date=")


def _compact(database: Database, folder: Path, day: str, found: Compacted) -> None:
    with adding(str(folder)) as addition:
        files = {table: [each for each in files_of(folder, table) if _day(each) == day] for table in DAY_OF}
        for table in DAY_OF:
            database.connection.execute(f"create or replace temp view {table}_of as {select_of(table, files[table])}")
        database.connection.execute(_HOURS)
        counts = {
            table: [database.rows(f"select count(*) from ({sql})")[0][0] for sql in (f"from {table}_of", _sql(table))]
            for table in DAY_OF
        }
        if not any(
            after < before or len(files[table]) > 1 + before // MOST_ROWS for table, (before, after) in counts.items()
        ):
            return
        for table, (before, after) in counts.items():
            for rows in _portions(database, _sql(table)):
                addition.add_columns(table, dict(zip(columns_of(table), map(list, zip(*rows, strict=True)), strict=True)))
            addition.replace(files[table])
            found.rows[0] += before
            found.rows[1] += after
        old = [file for of in files.values() for file in of]
        sizes = sum(Path(file).stat().st_size for file in old)
    new = [file for table in DAY_OF for file in files_of(folder, table) if _day(file) == day]
    found.days.append(day)
    for totals, values in ((found.files, (len(old), len(new))), (found.size, (sizes, _size(new)))):
        totals[:] = [total + value for total, value in zip(totals, values, strict=True)]


def _size(files: Sequence[str]) -> int:
    return sum(Path(file).stat().st_size for file in files)


def _sql(table: str) -> str:
    """The rows of a table of the day, as they are to be; in the order of `columns_of`."""
    columns = ", ".join(f'"{name}"' for name in columns_of(table))
    if table not in _MERGED:
        return f"select {columns} from {table}_of"
    if table == "period":
        begin = f"select *, start_ns // {HOUR_NS} * {HOUR_NS} as begin_ns, true as whole from period_of"
    else:
        joined = " and ".join(f"of.{name} is not distinct from hour.{name}" for name in _KNOWN_BY.split(", "))
        begin = (
            f"select of.*, of.start_ns // {HOUR_NS} * {HOUR_NS} as begin_ns, hour.hour is not null as whole "
            f"from {table}_of of left join hour on {joined} and of.start_ns // {HOUR_NS} = hour.hour"
        )
    every = f"every as ({begin})"
    part = "part as (select * exclude (whole) from every where whole and source in (select source from spool))"
    rest = f"select {columns} from every where not (whole and coalesce(source in (select source from spool), false))"
    return f"with {every}, {part} select {columns} from ({_MERGED[table]}) union all {rest}"


def _portions(database: Database, sql: str) -> Iterator[list[tuple[object, ...]]]:
    result = database.connection.execute(sql)
    while rows := result.fetchmany(_AT_ONCE):
        yield rows
