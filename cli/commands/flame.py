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
        ("gotrace flame --pid 1234 -d 10s -o cpu.html", "samples CPU time for 10 s and draws it"),
        ("gotrace flame run.gotrace --straggler -o pauses.svg", "draws what the pauses of a recording waited for"),
    ],
)
@click.argument("recording", type=click.Path(), required=False, metavar="[RECORDING]")
@target(help="The running Go process to trace, instead of a recording.")
@option("duration")
@click.option("--on-cpu", "mode", flag_value="on-cpu", help="Show where CPU time goes, by sampling.  [default]")
@click.option("--off-cpu", "mode", flag_value="off-cpu", help="Show where threads wait off-CPU, and for how long.")
@click.option("--straggler", "mode", flag_value="straggler", help="Show what stop-the-world pauses waited for, and why.")
@click.option("--idle", is_flag=True, help="With --off-cpu, include threads that have no goroutine to run.")
@click.option(
    "--window",
    type=click.Choice((*_BY_PAUSE, "mark", "assist", "gc", "all")),
    default="all",
    show_default=True,
    metavar="WINDOW",
    help="Show only what happened in these windows (see above).",
)
@option("min_pause")
@click.option("--from", "from_", type=Duration(), default="0", help="Skip everything before this time in the recording.")
@click.option("--to", type=Duration(), default="0", help="Skip everything after this time in the recording.")
@click.option("--tid", type=click.IntRange(1), metavar="TID", help="Only this thread.")
@option("events", help="Sample this event instead of the clock; for a perf import, show this event.")
@option("hz")
@click.option(
    "--diff", type=click.Path(), nargs=2, metavar="A B", help="Show what changed from recording A to recording B."
)
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
    """Draw a flame graph of a process (--pid) or a recording: as .svg or .html, or as data for other tools.

    With --pid, -o FILE.gotrace keeps the recording; with --straggler, RECORDING may be the spool directory of `gotrace
    serve --explain-above`. Without -o, the output is flame.svg, or flame.2.svg and so on if that exists. The windows are:

    \b
    all       the whole time
    stopping  from the request to stop the world until every P had stopped
    stw       from that request until the world ran again
    gc        whole GC cycles
    mark      concurrent marking
    assist    mark assists: goroutines that mark when they allocate
    """
    mode = mode or "on-cpu"
    if sum(each is not None for each in (recording, pid, diff)) != 1:
        raise UsageError("give one of: a RECORDING, --pid PID, --diff A B", "gotrace flame --pid 1234 -d 10s -o x.svg")
    need("--pid", pid is not None, "duration", "hz", "record")
    need("--off-cpu", mode == "off-cpu", "idle")
    if mode != "on-cpu" and (useless := [*given("hz", "events")]):
        raise UsageError(f"{useless[0]} applies to CPU samples", f"omit it or --{mode}")
    if len(events) > 1:
        raise UsageError("a flame graph shows a single event", "draw one for each")
    if min_pause and mode != "straggler" and window not in _BY_PAUSE:
        raise UsageError("--min-pause applies to pauses", "add --window stw, --window stopping or --straggler")
    if 0 < to <= from_:
        raise UsageError("--to is not after --from", "both count from the start of the recording: --from 2s --to 5s")
    if mode == "straggler" and tid:
        raise UsageError("--straggler shows what the world waited for, whichever thread that was", "omit --tid")
    of_spool = recording is not None and os.path.isdir(recording)
    if of_spool and (mode != "straggler" or from_ or to):
        raise UsageError(
            f"{printable(str(recording))} is a directory",
            "for a spool, use --straggler: it shows everything that `gotrace serve` kept",
        )
    if mode == "straggler" and window not in (*_BY_PAUSE, "all"):
        raise UsageError("--straggler applies to pauses", "choose --window stopping or stw")
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
