"""What `gotrace coldstart --containers` prints of the time before execve: hot zones, and what was not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.analysis.hot_zones import zones
from gotrace.analysis.start_summary import ENOUGH, StartSummary
from gotrace.analysis.timeline import Start
from gotrace.cli.text.layout import Column, Rows
from gotrace.text import bytes_text, count_text, duration_text, printable

_ID = 12  # digits of a container's that tell it from others, as its tools print them
_LEAST = 0.01  # of a start: no zone
_COLUMNS = (
    Column("hot zone", 26, left=True, elastic=18),
    Column("median", 9),
    Column("95 % interval", 21, rank=2),
    Column("p90", 9, rank=3),
    Column("share", 6),
    Column("starts", 6, rank=4),
    Column("what would change it", left=True, elastic=30, gap=2),
)


def begin(start: Start) -> str:
    """From what on a start is told."""
    return f"asking {printable(start.container.tool)}" if start.container else "execve"


def unknown(start: Start, columns: int) -> Iterator[tuple[str, ...]]:
    """A row for each stage that did not happen, or may have, in a table of that many ``columns``."""
    if start.container is None:
        return
    for stage in start.container.absent:
        yield (f"  {printable(stage)}", *["-"] * (columns - 3), "", "did not happen")
    for unseen in start.container.unseen:
        yield (f"  {printable(unseen.stage)}", *["?"] * (columns - 3), "", "not seen")


def sentences(start: Start) -> Iterator[str]:
    """Which container it is, what was unpacked for it, and why some of it is not known."""
    container = start.container
    if container is None:
        return
    name = f"Container {printable(container.id[:_ID])}" if container.id else "A container without a cgroup of its own"
    if pod := container.pod:
        restart = f", started again ({pod.attempt})" if pod.attempt else ""
        name += f", {printable(pod.container)} of pod {printable(pod.namespace)}/{printable(pod.name)}"
        name += f" ({printable(pod.uid)}){restart}"
    layers = "; no layer was unpacked" if container.layers == 0 else ""
    if container.layers:
        size = "" if container.unpacked_bytes is None else f" of {bytes_text(container.unpacked_bytes)}"
        layers = f"; {count_text(container.layers, 'layer')}{size} unpacked"
    asked = duration_text(start.asked_ns)
    yield f"{name}: {printable(container.tool)} received the request {asked} before the program's execve{layers}."
    for reason in dict.fromkeys(unseen.reason for unseen in container.unseen):
        stages = ", ".join(each.stage for each in container.unseen if each.reason == reason)
        yield f"Not seen: {stages}: {printable(reason)}."


def interval(starts: int, low: float, high: float) -> str:
    """What holds a median with 95 %, if so few have one."""
    return f"{duration_text(low)} … {duration_text(high)}" if starts >= ENOUGH else "?"


def table(starts: Sequence[Start], summary: StartSummary) -> Iterator[str | Rows]:
    """The stages from the container tool on, the longest first."""
    yield Rows(
        _COLUMNS,
        [
            (
                printable(zone.name),
                duration_text(zone.median),
                interval(zone.count, zone.low, zone.high),
                duration_text(zone.p90),
                f"{zone.share:.1%}",
                zone.count,
                zone.advice,
            )
            for zone in zones(starts, summary)
            if zone.share >= _LEAST
        ],
    )
