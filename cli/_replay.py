"""Reading a recording for a command: what every one of them needs around `gotrace.recording.reader`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gotrace.cli._gc_run import GcRun, Outputs
from gotrace.cli._progress import reading
from gotrace.errors import GotraceError
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Array
    from gotrace.recording.reader import Chunk, Recording

# Events decoded at once: enough that what is done per call does not count, and some megabytes.
_PORTION = 1 << 16


def check_probe(source: Recording, stem: str, lacking: str) -> None:
    """Raises GotraceError, saying that the recording has no ``lacking``, if the probe was not recorded."""
    if stem not in source.header["probes"]:
        wanted = ",".join(dict.fromkeys(["gc", stem]))
        raise GotraceError(f"{printable(source.path)} has no {lacking}", f"record with --probes {wanted}")


def replay(source: Recording, outputs: Outputs, interval: int, min_pause: int = 0, explained: int = 0) -> None:
    """Do with the events of a recording what `gotrace gc` does with live ones."""
    check_probe(source, "gc", "GC events")
    run = GcRun(source.header, source.text, source.frames, outputs, interval, min_pause, explained)
    run.start()
    received = last_ns = 0
    # The evidence of a pause is to be told of together with it.
    for events in portions(source, 1 if explained else _PORTION, not any(sink.isatty() for sink in outputs.sinks)):
        received += len(events)
        last_ns = int(events["time_ns"].max(initial=last_ns))
        run.feed(events, source.lost)
        if outputs.failed():
            break
    run.finish(source.end or cut_off(last_ns - run.begin_ns, received, source.lost))


def portions(source: Recording, rows: int, bar: bool) -> Iterator[Array]:
    """The events, those of several chunks at once until they are ``rows``: a chunk may be short, and costs by itself.

    If anything was lost, it was in the last chunk of a portion.
    """
    waiting: list[Array] = []
    held = lost = 0
    for chunk in chunks(source, bar=bar):
        waiting.append(chunk.events)
        held += len(chunk.events)
        if source.lost != lost or held >= rows:
            yield np.concatenate(waiting)
            waiting, held, lost = [], 0, source.lost
    if waiting:
        yield np.concatenate(waiting)


def cut_off(duration_ns: int, received: int, lost: int) -> dict[str, Any]:
    """What stands for the end of a recording that has none: how it ended, and what it cost, is not known."""
    cost = dict.fromkeys(("probe_hits", "target_ns_estimate", "tool_cpu_s", "tool_rss_bytes"), 0)
    return {
        "duration_ns": max(0, duration_ns),
        "ended": "recording cut off",
        "received": received,
        "lost": lost,
        "cost": cost,
    }


def chunks(source: Recording, again: bool = False, bar: bool = True) -> Iterator[Chunk]:
    """Every chunk, with a progress bar where somebody may be waiting; says so if the end is missing, but not ``again``.

    Without ``bar`` there is none: lines that are printed meanwhile would run into it.
    """
    with reading(source.size, bar) as tell:
        for chunk in source.chunks():
            yield chunk
            tell(source.position)
    if source.end is None and not again:
        print("gotrace: the recording was cut off: this is all up to its last whole part", file=sys.stderr)
