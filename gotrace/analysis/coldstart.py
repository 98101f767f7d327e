"""From the events of the probe `coldstart` to rows: what each part of a start took, and what held it up.

A start is cut at its boundaries; each piece belongs to the part that begins with it, so pieces follow one another without a
gap. How the pieces are called is all that differs between them.
"""

from __future__ import annotations

import itertools
import os.path
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from gotrace.analysis import timeline
from gotrace.analysis.columns import Array, Kinds, text_of
from gotrace.analysis.cpu_time import Changes, Wait, Waits, changes_of
from gotrace.analysis.pauses import TRIGGERS
from gotrace.analysis.timeline import FirstGc, Row, Start, Starter, added
from gotrace.text import bytes_text, count_text

BETWEEN, _TO_LISTEN = "between packages", "to its first listen"
_HALVES = "The kernel did not report the end of {}: each is counted up to the thread's next event."
_ENTRY_UNSEEN = "The kernel did not report when execve began: all times count from the moment it had loaded the program."
_COPY = (
    "It was not the file itself but a copy of it, by its name and size: no probes are in that, so that "
    "only what the kernel shows of it is known."
)
# A cgroup that was made longer ago was not made for this start.
_CGROUP_NS = 60_000_000_000
_LOW = 0xFFFFFFFF
_OF_EXEC = ("exec", "exec_wait", "starter", "cgroup")  # reported by a thread at a time that is not theirs
_IN_PROGRAM = ("linker_entry", "linker_state", "entry", "step", "init", "gc_begin", "gc_end")

# What ended a start: the program was replaced by another, or by itself, which begins the next start.
REPLACED, ITSELF, STARTING = "another execve", "executed itself", "still starting"


class Sums(NamedTuple):
    """Running sums of a process since execve's entry."""

    minor_faults: int = 0
    major_faults: int = 0
    pages: int = 0


@dataclass
class Mark:
    """A boundary: what begins here, and what the sums were."""

    time_ns: int
    sums: Sums
    stage: str
    name: str
    function: str = ""
    heap: int = 0
    detail: str = ""


@dataclass
class _Open:
    """A file that the dynamic linker opened, or tried to; ``mapped`` is how many bytes of it."""

    mark: Mark
    succeeded: bool
    path: bytes = b""
    mapped: int = 0


@dataclass(frozen=True)
class Until:
    """What a start is over at, if it does not end before: "main", "listen", "first-gc", "" (its exit), and a time or 0."""

    what: str = ""
    ns: int = 0


