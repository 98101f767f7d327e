"""`gotrace goroutines diff` and `gotrace heap diff`: what there is more of in one recording than in another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from gotrace.cli.options import Command, need, option, output_options, two_recordings
from gotrace.export.formats import TABLES

if TYPE_CHECKING:
    from gotrace.cli.outputs import Wanted
    from gotrace.cli.text.layout import Rows
    from gotrace.views.view import Record


@click.command(
    "diff",
    cls=Command,
    topic="time",
    examples=[
        ("gotrace goroutines diff before.gotrace after.gotrace", "shows which stacks have gained goroutines"),
        ("gotrace goroutines diff --top 50 a.gotrace b.gotrace", "shows more rows"),
    ],
)
@two_recordings
@option("top", default=20, help="Number of rows to show.")
@output_options(TABLES, screen=("table", "json"))
def of_goroutines(before: str, after: str, top: int, outputs: tuple[str, ...], format_: str | None, force: bool) -> int:
    """Compare the last dumps of two recordings of goroutines: by stack, what there is more of, and less."""
    from gotrace.cli.text import goroutines as text
    from gotrace.views.goroutines import differences

    results = _wanted(before, after, outputs, format_, force)
    dumps = _last(before, "goroutines"), _last(after, "goroutines")
    rows = [
        {"a": row.first, "b": row.last, **{name: row.group[name] for name in ("state", "stack", "created_by", "labels")}}
        for row in differences(*dumps)
    ]
    _write(results, rows, text.diff(*dumps, top))
    return 0


@click.command(
    "diff",
    cls=Command,
    topic="memory",
    examples=[
        ("gotrace heap diff before.gotrace after.gotrace", "shows which stacks hold more memory than before"),
        ("gotrace heap diff --alloc --objects a.gotrace b.gotrace", "shows which stacks allocated more objects"),
    ],
)
@two_recordings
@click.option("--alloc", is_flag=True, help="Compare everything allocated, not only what is in use.")
@click.option("--objects", is_flag=True, help="Compare object counts instead of bytes.")
@option("top", default=20, help="Number of rows to show.")
@output_options(TABLES, screen=("table", "json"))
def of_heaps(
    before: str,
    after: str,
    alloc: bool,
    objects: bool,
    top: int,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
) -> int:
    """Compare the last profiles of two recordings of a heap: by stack, what there is more of, and less."""
    from gotrace.cli.text import heap as text
    from gotrace.views.heap import differences

    results = _wanted(before, after, outputs, format_, force)
    profiles = _last(before, "heap"), _last(after, "heap")
    value = f"{'alloc' if alloc else 'inuse'}_{'objects' if objects else 'bytes'}"
    rows = [
        {"a": row.first, "b": row.last, "value": value, "stack": row.stack}
        for row in differences(profiles[0]["stacks"], profiles[1]["stacks"], value)
    ]
    _write(results, rows, text.diff(*profiles, value, top))
    return 0


def _wanted(before: str, after: str, outputs: tuple[str, ...], format_: str | None, force: bool) -> Wanted:
    from gotrace.cli.outputs import wanted

    results = wanted(outputs, format_, TABLES, force, screen="table", inputs=(before, after))
    need("a table", "table" in results.formats, "top")
    return results


def _last(path: str, name: str) -> Record:
    """The last record of a recording that was made by the command of this name."""
    from gotrace.errors import GotraceError
    from gotrace.recording.reader import Recording
    from gotrace.run.sources import Replayed
    from gotrace.text import printable
    from gotrace.views.view import recorded, records_of

    with Recording.open(path) as recording:
        views = [view for view in recorded(recording.header) if view.name == name] if "views" in recording.header else []
        records = [record for _, some in records_of(Replayed(recording), views) for record in some] if views else []
    if not records:
        made_by = f"gotrace {name} --pid PID -o FILE.gotrace"
        if f"{name}_spans" in recording.header.get("views", ()):
            raise GotraceError(
                f"{printable(path)} holds allocations by span, not a heap profile", f"compare profiles: {made_by}"
            )
        raise GotraceError(f"{printable(path)} is not a recording by `gotrace {name}`", f"make one: {made_by}")
    return records[-1]


def _write(results: Wanted, rows: Sequence[Record], text: Iterable[str | Rows]) -> None:
    from gotrace.cli.text.table import Table

    lines = list(text)
    with results.streams() as streams:
        for stream, kind in streams:
            if kind == "json":
                stream.write(json.dumps(rows, indent=1) + "\n")
            else:
                Table(stream).print(lines)
