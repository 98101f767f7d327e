"""Where each version of a service spends its CPU time under load, and the differences between them, as flame graphs.

Of one more run of each version, which is not counted: whoever is interrupted 997 times a second on every CPU, and has its
stack walked, is not measured beside those that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypedDict

from gotrace.lab.children import Group
from gotrace.recording.reader import Recording
from gotrace.run.files import created
from gotrace.run.flames import write_flames
from gotrace.run.recorder import Recorder
from gotrace.run.sources import record
from gotrace.run.target import attached
from gotrace.views.flame import ON_CPU, PROBES, Answer, Question, answer

FOLDER = "flames"


class Sampled(TypedDict):
    """The CPU time of a version while the load lasted."""

    version: str
    recording: Annotated[str, "the raw events; relative to the report, as all paths here"]
    samples: int
    cpu_ns: Annotated[int, "what they stand for"]
    notes: list[str]


class Picture(TypedDict):
    """A flame graph of one version, or of what differs in the second of two."""

    file: str
    versions: list[str]


class Flames(TypedDict):
    """CPU time by stack, of one more run of each version, which is not counted."""

    unknown: Annotated[str | None, "why there are no pictures"]
    sampled: list[Sampled]
    pictures: list[Picture]


def sample(pid: int, load: Callable[[], Group], path: Path) -> int:
    """Record where a process spends CPU time for as long as a load runs; how that ended. Raises GotraceError."""
    process: Group | None = None
    with attached([PROBES[ON_CPU]], pid) as traced:
        traced.release()
        try:
            process = child = load()
            traced.until = lambda: "the load ended" if child.poll() is not None else ""
            with Recorder.opened(str(path), True, traced) as recorder:
                record(traced, recorder)
        finally:
            if process is not None:
                process.end()
        if traced.stop.signal:
            raise KeyboardInterrupt
    return child.returncode


def draw(versions: Sequence[str], folder: Path) -> Flames:
    """Of what `sample` has recorded of each version, in their order. Raises GotraceError."""
    found = none("")
    found["unknown"] = None
    answers: list[Answer] = []
    for number, version in enumerate(versions):
        recorded = recording_of(folder, number)
        one = answer(lambda again=False, path=recorded: Recording.open(str(path)), Question())
        answers.append(replace(one, path=version))
        weights, counts = one.profile.weights, one.profile.counts
        found["sampled"].append(
            {
                "version": version,
                "recording": str(recorded.relative_to(folder)),
                "samples": int(counts.sum()),
                "cpu_ns": int(weights.sum()),
                "notes": one.notes,
            }
        )
    first, *others = answers
    for number, after in enumerate(others, 1):
        _picture(found, [first, after], folder, f"0-{number}.html")
    if not others:
        _picture(found, [first], folder, "0.html")
    return found


def _picture(found: Flames, answers: Sequence[Answer], folder: Path, name: str) -> None:
    path = Path(FOLDER, name)
    with created(str(folder / path), True) as file:
        write_flames(answers, file, "html")
    found["pictures"].append({"file": str(path), "versions": [each.path for each in answers]})


def none(why: str) -> Flames:
    """Where there are no pictures."""
    return {"unknown": why, "sampled": [], "pictures": []}


def recording_of(folder: Path, number: int) -> Path:
    """Of that version of the plan."""
    return folder / FOLDER / f"{number}.gotrace"
