"""`gotrace record`: keep the raw events of one Go process, for every question that comes later."""

from __future__ import annotations

import itertools

import click

from gotrace.cli.options import (
    Command,
    check_target,
    command_argument,
    need,
    option,
    output_options,
    sample_ns,
    say,
)
from gotrace.cli.target import target
from gotrace.errors import UsageError
from gotrace.export.formats import RECORDING
from gotrace.probe import probe_module, stems
from gotrace.run.files import numbered
from gotrace.run.target import attached
from gotrace.text import count_text, printable


@click.command(
    "record",
    cls=Command,
    topic="record",
    short_help="Record raw events to a file, to analyze later.",
    examples=[
        ("gotrace record --pid 1234 -d 1m -o run.gotrace", "records pauses with their causes for a minute"),
        ("gotrace record --probes gc,tail,profile -o run.gotrace -- ./server", "records a command, with CPU samples"),
    ],
    epilog="Afterwards: `gotrace report`, `gotrace flame`, `gotrace export`.",
)
@target()
@option("duration")
@click.option(
    "--probes", default="gc,tail", show_default=True, metavar="NAMES", help="Probes to record, separated by commas."
)
@option("hz")
@output_options(RECORDING, required=True)
@command_argument
def command(
    pid: int | None,
    duration: int | None,
    probes: str,
    hz: int,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    command: tuple[str, ...],
) -> int:
    """Record the raw events of a Go process, together with the tables needed to decode them.

    A recording is an Arrow IPC stream. It is written continuously: a crash loses at most the last second.
    """
    check_target(pid, command, "gotrace record")
    from gotrace.cli.outputs import wanted

    path = wanted(outputs, format_, RECORDING, force).recording
    assert path is not None
    if path == "-" and command:
        raise UsageError("standard output is the command's", "record to a file")
    recorded = list(dict.fromkeys(probes.split(",")))
    known = stems()
    for stem in recorded:
        if stem not in known:
            raise UsageError(f"there is no probe {printable(stem)!r}", f"the probes are {', '.join(known)}")
        if probe_module(stem).PROBE.of_starts:
            hint = f"gotrace {stem.partition('_')[0]} -o {printable(path)} -- COMMAND"
            raise UsageError(f"the probe {stem!r} traces starts of a program, not a running one", hint)
    need("--probes profile", "profile" in recorded, "hz")

    with attached(recorded, pid, command, duration, say, gives_root_back=True, sample_ns=sample_ns(hz)) as traced:
        from gotrace.run.recorder import Recorder
        from gotrace.run.sources import record

        traced.release()
        for number in itertools.count(1):
            with Recorder.opened(numbered(path, number, force), force, traced) as recorder:
                end = record(traced, recorder)
            say(f"{count_text(end['received'], 'event')}, {end['lost']} lost; ended by: {end['ended']}")
            if not traced.next_program():
                break
    return traced.exit_status()
