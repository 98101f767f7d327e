"""What this host and a target allow: everything that `gotrace doctor` reports."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gotrace.errors import GotraceError
from gotrace.kernel import host
from gotrace.kernel.host import Check
from gotrace.text import count_text

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram

Checks = dict[str, list[Check]]  # by what they are about: host, events, target


def checks(pid: int | None = None, executable: str | None = None, events: Sequence[str] = ()) -> Checks:
    """Of this host, of hardware events by their names, and of a process or else an executable."""
    parts = {"host": host.checks()}
    if events:
        parts["events"] = [_of_event(name) for name in events]
    if pid is not None or executable is not None:
        parts["target"] = _of_target(pid, executable)
    return parts


def passed(checks: Checks) -> bool:
    """Whether gotrace works here."""
    return all(check.ok is not False for part in checks.values() for check in part)


def _of_event(name: str) -> Check:
    """Whether there is this event here, and it counts."""
    from gotrace.kernel import pmu, tlb_events

    try:
        counted = []
        for event in tlb_events.named([name]):
            with pmu.Counter(event) as counter:
                sum(range(10000))
                count, _, running = counter.read()
            counted.append(f"{event.pmu}, counted {count} in {running} ns")
    except GotraceError as error:
        return Check(name, False, error.message, error.hint)
    return Check(name, True, "; ".join(counted))


def _of_target(pid: int | None, executable: str | None) -> list[Check]:
    """Facts of the target, and every probe in it."""
    from gotrace.binary.program import GoProgram
    from gotrace.made import require_same_arch
    from gotrace.probe import all_probes
    from gotrace.run.refusal import require_go

    out: list[Check] = []
    with contextlib.ExitStack() as stack:
        try:
            path = executable or ""
            if pid is not None:
                from gotrace.kernel.process import Process

                process = stack.enter_context(Process.open(pid))
                path = process.exe_path
                note = " (deleted or replaced since it started)" if process.deleted else ""
                out.append(Check("process", True, f"{pid}, {process.exe_name}{note}"))
                require_go(process)
            program = stack.enter_context(GoProgram.open(path))
            out.append(Check("Go program", True, f"{program.go_version}, {program.arch}"))
            out.append(Check("symbols", None, "stripped" if program.stripped else "present"))
            out.append(Check("linking", None, _linking(program)))
            if not program.build_info.settings:
                out.append(Check("build information", None, "none: the version comes from the runtime"))
            for setting in ("-pgo", "-race", "-tags", "GOEXPERIMENT"):
                if program.build_info.settings.get(setting):
                    out.append(Check(setting, None, program.build_info.settings[setting]))
            require_same_arch(program)
            for name, module in all_probes().items():
                if not module.PROBE.go:
                    continue
                plan = module.plan(program)
                if module.PROBE.of_starts:  # they are many, and all alike
                    stepped = sum(not point.emulated for point in plan.points)
                    where = f"{count_text(len(plan.points), 'instruction')}, {stepped} of them single-stepped by the kernel"
                    out.append(Check(f"{name}: boundaries of a start", bool(plan.points), where))
                for point in () if module.PROBE.of_starts else plan.points:
                    where = f"{point.symbol} at {point.address:#x}: {point.instruction}"
                    cost = "" if point.emulated else " (single-stepped by the kernel: slower)"
                    out.append(Check(f"{name}: {point.name}", True, where + cost))
                out += [Check(f"{name}: {item.name}", None, f"missing: {item.reason}") for item in plan.missing]
                if not plan.points:
                    out.append(Check(name, False, "nothing can be probed", "this Go release may be newer than gotrace"))
            out += _books(program)
        except GotraceError as error:
            out.append(Check("target", False, error.message, error.hint))
    return out


def _books(program: GoProgram) -> list[Check]:
    """What can be read of the runtime's own books, by the commands that do."""
    from gotrace.binary.goroutines import find_goroutines
    from gotrace.binary.heap import find_heap
    from gotrace.binary.profiles import find_contention, find_profiles
    from gotrace.binary.scheduler import find_books

    found = []
    books = {"mem: the heap": find_heap, "goroutines": find_goroutines, "heap: the profile": find_profiles}
    books |= {"contention: the profiles": find_contention, "sched: the scheduler": find_books}
    for name, find in books.items():
        try:
            find(program)
            found.append(Check(name, True, "can be read from outside"))
        except GotraceError as error:
            found.append(Check(name, None, f"missing: {error.message}"))
    return found


def _linking(program: GoProgram) -> str:
    kind = "position-independent" if program.pie else "fixed address"
    return f"{kind}, {'dynamic: ' + program.elf.interpreter if program.elf.interpreter else 'static'}"
