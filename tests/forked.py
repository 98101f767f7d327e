"""gotrace started by a fork of the process that runs the tests, which has imported it, instead of as a new Python.

A Python that has imported gotrace takes 0.4 s of a CPU to be there, and seconds in the emulated machine, of each of many
hundred commands. What is left out is that start alone: a command still is a process of its own, with the streams,
environment, working folder and file descriptors that it was given, and ends as one.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import functools
import gc
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import targets

COMMAND = [sys.executable, "-m", "gotrace.cli"]


@functools.cache
def _import_everything() -> list[Callable[[], None]]:
    """And what drops that which gotrace remembers of the machine.

    It is looked up before a fork, for a child copies each page that has something it looks at: all of gotrace's are 18 MB,
    five sixths of the time that a command takes otherwise.
    """
    for package in ("gotrace", "gotrace.cli", "gotrace.probes"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not (targets.EMULATED and module.name.startswith("gotrace.cli.tui")):  # a quarter of it all, for one test
                importlib.import_module(module.name)
    gotrace = [module for name, module in sys.modules.items() if name.partition(".")[0] == "gotrace"]
    things = [thing for module in gotrace for thing in vars(module).values()]
    return list({id(thing): thing.cache_clear for thing in things if hasattr(thing, "cache_clear")}.values())


def _become(arguments: list[str], environment: dict[str, str], kept: tuple[int, ...]) -> NoReturn:
    """In the child: what Python does between its start and the end of the command."""
    faulthandler.disable()
    atexit._clear()
    gc.callbacks.clear()  # hypothesis's
    gc.freeze()  # what the tests have is not ours to look through
    # All files but the command's are closed, subprocess's own pipe among them, by whose end its caller learns that we are
    # there. Their numbers stay taken: objects of the tests hold them, and one that is let go of closes what has its number.
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, nothing, *kept}:
        os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(environment)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    sys.argv = ["gotrace", *arguments]
    sys.stdin, sys.stdout = (open(fd, mode, closefd=False) for fd, mode in ((0, "r"), (1, "w")))
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)
    for forget in _import_everything():  # the machine may have changed since
        forget()
    status: Any = 0
    try:
        sys.modules["gotrace.cli.main"].main()
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status or 0)


@contextlib.contextmanager
def commands() -> Iterator[None]:
    """Have subprocess start gotrace so, as long as this lasts."""
    _import_everything()
    start = subprocess.Popen.__init__

    def init(self: subprocess.Popen[Any], args: Any, *more: Any, **options: Any) -> None:
        if isinstance(args, list) and args[: len(COMMAND)] == COMMAND:
            environment, before = options.pop("env", None), options.get("preexec_fn")
            options["preexec_fn"] = _in_child(args, environment, before, options.get("pass_fds", ()))
        start(self, args, *more, **options)

    subprocess.Popen.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        subprocess.Popen.__init__ = start  # type: ignore[method-assign]


def _in_child(
    args: list[str], environment: dict[str, str] | None, before: Callable[[], None] | None, kept: tuple[int, ...]
) -> Callable[[], None]:
    def run() -> None:
        if before:
            before()
        _become(
            [os.fsdecode(each) for each in args[len(COMMAND) :]],
            dict(os.environ if environment is None else environment),
            kept,
        )

    return run
