"""From a recording to a flame graph: which stacks, and what they weigh."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gotrace.analysis import windows
from gotrace.analysis.columns import Kinds, rows
from gotrace.analysis.flame import Numbers, Profile, merged
from gotrace.analysis.samples import Collector, of_stragglers
from gotrace.analysis.spans import SWITCH, Waits
from gotrace.analysis.stacks import StackTable
from gotrace.analysis.windows import Windows
from gotrace.errors import GotraceError
from gotrace.recording.reader import Recording
from gotrace.text import bytes_text, count_text, duration_text, printable


class Opener(Protocol):
    """Opens the recording; it is read ``again`` where windows have to be known first."""

    def __call__(self, *, again: bool = False) -> AbstractContextManager[Recording]: ...


ON_CPU, OFF_CPU, STRAGGLER = "on-cpu", "off-cpu", "straggler"
GOROUTINES, HEAP, CONTENTION = "goroutines", "heap", "contention"  # of what was read from the process, not of a recording
# What each needs, beside the GC events that windows are cut by.
PROBES = {ON_CPU: "profile", OFF_CPU: "offcpu", STRAGGLER: "tail"}

STOPPING, STW, MARK, ASSIST, GC, ALL = ("stopping", "stw", "mark", "assist", "gc", "all")
_ASSIST = "runtime.gcAssistAlloc"

# Events that pass as a thread runs: of several that perf took they are what a flame graph is about.
_CPU_TIME = re.compile(r"(?:[\w.]+/)?(?:cpu-clock|task-clock|cycles|cpu-cycles|cpu_cycles)(?![\w-])")
_IN_NANOSECONDS = ("cpu-clock", "task-clock")

_NAMES_SHOWN = 8

# Of more stops than these only the longest count: what is known of each is kept until the end.
MOST_STOPS = 20_000


@dataclass(frozen=True)
class Question:
    """What a flame graph is to show: the kind of stacks, from when, and (of an imported recording) of which event.

    Off the CPU threads that have no goroutine to run are shown only if they are wanted (``idle``). ``from_ns`` and
    ``to_ns`` count from the beginning of the recording, a ``to_ns`` of 0 is its end; a ``tid`` of 0 is every thread.
    """

    mode: str = ON_CPU
    window: str = ALL
    min_pause: int = 0
    event: str = ""
    idle: bool = False
    from_ns: int = 0
    to_ns: int = 0
    tid: int = 0

    def probes(self) -> list[str]:
        """What has to be recorded to answer it."""
        needs_gc = self.mode == STRAGGLER or self.window not in (ALL, ASSIST)
        return [*(["gc"] if needs_gc else []), PROBES[self.mode]]

    def words(self, event: str = "") -> str:
        """It, in a title; ``event`` is what was sampled, if not the clock."""
        what = printable(event) if event and not _CPU_TIME.match(event) else self.mode.replace("cpu", "CPU")
        when = "" if self.window == ALL else f", {self.window}"
        pauses = f", pauses of {duration_text(self.min_pause)} or more" if self.min_pause else ""
        since = f", from {duration_text(self.from_ns)}" if self.from_ns else ""
        until = f", up to {duration_text(self.to_ns)}" if self.to_ns else ""
        thread = f", thread {self.tid}" if self.tid else ""
        return f"{what}{when}{pauses}{since}{until}{thread}"

    def within(self, source: Recording, windows: Windows | None = None) -> Windows | None:
        """What of ``windows``, or else of all time, it is about; None if that is all time."""
        if not (self.from_ns or self.to_ns):
            return windows
        since = int(source.header["clock"]["begin_ns"])
        begin = since + self.from_ns if self.from_ns else 0  # the first samples may be older
        end = since + self.to_ns if self.to_ns else np.iinfo(np.int64).max
        if windows is not None:
            return windows.between(begin, end)
        return Windows(np.array([begin], np.int64), np.array([end], np.int64))


@dataclass(frozen=True)
class Answer:
    """The stacks, and what else there is to say: notes for the reader of the picture, losses among them.

    ``path`` is the recording's. ``columns`` are the numbers of each stack by type and unit, where pprof is given several;
    then ``profile`` has stacks without weight, too.
    """

    path: str
    profile: Profile
    mode: str
    title: str
    notes: list[str]
    begin_ns: int  # wall clock
    duration_ns: int
    columns: Sequence[tuple[str, str, Numbers]] = ()
    period: int = 0  # what is between two samples, in the profile's unit; 0: as many as there were tell

    @property
    def counted(self) -> str:
        """What the counts of the stacks are counts of."""
        return {ON_CPU: "samples", GOROUTINES: "goroutines", HEAP: "stacks"}.get(self.mode, "times")

    @property
    def kind(self) -> str:
        """What its weights are of, in the words of pprof."""
        return {ON_CPU: "cpu", GOROUTINES: "goroutine", HEAP: "space"}.get(self.mode, "delay")

    def summary(self) -> str:
        """How much there is of it."""
        profile = self.profile
        total = int(profile.weights.sum())
        text = {"nanoseconds": duration_text, "bytes": bytes_text}.get(profile.unit)
        weight = text(total) if text is not None else f"{total:,} {profile.unit}"
        if profile.unit == "samples":
            weight = count_text(total, "sample")
        counted = count_text(int(profile.counts.sum()), self.counted.removesuffix("s"))
        return ", ".join([f"{weight} in {count_text(len(profile), 'stack')}, from {counted}", *self.notes])


def compared(before: Answer, after: Answer) -> str:
    """The title of a difference: which recordings comes first, for a picture has no room for a long one."""
    sides = [printable(each.path) for each in (before, after)]
    names = [path.rsplit("/", 1)[-1] for path in sides]
    titles = dict.fromkeys((before.title, after.title))
    return f"{' compared with '.join(sides if names[0] == names[1] else names)}: {' and '.join(titles)}"


def require(source: Recording, question: Question) -> None:
    """Raises GotraceError if a recording lacks what an answer needs."""
    for stem in question.probes():
        # perf samples what is on a CPU, and records who leaves it
        if stem not in (PROBES[ON_CPU], PROBES[OFF_CPU]) or "perf" not in source.header["probes"]:
            source.require(stem, f"{question.mode} stacks" if stem != "gc" else "GC events, which windows need")


def answer(open_: Opener, question: Question) -> Answer:
    """The answer of a recording. Raises GotraceError if it lacks what that needs."""
    with open_() as source:
        require(source, question)
        if question.mode == STRAGGLER:
            profile, stops, unseen = _stragglers(source, question)
            return _told(source, profile, _of_stops(stops, unseen), question)
        cut = question.window not in (ALL, ASSIST)
        within = question.within(source, _windows(source, question) if cut else None)
    with open_(again=cut) as source:
        event = ""
        if question.mode == OFF_CPU and "perf" in source.header["probes"]:
            profile, notes = _waits(source, question, within)
        else:
            profile, notes, event = _sampled(source, question, within)
        if question.from_ns and (end := source.end) and question.from_ns >= end["duration_ns"]:
            notes.append(f"the recording ends at {duration_text(end['duration_ns'])}")
        elif question.tid and not len(profile):
            notes.append(f"nothing of a thread {question.tid} in it")
        elif cut and within is not None:
            notes.append(f"{count_text(len(within.begins), 'window')}, {duration_text(within.length)} in total")
        if cut and not len(profile) and question.mode == ON_CPU:
            notes.append(
                "none of the samples fall into them: sample more often (--hz 10000), or use --straggler, which does "
                "not sample"
            )
        return _told(source, profile, notes, question, event)


def stragglers_of(openers: Sequence[Opener], question: Question, path: str) -> Answer:
    """Whom the world waited for in all of these recordings, by service; ``path`` is where they are.

    One that cannot be read is counted. Raises GotraceError if there is none.
    """
    profiles: dict[str, list[Profile]] = {}
    begin_ns, stops, unseen, lost, damaged = 0, 0, 0, 0, 0
    for open_ in openers:
        try:
            with open_() as source:
                require(source, question)
                profile, seen, without = _stragglers(source, question)
                begin_ns = begin_ns or _begin_ns(source)
                lost += source.lost
                service = source.header.get("service", {}).get("service.name") or source.header["target"]["exe"]
        except (GotraceError, OSError):
            damaged += 1
            continue
        stops, unseen = stops + seen, unseen + without
        profiles.setdefault(printable(str(service)), []).append(profile)
    if not profiles:
        raise GotraceError(
            f"{printable(path)} has no recordings of pauses", "`gotrace serve --explain-above 5ms --spool DIR` keeps some"
        )
    notes = _of_stops(stops, unseen)
    notes += [f"{count_text(damaged, 'recording')} that cannot be read"] if damaged else []
    notes += [f"{count_text(lost, 'event')} lost"] if lost else []
    title = f"{', '.join(sorted(profiles)[:_NAMES_SHOWN])}: {question.words()}"
    return Answer(path, merged(profiles), question.mode, title, notes, begin_ns, 0)


def _begin_ns(source: Recording) -> int:
    clock = source.header["clock"]
    return int(clock["begin_ns"]) + int(clock["wall_offset_ns"])


def _told(source: Recording, profile: Profile, notes: list[str], question: Question, event: str = "") -> Answer:
    header = source.header
    target = header["target"]
    if source.lost:
        notes.append(f"{count_text(source.lost, 'event')} lost")
    end = source.end or {}
    name = printable(str(target["exe"]).rsplit("/", 1)[-1])
    words = question.words(event)
    title = f"{name} (pid {target['pid']}, {target['go_version']}): {words}" if target["pid"] else words
    return Answer(source.path, profile, question.mode, title, notes, _begin_ns(source), int(end.get("duration_ns", 0)))


def _windows(source: Recording, question: Question) -> Windows:
    from gotrace.probes.gc import decoder

    if question.window == STOPPING and not source.header["probes"]["gc"]["facts"]["has_worldstop"]:
        raise GotraceError(
            f"{printable(source.header['target']['go_version'])} does not record when the world had stopped (Go 1.22 and "
            "later do), so there is no such window",
            "choose --window stw, or --straggler",
        )
    decoded = decoder(source.header, source.text)
    found = []
    for chunk in source.chunks():
        batch = decoded.feed(chunk.events)
        if question.window in (MARK, GC):
            found.append(windows.of_cycles(batch.cycles, question.window == MARK))
        else:
            found.append(windows.of_pauses(batch.pauses, question.window == STOPPING, question.min_pause))
    begins, ends = (np.concatenate([each[part] for each in found] or [np.zeros(0, np.int64)]) for part in (0, 1))
    return Windows.of(begins, ends)


def _sampled(source: Recording, question: Question, within: Windows | None) -> tuple[Profile, list[str], str]:
    """The stacks, what there is to say, and the event that was sampled if it was not the clock of `gotrace`."""
    wanted_kind = "off_cpu_stack" if question.mode == OFF_CPU else "sample"
    probes = (Kinds.of_probe(source.header, stem) for stem in source.header["probes"])
    kinds = next(each for each in probes if wanted_kind in each)
    columns = kinds.columns(wanted_kind)
    stacks = StackTable(kinds.numbers("stack"), source.frames)
    collectors: dict[str, Collector] = {}
    for chunk in source.chunks():
        stacks.feed(chunk.events)
        events = kinds.of(chunk.events, wanted_kind)
        times = events["time_ns"].astype(np.int64)
        if question.mode == OFF_CPU:
            began = events["off_ns"].astype(np.int64)
            weights = times - began if within is None else within.overlap(began, times)
            wanted = weights > 0
        else:
            weights = events["period_ns" if "period_ns" in columns else "period"].astype(np.int64)
            wanted = np.ones(len(events), bool) if within is None else within.contain(times)
        if question.tid:
            wanted = wanted & (events["tid"] == question.tid)
        events, weights = rows(events, wanted), weights[wanted]
        kernel = events["kernel_stack"] if "kernel_stack" in columns else np.zeros(len(events), np.uint64)
        for number in np.unique(events["event"]).tolist() if "event" in columns else [None]:
            of_it = slice(None) if number is None else events["event"] == number
            name = source.header.get("sampled", "") if number is None else source.text_of(number)
            collectors.setdefault(name, Collector(stacks)).add(events["stack"][of_it], kernel[of_it], weights[of_it])
    if question.event not in ("", *collectors):
        known = ", ".join(map(printable, filter(None, collectors))) or "unnamed samples"
        raise GotraceError(f"no samples of the event {printable(question.event)!r}", f"the recording has {known or 'none'}")
    most = max(collectors, key=lambda name: (bool(_CPU_TIME.match(name)), collectors[name].count), default="")
    chosen = question.event or most
    collector = collectors.get(chosen, Collector(stacks))
    notes = [f"event {printable(chosen)}"] if chosen else []
    others = {name: each.count for name, each in collectors.items() if name != chosen}
    if others and not question.event:
        notes.append(f"left out: samples of {_listed(others)} (--event chooses)")
    unit = "nanoseconds" if not chosen or chosen.startswith(_IN_NANOSECONDS) else printable(chosen)
    if "event" in columns and (not chosen or collector.weight == collector.count):
        # perf did not print what a sample stands for, or of what
        unit = "samples" if collector.weight == collector.count else "events"
        chosen = chosen or "an unnamed event"
    shown_idle = question.idle or question.mode != OFF_CPU
    profile = collector.profile(unit, _ASSIST if question.window == ASSIST else "", shown_idle)
    if collector.left_out:
        notes.append(_without_idle(collector))
    return profile, notes, chosen


def _listed(counts: dict[str, int]) -> str:
    """Names with their numbers, the largest first."""
    order = sorted(counts, key=lambda name: -counts[name])
    shown = [f"{printable(name) or 'an unnamed event'} ({counts[name]:,})" for name in order[:_NAMES_SHOWN]]
    rest = [f"{len(order) - _NAMES_SHOWN} more events ({sum(counts[name] for name in order[_NAMES_SHOWN:]):,})"]
    return ", ".join([*shown, *(rest if len(order) > _NAMES_SHOWN else [])])


def _without_idle(collector: Collector) -> str:
    return f"{duration_text(collector.left_out)} of idle threads left out (--idle shows them)"


def _waits(source: Recording, question: Question, within: Windows | None) -> tuple[Profile, list[str]]:
    """Time off the CPU, from perf's context switches."""
    kinds = Kinds.of_probe(source.header, "perf")
    stacks = StackTable(kinds.numbers("stack"), source.frames)
    waits, collector, seen = Waits(kinds, source.text_of), Collector(stacks), 0
    for chunk in source.chunks():
        stacks.feed(chunk.events)
        found = waits.feed(chunk.events)
        seen += len(found)
        if question.tid:
            found = found[found[:, 3] == question.tid]
        stack, (begin, end) = found[:, 0], found[:, 1:3].astype(np.int64).T
        weights = end - begin if within is None else within.overlap(begin, end)
        wanted = weights > 0
        collector.add(stack[wanted], np.zeros(int(wanted.sum()), np.uint64), weights[wanted])
    if not seen:
        partial = ((source.end or {}).get("perf") or {}).get("partial", [])
        reason = f"none of its {count_text(waits.open, 'context switch', 'context switches')} has both ends"
        if SWITCH in partial:
            reason = "perf recorded only some of the context switches"
        elif not waits.open:
            reason = "perf recorded no context switches"
        raise GotraceError(
            f"{printable(source.path)} has no off-cpu stacks: {reason}",
            f"record them all, on all CPUs (perf record -a -g -c 1 -e {SWITCH}), and import with --pid or --comm",
        )
    profile = collector.profile("nanoseconds", _ASSIST if question.window == ASSIST else "", question.idle)
    notes = [f"from {SWITCH}"]
    if waits.open:
        notes.append(f"{count_text(waits.open, 'wait')} without an end left out")
    if collector.left_out:
        notes.append(_without_idle(collector))
    return profile, notes


def _of_stops(stops: int, unseen: int) -> list[str]:
    notes = [count_text(stops, "pause")]
    if stops > MOST_STOPS:
        notes.append(f"only the longest {MOST_STOPS} are shown: --min-pause filters out short ones")
    if unseen:
        notes.append(f"{unseen} of them not seen completely, so not shown")
    return notes


def _stragglers(source: Recording, question: Question) -> tuple[Profile, int, int]:
    """The stacks, how many pauses there were, and how many of them without whole evidence."""
    from gotrace.probes.gc import decoder
    from gotrace.probes.tail import explainer

    decoded, told = decoder(source.header, source.text), explainer(source.header, source.frames, source.place, MOST_STOPS)
    within, stops = question.within(source), 0
    for chunk in source.chunks():
        pauses = decoded.feed(chunk.events).pauses
        wanted = pauses["total_ns"] >= question.min_pause
        if within is not None:
            wanted &= within.contain(pauses["start_ns"])
        pauses = rows(pauses, wanted)
        stops += len(pauses)
        told.feed(chunk.events, pauses)
    return of_stragglers(told.longest(), told.stacks, question.window == STOPPING), stops, told.without_evidence
