"""`gotrace record`: keep the raw events of one Go process, for every question that comes later."""

from __future__ import annotations

import importlib
import os
import sys

import click

from gotrace.cli._target import attached, check_files, check_target, hz_option, sample_ns, target_options
from gotrace.errors import UsageError
from gotrace.text import bytes_text, printable


@click.command("record", epilog="Afterwards: `gotrace report`, `gotrace flame`, `gotrace export`.")
@target_options
@click.option("-o", "--output", type=click.Path(), required=True, metavar="FILE", help="Where to (run.gotrace).")
@click.option("--probes", default="gc,tail", show_default=True, help="What to record, separated by commas.")
@hz_option
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
def command(
    pid: int | None, duration: int | None, output: str, probes: str, hz: int, force: bool, command: tuple[str, ...]
) -> int:
    """Record the raw events of a Go process to FILE, with the tables that give them their meaning.

    FILE is an Arrow IPC stream. It is written as it grows: a crash loses the last second at most.
    """
    check_target(pid, command, duration, "gotrace record")
    check_files((output,), force)
    stems = list(dict.fromkeys(probes.split(",")))
    known = _stems()
    for stem in stems:
        if stem not in known:
            raise UsageError(f"there is no probe {printable(stem)!r}", f"these are: {', '.join(known)}")
        if importlib.import_module(f"gotrace.probes.{stem}").PROBE.of_starts:
            hint = f"gotrace {stem} -o {printable(output)} -- COMMAND"
            raise UsageError(f"the probe {stem!r} is for starts of a program, not for one that runs", hint)

    def import_the_rest() -> None:
        import gotrace.cli._recorder  # noqa: F401

    with attached(stems, pid, command, import_the_rest, sample_ns(hz)) as traced:
        from gotrace.cli._recorder import Recorder

        with Recorder.opened(output, force, traced) as recorder:
            end = recorder.run(duration)
        size = bytes_text(os.path.getsize(output))
        print(
            f"{printable(output)}: {end['received']} events, {end['lost']} lost, {size}; ended by: {end['ended']}",
            file=sys.stderr,
        )
        return traced.exit_status()


def _stems() -> list[str]:
    import pkgutil

    return sorted(info.name for info in pkgutil.iter_modules(importlib.import_module("gotrace.probes").__path__))
