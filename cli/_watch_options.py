"""The options that `gotrace mem`, `tlb` and `numa` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from gotrace.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])


def _print_schema(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        import json

        from gotrace.export.memory_schema import json_schema

        click.echo(json.dumps(json_schema(), indent=2))
        ctx.exit()


def watch_options(command: Command) -> Command:
    """Which process, and where the results go: parameters pid, format_, output, force."""
    for add in (
        click.option(
            "--json-schema",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_schema,
            help="Print the JSON schema of a line of ndjson.",
        ),
        click.option("--force", is_flag=True, help="Overwrite FILE if it exists."),
        click.option(
            "-o",
            "--output",
            type=click.Path(),
            metavar="FILE(.ndjson|.html|.gotrace)",
            help="Write there too: the records, a page, or a recording.",
        ),
        click.option("--format", "format_", type=click.Choice(["table", "ndjson"]), default="table", help="What to print."),
        click.option("-p", "--pid", type=int, required=True, help="The Go process to look at."),
    ):
        command = add(command)
    return command


def check_events(names: Sequence[str]) -> None:
    """Raises UsageError for more events than can be counted at once."""
    if len(set(names)) > 8:
        raise UsageError("more than eight events cannot be counted at once", "ask for some, then for the others")
