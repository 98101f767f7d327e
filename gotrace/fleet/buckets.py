"""A fleet's folder that was copied to an object store: s3://BUCKET/FOLDER, read by DuckDB's extension httpfs.

Credentials and the endpoint are those of the environment, by the names that all of AWS's tools have for them
(https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html).
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gotrace.errors import GotraceError, UsageError
from gotrace.fleet.store import ABOUT, BUCKET, JOURNAL, check_about
from gotrace.text import installing, printable

_WHEEL = "duckdb-extension-httpfs"


def quoted(text: str) -> str:
    """As a string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def files_in(connection: Any, module: Any, url: str) -> dict[str, list[str]]:
    """The Parquet files of each table; what they are read with is made ready. ``module`` is duckdb.

    Raises GotraceError, UsageError for what is no fleet.
    """
    shown = printable(url)
    if not re.fullmatch(rf"{BUCKET}[^/*?\[\]]+(/[^*?\[\]]*)?", url):
        raise UsageError(f"invalid URL {shown!r}", f"write {BUCKET}BUCKET/FOLDER")
    _load(connection, module)
    try:
        connection.execute(f"create secret fleet ({_secret(os.environ, url)})")
        names = [name for (name,) in connection.execute(f"select file from glob({quoted(url + '/**')})").fetchall()]
        if f"{url}/{ABOUT}" not in names:
            # without --delete: other things may be there
            raise UsageError(f"{shown} is no fleet", f"check the URL; `aws s3 sync DIR {shown}` copies a fleet there")
        (about,) = connection.execute(f"select content from read_text({quoted(f'{url}/{ABOUT}')})").fetchone()
    except module.Error as error:
        raise GotraceError(
            f"cannot read {shown}: {printable(str(error).splitlines()[0])}",
            "check the URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL",
        ) from None
    check_about(about, url)
    if f"{url}/{JOURNAL}" in names:
        raise GotraceError(
            f"{shown} was copied while something was added to it", f"copy it again: aws s3 sync --delete DIR {shown}"
        )
    found = defaultdict(list)
    for name in sorted(names):
        table, *rest = name.removeprefix(f"{url}/").split("/")
        if len(rest) == 2 and rest[0].startswith("date=") and rest[1].endswith(".parquet"):
            found[table].append(name)
    return found


def _load(connection: Any, module: Any) -> None:
    """The extension: one that DuckDB has installed, or that of a wheel, which has DuckDB's signature as well."""
    try:
        connection.execute("load httpfs")
    except module.Error:
        found = importlib.util.find_spec(_WHEEL.replace("-", "_"))
        folder = Path(found.origin).parent if found and found.origin else Path()
        file = folder / "extensions" / f"v{module.__version__}" / "httpfs.duckdb_extension"
        if not found or not file.exists():
            raise GotraceError("DuckDB needs its extension httpfs to read from S3", f"run: {installing(_WHEEL)}") from None
        try:
            connection.execute(f"load {quoted(str(file))}")
        except module.Error as error:
            raise GotraceError(
                f"cannot load DuckDB's extension httpfs: {printable(str(error).splitlines()[0])}",
                f"run: {installing(_WHEEL)}",
            ) from None


def _secret(environment: Mapping[str, str], url: str) -> str:
    """What DuckDB has to know to read below ``url``, in its words."""

    def first(*names: str) -> str:
        return next((environment[name] for name in names if environment.get(name)), "")

    given = {
        "key_id": first("AWS_ACCESS_KEY_ID"),
        "secret": first("AWS_SECRET_ACCESS_KEY"),
        "session_token": first("AWS_SESSION_TOKEN"),
        "region": first("AWS_REGION", "AWS_DEFAULT_REGION"),
        "scope": url,
    }
    if endpoint := first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UsageError(f"invalid AWS_ENDPOINT_URL {printable(endpoint)!r}", "write http://127.0.0.1:9000")
        given |= {"endpoint": parts.netloc + parts.path.rstrip("/"), "url_style": "path"}
    words = [f"{name} {quoted(value)}" for name, value in given.items() if value]
    return ", ".join(["type s3", *words, *(["use_ssl false"] if endpoint.startswith("http:") else [])])
