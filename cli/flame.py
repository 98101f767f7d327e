"""`gotrace flame`: a flame graph of a process or a recording, whole or cut down to stops or phases of the collector."""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from gotrace.cli._target import Duration, attached, check_files, hz_option, sample_ns
from gotrace.cli.export import FLAMES, created, format_of
from gotrace.errors import UsageError

if TYPE_CHECKING:
    from gotrace.cli._flame import Opener, Question

_BY_PAUSE = ("stopping", "stw")


@click.command("flame")
@click.argument("recording", type=click.Path(), required=False, metavar="[RECORDING]")
@click.option("-p", "--pid", type=int, help="The Go process to look at, instead of a recording.")
@click.option("-d", "--duration", type=Duration(), help="With --pid: look this long. [default: until Ctrl-C]")
@click.option("--on-cpu", "mode", flag_value="on-cpu", help="Where CPU time goes, sampled. [default]")
@click.option("--off-cpu", "mode", flag_value="off-cpu", help="Where threads wait off the CPU, and how long.")
@click.option("--straggler", "mode", flag_value="straggler", help="Whom stops of the world waited for, and what kept it.")
@click.option(
    "--window",
    type=click.Choice((*_BY_PAUSE, "mark", "assist", "gc", "all")),
    default="all",
    show_default=True,
    help="Only what happened then.",
)
@click.option("--min-pause", type=Duration(), default="0", help="Only stops from this length on (1ms).")
@click.option(
    "--event",
    default="",
    help="What is sampled: the clock, or an event as for `gotrace tlb -e`; of an import from perf, which of its events.",
)
@click.option("--diff", type=click.Path(), nargs=2, metavar="A B", help="What changed from recording A to B.")
@click.option("-o", "--output", type=click.Path(), required=True, metavar="FILE", help="Write there (-: standard output).")
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FLAMES)),
    help="[default: what FILE ends in]",
)
@click.option("--record", type=click.Path(), metavar="FILE", help="With --pid: keep the recording.")
@hz_option
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def command(
    recording: str | None,
    pid: int | None,
    duration: int | None,
    mode: str | None,
    window: str,
    min_pause: int,
    event: str,
    diff: tuple[str, str] | None,
    output: str,
    format_: str | None,
    record: str | None,
    hz: int,
    force: bool,
) -> int:
    """Draw a flame graph of a process (--pid) or of a recording: an .svg or .html to look at, or data for other tools.

    \b
    windows   stopping  from the request to stop until every P had stopped
              stw       until the world ran again
              mark      concurrent marking           gc   whole collections
              assist    what goroutines do for the collector when they allocate
    """
    mode = mode or "on-cpu"
    if sum(each is not None for each in (recording, pid, diff)) != 1:
        raise UsageError("give one of: a RECORDING, --pid PID, --diff A B", "gotrace flame --pid 1234 -d 10s -o x.svg")
    if duration == 0:
        raise UsageError("--duration must be longer than nothing", "write 10s or 500ms")
    if min_pause and mode != "straggler" and window not in _BY_PAUSE:
        raise UsageError("--min-pause is about stops", "add --window stw, --window stopping or --straggler")
    if mode == "straggler" and window not in (*_BY_PAUSE, "all"):
        raise UsageError("--straggler is about stops", "choose --window stopping or stw")
    if event and pid is not None and mode != "on-cpu":
        raise UsageError("--event is about samples", "leave --off-cpu or --straggler out")
    if (record or duration) and pid is None:
        raise UsageError("--record and --duration go with --pid", "gotrace flame --pid 1234 -d 10s -o x.svg")
    from gotrace.cli import _flame
    from gotrace.recording.reader import Recording

    chosen = format_ or format_of(output, FLAMES)
    if diff and chosen in ("pprof", "speedscope"):
        raise UsageError(
            f"a difference cannot be written as {chosen}", "go tool pprof -diff_base A.pb.gz B.pb.gz shows one"
        )
    check_files((output, recording, record, *(diff or ())), force=True)
    check_files((output, record), force)
    question = _flame.Question(mode, window, min_pause, event)
    with contextlib.ExitStack() as stack:
        if pid is not None:
            sources = [stack.enter_context(_recorded(pid, duration, question, record, sample_ns(hz), force))]
        else:
            sources = [functools.partial(Recording.open, path) for path in (diff or (recording,)) if path]
        answers = [_flame.answer(source, question) for source in sources]
        with created(output, force) as file:
            _flame.write(answers, file, chosen)
    for told in answers:
        print(f"{told.title}: {told.summary()}", file=sys.stderr)
    return 0


@contextlib.contextmanager
def _recorded(
    pid: int, duration: int | None, question: Question, record: str | None, sample_ns: int, force: bool
) -> Iterator[Opener]:
    """Look at a process as long as was asked for; what opens the recording of it, which goes away if nobody wants it."""
    from gotrace.cli._recorder import Recorder
    from gotrace.kernel import tlb_events
    from gotrace.recording.reader import Recording

    with contextlib.ExitStack() as stack:
        sampled = tlb_events.named([question.event]) if question.event else ()
        with attached(question.probes(), pid, (), lambda: None, sample_ns, sampled) as traced:
            # Here, for by now we are the user whose file it is to be.
            if record is not None:
                with Recorder.opened(record, force, traced) as recorder:
                    recorder.run(duration)
            else:
                file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
                Recorder(file, "a temporary recording", traced).run(duration)
        yield functools.partial(Recording.open, record) if record is not None else (lambda: Recording.open("-", file))
