"""The tables of a fleet's folder, column by column.

Merging is a sum by bucket, in any engine: a histogram is rows (bucket, n), and a window's exact count, sum, least and
largest value stand in a row beside. Times are nanoseconds since 1970, durations and values of time metrics nanoseconds,
sizes bytes; null is unknown. Every row has the `source` that it is from (`source.source`).

A host is known by its name; its `fingerprint` says what it was made of when it was measured, so that a change of it can
be told from a change of the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Type = Literal["name", "text", "int", "signed", "bucket", "float", "bool", "texts"]  # int: from 0 on
Columns = Mapping[str, Type]

# What was measured of whom, in front of every row of measurements. `version` is what the program was called in its report,
# or its build ID; label is a metric's own (the reason of a stop), or "".
_OF: Columns = {"host": "name", "fingerprint": "text", "service": "name", "version": "name"}
_SERIES: Columns = {**_OF, "metric": "name", "label": "name", "start_ns": "int"}

TABLES: Mapping[str, Columns] = {
    # A file, or a segment of a spool, that was added. `kind`: baseline, recording, spool, hlog, prices.
    # `upto_bytes`: what of a segment that may still grow has been read.
    "source": {
        "kind": "text",
        "path": "text",
        "host": "text",
        "added_ns": "int",
        "first_ns": "int",
        "last_ns": "int",
        "upto_bytes": "int",
        "notes": "texts",
    },
    # What a machine is made of, as gotrace.kernel.machine.Host has it: a row for each fingerprint of it and source.
    "host": {
        "host": "name",
        "fingerprint": "text",
        "seen_ns": "int",
        "provider": "name",
        "instance": "name",
        "architecture": "text",
        "cpu": "text",
        "cpus": "int",
        "cores": "int",
        "kernel": "text",
        "page_bytes": "int",
        "memory_bytes": "int",
        "numa_nodes": "int",
        "governor": "text",
        "boost": "text",
        "huge_pages": "text",
        "hypervisor": "text",
        "quota_cpus": "float",
        "emulated": "bool",  # its times say nothing about any real machine
    },
    # One process that was measured once: a run of a baseline, or a recording.
    "run": {
        **_OF,
        "run": "text",
        "start_ns": "int",
        "length_ns": "int",
        "go_version": "text",
        "gogc": "text",
        "gomaxprocs": "int",
        "plan": "text",  # runs of equal plans did the same work
        "load": "text",  # the load tool and its model
        "valid": "bool",
        "reasons": "texts",
        "lost": "int",
    },
    # A metric of a run, by its name in gotrace.lab.metrics, in that metric's unit; of looks at memory also
    # "rss.part.NAME", the mean in bytes.
    "value": {**_OF, "run": "text", "start_ns": "int", "metric": "name", "value": "float"},
    # What an agent saw of a service in a minute (or, of many of them, an hour).
    "period": {
        **_OF,
        "start_ns": "int",
        "length_ns": "int",
        "go_version": "text",
        "gogc": "text",
        "gomaxprocs": "int",
        "processes": "int",
        "rss_bytes": "int",
        "heap_bytes": "int",  # HeapAlloc
        "live_bytes": "int",
        "goal_bytes": "int",
        "lost": "int",
        "skew_ns": "signed",  # how far the host's clock was off when it was asked; null: it was not asked
    },
    # What the values of a histogram come to, exactly. start_ns is that of the window or run.
    "total": {
        **_SERIES,
        "length_ns": "int",
        "count": "int",
        "zeros": "int",
        "sum_ns": "int",
        "min_ns": "int",
        "max_ns": "int",
    },
    # Filled buckets (gotrace.analysis.exponential, schema 5): values v of 2**((bucket-1)/32) < v <= 2**(bucket/32) seconds.
    "hist": {**_SERIES, "bucket": "bucket", "n": "int"},
    # The longest values of each window or run, at most 16, exact; where a pause was explained, with its cause and what
    # everybody waited for (the stack, outermost first).
    "worst": {
        **_SERIES,
        "time_ns": "int",
        "value_ns": "int",
        "pid": "int",
        "cause": "text",
        "stack": "texts",
        "recording": "text",
    },
    # What a machine costs; dated, and from whom.
    "price": {
        "provider": "text",
        "instance": "text",
        "region": "text",
        "per_hour": "float",
        "currency": "text",
        "date": "text",
        "origin": "text",
    },
    # Whom `collect` could not ask, or not read, each time; and that it could again, without a problem.
    "absent": {"host": "text", "url": "text", "time_ns": "int", "problem": "text"},
}
# The column by which rows are kept in folders of a day, UTC.
DAY_OF: Mapping[str, str] = {
    **{name: "start_ns" for name in ("run", "value", "period", "total", "hist", "worst")},
    "source": "added_ns",
    "host": "seen_ns",
    "absent": "time_ns",
}
HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * HOUR_NS
QUARTER_NS = DAY_NS // 4
# Characters. Names of hosts have at most 253 in the DNS, of programs 255, and annotations of pods any number; a text may be
# the path of a file.
MOST_NAME, MOST_TEXT = 1024, 4096
MOST_SKEW_NS = 300 * 10**9  # a clock that is further off is told of
SQL_TYPES: Mapping[Type, str] = {
    "name": "VARCHAR",
    "text": "VARCHAR",
    "int": "BIGINT",
    "signed": "BIGINT",
    "bucket": "SMALLINT",
    "float": "DOUBLE",
    "bool": "BOOLEAN",
    "texts": "VARCHAR[]",
}

_PER_OCTAVE = 32  # buckets of schema 5 for each power of two


def middle_ns(bucket: int) -> float:
    """What stands for every value in a bucket: its middle, at most 1.1 % off."""
    return 2 ** ((bucket - 0.5) / _PER_OCTAVE) * 1e9


def middle_sql(bucket: str) -> str:
    """`middle_ns` in SQL, of an expression."""
    return f"pow(2.0, ({bucket} - 0.5) / {_PER_OCTAVE}) * 1e9"


Row = Mapping[str, Any]
Rows = Mapping[str, Iterable[Row]]


def columns_of(table: str) -> dict[str, Type]:
    """All columns of a table, ``source`` among them."""
    return {**TABLES[table], "source": "text"}
