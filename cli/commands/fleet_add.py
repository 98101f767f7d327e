"""`gotrace fleet add`: reports, recordings and spools into a fleet's folder."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, say

folder_argument = click.argument("folder", type=click.Path(), metavar="DIR")


@click.command(
    "add",
    cls=Command,
    topic="lab",
    short_help="Put reports, recordings and spools into a folder.",
    examples=[
        ("gotrace fleet add shop-fleet runs/*", "adds the reports of `gotrace baseline` in these folders"),
        (
            "gotrace fleet add shop-fleet --host-name web-1 --service shop run.gotrace",
            "adds a recording, and says whose it is",
        ),
    ],
)
@folder_argument
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--host-name", metavar="NAME", help="The machine's name, where a file does not say it.")
@click.option("--service", metavar="NAME", help="What the service is called.  [default: its executable]")
@click.option("--version", metavar="NAME", help="The service's version.  [default: that of the report, or its build ID]")
@click.option("--provider", metavar="NAME", help="The cloud that the machine is of, where its firmware does not say.")
@click.option("--instance", metavar="TYPE", help="The machine's type there: c7g.xlarge.")
@click.option("--emulated", is_flag=True, help="The machine is emulated: its times say nothing about real ones.")
def command(
    folder: str,
    files: tuple[str, ...],
    host_name: str | None,
    service: str | None,
    version: str | None,
    provider: str | None,
    instance: str | None,
    emulated: bool,
) -> int:
    """Add reports of `gotrace baseline`, recordings, spools of `gotrace serve`, .hlog files and prices to the fleet in DIR.

    DIR is made if it is not there. What is in it already is skipped; of a spool only what is new is read.
    """
    from gotrace.cli.text import fleet as text
    from gotrace.fleet.add import add
    from gotrace.fleet.machines import Told

    outcomes = add(folder, files, Told(host_name, service, version, provider, instance, emulated))
    text.write_added(outcomes, say)
    return text.REFUSED if any(each.problem for each in outcomes) else 0
