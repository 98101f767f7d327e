"""GPU memory over time as a picture, a page, and a table of every call.

Of each space three panels share their columns: bytes live and reserved with the fragmentation, addresses (live share of a
cell), and size classes (merge failures / requests). A column is ``bin_ns``, or the smallest multiple with which the columns
fit; the picture says which. Cells of one colour are one path, so that nothing but shapes and text is in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from gotrace.analysis.gpumem import calls
from gotrace.analysis.gpumem.bins import Columns, by_address, by_size, lines
from gotrace.analysis.gpumem.layers import MAPPED
from gotrace.export.charts.page import Markup, Page
from gotrace.export.picture.frame import asset, escaped, filled
from gotrace.records.gpumem import name_of
from gotrace.text import bytes_text, count_text, duration_text, percent_text

if TYPE_CHECKING:
    from gotrace.analysis.gpumem.layers import Key
    from gotrace.analysis.gpumem.space import Course

WIDTH, LEFT, RIGHT = 1200, 110, 50  # pixels, as all that follow
INNER = WIDTH - LEFT - RIGHT
ROWS, CELL = 96, 2  # of addresses, and how high each is
LINES, CLASS = 120, 12
LEVELS, SHARES = 8, 5  # steps of colour: of what is live, and of failures
MOST, MOST_PROCESSES = 6, 16  # spaces of a process that are drawn, and processes
_FAILED = 100  # rows of a table

Grid = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drawing:
    """What is drawn: the result's record, and what it was made of."""

    result: dict[str, Any]
    courses: dict[Key, Course]
    rows: npt.NDArray[np.void]
    begin_ns: int
    end_ns: int
    bin_ns: int


def write(drawings: Sequence[Drawing], title: str, format_: str, file: BinaryIO) -> None:
    """As "svg" or "parquet"."""
    if format_ == "parquet":
        _write_rows(drawings, file)
    else:
        text = '<?xml version="1.0" encoding="UTF-8"?>\n' + svg(drawings, title, asset("gpumem_page/picture.css"))
        file.write(text.encode())


def page(title: str, drawings: Sequence[Drawing]) -> str:
    """The whole page: of each process the picture, and the numbers below it."""
    made, first = Page(), drawings[0].result
    if first["lost"]:
        made.say(f"{count_text(first['lost'], 'event')} lost: what is shown may be wrong.", "lost")
    many = len(drawings) > 1
    if many:
        heads = ("process", "peak live", "peak reserved (at least)", "merge failures", "OOM, by fragmentation")
        rows = [(name_of_process(each.result), *_numbers(each.result)) for each in drawings]
        made.table("Processes", heads, rows)
    for each in drawings[:MOST_PROCESSES]:
        _section(made, each, many)
    if len(drawings) > MOST_PROCESSES:
        made.say(f"{len(drawings) - MOST_PROCESSES:,} more processes, with fewer failures or less memory.")
    return made.made(title, asset("gpumem_page/picture.css"))


def name_of_process(result: dict[str, Any]) -> str:
    return f"pid {result['pid']} ({result['exe']})"


def _numbers(result: dict[str, Any]) -> tuple[str, ...]:
    """Peaks, merge failures, and OOMs by fragmentation."""
    spaces = result["spaces"]
    return (
        *(bytes_text(result[name]) for name in ("peak_live", "peak_reserved")),
        f"{sum(each['growths']['merge_failure'] for each in spaces):,}",
        f"{sum(each['ooms_by_fragmentation'] for each in spaces):,}",
    )


