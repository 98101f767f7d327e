# ruff: noqa: N999 -- the command is called import, and a command is found by its module's name
"""`gotrace import`: a recording from what perf has seen, for hosts where BPF is not allowed."""

from __future__ import annotations

import os

import click

from gotrace.cli.options import Command, option, output_options, say
from gotrace.export.formats import RECORDING


@click.command(
    "import",
    cls=Command,
    topic="record",
    short_help="Turn the output of `perf script` into a recording.",
    examples=[
        ("gotrace import perf-script.txt -o run.gotrace", "imports what perf printed to a file"),
        ("perf script --ns -F +pid,+ip,+sym,+dso,+period | gotrace import - -o run.gotrace", "imports straight from perf"),
    ],
    epilog="Afterwards: `gotrace flame`, `gotrace export`.",
)
@click.argument("file", type=click.Path(), metavar="FILE|-")
@option("pid", help="Only this process; needs `perf script -F +pid,+ip,+sym,+dso`.")
@click.option("--comm", metavar="NAME", help="Only threads with this name.")
@output_options(RECORDING, required=True)
def command(
    file: str, pid: int | None, comm: str | None, outputs: tuple[str, ...], format_: str | None, force: bool
) -> int:
    """Turn the output of `perf script` (FILE, or standard input) into a recording, for hosts that do not allow BPF.

    Record with `perf record -g -e cpu-clock -p PID -- sleep 10`, for example; tracepoints and hardware events work too,
    with any fields (-F). sched:sched_switch, system calls and uprobes on stopTheWorldWithSema and
    startTheWorldWithSema become durations, from which `gotrace export` makes histograms. Lines that cannot be parsed are
    counted.
    """
    from gotrace.cli.outputs import wanted

    output = wanted(outputs, format_, RECORDING, force, inputs=(file,)).recording
    assert output is not None
    from gotrace.cli.text import perf_import as text
    from gotrace.cli.text.progress import reading
    from gotrace.run.files import input_of
    from gotrace.run.perf_import import import_script

    with input_of(file) as source, reading(os.fstat(source.fileno()).st_size) as tell:
        script, importer = import_script(source, file, output, force, pid, comm, tell)
    for line in text.summary(script, importer):
        say(line)
    return 0
