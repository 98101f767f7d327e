"""The program waits for the disk while it starts.

Needs only the rows of a start. Reported if the steps of the start in which pages were read were blocked for at least 3
% of the start and 0.5 ms. The gain is that time, measured: what a warm page cache saves.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, exact
from gotrace.analysis.start_summary import median
from gotrace.analysis.timeline import BEFORE, Row, Start


def _rows(start: Start) -> list[Row]:
    return [row for row in start.rows if row.stage != BEFORE and row.depth == 1 and row.pages_read]


def find(seen: Seen) -> Iterator[Finding]:
    gain = exact([sum(row.blocked_ns for row in _rows(start)) for start in seen.starts], seen.total_ns)
    if not seen.is_worth(gain):
        return
    pages = median([sum(row.pages_read for row in _rows(start)) for start in seen.starts])
    yield Finding(
        rule="disk",
        title=f"The start waits for the disk: {seen.gain_of(gain)}",
        evidence=(f"{pages:,.0f} pages were read from disk in one start, in steps blocked for that long",),
        gain=gain,
        mend="Read the executable ahead of the start: cat it in an earlier step, or pull the image earlier.",
        check="gotrace coldstart -n 20 --cache cold, and again with --cache warm, then gotrace coldstart compare",
        excluded="Only steps that filled the page cache count, and only while the thread was blocked.",
    )
