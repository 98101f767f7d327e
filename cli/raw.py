"""The command of a probe that has none of its own: its events as they happen, one object a line."""

from __future__ import annotations

import json

import click

from gotrace.cli.options import Command, option, output_options, say
from gotrace.cli.target import target
from gotrace.export.formats import LINES
from gotrace.probe import probe_module
from gotrace.run.target import attached


def command_for(stem: str) -> click.Command:
    """`gotrace STEM --pid PID`: every event of the probe with the columns it declares, then what was lost."""
    summary = probe_module(stem).PROBE.summary

    @click.command(
        stem,
        cls=Command,
        topic="raw",
        help=f"Print every event of the probe {stem!r}, one JSON object per line: {summary}.",
        short_help=f"{summary[0].upper()}{summary[1:]}.",
        examples=[
            (f"gotrace {stem} --pid 1234 -d 10s", "prints the events of 10 s"),
            (f"gotrace record --probes gc,{stem} --pid 1234 -o run.gotrace", "records them instead"),
        ],
    )
    @target(required=True)
    @option("duration")
    @output_options(LINES, screen=("ndjson",))
    def command(pid: int, duration: int | None, outputs: tuple[str, ...], format_: str | None, force: bool) -> int:
        from gotrace.cli.outputs import wanted
        from gotrace.export.events import Events
        from gotrace.run.sources import Live

        results = wanted(outputs, format_, LINES, force, screen="ndjson")
        tracing_it = attached([stem], pid, (), duration, say, gives_root_back=True, unused=results.unused)
        with tracing_it as traced, results.streams(whole=False) as streams:

            def put(text: str) -> None:
                for stream, _ in streams:
                    stream.write(text)
                    stream.flush()

            tracing = traced.session
            traced.release()
            goes_on = True
            while goes_on:
                live = Live(traced)
                live.failing = lambda: any(stream.failure is not None for stream, _ in streams)
                named = Events(live.header, tracing.static_text, lambda _: ())
                try:
                    for events in live.portions():
                        put(named.lines(events))
                finally:
                    put(json.dumps({"type": "summary", "received": tracing.received, "lost": tracing.lost}) + "\n")
                goes_on = traced.next_program()
        return 0

    return command
