"""`gotrace reproduce RECORDING`: what `gotrace datapath` recorded, run again and compared."""

from __future__ import annotations

import json
import os
import shlex
import signal
from typing import TYPE_CHECKING

import click

from gotrace.cli.options import say
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.cli.outputs import Wanted


def recording(
    path: str,
    margin: float,
    runs: int,
    anyway: bool,
    dry_run: bool,
    replay: bool,
    into: str | None,
    cold: bool,
    results: Wanted,
) -> int:
    """The exit status; raises GotraceError."""
    from gotrace.cli.text import repeat as text
    from gotrace.cli.text.progress import recording as opened
    from gotrace.cli.text.table import Table
    from gotrace.lab import repeat
    from gotrace.run.sources import Replayed
    from gotrace.views.datapath_load import calls_in

    with opened(path) as source:
        source.require("datapath", "calls on files")
        command = None if replay else repeat.command_of(source.header)
        unlike, notes = repeat.check(source.header, anyway)
        view = calls_in(Replayed(source))
        told = source.header.get("command")
    if view.result["lost"]:
        unlike.append(f"the recording has lost {view.result['lost']:,} events")
    if told and command and told["folder"] != os.getcwd():
        notes.append(f"started in {told['folder']} then, in {os.getcwd()} now")
    if dry_run:
        what = f"command: {printable(shlex.join(command))}" if command else "replay of its calls"
        for line in (what, f"runs: {runs}", *text.about(unlike, notes), *text.recorded(repeat.values(view))):
            click.echo(line)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    if command is not None:
        then, (now, stopped) = repeat.values(view), repeat.run_again(command, runs, say)
    else:
        assert into is not None
        then, now, doubts, stopped = repeat.replay_again(view, into, runs, cold, say)
        unlike += doubts
    if stopped:
        say(f"Ended by {stopped} after {len(now)} of {runs} runs.")
        return 130
    found = repeat.judge(then, now, margin, "replay" if replay else "command", unlike, notes)
    with results.streams() as streams:
        for stream, kind in streams:
            if kind == "json":
                stream.write(json.dumps(found.to_json(), indent=1) + "\n")
            else:
                Table(stream).print(text.lines(found))
    return found.exit_code
