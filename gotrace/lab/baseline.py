"""Runs a plan: each version of a service, under load, as often as planned, in random order, from outside."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gotrace import __version__
from gotrace.analysis.stats.trend import growth
from gotrace.binary.program import Program
from gotrace.errors import GotraceError, ServiceError, UsageError
from gotrace.kernel import machine
from gotrace.kernel.host import online_cpus
from gotrace.kernel.process import Process
from gotrace.lab import baseline_page, container, flames, load_cpu, measure, pprof, seconds, service
from gotrace.lab import load as loads
from gotrace.lab import start as starts
from gotrace.lab.build import Build
from gotrace.lab.children import Group, scratch
from gotrace.lab.load_result import LoadResult
from gotrace.lab.plan import Plan, Version
from gotrace.lab.report import NAME, Baseline, Preload, Run, VersionOf, write
from gotrace.lab.runs import MOST_ERRORS
from gotrace.records.times import wall_time
from gotrace.run.files import held
from gotrace.run.refusal import refusal
from gotrace.text import count_text, duration_text, percent_text, printable

Say = Callable[[str], None]

_MOST_REPEATED = 3  # invalid runs, in all
# Why a run does not count, written down before its values are looked at.
MOST_STOLEN = 0.01  # of the CPUs' time, by the hypervisor
LEAST_RATE = 0.99  # of the rate that an open-loop load was to have
_LONGEST = 5
_STEP_NS = 100_000_000
# Whoever calls execve has its address space taken down within it, and ours is large.
_SMALL = ("/bin/sh", "-c", 'exec "$@"', "sh")


def check(plan: Plan, folder: Path, force: bool) -> None:
    """Raises GotraceError for what can be known before anything is started."""
    unusable = sorted({*plan.cpus, *plan.load_cpus} - set(online_cpus()))
    if unusable:
        raise UsageError(f"CPU {unusable[0]} does not exist or is not allowed here", "`lscpu` lists them")
    if plan.coldstart and (plan.pid is not None or any(version.container for version in plan.versions)):
        what = "an already running process" if plan.pid is not None else "a container"
        raise UsageError(f"the start of {what} cannot be traced", "omit --coldstart, or give the command that starts it")
    for version in plan.versions:
        for made in (version.build, version.container):
            if made is not None:
                made.check()
        if (
            version.build is None
            and version.container is None
            and plan.pid is None
            and not shutil.which(version.command[0])
        ):
            raise UsageError(f"there is no command {printable(version.command[0])!r}", "check its path and its permissions")
    loads.prepare(plan.load, folder)
    if (folder / NAME).exists() and not force:
        raise UsageError(
            f"{printable(str(folder))} already has a report", "choose another folder, or overwrite it with --force"
        )


def run(plan: Plan, folder: Path, force: bool, say: Say = lambda _: None) -> Baseline:
    """Every run of the plan, each written down as it ends: what was measured when it is cut off is a report.

    Raises GotraceError where the service or the load cannot be started, ends early, or nothing was measured.
    """
    check(plan, folder, force)
    with held(folder):
        report = _begun(plan)
        with kept(report, folder, force, say):
            plan = _built(plan, folder, say)
            report["plan"] = {**plan.to_json()}
            measure_all(plan, report, plan.order(), folder, say)
    return report


@contextlib.contextmanager
def kept(report: Baseline, folder: Path, force: bool, say: Say) -> Iterator[None]:
    """What is added to the report meanwhile is written, however that ends; Ctrl-C ends it."""
    before = len(report["runs"])
    try:
        yield
    except KeyboardInterrupt:
        report["cut_off"] = "Ctrl-C"
    except GotraceError as error:
        report["cut_off"] = error.message
        raise
    finally:
        if len(report["runs"]) > before:
            write(report, folder)
            say(baseline_page.written(report, folder, force))


def measure_all(plan: Plan, report: Baseline, order: Sequence[tuple[int, Version]], folder: Path, say: Say) -> None:
    """Add these runs to the report, and what is to follow all of them."""
    (folder / "runs").mkdir(exist_ok=True)
    with scratch() as place:
        ready = loads.prepare(plan.load, place)
        for number, (round_, version) in enumerate(order, 1):
            _counted(plan, ready, report, folder, round_, version, f"{number} of {len(order)}", say)
        report["complete"] = True
        if plan.flame and report.get("flames") is None:
            report["flames"] = _flames(plan, ready, folder, say)


def _begun(plan: Plan) -> Baseline:
    return {
        "schema": "gotrace.baseline/1",
        "tool": __version__,
        "time": wall_time(time.time_ns(), 0),
        "complete": False,
        "cut_off": None,
        "plan": {**plan.to_json()},
        "host": machine.host(),
        "versions": [],
        "runs": [],
        "flames": None,
        "extended": [],
    }


def executable(folder: Path, number: int, build: Build) -> Path:
    """Where that of a plan's version is built."""
    return (folder / "builds" / str(number) / build.file_name).absolute()


