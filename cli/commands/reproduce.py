"""`gotrace reproduce`: carry out the plan of a report again, and say whether what it says holds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from gotrace.cli.options import Command, Folder, output_options, percent, say
from gotrace.errors import UsageError
from gotrace.export.formats import TABLES
from gotrace.run import files
from gotrace.text import printable


@click.command(
    "reproduce",
    cls=Command,
    topic="lab",
    short_help="Repeat a report's plan, and say whether it holds.",
    examples=[
        ("gotrace reproduce out --out again", "measures as the report in out was, and compares the two"),
        ("gotrace reproduce out --out again --dry-run", "says what would be started, and what will be judged"),
    ],
    epilog="Exit status: 0 reproduced, 1 not reproduced (or an error), 2 wrong usage, 3 cannot tell, 4 another kind of"
    " machine, 5 the service or the load failed.",
)
@percent("--within", 3, "What counts as the same.")
@click.option("--anyway", is_flag=True, help="Measure on another kind of machine too; then the answer is: cannot tell.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--out", "folder", type=Folder(), required=True, metavar="FOLDER", help="Write the new report here.")
@output_options(TABLES, screen=("table", "json"))
@click.argument("report", type=click.Path(), metavar="FOLDER")
def command(
    within: float,
    anyway: bool,
    dry_run: bool,
    folder: str,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    report: str,
) -> int:
    """Carry out the plan of the report in FOLDER again, here, and say whether what it says holds.

    The commands of the report are executed: read what --dry-run prints, if somebody else wrote it.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import baseline as plan_text
    from gotrace.cli.text import reproduce as text
    from gotrace.lab import reproduce
    from gotrace.lab.plan import Plan
    from gotrace.lab.report import whole

    if os.path.realpath(folder) == os.path.realpath(report if os.path.isdir(report) else os.path.dirname(report)):
        raise UsageError("the new report would go over the old one", "give --out another folder")
    results = wanted(outputs, format_, TABLES, force, screen="table", inputs=(report,))
    then = whole(report)
    plan = Plan.from_json(then["plan"])
    expected = reproduce.expected(then, within / 100)
    if dry_run:
        from gotrace.cli.text.doctor import of_the_host

        other = reproduce.check(then, plan, Path(folder), force, anyway)
        expects = text.expected(then, plan, expected, within, other)
        for line in (*plan_text.plan(plan, folder), *expects, *of_the_host()):
            click.echo(line)
        return 0
    files.on_created = lambda _: None  # there is one for each run
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    now, found = reproduce.repeat(then, Path(folder), within / 100, force, anyway, say)
    if now["cut_off"]:
        return 130
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, found, expected)
    say(f"Wrote {printable(folder)}/report.json.")
    return found.exit_code
