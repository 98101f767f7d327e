"""The `gotrace` command: finds its subcommands by walking this package, and prints errors in one place.

A command is a module of this package that holds a click command called ``command``; a probe without such a module gets
one that prints its events. Only the one asked for is imported, because a tracer that is slow to start misses what it was
started for.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

import click

import gotrace
from gotrace.errors import GotraceError


class _Commands(click.Group):
    """The modules of this package and the probes, imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        import pkgutil

        packages = (importlib.import_module("gotrace.cli"), importlib.import_module("gotrace.probes"))
        names = {info.name for package in packages for info in pkgutil.iter_modules(package.__path__)}
        return sorted(name for name in names if name != "main" and not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if not cmd_name.isidentifier() or cmd_name.startswith("_") or cmd_name == "main":
            return None
        for found_in in ("gotrace.cli", "gotrace.probes"):
            try:
                module = importlib.import_module(f"{found_in}.{cmd_name}")
            except ModuleNotFoundError as error:
                if error.name != f"{found_in}.{cmd_name}":
                    raise
                continue
            if found_in == "gotrace.probes":
                from gotrace.cli._events import command_for

                return command_for(cmd_name)
            command = getattr(module, "command", None)
            return command if isinstance(command, click.Command) else None
        return None


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples: `gotrace gc --pid 1234` times every stop-the-world pause; `gotrace doctor --pid 1234` tells "
    "what this host and this target allow.",
)
@click.version_option(gotrace.__version__, "-V", "--version", prog_name="gotrace")
@click.option("-v", "--verbose", is_flag=True, help="With an error, print its long form too.")
def group(verbose: bool) -> None:
    """Look at a running Go program from outside: no rebuild, no restart, stripped or not."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; the process's exit status follows the house rules (0 well, 1 error, 2 usage)."""
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        status = group.main(args=arguments, prog_name="gotrace", standalone_mode=False)
        sys.stdout.flush()
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
        status = _silenced()
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        status = _complain(f"{error.strerror or error}{name}", "check the path, its permissions and the space left", 1)
    except Exception as error:
        if os.environ.get("GOTRACE_DEBUG"):
            raise
        status = _complain(
            f"internal error: {type(error).__name__}: {error}", "set GOTRACE_DEBUG=1 for a traceback and report it", 1
        )
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str, hint: str, status: int) -> int:
    from gotrace.text import printable

    with contextlib.suppress(BrokenPipeError):
        print(f"gotrace: {printable(message)}", file=sys.stderr)
        if hint:
            print(f"  hint: {printable(hint)}", file=sys.stderr)
    return status


def _wants_detail(arguments: list[str]) -> bool:
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "-v" in ours or "--verbose" in ours


def _silenced() -> int:
    """The reader of our output went away: no more output, and no complaint from Python's own flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    main()
