"""What `gotrace coldstart -- go build` prints for people: one timeline of stages and packages, and the conclusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from gotrace.analysis.builds.build import Build, Item, packages
from gotrace.analysis.builds.steps import COMPILE, COMPILING, DOWNLOAD, GO, OTHER, UNZIP, VET, Step
from gotrace.analysis.start_summary import summaries
from gotrace.analysis.timeline import is_short
from gotrace.cli.text.coldstart import NAME, Shown, bar, many_starts, row_name
from gotrace.cli.text.layout import Column, Rows
from gotrace.cli.text.table import Table
from gotrace.run import builds
from gotrace.run.builds import NO_GO, Builds
from gotrace.run.files import Sink, complain_of, created
from gotrace.text import count_text, duration_text, printable

if TYPE_CHECKING:
    from gotrace.cli.outputs import Wanted

_MOST_NAMED = 3
_CHAIN_NAMED = 8
_COLUMNS = (
    NAME,
    Column("start", 9, rank=2),
    Column("wall", 9),
    Column("share", 6),
    Column("alone", 9, rank=1),
    Column("CPU", 9, rank=2),
    Column("runnable", 9, rank=4),
    Column("steps", 5, rank=3),
    Column("", 24, rank=1, left=True),
    Column("", rank=7, left=True, elastic=16, gap=2),
)


def write(result: Builds, wanted: Wanted, shown: Shown, screen: TextIO) -> None:
    """The builds to the screen and to every file but the recording; a table goes to ``screen``."""
    if wanted.screen:
        Table(Sink.screen(screen)).print(table(result, shown))
    for path, format_ in wanted.files:
        if format_ == "table":
            sink = Sink.created(path, wanted.force)
            Table(sink).print(table(result, shown))
            sink.close()
            complain_of(sink)
        elif format_ != "gotrace":
            with created(path, wanted.force) as file:
                builds.write(
                    result, file, format_, [list(sentences(build, _own(result, build))) for build in result.builds]
                )


def table(result: Builds, shown: Shown) -> Iterator[str | Rows]:
    """The timeline of one run, or what many have in common; then the conclusion of the last one."""
    command = printable(" ".join(result.command))
    last = result.builds[-1]
    own = _own(result, last)
    yield ""
    if len(result.builds) == 1:
        yield f"{command}, pid {last.pid}: {duration_text(last.total_ns)} from fork {_to_end(last)}"
        yield ""
        yield _timeline(last, shown, own)
        yield ""
    else:
        yield f"{command}: {count_text(len(result.builds), 'run')} from fork to exit"
        yield ""
        starts = [build.start() for build in result.builds]
        (found,) = summaries(starts)
        yield from many_starts(starts, found, shown.everything)
        yield f"The last one took {duration_text(last.total_ns)}:"
    yield from sentences(last, own)
    if last.exit_code and result.about["ended"] == builds.ALL_SEEN:
        yield f"The command failed: exit {last.exit_code}. The above covers what was seen until then."
    elif result.about["ended"] != builds.ALL_SEEN:
        yield f"Ended: {result.about['ended']}. The above covers what was seen until then."
    if (cost := result.about["cost"]) is not None:
        took = duration_text(cost["target_ns_estimate"] // len(result.builds))
        yield f"Tracing added about {took} of CPU time to each run."
    if result.about["lost"]:
        yield f"{count_text(result.about['lost'], 'event')} LOST: steps and packages from the cache may be missing."


def _own(result: Builds, build: Build) -> str:
    """What the command itself is called. Of another tree than a go command's no package is known."""
    of_go = result.header["target"]["go_version"] != NO_GO or any(step.stage != OTHER for step in build.steps)
    return GO if of_go else "command alone"


def _to_end(build: Build) -> str:
    return "until tracing ended: still running" if build.exit_code is None else f"to exit {build.exit_code}"


def _timeline(build: Build, shown: Shown, own: str) -> Rows:
    total = max(1, build.total_ns)
    rows = []
    for stage in [item for item in build.items if not item.name]:
        rows.append(_cells(stage, total, own))
        those = [item for item in build.items if item.name and item.stage == stage.stage]
        if shown.longest_first:
            those.sort(key=lambda item: -item.wall_ns)
        short = [item for item in those if is_short(item.wall_ns, stage.wall_ns, total) and not item.detail]
        hidden = set() if shown.everything or len(short) < 2 else {item.name for item in short}
        rows += [_cells(item, total, own) for item in those if item.name not in hidden]
        if hidden:
            rows.append(
                (
                    row_name(f"{len(hidden)} shorter", 1),
                    *["-"] * (len(_COLUMNS) - 4),
                    str(sum(item.steps for item in short)),
                    "",
                    "",
                )
            )
    return Rows(_COLUMNS, rows)


