"""What the Go runtime prints and counts itself, in a form to compare with."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

_LINE = re.compile(
    r"^gc (?P<cycle>\d+) @[\d.]+s \d+%(?: \(checking for goroutine leaks\))?: "
    r"(?P<clock>[\d.]+(?:\+[\d.]+){2}) ms clock, (?P<cpu>[\d.]+\+[\d.]+(?:/[\d.]+){2}\+[\d.]+) ms cpu, "
    r"(?P<heap>\d+->\d+->\d+) MB, (?P<goal>\d+) MB goal, (?:\d+ MB stacks, \d+ MB globals, )?"
    r"(?P<procs>\d+) P(?P<forced> \(forced\))?$"
)


@dataclass(frozen=True)
class GcTrace:
    """One line of GODEBUG=gctrace=1, its numbers as they are printed."""

    cycle: int
    clock: tuple[str, ...]
    assist_cpu: str
    heap: tuple[str, ...]
    goal: str
    procs: int
    forced: bool


def gctrace(text: str) -> dict[int, GcTrace]:
    """cycle -> its line; lines torn by other output are left out."""
    out = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            cpu = re.split(r"[+/]", match["cpu"])
            heap = tuple(match["heap"].split("->"))
            clock = tuple(match["clock"].split("+"))
            number = int(match["cycle"])
            forced = bool(match["forced"])
            out[number] = GcTrace(number, clock, cpu[1], heap, match["goal"], int(match["procs"]), forced)
    return out


def render_ms(ns: int) -> str:
    """Nanoseconds as gctrace prints them (runtime.fmtNSAsMS): two digits, cut off, at most three decimals."""
    if ns >= 10_000_000:
        return str(ns // 1_000_000)
    value, decimals = ns // 1000, 3
    if value == 0:
        return "0"
    while value >= 100:
        value //= 10
        decimals -= 1
    text = str(value).rjust(decimals + 1, "0")
    return f"{text[: len(text) - decimals]}.{text[len(text) - decimals :]}" if decimals else text


def render_mib(size: int) -> str:
    return str(size >> 20)


def rendered(cycle: dict[str, Any]) -> GcTrace:
    """One of our cycle records as the line gctrace would have printed."""
    clocks = ("sweep_termination_ns", "mark_ns", "mark_termination_ns")
    heaps = ("heap_start_bytes", "heap_end_bytes", "heap_live_bytes")
    return GcTrace(
        cycle["cycle"],
        tuple(render_ms(cycle[name]) for name in clocks),
        render_ms(cycle["assist_ns"]),
        tuple(render_mib(cycle[name]) for name in heaps),
        render_mib(cycle["heap_goal_bytes"]),
        cycle["maxprocs"],
        cycle["trigger"] == "forced",
    )


def bucket_counts(buckets: list[float], values_ns: Iterable[int]) -> np.ndarray[Any, Any]:
    """How many of ``values_ns`` fall into each bucket of a runtime/metrics histogram (bounds in seconds)."""
    bounds = np.array([-np.inf, *np.round(np.array(buckets[1:-1]) * 1e9), np.inf])
    places = np.searchsorted(bounds, np.array(list(values_ns), dtype=float), side="right") - 1
    return np.bincount(places, minlength=len(buckets) - 1)


class Timeline:
    """What Perfetto's own descriptors read in a trace: slices and counters by the name of their track."""

    def __init__(self, path):
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

        trace = pb.Trace.FromString(path.read_bytes())
        self.tracks, self.slices, self.counters = {}, defaultdict(list), defaultdict(list)
        self.clocks, self.parents, self.instants = {}, {}, defaultdict(list)
        events = []
        for packet in trace.packet:
            assert packet.trusted_packet_sequence_id == 1
            # every number we gave a field is one that Perfetto knows, with the type it has there
            assert pb.TracePacket.FromString(packet.SerializeToString()) == packet
            assert not self.unknown(packet)
            if packet.HasField("clock_snapshot"):
                self.clocks = {clock.clock_id: clock.timestamp for clock in packet.clock_snapshot.clocks}
                assert packet.clock_snapshot.primary_trace_clock == pb.BUILTIN_CLOCK_MONOTONIC
            elif packet.HasField("track_descriptor"):
                told = packet.track_descriptor
                self.parents[told.uuid] = told.parent_uuid
                self.tracks[told.uuid] = (
                    told.name
                    or (told.HasField("thread") and f"thread {told.thread.tid}")
                    or f"process {told.process.pid} {told.process.process_name}"
                )
            elif packet.HasField("track_event"):
                events.append(packet)
            else:
                assert packet.trace_packet_defaults.timestamp_clock_id == pb.BUILTIN_CLOCK_MONOTONIC
        events.sort(key=lambda packet: packet.timestamp)  # stable, as trace_processor does
        open_ = defaultdict(list)
        for packet in events:
            event = packet.track_event
            track = self.tracks[event.track_uuid]
            if event.type == pb.TrackEvent.TYPE_COUNTER:
                self.counters[track].append((packet.timestamp, event.counter_value))
            elif event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
                about = {
                    a.name: a.int_value if a.HasField("int_value") else a.string_value for a in event.debug_annotations
                }
                open_[track].append((event.name, packet.timestamp, len(open_[track]), about))
            elif event.type == pb.TrackEvent.TYPE_INSTANT:
                self.instants[track].append((event.name, packet.timestamp))
            else:
                assert event.type == pb.TrackEvent.TYPE_SLICE_END
                name, begin, depth, about = open_[track].pop()
                self.slices[track].append((name, begin, packet.timestamp, depth, about))
        assert not any(open_.values())

    @classmethod
    def unknown(cls, message):
        """Whether a field's number is in no descriptor, anywhere in the message."""
        from google.protobuf import unknown_fields

        if len(unknown_fields.UnknownFieldSet(message)):
            return True
        parts = [value for field, value in message.ListFields() if field.type == field.TYPE_MESSAGE]
        return any(cls.unknown(each) for part in parts for each in (part if hasattr(part, "append") else [part]))


