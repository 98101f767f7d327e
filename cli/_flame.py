"""From a recording to a flame graph: which stacks, what they weigh, and in which form they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from gotrace.analysis import windows
from gotrace.analysis.flame import Profile, diff, diff_folded, folded
from gotrace.analysis.pauses import rows
from gotrace.analysis.samples import Collector, of_stragglers
from gotrace.analysis.stacks import StackTable
from gotrace.analysis.windows import Windows
from gotrace.cli._replay import check_probe, chunks
from gotrace.errors import GotraceError
from gotrace.export import flame_svg
from gotrace.export.pprof import pprof
from gotrace.export.speedscope import speedscope
from gotrace.recording.reader import Recording
from gotrace.text import duration_text, printable

Opener = Callable[[], AbstractContextManager[Recording]]

ON_CPU, OFF_CPU, STRAGGLER = "on-cpu", "off-cpu", "straggler"
# What each needs, beside the GC events that windows are cut by.
PROBES = {ON_CPU: "profile", OFF_CPU: "offcpu", STRAGGLER: "tail"}

STOPPING, STW, MARK, ASSIST, GC, ALL = ("stopping", "stw", "mark", "assist", "gc", "all")
_ASSIST = "runtime.gcAssistAlloc"

# Of more stops than these the longest are looked at: what is known of each is kept until the end.
MOST_STOPS = 20_000


@dataclass(frozen=True)
class Question:
    """What a flame graph is to show: the kind of stacks, from when, and (of an imported recording) of which event."""

    mode: str = ON_CPU
    window: str = ALL
    min_pause: int = 0
    event: str = ""

    def probes(self) -> list[str]:
        """What has to be recorded to answer it."""
        needs_gc = self.mode == STRAGGLER or self.window not in (ALL, ASSIST)
        return [*(["gc"] if needs_gc else []), PROBES[self.mode]]

    def words(self) -> str:
        """It, in a title."""
        when = "" if self.window == ALL else f", {self.window}"
        pauses = f", pauses of {duration_text(self.min_pause)} or more" if self.min_pause else ""
        return f"{self.mode.replace('cpu', 'CPU')}{when}{pauses}"


@dataclass(frozen=True)
class Answer:
    """The stacks, and what else there is to say: notes for the reader of the picture, losses among them."""

    profile: Profile
    mode: str
    title: str
    notes: list[str]
    begin_ns: int  # wall clock
    duration_ns: int

    @property
    def counted(self) -> str:
        """What the counts of the stacks are counts of."""
        return "samples" if self.mode == ON_CPU else "times"

    def summary(self) -> str:
        """How much there is of it."""
        profile = self.profile
        total = int(profile.weights.sum())
        weight = duration_text(total) if profile.unit == "nanoseconds" else f"{total} {profile.unit}"
        counted = f"{int(profile.counts.sum())} {self.counted}"
        return ", ".join([f"{weight} in {len(profile)} stacks, from {counted}", *self.notes])


def answer(open_: Opener, question: Question) -> Answer:
    """``open_()`` opens the recording; it is read twice where windows have to be known first."""
    with open_() as source:
        for stem in question.probes():
            if stem != PROBES[ON_CPU] or "perf" not in source.header["probes"]:  # perf samples what is on a CPU
                check_probe(source, stem, f"{question.mode} stacks" if stem != "gc" else "GC events to tell when that was")
        if question.mode == STRAGGLER:
            return _told(source, *_stragglers(source, question), question)
        within = None
        if question.window not in (ALL, ASSIST):
            within = _windows(source, question)
    with open_() as source:
        profile, notes = _sampled(source, question, within)
        if within is not None:
            notes.append(f"{len(within.begins)} windows, {duration_text(within.length)} together")
        if within is not None and not len(profile) and question.mode == ON_CPU:
            notes.append(
                "no sample fell into them: sample more often (--hz 10000), or see --straggler, which does not sample"
            )
        return _told(source, profile, notes, question)


def _told(source: Recording, profile: Profile, notes: list[str], question: Question) -> Answer:
    header = source.header
    target, clock = header["target"], header["clock"]
    if source.lost:
        notes.append(f"{source.lost} events were lost")
    end = source.end or {}
    name = printable(str(target["exe"]).rsplit("/", 1)[-1])
    title = (
        f"{name} (pid {target['pid']}, {target['go_version']}): {question.words()}" if target["pid"] else question.words()
    )
    begin = int(clock["begin_ns"]) + int(clock["wall_offset_ns"])
    return Answer(profile, question.mode, title, notes, begin, int(end.get("duration_ns", 0)))


def _windows(source: Recording, question: Question) -> Windows:
    from gotrace.probes.gc import decoder

    decoded = decoder(source.header, source.text)
    found = []
    for chunk in chunks(source):
        batch = decoded.feed(chunk.events)
        if question.window in (MARK, GC):
            found.append(windows.of_cycles(batch.cycles, question.window == MARK))
        else:
            found.append(windows.of_pauses(batch.pauses, question.window == STOPPING, question.min_pause))
    begins, ends = (np.concatenate([each[part] for each in found] or [np.zeros(0, np.int64)]) for part in (0, 1))
    return Windows.of(begins, ends)


def _sampled(source: Recording, question: Question, within: Windows | None) -> tuple[Profile, list[str]]:
    wanted_kind = "off_cpu_stack" if question.mode == OFF_CPU else "sample"
    kinds = next(each["kinds"] for each in source.header["probes"].values() if wanted_kind in each["kinds"])
    kind = kinds[wanted_kind]
    column = dict(zip(kind["columns"], "abcde", strict=False))
    stacks = StackTable([kinds["stack"]["number"]], source.frames)
    collectors: dict[str, Collector] = {}
    for chunk in chunks(source, again=within is not None):
        stacks.feed(chunk.events)
        events = rows(chunk.events, chunk.events["kind"] == kind["number"])
        times = events["time_ns"].astype(np.int64)
        if question.mode == OFF_CPU:
            began = events[column["off_ns"]].astype(np.int64)
            weights = times - began if within is None else within.overlap(began, times)
            wanted = weights > 0
        else:
            weights = events[column.get("period_ns") or column["period"]].astype(np.int64)
            wanted = np.ones(len(events), bool) if within is None else within.contain(times)
        events, weights = rows(events, wanted), weights[wanted]
        kernel = events[column["kernel_stack"]] if "kernel_stack" in column else np.zeros(len(events), np.uint64)
        for number in np.unique(events[column["event"]]).tolist() if "event" in column else [None]:
            of_it = slice(None) if number is None else events[column["event"]] == number
            name = source.header.get("sampled", "") if number is None else source.text_of(number)
            collectors.setdefault(name, Collector(stacks)).add(
                events[column["stack"]][of_it], kernel[of_it], weights[of_it]
            )
    if question.event not in ("", *collectors):
        known = ", ".join(map(printable, filter(None, collectors))) or "one kind of samples"
        raise GotraceError(
            f"there are no samples of an event {printable(question.event)!r}", f"there is: {known or 'nothing'}"
        )
    most = max(collectors, key=lambda name: collectors[name].count, default="")
    chosen = question.event or most
    collector = collectors.get(chosen, Collector(stacks))
    notes = [f"event {printable(chosen)}"] if chosen else []
    unit = "nanoseconds" if not chosen or chosen.startswith(("cpu-clock", "task-clock")) else printable(chosen)
    if chosen and "event" in column and collector.weight == collector.count:  # perf did not print what a sample stands for
        unit = "samples"
    return collector.profile(unit, _ASSIST if question.window == ASSIST else ""), notes


def _stragglers(source: Recording, question: Question) -> tuple[Profile, list[str]]:
    from gotrace.probes.gc import decoder
    from gotrace.probes.tail import explainer

    decoded, told = decoder(source.header, source.text), explainer(source.header, source.frames, MOST_STOPS)
    stops = 0
    for chunk in chunks(source):
        pauses = decoded.feed(chunk.events).pauses
        pauses = rows(pauses, pauses["total_ns"] >= question.min_pause)
        stops += len(pauses)
        told.feed(chunk.events, pauses)
    notes = [f"{stops} stops"]
    if stops > MOST_STOPS:
        notes.append(f"the longest {MOST_STOPS} of them are shown: --min-pause leaves short ones out")
    if told.without_evidence:
        notes.append(f"{told.without_evidence} of them were not seen whole, and are not shown")
    return of_stragglers(told.longest(), told.stacks, question.window == STOPPING), notes


def write(answers: Sequence[Answer], file: BinaryIO, format_: str) -> None:
    """One answer, or the difference of two, in one of `export.FLAMES`."""
    *before, after = answers
    profile = after.profile
    if format_ == "pprof":
        kind = "cpu" if after.mode == ON_CPU else "delay"
        period_ns = int(profile.weights.sum()) // max(1, int(profile.counts.sum()))
        file.write(pprof(profile, kind, time_ns=after.begin_ns, duration_ns=after.duration_ns, period_ns=period_ns))
    elif format_ == "speedscope":
        file.write(speedscope(profile, after.title))
    elif format_ == "folded" and before:
        file.writelines(f"{line}\n".encode() for line in diff_folded(before[0].profile, profile))
    elif format_ == "folded":
        sums: dict[str, int] = {}
        for number, weight in enumerate(profile.weights.tolist()):
            text = folded(profile.stack(number))
            sums[text] = sums.get(text, 0) + weight
        file.writelines(f"{text} {weight}\n".encode() for text, weight in sums.items())
    else:
        graph = diff(before[0].profile, profile) if before else profile
        title = f"{before[0].title} against {after.title}" if before else after.title
        draw = flame_svg.html if format_ == "html" else flame_svg.svg
        file.write(draw(graph, title, "; ".join(each.summary() for each in answers), counted=after.counted).encode())
