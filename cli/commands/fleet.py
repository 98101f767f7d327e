"""`gotrace fleet`: many hosts in one folder. Its commands are the modules fleet_* beside this one."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping

import click

import gotrace.cli.commands
from gotrace.cli.options import Command

_PREFIX = "fleet_"


class _Inner(Mapping[str, click.Command]):
    """The commands by their names, each imported when it is asked for."""

    @functools.cached_property
    def _names(self) -> list[str]:
        modules = (info.name for info in pkgutil.iter_modules(gotrace.cli.commands.__path__))
        return [name.removeprefix(_PREFIX) for name in modules if name.startswith(_PREFIX)]

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._names:
            raise KeyError(name)
        command: click.Command = importlib.import_module(f"gotrace.cli.commands.{_PREFIX}{name}").command
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Fleet(Command):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.short_help or "") for name, command in self.inner.items()])


@click.command(
    "fleet",
    cls=_Fleet,
    topic="lab",
    short_help="Combine measurements from many hosts, and query them.",
    examples=[
        ("gotrace fleet add shop-fleet runs/* /var/lib/gotrace", "adds reports and an agent's spool to a folder"),
        ("gotrace fleet collect shop-fleet --from agents.txt", "fetches the spools of all agents"),
    ],
    inner=_Inner(),
)
@click.argument("name", metavar="COMMAND", required=False)
@click.pass_context
def command(ctx: click.Context, name: str | None) -> int:
    """Combine measurements from many hosts in one folder of Parquet files, and query them together."""
    if name is None:
        click.echo(ctx.get_help())
        return 0
    import difflib

    from gotrace.errors import UsageError

    near = difflib.get_close_matches(name, list(_Inner()), 1)
    raise UsageError(
        f"there is no command `fleet {name}`",
        f"did you mean `gotrace fleet {near[0]}`?" if near else f"there are {', '.join(_Inner())}",
    )