def _section(made: Page, drawing: Drawing, many: bool) -> None:
    """What a page has of one process; of one among ``many`` under its name."""
    result = drawing.result
    name = f", {name_of_process(result)}" if many else ""
    spaces = result["spaces"]
    names = ("peak live", "peak reserved (at least)", "merge failures", "OOM, by fragmentation")
    tiles = [("observed for", duration_text(result["watched_ns"])), *zip(names, _numbers(result), strict=True)]
    if many:
        made.put(Markup(f"<h2>{escaped(name_of_process(result))}</h2>"))
    made.tiles(tiles)
    for each in result["advice"]:
        made.say(f"{each[0].upper()}{each[1:]}.")
    made.put(Markup(svg([drawing], f"GPU memory over time{name}")))
    heads = ("memory", "live", "reserved", "largest hole", "fragmentation", "requests", "needed", "merge failures")
    made.table(f"Memory at the end{name}", (*heads, "refused reuse", "OOM"), [_row(each) for each in spaces])
    rows = [
        (
            *(each["why"].replace("_", " "), f"{each['count']:,}", bytes_text(each["size"]), f"{each['tid']}"),
            *(name_of(each), " < ".join(each["stack"]) or "?"),
        )
        for each in result["failed"][:_FAILED]
    ]
    named = ("memory", "asked by")
    title = f"Requests not served from free memory{name}"
    made.table(title, ("why", "times", "size", "thread", *named), rows, names=named)
    if len(result["failed"]) > _FAILED:
        made.say(f"{len(result['failed']) - _FAILED:,} more rows.")


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    sizes = ("?" if each[name] is None else bytes_text(each[name]) for name in ("live", "reserved", "largest_hole"))
    share = "?" if each["fragmentation"] is None else percent_text(each["fragmentation"])
    growths = (f"{count:,}" for count in each["growths"].values())
    return (name_of(each), *sizes, share, f"{each['requests']:,}", *growths, f"{each['ooms']:,}")


def columns_of(drawing: Drawing) -> Columns:
    """As many as there are pixels, at most."""
    return Columns.of(drawing.begin_ns, drawing.end_ns, drawing.bin_ns, INNER)


def svg(drawings: Sequence[Drawing], title: str, style: str = "") -> str:
    """The picture; with ``style`` within, where no page has it."""
    columns, bin_ns = columns_of(drawings[0]), drawings[0].bin_ns
    width = duration_text(columns.bin_ns)
    wide = "" if columns.bin_ns == bin_ns else f" ({duration_text(bin_ns)} would be too many)"
    body = [
        _text(10, 24, title, "title"),
        _text(10, 42, f"{count_text(columns.count, 'column')} of {width}{wide}", "note"),
        _key(490, 42),
    ]
    top = 60
    for each in drawings[:MOST_PROCESSES]:
        if len(drawings) > 1:
            body.append(_text(10, top + 14, name_of_process(each.result), "head"))
            top += 24
        top = _spaces(each, columns, top, body)
    if len(drawings) > MOST_PROCESSES:
        body.append(_text(10, top + 14, f"{len(drawings) - MOST_PROCESSES} more processes are not drawn.", "note"))
        top += 30
    return filled(
        "gpumem_page/picture.svg",
        width=WIDTH,
        height=top,
        title=escaped(title),
        style=f"<style>{style}</style>\n" if style else "",
        body="".join(body),
    )


def _spaces(drawing: Drawing, columns: Columns, top: int, body: list[str]) -> int:
    """Add the spaces of a process to ``body``, from ``top`` on; where they end."""
    shown = sorted(drawing.courses, key=lambda key: -int(drawing.courses[key].states["reserved"].max(initial=0)))
    shown = [key for key in shown if key.kind != MAPPED]
    names = {(each["kind"], each["device"], each["handle"]): each for each in drawing.result["spaces"]}
    for key in shown[:MOST]:
        record = names[key.kind, None if key.device < 0 else key.device, key.handle]
        height, parts = _space(drawing.courses[key], record, columns, drawing.end_ns, top)
        body += parts
        top += height
    if not shown:
        body.append(_text(10, top + 14, "There is nothing to draw."))
        top += 30
    if len(shown) > MOST:
        body.append(_text(10, top + 14, f"{len(shown) - MOST} more spaces, which held less, are not drawn.", "note"))
        top += 30
    return top


