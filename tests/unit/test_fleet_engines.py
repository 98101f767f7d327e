"""The same folder in other engines: what DuckDB says, to the last count; and from an object store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleet_engines
import numpy as np
import pytest
import wheels
from spools import BEGIN_NS, Written

from gotrace.errors import GotraceError, UsageError
from gotrace.fleet import buckets
from gotrace.fleet.add import add
from gotrace.fleet.compact import compact
from gotrace.fleet.database import opened
from gotrace.fleet.machines import Told
from gotrace.fleet.store import adding

RECORDING = Path(__file__).parents[1] / "testdata" / "recordings" / "gc.gotrace"
SUMS = "select host, metric, bucket, sum(n)::bigint from hist group by all order by all"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    for number in range(3):
        spool = Written(folder / f"spool{number}", f"web-{number}")
        spool.random = np.random.default_rng(number)  # no two are as long, so that there is one order of them
        for _ in range(3):
            spool.minute()
        add(str(folder / "fleet"), [str(spool.folder)], Told())
    add(str(folder / "fleet"), [str(RECORDING)], Told("web-4", "shop"))
    # 99 values of 0, which no bucket has, and one of 1 us
    of = {"host": "web-5", "service": "shop", "metric": "stw.total", "label": "", "start_ns": BEGIN_NS, "source": "web-5"}
    with adding(str(folder / "fleet")) as addition:
        addition.add("total", [{**of, "count": 100, "zeros": 99, "sum_ns": 1000, "min_ns": 0, "max_ns": 1000}])
        addition.add("hist", [{**of, "bucket": -637, "n": 1}])
    return folder / "fleet"


def test_the_documented_sql(fleet: Path) -> None:
    """Of the manual, in DuckDB; and what is not the same is named."""
    database = opened(str(fleet))
    _, ask = fleet_engines.duckdb()
    assert list(fleet_engines.differences(database, "DuckDB", ask)) == []
    found = list(
        fleet_engines.differences(database, "DuckDB", lambda sql: [(*row[:-1], row[-1] * 1.03) for row in ask(sql)])
    )
    assert "sums" in found[0] and any("p99 of stw.total, web-0" in each for each in found)
    assert not any("web-5" in each for each in found if "p100" not in each)  # 1.03 times 0


def test_clickhouse(fleet: Path) -> None:
    """Embedded in a Python of its own, for it makes threads, and this one forks."""
    environment = {**os.environ, "PYTHONPATH": str(wheels.unpacked("chdb-core==26.9.0"))}
    command = [sys.executable, fleet_engines.__file__, str(fleet), "ClickHouse"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ClickHouse 26." in done.stdout and "all sums and percentiles are the same" in done.stdout


def sums(frame: Any) -> list[tuple[Any, ...]]:
    found = frame.groupby(["host", "metric", "bucket"])["n"].sum()
    return sorted((*key, int(n)) for key, n in found.compute().items())


def test_dask_on_two_workers(fleet: Path) -> None:
    import dask.dataframe as dask
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert len(client.scheduler_info()["workers"]) == 2
        assert sums(dask.read_parquet(str(fleet / "hist"))) == opened(str(fleet)).rows(SUMS) != []


@pytest.fixture
def store(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server with the fleet in a bucket: its URL."""
    import boto3
    from moto import server

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    url = "http://{}:{}".format(*running.get_host_and_port())
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="fleet")
    for file in fleet.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), "fleet", str(file.relative_to(fleet.parent)))
    yield url
    running.stop()


# Commands one after the other, each with an S3 server: (exit status, what it printed).
COMMANDS = """
import contextlib, io, json, os, sys
from gotrace.cli.main import main
found = []
for url, *words in json.load(sys.stdin):
    os.environ["AWS_ENDPOINT_URL"], printed = url, io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main(["fleet", *words])
        except SystemExit as exit:
            found.append((exit.code, printed.getvalue()))
json.dump(found, sys.stdout)
"""


