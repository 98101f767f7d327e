"""`gotrace fleet compact`: old days made small."""

from __future__ import annotations

import click

from gotrace.cli.fleet_options import Span, in_units
from gotrace.cli.options import Command, say


@click.command(
    "compact",
    cls=Command,
    topic="lab",
    short_help="Merge the minutes of old days into hours.",
    examples=[
        ("gotrace fleet compact shop-fleet", "compacts the days that ended a week ago or earlier"),
        ("gotrace fleet compact shop-fleet --older 30d", "leaves the last month as it is"),
    ],
    epilog="Exit status: 0; 3 if a day was left as it is because one of its files cannot be read.",
)
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.option(
    "--older",
    type=Span(),
    default="7d",
    show_default=True,
    metavar="DAYS",
    help="Only days that ended at least this long ago.",
)
def command(folder: str, older: int) -> int:
    """Merge per-minute agent data of old days into hours, and join small files, in the fleet in DIR.

    Counts, sums, buckets and the longest pauses stay exact, so percentiles do not change.
    """
    from gotrace.cli.text import fleet as text
    from gotrace.fleet.compact import compact

    found = compact(folder, in_units("--older", older, "day") or 0)
    text.write_compacted(found, say)
    return text.REFUSED if found.left else 0
