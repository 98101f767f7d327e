"""`gotrace reproduce`: carry out the plan of a report, or what was recorded, again, and say whether it holds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from gotrace.cli.options import Command, Folder, need, output_options, percent, say
from gotrace.errors import UsageError
from gotrace.export.formats import TABLES
from gotrace.run import files
from gotrace.text import printable


@click.command(
    "reproduce",
    cls=Command,
    topic="lab",
    short_help="Repeat a report or a recording, and check if its results hold.",
    examples=[
        ("gotrace reproduce out --out again", "measures again as `out` was measured, and compares the two"),
        ("gotrace reproduce run.gotrace -n 10", "reruns a command that `gotrace datapath` recorded, ten times"),
    ],
    epilog="Exit status: 0 reproduced, 1 not reproduced (or an error), 2 wrong usage, 3 cannot tell, 4 another kind of"
    " machine, 5 the service, the load or the command failed.",
)
@percent("--margin", 3, "Differences within this count as the same.")
@click.option(
    "--anyway", is_flag=True, help="Measure even on a different kind of machine; the verdict is then: cannot tell."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option(
    "--out",
    "folder",
    type=Folder(),
    metavar="DIR",
    help="Directory for the new report (required when DIR is a report).",
)
@click.option(
    "-n",
    "--runs",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    metavar="N",
    help="Number of runs, for a recording.",
)
@click.option("--replay", is_flag=True, help="Replay the calls of a recording instead of running its command.")
@click.option(
    "--into", type=Folder(), metavar="DIR", help="Replay the calls on files in this directory, which must be empty or new."
)
@click.option("--cold", is_flag=True, help="Drop the files' pages from the page cache first.")
@output_options(TABLES, screen=("table", "json"))
@click.argument("report", type=click.Path(), metavar="DIR|RECORDING")
def command(
    margin: float,
    anyway: bool,
    dry_run: bool,
    folder: str | None,
    runs: int,
    replay: bool,
    into: str | None,
    cold: bool,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    report: str,
) -> int:
    """Measure again by the plan of the report in DIR, on this machine, and check whether its results hold.

    For a recording by `gotrace datapath`, the traced command is run and traced again. Commands from the report or recording
    are executed: if someone else made it, check what --dry-run prints first.
    """
    from gotrace.cli.outputs import wanted

    if report.endswith(".gotrace") and not os.path.isdir(report):
        from gotrace.cli import repeat

        need("a report", False, "folder")
        need("--replay", replay, "into", "cold")
        if replay and into is None and not dry_run:
            raise UsageError("--replay needs a folder", "give --into DIR: an empty folder, or a new one")
        results = wanted(outputs, format_, TABLES, force, screen="table", inputs=(report,))
        return repeat.recording(report, margin / 100, runs, anyway, dry_run, replay, into, cold, results)
    need("a recording", False, "runs", "replay", "into", "cold")
    if folder is None:
        raise UsageError("a report needs --out DIR", "the new report goes there")
    from gotrace.cli.text import baseline as plan_text
    from gotrace.cli.text import reproduce as text
    from gotrace.lab import reproduce
    from gotrace.lab.plan import Plan
    from gotrace.lab.report import whole

    if os.path.realpath(folder) == os.path.realpath(report if os.path.isdir(report) else os.path.dirname(report)):
        raise UsageError("the new report would overwrite the old one", "give --out another folder")
    results = wanted(outputs, format_, TABLES, force, screen="table", inputs=(report,))
    then = whole(report)
    plan = Plan.from_json(then["plan"])
    expected = reproduce.expected(then, margin / 100)
    if dry_run:
        from gotrace.cli.text.doctor import of_the_host

        other = reproduce.check(then, plan, Path(folder), force, anyway)
        expects = text.expected(then, plan, expected, margin, other)
        for line in (*plan_text.plan(plan, folder), *expects, *of_the_host()):
            click.echo(line)
        return 0
    files.on_created = lambda _: None  # there is one for each run
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    now, found = reproduce.repeat(then, Path(folder), margin / 100, force, anyway, say)
    if now["cut_off"]:
        return 130
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, found, expected)
    say(f"Wrote {printable(folder)}/report.json.")
    return found.exit_code
