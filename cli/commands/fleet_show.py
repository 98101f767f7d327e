"""`gotrace fleet show`: percentiles, pauses, memory and starts of all hosts, by groups of them."""

from __future__ import annotations

import click

from gotrace.cli.fleet_options import price_options
from gotrace.cli.options import Command, output_options, schema_option
from gotrace.export.formats import FLEETS

_BY = ("type", "vendor", "arch", "service", "version", "host")  # as gotrace.fleet.percentiles has them


@click.command(
    "show",
    cls=Command,
    topic="lab",
    short_help="Show metrics of all hosts, by type, vendor or version.",
    examples=[
        ("gotrace fleet show shop-fleet -o shop.html", "shows pauses by machine type, and writes a page with all metrics"),
        ("gotrace fleet show shop-fleet --by vendor --metric latency.p99", "shows another metric, by another grouping"),
        ("gotrace fleet show shop-fleet -o stragglers.svg", "draws what the longest pauses on all hosts waited for"),
    ],
    epilog="Exit status: 0; 3 if a file in the folder could not be read and was skipped.",
)
@click.option(
    "--by",
    type=click.Choice(_BY),
    default=_BY[0],
    show_default=True,
    metavar="WHAT",
    help=f"Group hosts by {', '.join(_BY[:-1])} or {_BY[-1]}.",
)
@click.option("--metric", default="stw.total.p99", show_default=True, metavar="NAME", help="Metric to show.")
@click.option("--emulated", is_flag=True, help="Include times from emulated machines.")
@click.option("--claims", type=click.Path(), metavar="FILE", help="CSV file of published figures to show alongside.")
@price_options
@output_options(FLEETS, screen=("table", "json", "md"))
@schema_option
@click.argument("folder", type=click.Path(), metavar="DIR")
def command(
    by: str,
    metric: str,
    emulated: bool,
    claims: str | None,
    prices: str | None,
    currency: str | None,
    region: str | None,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    folder: str,
) -> int:
    """Show the hosts of the fleet in DIR: a metric, pauses by reason, memory, starts, and which hosts are missing.

    Each host counts once, however much it did: groups are compared by the medians of their hosts.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import fleet_show as text
    from gotrace.fleet.database import opened
    from gotrace.fleet.prices import known
    from gotrace.fleet.show_claims import claims_of
    from gotrace.fleet.show_page import looked_at

    results = wanted(outputs, format_, FLEETS, force, screen="table", inputs=[claims, prices])
    stated = claims_of(claims) if claims is not None else []
    database = opened(folder)
    shown = looked_at(database, metric, by, emulated, stated, known(database, prices, currency, region))
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, shown)
    return 3 if shown.fleet.broken else 0
