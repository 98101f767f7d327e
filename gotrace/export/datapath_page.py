"""What processes did with files as one HTML page: times by folder, file and file system, and the slowest calls."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from gotrace.analysis.histogram import Histogram, lowest_values
from gotrace.export.charts.page import BLUE, ORANGE, SAND, Markup, Page, Record, bar_chart, solid
from gotrace.export.picture.frame import escaped
from gotrace.text import bytes_text, count_text, duration_text, overlap_text, percent_text

# What a call is counted as, and its colour.
PARTS = ("metadata", "data", "pipes, sockets, devices")
_COLOURS = dict(zip(PARTS, (ORANGE, BLUE, SAND), strict=True))
_HEADS = {
    "call": ("Calls", "call"),
    "dir": ("Directories", "directory"),
    "file": ("Files", "file"),
    "fs": ("File systems", "file system"),
    "mount": ("Mounts", "mounted at"),
    "dataset": ("Data sets", "data set"),
}
_BAR = 140  # pixels
_MOST = 200  # rows of what `--explain` found


@dataclass(frozen=True)
class Drawing:
    """The result's record; rows by other things than its own, and how many more there are; how long calls took, by `PARTS`;
    the slowest calls, as records; and all rows of the result, those too that it leaves out."""

    result: Record
    tables: Mapping[str, tuple[Sequence[Record], int]]
    lengths: Mapping[str, Histogram]
    slowest: Sequence[Record]
    every_row: Callable[[], Sequence[Record]]


def write(drawing: Drawing, title: str, format_: str, file: BinaryIO) -> None:
    """Every row, however many the result has: as "csv" or "parquet". Bytes of names that are not UTF-8 are as \\xff."""
    rows = [_row_of_columns(row) for row in drawing.every_row()]
    columns = {name: [row[name] for row in rows] for name in _TYPES}
    if format_ == "csv":
        text = io.StringIO(newline="")
        csv.writer(text).writerows([list(columns), *zip(*columns.values(), strict=True)])
        file.write(text.getvalue().encode())
        return
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet

    types = {str: DataType.utf8(), bool: DataType.bool(), int: DataType.int64()}
    made: dict[str, Any] = {name: Array(values, type=types[_TYPES[name]]) for name, values in columns.items()}
    write_parquet(Table.from_pydict(made), file, compression="zstd(1)")


_SUMS = ("calls", "errors", "not_found", "bytes", "total_ns", "metadata_calls", "metadata_ns", "other_calls", "other_ns")
_LATENCIES = ("p50_ns", "p90_ns", "p99_ns", "max_ns")
_CACHE = ("warm", "cold", "direct")
_TYPES: dict[str, type] = {
    "name": str,
    "resolved": bool,
    **dict.fromkeys((*_SUMS, "server_ns", "requests", *_LATENCIES, *_CACHE), int),
}


def _row_of_columns(row: Record) -> dict[str, Any]:
    name = row["name"].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    flat = {**row, **row["latency"], **(row["cache"] or dict.fromkeys(_CACHE))}
    return {**{column: flat[column] for column in _TYPES}, "name": name}


def page(title: str, drawing: Drawing) -> str:
    """The whole page."""
    made, result = Page(), drawing.result
    _head(made, result)
    if drawing.lengths:
        made.draw("How long calls took", latency_chart(drawing.lengths))
        made.head("What they were on")
        made.say("Bars are time: orange metadata, blue data, sand not on files (pipes, sockets, devices, timers).")
    else:
        made.say("There is nothing to draw.")
    for by, (rows, more) in {result["by"]: (result["rows"], result["more_rows"]), **drawing.tables}.items():
        _table(made, by, rows, more)
    _slowest(made, drawing.slowest)
    if result["explained"] is not None:
        _explained(made, result["explained"])
    return made.made(title)


def _head(made: Page, result: Record) -> None:
    total = result["all"]
    if result["lost"]:
        made.say(f"{count_text(result['lost'], 'event')} lost: counts are too low, and names may be missing.", "lost")
    on_files = total["total_ns"] - total["other_ns"]
    made.tiles(
        [
            ("observed for", duration_text(result["watched_ns"])),
            ("calls", f"{total['calls']:,}"),
            ("failed", f"{total['errors']:,}"),
            ("metadata", duration_text(total["metadata_ns"])),
            ("data", duration_text(on_files - total["metadata_ns"])),
            ("pipes, sockets, devices", duration_text(total["other_ns"])),
            ("read and written", bytes_text(total["bytes"])),
        ]
    )
    who = f"{count_text(result['processes'], 'process', 'processes')}, {count_text(result['threads'], 'thread')}"
    made.say(f"{who}; times are summed over all threads.")
    for each in result["not_covered"]:
        made.say(f"Not covered: {each['what']} ({each['why']}).")
    for each in result["in_progress"] or ():
        where = each["path"] or "?"
        made.say(f"NOT ENDED: thread {each['tid']} in {each['call']} for {duration_text(each['lasted_ns'])} ({where}).")
    if result["in_progress"] is None:
        made.say("Calls still in progress: ?")
    if result["errors"]:
        made.say("Errors: " + ", ".join(f"{each['error']} {each['count']:,}" for each in result["errors"]) + ".")


def latency_chart(lengths: Mapping[str, Histogram]) -> Record:
    """How many calls of each part took how long, by powers of two; every power between the shortest and the longest."""
    counts: dict[str, Counter[int]] = {}
    for part, histogram in lengths.items():
        indexes, numbers = histogram.nonzero()
        counts[part] = Counter()
        for lowest, number in zip(lowest_values(indexes).tolist(), numbers.tolist(), strict=True):
            counts[part][lowest.bit_length()] += number
    there = [power for each in counts.values() for power in each]
    powers = range(min(there), max(there) + 1) if there else range(0)
    rows = [f"below {duration_text(1 << power)}" for power in powers]
    bars = [solid("bar", part, [each[power] for power in powers], _COLOURS[part]) for part, each in counts.items()]
    return bar_chart(rows, bars, "calls")


def _table(made: Page, by: str, rows: Sequence[Record], more: int) -> None:
    caption, what = _HEADS[by]
    longest = max((row["total_ns"] for row in rows), default=0)
    heads = (what, "time", "total", "metadata", "data", "calls", "errors", "bytes", "p50", "p99", "max", "cold reads")
    made.table(caption, (*heads, "server"), [_row(row, longest) for row in rows], names=(what,))
    if more:
        made.say(f"{count_text(more, 'more row')}, which took less time: --top shows them.")


def _row(row: Record, longest: int) -> tuple[str, ...]:
    total, cache, latency = row["total_ns"], row["cache"], row["latency"]
    parts = (row["metadata_ns"], total - row["metadata_ns"] - row["other_ns"], row["other_ns"])
    reads = sum(cache.values()) if cache else 0
    return (
        row["name"],
        _bar(parts, longest),
        *(duration_text(each) for each in (total, *parts[:2])),
        f"{row['calls']:,}",
        f"{row['errors']:,}",
        bytes_text(row["bytes"]) if row["bytes"] else "-",
        *(duration_text(latency[name]) if row["calls"] else "-" for name in ("p50_ns", "p99_ns", "max_ns")),
        percent_text(cache["cold"] / reads) if cache and reads else "-",
        percent_text(row["server_ns"] / total) if row["requests"] and total else "-",
    )


def _bar(parts: Sequence[int], longest: int) -> Markup:
    """The parts of a row's time side by side, as long as it is of the longest one's."""
    told = ", ".join(f"{name} {duration_text(ns)}" for name, ns in zip(PARTS, parts, strict=True))
    drawn, at = [], 0.0
    for colour, ns in zip(_COLOURS.values(), parts, strict=True):
        width = _BAR * ns / longest if longest else 0.0
        if width:
            drawn.append(f'<rect x="{at:.2f}" width="{width:.2f}" height="12" fill="{colour}"/>')
        at += width
    opened = f'<svg width="{_BAR}" height="12" role="img" aria-label="{escaped(told)}">'
    return Markup(f"{opened}{''.join(drawn)}</svg>")


def _slowest(made: Page, calls: Sequence[Record]) -> None:
    rows = [
        (
            duration_text(each["duration_ns"]),
            duration_text(each["server_ns"]) if each["server_ns"] else "-",
            each["call"],
            each["path"] or "-",
            f"{each['process']}",
            f"{each['tid']}",
            each["error"] or f"{each['result']:,}",
            each["time"],
            " < ".join(each["stack"]) or "-",
        )
        for each in calls
    ]
    heads = ("took", "server", "call", "file", "process", "thread", "result", "began", "came from")
    made.table("The slowest calls", heads, rows, names=("call", "file", "came from"))


def _explained(made: Page, found: Record) -> None:
    made.head("Where the time went")
    for sentence in found["advice"] or ("Advice: none; nothing stands out.",):
        made.say(f"Advice: {sentence}" if found["advice"] else sentence)
    rows: list[tuple[str, ...]] = []
    for each in found["threads"][:_MOST]:
        shares = [overlap_text(each[what] / max(1, each["wall_ns"])) for what in ("metadata_ns", "data_ns")]
        seen, metadata, data = (duration_text(each[what]) for what in ("wall_ns", "metadata_ns", "data_ns"))
        rows.append((f"{each['tid']}", f"{each['process']}", seen, metadata, shares[0], data, shares[1]))
    made.table("Threads", ("thread", "process", "seen for", "metadata", "share", "data", "share of data"), rows)
    made.say(
        "Epoch 0 is everything before the first mark; shares are of the time of its threads, without pipes and "
        "sockets; worst: "
        "the thread that lost most."
    )
    rows = [
        (
            f"{number}",
            each["time"],
            duration_text(each["length_ns"]),
            f"{each['threads']:,}",
            f"{each['calls']:,}",
            duration_text(each["metadata_ns"]),
            overlap_text(each["metadata_share"]),
            overlap_text(each["most_share"]),
            duration_text(each["data_ns"]),
        )
        for number, each in enumerate(found["epochs"][:_MOST])
    ]
    made.table("Epochs", ("epoch", "began", "lasted", "threads", "calls", "metadata", "share", "worst", "data"), rows)
    rows = [
        (each["path"], f"{each['not_found']:,}", f"{each['names']:,}", duration_text(each["total_ns"]))
        for each in found["storms"][:_MOST]
    ]
    made.table("Names not found", ("directory", "look-ups", "names", "took"), rows, names=("directory",))
    for what, name in (("threads", "thread"), ("epochs", "epoch"), ("storms", "folder")):
        if (more := len(found[what]) - _MOST) > 0:
            made.say(f"{count_text(more, f'more {name}')} not shown.")