class Decoder:
    """Collects events by process. `feed` them as they come, and `close` at the end.

    ``kinds`` are the probe's, ``points`` the boundaries by link-time address as (name, the
    function it is in), ``functions`` the init functions' names by address, ``loaded`` says what the kernel maps.
    """

    def __init__(
        self,
        kinds: Kinds,
        points: Mapping[int, tuple[str, str]],
        functions: Mapping[int, str],
        until: Until,
        loaded: str = "",
    ) -> None:
        self._kinds = kinds
        self._points, self._functions, self._until, self._loaded = points, functions, until, loaded
        self._ends = kinds.numbers("exited", "replaced")
        if until.what in ("listen", "first-gc"):
            self._ends.append(kinds.number("listen" if until.what == "listen" else "gc_end"))
        self._open: dict[int, list[Array]] = {}
        self._ending: set[int] = set()

    def feed(self, events: Array, now_ns: int = 0) -> list[Start]:
        """The starts that are over by what came before; ``now_ns`` (CLOCK_MONOTONIC) is when ``events`` were read."""
        # One read later, for another CPU's last events may come behind the end.
        done = [start for tgid in sorted(self._ending) for start in self._take(tgid, now_ns)]
        self._ending.clear()
        mine = events[self._kinds.ours(events)]
        # The first column of every kind has the process in its lower half.
        tgids = (self._kinds.named(mine, "exec")["process"] & np.uint64(_LOW)).astype(np.int64)
        for tgid in np.unique(tgids).tolist():
            chunk = mine[tgids == tgid]
            if tgid not in self._open and not np.any(chunk["kind"] == self._kinds.number("exec")):
                continue  # behind its end
            self._open.setdefault(tgid, []).append(chunk)
            if self._is_over(chunk):
                self._ending.add(tgid)
        if self._until.ns and now_ns:
            self._ending |= {tgid for tgid, chunks in self._open.items() if self._is_late(chunks[0], now_ns)}
        return done

    def _is_over(self, chunk: Array) -> bool:
        """Whether what ends a start is in it, but for the time."""
        if np.any(np.isin(chunk["kind"], self._ends)):
            return True
        steps = self._kinds.of(chunk, "step")["address"].tolist()
        return self._until.what == "main" and any(self._points.get(at, ("",))[0] == "main.main" for at in steps)

    @property
    def under_way(self) -> bool:
        """Whether there is a start whose end was not seen."""
        return bool(self._open)

    def close(self, now_ns: int) -> list[Start]:
        """The rest: starts that were not over when tracing ended, at ``now_ns``."""
        return [start for tgid in sorted(self._open) for start in self._take(tgid, now_ns, closing=True)]

    def _take(self, tgid: int, now_ns: int, closing: bool = False) -> list[Start]:
        chunks = self._open.pop(tgid, [])
        if not chunks:
            return []
        events = np.concatenate(chunks)
        events = events[np.argsort(events["time_ns"], kind="stable")]
        begins = np.flatnonzero(events["kind"] == self._kinds.number("exec"))
        # A process may execute the file again, or its number be given to another.
        parts = np.split(events, begins)[1:]
        kept = (
            [] if closing else [part for part in parts[-1:] if not self._is_over(part) and not self._is_late(part, now_ns)]
        )
        if kept:
            self._open[tgid] = kept
        starts = [self._start(tgid, part, now_ns) for part in parts[: len(parts) - len(kept)]]
        following = [int(part["time_ns"][0]) for part in parts[1:]]
        for number, (start, exec_ns) in enumerate(zip(starts, following, strict=False)):
            if start.ended == REPLACED and start.exec_ns + start.total_ns == exec_ns:
                starts[number] = replace(start, ended=ITSELF)
        return starts

    def _is_late(self, chunk: Array, now_ns: int) -> bool:
        return bool(self._until.ns) and now_ns - int(chunk["time_ns"][0]) > self._until.ns

    def _set_back(self, events: Array) -> Array:
        """The events with the boundaries at which a thread had to leave the CPU first at the time when it reached them.

        The kernel looks for other work between a breakpoint and our program, so what the thread then waited would count to
        the part before the boundary. Where it was when it left tells: at the boundary's own instruction. At the end of a
        package it counts to that package, as it does by the runtime's own clock (GODEBUG=inittrace=1).
        """
        entries = self._kinds.of(events, "entry")["pc"].tolist()
        bias = entries[0] - next((at for at, (name, _) in self._points.items() if name == "entry"), 0) if entries else 0
        addresses = {at + bias for at in self._points}
        times = events["time_ns"].copy()
        at_breakpoint: dict[int, tuple[int, int]] = {}
        for number, (name, _, tid, _, of) in enumerate(self._kinds.each(events)):
            if name == "cpu_off":
                at_breakpoint[tid] = (number, of["pc"])
            elif name in _IN_PROGRAM and tid in at_breakpoint:
                left, pc = at_breakpoint.pop(tid)
                # on x86-64 it is behind the breakpoint, which is a byte long
                known = {of["pc"]} if name.startswith(("linker", "entry")) else addresses
                ends_package = name == "init" and of["place"] & _LOW >= of["place"] >> 32
                if (pc in known or pc - 1 in known) and not ends_package:
                    times[number] = times[left]
            elif name != "cpu_on":
                at_breakpoint.pop(tid, None)
        moved = events.copy()
        moved["time_ns"] = times
        # Of one time the leaving comes last: it is behind the boundary.
        leaving = moved["kind"] == self._kinds.number("cpu_off")
        in_order: Array = moved[np.lexsort((np.arange(len(moved)), leaving, times))]
        return in_order

    def _start(self, tgid: int, events: Array, now_ns: int) -> Start:
        events = self._set_back(events)
        walk = _Walk(self._points, self._functions, self._until, self._loaded)
        switches = np.isin(events["kind"], self._kinds.numbers("cpu_off", "cpu_on"))
        for name, time_ns, _, _, of in self._kinds.each(events[~switches]):
            if not walk.take(name, time_ns, of):
                break
        end_ns = walk.end_ns or max(int(events["time_ns"][-1]), now_ns)
        if self._until.ns and end_ns > walk.enter_ns + self._until.ns:
            end_ns = walk.enter_ns + self._until.ns
            walk.ended = "the requested time"
        of_exec = [name for name in _OF_EXEC if name in self._kinds]
        by_thread = events[~np.isin(events["kind"], self._kinds.numbers(*of_exec))]
        changes = changes_of(by_thread, self._kinds, tgid)
        start = walk.start(tgid, end_ns, changes)
        in_program = np.isin(events["kind"], self._kinds.numbers(*_IN_PROGRAM))
        hits = int(np.count_nonzero(in_program))
        return replace(start, hits=hits, kernel_hits=len(events) - hits + sum(walk.sums))


