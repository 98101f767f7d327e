"""`gotrace top`: every Go process of a host, live."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from gotrace.cli.options import Command, Pid, exclude, go_processes, need, option
from gotrace.errors import GotraceError, HostError, UsageError


@click.command(
    "top",
    cls=Command,
    topic="agent",
    short_help="Watch the pauses and memory of every Go process, live.",
    examples=[
        ("gotrace top", "shows every Go process of this host; q quits, ? explains the keys"),
        ("gotrace top --connect http://127.0.0.1:9464", "shows what `gotrace serve` traces, without root"),
    ],
)
@option(
    "pid",
    type=Pid(several=True),
    metavar="PID[,PID…]",
    shell_complete=go_processes,
    help="The running Go processes to watch.",
)
@option("name", help="The processes whose executable, or thread, is called so: 'prom*'.")
@click.option("--all-processes", is_flag=True, help="Watch every Go process, those too that begin meanwhile; the default.")
@option("connect")
@option("token_file")
def command(
    pid: tuple[int, ...] | None, name: str | None, all_processes: bool, connect: str | None, token_file: str | None
) -> None:
    """Watch the Go processes of a host on the terminal: pauses, collections, memory and CPUs, sorted by the longest pause.

    Without --connect they are traced by this command itself, as long as it runs.
    """
    exclude("pid", "name", "all_processes", "connect")
    need("--connect", connect is not None, "token_file")
    _check_terminal()
    try:
        from gotrace.cli.tui.top import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise GotraceError("`gotrace top` needs the library textual", "pip install 'gotrace[tui]'") from None
    from gotrace.agent.remote import Remote, Source
    from gotrace.agent.watch import Local
    from gotrace.cli.text.progress import waiting
    from gotrace.find.processes import Scanner
    from gotrace.find.selection import Selection, Selector, fitting

    with contextlib.ExitStack() as stack:
        source: Source
        if connect is not None:
            source = Remote(connect, token_file or "")
            source.rows()  # what is wrong is said now
        else:
            terms = [("name", name)] if name is not None else [("pid", str(each)) for each in pid or ()]
            selectors = tuple(Selector((term,)) for term in terms)
            for each in selectors:
                fitting([each], Scanner().scan())
            with waiting("setting up"):
                source = stack.enter_context(Local.opened(Selection(selectors, defaults=False)))
        app = Top(source)
        app.run()
        if app.failure is not None:
            raise app.failure


def _check_terminal() -> None:
    instead = "`gotrace gc --all-processes` prints lines"
    streams = (sys.stdin, sys.stdout, sys.__stderr__)  # the last one is what textual draws on
    if not all(stream is not None and stream.isatty() for stream in streams):
        raise UsageError("`gotrace top` needs a terminal", instead)
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        raise HostError("this terminal cannot be drawn on (TERM=dumb)", instead)
