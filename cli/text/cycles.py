"""`gotrace mem --cycles` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gotrace.cli.text.layout import Column, Row
from gotrace.text import bytes_text, count_text
from gotrace.views.cycles import Cycles
from gotrace.views.view import Record

_COLUMNS = (
    Column("cycle", 8),
    Column("RSS", 10),
    Column("swapped", 10, rank=1),
    Column("live", 10),
    Column("heap end", 10, rank=2),
    Column("goal", 10),
    Column("RSS/live", 8),
)


def columns(_: Cycles) -> Sequence[Column]:
    return _COLUMNS


def line(_: Cycles, record: Record) -> Row | None:
    sizes = (record[f"{name}_bytes"] for name in ("rss", "swapped", "heap_live", "heap_end", "heap_goal"))
    factor = "-" if record["rss_over_live"] is None else f"{record['rss_over_live']:.2f}"
    return (record["cycle"], *("?" if size is None else bytes_text(size) for size in sizes), factor)


def summary(view: Cycles) -> Iterator[str]:
    yield ""
    if not view.factors:
        yield f"{view.source.name}: no GC cycle ended in this time."
        return
    low, half, high = np.percentile(view.factors, (0, 50, 100)).tolist()
    yield (
        f"{view.source.name}: {count_text(len(view.factors), 'cycle')}, RSS / live heap {low:.2f} to {high:.2f}, "
        f"median {half:.2f}; largest RSS {bytes_text(view.largest)}"
    )