class _Walk:
    """One start, event by event."""

    def __init__(
        self, points: Mapping[int, tuple[str, str]], functions: Mapping[int, str], until: Until, loaded: str
    ) -> None:
        self._points, self._functions, self._until, self._loaded = points, functions, until, loaded
        with_c = ("entry", timeline.C_START) in points.values()
        self._entry = timeline.C_START if with_c else "entry"
        self._has_steps = any(symbol == "runtime.schedinit" for _, symbol in points.values())
        self.enter_ns = self.exec_ns = self.end_ns = 0
        self.ended = STARTING
        self.marks: list[Mark] = []
        self.sums = self._before_sums = Sums()
        self._waited = Wait(0, 0, None)
        self._notes: list[str] = []  # none, or that it was a copy
        self._starter: Starter | None = None
        self._run_ns = 0
        self._before: list[tuple[str, int, int]] = []
        self._seen: set[int] = set()
        self._package = ""
        self._opens: list[_Open] = []
        self._first_state: Mark | None = None
        self._last_close: Mark | None = None
        self._listen_ns: int | None = None
        self._ready_ns: int | None = None
        self._exit_code: int | None = None
        self._gc: FirstGc | None = None
        self._gc_clock: dict[str, int] = {}
        self._collected_ns: list[tuple[int, int]] = []  # when collections took from the live heap

    def take(self, kind: str, time_ns: int, of: dict[str, int]) -> bool:
        """False when the start is over with it. ``of`` are the event's columns."""
        handler = getattr(self, f"_on_{kind}", None)
        if self._stage() == timeline.UNDIVIDED and kind in ("open", "map", "close"):
            handler = None  # not by its dynamic linker alone
        if "faults" in of:  # every boundary carries the sums; a name and the runtime's clock belong to another
            self._before_sums = self.sums
            self.sums = Sums(of["faults"] & _LOW, of["faults"] >> 32, of["process"] >> 32)
        if handler is not None:
            handler(time_ns, of)
        return not self.end_ns

    def _mark(self, time_ns: int, stage: str, name: str, function: str = "", heap: int = 0) -> Mark:
        self.marks.append(Mark(time_ns, self.sums, stage, name, function, heap))
        return self.marks[-1]

    def _over(self, time_ns: int, ended: str) -> None:
        self.end_ns, self.ended = time_ns, ended

    # exec

    def _on_exec(self, time_ns: int, of: dict[str, int]) -> None:
        enter_ns, fork_ns = of["enter_ns"], of["fork_ns"]
        self.enter_ns, self.exec_ns = enter_ns, time_ns
        self.marks.append(Mark(enter_ns, Sums(), timeline.EXEC, "loading the program", detail=self._loaded))
        if of.get("copy"):
            self._notes.append(_COPY)
            self._mark(time_ns, timeline.UNDIVIDED, "to its first listen")
        else:
            self._mark(time_ns, timeline.EXEC, "to its first instruction")
        if fork_ns:
            self._before.append(("fork to execve", fork_ns, enter_ns))

    def _on_exec_wait(self, _: int, of: dict[str, int]) -> None:
        self._waited = Wait(of["runnable_ns"], of["blocked_ns"], of.get("throttled_ns"))

    def _on_starter(self, _: int, of: dict[str, int]) -> None:
        self._run_ns = of["run_ns"]
        if pid := of["process"] >> 32:
            self._starter = Starter(pid, text_of(of["name_low"], of["name_high"]).decode("utf-8", "replace"))

    def _on_cgroup(self, _: int, of: dict[str, int]) -> None:
        made_ns, attach_ns = of["made_ns"], of["attach_ns"]
        made = made_ns and self.enter_ns - made_ns < _CGROUP_NS
        attached = attach_ns and self.enter_ns - attach_ns < _CGROUP_NS
        if made:
            self._before.append(("cgroup created", made_ns, attach_ns if attached else self.enter_ns))
        if attached:
            self._before.append(("moved into its cgroup, to execve", attach_ns, self.enter_ns))

    # the dynamic linker

    def _on_linker_entry(self, time_ns: int, _: dict[str, int]) -> None:
        self._mark(time_ns, timeline.LINKER, "start-up")

    def _on_linker_state(self, time_ns: int, _: dict[str, int]) -> None:
        mark = self._mark(time_ns, timeline.LINKER, "constructors")
        self._first_state = self._first_state or mark

    def _on_open(self, _: int, of: dict[str, int]) -> None:
        mark = Mark(max(of["begin_ns"], self.marks[-1].time_ns), self._before_sums, timeline.LINKER, "")
        self.marks.append(mark)
        self._opens.append(_Open(mark, not of["result"] >> 63))

    def _on_name(self, _: int, of: dict[str, int]) -> None:
        if self._opens:
            self._opens[-1].path += text_of(*(of[f"name{number}"] for number in range(4)))

    def _on_map(self, _: int, of: dict[str, int]) -> None:
        if self._opens and not self._opens[-1].mapped:
            self._opens[-1].mapped = of["bytes"]  # the first has the whole span

    def _on_close(self, time_ns: int, _: dict[str, int]) -> None:
        if self._opens:
            self._last_close = self._mark(time_ns, timeline.LINKER, "between libraries")

    def _name_libraries(self) -> None:
        """Give what was opened its name; tries in vain belong to the library that is then found, if it is."""
        for _, group in itertools.groupby(self._opens, lambda each: os.path.basename(each.path)):
            opens = list(group)
            while opens:
                found = next((number for number, each in enumerate(opens) if each.succeeded), len(opens) - 1)
                tries, opens = opens[: found + 1], opens[found + 1 :]
                first, last = tries[0].mark, tries[-1]
                path = last.path.decode("utf-8", "replace")
                failed = len(tries) - last.succeeded
                details = [count_text(failed, "failed attempt")] if failed else []
                details += [f"{bytes_text(last.mapped)} mapped"] if last.mapped else []
                first.name = path if last.succeeded else f"{os.path.basename(path)}, not found"
                first.detail = ", ".join(details)
                dropped = [each.mark for each in tries[1:]]
                self.marks = [mark for mark in self.marks if not any(mark is each for each in dropped)]

    def _on_entry(self, time_ns: int, _: dict[str, int]) -> None:
        states = [mark for mark in self.marks if mark.name == "constructors"]
        for mark in states[:-1]:
            mark.name = "between libraries"
        if len(states) == 1:  # musl runs constructors later
            states[0].name = "to the program"
        # From the last library, or where there is none from the first state, to the last: the libraries are relocated.
        last = self._last_close or (states[0] if len(states) > 1 else None)
        if last is not None and states and last.time_ns < states[-1].time_ns:
            last.name = "relocation"
        self._mark(time_ns, timeline.BOOTSTRAP, self._entry if self._has_steps else "not broken down (low detail)")

    # the program

    def _on_step(self, time_ns: int, of: dict[str, int]) -> None:
        address = of["address"]
        name, _symbol = self._points.get(address, ("", ""))
        if not name or address in self._seen or self._stage() == timeline.PROGRAM:
            return
        self._seen.add(address)
        short = name.removeprefix("runtime.")
        if name == "main.main":
            for mark in reversed(self.marks):
                if mark.name == BETWEEN:
                    mark.name = "to main.main"
                    break
            self._mark(time_ns, timeline.PROGRAM, _TO_LISTEN)
            if self._until.what == "main":
                self._over(time_ns, "main.main")
        elif name == "runtime.main":
            self._mark(time_ns, timeline.MAIN, "to its first init")
        elif self._stage() == timeline.MAIN:
            self._mark(time_ns, timeline.MAIN, short)
        else:
            self._mark(time_ns, timeline.BOOTSTRAP, short)

    def _stage(self) -> str:
        return self.marks[-1].stage if self.marks else ""

    def _on_init(self, time_ns: int, of: dict[str, int]) -> None:
        if self._stage() == timeline.PROGRAM:
            return  # a plugin's
        function, heap = of["function"], of["heap_bytes"]
        index, count = of["place"] & _LOW, of["place"] >> 32
        if index >= count:
            self._mark(time_ns, timeline.MAIN, BETWEEN, heap=heap)
            return
        name = self._functions.get(function, f"{function:#x}")
        if index == 0:
            self._package = package_of(name)
        self._mark(time_ns, timeline.MAIN, self._package, name, heap)

    def _on_gc_begin(self, time_ns: int, of: dict[str, int]) -> None:
        at, trigger = time_ns - self.enter_ns, of["trigger"]
        name = TRIGGERS[trigger] if trigger < len(TRIGGERS) else "unknown"
        self._gc = FirstGc(at, at, None, name, (), of["heap_bytes"] or None)

    def _on_gc_clock(self, _: int, of: dict[str, int]) -> None:
        self._gc_clock = of

    def _on_gc_end(self, time_ns: int, _: dict[str, int]) -> None:
        if self._gc is not None and self._gc.end_ns is not None:
            self._collected_ns.append((time_ns, time_ns))
        elif self._gc is not None:
            sweep_term, mark, mark_term, end = (
                self._gc_clock.get(name, 0) for name in ("sweep_term", "mark", "mark_term", "end")
            )
            begin, ended = sweep_term - self.enter_ns, time_ns - self.enter_ns
            if not self._gc.asked_ns <= begin <= ended:  # in a time namespace the program's clock is another
                begin = self._gc.begin_ns
            pauses = (mark - sweep_term, end - mark_term) if end else ()
            self._gc = replace(self._gc, begin_ns=begin, end_ns=ended, pauses_ns=pauses)
            self._collected_ns.append((mark_term if self.enter_ns < mark_term <= time_ns else time_ns, time_ns))
        if self._until.what == "first-gc":
            self._over(time_ns, "the first GC")

    def _on_listen(self, time_ns: int, _: dict[str, int]) -> None:
        self._listen_ns = time_ns - self.enter_ns
        self._mark(time_ns, timeline.PROGRAM, "listening")
        if self._until.what == "listen":
            self._over(time_ns, "listen")

    def _on_accept(self, time_ns: int, _: dict[str, int]) -> None:
        self._ready_ns = time_ns - self.enter_ns
        self._mark(time_ns, timeline.PROGRAM, "serving")

    def _on_exited(self, time_ns: int, of: dict[str, int]) -> None:
        status = of["status"]
        signal = status & 0x7F
        self._exit_code = 128 + signal if signal else status >> 8 & 0xFF
        self._over(time_ns, f"killed by signal {signal}" if signal else f"exit {self._exit_code}")

    def _on_replaced(self, time_ns: int, _: dict[str, int]) -> None:
        self._over(time_ns, REPLACED)

    # rows

    def start(self, tgid: int, end_ns: int, changes: Changes) -> Start:
        """Everything that was seen up to ``end_ns``, with the process's time on and off the CPU."""
        self._name_libraries()
        marks = [mark for mark in self.marks if mark.time_ns < end_ns or mark is self.marks[0]]
        for mark in marks:
            if mark.name == _TO_LISTEN and self._listen_ns is None:
                mark.name = "to its end"
        if marks[-1].stage not in (timeline.PROGRAM, timeline.UNDIVIDED) and all(
            mark.time_ns != end_ns for mark in self.marks
        ):
            marks[-1].detail = ", ".join(filter(None, (marks[-1].detail, timeline.UNDER_WAY)))
        end = Mark(end_ns, self.sums, "", "")
        main_ns = next((mark.time_ns for mark in marks if mark.stage == timeline.PROGRAM), end_ns)
        waits = (Waits(changes, tgid, self.exec_ns, end_ns), Waits(changes, None, self.exec_ns, end_ns))
        pieces = []
        for mark, following in zip(marks, [*marks[1:], end], strict=True):
            waited = (
                self._waited
                if mark is marks[0]
                else waits[mark.time_ns >= main_ns].between(mark.time_ns, following.time_ns)
            )
            pieces.append(self._piece(mark, following, waited))
        rows = [*self._rows_before(), *_with_parents(pieces)]
        total = end_ns - self.enter_ns
        attributed = sum(row.duration_ns for row in rows if row.depth == 0 and row.stage != timeline.BEFORE)
        notes = self._notes + ([_ENTRY_UNSEEN] if self.enter_ns == self.exec_ns else [])
        if changes.halves:
            notes.append(_HALVES.format(count_text(changes.halves, "off-CPU period")))
        return Start(
            pid=tgid,
            exec_ns=self.enter_ns,
            total_ns=total,
            ended=self.ended,
            rows=tuple(rows),
            unattributed_ns=total - attributed,
            listen_ns=self._listen_ns,
            ready_ns=self._ready_ns,
            exit_code=self._exit_code,
            gc=self._gc,
            notes=tuple(notes),
            starter=self._starter,
            run_ns=self._run_ns,
        )

    def _rows_before(self) -> Iterator[Row]:
        if not self._before:
            return
        rows = [
            Row(timeline.BEFORE, name, 1, begin - self.enter_ns, end - begin, 0, 0, 0, 0, 0)
            for name, begin, end in sorted(self._before, key=lambda each: each[1])
        ]
        first = rows[0].begin_ns
        yield Row(timeline.BEFORE, "", 0, first, -first, 0, 0, 0, 0, 0)
        yield from rows

    def _piece(self, mark: Mark, following: Mark, waited: Wait) -> Row:
        heap = None
        if mark.heap and following.heap:
            grown = following.heap - mark.heap
            swept = any(first < following.time_ns and last >= mark.time_ns for first, last in self._collected_ns)
            heap = None if swept or grown <= -timeline.HEAP_KNOWN_FROM else grown
        return Row(
            stage=mark.stage,
            name=mark.function or mark.name,
            depth=2 if mark.function else 1,
            begin_ns=mark.time_ns - self.enter_ns,
            duration_ns=following.time_ns - mark.time_ns,
            runnable_ns=waited.runnable,
            blocked_ns=waited.blocked,
            minor_faults=following.sums.minor_faults - mark.sums.minor_faults,
            major_faults=following.sums.major_faults - mark.sums.major_faults,
            pages_read=following.sums.pages - mark.sums.pages,
            heap_bytes=heap,
            detail=mark.detail,
            throttled_ns=waited.throttled,
        )


def package_of(function: str) -> str:
    """The package of a function by its name, as inittrace gives it: example.com/a%2eb.init.0 -> example.com/a%2eb."""
    folder, slash, last = function.rpartition("/")
    return folder + slash + last.split(".", 1)[0]


def _with_parents(pieces: list[Row]) -> Iterator[Row]:
    """The pieces with the package and the stage they belong to before them."""
    grouped: list[tuple[str, list[Row]]] = []
    for piece in pieces:
        if not grouped or grouped[-1][0] != piece.stage:
            grouped.append((piece.stage, []))
        grouped[-1][1].append(piece)
    for _, parts in grouped:
        yield added(parts, "", 0)
        at = 0
        while at < len(parts):
            if parts[at].depth == 1:
                yield parts[at]
                at += 1
                continue
            package = package_of(parts[at].name)
            end = at
            while end < len(parts) and parts[end].depth == 2 and package_of(parts[end].name) == package:
                end += 1
            yield added(parts[at:end], package, 1, parts[end - 1].detail)
            yield from parts[at:end]
            at = end