def commands(plan: Plan, folder: Path) -> Iterator[str]:
    """What builds the plan's versions and what starts them, for people."""
    for number, version in enumerate(plan.versions):
        command = version.command
        if version.container is not None:
            command = tuple(version.container.command("NAME", command, plan.cpus))
        if version.build is not None:
            path = executable(folder, number, version.build)
            yield f"built: {printable(shlex.join(version.build.command(path)))}"
            command = (str(path), *command[1:])
        yield f"version {printable(version.name)}: {printable(shlex.join(command))}"


def _built(plan: Plan, folder: Path, say: Say) -> Plan:
    """The same with commands of executables, which are built now, into the folder."""
    versions = []
    for number, version in enumerate(plan.versions):
        if version.build is not None:
            say(f"building {printable(version.name)}")
            path = executable(folder, number, version.build)
            version.build.make(path, folder / f"build-{number}.log")
            version = replace(version, command=(str(path), *version.command[1:]))
        versions.append(version)
    return replace(plan, versions=tuple(versions))


def _counted(
    plan: Plan, ready: loads.Ready, report: Baseline, folder: Path, round_: int, version: Version, which: str, say: Say
) -> None:
    """Run a version until a run counts, as long as runs may be repeated."""
    while True:
        say(f"run {len(report['runs'])}: {printable(version.name)} ({which})")
        found = _run(plan, ready, report, folder, round_, version)
        report["runs"].append(found)
        write(report, folder)
        if found["valid"]:
            return
        say(f"it does not count: {'; '.join(found['reasons'])}")
        for note in found["load"].get("notes", ()):
            say(f"note: {note}")
        since = report["extended"][-1]["first"] if report["extended"] else 0
        if sum(not run["valid"] for run in report["runs"][since:]) > _MOST_REPEATED:
            return
        which = f"{which.removesuffix(', again')}, again"


def _run(plan: Plan, ready: loads.Ready, report: Baseline, folder: Path, round_: int, version: Version) -> Run:
    order = len(report["runs"])
    base = folder / "runs" / f"{order:04d}"
    log, recording = base.with_suffix(".log"), base.with_suffix(".gotrace")
    recording.unlink(missing_ok=True)
    load = functools.cache(lambda: loads.start(ready, plan.load_cpus))  # started by whoever asks first
    before = machine.yardstick()
    with _started(plan, version, log, report) as (running, start):
        known = next((each for each in report["versions"] if each["name"] == version.name), None)
        if known is not None and report["extended"]:
            _require_same(known, _version(plan, version, running.pid))
        elif known is None:
            report["versions"].append(_version(plan, version, running.pid))
            planned = [each.name for each in plan.versions]  # whichever ran first: the first one is what is compared with
            report["versions"].sort(key=lambda each: planned.index(each["name"]))
        wall_ns = time.time_ns() - time.monotonic_ns()
        try:
            preload = warm_up(ready, plan, running)
            begin, end = (base.with_name(f"{base.name}-heap-{when}.pb.gz") for when in ("begin", "end"))
            asked = pprof.Asked(plan.pprof, begin, end) if plan.pprof is not None else None
            seen = measure.watch(
                running.pid,
                load,
                recording,
                plan.explained,
                touches=plan.pid is None,
                events=plan.events,
                wakeups=plan.wakeups,
            )
            grown = asked.end() if asked is not None else seen.grown
        except GotraceError:
            _require_running(running, log)  # or what else went wrong comes of that
            raise
        _require_running(running, log)
    result = loads.finish(ready, seen.load_status)
    after = machine.yardstick()
    values = {
        **measure.metrics(seen),
        **result.metrics(),
        "start.ready": starts.as_metric(running.ready_ns),
        **_growth(seen),
    }
    if start is not None:
        values |= starts.metrics(start)
    cpu = values.get("cpu")
    values["cpu.per_request"] = cpu / result.throughput * 1e9 if cpu is not None and result.throughput else None
    allocated = seen.allocated_bytes
    values["alloc.per_request"] = allocated / result.answered if allocated is not None and result.answered else None
    course = seconds.course(seen.seconds, result.model)
    reasons, notes = judged(plan, seen, result, (before, after), preload, _has_quota(plan, version, report), load().used)
    if start is not None and start["lost"]:
        notes.append(f"{count_text(start['lost'], 'event')} of its start lost: its stages are unknown")
    return {
        "version": version.name,
        "round": round_,
        "order": order,
        "time": wall_time(seen.begin_ns, wall_ns),
        "length_ns": seen.end_ns - seen.begin_ns,
        "valid": not reasons,
        "reasons": reasons,
        "notes": [*notes, *filter(None, [seconds.note(course)]), *result.notes],
        "start": start,
        "preload": preload,
        "course": course,
        "heap_growth": grown,
        "metrics": values,
        "load": {**result.record()},
        "load_cpu": load().used,
        "lost": seen.lost,
        "cost": {**seen.summary.get("cost", {}), "tool_cpu_s": round(seen.tool_cpu_s, 3)},
        "yardstick": [before, after],
        "longest": seen.explained[:_LONGEST],
        "recording": str(recording.relative_to(folder)),
    }


