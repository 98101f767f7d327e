"""`gotrace top`: every Go process of a host, live."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys

import click

from gotrace.cli.options import Command, Pid, exclude, go_processes, need, option
from gotrace.errors import GotraceError, HostError, UsageError
from gotrace.text import installing


@click.command(
    "top",
    cls=Command,
    topic="agent",
    short_help="Watch the pauses and memory of every Go process, live.",
    examples=[
        ("gotrace top", "shows every Go process on this host; q quits, ? lists the keys"),
        ("gotrace top --connect http://127.0.0.1:9464", "shows what `gotrace serve` traces; does not need root"),
    ],
)
@option(
    "pid",
    type=Pid(several=True),
    metavar="PID,…",
    shell_complete=go_processes,
    help="Watch these running Go processes.",
)
@option("name", help="Watch processes with this executable or main thread name: 'prom*'.")
@click.option("--all-processes", is_flag=True, help="Watch every Go process, including new ones.  [default]")
@option("connect")
@option("token_file")
@option("ca_file")
def command(
    pid: tuple[int, ...] | None,
    name: str | None,
    all_processes: bool,
    connect: str | None,
    token_file: str | None,
    ca_file: str | None,
) -> None:
    """Watch the Go processes of a host in the terminal: pauses, GC cycles, memory and CPU, sorted by longest pause.

    Without --connect, this command traces the processes itself while it runs.
    """
    exclude("pid", "name", "all_processes", "connect")
    need("--connect", connect is not None, "token_file")
    need("--connect https://…", (connect or "").startswith("https:"), "ca_file")
    _check_terminal()
    try:
        from gotrace.cli.tui.top import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise GotraceError("`gotrace top` needs the Python library textual", f"run: {installing('textual')}") from None
    from gotrace.agent.remote import Remote, Source
    from gotrace.agent.watch import Local
    from gotrace.cli.text.progress import waiting
    from gotrace.find.processes import Scanner
    from gotrace.find.selection import Selection, Selector, fitting
    from gotrace.kernel.process import Process
    from gotrace.run.refusal import require_go

    with contextlib.ExitStack() as stack:
        source: Source
        if connect is not None:
            source = Remote(connect, token_file or "", ca_file or "")
            source.rows()  # fail now rather than on the screen
        else:
            terms = [("name", name)] if name is not None else [("pid", str(each)) for each in pid or ()]
            selectors = tuple(Selector((term,)) for term in terms)
            for number in pid or ():
                with Process.open(number) as process:
                    require_go(process)
            if name is not None:
                fitting(selectors, Scanner().scan())
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
    if (term := os.environ.get("TERM", "")) in ("", "dumb", "unknown"):
        raise HostError(f"cannot draw in this terminal (TERM={shlex.quote(term)})", instead)
