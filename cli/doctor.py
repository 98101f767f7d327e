"""`gotrace doctor`: what this host and this target allow, line by line, and what to do about each 'no'."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from gotrace.errors import GotraceError, UsageError
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram
    from gotrace.kernel.host import Check

_SIGNS = {True: "ok", False: "no", None: "--"}


@click.command("doctor", epilog="Exit status: 0 if gotrace works here (and on the target, if one is given), 1 if not.")
@click.option("-p", "--pid", type=int, help="A running process to look at.")
@click.option("--event", "events", multiple=True, metavar="NAME", help="A hardware event to try (may be repeated).")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.argument("executable", required=False, type=click.Path())
def command(pid: int | None, events: tuple[str, ...], format_: str, executable: str | None) -> int:
    """Tell what this host and a target allow: a process (--pid) or an EXECUTABLE file."""
    if pid is not None and executable is not None:
        raise UsageError("give --pid or a file, not both", "gotrace doctor --pid 1234")
    from gotrace.kernel.host import checks

    parts: dict[str, list[Check]] = {"host": checks()}
    if events:
        parts["events"] = [_event(name) for name in events]
    if pid is not None or executable is not None:
        parts["target"] = _target(pid, executable)
    if format_ == "json":
        click.echo(json.dumps({name: [asdict(check) for check in part] for name, part in parts.items()}, indent=2))
    else:
        for name, part in parts.items():
            click.echo(f"{name}:")
            for check in part:
                click.echo(f"  [{_SIGNS[check.ok]}] {check.name}: {printable(check.value)}")
                if check.ok is not True and check.fix:
                    click.echo(f"       -> {printable(check.fix)}")
    return 0 if all(check.ok is not False for part in parts.values() for check in part) else 1


def _event(name: str) -> Check:
    """Whether the processor has this event, and it counts."""
    from gotrace.kernel import pmu
    from gotrace.kernel.host import Check

    try:
        event = pmu.find(name)
        with pmu.Counter(event) as counter:
            sum(range(10000))
            count, _, running = counter.read()
    except GotraceError as error:
        return Check(name, False, error.message, error.hint)
    return Check(name, True, f"{event.pmu}, counted {count} in {running} ns")


def _target(pid: int | None, executable: str | None) -> list[Check]:
    """Facts of the target, and every probe of `gotrace gc` in it."""
    from gotrace.binary.program import GoProgram
    from gotrace.kernel.host import Check
    from gotrace.probe import all_probes
    from gotrace.session import require_same_arch

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
            program = stack.enter_context(GoProgram.open(path))
            out.append(Check("Go program", True, f"{program.go_version}, {program.arch}"))
            out.append(Check("symbols", None, "stripped" if program.stripped else "present"))
            out.append(Check("linking", None, _linking(program)))
            for setting in ("-pgo", "-race", "-tags", "GOEXPERIMENT"):
                if program.build_info.settings.get(setting):
                    out.append(Check(setting, None, program.build_info.settings[setting]))
            require_same_arch(program)
            for name, module in all_probes().items():
                plan = module.plan(program)
                if module.PROBE.of_starts:  # they are many, and all alike
                    stepped = sum(not point.emulated for point in plan.points)
                    where = f"{len(plan.points)} instructions, {stepped} of them single-stepped by the kernel"
                    out.append(Check(f"{name}: boundaries of a start", bool(plan.points), where))
                for point in () if module.PROBE.of_starts else plan.points:
                    where = f"{point.symbol} at {point.address:#x}: {point.instruction}"
                    cost = "" if point.emulated else " (single-stepped by the kernel: a slower probe)"
                    out.append(Check(f"{name}: {point.name}", True, where + cost))
                out += [Check(f"{name}: {item.name}", None, f"missing: {item.reason}") for item in plan.missing]
                if not plan.points:
                    out.append(Check(name, False, "nothing can be probed", "this Go release may be newer than gotrace"))
        except GotraceError as error:
            out.append(Check("target", False, error.message, error.hint))
    return out


def _linking(program: GoProgram) -> str:
    kind = "position-independent" if program.pie else "fixed address"
    return f"{kind}, {'dynamic: ' + program.elf.interpreter if program.elf.interpreter else 'static'}"