@contextlib.contextmanager
def _started(
    plan: Plan, version: Version, log: Path, report: Baseline
) -> Iterator[tuple[service.Running, starts.StartOf | None]]:
    """A service for one run, and how it started where the plan wants that: nothing of that is traced any more."""
    if plan.coldstart:
        from gotrace.run import one_start

        known = next((each["exe"] for each in report["versions"] if each["name"] == version.name), None)
        exe = known or _program(plan, version, log)
        recording = log.with_name(f"{log.stem}-start.gotrace")
        with one_start.tracing(version.command, exe, str(recording)) as traced:
            command = (*_SMALL, *version.command)
            with service.started(command, plan.ready, log, plan.cpus, meanwhile=traced.read) as running:
                assert running.ready_at_ns is not None
                result = traced.end(running.pid, running.ready_at_ns)
                yield running, starts.record(result, str(Path(log.parent.name, recording.name)))
    else:
        with _plainly_started(plan, version, log) as running:
            yield running, None


def _program(plan: Plan, version: Version, log: Path) -> str:
    """The file that the command executes in the end: of a launcher it is found by starting it once."""
    path = shutil.which(version.command[0])
    if path is not None and refusal(path) is None:
        return path
    with service.started(version.command, plan.ready, log, plan.cpus) as running:
        return os.readlink(f"/proc/{running.pid}/exe")


def _plainly_started(plan: Plan, version: Version, log: Path) -> contextlib.AbstractContextManager[service.Running]:
    if plan.pid is not None:
        return service.found(plan.pid, plan.ready)
    if version.container is not None:
        return container.started(version.container, version.command, plan.ready, log, plan.cpus)
    return service.started(version.command, plan.ready, log, plan.cpus)


def _require_running(running: service.Running, log: Path) -> None:
    if died := running.ended():
        hint = f"its output is in {log}" if log.exists() else "its last output may say why"
        raise ServiceError(f"the service exited under load: {died}", hint)


def warm_up(ready: loads.Ready, plan: Plan, running: service.Running) -> Preload:
    """The same load, again and again: for as long as the plan says, or until the service does the same from second to
    second.
    """
    begin_ns = time.monotonic_ns()
    end_ns = begin_ns + (seconds.MOST_NS if plan.warmup_ns is None else plan.warmup_ns)
    process: Group | None = None
    with contextlib.ExitStack() as stack:
        looked = None
        if plan.warmup_ns is None:
            looked = seconds.Seconds(stack.enter_context(Process.open(running.pid)))
        try:
            while (left_ns := end_ns - time.monotonic_ns()) > 0 and not running.ended():
                if looked is not None and looked.look() and not looked.why_not_steady():
                    break
                process = process or loads.start(ready, plan.load_cpus)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if process.wait(min(left_ns, _STEP_NS) / 1e9):
                        loads.finish(ready, process.returncode)  # which says why
                    process.end()
                    process = None
        finally:
            if process is not None:
                process.end()
        found, why = None, None
        if looked is not None:
            found, why = looked.course(plan.load.asked.model), looked.why_not_steady() or None
        return {"length_ns": time.monotonic_ns() - begin_ns, "course": found, "unsteady": why}


