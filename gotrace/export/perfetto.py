"""A timeline for https://ui.perfetto.dev and trace_processor: pauses, GC phases, heap, Ps and threads of one process.

The format is Perfetto's TrackEvent (https://perfetto.dev/docs/reference/synthetic-track-event): a stream of packets, each
on its own, so that it is written as it comes. The fields below are those of protos/perfetto/trace/**.proto that are used
here, with their numbers; a test compares them with the descriptors that Perfetto publishes.

Tracks: ``STW`` (each pause with its parts), ``GC`` (each cycle with its phases), ``sweep``, the counters of the heap; with
the evidence of the probe ``tail`` also every P from the request to stop to its restart, and for the threads what kept
them off the CPU and in page faults during pauses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import Kinds, text_of
from gotrace.analysis.pauses import TRIGGERS, UNKNOWN, GcDecoder
from gotrace.export.protobuf import messages
from gotrace.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Array = npt.NDArray[Any]
Record = dict[str, Any]

MESSAGES = {
    "Trace": {"packet": (1, "repeated TracePacket")},
    "TracePacket": {
        "clock_snapshot": (6, "ClockSnapshot"),
        "timestamp": (8, "uint64"),
        "trusted_packet_sequence_id": (10, "uint32"),
        "track_event": (11, "TrackEvent"),
        "sequence_flags": (13, "uint32"),
        "trace_packet_defaults": (59, "TracePacketDefaults"),
        "track_descriptor": (60, "TrackDescriptor"),
    },
    "TracePacketDefaults": {"timestamp_clock_id": (58, "uint32")},
    "ClockSnapshot": {"clocks": (1, "repeated Clock"), "primary_trace_clock": (2, "int32")},
    "Clock": {"clock_id": (1, "uint32"), "timestamp": (2, "uint64")},
    "TrackDescriptor": {
        "uuid": (1, "uint64"),
        "name": (2, "string"),
        "process": (3, "ProcessDescriptor"),
        "thread": (4, "ThreadDescriptor"),
        "parent_uuid": (5, "uint64"),
        "counter": (8, "CounterDescriptor"),
    },
    "ProcessDescriptor": {"pid": (1, "int32"), "process_name": (6, "string")},
    "ThreadDescriptor": {"pid": (1, "int32"), "tid": (2, "int32"), "thread_name": (5, "string")},
    "CounterDescriptor": {"unit": (3, "int32")},
    "TrackEvent": {
        "debug_annotations": (4, "repeated DebugAnnotation"),
        "type": (9, "int32"),
        "track_uuid": (11, "uint64"),
        "name": (23, "string"),
        "counter_value": (30, "int64"),
    },
    "DebugAnnotation": {"int_value": (4, "int64"), "string_value": (6, "string"), "name": (10, "string")},
}

# BuiltinClock in perfetto_trace.proto
_REALTIME, _MONOTONIC = 1, 3
_STATE_CLEARED = 1  # SequenceFlags.SEQ_INCREMENTAL_STATE_CLEARED
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4  # TrackEvent.Type
_BYTES = 3  # CounterDescriptor.Unit.UNIT_SIZE_BYTES

# uuids of tracks: any numbers that differ
_PROCESS, _STW, _GC, _SWEEP, _COUNTERS = 1, 2, 3, 4, 16
_THREAD, _FAULTS, _P = 1 << 32, 2 << 32, 3 << 32

_HEAP = (
    ("heap in use", "heap_start_bytes", "heap_end_bytes"),  # when a cycle begins, when its mark termination ends
    ("heap live", None, "heap_live_bytes"),
    ("heap goal", None, "heap_goal_bytes"),
)
_NO_P = (1 << 64) - 1
# why a thread left the CPU: include/linux/sched.h
_STATES = ((4, "stopped by a signal"), (8, "traced"), (2, "uninterruptible sleep"), (1, "sleep"))


class TraceFile:
    """Packets in ``file``, whose OSErrors pass through; ``clock`` is `Session.header`'s, times are CLOCK_MONOTONIC ns."""

    def __init__(self, file: BinaryIO, clock: Record) -> None:
        self._file = file
        self._types = messages("gotrace.perfetto", MESSAGES)
        self.tracks: set[int] = set()
        begin, offset = int(clock["begin_ns"]), int(clock["wall_offset_ns"])
        clocks = [
            {"clock_id": _MONOTONIC, "timestamp": begin},
            {"clock_id": _REALTIME, "timestamp": begin + offset},
        ]
        self._packet(clock_snapshot={"clocks": clocks, "primary_trace_clock": _MONOTONIC})
        self._packet(sequence_flags=_STATE_CLEARED, trace_packet_defaults={"timestamp_clock_id": _MONOTONIC})

    def slice(
        self,
        track: int,
        begin: int,
        end: int,
        name: str,
        about: dict[str, Any] | None = None,
        parts: Iterable[tuple[str, int, int]] = (),
    ) -> None:
        """A slice with those that lie within it. Where two meet, the end comes before the beginning."""
        self.begin(track, begin, name, about)
        for part, first, last in parts:
            self.begin(track, first, part)
            self.end(track, last)
        self.end(track, end)

    def begin(self, track: int, time_ns: int, name: str, about: dict[str, Any] | None = None) -> None:
        annotations = [
            {"name": key, "string_value" if isinstance(value, str) else "int_value": value}
            for key, value in (about or {}).items()
        ]
        self.event(track, time_ns, _BEGIN, name=name, debug_annotations=annotations)

    def end(self, track: int, time_ns: int) -> None:
        self.event(track, time_ns, _END)

    def mark(self, track: int, time_ns: int, name: str) -> None:
        """Something that takes no time."""
        self.event(track, time_ns, _INSTANT, name=name)

    def event(self, track: int, time_ns: int, type_: int, **fields: Any) -> None:
        """One event, with the fields of TrackEvent."""
        self._packet(timestamp=time_ns, track_event={"track_uuid": track, "type": type_, **fields})

    def describe(self, uuid: int, **fields: Any) -> None:
        """A new track, with the fields of TrackDescriptor."""
        self.tracks.add(uuid)
        self._packet(track_descriptor={"uuid": uuid, **fields})

    def _packet(self, **fields: Any) -> None:
        packet = self._types["TracePacket"](trusted_packet_sequence_id=1, **fields)
        self._file.write(self._types["Trace"](packet=[packet]).SerializeToString())


