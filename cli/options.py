"""The grammar of the command line: what every command is made of, so that a name means the same thing everywhere."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gotrace.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A duration as Go writes it (10s, 250ms, 1m30s, 1.5h); a bare number is seconds. Converted to nanoseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from gotrace.text import duration_ns

        if isinstance(value, int):
            return value
        try:
            return duration_ns(value)
        except ValueError:
            self.fail(f"invalid duration {value!r}; write 10s, 250ms or 1m30s", param, ctx)


class _Length(Duration):
    """A duration of which 0 makes no sense."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        length = super().convert(value, param, ctx)
        if not length:
            name = param.opts[-1] if param is not None else "the duration"
            raise UsageError(f"{name} must be greater than 0", "write 10s or 500ms")
        return length


class Number(click.FloatRange):
    """A number of a range; "nan" and "inf" are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Percent(Number):
    """In percent, with the sign or without it: as the files of plans and gates have it, or as a plain number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return super().convert(value.removesuffix("%") if isinstance(value, str) else value, param, ctx)


class Pid(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """The number of a process; with ``several`` any number of them with commas between, as a tuple."""

    name = "pid"

    def __init__(self, several: bool = False) -> None:
        self._several = several

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[int, ...]:
        if isinstance(value, (int, tuple)):
            return value
        found = value.split(",") if self._several else [value]
        if not all(re.fullmatch(r"[1-9]\d*", each, re.ASCII) for each in found):
            self.fail(f"{value!r} is not a pid{' (12,34 for several)' if self._several else ''}.", param, ctx)
        return tuple(dict.fromkeys(map(int, found))) if self._several else int(value)


class Folder(click.Path):
    """The path of a folder, which is not that of the current one by being empty."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


class Until(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """Where a start ends: (what, nanoseconds), as `gotrace.analysis.coldstart.Until` takes them."""

    name = "until"
    ENDS = ("main", "listen", "first-gc", "exit")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        if value in self.ENDS:
            return ("" if value == "exit" else value), 0
        if not value[:1].isdigit():
            self.fail(f"invalid end {value!r}; write {', '.join(self.ENDS)} or a duration", param, ctx)
        return "", Duration().convert(value, param, ctx)


def go_processes(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Pids for a shell to complete: Go processes whose executables we may read."""
    from click.shell_completion import CompletionItem

    from gotrace.find.processes import Scanner
    from gotrace.text import printable

    found = ((str(process.pid), process.name) for process in Scanner().scan().processes)
    return [CompletionItem(pid, help=printable(name)) for pid, name in found if pid.startswith(incomplete)]


_MANY = click.IntRange(1, 1000)  # gotrace.cli.text.layout.MOST_ROWS

# Every option that more than one command has. A command may give another help text or default, never another meaning.
_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "pid": (
        ("-p", "--pid"),
        {"type": Pid(), "metavar": "PID", "shell_complete": go_processes, "help": "The running Go process to trace."},
    ),
    "name": (("--name",), {"metavar": "GLOB", "help": "The process with this executable or main thread name: 'prom*'."}),
    "container": (("--container",), {"metavar": "NAME", "help": "The process in this container, by name or ID."}),
    "unit": (("--unit",), {"metavar": "NAME", "help": "The process in this systemd unit."}),
    "select": (
        ("--select",),
        {
            "multiple": True,
            "metavar": "KEY=GLOB,…",
            "help": "Only matching processes: name=api*. Keys: name, exe, pid, container, image, unit, namespace, pod,"
            " service, label:NAME, annotation:NAME; may be repeated.",
        },
    ),
    "connect": (
        ("--connect",),
        {"metavar": "URL", "help": "Show the processes that the `gotrace serve` at this URL traces."},
    ),
    "token_file": (
        ("--token-file",),
        {"type": click.Path(), "metavar": "FILE", "help": "File with the bearer token for --connect."},
    ),
    "ca_file": (
        ("--ca-file",),
        {"type": click.Path(), "metavar": "FILE", "help": "File with the CA certificates to trust for --connect (PEM)."},
    ),
    "duration": (("-d", "--duration"), {"type": _Length(), "help": "Stop after this time: 10s, 500ms, 1m30s."}),
    "interval": (
        ("-i", "--interval"),
        {"type": _Length(), "default": "1s", "show_default": True, "help": "Time between lines."},
    ),
    "events": (("-e", "--event"), {"metavar": "NAME", "multiple": True, "help": "Event to count; may be repeated."}),
    "hz": (
        ("--hz",),
        {
            "type": click.IntRange(1, 20_000),
            "default": 997,
            "show_default": True,
            "metavar": "HZ",
            "help": "CPU samples per second, per CPU.",
        },
    ),
    "min_pause": (("--min-pause",), {"type": Duration(), "default": "0", "help": "Omit pauses shorter than this (100us)."}),
    "min_call": (
        ("--min",),
        {"type": Duration(), "default": "0", "help": "Also show every call that took at least this long (10ms)."},
    ),
    "explain": (("--explain",), {"is_flag": True, "help": "Explain what the longest pauses waited for."}),
    "top": (
        ("--top",),
        {
            "type": _MANY,
            "default": 10,
            "show_default": True,
            "metavar": "N",
            "help": "How many to explain or show.",
        },
    ),
    "everything": (("--all",), {"is_flag": True, "help": "Include short rows."}),
    "force": (("--force",), {"is_flag": True, "help": "Overwrite existing files."}),
}


def option(name: str, **changed: Any) -> Callable[[Decorated], Decorated]:
    """One of `_OPTIONS` as a decorator: parameter ``name``."""
    flags, attributes = _OPTIONS[name]
    return click.option(*flags, name, **{**attributes, **changed})


