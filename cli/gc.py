"""`gotrace gc`: time every stop-the-world pause and GC cycle of one Go process."""

from __future__ import annotations

import json
import sys

import click

from gotrace.cli._target import Duration, attached, check_files, check_target, target_options
from gotrace.errors import UsageError


def _print_schema(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from gotrace.export.gc_json import json_schema

        click.echo(json.dumps(json_schema(), indent=2))
        ctx.exit()


@click.command("gc", epilog="Ends at --duration, at Ctrl-C or when the target exits; the summary is printed each time.")
@target_options
@click.option("-i", "--interval", type=Duration(), default="1s", show_default=True, help="Length of a live line.")
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
@click.option("--record", type=click.Path(), metavar="FILE", help="Keep the raw events too: see `gotrace report`.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@click.option("--json-schema", is_flag=True, is_eager=True, expose_value=False, callback=_print_schema)
def command(
    pid: int | None,
    duration: int | None,
    interval: int,
    min_pause: int,
    explain: bool,
    top: int,
    format_: str | None,
    output: str | None,
    hlog: str | None,
    hgrm: str | None,
    record: str | None,
    force: bool,
    command: tuple[str, ...],
) -> int:
    """Time every stop-the-world pause and GC cycle of a Go process, exactly.

    Give a running process with --pid, or a command after `--`, which is then traced from its first instruction.
    """
    check_target(pid, command, duration, "gotrace gc")
    if interval == 0:
        raise UsageError("--interval must be longer than nothing", "write 1s or 500ms")
    check_files((output, hlog, hgrm, record), force)

    def import_the_rest() -> None:
        # the caller may not be able to read where gotrace is installed

        import gotrace.cli._gc_run  # noqa: F401

        if record:
            import gotrace.cli._recorder  # noqa: F401

    with attached(["gc", "tail"] if explain else ["gc"], pid, command, import_the_rest) as traced:
        from gotrace.cli._gc_run import Outputs, trace

        # A command's standard output is its own: like other wrappers we then print on standard error.
        screen = sys.stdout if traced.launched is None else sys.stderr
        with Outputs.opened(format_, output, hlog, hgrm, force, screen) as outputs:
            return trace(traced, outputs, duration, interval, min_pause, top if explain else 0, record, force)