def pause_of(truth, cycle):
    return truth["PauseNs"][(cycle + 255) % 256]


def check_against_runtime(tracer, truth, log, load):
    """Pauses bit for bit, cycles at gctrace's printed precision, nothing lost."""
    cycles = {record["cycle"]: record for record in tracer.of("cycle")}
    by_cycle = defaultdict(int)
    for stop in tracer.of("stw"):
        if stop["cycle"] is not None:
            assert stop["clock"] == "runtime"
            by_cycle[stop["cycle"]] += stop["total_ns"]
        if stop["stopping_ns"] is not None:
            assert stop["stopping_ns"] + stop["stopped_ns"] == stop["total_ns"]
    last = truth["NumGC"]
    for cycle in range(max(min(cycles) + 1, last - 255), last + 1):
        assert by_cycle[cycle] == pause_of(truth, cycle), f"cycle {cycle}"
        assert cycles[cycle]["pause_ns"] == pause_of(truth, cycle)

    window = [number for number in log if number >= min(cycles)]
    matched = [number for number in window if number in cycles]
    assert len(window) >= load.collections - 50
    assert len(matched) >= 0.999 * len(window)
    for number in matched:
        ours, theirs = rendered(cycles[number]), log[number]
        if theirs.forced and not ours.forced and number + 1 in log:
            # gctrace reads work.userForced late: a runtime.GC that waits for this cycle's end has set it already.
            assert cycles[number + 1]["trigger"] == "forced"
            theirs = dataclasses.replace(theirs, forced=False)
        assert ours == theirs
    assert tracer.records[-1]["events"]["lost"] == 0
    assert tracer.records[-1]["not_seen"] == {"libraries": [], "cycles": 0, "children": []}


def collector_pauses_ns(reasons: Iterable[dict[str, Any]]) -> int:
    """What the collector's pauses come to, in the reasons that the agent gives of a process."""
    return sum(each["sum_ns"] for each in reasons if each["part"] == "total" and each["reason"].startswith("GC "))


def probed_code(pid: int, where: str) -> list[bytes]:
    """The instructions at each place gotrace probes in this process, in its memory ("mem") or in its file ("exe")."""
    from gotrace.binary.program import GoProgram
    from gotrace.probes import gc

    with GoProgram.open(f"/proc/{pid}/exe") as program, open(f"/proc/{pid}/{where}", "rb", buffering=0) as file:
        place = "address" if where == "mem" else "file_offset"
        return [os.pread(file.fileno(), len(point.code), getattr(point, place)) for point in gc.plan(program).points]


def collected(lister: Any, more: int, command: str = "gc") -> int:
    """Have the program lister, a `conftest.Target`, collect so many times more: how often it says it has, in all."""
    lister.process.stdin.write(f"{command} {more}\n")
    lister.process.stdin.flush()
    return int(lister.truth()["/gc/cycles/total:gc-cycles"])
