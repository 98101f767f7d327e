"""What of a build stands in which line of a timeline, for every kind of picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gotrace.analysis.builds.build import Build
from gotrace.analysis.builds.overlaps import lanes
from gotrace.analysis.builds.steps import COMPILE, DOWNLOAD, UNZIP, Step
from gotrace.text import duration_text

CHAIN, MODULES, PROCESSES = "critical path", "modules", "processes"
ENTRIES = (("found", "found"), ("not found", "not_found"), ("stored", "stored"))  # of the build cache


class Bar(NamedTuple):
    """A step in a line; ``depth`` above 0: within the step that it is part of."""

    step: Step
    line: int
    depth: int


def bands(build: Build) -> Iterator[tuple[str, list[Bar]]]:
    """Groups of lines that are not empty, by name. As many lines of processes as were at work at once, a worker each."""
    modules = [step for step in build.steps if step.stage in (DOWNLOAD, UNZIP)]
    others = [step for step in build.steps if step.stage not in (DOWNLOAD, UNZIP)]
    chain = build.chain if len(build.chain) > 1 else ()
    for name, steps in ((CHAIN, chain), (MODULES, modules), (PROCESSES, others)):
        if steps:
            yield name, list(_bars(steps))


def _bars(steps: Sequence[Step]) -> Iterator[Bar]:
    ordered = sorted(steps, key=lambda step: (step.begin_ns, -step.end_ns))
    spans = [(step.begin_ns, step.end_ns) for step in ordered]
    keys = [step.work or f"{step.stage}\0{step.name}" for step in ordered]
    for step, (line, depth) in zip(ordered, lanes(spans, keys), strict=True):
        yield Bar(step, line, depth)


def is_waited_for(build: Build, step: Step) -> bool:
    """Whether it is part of the chain that the end waited for."""
    return len(build.chain) > 1 and any(
        step.work == each.work and each.begin_ns <= step.begin_ns and step.end_ns <= each.end_ns for each in build.chain
    )


def label(step: Step) -> str:
    """Untrusted, as all names."""
    return step.name if step.stage == COMPILE else f"{step.stage} {step.name}"


def about(step: Step) -> str:
    """All that is known of it, in a sentence; untrusted."""
    ran = duration_text(step.end_ns - step.begin_ns)
    cpu = "" if step.cpu_ns is None else f", CPU {duration_text(step.cpu_ns)}"
    failed = f", exit {step.status}" if step.status else ""
    return f"{step.stage} {step.name}: {ran} from {duration_text(step.begin_ns)} on{cpu}{failed}{_left(step)}"


def _left(step: Step) -> str:
    return "" if step.ended else ", had not ended"
