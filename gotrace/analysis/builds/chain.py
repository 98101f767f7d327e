"""What the end of a build waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gotrace.analysis.builds.caches import Packages
from gotrace.analysis.builds.processes import WORK, Execution
from gotrace.analysis.builds.steps import ASSEMBLE, C_TOOLS, CGO, COMPILE, LINK, RUN, VET, Step

_MEETING_NS = 1_000_000  # by which what was waited for may seem to end too late
_PARTS = {ASSEMBLE: COMPILE, CGO: COMPILE, C_TOOLS: COMPILE}


def chain(steps: Sequence[Step], given: Mapping[str, Execution], files: Mapping[str, Packages]) -> Iterator[Step]:
    """The first of it first. Backwards from the last program or package: of what it was given, what was ready last.

    A test was given its program and, since the go command runs no other, the vet of its package.
    """
    units: dict[tuple[str, str], Step] = {}  # what is done in one folder for one purpose is one step
    for step in steps:
        stage = _PARTS.get(step.stage, step.stage)
        if step.work and stage in (COMPILE, VET, LINK, RUN):
            of = units.setdefault((stage, step.work), replace(step, stage=stage))
            units[stage, step.work] = replace(of, end_ns=max(of.end_ns, step.end_ns))
    needs: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for path, each in given.items():
        stage = LINK if path.endswith(".link") else VET if path.endswith("/vet.cfg") else COMPILE
        works = {match[1] for _, file in files[path] if (match := WORK.search(file))}
        needs.setdefault((stage, each.work), set()).update((of, work) for work in works for of in {COMPILE, stage} - {LINK})
    for (_, work), run in [each for each in units.items() if each[0][0] == RUN]:
        if (link := units.get((LINK, work))) is not None:
            mine = (link.name.removesuffix(".test"), f"[{link.name}]")
            vets = {
                key
                for key, unit in units.items()
                if key[0] == VET and (unit.name == mine[0] or unit.name.endswith(mine[1]))
            }
            needs[RUN, run.work] = {(LINK, work), *vets}
    last = max(units.values(), key=lambda step: step.end_ns, default=None)
    found: list[Step] = []
    while last is not None:
        found.append(last)
        begin = last.begin_ns
        # what overlaps was not waited for
        ready = [units[key] for key in needs.get((last.stage, last.work), ()) if key in units]
        ready = [each for each in ready if each.begin_ns < begin >= each.end_ns - _MEETING_NS]
        last = max(ready, key=lambda step: step.end_ns, default=None)
    return reversed(found)
