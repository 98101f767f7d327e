"""`gotrace fleet trend`: since when is it slower, and what else changed on that day?"""

from __future__ import annotations

import re
from typing import Any

import click

from gotrace.cli.options import Command, output_options
from gotrace.errors import UsageError
from gotrace.export.formats import TABLES


class Days(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A number of days: 90d."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if not re.fullmatch(r"[1-9]\d{0,4}d", value, re.ASCII):
            self.fail(f"invalid number of days {value!r}; write 90d", param, ctx)
        return int(value[:-1])


@click.command(
    "trend",
    cls=Command,
    topic="lab",
    short_help="Say since when something changed, and what changed with it.",
    examples=[
        ("gotrace fleet trend shop-fleet --since 90d", "every change of every metric in the last 90 days"),
        ("gotrace fleet trend shop-fleet --metric latency.p99 --by service,version", "one metric, each version by itself"),
    ],
    epilog="Exit status: 0 nothing new is worse, 1 something is, 3 as 0, but files could not be read.",
)
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.option("--since", type=Days(), metavar="DAYS", help="Only the last days of what was measured: 90d.")
@click.option("--new", type=Days(), default="14d", show_default=True, metavar="DAYS", help="A change of these days is new.")
@click.option("--metric", metavar="NAME", help="Only this metric.")
@click.option("--by", default="service,type", show_default=True, metavar="NAME,…", help="What makes a series of its own.")
@output_options(TABLES, screen=("table", "json"))
def command(folder: str, since: int | None, new: int, metric: str | None, by: str, **options: Any) -> int:
    """Find the days on which a metric of the fleet in DIR changed its level, by daily medians over hosts.

    What changed of the machines and the Go runtime on such a day is named first, then the versions of the program.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import fleet_trend as text
    from gotrace.fleet.database import opened
    from gotrace.fleet.trend import trend

    if since is not None and since < 14:
        raise UsageError("--since is too short to show a change", "give at least 14d")
    results = wanted(options["outputs"], options["format_"], TABLES, options["force"], "table")
    found = trend(opened(folder), tuple(dict.fromkeys(by.split(","))), metric, since, new)
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, found)
    return found.status
