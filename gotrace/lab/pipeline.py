"""Runs a pipeline: its steps one after the other, and what is done already not again.

The folder ``out`` of the pipeline gets of each step NAME.log and what it writes, in NAME/, and pipeline.json: how far it
has come, written by rename before and after each step. A step is done if it ended well on what it would read now: its own
text, the files that it reads, and what the steps that it needs have made.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from gotrace.errors import GotraceError, UsageError
from gotrace.lab.pipeline_file import Pipeline, Step, needed
from gotrace.lab.report import NAME
from gotrace.lab.steps import KINDS, Place, Result, Work, text_of
from gotrace.run.files import created, held
from gotrace.text import count_text, minutes_text, printable

SCHEMA = "gotrace.pipeline-state/1"
STATE = "pipeline.json"

Say = Callable[[str], None]


class StepState(TypedDict):
    """How far one step is."""

    status: Literal["started", "done", "failed", "interrupted"]
    inputs: Annotated[str, "hash of all that it reads"]
    outputs: Annotated[list[str], "paths"]
    made: Annotated[str, "hash of what it has written"]
    exit_code: int | None
    seconds: float | None
    lines: list[str]
    data: dict[str, Any]


class State(TypedDict):
    """pipeline.json."""

    schema: Literal["gotrace.pipeline-state/1"]
    steps: dict[str, StepState]


@dataclass(frozen=True)
class Resolved:
    """A pipeline that can be run: what each step does, in order; those of ``chosen`` are to be run."""

    out: Path
    works: Mapping[str, Work]
    needs: Mapping[str, Sequence[str]]
    chosen: tuple[str, ...]
    state: State
    resume: bool
    force: bool


def resolve(pipeline: Pipeline, only: Collection[str] = (), resume: bool = False, force: bool = False) -> Resolved:
    """Check all that can be known before anything is started. Raises GotraceError, with the step's name."""
    out = Path(pipeline.out)
    names = [step.name for step in pipeline.steps]
    for name in only:
        if name not in names:
            raise UsageError(f"there is no step {printable(name)!r}", f"there are {', '.join(names)}")
    chosen = tuple(name for name in names if not only or name in only)
    state = _read_state(out / STATE)
    if state["steps"] and not only and not resume and not force:
        raise UsageError(
            f"{printable(str(out / STATE))} is from an earlier run", "--resume continues from there, --force starts over"
        )
    if not only and not resume:
        state["steps"] = {}
    works = _works(pipeline, out)
    for step in pipeline.steps:
        work, known = works[step.name], state["steps"].get(step.name)
        if step.name not in chosen:
            continue
        for need in step.needs:
            if need not in chosen and (need not in state["steps"] or state["steps"][need]["status"] != "done"):
                raise UsageError(
                    f"the step {step.name} needs {need}, which is not done", f"--only {need} --only {step.name}"
                )
        # What this pipeline has made is its own, to go on with.
        own = set(known["outputs"]) if known is not None and resume else set()
        _named(step, lambda work=work, own=own: _check(work, own, force))  # type: ignore[misc]
    return Resolved(out, works, {step.name: step.needs for step in pipeline.steps}, chosen, state, resume, force)


def _works(pipeline: Pipeline, out: Path) -> dict[str, Work]:
    """What each step does, in order."""
    works: dict[str, Work] = {}
    makers: dict[str, str] = {}
    names = frozenset(step.name for step in pipeline.steps)
    for step in pipeline.steps:
        before = needed(pipeline.steps, step.name)
        place = Place(
            out / step.name,
            out / f"{step.name}.log",
            {name: out / name for name in before if (out / name / NAME) in works[name].outputs()},
            frozenset(path for path, name in makers.items() if name in before),
            makers,
            names,
            {name: works[name].estimated_ns() for name in before},
        )
        work = _named(step, lambda step=step, place=place: KINDS[step.kind](step, place))  # type: ignore[misc]
        works[step.name] = work
        for path in map(os.path.abspath, work.outputs()):
            if makers.get(path, step.name) != step.name:
                raise UsageError(
                    f"the steps {makers[path]} and {step.name} write the same file: {printable(path)}", "give each its own"
                )
            makers[path] = step.name
    return works


def _check(work: Work, own: Collection[str], force: bool) -> None:
    work.check(force or bool(own))
    for path in work.outputs():
        if os.path.lexists(path) and str(path) not in own and not force:
            raise UsageError(f"{printable(str(path))} already exists", "choose another name, or overwrite it with --force")
    for name in work.step.files:
        if not work.place.require_need(name) and not os.path.isfile(name):
            raise UsageError(f"there is no file {printable(name)!r}", "files must list the files that the step reads")


def _named(step: Step, do: Callable[[], Any]) -> Any:
    """``do``, whose errors get the step's name."""
    try:
        return do()
    except GotraceError as error:
        error.message = f"the step {step.name}: {error.message}"
        error.args = (error.message,)
        raise


def run(resolved: Resolved, say: Say = lambda _: None, ended: Callable[[str, Result], None] = lambda *_: None) -> int:
    """Run the steps that are not done; the exit status is that of the first that fails, after which none is started.

    ``ended`` is called with what came of each step. Raises GotraceError of the step that raised it, and KeyboardInterrupt
    when nothing runs any more.
    """
    with held(resolved.out):
        return _steps(resolved, say, ended)


