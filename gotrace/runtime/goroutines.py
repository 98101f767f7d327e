"""Every goroutine of a process as its own runtime keeps it, with its stack, read from outside while it runs.

Nothing is stopped. A goroutine is believed if it was the same before and after its stack was read: ``g.trackingSeq`` counts
how often it has left the CPU. Two goroutines' stacks may be of moments as far apart as the whole dump took.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from gotrace.analysis.goroutines import GOROUTINE, RAN, TORN, Called, Dump, Labels, Stack, is_system, seen_waiting_by
from gotrace.arch import host_arch
from gotrace.binary.goroutines import GoroutinePlaces, find_goroutines
from gotrace.binary.program import GoProgram
from gotrace.errors import TargetError
from gotrace.kernel.memory import Memory
from gotrace.kernel.numa import threads_here
from gotrace.kernel.running import samples
from gotrace.kernel.system_calls import SystemCall, system_call_of
from gotrace.made import bias_in, found_in
from gotrace.runtime.unwind import Left, Stacks, Unwinder, Walked

if TYPE_CHECKING:
    from gotrace.kernel.process import Process

U64 = npt.NDArray[np.uint64]

# g.atomicstatus of runtime/runtime2.go, without the bit that the collector sets while it scans a stack.
IDLE, RUNNABLE, RUNNING, SYSCALL, WAITING, DEAD, COPYSTACK, PREEMPTED, LEAKED, DEAD_EXTRA = 0, 1, 2, 3, 4, 6, 8, 9, 10, 11
_TEXTS = {
    IDLE: "idle",
    RUNNABLE: "runnable",
    RUNNING: "running",
    SYSCALL: "syscall",
    WAITING: "waiting",
    DEAD: "dead",
    COPYSTACK: "copystack",
    PREEMPTED: "preempted",
    LEAKED: "leaked",
    DEAD_EXTRA: "waiting for cgo callback",
}
_STATUS = 0xFFF
_NONE = (IDLE, DEAD, DEAD_EXTRA)
_MOVING = (RUNNING, COPYSTACK)

_TRIES = 6
_SAMPLING_S = 0.02
_NEAR = 1024  # what lies so close together is read as one piece
_MOST_BYTES = 8 << 20  # of one stack
_BATCH_BYTES = 64 << 20  # of stacks that are held at once
_MOST = 1 << 22
_MOST_LABELS, _MOST_TEXT = 256, 4096
_MARK_TERM = 8 * 4  # behind work.cycles, maxprocs, tSweepTerm and tMark: work.tMarkTerm, in every release
_THREAD = {"procid": 8, "syscalltick": 4}
_ON_A_CHANNEL = ("chan receive", "chan send", "chan receive (synctest)", "chan send (synctest)")
_Pair = tuple[tuple[int, int], tuple[int, int]]  # where a label's key and value are: address and length
# A map of Go up to 1.23 (runtime/map.go): the count, log2 of the buckets' number at 9, the buckets at 16; a bucket of
# two-word keys and values has 8 bytes that say which are there, the keys, the values, and where it goes on.
_MAP_LOG, _MAP_BUCKETS, _BUCKET, _KEYS, _VALUES, _OVERFLOW, _THERE = 9, 16, 272, 8, 136, 264, 5


class GoroutineReader:
    """Reads the goroutines of one process; raises TargetError or BinaryError where they cannot be found."""

    def __init__(self, process: Process) -> None:
        self.places = found_in(process, "goroutines", GoroutinePlaces, find_goroutines)
        self._bias = bias_in(process, self.places)
        self.program = GoProgram.open(process.exe_path)
        self._process = process
        self._memory = Memory(process.pid)
        self._offset_ns = process.time_offset_ns()
        self._unwinder = Unwinder(self.program.pclntab, host_arch(), self._bias)
        self.pid = process.pid
        self._size = max(self.places.offsets[f"g.{name}"] for name in ("labels", "waiting", "startpc")) // 8 + 1  # words

    def dump(self) -> Dump:
        """Every goroutine and its stack. Raises TargetError or HostError."""
        began = time.monotonic_ns()
        pointers = self._pointers()
        heads = self._heads(pointers)
        there = ~np.isin(self._status(heads), _NONE)
        pointers, heads = pointers[there], heads[there]
        numbers: dict[Stack, int] = {}
        stack_of = np.full(len(pointers), TORN, np.int32)
        broken = 0
        pending = np.arange(len(pointers))
        for _ in range(_TRIES):
            still = self._can_be_walked(heads[pending])
            unsettled = [pending[:0]]
            for part in self._parts(pending[still], heads):
                settled, walked = self._walk(pointers, heads, part)
                own = np.array([numbers.setdefault(stack, len(numbers)) for stack in walked.stacks], np.int32)
                stack_of[part[settled]] = own[walked.of]
                broken += int(np.count_nonzero(~walked.whole))
                unsettled.append(part[~settled])
            pending = np.concatenate(unsettled)
            if not len(pending):
                break
        stack_of[np.isin(self._status(heads), _MOVING)] = RAN
        sampled = self._sample(pointers, heads, stack_of, numbers)
        calls = self._calls(pointers, heads)
        there = ~np.isin(self._status(heads), _NONE)
        rows = self._rows(heads[there])
        rows["stack"], rows["sampled"] = stack_of[there], sampled[there]
        rows["labels"], labels = self._labels(self._word(heads[there], "labels"))
        return Dump(
            began_ns=began,
            took_ns=time.monotonic_ns() - began,
            rows=rows,
            stacks=list(numbers),
            broken=broken,
            labels=labels,
            calls=calls,
        )

    def states(self) -> list[tuple[str, bool, int]]:
        """(state, whether it is the runtime's own, count) of the goroutines now, without looking at their stacks.

        Those at work for the program in a function of the runtime, as finalizers are, count as the runtime's own.
        """
        heads = self._heads(self._pointers())
        heads = heads[~np.isin(self._status(heads), _NONE)]
        columns = [self._status(heads), self._part(heads, "waitreason", 0xFF), self._word(heads, "startpc")]
        alike, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
        found: dict[tuple[str, bool], int] = {}
        for (status, reason, begin), count in zip(alike.tolist(), counts.tolist(), strict=True):
            begins_in = self.called_at(begin - self._bias)
            key = self.state(status, reason), is_system(begins_in.function if begins_in else "", ())
            found[key] = found.get(key, 0) + count
        return [(*key, count) for key, count in found.items()]

    def state(self, status: int, reason: int) -> str:
        """What a goroutine does or waits for, in the runtime's words."""
        text = _TEXTS.get(status, "???")
        if status not in (WAITING, LEAKED) or not 0 < reason < len(self.places.reasons):
            return text
        return self.places.reasons[reason] + (" (leaked)" if status == LEAKED else "")

    def called(self, stack: Stack) -> list[Called]:
        """The functions of a stack, innermost first, inlined ones too."""
        return [each for pc, looked_up in stack for each in self._called(pc, looked_up)]

    def called_at(self, pc: int, returned: bool = False) -> Called | None:
        """The function at a link-time address, which a call ``returned`` to; None if there is none."""
        begin = self.program.pclntab.find(pc)
        if begin is None:
            return None
        return self._called(pc, pc - 1 if returned and pc > begin.entry else pc)[-1]

    def _called(self, pc: int, looked_up: int) -> list[Called]:
        table = self.program.pclntab
        found = table.find(looked_up)
        assert found is not None
        frames = table.frames(looked_up)
        offsets = [*[None] * (len(frames) - 1), pc - found.entry]
        return [
            Called(each.function, each.file, each.line, offset, each.func_id == table.wrapper_id)
            for each, offset in zip(frames, offsets, strict=True)
        ]

    def _pointers(self) -> U64:
        places = [(self.places.allglen + self._bias, 8), (self.places.allgptr + self._bias, 8)]
        length, pointer = (int.from_bytes(each, "little") for each in self._memory.read_many(places))
        if not 0 < length < _MOST or not pointer:
            raise TargetError(
                f"process {self._process.pid} has no goroutines", "its runtime has not started yet: try again"
            )
        return self._memory.words(pointer, length)

    def _heads(self, pointers: U64) -> U64:
        """The first words of each g, shape (n, size)."""
        order = np.argsort(pointers, kind="stable")
        begins, size = pointers[order], 8 * self._size
        ends = begins + np.uint64(size)
        new = np.ones(len(begins), bool)
        new[1:] = begins[1:] > ends[:-1] + np.uint64(_NEAR)
        first = np.flatnonzero(new)
        lengths = ends[np.append(first[1:] - 1, len(ends) - 1)] - begins[first]
        room = np.empty(int(lengths.sum()), np.uint8)
        self._memory.read_into(np.stack([begins[first], lengths], axis=1), room)
        piece = np.cumsum(new) - 1
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        at = starts[piece] + (begins - begins[first][piece]).astype(np.int64)
        found = np.empty((len(pointers), self._size), np.uint64)
        found[order] = room.view("<u8")[at[:, None] // 8 + np.arange(self._size)]
        return found

    def _word(self, heads: U64, name: str) -> U64:
        return heads[:, self.places.offsets[f"g.{name}"] // 8]

    def _saved(self, heads: U64, name: str) -> U64:
        """A register as it was when the goroutine left its thread."""
        at = self.places.offsets
        return heads[:, (at["g.sched"] + at[f"gobuf.{name}"]) // 8]

    def _part(self, heads: U64, name: str, mask: int) -> U64:
        """A field that is less than a word."""
        shift = np.uint64(8 * (self.places.offsets[f"g.{name}"] % 8))
        found: U64 = self._word(heads, name) >> shift & np.uint64(mask)
        return found

    def _status(self, heads: U64) -> U64:
        return self._part(heads, "atomicstatus", _STATUS)

    def _can_be_walked(self, heads: U64) -> npt.NDArray[np.bool_]:
        return ~np.isin(self._status(heads), (*_MOVING, *_NONE))

    def _left_at(self, heads: U64) -> Left:
        """PC, SP and LR of each goroutine, as it left its thread or entered a system call."""
        calls = self._word(heads, "syscallsp")
        in_call = calls != 0
        pc = np.where(in_call, self._word(heads, "syscallpc"), self._saved(heads, "pc"))
        return pc, np.where(in_call, calls, self._saved(heads, "sp")), np.where(in_call, 0, self._saved(heads, "lr"))

    def _lengths(self, heads: U64) -> npt.NDArray[np.int64]:
        """How many bytes of each stack are in use, 0 where that is nonsense."""
        _, sp, _ = self._left_at(heads)
        low, high = self._word(heads, "stack.lo"), self._word(heads, "stack.hi")
        used = np.where((low <= sp) & (sp < high) & (sp % 8 == 0) & (high % 8 == 0), high - sp, 0)
        return np.minimum(used, _MOST_BYTES).astype(np.int64)

    def _parts(self, chosen: npt.NDArray[np.int64], heads: U64) -> list[npt.NDArray[np.int64]]:
        """``chosen`` in parts whose stacks are held at once."""
        batch = np.cumsum(self._lengths(heads[chosen])) // _BATCH_BYTES
        return np.split(chosen, np.flatnonzero(np.diff(batch)) + 1) if len(chosen) else []

    def _walk(self, pointers: U64, heads: U64, part: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], Walked]:
        """Which goroutines of ``part`` were the same before and after their stacks were read, and these stacks.

        ``heads`` are as they were after it, then.
        """
        before = heads[part]
        _, sp, _ = self._left_at(before)
        lengths = self._lengths(before)
        ticks = self._threads(before)[1]
        words = np.empty(int(lengths.sum()) // 8, "<u8")
        self._memory.read_into(np.stack([sp, lengths.astype(np.uint64)], axis=1), words.view(np.uint8))
        after = heads[part] = self._heads(pointers[part])
        same = (ticks == self._threads(after)[1]) & (self._status(before) == self._status(after))
        same &= self._part(before, "trackingSeq", 0xFF) == self._part(after, "trackingSeq", 0xFF)
        for name in ("goid", "stack.lo", "stack.hi", "syscallsp", "syscallpc"):
            same &= self._word(before, name) == self._word(after, name)
        for name in ("pc", "sp"):
            same &= self._saved(before, name) == self._saved(after, name)
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]]) // 8
        stacks = Stacks(words, first[same], sp[same], lengths[same] // 8)
        return same, self._unwinder.walk(self._left_at(before[same]), stacks)

    def _sample(
        self, pointers: U64, heads: U64, stack_of: npt.NDArray[np.int32], numbers: dict[Stack, int]
    ) -> npt.NDArray[np.bool_]:
        """Ask a timer for the stacks of those that run, and say whose are known now.

        The kernel copies a stack while its thread stands still; it is the goroutine's that has its memory.
        """
        sampled = np.zeros(len(pointers), bool)
        running = np.flatnonzero(self._status(heads) == RUNNING)
        if not len(running):
            return sampled
        before = heads[running]
        own = set(self._threads(before)[0].tolist()) - {0}
        found = samples(list(threads_here(self.pid, own).values()), _SAMPLING_S)
        after = self._heads(pointers[running])
        same = np.ones(len(running), bool)
        for name in ("goid", "stack.lo", "stack.hi"):
            same &= self._word(before, name) == self._word(after, name)
        low, high = (self._word(after, f"stack.{name}") for name in ("lo", "hi"))
        for sample in found.values():
            place = int(np.argmax(same & (low <= sample.sp) & (high > sample.sp)))
            if not same[place] or not low[place] <= sample.sp < high[place]:
                continue  # it is on its thread's own stack, or runs another goroutine by now
            words = np.frombuffer(sample.stack, "<u8", len(sample.stack) // 8)
            lengths = np.array([len(words)])
            stacks = Stacks(words, np.zeros(1, np.int64), np.array([sample.sp], np.uint64), lengths)
            left_at = (np.array([value], np.uint64) for value in (sample.pc, sample.sp, sample.lr))
            walked = self._unwinder.walk(cast(Left, tuple(left_at)), stacks, exact=True)
            if walked.whole[0]:
                stack_of[running[place]] = numbers.setdefault(walked.stacks[0], len(numbers))
                sampled[running[place]] = True
        return sampled

    def _calls(self, pointers: U64, heads: U64) -> dict[int, SystemCall]:
        """The system calls of goroutines that are in one, or in C, by goid: of those that stayed there meanwhile."""
        held = np.flatnonzero(self._status(heads) == SYSCALL)
        if not len(held):
            return {}
        before = heads[held]
        tids, ticks = self._threads(before)
        here = threads_here(self.pid, set(tids.tolist()) - {0})
        told = [system_call_of(self.pid, here[tid]) if tid in here else None for tid in tids.tolist()]
        after = self._heads(pointers[held])
        same = (self._status(after) == SYSCALL) & (ticks == self._threads(after)[1])
        for name in ("goid", "m", "syscallsp"):
            same &= self._word(before, name) == self._word(after, name)
        goids = self._word(before, "goid").tolist()
        return {
            goid: call for goid, call, kept in zip(goids, told, same.tolist(), strict=True) if kept and call is not None
        }

    def functions(self, addresses: list[int]) -> list[str]:
        """The names of the functions at ``addresses`` of the process; "" where there is none."""
        found = [self.program.pclntab.frames(address - self._bias) for address in addresses]
        return [frames[-1].function if frames else "" for frames in found]

    def _threads(self, heads: U64) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The thread of each goroutine, as it numbers itself, and how many system calls that has made; 0 without one."""
        wanted, back = np.unique(self._word(heads, "m"), return_inverse=True)
        found = np.zeros((len(wanted), 2), np.int64)
        at = self.places.offsets
        held = np.flatnonzero(wanted)
        places = [(int(wanted[i]) + at[f"m.{name}"], size) for i in held for name, size in _THREAD.items()]
        numbers = [int.from_bytes(each, "little") for each in self._memory.read_many(places)]
        found[held] = np.array(numbers, np.int64).reshape(-1, 2)
        return found[back, 0], found[back, 1]

    def _rows(self, heads: U64) -> npt.NDArray[np.void]:
        rows = np.zeros(len(heads), GOROUTINE)
        rows["goid"], rows["status"] = self._word(heads, "goid"), self._status(heads)
        rows["reason"] = self._part(heads, "waitreason", 0xFF)
        rows["turns"] = self._part(heads, "trackingSeq", 0xFF)
        since = self._word(heads, "waitsince").astype(np.int64)
        by = seen_waiting_by(since, self._last_mark_end())
        for name, times in (("not_before_ns", since), ("waits_since_ns", by)):
            rows[name] = np.where(times != 0, times - self._offset_ns, 0)
        if "g.parentGoid" in self.places.offsets:
            rows["parent"] = self._word(heads, "parentGoid")
        for name, of in (("created_at", "gopc"), ("begins_at", "startpc")):
            rows[name] = self._word(heads, of) - np.uint64(self._bias)
        rows["locked"] = self._word(heads, "lockedm") != 0
        tids = self._threads(heads)[0]
        here = threads_here(self._process.pid, set(tids.tolist()) - {0})
        rows["tid"] = [here.get(tid, 0) for tid in tids.tolist()]
        rows["channel"] = self._channels(rows, self._word(heads, "waiting"))
        return rows

    def _last_mark_end(self) -> int:
        """When the last collection that is over had marked; 0 if unknown, or if there was none."""
        return self._memory.word(self.places.work_cycles + self._bias + _MARK_TERM) if self.places.work_cycles else 0

    def _channels(self, rows: npt.NDArray[np.void], waiting: U64) -> U64:
        """The channel that each goroutine waits for; 0 for none or several."""
        found = np.zeros(len(rows), np.uint64)
        reasons = [number for number, text in enumerate(self.places.reasons) if text in _ON_A_CHANNEL]
        held = (rows["status"] == WAITING) & np.isin(rows["reason"], reasons) & (waiting != 0)
        places = waiting[held] + np.uint64(self.places.offsets["sudog.c"])
        found[held] = self._of_each(places, np.full(len(places), 8))
        return found

    def _labels(self, addresses: U64) -> tuple[npt.NDArray[np.int64], list[Labels]]:
        """The number of the labels at each ``g.labels``, and these; 0 where there are none that can be read."""
        wanted, back = np.unique(addresses, return_inverse=True)
        numbers: dict[Labels, int] = {(): 0}
        texts: dict[tuple[int, int], str] = {}
        found = np.zeros(len(wanted), np.int64)
        lists = self._of_maps(wanted) if self.places.labels_are_a_map else self._of_slices(wanted)
        for place, pairs in enumerate(lists):
            labels = tuple(sorted((self._text(texts, *key), self._text(texts, *value)) for key, value in pairs))
            found[place] = numbers.setdefault(labels, len(numbers))
        return found[back], list(numbers)

    def _text(self, known: dict[tuple[int, int], str], address: int, size: int) -> str:
        if (address, size) not in known:
            known[address, size] = ""
            with contextlib.suppress(TargetError):
                data = self._memory.read(address, min(size, _MOST_TEXT)) if size else b""
                known[address, size] = data.decode("utf-8", "replace")
        return known[address, size]

    def _of_slices(self, addresses: U64) -> Iterator[list[_Pair]]:
        """Since Go 1.24 (internal/runtime/pprof/label): a list of {key, value}; many goroutines may have a copy each."""
        held = addresses[addresses != 0]
        heads = np.zeros((len(addresses), 2), np.uint64)
        heads[addresses != 0] = self._of_each(held, np.full(len(held), 16)).reshape(-1, 2)
        sizes = 32 * np.minimum(heads[:, 1], _MOST_LABELS).astype(np.int64)
        ends = np.cumsum(sizes) // 8
        words = self._of_each(heads[:, 0], sizes).reshape(-1, 2).tolist()
        for begin, end in zip([0, *(ends[:-1] // 2).tolist()], (ends // 2).tolist(), strict=True):
            texts = [(at, size) for at, size in words[begin:end]]
            yield list(zip(texts[::2], texts[1::2], strict=True))

    def _of_each(self, addresses: U64, sizes: npt.NDArray[np.int64]) -> U64:
        """So many bytes at each address, as words; zeros if one of them has been given back to the system meanwhile."""
        found = np.zeros(int(sizes.sum()) // 8, "<u8")
        with contextlib.suppress(TargetError):
            self._memory.read_into(np.stack([addresses, sizes.astype(np.uint64)], axis=1), found.view(np.uint8))
        return found

    def _of_maps(self, addresses: U64) -> Iterator[list[_Pair]]:
        for address in addresses.tolist():
            found: list[_Pair] = []
            with contextlib.suppress(TargetError):
                found = self._of_map(address) if address else []
            yield found

    def _of_map(self, address: int) -> list[_Pair]:
        head = self._memory.read(self._memory.word(address), _MAP_BUCKETS + 8)
        buckets, log = int.from_bytes(head[_MAP_BUCKETS:], "little"), head[_MAP_LOG]
        found: list[_Pair] = []
        for bucket in range(buckets, buckets + (_BUCKET << min(log, 8)), _BUCKET):
            while bucket and len(found) < _MOST_LABELS:
                data = self._memory.read(bucket, _BUCKET)
                words = np.frombuffer(data, "<u8").tolist()
                for slot in (slot for slot in range(8) if data[slot] >= _THERE):
                    key, value = (begin // 8 + 2 * slot for begin in (_KEYS, _VALUES))
                    found.append(((words[key], words[key + 1]), (words[value], words[value + 1])))
                bucket = words[_OVERFLOW // 8]
        return found
