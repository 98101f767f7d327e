"""The command of a probe that has none of its own: its events as they happen, one object a line."""

from __future__ import annotations

import importlib
import json
import sys
import time

import click

from gotrace.cli._target import Duration, StopRequest


def command_for(stem: str) -> click.Command:
    """`gotrace STEM --pid PID`: every event of the probe with the columns it declares, then what was lost."""
    module = importlib.import_module(f"gotrace.probes.{stem}")

    @click.command(stem, help=f"Print the events of the probe '{stem}': {module.PROBE.summary}.")
    @click.option("-p", "--pid", type=int, required=True, help="The Go process to trace.")
    @click.option("-d", "--duration", type=Duration(), help="Stop after this long (10s, 500ms, 2m).")
    def command(pid: int, duration: int | None) -> int:
        from gotrace import session
        from gotrace.export.events import Events
        from gotrace.kernel.process import Process

        stop = StopRequest()
        with Process.open(pid) as process, session.opened([module], process) as tracing, stop.installed():
            print(f"Tracing pid {pid}… Ctrl-C to end.", file=sys.stderr, flush=True)
            begin_ns = time.monotonic_ns()
            named = Events(tracing.header(begin_ns), tracing.static_text, lambda _: ())
            end = begin_ns + duration if duration else None
            ended = False
            while not ended:
                ended = tracing.wait(0.1) or stop.signal is not None or (end is not None and time.monotonic_ns() >= end)
                click.echo(named.lines(tracing.read()), nl=False)
            click.echo(json.dumps({"type": "summary", "received": tracing.ring.received, "lost": tracing.lost}))
        return 0

    return command
