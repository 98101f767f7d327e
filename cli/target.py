"""The one process that a command is about: by its pid, or by what it is called and where it runs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from gotrace.cli.options import Decorated, exclude, option, say
from gotrace.errors import UsageError
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.find.processes import GoProcess
    from gotrace.find.selection import Selector

_MOST = 20  # that somebody is asked to choose from


def target(
    required: bool = False,
    every: bool = False,
    family: bool = False,
    several: bool = False,
    not_with: Sequence[str] = (),
    by: Sequence[str] = ("name", "container", "unit"),
    **changed: Any,
) -> Callable[[Decorated], Decorated]:
    """``--pid``, ``--name``, ``--container`` and ``--unit`` as one parameter pid; ``changed`` is the option pid's.

    ``every``: a process of any language is meant, with ``family`` and its children: of those that fit the one that has
    started the others. ``several``: all that fit are meant, and the parameter is a tuple. ``not_with``: options, by their
    parameters, that say something else to trace. ``by``: which of the other three options there are.
    """

    def add(function: Decorated) -> Decorated:
        @functools.wraps(function)
        def command(*, pid: Any, **others: Any) -> Any:
            terms = tuple((key, glob) for key in by if (glob := others.pop(key)) is not None)
            for key, _ in terms:
                for other in ("pid", *not_with):
                    exclude(other, key)
            if terms:
                selector, found = _fitting(terms, every, family)
                pid = tuple(each.pid for each in found) if several else _chosen(selector, found)
            elif required and pid is None:
                raise UsageError("no process given", "give --pid PID, --name GLOB, --container NAME or --unit NAME")
            return function(pid=pid, **others)

        for each in reversed(by):
            command = option(each)(command)
        return option("pid", **changed)(command)  # type: ignore[return-value]

    return add


def _fitting(terms: tuple[tuple[str, str], ...], every: bool, family: bool) -> tuple[Selector, list[GoProcess]]:
    """Raises TargetError if nothing fits."""
    from gotrace.find.processes import Scanner, roots
    from gotrace.find.selection import Selector, fitting

    selector = Selector(terms)
    found = fitting([selector], Scanner(every=every).scan())
    return selector, roots(found) if family else found


def _chosen(selector: Selector, found: Sequence[GoProcess]) -> int:
    """The pid of the one that is meant. Raises UsageError if there are several and nobody can be asked."""
    if len(found) == 1:
        return found[0].pid
    lines = [f"{process.pid} ({_about(process)})" for process in found[:_MOST]]
    more = [f"{len(found) - _MOST} more"] if len(found) > _MOST else []
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{len(found)} processes match {printable(str(selector))}: {', '.join([*lines, *more])}",
            "give --pid PID, or narrow it down: --name can be combined with --container or --unit",
        )
    say(f"{len(found)} processes match {printable(str(selector))}:")
    for number, line in enumerate(lines, 1):
        say(f"  {number:2}  {line}")
    for line in more:
        say(f"      {line}")
    choice: int = click.prompt("Which one?", type=click.IntRange(1, len(lines)), err=True)
    return found[choice - 1].pid


def _about(process: GoProcess) -> str:
    from gotrace.cli.text.ps import where
    from gotrace.find.listing import place_of

    place = where(place_of(process))
    return printable(process.name) if place == "-" else f"{printable(process.name)}, {place}"
