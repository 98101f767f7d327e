"""`gotrace fleet trend`: since when is it slower, and what else changed at that time?"""

from __future__ import annotations

from typing import Any

import click

from gotrace.cli.fleet_options import Span, in_units
from gotrace.cli.options import Command, output_options, schema_option
from gotrace.errors import UsageError
from gotrace.export.formats import TABLES


@click.command(
    "trend",
    cls=Command,
    topic="lab",
    short_help="Show when a metric changed, and what changed with it.",
    examples=[
        ("gotrace fleet trend shop-fleet --since 90d", "shows every change in every metric in the last 90 days"),
        (
            "gotrace fleet trend shop-fleet --per hour --since 3d",
            "shows changes of three days, by the hour: which deployment was it?",
        ),
        (
            "gotrace fleet trend shop-fleet --metric latency.p99 --by service,version",
            "shows one metric, with each version as its own series",
        ),
    ],
    epilog="Exit status: 0 nothing became worse recently, 1 something did, 3 as 0, but files could not be read.",
)
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.option(
    "--per",
    type=click.Choice(("day", "hour")),  # as gotrace.fleet.trend.UNITS
    default="day",
    show_default=True,
    metavar="UNIT",
    help="Length of a point in the series: a day or an hour.",
)
@click.option("--since", type=Span(), metavar="SPAN", help="Only the last part of what was measured: 90d, 48h.")
@click.option(
    "--new", type=Span(), metavar="SPAN", help="Changes within this time count as new.  [default: 14d; 24h with --per hour]"
)
@click.option("--metric", metavar="NAME", help="Only this metric.")
@click.option("--by", default="service,type", show_default=True, metavar="NAME,…", help="What each series is grouped by.")
@output_options(TABLES, screen=("table", "json"))
@schema_option
def command(folder: str, per: str, since: int | None, new: int | None, metric: str | None, by: str, **options: Any) -> int:
    """Find when the level of a metric changed in the fleet in DIR, by daily or hourly medians over hosts.

    What else changed at that time is listed: machines and the Go runtime first, then versions of the program.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import fleet_trend as text
    from gotrace.fleet.database import opened
    from gotrace.fleet.trend import LEAST_POINTS, UNITS, trend

    points, newest = in_units("--since", since, per), in_units("--new", new, per)
    if points is not None and points < LEAST_POINTS:
        raise UsageError("--since is too short to show a change", f"give at least {LEAST_POINTS}{per[0]}")
    results = wanted(options["outputs"], options["format_"], TABLES, options["force"], "table")
    found = trend(opened(folder), tuple(dict.fromkeys(by.split(","))), metric, points, newest, UNITS[per])
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, found)
    return found.status