def _space(course: Course, record: dict[str, Any], columns: Columns, end_ns: int, top: int) -> tuple[int, list[str]]:
    """The panels of a space, and how high they are."""
    step = INNER / columns.count
    found = lines(course, columns)
    most = float(found.reserved.max(initial=0)) or 1.0
    least = "at least " if record["at_least"] else ""
    at = top + 20
    parts = [
        _text(10, top + 14, name_of(record), "head"),
        f'<rect class="field" x="{LEFT}" y="{at}" width="{INNER}" height="{LINES}"/>\n',
        _area("reserved", found.reserved / most, step, at),
        _area("live", found.live / most, step, at),
        _line("broken", found.fragmentation, step, at),
        _marks(columns.at(course.events["time_ns"][course.states["oom"] > 0]), step, at),
        _tick(LEFT - 6, at + 10, bytes_text(most), "end"),
        _tick(LEFT - 6, at + 24, f"{least}reserved" if least else "reserved", "end"),
        _tick(LEFT - 6, at + LINES, "0 B", "end"),
        _tick(LEFT + INNER + 6, at + 10, "100%"),
        _tick(LEFT + INNER + 6, at + LINES, "0%"),
    ]
    at += LINES + 10
    cells, firsts = by_address(course, columns, ROWS, end_ns)
    parts.append(f'<rect class="field" x="{LEFT}" y="{at}" width="{INNER}" height="{ROWS * CELL}"/>\n')
    parts += _heat(level_of(cells), "h", step, at, CELL)
    parts += [_tick(LEFT - 6, at + 10 + row * CELL, f"{firsts[row]:#x}", "end") for row in (0, ROWS // 2)]
    parts.append(_tick(LEFT - 6, at + ROWS * CELL, "addresses", "end"))
    for row in np.flatnonzero(np.diff(np.searchsorted(course.extents[:, 0], firsts, side="right")) > 0).tolist():
        y = at + (row + 1) * CELL
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{LEFT + INNER}" y1="{y}" y2="{y}"/>\n')
    at += ROWS * CELL + 10
    failed, asked, classes = by_size(course, columns)
    if classes:
        shares = np.where(asked > 0, 1 + np.ceil(failed / np.maximum(asked, 1) * SHARES), 0).astype(int)
        parts.append(f'<rect class="field" x="{LEFT}" y="{at}" width="{INNER}" height="{len(classes) * CLASS}"/>\n')
        parts += _heat(shares[::-1], "f", step, at, CLASS, first=0)
        for row, size in enumerate(reversed(classes)):
            parts.append(_tick(LEFT - 6, at + row * CLASS + 10, f"{bytes_text(size)} +", "end"))
        at += len(classes) * CLASS
    seconds = columns.count * columns.bin_ns
    for tenth in range(0, 11, 2):
        anchor = "start" if not tenth else "end" if tenth == 10 else "middle"
        parts.append(
            _tick(LEFT + INNER * tenth / 10, at + 14, duration_text(seconds * tenth / 10) if tenth else "0", anchor)
        )
    return at + 30 - top, parts


def level_of(shares: Grid) -> npt.NDArray[np.int64]:
    """The step of colour for a live share, 0 for nothing; what arithmetic leaves of nothing is nothing."""
    return np.ceil(shares * LEVELS - 1e-6).astype(np.int64)


def _heat(
    levels: npt.NDArray[np.int64], prefix: str, step: float, top: float, height: int, first: int = 1
) -> Iterator[str]:
    """A path for each level from 1 on: runs of cells side by side. Its class is the prefix and a number from ``first``."""
    rows, count = levels.shape
    padded = np.zeros((rows, count + 2), np.int64)
    padded[:, 1:-1] = levels
    for level in range(1, int(levels.max(initial=0)) + 1):
        edges = np.diff((padded == level).astype(np.int8), axis=1)
        row, begin = np.nonzero(edges == 1)
        end = np.nonzero(edges == -1)[1]
        if len(row):
            runs = zip(row.tolist(), begin.tolist(), end.tolist(), strict=True)
            path = "".join(
                f"M{LEFT + one * step:.5g} {top + at * height:g}h{run * step:.5g}v{height}h{-run * step:.5g}z"
                for at, one, two in runs
                for run in [two - one]
            )
            yield f'<path class="{prefix}{level - 1 + first}" d="{path}"/>\n'


def _steps(shares: Grid, step: float, top: float) -> Iterator[str]:
    for column, share in enumerate(shares.tolist()):
        y = top + LINES * (1 - share)
        yield f"{LEFT + column * step:.5g},{y:.5g} {LEFT + (column + 1) * step:.5g},{y:.5g}"


def _marks(at: npt.NDArray[np.int64], step: float, top: float) -> str:
    """A line where memory ran out."""
    path = "".join(f"M{LEFT + (column + 0.5) * step:.5g} {top}v{LINES}" for column in np.unique(at).tolist())
    return f'<path class="oom" d="{path}"/>\n' if path else ""


def _area(kind: str, shares: Grid, step: float, top: float) -> str:
    bottom = top + LINES
    points = f"{LEFT},{bottom} {' '.join(_steps(shares, step, top))} {LEFT + INNER},{bottom}"
    return f'<polygon class="{kind}" points="{points}"/>\n'


def _line(kind: str, shares: Grid, step: float, top: float) -> str:
    return f'<polyline class="{kind}" points="{" ".join(_steps(shares, step, top))}"/>\n'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{f""" class="{kind}" """.rstrip() if kind else ""}>{escaped(text)}</text>\n'


def _tick(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="tick" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escaped(text)}</text>\n'


def _key(x: int, y: int) -> str:
    """What the colours mean."""
    parts, at = [], x
    swatches: Sequence[tuple[str, str, int]] = (
        ("reserved", "reserved", 70),
        ("live", "live", 45),
        ("broken key", "fragmentation", 90),
        ("oom key", "OOM", 35),
        *(("h" + str(level), "", 4) for level in range(1, LEVELS)),
        (f"h{LEVELS}", "live share", 80),
        ("f0", "requests", 70),
        *(("f" + str(level), "", 4) for level in range(1, SHARES)),
        (f"f{SHARES}", "merge failures among them", 0),
    )
    for kind, name, room in swatches:
        if kind.endswith(" key"):
            parts.append(f'<polyline class="{kind}" points="{at},{y - 4} {at + 12},{y - 4}"/>\n')
        else:
            parts.append(f'<rect class="{kind}" x="{at}" y="{y - 9}" width="{12 if room != 4 else 4}" height="10"/>\n')
        if name:
            parts.append(_tick(at + 16, y, name))
        at += room + (16 if room != 4 else 0)
    return "".join(parts)


def _write_rows(drawings: Sequence[Drawing], file: BinaryIO) -> None:
    """Every call and every event of PyTorch's allocator, with its process, in order of time."""
    from arro3.core import Array, Table
    from arro3.io import write_parquet

    rows = np.concatenate([each.rows for each in drawings])
    pids = np.repeat([each.result["pid"] for each in drawings], [len(each.rows) for each in drawings])
    order = np.argsort(rows["time_ns"], kind="stable")
    rows, pids = rows[order], pids[order]
    word, traced = rows["call"], rows["trace"]
    names = [
        calls.ACTIONS[number] if is_traced and number < len(calls.ACTIONS) else calls.NAMES.get(number, "?")
        for number, is_traced in zip(calls.op(word).tolist(), traced.tolist(), strict=True)
    ]
    layers = np.where(traced, 2, calls.of_driver(word)).tolist()
    columns: dict[str, Any] = {
        "time_ns": rows["time_ns"],
        "pid": pids.astype(np.uint32),
        "tid": rows["tid"],
        "layer": [("runtime", "driver", "PyTorch")[layer] for layer in layers],
        "operation": names,
        "address": rows["address"],
        "size": rows["size"],
        "stream": rows["stream"],
        "pool": np.where(traced, 0, rows["pool"]).astype(np.uint64),
        "result": np.where(traced, 0, calls.result(word)).astype(np.uint16),
        "nested": np.where(traced, 0, calls.nested(word)).astype(np.uint8),
        "stack": calls.stack(word).astype(np.uint32),
    }
    made = {
        name: Array(values, type=_text_type())
        if isinstance(values, list)
        else Array.from_numpy(np.ascontiguousarray(values))
        for name, values in columns.items()
    }
    write_parquet(Table.from_pydict(cast(Any, made)), file, compression="zstd(1)")


def _text_type() -> Any:
    from arro3.core import DataType

    return DataType.utf8()