class ProcessTrace(TraceFile):
    """The trace of one process, with tracks for its threads and Ps; ``header`` is `Session.header`'s."""

    def __init__(self, file: BinaryIO, header: Record) -> None:
        super().__init__(file, header["clock"])
        self._pid = int(header["target"]["pid"])
        self._names: dict[int, str] = {}  # of threads that have a track
        name = printable(header["target"]["exe"])
        self.describe(_PROCESS, process={"pid": self._pid, "process_name": name})

    def thread(self, tid: int, name: str = "") -> int:
        """The track of a thread; its name may come later, or be another then."""
        if _THREAD + tid not in self.tracks or (name and self._names.get(tid) != name):
            self._names[tid] = name
            thread = {"pid": self._pid, "tid": tid, **({"thread_name": name} if name else {})}
            self.describe(_THREAD + tid, thread=thread, parent_uuid=_PROCESS)
        return _THREAD + tid

    def p(self, number: int) -> int:
        """The track of a P."""
        if _P + number not in self.tracks:
            self.describe(_P + number, name=f"P {number}", parent_uuid=_PROCESS)
        return _P + number


class Trace(ProcessTrace):
    """The trace of one session's GC events."""

    def __init__(self, file: BinaryIO, header: Record, decoder: GcDecoder) -> None:
        super().__init__(file, header)
        self._decoder = decoder
        self._ps: list[tuple[int, int]] = []
        self._tail = Kinds.of_probe(header, "tail") if "tail" in header["probes"] else None
        for uuid, name in ((_STW, "STW"), (_GC, "GC"), (_SWEEP, "sweep")):
            self.describe(uuid, name=name, parent_uuid=_PROCESS)
        for number, (name, _, _) in enumerate(_HEAP):
            self.describe(_COUNTERS + number, name=name, parent_uuid=_PROCESS, counter={"unit": _BYTES})

    def feed(self, events: Array) -> None:
        """Add events in the order of the ring."""
        batch = self._decoder.feed(events)
        if self._tail is not None:
            self._threads(events)
            at = self._of("p_stopped", events)
            # how 0: the P has stopped
            self._ps += [(time, p) for time, p, how in zip(at["time_ns"], at["p"], at["how"], strict=True) if how == 0]
        for pause in batch.pauses:
            self._pause(pause)
        for cycle in batch.cycles:
            self._cycle(cycle)
        for when, number, length in batch.sweeps.tolist():
            self.slice(_SWEEP, when - length, when, f"sweep of cycle {number}")

    def _pause(self, pause: Any) -> None:
        start, total = int(pause["start_ns"]), int(pause["total_ns"])
        end = start + total
        again = end + max(0, int(pause["restart_lag_ns"]))
        parts = [("stopping and stopped", start, end)]
        if pause["stopping_ns"] != UNKNOWN:
            stopped = start + int(pause["stopping_ns"])
            parts = [("stopping", start, stopped), ("stopped", stopped, end)]
        if again > end:
            parts.append(("restart", end, again))
        about = {"total_ns": total, "tid": int(pause["tid"])}
        about |= {name: int(pause[name]) for name in ("cycle", "goid") if pause[name] != UNKNOWN}
        self.slice(_STW, start, again, self._decoder.reasons[pause["reason"]], about, parts)
        for when, p in self._ps:
            if start <= when <= again and p != _NO_P:
                self.slice(self.p(p), start, again, "STW", {}, [("asked to stop", start, when), ("stopped", when, again)])
        self._ps = [(when, p) for when, p in self._ps if when > again]

    def _cycle(self, cycle: Any) -> None:
        phases = [int(cycle[name]) for name in ("sweep_termination_ns", "mark_ns", "mark_termination_ns")]
        ends = int(cycle["end_ns"]) - sum(phases) + np.cumsum([0, *phases])
        first, marking, terminating, end = ends.tolist()
        parts = [
            ("sweep termination", first, marking),
            ("concurrent mark", marking, terminating),
            ("mark termination", terminating, end),
        ]
        about: dict[str, int | str] = {}
        if cycle["assist_ns"] != UNKNOWN:
            about["assist_ns"] = int(cycle["assist_ns"])
        if cycle["trigger"] != UNKNOWN:
            about["trigger"] = TRIGGERS[cycle["trigger"]]
        self.slice(_GC, first, end, f"GC cycle {int(cycle['cycle'])}", about, parts)
        for number, (_, at_begin, at_end) in enumerate(_HEAP):
            if at_begin is not None:
                self.event(_COUNTERS + number, first, _COUNTER, counter_value=int(cycle[at_begin]))
            if cycle[at_end] != UNKNOWN:
                self.event(_COUNTERS + number, end, _COUNTER, counter_value=int(cycle[at_end]))

    def _threads(self, events: Array) -> None:
        tasks = self._of("task", events)
        for tid, low, high in zip(tasks["tid"], tasks["name_low"], tasks["name_high"], strict=True):
            if _THREAD + tid in self.tracks:
                self.thread(tid, printable(text_of(low, high)))
        off = self._of("off_cpu", events)
        for end, tid, begin, woken, word in zip(*(off[name] for name in _OFF_CPU), strict=True):
            track = self.thread(tid)
            state = next((text for bit, text in _STATES if word & bit), "preempted")
            waiting = [("waiting for a CPU", woken, end)] if begin < woken < end else []
            self.slice(track, begin, end, f"off CPU: {state}", {}, waiting)
        faults = self._of("faults", events)
        for tid, begin, end, count in zip(*(faults[name] for name in _FAULT), strict=True):
            track = self.thread(tid)
            if _FAULTS + tid not in self.tracks:
                self.describe(_FAULTS + tid, name="page faults", parent_uuid=track)
            self.slice(_FAULTS + tid, begin, end, "page faults", {"count": count & 0xFFFFFFFF})

    def _of(self, kind: str, events: Array) -> dict[str, list[int]]:
        """The columns of the events of one kind of the probe ``tail``."""
        assert self._tail is not None
        found = self._tail.of(events, kind)
        return {name: found[name].tolist() for name in ("time_ns", "tid", *self._tail.columns(kind))}


_OFF_CPU: Sequence[str] = ("time_ns", "tid", "off_ns", "wake_ns", "word")
_FAULT: Sequence[str] = ("tid", "begin_ns", "end_ns", "count")