def percent(flag: str, default: float, help: str) -> Callable[[Decorated], Decorated]:
    """A margin: nothing can be shown to be equal to 0 %."""
    kind = Percent(0, 1000, min_open=True)
    return click.option(flag, type=kind, default=default, show_default=True, metavar="PERCENT", help=help)


def two_recordings(command: Decorated) -> Decorated:
    """Two files to compare: parameters before and after."""
    command = click.argument("after", type=click.Path(), metavar="B")(command)
    return click.argument("before", type=click.Path(), metavar="A")(command)


def command_argument(command: Decorated) -> Decorated:
    """A command after ``--``: parameter command."""
    return click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARGS]...]")(command)


def output_options(
    formats: dict[str, tuple[str, ...]], screen: Sequence[str] = (), required: bool = False
) -> Callable[[Decorated], Decorated]:
    """``-o``, ``--format`` and ``--force``: parameters outputs, format_ and force, for `gotrace.cli.outputs.chosen`.

    ``formats`` are those of files, by their endings; ``screen`` those of what the command prints besides.
    """
    endings = " ".join(each[0] for each in formats.values())
    names = list(dict.fromkeys((*screen, *formats)))
    too = "Also write FILE" if screen else "Write FILE"

    def add(command: Decorated) -> Decorated:
        command = option("force")(command)
        command = click.option(
            "--format",
            "format_",
            type=click.Choice(names),
            metavar="FORMAT",
            help=f"Format of standard output: {', '.join(names)}.",
        )(command)
        return click.option(
            "-o",
            "--output",
            "outputs",
            type=click.Path(),
            multiple=True,
            required=required,
            metavar="FILE",
            help=f"{too}, in the format of its extension ({endings}); may be repeated; - is standard output.",
        )(command)

    return add


def _of_records(name: str) -> dict[str, Any]:
    from gotrace.records.all import schema_of_command

    return schema_of_command(name)


def schema_option_of(what: str, schema: Callable[[str], dict[str, Any]]) -> Callable[[Decorated], Decorated]:
    """``--json-schema``: prints that of the ``what`` of the command, by its name, and exits."""

    def print_it(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            import json

            click.echo(json.dumps(schema(ctx.info_name or ""), indent=2))
            ctx.exit()

    text = f"Print the JSON schema of the {what} and exit."
    return click.option("--json-schema", is_flag=True, is_eager=True, expose_value=False, callback=print_it, help=text)


schema_option = schema_option_of("records", _of_records)


TOPICS = {
    "time": "Time",
    "memory": "Memory",
    "record": "Record and report",
    "agent": "Always on",
    "lab": "Measure and compare",
    "cluster": "AI clusters",
    "setup": "Setup",
    "raw": "Raw probes (every event as a line of JSON)",
}


class Command(click.Command):
    """A command of gotrace: it has a topic of `TOPICS`, and its help ends in examples, each with what it does.

    An option that takes one value may be given once only. ``inner`` are commands of their own, by the first argument.
    """

    def __init__(
        self,
        *arguments: Any,
        topic: str,
        examples: Sequence[tuple[str, str]],
        inner: Sequence[click.Command] | Mapping[str, click.Command] = (),
        **more: Any,
    ) -> None:
        super().__init__(*arguments, **more)
        self.topic = topic
        self.examples = examples
        self.inner = inner if isinstance(inner, Mapping) else {str(each.name): each for each in inner}

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in self.inner:
            return self.inner[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for line, does in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
                formatter.indent()
                formatter.write_text(does)
                formatter.dedent()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # some of click's have none
            raise
        seen: dict[str, click.Option] = {}
        for param in order:
            if not isinstance(param, click.Option) or param.multiple or param.count or param.name is None:
                continue
            before = seen.setdefault(param.name, param)
            if before is not param:
                raise UsageError(f"{before.opts[-1]} and {param.opts[-1]} are mutually exclusive", "choose one")
            if not param.is_flag and order.count(param) > 1:
                raise UsageError(f"{param.opts[-1]} was given twice", "give it once")
        return super().parse_args(ctx, args)


def given(*names: str) -> list[str]:
    """Those of the options that stand on the command line, as they are written there: parameters' names."""
    ctx = click.get_current_context()
    command_line = click.core.ParameterSource.COMMANDLINE
    return [
        param.opts[-1]
        for param in ctx.command.params
        if param.name in names and ctx.get_parameter_source(param.name) is command_line
    ]


def need(what: str, met: bool, *names: str) -> None:
    """Raises UsageError if options were given that have no effect, because ``what`` they need is not ``met``."""
    if not met and (idle := given(*names)):
        verb = "has" if len(idle) == 1 else "have"
        raise UsageError(f"{' and '.join(idle)} {verb} no effect without {what}", f"add {what}, or omit it")


def exclude(*names: str) -> None:
    """Raises UsageError if more than one of these options was given: they ask different questions."""
    if len(both := given(*names)) > 1:
        raise UsageError(f"{both[0]} and {both[1]} are mutually exclusive", "choose one")


def sample_ns(hz: int) -> int:
    """The time between two samples."""
    return round(1e9 / hz)


def check_target(pid: int | None, command: tuple[str, ...], example: str) -> None:
    """Raises UsageError unless exactly one of a process and a command was given."""
    if (pid is None) == (not command):
        raise UsageError("give either --pid PID or a command after `--`", f"{example} --pid 1234")


def check_events(names: Sequence[str]) -> None:
    """Raises UsageError for more events than can be counted at once."""
    if len(set(names)) > 8:
        raise UsageError(
            "at most eight events can be counted at once", "count eight of them, then the rest in a second run"
        )


def say(text: str) -> None:
    """Print a line to standard error; a full or closed one is no reason to stop."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
