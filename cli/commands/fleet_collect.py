"""`gotrace fleet collect`: the spools of many agents into a fleet's folder."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, Duration, option, say
from gotrace.errors import UsageError


@click.command(
    "collect",
    cls=Command,
    topic="lab",
    short_help="Fetch the spools of many agents into a fleet.",
    examples=[
        ("gotrace fleet collect shop-fleet --from agents.txt", "fetches what is new at each URL in agents.txt"),
        (
            "gotrace fleet collect shop-fleet --from agents.txt --token-file token --ca-file ca.pem",
            "does the same over TLS, from agents that require a token",
        ),
    ],
)
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.option("--from", "urls", type=click.Path(), required=True, metavar="FILE", help="File with one agent URL per line.")
@option("token_file", help="File with the bearer token for the agents.")
@option("ca_file", help="File with the CA certificates to trust (PEM).")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    metavar="N",
    help="Number of agents to fetch from at once.",
)
@click.option(
    "--patience",
    "patience_ns",
    type=Duration(),
    default="2m",
    show_default=True,
    help="Time limit per agent; the rest is fetched next time.",
)
def command(folder: str, urls: str, token_file: str | None, ca_file: str | None, jobs: int, patience_ns: int) -> int:
    """Fetch what is new in the spool of every agent (`gotrace serve --spool`), into the fleet in DIR.

    Ctrl-C keeps what whole agents have sent; the next time goes on from there. Agents that cannot be reached are listed at
    the end, and kept in the table `absent`.
    """
    from gotrace.cli.text import fleet as text
    from gotrace.fleet.collect import Bounds, collect, urls_in
    from gotrace.fleet.machines import Told
    from gotrace.run.target import StopRequest

    if not patience_ns:
        raise UsageError("--patience 0s leaves no time to fetch anything", "give 10s or more")
    bounds, agents, stop = Bounds(jobs=jobs, patience_s=patience_ns / 1e9), urls_in(urls), StopRequest()
    with stop.installed():
        asked = list(collect(folder, agents, Told(), bounds, token_file or "", ca_file or "", stop))
    text.write_collected(asked, len(agents), say)
    if stop.signal:
        return 130
    return text.REFUSED if any(each.problem for each in asked) else 0
