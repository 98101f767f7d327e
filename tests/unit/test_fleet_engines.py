"""The same folder in other engines: what DuckDB says, to the last count; and from an object store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spools import Written

from gotrace.fleet.add import add
from gotrace.fleet.database import opened
from gotrace.fleet.machines import Told

SUMS = "select host, metric, bucket, sum(n)::bigint from hist group by all order by all"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    for number in range(3):
        spool = Written(folder / f"spool{number}", f"web-{number}")
        for _ in range(3):
            spool.minute()
        add(str(folder / "fleet"), [str(spool.folder)], Told())
    return folder / "fleet"


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
    """An S3 server with the fleet in its bucket: its URL."""
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
    for file in fleet.rglob("*.parquet"):
        client.upload_file(str(file), "fleet", str(file.relative_to(fleet)))
    yield url
    running.stop()


def test_from_an_object_store(fleet: Path, store: str) -> None:
    """By pyarrow's own client of S3, and with DuckDB over what that reads: DuckDB's is an extension to be downloaded."""
    import duckdb
    import pyarrow.dataset as datasets
    from pyarrow import fs

    host = store.removeprefix("http://")
    client = fs.S3FileSystem(access_key="test", secret_key="test", endpoint_override=host, scheme="http")
    hist = datasets.dataset("fleet/hist", filesystem=client, format="parquet")
    assert duckdb.sql(SUMS).fetchall() == opened(str(fleet)).rows(SUMS) != []
    del hist
