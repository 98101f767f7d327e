"""`gotrace datapath replay`: the load of a recording's calls on files, or the calls made again."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from gotrace.cli.options import Command, Folder, exclude, need, option, output_options, say, schema_option_of
from gotrace.errors import UsageError
from gotrace.export.formats import LOADS


class Speed(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """How many times as fast as recorded: a number above 0, or "max": without waiting (infinite)."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if value == "max" or isinstance(value, float):
            return math.inf if value == "max" else value
        try:
            speed = float(value)
        except ValueError:
            speed = 0.0
        if not 0 < speed < math.inf:
            self.fail(f"invalid speed {value!r}; write 1, 2.5 or max", param, ctx)
        return speed


def _schema(_: str) -> dict[str, Any]:
    from gotrace.records.all import schema_of_command

    return schema_of_command("datapath")


@click.command(
    "replay",
    cls=Command,
    topic="time",
    examples=[
        (
            "gotrace datapath replay run.gotrace",
            "shows the load over time: calls by kind and their latency",
        ),
        ("gotrace datapath replay run.gotrace --into /mnt/new --cold", "replays the calls on another file system"),
    ],
    epilog="Without --into, nothing is written, as with --dry-run.",
)
@click.option(
    "--into", type=Folder(), metavar="DIR", help="Replay the calls on files in this directory, which must be empty or new."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option(
    "--speed",
    type=Speed(),
    default="1",
    show_default=True,
    metavar="N",
    help="Speed relative to the recording (2.5); max: as fast as possible.",
)
@click.option("--cold", is_flag=True, help="Drop the files' pages from the page cache first.")
@click.option("--sparse", is_flag=True, help="Use sparse files: nothing is written first, and nothing is read from disk.")
@click.option("--remove", is_flag=True, help="Delete the files afterwards.")
@option("interval", default=None, show_default=False, help="Time per row.  [default: automatic]")
@output_options(LOADS, screen=("table", "ndjson", "json"))
@schema_option_of("records", _schema)
@click.argument("recording", type=click.Path(), metavar="RECORDING")
def of_calls(
    into: str | None,
    dry_run: bool,
    speed: float,
    cold: bool,
    sparse: bool,
    remove: bool,
    interval: int | None,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    recording: str,
) -> int:
    """Show the load of a recording by `gotrace datapath` over time, or make its calls again with --into.

    Files of the sizes that are read are made in DIR, as numbers in one folder, and stay there without --remove. Then the
    calls are made, thread by thread, at their times; what cannot be made again is counted.
    """
    need("--into", into is not None, "speed", "cold", "sparse", "remove")
    exclude("cold", "sparse")
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import datapath_load as text
    from gotrace.cli.text.progress import recording as opened
    from gotrace.cli.text.table import Table
    from gotrace.run.outputs import feed
    from gotrace.run.sources import Replayed
    from gotrace.views.datapath_load import DataPathLoad, calls_in

    results = wanted(outputs, format_, LOADS, force, screen="table", inputs=(recording,))
    with opened(recording, bar=not results.screen) as source:
        source.require("datapath", "calls on files")
        if into is None or dry_run:
            view = DataPathLoad(interval or 0)
            with results.opened() as files:
                feed(Replayed(source), [view], files)
        else:
            need("--dry-run, or without --into", False, "interval")
            if "html" in results.formats:
                raise UsageError("a replay cannot be written as HTML", "write .json, or draw the load with --dry-run")
            view = calls_in(Replayed(source))
    if into is None:
        return 0
    from gotrace.lab import replay
    from gotrace.run.target import StopRequest

    of = replay.material(view, sparse)
    for each in text.material(of, cold):
        say(str(each))
    if dry_run:
        return 0
    stop = StopRequest()
    with replay.folder(into, remove) as folder, stop.installed():
        replay.check_room(of, folder)
        found, _ = replay.replay(view, of, folder, None if speed == math.inf else speed, cold, stop)
    with results.streams() as streams:
        for stream, kind in streams:
            if kind == "table":
                Table(stream).print(text.replayed(found))
            else:
                stream.write(json.dumps([found] if kind == "json" else found) + "\n")
    return 130 if stop.signal else 0
