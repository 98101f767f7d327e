"""`gotrace report`: what `gotrace gc` would have printed, from a recording."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from gotrace.cli._target import Duration, check_files
from gotrace.errors import UsageError

if TYPE_CHECKING:
    from gotrace.recording.reader import Recording


@click.command("report")
@click.argument("recording", type=click.Path(), metavar="RECORDING")
@click.option("-i", "--interval", type=Duration(), default="1s", show_default=True, help="Length of a line.")
@click.option("--min-pause", type=Duration(), default="0", help="Write single pauses only from this length on (100us).")
@click.option("--explain", is_flag=True, help="Say what the longest pauses were waiting for.")
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many pauses to explain.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "ndjson", "json"]),
    help="What to print. [default: table, or what FILE of -o ends in]",
)
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Write there; the table is still printed.")
@click.option("--hlog", type=click.Path(), metavar="FILE", help="Write an HdrHistogram interval log.")
@click.option("--hgrm", type=click.Path(), metavar="FILE", help="Write HdrHistogram percentile distributions.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def command(
    recording: str,
    interval: int,
    min_pause: int,
    explain: bool,
    top: int,
    format_: str | None,
    output: str | None,
    hlog: str | None,
    hgrm: str | None,
    force: bool,
) -> int:
    """Print from RECORDING what the command that made it printed (gc, coldstart, mem, tlb, numa), number for number."""
    if interval == 0:
        raise UsageError("--interval must be longer than nothing", "write 1s or 500ms")
    check_files((output, hlog, hgrm, recording), force=True)  # whatever --force says, not over the recording itself
    check_files((output, hlog, hgrm), force)
    from gotrace.cli._gc_run import Outputs, complain_of
    from gotrace.cli._replay import check_probe, replay
    from gotrace.recording.reader import Recording

    with Recording.open(recording) as source:
        if "coldstart" in source.header["probes"]:
            _report_starts(source, format_, output, force)
            return 0
        if "views" in source.header:
            _report_views(source, format_, output, force)
            return 0
        if explain:
            check_probe(source, "tail", "evidence to explain pauses")
        with Outputs.opened(format_, output, hlog, hgrm, force, sys.stdout) as outputs:
            replay(source, outputs, interval, min_pause, top if explain else 0)
        complain_of(outputs.failed())
    return 0


def _report_starts(source: Recording, format_: str | None, output: str | None, force: bool) -> None:
    from gotrace.cli import _coldstart_run
    from gotrace.cli.export import format_of

    result = _coldstart_run.replayed(source)
    if format_ in ("json", "ndjson") and output is None:
        _coldstart_run.print_json(result, sys.stdout, format_)
        return
    _coldstart_run.print_table(result, sys.stdout, _coldstart_run.Shown())
    if output is not None:
        _coldstart_run.write_all(result, [(output, format_ or format_of(output, _coldstart_run.FORMATS))], force)


def _report_views(source: Recording, format_: str | None, output: str | None, force: bool) -> None:
    from gotrace.cli._views import recorded
    from gotrace.cli._watch import Outputs, Replayed, run

    run(Replayed(source), recorded(source), Outputs.checked(format_ or "table", output, force))