def _flames(plan: Plan, ready: loads.Ready, folder: Path, say: Say) -> flames.Flames:
    """Of one more run of each version. What was measured is not worth less if that fails."""
    (folder / flames.FOLDER).mkdir(exist_ok=True)
    try:
        for number, version in enumerate(plan.versions):
            say(f"one more run, sampled: {printable(version.name)}")
            recording = flames.recording_of(folder, number)
            log = recording.with_suffix(".log")
            with _plainly_started(plan, version, log) as running:
                warm_up(ready, plan, running)
                status = flames.sample(running.pid, lambda: loads.start(ready, plan.load_cpus), recording)
                _require_running(running, log)
            loads.finish(ready, status)
        return flames.draw([version.name for version in plan.versions], folder)
    except GotraceError as error:
        say(f"No flame graph: {error.message}.")
        return flames.none(error.message)


def _version(plan: Plan, version: Version, pid: int) -> VersionOf:
    path = os.readlink(f"/proc/{pid}/exe")
    with Program.open(f"/proc/{pid}/exe") as program:
        return {
            "name": version.name,
            "command": list(version.command),
            "exe": path,
            "go_version": program.go_version,
            "build_id": program.build_id,
            "exe_bytes": os.stat(f"/proc/{pid}/exe").st_size,
            "pid": plan.pid,
            "build": list(version.build.flags) if version.build is not None else None,
            "container": version.container.record(pid) if version.container is not None else None,
        }


def _require_same(then: VersionOf, now: VersionOf) -> None:
    """Raises UsageError where what runs now is not what was measured."""
    for name, value in now.items():
        if then.get(name) != value:
            what = {"exe_bytes": "size", "exe": "path", "go_version": "Go"}.get(name, name.replace("_", " "))
            raise UsageError(
                f"{printable(then['name'])} is not what was measured: its {what} has changed",
                "measure again, into another folder",
            )


def _growth(seen: measure.Seen) -> measure.Values:
    """Of RSS: the slope through all pairs of snapshots (Theil-Sen), in bytes per second, and what it comes to."""
    at = np.array([each["monotonic_ns"] for each in seen.memory], np.float64) / 1e9
    rss = np.array([each["rss_bytes"] for each in seen.memory], np.float64)
    if len(at) < 3:
        return {"rss.growth": None, "rss.growth.share": None}
    slope = growth(at, rss).value
    return {"rss.growth": slope, "rss.growth.share": slope * (seen.end_ns - seen.begin_ns) / 1e9 / rss[0]}


def _has_quota(plan: Plan, version: Version, report: Baseline) -> bool:
    """Whether it is meant to be held back from CPUs: by the plan, or as everything that is started here."""
    if plan.pid is not None or report["host"]["quota_cpus"] is not None:
        return True
    return version.container is not None and version.container.has_quota


def judged(
    plan: Plan,
    seen: measure.Seen,
    result: LoadResult,
    yardsticks: tuple[float, float],
    preload: Preload,
    quota_planned: bool,
    used: load_cpu.LoadCpu | None = None,
) -> tuple[list[str], list[str]]:
    """Why a run does not count, and what else is to be known of it."""
    reasons, notes = load_cpu.judged(used)
    errors = result.failed / result.requests if result.requests else 0.0
    if errors > MOST_ERRORS:
        reasons.append(f"{percent_text(errors)} of the requests failed")
    if result.rate_share is not None and result.rate_share < LEAST_RATE:
        reasons.append(f"the load reached only {percent_text(result.rate_share)} of its rate")
    if seen.stolen_share > MOST_STOLEN:
        reasons.append(f"the hypervisor took {percent_text(seen.stolen_share)} of the CPUs' time")
    drift = abs(yardsticks[1] / yardsticks[0] - 1)
    if drift > plan.most_drift:
        reasons.append(f"the machine's own speed changed by {percent_text(drift)} meanwhile")
    if preload["unsteady"]:
        reasons.append(f"no steady state after {duration_text(preload['length_ns'])} of warm-up: {preload['unsteady']}")
    throttled = seen.sched["limits"]["throttled_ns"] if seen.sched is not None else None
    if throttled:
        text = f"a CPU quota throttled its threads for {duration_text(throttled)}, summed over CPUs"
        (notes if quota_planned else reasons).append(text if quota_planned else f"{text}, though none was planned")
    lost = seen.lost
    if lost:
        notes.append(f"{count_text(lost, 'event')} lost: pauses are lower bounds")
    return reasons, notes
