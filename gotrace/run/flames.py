"""Flame graphs of recordings, and of a process that is recorded for them."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from gotrace.run.files import created, numbered
from gotrace.run.recorder import Recorder
from gotrace.run.sources import record as keep
from gotrace.run.target import Say, attached
from gotrace.views import flame

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from gotrace.recording.reader import Recording

    # What opens a recording, by the names of `Recording.open`'s arguments; ``bar``: with a progress bar.
    Open = Callable[..., AbstractContextManager[Recording]]


def drawn(answers: list[flame.Answer], files: Sequence[tuple[str, str]], number: int, force: bool) -> None:
    """Draw the answer of one recording, or the difference of two, in ``files`` as (path, format).

    ``number`` is that of the program, as `files.numbered` takes it.
    """
    for path, format_ in files:
        if format_ != "gotrace":
            with created(numbered(path, number, force), force) as file:
                write_flames(answers, file, format_)


def write_flames(answers: Sequence[flame.Answer], file: BinaryIO, format_: str) -> None:
    """One answer, or the difference of two, in one of `export.formats.FLAMES`."""
    from gotrace.analysis.flame import diff, diff_folded, folded, weighing
    from gotrace.export.flame import draw
    from gotrace.export.pprof import pprof
    from gotrace.export.speedscope import speedscope

    *before, after = answers
    profile = after.profile
    if format_ == "pprof":
        period_ns = after.period or int(profile.weights.sum()) // max(1, int(profile.counts.sum()))
        times = {"time_ns": after.begin_ns, "duration_ns": after.duration_ns, "period_ns": period_ns}
        file.write(pprof(profile, after.kind, **times, columns=after.columns))
        return
    if after.columns:
        profile = weighing(profile)
    if format_ == "speedscope":
        file.write(speedscope(profile, after.title))
    elif format_ == "folded" and before:
        file.writelines(f"{line}\n".encode() for line in diff_folded(before[0].profile, profile))
    elif format_ == "folded":
        sums: dict[str, int] = {}
        for number, weight in enumerate(profile.weights.tolist()):
            text = folded(profile.stack(number))
            sums[text] = sums.get(text, 0) + weight
        file.writelines(f"{text} {weight}\n".encode() for text, weight in sums.items())
    else:
        graph = diff(before[0].profile, profile) if before else profile
        title = flame.compared(before[0], after) if before else after.title
        picture = draw.html if format_ == "html" else draw.svg
        file.write(picture(graph, title, "; ".join(each.summary() for each in answers), counted=after.counted).encode())


@contextlib.contextmanager
def recorded(
    pid: int,
    duration: int | None,
    question: flame.Question,
    record: str | None,
    sample_ns: int,
    force: bool,
    say: Say,
    open_: Open,
) -> Iterator[list[flame.Opener]]:
    """Trace a process for ``duration`` ns and yield what opens the recording of each program that it executed.

    Without ``record`` the recordings are temporary.
    """
    from gotrace.kernel import tlb_events

    with contextlib.ExitStack() as stack:
        sampled = tlb_events.named([question.event]) if question.event else ()
        openers: list[flame.Opener] = []
        stems = question.probes()
        with attached(stems, pid, (), duration, say, gives_root_back=True, sample_ns=sample_ns, sampled=sampled) as traced:
            traced.release()
            goes_on = True
            while goes_on:
                # Here, for by now we are the user whose file it is to be.
                if record is not None:
                    path = numbered(record, len(openers) + 1, force)
                    with Recorder.opened(path, force, traced) as recorder:
                        keep(traced, recorder)
                    openers.append(functools.partial(open_, path, bar=False))
                else:
                    file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
                    keep(traced, Recorder(file, "a temporary recording", traced))
                    openers.append(functools.partial(open_, "-", file, bar=False))
                goes_on = traced.next_program()
        yield openers
