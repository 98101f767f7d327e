"""`gotrace baseline`: run a Go service under load, again and again, and say how it behaves here."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gotrace.cli.options import Command, Duration, command_argument, option, say, schema_option_of
from gotrace.errors import UsageError
from gotrace.export.formats import TABLES
from gotrace.run import files
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.lab.plan import Version
    from gotrace.lab.service import Ready

AUTO = "auto"


class _Preload(Duration):
    """A duration, or until it is warm."""

    name = "duration|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return AUTO if value == AUTO else super().convert(value, param, ctx)


_EXAMPLE = "gotrace baseline --load 'wrk -d10s http://127.0.0.1:8080/' --out out -- ./server"


@click.command(
    "baseline",
    cls=Command,
    topic="lab",
    short_help="Measure a Go service under load, run after run.",
    examples=[
        (_EXAMPLE, "starts it ten times under that load, and reports what it did"),
        (
            "gotrace baseline --load 'hey http://127.0.0.1:80/' --ab A=./a --ab B=./b --out out",
            "measures two builds in turns, for `gotrace compare out`",
        ),
    ],
    epilog="Afterwards: `gotrace compare`. Exit status: 0 if it was measured as planned, 5 if the load failed, 1 if not.",
)
@click.option("--load", "load", required=True, metavar="COMMAND", help="What puts the service under load: wrk, hey, ab, …")
@click.option("--load-format", metavar="TOOL", default="", help="The tool whose output that command prints.")
@click.option(
    "--ab", "versions", multiple=True, metavar="NAME=COMMAND", help="A version to measure; for each of them once."
)
@click.option(
    "-n", "--runs", type=click.IntRange(1, 1000), default=10, show_default=True, help="How often each is measured."
)
@click.option(
    "--preload",
    type=_Preload(),
    default="5s",
    show_default=True,
    help="Load that is not measured, before each run; auto: until the service is steady, 3 min at most.",
)
@click.option("--ready", metavar="WHAT", help="tcp:PORT or http://HOST:PORT/PATH.  [default: the load's address accepts]")
@click.option("--cpus", metavar="LIST", default="", help="CPUs that the service may use: 0-3,6.")
@click.option("--load-cpus", metavar="LIST", default="", help="CPUs that the load may use.")
@click.option(
    "--most-drift",
    type=click.FloatRange(0),
    default=3,
    show_default=True,
    metavar="PERCENT",
    help="By how much the machine's own speed may change during a run that counts.",
)
@option("explain", help="Say what the longest pauses of each run waited for; it costs the service more.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order of the runs.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--out", "folder", type=click.Path(), required=True, metavar="FOLDER", help="Write the report here.")
@option("force", help="Overwrite the report that is there.")
@schema_option_of("report", lambda _: _schema())
@command_argument
def command(
    load: str,
    load_format: str,
    versions: tuple[str, ...],
    runs: int,
    preload: int | str,
    ready: str | None,
    cpus: str,
    load_cpus: str,
    most_drift: float,
    explain: bool,
    seed: int,
    dry_run: bool,
    folder: str,
    force: bool,
    command: tuple[str, ...],
) -> int:
    """Start a Go service, put it under load, measure it from outside, and end it: as often as --runs says.

    FOLDER gets report.json, with every run and why it counts or does not, report.html, which shows them, and the raw events
    of each run.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import baseline as text
    from gotrace.lab import baseline
    from gotrace.lab.load import parse_load
    from gotrace.lab.plan import Plan
    from gotrace.lab.service import Ready

    parsed = parse_load(load, load_format)
    plan = Plan(
        versions=_versions(versions, command),
        load=parsed,
        runs=runs,
        warmup_ns=None if preload == AUTO else int(preload),
        ready=Ready.parse(ready) if ready is not None else _of_load(parsed.command),
        seed=seed,
        most_drift=most_drift / 100,
        explained=5 if explain else 0,
        cpus=_cpus(cpus, "--cpus"),
        load_cpus=_cpus(load_cpus, "--load-cpus"),
    )
    if dry_run:
        baseline.check(plan, Path(folder), force)
        for line in text.plan(plan, folder):
            click.echo(line)
        return 0
    files.on_created = lambda _: None  # there is one for each run
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    report = baseline.run(plan, Path(folder), force, say)
    with wanted((), None, TABLES, False, screen="table").streams() as streams:
        for stream, _ in streams:
            text.write(stream, report)
    say(f"Wrote {printable(folder)}/report.json.")
    if report["cut_off"]:
        return 130
    return 0 if report["complete"] else 1


def _schema() -> dict[str, Any]:
    from gotrace.lab.report import schema

    return schema()


def _versions(named: tuple[str, ...], command: tuple[str, ...]) -> tuple[Version, ...]:
    from gotrace.lab.plan import Version

    if bool(named) == bool(command):
        raise UsageError("give either a command after `--` or versions with --ab", _EXAMPLE)
    if command:
        return (Version(Path(command[0]).name, command),)
    found = []
    for text in named:
        name, equals, words = text.partition("=")
        try:
            argv = tuple(shlex.split(words))
        except ValueError:
            argv = ()
        if not name or not equals or not argv:
            raise UsageError(f"cannot read --ab {text!r}", "write --ab NAME='./server --port 8080'")
        found.append(Version(name, argv))
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise UsageError("two versions have the same name", "give each --ab its own")
    return tuple(found)


def _of_load(words: tuple[str, ...]) -> Ready:
    from gotrace.lab.service import Ready

    urls = [word for word in words if word.startswith(("http://", "https://"))]
    if not urls:
        raise UsageError(
            "the load's command has no address from which to know when the service is ready", "give --ready tcp:PORT"
        )
    return Ready.of_url(urls[-1])


def _cpus(text: str, name: str) -> tuple[int, ...]:
    from gotrace.kernel.host import cpus_of

    try:
        return tuple(cpus_of(text)) if text else ()
    except ValueError:
        raise UsageError(f"cannot read {name} {text!r}", "write 0-3,6") from None
