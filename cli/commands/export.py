"""`gotrace export`: a recording in the form that some other tool reads."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, need, option, output_options, say
from gotrace.export.formats import FORMATS
from gotrace.run.files import created
from gotrace.text import count_text


@click.command(
    "export",
    cls=Command,
    topic="record",
    short_help="Convert a recording for other tools.",
    examples=[
        ("gotrace export run.gotrace -o run.perfetto", "writes a timeline for https://ui.perfetto.dev"),
        ("gotrace export run.gotrace -o run.csv -o run.hlog", "writes every event, and histograms of the pauses"),
    ],
)
@click.argument("recording", type=click.Path(), metavar="RECORDING")
@option("interval", help="For hlog: length of an interval.")
@output_options(FORMATS, required=True)
def command(recording: str, interval: int, outputs: tuple[str, ...], format_: str | None, force: bool) -> int:
    """Write RECORDING in formats that other tools read.

    \b
    ndjson, csv, parquet   every event, with named columns, stacks as text
    hlog, hgrm             histograms of pauses, of page faults, or of perf's
                           events
    perfetto               a timeline: pauses, GC phases, threads, Ps, heap
    svg, html, folded, pprof, speedscope
                           stacks, as `gotrace flame` writes them; for
                           starts and of memory svg and html are what
                           `gotrace coldstart`, `mem`, `tlb` and `numa` write
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text.progress import recording as opened
    from gotrace.run.export import check, write

    results = wanted(outputs, format_, FORMATS, force, inputs=(recording,))
    need("hlog output", "hlog" in results.formats, "interval")
    with opened(recording, again=True) as source:
        check(source, sorted(results.formats))
    lost = 0
    for path, kind in results.files:
        with opened(recording, again=path != results.files[0][0]) as source, created(path, force) as file:
            if told := write(source, file, kind, interval):
                say(told)
        lost = source.lost
    if lost:
        say(f"gotrace: {count_text(lost, 'event')} lost when this was recorded")
    return 0