def _steps(resolved: Resolved, say: Say, ended: Callable[[str, Result], None]) -> int:
    for number, name in enumerate(resolved.chosen, 1):
        work = resolved.works[name]
        inputs = _inputs(resolved, name)
        known = resolved.state["steps"].get(name)
        if resolved.resume and known is not None and _is_done(known, inputs):
            say(f"step {number} of {len(resolved.chosen)}, {name}: already done")
            continue
        say(f"step {number} of {len(resolved.chosen)}, {name}: {work.step.kind}")
        result = _run(resolved, name, inputs, say)
        ended(name, result)
        if result.exit_code:
            return result.exit_code
    return 0


def _run(resolved: Resolved, name: str, inputs: str, say: Say) -> Result:
    """One step, with its state and its log."""
    work = resolved.works[name]
    before = resolved.state["steps"].get(name)
    outputs = [str(path) for path in work.outputs()]
    # What an earlier run of this pipeline began is its own; all else was checked not to be there.
    force = resolved.force or (resolved.resume and before is not None)
    state: StepState = {
        "status": "started",
        "inputs": inputs,
        "outputs": outputs,
        "made": "",
        "exit_code": None,
        "seconds": None,
        "lines": [],
        "data": {},
    }
    resolved.state["steps"][name] = state
    write_state(resolved)
    began = time.monotonic()
    work.place.log.write_bytes(b"")
    with open(work.place.log, "ab", buffering=0) as log:  # commands of the step append to it, too

        def both(text: str) -> None:
            log.write(f"{text}\n".encode(errors="surrogateescape"))
            say(f"{name}: {text}")

        try:
            result: Result = _named(work.step, lambda: work.run(force, both))
            state["status"] = "failed" if result.exit_code else "done"
            state["exit_code"], state["lines"], state["data"] = result.exit_code, result.lines, result.data
            state["made"] = _hash_of(map(str, outputs))
            log.write("".join(f"{line}\n" for line in result.lines).encode(errors="surrogateescape"))
            return result
        except KeyboardInterrupt:
            state["status"] = "interrupted"
            raise
        except GotraceError as error:
            state["status"], state["exit_code"], state["lines"] = "failed", error.exit_code, [error.message]
            log.write(f"{error.message}\n{error.hint}\n".encode(errors="surrogateescape"))
            raise
        finally:
            state["seconds"] = round(time.monotonic() - began, 3)
            write_state(resolved)


def _is_done(known: StepState, inputs: str) -> bool:
    return (
        known["status"] == "done"
        and known["inputs"] == inputs
        and all(os.path.exists(path) for path in known["outputs"])
        and known["made"] == _hash_of(known["outputs"])
    )


def _inputs(resolved: Resolved, name: str) -> str:
    """A hash of all that a step reads now."""
    work = resolved.works[name]
    states = resolved.state["steps"]
    # Those that it does not run because of --only are what they were.
    before = {need: states[need]["made"] if need in states else "" for need in sorted(resolved.needs[name])}
    files = sorted({os.path.abspath(path) for path in (*work.files(), *work.step.files)})
    told = [text_of(work.step), before, [[path, _hash_of([path])] for path in files], *work.others()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _hash_of(paths: Any) -> str:
    """Of the contents of files, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path}\0".encode(errors="surrogateescape"))
        try:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError:
            digest.update(b"none")
        digest.update(b"\0")
    return digest.hexdigest()


def _read_state(path: Path) -> State:
    """What an earlier run has left; nothing if there is none. Raises UsageError for what is none of ours."""
    import msgspec

    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise ValueError
        return msgspec.convert(found, State)
    except FileNotFoundError:
        return {"schema": "gotrace.pipeline-state/1", "steps": {}}
    except OSError as error:
        raise UsageError(f"cannot read {printable(str(path))}: {error.strerror}", "check its permissions") from None
    except (ValueError, msgspec.ValidationError):
        raise UsageError(
            f"{printable(str(path))} was not written by this gotrace", "give the pipeline another folder with `out:`"
        ) from None


def write_state(resolved: Resolved) -> None:
    """Over the one that is there, so that a crash leaves the one or the other. Raises GotraceError."""
    path, new = resolved.out / STATE, resolved.out / f".{STATE}.new"
    with created(str(new), True) as file:
        file.write(json.dumps(resolved.state, indent=1).encode() + b"\n")
    os.replace(new, path)


def describe(resolved: Resolved) -> list[str]:
    """What would be done, step by step."""
    lines, whole, unknown = [], 0, 0
    for number, name in enumerate(resolved.chosen, 1):
        work = resolved.works[name]
        needs = resolved.needs[name]
        known = resolved.state["steps"].get(name)
        kept = " (done before; skipped if its inputs have not changed)" if known and known["status"] == "done" else ""
        lines.append(f"{number}. {name}: {work.step.kind}" + (f", after {', '.join(needs)}" if needs else "") + kept)
        lines += [f"   {line}" for line in work.describe()]
        lines += [f"   writes: {printable(str(path))}" for path in (*work.outputs(), work.place.log)]
        length = work.estimated_ns()
        unknown += length is None
        whole += length or 0
    lines.append(f"writes: {printable(str(resolved.out / STATE))}")
    beside = f", and {count_text(unknown, 'step')} of unknown duration" if unknown else ""
    lines.append(f"takes: about {minutes_text(whole)}{beside}")
    return lines
