"""The load of a recording's calls on files as one HTML page of charts over time."""

from __future__ import annotations

from collections.abc import Sequence

from gotrace.export.charts.page import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    Page,
    Record,
    line,
    over_time,
    scaled_known,
    solid,
    time_chart,
)
from gotrace.text import count_text, duration_text

_COLOURS = {"reads": BLUE, "writes": GREEN, "syncs": PURPLE, "metadata": ORANGE}


def page(title: str, records: Sequence[Record]) -> str:
    """The whole page, of the one record."""
    made = Page()
    (result,) = records
    if result["lost"]:
        made.say(f"{count_text(result['lost'], 'event')} lost: the true load was higher.", "lost")
    made.tiles(
        [
            ("observed for", duration_text(result["watched_ns"])),
            ("calls on files", f"{result['calls']:,}"),
            ("threads", f"{result['threads']:,}"),
            *((name, duration_text(result[f"{name}_ns"])) for name in _COLOURS),
        ]
    )
    made.say("A call counts in the interval in which it begins; in flight are calls that had begun but not ended.")
    intervals = result["intervals"]

    def rates(name: str, unit: float = 1) -> list[float]:
        return [round(each[name] / unit / each["length_ns"] * 1e9, 3) for each in intervals]

    lengths = {name: scaled_known([each[f"{name}_ns"] for each in intervals], 1_000_000) for name in ("p50", "p99")}
    charts = [
        time_chart("calls a second", [solid("area", name, rates(name), colour) for name, colour in _COLOURS.items()]),
        time_chart(
            "read and written",
            [line("read", rates("read_bytes", 1 << 20), BLUE), line("written", rates("written_bytes", 1 << 20), GREEN)],
            "MiB/s",
        ),
        time_chart(
            "calls in flight",
            [
                line("mean", [round(each["in_flight"], 3) for each in intervals], BLUE),
                line("most", [each["most_in_flight"] for each in intervals], RED),
            ],
        ),
        time_chart("how long calls took", [line("p50", lengths["p50"], GREEN), line("p99", lengths["p99"], ORANGE)], "ms"),
    ]
    made.draw("Load over time", over_time(intervals, charts, result["width_ns"]))
    return made.made(title)
