"""What each host had of each metric in each day or hour: a table in the open database that `trend` and `choose` ask.

Of runs it is the median of those that are valid; of an agent's histograms p50 and p99 of all values of that time, within
1.1 %, where there are enough; of memory the mean of its periods. Runs go before histograms where both are there.
"""

from __future__ import annotations

import numpy as np

from gotrace.analysis.stats.percentiles import values_needed
from gotrace.fleet.database import Database
from gotrace.fleet.tables import DAY_NS, middle_sql

# What a machine is made of, and how the runtime was set: what explains a change before the program does.
MACHINE = [
    "provider",
    "instance",
    "architecture",
    "cpu",
    "cpus",
    "cores",
    "kernel",
    "page_bytes",
    "memory_bytes",
    "numa_nodes",
    "governor",
    "boost",
    "huge_pages",
    "hypervisor",
    "quota_cpus",
]
RUNTIME = ["go_version", "gogc", "gomaxprocs"]

# What points are made of: one may be missing where a file of these is.
SOURCES = ("value", "hist", "total", "period")

_OF = "host, fingerprint, service, version"
# The percentile at its nearest rank, of buckets and the zeros beside them.
_HISTOGRAMS = """
with each as (
  select {of}, metric, start_ns // {unit} as point, bucket, sum(n)::bigint as n from hist
  where {agents} group by all
), zero as (
  select {of}, metric, start_ns // {unit} as point, coalesce(sum(zeros), 0)::bigint as zeros from total
  where {agents} group by all
), up as (
  select each.*, coalesce(zeros, 0) as zeros,
    sum(n) over (partition by {each}, each.metric, each.point order by bucket) + coalesce(zeros, 0) as upto,
    sum(n) over (partition by {each}, each.metric, each.point) + coalesce(zeros, 0) as count
  from each left join zero on {joined} and each.metric = zero.metric and each.point = zero.point
)
select {of}, metric || '{name}' as metric, '' as plan, point,
  case when any_value(zeros) >= ceil({share} * any_value(count)) then 0.0
    else {middle} end as value,
  any_value(count) as values
from up group by {of}, metric, point having any_value(count) >= {least}
"""
# Of a baseline every run has its own percentiles, of one load; those of all its runs together are no more of that.
_AGENTS = "coalesce(source, '') not in (select of.source from source of where of.kind = 'baseline')"
# By how long each was: an hour counts as much as its minutes.
_PERIODS = """
select {of}, '{metric}' as metric, '' as plan, start_ns // {unit} as point,
  sum({column} * {lasted}) / sum({lasted}) as value, count({column}) as values
from period where {column} is not null group by all
"""
_RUNS = """
select {part}, part.metric, coalesce(run.plan, '') as plan, part.start_ns // {unit} as point, median(part.value) as value,
  count(*) as values
from value part left join run on part.source = run.source and part.run = run.run and part.host = run.host
where coalesce(run.valid, true) and isfinite(part.value) group by all
"""


def make(database: Database, unit_ns: int = DAY_NS) -> None:
    """Make the table ``points``: of each host, fingerprint, service, version, metric, plan, and ``point``, a number of
    units since 1970 (UTC).

    A host's ``type`` is what it was last, so that a change of what it is made of lies within a
    series; it is the instance's, or the architecture and number of CPUs. Emulated machines are left out.
    """

    def on(*sides: str, names: str = _OF) -> str:
        return " and ".join(f"{sides[0]}.{name} is not distinct from {sides[1]}.{name}" for name in names.split(", "))

    common = {"of": _OF, "unit": unit_ns, "agents": _AGENTS}
    each = ", ".join(f"each.{name}" for name in _OF.split(", "))
    agents = [
        _HISTOGRAMS.format(
            **common,
            each=each,
            joined=on("each", "zero"),
            name=f".p{percent}",
            share=percent / 100,
            middle=middle_sql(f"min(bucket) filter (where upto >= ceil({percent / 100} * count))"),
            least=values_needed(percent),
        )
        for percent in (50, 99)
    ]
    agents += [
        _PERIODS.format(**common, metric=metric_, column=column, lasted="greatest(coalesce(length_ns, 1), 1)::double")
        for metric_, column in (
            ("rss.mean", "rss_bytes"),
            ("heap.live.mean", "live_bytes"),
            ("heap.goal.mean", "goal_bytes"),
        )
    ]
    part = ", ".join(f"part.{name}" for name in _OF.split(", "))
    runs = _RUNS.format(**common, part=part)
    union = " union all ".join(f"({each})" for each in agents)
    database.rows(
        f"create or replace temp table points as with runs as ({runs}), agents as ({union}), "
        f"found as (select * from runs union all select * from agents where not exists (select 1 from runs where "
        f"{on('runs', 'agents', names='host, service, metric, point')})), "
        "latest as (select host, arg_max(provider, seen_ns) as vendor, arg_max(architecture, seen_ns) as arch, "
        "coalesce(arg_max(instance, seen_ns), concat_ws(', ', arg_max(architecture, seen_ns), "
        "arg_max(cpus, seen_ns)::varchar || ' CPUs')) as type, bool_or(coalesce(emulated, false)) as emulated "
        "from machine group by host) "
        "select found.*, vendor, arch, nullif(type, '') as type from found left join latest using (host) "
        "where not coalesce(emulated, false)"
    )


def day_text(day: int) -> str:
    """2026-11-30, of a day since 1970."""
    return str(np.datetime64(day, "D"))


def hour_text(hour: int) -> str:
    """2026-11-30T14:00Z, of an hour since 1970."""
    return f"{np.datetime64(hour, 'h').astype('datetime64[m]')}Z"
