"""Options that several of the `gotrace fleet` commands have."""

from __future__ import annotations

import re
from typing import Any

import click

from gotrace.cli.options import Decorated
from gotrace.errors import UsageError


class Span(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """Days or hours, as hours: 90d, 48h."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if not re.fullmatch(r"[1-9]\d{0,4}[dh]", value, re.ASCII):
            self.fail(f"invalid age {value!r}; write 90d, or 48h", param, ctx)
        return int(value[:-1]) * (24 if value[-1] == "d" else 1)


def in_units(name: str, hours: int | None, per: str) -> int | None:
    """Hours as days or hours. Raises UsageError for what is not a number of days."""
    if hours is not None and per == "day":
        if hours % 24:
            raise UsageError(
                f"{name} is not a number of days", "give days, such as 2d (only trend --per hour works in hours)"
            )
        return hours // 24
    return hours


def price_options(command: Decorated) -> Decorated:
    """--prices, --currency and --region."""
    for add in (
        click.option("--region", metavar="NAME", help="Use prices of this region.  [default: the lowest of any region]"),
        click.option("--currency", metavar="NAME", help="Use prices in this currency: USD."),
        click.option(
            "--prices",
            type=click.Path(),
            metavar="FILE",
            help="CSV: provider,instance,region,per_hour,currency,date,origin.  [default: those of DIR]",
        ),
    ):
        command = add(command)
    return command
