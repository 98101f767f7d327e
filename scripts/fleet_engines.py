"""What ClickHouse and Spark say of a fleet's folder, by the SQL of docs/commands/fleet.md, against what gotrace says.

    .venv/bin/pip install chdb-core pandas pyspark
    .venv/bin/python scripts/fleet_engines.py shop-fleet

ClickHouse runs within this process; Spark needs a Java runtime (Debian: openjdk-17-jre-headless). Every count has to be
the same, and every percentile in the same bucket. What is not installed is named, and not compared.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gotrace.fleet.database import Database, opened
from gotrace.fleet.percentiles import merged

PAGE = Path(__file__).parent.parent / "docs" / "commands" / "fleet.md"
PERCENTS = (50, 90, 99, 100)
Ask = Callable[[str], list[tuple[Any, ...]]]


def documented(folder: Path) -> dict[str, str]:
    """The queries of the page by the comments above them, about this folder."""
    (block,) = re.findall(r"^```sql\n(-- DuckDB.*?)^```", PAGE.read_text(), re.S | re.M)
    found = re.findall(r"^-- (.*)\n((?:(?!-- ).*\n)+)", block, re.M)
    return {name: sql.strip().rstrip(";").replace("shop-fleet", str(folder)) for name, sql in found}


def duckdb() -> tuple[str, Ask]:
    import duckdb

    return duckdb.__version__, lambda sql: duckdb.sql(sql).fetchall()


def clickhouse() -> tuple[str, Ask]:
    import chdb

    def ask(sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in json.loads(chdb.query(sql, "JSONCompact").data())["data"]]

    return ask("select version()")[0][0], ask


def spark() -> tuple[str, Ask]:
    from pyspark.sql import SparkSession

    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", "spark.ui.showConsoleProgress": "false"}
    session = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session.version, lambda sql: [tuple(row) for row in session.sql(sql).collect()]


ENGINES = {"DuckDB": ("duckdb", duckdb), "ClickHouse": ("chdb", clickhouse), "Spark": ("pyspark", spark)}


def differences(database: Database, name: str, ask: Ask) -> Iterator[str]:
    """What an engine says that gotrace does not."""
    queries = documented(Path(database.folder))
    sums, percentile = queries[name], queries["each of them"]
    found = sorted((host, metric, int(bucket), int(n)) for host, metric, bucket, n in ask(sums))
    wanted = database.rows("select host, metric, bucket, sum(n)::bigint from hist group by all order by all")
    if found != wanted or not wanted:
        yield f"{len(set(found) ^ set(wanted))} of {len(wanted)} sums"
    (hist,) = re.findall(r" from (\S.*) group by", sums)
    percentile = percentile.replace("HIST", hist).replace("TOTAL", hist.replace("/hist", "/total"))
    for (metric,) in database.rows("select distinct metric from hist order by 1"):
        of = {(each.group[0], each.count): each for each in merged(database, metric, ["host"], PERCENTS, emulated=True)}
        for at, percent in enumerate(PERCENTS):
            asked = percentile.replace("stw.total", metric).replace("99 *", f"{percent} *")
            said = {(host, int(count)): float(seconds) for host, count, seconds in ask(asked)}
            if said.keys() != of.keys():
                yield f"counts of {metric}: {said.keys() ^ of.keys()}"
            for key in said.keys() & of.keys():
                value, exact = of[key].values_ns[at] / 1e9, of[key].exact[at]
                # What gotrace knows exactly is somewhere in the bucket whose middle the others have.
                if not math.isclose(said[key], value, rel_tol=2 ** (0.5 / 32) - 1 + 1e-9 if exact else 1e-12):
                    yield f"p{percent} of {metric}, {key[0]}: {said[key]} s, not {value} s"


def main(folder: str, *names: str) -> int:
    database, status = opened(folder), 0
    buckets, count, hosts = database.rows("select count(*), sum(n)::bigint, count(distinct host) from hist")[0]
    print(f"{count:,} values of {hosts} hosts in {buckets:,} rows")
    for name in names or ENGINES:
        package, start = ENGINES[name]
        if importlib.util.find_spec(package) is None:
            print(f"{name}: {package} is not installed")
            status = 1 if names else status
            continue
        version, ask = start()
        found = list(differences(database, name, ask))
        print(f"{name} {version}: {'; '.join(found) or 'all sums and percentiles are the same'}")
        status = 1 if found else status
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
