"""`gotrace fleet choose`: which type of machine to take."""

from __future__ import annotations

from typing import Any

import click

from gotrace.cli.fleet_options import price_options
from gotrace.cli.options import Command, output_options, schema_option
from gotrace.errors import UsageError
from gotrace.export.formats import FLEETS


@click.command(
    "choose",
    cls=Command,
    topic="lab",
    short_help="Choose a machine type for a service.",
    examples=[
        (
            "gotrace fleet choose shop-fleet --slo 'latency.p99<=80ms'",
            "shows which machine types meet the SLO, and which is best",
        ),
        (
            "gotrace fleet choose shop-fleet --slo 'latency.p99<=80ms' --budget 0.12/h --prices prices.csv -o tree.svg",
            "adds a budget and prices, and draws the decision tree",
        ),
    ],
    epilog="Exit status: 0 a type was chosen, 1 no type meets every limit, 3 files could not be read.",
)
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.option("--slo", "slos", multiple=True, metavar="TEXT", help="Required limit: 'latency.p99<=80ms'; may be repeated.")
@click.option("--budget", metavar="PRICE/h", help="Maximum cost of a machine: 0.12/h.")
@price_options
@click.option("--service", metavar="NAME", help="The service, if DIR has several.")
@output_options(FLEETS, screen=("table", "json", "md"))
@schema_option
def command(
    folder: str,
    slos: tuple[str, ...],
    budget: str | None,
    prices: str | None,
    currency: str | None,
    region: str | None,
    service: str | None,
    **options: Any,
) -> int:
    """Show which machine types in DIR meet the SLOs of a service, and which of them no other type beats.

    The limit must hold for the end of the 95 % interval over hosts, not just for the median.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import fleet_choose as text
    from gotrace.fleet.choose import budget_of, choose
    from gotrace.fleet.database import opened
    from gotrace.fleet.prices import known
    from gotrace.lab.requirements import parse_all

    if not slos:
        raise UsageError("no SLO was given", "give --slo 'latency.p99<=80ms'")
    asked = parse_all(slos)
    most = budget_of(budget) if budget is not None else None
    results = wanted(
        options["outputs"], options["format_"], FLEETS, options["force"], "table", inputs=[prices] if prices else []
    )
    database = opened(folder)
    choice = choose(database, asked, known(database, prices, currency, region), most, service)
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, choice)
    return choice.status
