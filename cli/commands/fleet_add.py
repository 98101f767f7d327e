"""`gotrace fleet add`: reports, recordings and spools into a fleet's folder."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, say

folder_argument = click.argument("folder", type=click.Path(), metavar="DIR")


@click.command(
    "add",
    cls=Command,
    topic="lab",
    short_help="Add reports, recordings and spools to a fleet.",
    examples=[
        ("gotrace fleet add shop-fleet runs/*", "adds the reports of `gotrace baseline` in these folders"),
        (
            "gotrace fleet add shop-fleet --host-name web-1 --service shop run.gotrace",
            "adds a recording, with its host and service",
        ),
    ],
)
@folder_argument
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--host-name", metavar="NAME", help="Machine name, for files that do not hold one.")
@click.option("--service", metavar="NAME", help="Service name.  [default: the executable]")
@click.option("--version", metavar="NAME", help="Service version.  [default: from the report, or the build ID]")
@click.option("--provider", metavar="NAME", help="Cloud provider, if the firmware does not tell.")
@click.option("--instance", metavar="TYPE", help="Instance type: c7g.xlarge.")
@click.option("--emulated", is_flag=True, help="Mark the machine as emulated: its times say nothing about real ones.")
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

    DIR is created if it does not exist. Files already added are skipped; of a spool, only what is new is read.
    """
    from gotrace.cli.text import fleet as text
    from gotrace.fleet.add import add
    from gotrace.fleet.machines import Told

    outcomes = add(folder, files, Told(host_name, service, version, provider, instance, emulated))
    text.write_added(outcomes, say)
    return text.REFUSED if any(each.problem for each in outcomes) else 0