def _cells(item: Item, total: int, own: str) -> tuple[str, ...]:
    times = ("?" if ns is None else duration_text(ns) for ns in (item.cpu_ns, item.runnable_ns))
    return (
        row_name(item.name or (own if item.stage == GO else item.stage), int(bool(item.name))),
        "-" if item.stage == GO else duration_text(item.begin_ns),
        duration_text(item.wall_ns),
        f"{item.wall_ns / total:.1%}",
        duration_text(item.alone_ns),
        *times,
        str(item.steps),
        "" if item.stage == GO else bar(item.begin_ns / total, item.wall_ns / total),
        item.detail,
    )


def sentences(build: Build, own: str = GO) -> Iterator[str]:
    """The conclusion: the largest stage, packages and caches, what the end waited for, what is not known."""
    total = max(1, build.total_ns)
    stages = [item for item in build.items if not item.name]
    most = max(stages, key=lambda item: item.wall_ns)
    alone = f"the {own.removesuffix(' alone')} itself, while no child process ran,"
    what = alone if most.stage == GO else most.stage
    yield f"Most of it: {what} {duration_text(most.wall_ns)}, {most.wall_ns / total:.0%} of {duration_text(total)}."
    if own == GO:
        yield from _of_packages(build)
    if build.found or build.not_found or build.stored:
        found, not_found, stored = map(len, (build.found, build.not_found, build.stored))
        yield f"Build cache: {found} entries found, {not_found} not found, {stored} stored."
    for stage, verb in ((DOWNLOAD, "downloaded"), (UNZIP, "unzipped")):
        if (item := build.stage(stage)) is not None:
            yield f"{count_text(item.steps, 'module')} {verb} in {duration_text(item.wall_ns)}."
    if build.mod_files:
        yield f"{count_text(len(build.mod_files), 'go.mod file')} fetched."
    if len(build.chain) > 1:
        took = sum(step.end_ns - step.begin_ns for step in build.chain)
        first = "... -> " if len(build.chain) > _CHAIN_NAMED else ""
        names = " -> ".join(
            f"{link_name(step)} {duration_text(step.end_ns - step.begin_ns)}" for step in build.chain[-_CHAIN_NAMED:]
        )
        how_long = f"{duration_text(took)} ({took / total:.0%})"
        yield f"Critical path: {len(build.chain)} steps in a row, {how_long}: {first}{names}."
    failed = Counter((step.stage, step.name, step.status) for step in build.steps if step.status)
    for (stage, name, status), count in list(failed.items())[:_MOST_NAMED]:
        what = printable(name) if stage == OTHER else f"{stage} of {printable(name)}"
        times = f" {count} times" if count > 1 else ""
        yield f"{what} failed{times}: exit {status}{'; the command went on' if build.exit_code == 0 else ''}."
    if build.unread:
        yield f"{count_text(build.unread, 'list')} of packages could not be read: some from the cache may be missing."
    if build.cut:
        yield f"Arguments of {count_text(build.cut, 'process', 'processes')} were lost in part."


def _of_packages(build: Build) -> Iterator[str]:
    made = [step for step in packages(build, COMPILING) if step.name in build.compiled]
    known = build.compiled or build.cached or build.prebuilt or not build.found
    cached = f"{len(build.cached)} from the cache" if known else "which came from the cache: ?"
    prebuilt = f", {len(build.prebuilt)} prebuilt in the toolchain" if build.prebuilt else ""
    yield f"{count_text(len(build.compiled), 'package')} compiled{_most(made)}, {cached}{prebuilt}."
    if vetted := packages(build, (VET,)):
        yield f"{count_text(len(vetted), 'package')} vetted{_most(vetted)}."


def _most(steps: Sequence[Step]) -> str:
    named = [f"{printable(each.name)} {duration_text(each.end_ns - each.begin_ns)}" for each in steps[:_MOST_NAMED]]
    return f" ({'most: ' if len(steps) > 1 else ''}{', '.join(named)})" if named else ""


def link_name(step: Step) -> str:
    """Of a step of the chain."""
    return printable(step.name if step.stage == COMPILE else f"{step.stage} of {step.name}")
