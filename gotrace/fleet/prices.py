"""What machines cost: from a CSV file, or from the folder's own table. Every price has a date and an origin."""

from __future__ import annotations

import csv
import datetime
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gotrace.errors import GotraceError, UsageError
from gotrace.fleet.database import Database
from gotrace.fleet.machines import Told
from gotrace.fleet.series import Part
from gotrace.fleet.tables import TABLES
from gotrace.text import printable

COLUMNS = tuple(TABLES["price"])


@dataclass(frozen=True)
class Price:
    """Of one machine, per hour in ``currency`` (three letters); ``origin``: whose list that is."""

    provider: str
    instance: str
    region: str
    per_hour: float
    currency: str
    date: str
    origin: str

    def __str__(self) -> str:
        return f"{self.per_hour:.4g} {self.currency}/h in {self.region or 'any region'} ({self.origin}, {self.date})"


def read(path: str) -> list[Price]:
    """The prices of a CSV file. Raises GotraceError, UsageError with the line that cannot be right."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise UsageError(
                    f"{printable(path)} has no column {', '.join(missing)}", f"its first line is {','.join(COLUMNS)}"
                )
            return [_price(row, f"{printable(path)}, line {rows.line_num}") for row in rows]
    except OSError as error:
        raise GotraceError(f"cannot read {printable(path)}: {error.strerror}", "give a CSV file of prices") from None
    except (UnicodeDecodeError, csv.Error):
        raise UsageError(
            f"{printable(path)} is not a CSV file in UTF-8", f"its first line is {','.join(COLUMNS)}"
        ) from None


def parts_of(path: str, told: Told, name: str) -> tuple[dict[str, Any], list[Part], list[str]]:
    """Of a file of prices: as `gotrace.fleet.recordings.parts_of`. Raises GotraceError, UsageError."""
    prices = read(path)
    if not prices:
        raise UsageError("it has no prices", "write one a line")
    columns = {column: [getattr(each, column) for each in prices] for column in COLUMNS}
    about = {"kind": "prices", "host": None, "first_ns": None, "last_ns": None}
    return about, [("price", {**columns, "source": name})], []


def stored(database: Database) -> list[Price]:
    """Those of the folder's table. Raises UsageError for one that cannot be right."""
    rows = database.rows(f"select distinct {', '.join(COLUMNS)} from price order by all")
    return [
        _price(dict(zip(COLUMNS, ("" if each is None else each for each in row), strict=True)), "a price of the fleet")
        for row in rows
    ]


def known(database: Database, path: str | None, currency: str | None, region: str | None) -> dict[tuple[str, str], Price]:
    """Those of a file, or without one of the folder. Raises GotraceError, UsageError as `read` and `usable` do."""
    return usable(read(path) if path is not None else stored(database), currency, region)


def usable(prices: Sequence[Price], currency: str | None, region: str | None) -> dict[tuple[str, str], Price]:
    """One for each (provider, instance): the newest of each region, the lowest of those.

    Raises UsageError for several currencies, as no rate between them is known, and where none is of what was asked for.
    """
    newest: dict[tuple[str, str, str], Price] = {}
    for each in prices:
        if (currency is None or each.currency == currency) and region in (None, each.region):
            key = each.provider, each.instance, each.region
            before = newest.get(key)
            if before and before.date == each.date and before.per_hour != each.per_hour:
                where = f"{printable(each.provider)} {printable(each.instance)} in {printable(each.region)}"
                raise UsageError(f"{where} has two prices of {each.date}", "leave the right one")
            if before is None or before.date < each.date:
                newest[key] = each
    if len(found := sorted({each.currency for each in newest.values()})) > 1:
        raise UsageError(
            f"the prices are in {' and '.join(found)}, which are not converted",
            f"choose one: --currency {found[0]}",
        )
    if prices and not newest:
        asked = " ".join(f"--{name} {value}" for name, value in (("currency", currency), ("region", region)) if value)
        there = ", ".join(sorted({f"{each.currency} in {each.region or 'any region'}" for each in prices})[:10])
        raise UsageError(f"there are no prices for {printable(asked)}", f"there are prices: {printable(there)}")
    chosen: dict[tuple[str, str], Price] = {}
    for each in sorted(newest.values(), key=lambda price: (price.per_hour, price.region)):
        chosen.setdefault((each.provider, each.instance), each)
    return chosen


def _price(row: Mapping[str, Any], where: str) -> Price:
    def refuse(what: str, hint: str) -> UsageError:
        return UsageError(f"{where}: {what}", hint)

    if row.get(None):  # type: ignore[call-overload]
        raise refuse("more values than columns", "put quotes around values with a comma")
    texts = {name: str(row[name] if row[name] is not None else "").strip() for name in COLUMNS}
    if empty := [name for name in COLUMNS if name != "region" and not texts[name]]:
        raise refuse(f"{empty[0]} is empty", "only the region may be empty")
    try:
        per_hour = float(texts["per_hour"])
    except ValueError:
        per_hour = math.nan
    if not (math.isfinite(per_hour) and per_hour > 0):
        raise refuse(f"{printable(texts['per_hour'])!r} is not a price per hour", "write 0.145")
    if not re.fullmatch(r"[A-Z]{3}", texts["currency"]):
        raise refuse(f"{printable(texts['currency'])!r} is no currency", "write USD or EUR")
    try:
        datetime.date.fromisoformat(texts["date"])
    except ValueError:
        raise refuse(f"{printable(texts['date'])!r} is no date", "write 2026-11-30") from None
    return Price(**{**texts, "per_hour": per_hour})  # type: ignore[arg-type]
