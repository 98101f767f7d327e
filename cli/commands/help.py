"""`gotrace help`: the help of a command, or of gotrace."""

from __future__ import annotations

import click

from gotrace.cli.options import Command


@click.command(
    "help",
    cls=Command,
    topic="setup",
    short_help="Explain a command.",
    examples=[("gotrace help", "lists the commands"), ("gotrace help gc", "explains `gotrace gc` and its options")],
)
@click.argument("command", nargs=-1, metavar="[COMMAND]")
def command(command: tuple[str, ...]) -> int:
    """Explain COMMAND, or list the commands."""
    top = click.get_current_context().parent
    assert top is not None and isinstance(top.command, click.Group)
    if not command:
        click.echo(top.get_help())
        return 0
    first, _, inner = command[0].partition("-")  # as manual pages are named: coldstart-compare
    outer = top.command.get_command(top, first)
    words = [first, inner, *command[1:]] if isinstance(outer, Command) and inner in outer.inner else list(command)
    name, found, more = top.command.resolve_command(top, words)
    assert found is not None
    found.make_context(name, [*more, "--help"], top)  # prints it, and ends here
    return 0