def test_duckdb_from_a_bucket(fleet: Path, store: str) -> None:
    """Commands say of s3://BUCKET/FOLDER what they say of the folder, and read nothing else."""
    folder, away = wheels.unpacked("duckdb==1.5.5", "duckdb-extension-httpfs==1.5.5"), "http://127.0.0.1:1"
    commands = [
        (store, "show", "s3://fleet/fleet/", "--format", "json"),
        (store, "show", str(fleet), "--format", "json"),
        (store, "sql", "s3://fleet/fleet", SUMS, "--format", "json"),
        (store, "sql", "s3://fleet/fleet", "from read_text('s3://fleet/fleets/other')"),
        (store, "sql", "s3://fleet/fleet", "from duckdb_secrets()"),
        (store, "trend", "s3://fleet/none"),
        (store, "sql", "s3://fleet/fleet", "from read_parquet('s3://fleet/fleet/none.parquet')"),
        (away, "sql", "s3://fleet/fleet", "select 1"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", COMMANDS]
    done = subprocess.run(command, env=environment, input=json.dumps(commands), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shown, local, sums, other, secrets, none, gone, nobody = map(tuple, json.loads(done.stdout))
    assert shown == local and shown[0] == 0 and "web-2" in shown[1]
    assert [tuple(each.values()) for each in json.loads(sums[1])] == opened(str(fleet)).rows(SUMS) != []
    assert other[0] == 2 and "Permission" in other[1]
    assert secrets[0] == 0 and "secret=redacted" in secrets[1]
    assert none[0] == 2 and "s3://fleet/none is no fleet" in none[1] and "--delete" not in none[1]
    assert gone[0] == 1 and "a file cannot be read" in gone[1]
    assert nobody[0] == 1 and "cannot read s3://fleet/fleet" in nobody[1] and "AWS_ENDPOINT_URL" in nobody[1]


class _Listed:
    """DuckDB as it lists a bucket in which somebody was interrupted."""

    def __init__(self, *names: str) -> None:
        self.names, self.asked = names, ""

    def execute(self, sql: str) -> _Listed:
        self.asked = sql
        return self

    def fetchall(self) -> list[tuple[str]]:
        return [(name,) for name in self.names]

    def fetchone(self) -> tuple[str]:
        return ('{"schema": "gotrace.fleet/1"}',)


def test_what_a_bucket_has() -> None:
    import duckdb

    names = [
        "s3://b/f/fleet.json",
        "s3://b/f/hist/date=2026-01-01/1.parquet",
        "s3://b/f/hist/date=2026-01-01/.2.parquet.part",
    ]
    assert buckets.files_in(_Listed(*names), duckdb, "s3://b/f") == {"hist": names[1:2]}
    with pytest.raises(GotraceError, match="copied while"):
        buckets.files_in(_Listed(*names, "s3://b/f/.adding"), duckdb, "s3://b/f")
    for url in ("s3://", "s3://b/*", "s3://b/f?s3_region=x"):
        with pytest.raises(UsageError, match="invalid URL"):
            buckets.files_in(_Listed(*names), duckdb, url)
    for change in (lambda: add("s3://b/f", ["x"], Told()), lambda: compact("s3://b/f", 7)):
        with pytest.raises(UsageError, match="can only be read"):
            change()


def test_from_an_object_store(fleet: Path, store: str) -> None:
    """By pyarrow's client of S3, and with DuckDB over what that reads."""
    import duckdb
    import pyarrow.dataset as datasets
    from pyarrow import fs

    host = store.removeprefix("http://")
    client = fs.S3FileSystem(access_key="test", secret_key="test", endpoint_override=host, scheme="http")
    hist = datasets.dataset("fleet/fleet/hist", filesystem=client, format="parquet")
    assert duckdb.sql(SUMS).fetchall() == opened(str(fleet)).rows(SUMS) != []
    del hist
