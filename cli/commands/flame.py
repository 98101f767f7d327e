"""`gotrace flame`: a flame graph of a process or a recording, whole or cut down to stops or phases of the collector."""

from __future__ import annotations

import contextlib
import functools
import os

import click

from gotrace.cli.options import Command, Duration, given, need, option, output_options, sample_ns, say
from gotrace.cli.target import target
from gotrace.errors import UsageError
from gotrace.export.formats import FLAMES, RECORDING
from gotrace.run.files import free
from gotrace.text import printable

_BY_PAUSE = ("stopping", "stw")


@click.command(
    "flame",
    cls=Command,
    topic="time",
    short_help="Draw a flame graph: CPU time, waiting, or pauses.",
    examples=[
        ("gotrace flame --pid 1234 -d 10s -o cpu.html", "samples 10 s of CPU time and draws it"),
        ("gotrace flame run.gotrace --straggler -o pauses.svg", "draws what the pauses of a recording waited for"),
    ],
)
@click.argument("recording", type=click.Path(), required=False, metavar="[RECORDING]")
@target(help="The running Go process to trace, instead of a recording.")
@option("duration")
@click.option("--on-cpu", "mode", flag_value="on-cpu", help="Where CPU time goes, sampled.  [default]")
@click.option("--off-cpu", "mode", flag_value="off-cpu", help="Where threads wait off the CPU, and for how long.")
@click.option("--straggler", "mode", flag_value="straggler", help="What stop-the-world pauses waited for, and why.")
@click.option("--idle", is_flag=True, help="Off the CPU, show threads too that have no goroutine to run.")
@click.option(
    "--window",
    type=click.Choice((*_BY_PAUSE, "mark", "assist", "gc", "all")),
    default="all",
    show_default=True,
    metavar="WINDOW",
    help="Only what happened in these windows, see above.",
)
@option("min_pause")
@click.option("--from", "from_", type=Duration(), default="0", help="Leave out what was before this time of the recording.")
@click.option("--to", type=Duration(), default="0", help="Leave out what was after this time of the recording.")
@click.option("--tid", type=click.IntRange(1), metavar="TID", help="Only this thread.")
@option("events", help="Sample this event instead of the clock; of an import from perf, show this event.")
@option("hz")
@click.option("--diff", type=click.Path(), nargs=2, metavar="A B", help="Show what changed from recording A to B.")
@output_options({**FLAMES, **RECORDING})
@click.option("--record", type=click.Path(), hidden=True)
def command(
    recording: str | None,
    pid: int | None,
    duration: int | None,
    mode: str | None,
    idle: bool,
    window: str,
    min_pause: int,
    from_: int,
    to: int,
    tid: int | None,
    events: tuple[str, ...],
    hz: int,
    diff: tuple[str, str] | None,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    record: str | None,
) -> int:
    """Draw a flame graph of a process (--pid) or of a recording: an .svg or .html to look at, or data for other tools.

    With --pid, FILE.gotrace keeps the recording; with --straggler RECORDING may be the folder in which `gotrace serve
    --explain-above` keeps some. Without -o it is flame.svg, or flame.2.svg and so on where that is taken. The windows are:

    \b
    all       the whole time
    stopping  from the request to stop the world until every P had stopped
    stw       from that request until the world ran again
    gc        whole collections
    mark      concurrent marking
    assist    what goroutines do for the collector when they allocate
    """
    mode = mode or "on-cpu"
    if sum(each is not None for each in (recording, pid, diff)) != 1:
        raise UsageError("give one of: a RECORDING, --pid PID, --diff A B", "gotrace flame --pid 1234 -d 10s -o x.svg")
    need("--pid", pid is not None, "duration", "hz", "record")
    need("--off-cpu", mode == "off-cpu", "idle")
    if mode != "on-cpu" and (useless := [*given("hz", "events")]):
        raise UsageError(f"{useless[0]} is about CPU samples", f"leave it or --{mode} out")
    if len(events) > 1:
        raise UsageError("one flame graph shows one event", "draw one for each")
    if min_pause and mode != "straggler" and window not in _BY_PAUSE:
        raise UsageError("--min-pause is about pauses", "add --window stw, --window stopping or --straggler")
    if 0 < to <= from_:
        raise UsageError("--to is not after --from", "both count from the beginning of the recording: --from 2s --to 5s")
    if mode == "straggler" and tid:
        raise UsageError("--straggler is about what the world waited for, whichever thread it was", "leave --tid out")
    of_spool = recording is not None and os.path.isdir(recording)
    if of_spool and (mode != "straggler" or from_ or to):
        raise UsageError(
            f"{printable(str(recording))} is a folder",
            "of a spool --straggler shows all that `gotrace serve` kept, at any time",
        )
    if mode == "straggler" and window not in (*_BY_PAUSE, "all"):
        raise UsageError("--straggler is about pauses", "choose --window stopping or stw")
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text.progress import recording as opened
    from gotrace.cli.text.progress import waiting
    from gotrace.run import flames
    from gotrace.run.kept import recordings_in
    from gotrace.views.flame import Question, answer, stragglers_of

    formats = {**FLAMES, **RECORDING} if pid is not None else FLAMES
    if not outputs:
        outputs = ("-",) if format_ is not None else (free("flame.svg", force),)
    results = wanted(outputs, format_, formats, force, also=[(record, "gotrace")], inputs=(recording, *(diff or ())))
    if diff and (lacking := results.formats & {"pprof", "speedscope"}):
        raise UsageError(
            f"a difference cannot be written as {min(lacking)}", "go tool pprof -diff_base A.pb.gz B.pb.gz shows one"
        )
    question = Question(mode, window, min_pause, (*events, "")[0], idle, from_, to, tid or 0)
    with contextlib.ExitStack() as stack:
        if pid is not None:  # a picture of each program that it executes
            traced = flames.recorded(pid, duration, question, results.recording, sample_ns(hz), force, say, opened)
            pictures = [[each] for each in stack.enter_context(traced)]
        else:
            paths = recordings_in(str(recording)) if of_spool else (diff or (recording,))
            pictures = [[functools.partial(opened, path) for path in paths if path]]
        for number, sources in enumerate(pictures, 1):
            with waiting("drawing") if pid is not None else contextlib.nullcontext():
                if of_spool:
                    answers = [stragglers_of(sources, question, str(recording))]
                else:
                    answers = [answer(source, question) for source in sources]
                flames.drawn(answers, results.files, number, force)
            for each in answers:
                side = f"{printable(each.path)}: " if diff else ""
                say(f"{side}{each.title}: {each.summary()}")
    return 0
