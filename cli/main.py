"""The `gotrace` command: finds its subcommands by walking a package, and prints errors in one place.

A command is a module of `gotrace.cli.commands` that holds a click command called ``command``; a probe without such a
module gets one that prints its events. One with an underscore is within another: fleet_add is `fleet add`. Only the one
asked for is imported, because a tracer that is slow to start misses what it was started for.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
import io
import os
import signal
import sys
from typing import Any

import click

import gotrace
from gotrace.errors import GotraceError, UsageError, told_of
from gotrace.run import files


class _Commands(click.Group):
    """The modules of this package and the probes, imported when asked for.

    A probe called COMMAND_part belongs to that command, and has none of its own.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        import pkgutil

        packages = (importlib.import_module("gotrace.cli.commands"), importlib.import_module("gotrace.probes"))
        names = {info.name for package in packages for info in pkgutil.iter_modules(package.__path__)}
        return sorted(name for name in names if "_" not in name and self.get_command(ctx, name) is not None)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # here, for click would exit with 1
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from gotrace.cli.options import TOPICS

        commands = [command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))]
        width = max(len(command.name or "") for command in commands)
        for topic, title in TOPICS.items():
            rows = [
                (f"{each.name:{width}}", each.short_help or "") for each in commands if vars(each).get("topic") == topic
            ]
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f"did you mean `gotrace {near[0]}`?" if near else "`gotrace help` lists the commands"
            raise UsageError(f"there is no command {args[0]!r}", hint)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if not cmd_name.isidentifier() or "_" in cmd_name:
            return None
        for found_in in ("gotrace.cli.commands", "gotrace.probes"):
            try:
                module = importlib.import_module(f"{found_in}.{cmd_name}")
            except ModuleNotFoundError as error:
                if error.name != f"{found_in}.{cmd_name}":
                    raise
                continue
            if found_in == "gotrace.probes":
                from gotrace.cli.raw import command_for

                # One that is about starts is no question about a process.
                return None if module.PROBE.of_starts else command_for(cmd_name)
            command = getattr(module, "command", None)
            return command if isinstance(command, click.Command) else None
        return None


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`gotrace help COMMAND` explains a command. Start with `gotrace doctor`, then `gotrace gc --pid 1234 -d 10s`.",
)
@click.version_option(gotrace.__version__, "-V", "--version", prog_name="gotrace")
@click.option("-v", "--verbose", is_flag=True, help="Print details of errors.")
def group(verbose: bool) -> None:
    """Trace a running Go program from outside: no rebuild, no restart, stripped or not."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit: 0 for success, 1 for an error, 2 for wrong usage, or a traced command's status."""
    _prepare_streams()
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of __main__
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.unraisablehook = _raise_again
        written: list[str] = []
        files.on_created = written.append
        status = group.main(args=arguments, prog_name="gotrace", standalone_mode=False)
        if failed := _flushed(0):
            status = failed
        elif written:
            from gotrace.cli.outputs import announce

            announce(written)
    except GotraceError as error:
        status = _complain(error.message, error.hint, error.exit_code)
        if error.detail and _wants_detail(arguments):
            print(error.detail, file=sys.stderr)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "gotrace"
        status = _complain(error.format_message(), f"`{path} --help` lists the options", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except BrokenPipeError:
        status = 0
    except OSError as error:
        told = told_of(error)
        # without a name it may be standard output that is full
        status = (_flushed(0) if error.filename is None else 0) or _complain(told.message, told.hint, told.exit_code)
    except Exception as error:
        if os.environ.get("GOTRACE_DEBUG"):
            raise
        status = _complain(
            f"internal error: {type(error).__name__}: {error}", "set GOTRACE_DEBUG=1 for a traceback, and report it", 1
        )
    sys.exit(_flushed(status if isinstance(status, int) else 0))


def _flushed(status: int) -> int:
    """The status, once what is left for standard output is written: Python's own flush would change it to 120.

    Nothing more is written to a closed pipe, or a full disk.
    """
    try:
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        pass
    except OSError as error:
        if not status:  # else something is said already, most likely the same
            status = _complain(f"cannot write standard output: {error.strerror or error}", told_of(error).hint, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in finalizers, and in what modules do at a fork: Ctrl-C comes again a moment later."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
    else:
        sys.__unraisablehook__(lost)


def _prepare_streams() -> None:
    """Make standard output and error take every character, whatever their encoding."""
    codecs.register_error("gotrace", _replacement)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as it then is for a command that we launch
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="gotrace")
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # With PYTHONUNBUFFERED, Python forgets what a signal kept it from writing, as Ctrl-C does into a pipe that is full.
        sys.stdout = open(sys.stdout.fileno(), "w", encoding=sys.stdout.encoding, errors="gotrace", closefd=False)


def _replacement(error: UnicodeError) -> tuple[str, int]:
    """What stands for the characters that a stream's encoding lacks: the bars and dots of tables, else an escape."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    shown = (_PLAIN.get(each) or ascii(each)[1:-1] for each in text)
    return "".join(shown), error.end


_PLAIN = {"…": "...", "–": "-", "─": "-", "━": "-", "µ": "u", "█": "#", **dict.fromkeys("▏▎▍▌▋▊▉", "|")}


def _complain(message: str, hint: str, status: int) -> int:
    from gotrace.text import printable

    with contextlib.suppress(OSError):
        print(f"gotrace: {printable(message)}", file=sys.stderr)
        if hint:
            print(f"  hint: {printable(hint)}", file=sys.stderr)
    return status


def _wants_detail(arguments: list[str]) -> bool:
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "-v" in ours or "--verbose" in ours


if __name__ == "__main__":
    main()
