"""What `perf script` prints, read as a stream: from lines to samples, in bounded memory, whatever the bytes.

The form is that of process_event in tools/perf/builtin-script.c of Linux and of tools/perf/util/evsel_fprintf.c, compared
with what perf 6.1 really prints. Per sample, with everything asked for::

    COMM  PID/TID   [CPU] MISC  SECONDS.MICROS:   PERIOD    EVENT:  TEXT of a tracepoint, or ADDRESS SYM (DSO)
    <tab>              IP SYM+0xOFF (DSO)          innermost first; "(inlined)" instead of the DSO
      FILE:LINE                                    of the line above
    (an empty line)

Every field can be absent (`perf script -F`). A sample without a callchain has "IP SYM (DSO)" at the end of its one line,
and no empty line behind it. A lone number before the CPU or the time is taken for the thread: that is what it is unless
``-F`` has pid without tid, or a name ends in a number and nothing but that tells a sample. A name (COMM) is anything at
all, so fields are split from the time on, to both sides. Where there is neither a time nor a thread, any text could be
a sample's first line: it is one if a callchain follows, or an address as wide as perf prints it.

What stands behind an address or a callchain is left out, and counted: branch stacks (``-F brstack`` and its kin, with
their flags "/P/-/-/0") and registers. Of a branch "IP SYM (DSO) => IP SYM (DSO)" the first is the sample's place, the
second its data address.

What makes it fast is that lines repeat: a whole callchain that was seen before is one look-up, and so are the left and the
right part of a sample's first line. Only new text is parsed in full.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple, Protocol

from gotrace.analysis.stacks import INLINED, KERNEL, USER, Frame

_CHUNK = 1 << 20
# Longer lines are no line of perf's. The longest there are name C++ templates, in some thousand characters.
LONGEST_LINE = 1 << 16
_DEEPEST = 1 << 12  # frames of a sample; perf record takes up to kernel.perf_event_max_stack, which is 127 by default
# What is remembered to be recognized, in bytes: past it everything is forgotten, and learned again.
_MEMORY = 64 << 20
_EXCERPT = 200
_MOST_EVENTS = 1 << 12
_OVERHEAD = 300  # bytes, about what an entry takes beside its text


class Stack:
    """A callchain, ``frames`` innermost first. Equal ones are nearly always the same object; ``number`` is the user's."""

    __slots__ = ("frames", "number")

    def __init__(self, frames: tuple[Frame, ...]) -> None:
        self.frames = frames
        self.number = 0


class Sample(NamedTuple):
    """One sample; None and empty where perf did not print it.

    ``time_ns`` is in perf's clock (usually CLOCK_MONOTONIC or the scheduler's), in whole microseconds unless `perf script`
    was given ``--ns``. ``period`` is what the sample stands for, in what the event counts. ``address`` is the data address
    (``-F addr``), ``text`` a tracepoint's fields.
    """

    comm: str
    pid: int | None
    tid: int | None
    cpu: int | None
    time_ns: int | None
    event: str
    period: int | None
    address: int | None
    text: str
    stack: Stack | None

    @property
    def frames(self) -> tuple[Frame, ...]:
        return self.stack.frames if self.stack is not None else ()


class Names(Protocol):
    """Names for what perf has none for: functions of the executable at ``path``."""

    def mapped(self, path: str, begin: int, length: int, offset: int, build_id: str) -> None:
        """Some process has mapped a part of it as code; ``build_id`` is "" if perf did not print it."""

    def of(self, path: str, addresses: Sequence[tuple[int, bool]]) -> Sequence[Sequence[Frame]]:
        """For each address of a stack the functions, innermost first, none if unknown; with each whether it is exact.

        Otherwise it is a return address, whose call is before it.
        """
        ...


class _Who(NamedTuple):
    comm: str
    pid: int | None
    tid: int | None
    cpu: int | None


class _Head(NamedTuple):
    """A sample's first line. ``rest`` is what follows the event, its colon and a space.

    ``alone``: it can be one without a callchain; otherwise it could be any other text.
    """

    who: _Who
    time_ns: int | None
    period: int | None
    event: str
    rest: bytes
    alone: bool


_NOBODY = _Who("", None, None, None)
_NO_SAMPLE = _Head(_NOBODY, None, None, "", b"", False)

# An address is `%16lx`: its width distinguishes it from a number or a word.
_WIDE = rb"(?=[ 0-9a-f]{16}(?![0-9a-f])) *[0-9a-f]+"
# Where other numbers may stand before it: by itself.
_ALONE = rb"(?:" + b"|".join(rb" {%d}[0-9a-f]{%d}" % (16 - digits, digits) for digits in range(1, 17)) + rb")(?![0-9a-f])"
_PLACE = rb"(?:(?:^|\s+)\[(-?\d{1,6})\])?(?:\s+[A-Z][A-Za-z5]{0,4})?\s*$"  # the CPU, and `-F misc`
_TIME = re.compile(rb"(?:^|(?<=\s))(\d{1,10}[.,](?:\d{9}|\d{6})):(?: |$)")
_WHO = re.compile(rb"\s*(?:(.*\S)\s+)??(?:(-?\d{1,10})/)?(-?\d{1,10})" + _PLACE)
_NO_TASK = re.compile(rb"(.*?)" + _PLACE)
_WHAT = re.compile(rb"\s*(?:(\d{1,20})\s+)?([^\s:]\S*?):(?: (.*)|)$")
_PERIOD = re.compile(rb"\s*(\d{1,20})(?:\s*$| (?= " + _WIDE + rb"))")
_EVENT = re.compile(rb"(?:^|(?<=\s))([^\s:]\S*?):(?: |$)")
_PERIOD_LAST = re.compile(rb"(.*\S |)( *\d{1,20}) *$")
_PERIOD_WIDTH = 10  # `%10lu`
_CANDIDATES = 16  # a name (15 characters) holds no more words
_IP_LAST = re.compile(rb"(.*?[\d\]]\s+?)( " + _ALONE + rb"(?:\s.*)?)$")
_ADDRESS = re.compile(rb" *([0-9a-f]{1,16})(?=\s|$)")
_LONE = re.compile(rb" " + _ALONE + rb"(?:\s|$)")  # a sample of which nothing but its address was asked for
_IP_BARE = re.compile(rb"(.*?)\s( " + _ALONE + rb"(?:\s.*)?)$")
# The event at the end of a line, or of a tracepoint before its text; a name, the CPU, and `-F misc`, which is padded.
_EVENT_BARE = re.compile(rb"(|.*\s)([^\s:]\S*?):\s*$")
_TRACEPOINT = re.compile(rb"(|.*?\s)([\w-]+:[\w-]+): ")
_BARE = re.compile(rb"(.*?)(?:(?:^|\s+)\[(-?\d{3,6})\])?(?:\s+[KUHGg](?:[MES5]p?)?\s{2,})?\s*$")
_IP_AFTER = re.compile(rb"(.*)\s(" + _WIDE + rb"(?:\s.*)?)$")
_IP_AFTER_TEXT = re.compile(rb"(.*\S)\s(?=[ 0-9a-f]{16} ) *([0-9a-f]{4,16} \S.*\))$")
_FRAME = re.compile(rb"\t? *([0-9a-f]{1,16})(?:\s(.*)|)$")
_SOURCE = re.compile(rb"  (\S.*?)(?::(\d{1,9})(?: \(discriminator \d+\))?)?( \(inlined\))?$")
_CODE = re.compile(rb"\|\s*\d+\s")  # `-F +srccode`
_OFFSET = re.compile(rb"\+0x[0-9a-f]+$")
_LOST = re.compile(rb"\s*PERF_RECORD_LOST(?:_SAMPLES)? lost (\d{1,18})")
_FACT = re.compile(rb"# (hostname|os release|arch|nrcpus online|perf version|cmdline) : (.*)")
_RATE = re.compile(rb"# event : name = (\S+?), .*\{ sample_period, sample_freq \} = (\d+)")

_MAPPED = re.compile(
    rb"\s*PERF_RECORD_MMAP2? -?\d+/-?\d+: \[0x([0-9a-f]{1,16})\(0x([0-9a-f]{1,16})\) @ (?:0x)?([0-9a-f]{1,16})"
    rb"(?: <([0-9a-f]{2,64})>|[^\]]*)\]: \S*x\S* (/.*)$"
)
# of a branch stack: whether the branch was predicted, and in a transaction
_BRANCH = re.compile(rb"(?<=[^\s/])/[^\s/][^\s]{0,500}?/[MPN-]/[X-]/[A-]/\d")
_TO = re.compile(rb"(?:\s*[a-z][a-z ]{0,30}\s)?(\s*[0-9a-f]{1,16}(?:\s.*)?) =>\s+([0-9a-f]{1,16})(?:\s|$)")
_REGISTERS = re.compile(rb"(?:^|\s)ABI:\d(?:\s|$)")
BRANCHES, REGISTERS = "branch stacks", "registers"

_INLINED = b" (inlined)"
_UNKNOWN = "[unknown]"
_OTHER_RECORD = b"PERF_RECORD_"
_KERNEL_NAMES = (b"[kernel.", b"[guest.kernel.")
_KERNEL_FILES = (b".ko", b".ko.gz", b".ko.xz", b".ko.zst", b"/vmlinux")


class PerfScript:
    """Reads what `perf script` printed: iterate over it once, or over `batches`.

    ``lines`` are the lines read so far and ``garbage`` those that could not be understood, ``first_garbage`` the first of
    them (its number from 1, its text); ``lost`` is what perf says it lost, ``facts`` what its header (``--header``) says,
    ``partial`` the events of which perf took only some by that; ``read`` the bytes read; ``left_out`` the samples of which
    a part was left out, by that part (`BRANCHES`, `REGISTERS`). ``names`` are asked for what perf had no name for. Nothing
    in the file raises; reading it may (OSError).
    """

    def __init__(self, file: BinaryIO, names: Names | None = None) -> None:
        self.read = 0
        self.lines = 0
        self.garbage = 0
        self.first_garbage: tuple[int, bytes] | None = None
        self.lost = 0
        self.facts: dict[str, str] = {}
        self.partial: set[str] = set()
        self.left_out: Counter[str] = Counter()
        self._file = file
        self._names = names
        self._timed = False  # whether a sample had a time: then all have
        # the sample whose callchain is being read
        self._open: _Head | None = None
        self._open_line: tuple[int, bytes] = (0, b"")
        self._chain: list[bytes] = []
        self._anonymous = True  # a callchain that begins now has no first line because no field was asked for
        self._forget()

    def _forget(self) -> None:
        self._held = 0
        self._whos: dict[bytes, _Who] = {}
        self._events: dict[bytes, str] = {}
        self._tails: dict[bytes, tuple[int | None, str, Stack]] = {}
        self._entries: dict[bytes, Frame] = {}
        self._frames: dict[Frame, Frame] = {}
        self._chains: dict[bytes, tuple[Stack, int]] = {}
        self._stacks: dict[tuple[int, ...], Stack] = {}
        self._bare: dict[bytes, _Head | None] = {}
        self._proven: set[bytes] = set()  # first lines that could be any text, and had a callchain

    def _room_for(self, text: bytes) -> None:
        self._held += len(text) + _OVERHEAD
        if self._held > _MEMORY:
            self._forget()

    def __iter__(self) -> Iterator[Sample]:
        for batch in self.batches():
            yield from batch

    def batches(self) -> Iterator[list[Sample]]:
        """Every sample in order, at most some thousand at a time."""
        rest, skipping = b"", False
        while data := self._file.read(_CHUNK):
            self.read += len(data)
            if skipping:
                _, found, data = data.partition(b"\n")
                skipping = not found
            data = rest + data
            if b"\r" in data:
                data = data.replace(b"\r\n", b"\n")
            samples: list[Sample] = []
            end = data.rfind(b"\n\n")
            if end >= 0:
                self._read_blocks(data[:end], samples)
                rest = data[end + 2 :]
            else:
                whole, found, rest = data.rpartition(b"\n")
                if found:
                    self._read_lines(whole, samples)
            if len(rest) > LONGEST_LINE and b"\n" not in rest[-LONGEST_LINE:]:
                whole, found, rest = rest.rpartition(b"\n")
                if found:
                    self._read_lines(whole, samples)
                self.lines += 1
                self._garbled(self.lines, rest)
                rest, skipping = b"", True
            self._timed = self._timed or any(sample.time_ns is not None for sample in samples)
            yield samples
        samples = []
        if rest:
            self._read_lines(rest.removesuffix(b"\n"), samples)
        self._close(samples)
        yield samples

    def _read_blocks(self, data: bytes, samples: list[Sample]) -> None:
        """Take what stands between empty lines, the last of which was just behind ``data``."""
        for block in data.split(b"\n\n"):
            first, _, chain = block.partition(b"\n")
            known = self._chains.get(chain) or self._learn(chain)
            if known is not None and self._open is None:
                head = self._head(first) or self._bare_head(first, samples)
                if head is not None and head is not _NO_SAMPLE:
                    self._prove(head, first)
                    self.lines += known[1] + 2
                    samples.append(_sample(head, known[0]))
                    continue
            self._read_lines(block, samples)
            self._close(samples)
            self.lines += 1
            self._anonymous = True

    def _read_lines(self, data: bytes, samples: list[Sample]) -> None:
        for line in data.split(b"\n"):
            self.lines += 1
            if not line or line.isspace():
                self._close(samples)
                self._anonymous = True
            elif len(line) > LONGEST_LINE:
                self._close(samples)
                self._garbled(self.lines, line)
            elif line.startswith(b"\t") and _FRAME.match(line):
                self._continue(line)
            elif self._chain and self._behind(line):
                continue
            elif self._open is None and self._anonymous and _LONE.match(line):
                self._continue(b"\t" + line.lstrip(b" "))
                self._close(samples)
            elif (head := self._head(line)) is not None:
                self._close(samples)
                self._anonymous = False
                if head is not _NO_SAMPLE:
                    self._open, self._open_line = head, (self.lines, line)
            elif line.startswith(b"   ") and _FRAME.match(line):  # somebody made spaces of the tab
                self._continue(b"\t" + line.lstrip(b" "))
            elif (head := self._bare_head(line, samples)) is not None and head.rest:
                self._close(samples)
                self._open, self._open_line = head, (self.lines, line)
            elif self._open is not None and _SOURCE.match(line):
                self._continue(line)
            elif self._open is None or not _CODE.match(line):
                self._close(samples)
                self._anonymous = False
                if line.startswith(b"#"):
                    self._anonymous = True
                    self._learn_fact(line)
                elif head is not None:
                    self._open, self._open_line = head, (self.lines, line)
                else:
                    self._garbled(self.lines, line)

    def _behind(self, line: bytes) -> bool:
        """Whether it is what perf prints behind the callchain of the open sample, which is left out then."""
        for what, pattern in ((BRANCHES, _BRANCH), (REGISTERS, _REGISTERS)):
            if pattern.search(line) and not _TIME.search(line):
                self.left_out[what] += 1
                return True
        return False

    def _continue(self, line: bytes) -> None:
        """Take a line of the sample that is open, or of one that has no first line."""
        if self._open is None and self._anonymous:
            self._open, self._open_line = _NO_SAMPLE, (self.lines, line)
        if self._open is None or len(self._chain) >= _DEEPEST:
            self._garbled(self.lines, line)
        else:
            self._chain.append(line)

    def _learn_fact(self, line: bytes) -> None:
        if fact := _FACT.match(line):
            self.facts[_text(fact[1])] = _text(fact[2].strip())
        elif (fact := _RATE.match(line)) and fact[2] != b"1" and len(self.partial) < _MOST_EVENTS:
            self.partial.add(_text(fact[1]))

    def _close(self, samples: list[Sample]) -> None:
        """The open sample is complete."""
        head, chain = self._open, self._chain
        if head is None:
            return
        self._open, self._chain = None, []
        if chain and chain[0].startswith(b"\t"):
            text = b"\n".join(chain)
            known = self._chains.get(text) or self._learn(text)
            single = _sample(head, known[0]) if known is not None else None
            if single is not None:
                self._prove(head, self._open_line[1])
        else:
            single = self._single(head, chain[0] if chain else b"")
            if single is not None:
                self.garbage += max(0, len(chain) - 1)
            elif chain and (single := self._single(head, b"")) is not None:
                self.garbage += len(chain)
            elif not chain and self._open_line[1] in self._proven:  # perf could not walk the stack
                single = _sample(head, None)
        if single is not None:
            samples.append(single)
            return
        self._garbled(*self._open_line)
        self.garbage += len(chain)

    def _prove(self, head: _Head, line: bytes) -> None:
        if not head.alone and line not in self._proven:
            self._room_for(line)
            self._proven.add(line)

    def _garbled(self, number: int, line: bytes) -> None:
        self.garbage += 1
        if self.first_garbage is None:
            self.first_garbage = number, line[:_EXCERPT]

    def _head(self, line: bytes) -> _Head | None:
        """A sample's first line; None if it is none, `_NO_SAMPLE` if it tells of something else that perf recorded."""
        left, _, right = line.partition(b": ")
        left, _, time = left.rpartition(b" ")
        what, colon, rest = right.partition(b": ")
        who = self._whos.get(left)
        words = what.split()
        if who is not None and colon and 1 <= len(words) <= 2:
            event = self._events.get(words[-1])
            time_ns = _time_ns(time)
            if event is not None and time_ns is not None:
                if len(words) == 1:
                    return _Head(who, time_ns, None, event, rest, True)
                if words[0].isdigit() and len(words[0]) <= 20:
                    return _Head(who, time_ns, int(words[0]), event, rest, True)
        return self._look_at(line)

    def _look_at(self, line: bytes) -> _Head | None:
        if len(line) > LONGEST_LINE:
            return None
        found = _TIME.search(line)
        if found is None:
            return None if line.startswith(b"#") else _untimed(line)
        left, right = line[: found.start(1)], line[found.end() :]
        if right.lstrip().startswith(_OTHER_RECORD):
            if self._names is not None and (mapped := _MAPPED.match(right)):
                begin, length, offset = (int(mapped[place], 16) for place in (1, 2, 3))
                self._names.mapped(_text(mapped[5]), begin, length, offset, _text(mapped[4] or b""))
            if lost := _LOST.match(right):
                self.lost += int(lost[1])
            return _NO_SAMPLE
        who, time_ns = _who(left), _time_ns(found[1])
        if what := _WHAT.match(right):
            event = _text(what[2])
            self._room_for(left)
            self._whos[left.removesuffix(b" ")] = who
            self._events[what[2]] = event
            return _Head(who, time_ns, _number(what[1]), event, what[3] or b"", True)
        period = None if _LONE.match(right) else _PERIOD.match(right)
        rest = right[period.end() :] if period else right
        if rest.strip() and not _ADDRESS.match(rest):
            return None
        return _Head(who, time_ns, _number(period[1]) if period else None, "", rest, who.tid is not None)

    def _single(self, head: _Head, source: bytes) -> Sample | None:
        """A sample whose callchain is not there, or is the end of its one line; None if that is not enough of one."""
        rest = head.rest
        for what, pattern in ((BRANCHES, _BRANCH), (REGISTERS, _REGISTERS)):
            if (found := pattern.search(rest)) and (ip := _before(rest, found.start())) is not None:
                self.left_out[what] += 1
                rest = ip
        head = head._replace(rest=rest)
        if not rest or rest.isspace():
            return _sample(head, None) if head.alone and not source else None
        key = rest + b"\n" + source
        known = self._tails.get(key)
        if known is None:
            address, text, entry = _tail(rest)
            if not entry:
                if not head.alone or source:
                    return None
                return Sample(*head.who, head.time_ns, head.event, head.period, address, text, None)
            entry = b"\t" + entry + (b"\n" + source if source else b"")
            frame = self._frame(entry)
            if frame is None:
                return None
            known = address, text, self._stack(self._named([entry], [frame]))
            if not text:
                self._room_for(key)
                self._tails[key] = known
        return Sample(*head.who, head.time_ns, head.event, head.period, *known)

    def _learn(self, chain: bytes) -> tuple[Stack, int] | None:
        """A callchain that was not seen before, and its lines; None if it is none, or not only one."""
        if not chain:
            return None
        lines = chain.split(b"\n")
        if len(lines) > _DEEPEST:
            return None
        entries: list[bytes] = []
        for line in lines:
            if line.startswith(b"\t"):
                entries.append(line)
            elif entries and _SOURCE.match(line) and self._head(line) is None:
                entries[-1] += b"\n" + line
            elif not entries or not _CODE.match(line):
                return None
        frames = []
        for entry in entries:
            frame = self._entries.get(entry) or self._frame(entry)
            if frame is None:
                return None
            frames.append(frame)
        known = self._stack(self._named(entries, frames)), len(lines)
        self._room_for(chain)
        self._chains[chain] = known
        return known

    def _named(self, entries: Sequence[bytes], frames: Sequence[Frame]) -> tuple[Frame, ...]:
        """``frames``, with names for those that perf has none for."""
        unknown: dict[str, list[int]] = {}
        for place, frame in enumerate(frames):
            if frame.function == _UNKNOWN and frame.module.startswith("/"):
                unknown.setdefault(frame.module, []).append(place)
        if self._names is None or not unknown:
            return tuple(frames)
        out: list[Sequence[Frame]] = [[frame] for frame in frames]
        for path, places in unknown.items():
            found = [_FRAME.match(entries[place].partition(b"\n")[0]) for place in places]
            # a thread entered the kernel from where it was, not from where it called
            exact = [place == 0 or frames[place - 1].kind == KERNEL for place in places]
            addresses = [(int(each[1], 16), is_exact) for each, is_exact in zip(found, exact, strict=True) if each]
            for place, named in zip(places, self._names.of(path, addresses), strict=True):
                out[place] = named or out[place]
        return tuple(self._frames.setdefault(frame, frame) for part in out for frame in part)

    def _bare_head(self, line: bytes, samples: Sequence[Sample]) -> _Head | None:
        """A first line with neither a time nor a thread: any text, in a file whose samples have no time."""
        if self._timed or (samples and samples[0].time_ns is not None):
            return None
        if line not in self._bare:
            self._room_for(line)
            self._bare[line] = _bare(line)
        return self._bare[line]

    def _stack(self, frames: tuple[Frame, ...]) -> Stack:
        return self._stacks.setdefault(tuple(map(id, frames)), Stack(frames))

    def _frame(self, entry: bytes) -> Frame | None:
        """The function of one line of a callchain, with the line of its source behind it if that was printed."""
        line, _, source = entry.partition(b"\n")
        found = _FRAME.match(line)
        if found is None or len(entry) > LONGEST_LINE:
            return None
        address, name, module, file, number = int(found[1], 16), found[2] or b"", b"", b"", 0
        name, inlined = name.removesuffix(_INLINED), name.endswith(_INLINED)
        if source and (place := _SOURCE.match(source)):
            inlined = inlined or place[3] is not None
            if place[2]:
                file, number = place[1], int(place[2])
        if not inlined:
            name, module = _without_module(name)
        kind = INLINED if inlined else KERNEL if _in_kernel(address, module) else USER
        name = _OFFSET.sub(b"", name) or b"%#x" % address
        frame = Frame(_text(name), _text(file), number, _text(module), kind)
        frame = self._frames.setdefault(frame, frame)
        self._room_for(entry)
        self._entries[entry] = frame
        return frame


def _text(name: bytes) -> str:
    # Names are arbitrary. What is not UTF-8 stays recognizable, and can be written everywhere.
    return name.decode("utf-8", "backslashreplace")


def _number(digits: bytes | None) -> int | None:
    return int(digits) if digits else None


def _time_ns(text: bytes) -> int | None:
    """Seconds with six or nine decimals in nanoseconds; None if they are no such thing, or more than 63 bits."""
    if b"," in text:  # the decimals of somebody's language
        text = text.replace(b",", b".", 1)
    digits = text.replace(b".", b"", 1)
    if len(text) > 20 or not digits.isdigit():
        return None
    if text[-7:-6] == b".":
        time_ns = int(digits) * 1000
    elif text[-10:-9] == b".":
        time_ns = int(digits)
    else:
        return None
    return time_ns if time_ns >> 63 == 0 else None


def _who(left: bytes) -> _Who:
    """What stands before the time."""
    if found := _WHO.match(left):
        return _Who(_text(found[1] or b""), _number(found[2]), _number(found[3]), _number(found[4]))
    found = _NO_TASK.match(left.lstrip())
    return _Who(_text(found[1]), None, None, _number(found[2])) if found else _NOBODY


def _untimed(line: bytes) -> _Head | None:
    """A first line without a time, where less tells what it is: a thread's number has to stand before the event."""
    first = None
    for found in itertools.islice(_EVENT.finditer(line), _CANDIDATES):
        first = first or found
        left, period = _without_period(line[: found.start(1)])
        if _WHO.match(left):
            if found[1].replace(b".", b"").isdigit():  # a time cut short
                return None
            return _Head(_who(left), None, period, _text(found[1]), line[found.end() :], True)
    left, period = _without_period(line[: first.start(1)]) if first is not None else (line, None)
    if first is not None and not left.strip():
        rest = line[first.end() :]
        if not rest.strip() or _ADDRESS.match(rest):
            return _Head(_NOBODY, None, period, _text(first[1]), rest, False)
    behind = _IP_LAST.match(line)
    left, period = _without_period(behind[1] if behind else line)
    if not _WHO.match(left):
        return None
    return _Head(_who(left), None, period, "", behind[2] if behind else b"", behind is not None)


def _bare(line: bytes) -> _Head | None:
    """A first line with neither a time nor a thread, as far as one can tell."""
    if line.startswith((b"#", b"\t")):
        return None
    behind = _IP_BARE.match(line)
    left, rest, event = (behind[1], behind[2], "") if behind else (line, b"", "")
    if found := _EVENT_BARE.match(left) or _TRACEPOINT.match(left):
        left, event, rest = found[1], _text(found[2]), left[found.end() :] + rest
    left, period = _without_period(left)
    found = _BARE.match(left.lstrip())
    who = _Who(_text(found[1]), None, None, _number(found[2])) if found else _NOBODY
    return _Head(who, None, period, event, rest, False)


def _before(rest: bytes, end: int) -> bytes | None:
    """The end of a sample's line without what begins with the word that is at ``end``: up to the object, or that word."""
    word = max(rest.rfind(b" ", 0, end + 1), 0)
    if _ADDRESS.match(rest) or not rest[:word].strip():
        known = rest.rfind(b") ", 0, word + 1) + 1
        return rest[: known or word]
    return None  # a tracepoint's text


def _without_period(left: bytes) -> tuple[bytes, int | None]:
    last = _PERIOD_LAST.match(left)
    return (last[1], int(last[2])) if last and len(last[2]) >= _PERIOD_WIDTH else (left, None)


def _sample(head: _Head, stack: Stack | None) -> Sample:
    """A sample whose callchain is known."""
    who, time_ns, period, event, rest, _ = head
    address, text = None, ""
    if rest and not rest.isspace():
        if (found := _ADDRESS.match(rest)) and found.end() == 16:
            address = int(found[1], 16)
        else:
            text = _text(rest)
    return Sample(*who, time_ns, event, period, address, text, stack)


def _tail(rest: bytes) -> tuple[int | None, str, bytes]:
    """The end of a sample's only line: a data address, a tracepoint's text, and as in a callchain where that was."""
    if b" => " in rest and (branch := _TO.match(rest)):
        return int(branch[2], 16), "", branch[1].strip()
    found = _ADDRESS.match(rest)
    if found is None:
        behind = _IP_AFTER_TEXT.match(rest) if rest.endswith(b")") else None
        return None, _text(behind[1] if behind else rest), behind[2] if behind else b""
    if after := _IP_AFTER.match(rest):
        address = _ADDRESS.match(after[1])
        return int(address[1], 16) if address else None, "", after[2]
    if found.end() == 16:
        return int(found[1], 16), "", b""
    # not as wide as perf prints it: somebody squeezed the spaces
    return (None, "", rest.strip()) if len(found[1]) >= 6 or found.end() > 16 else (None, _text(rest), b"")


def _without_module(name: bytes) -> tuple[bytes, bytes]:
    """A symbol and the object it is in, of "SYMBOL (OBJECT)": both may have spaces and parentheses of their own."""
    if not name.endswith(b")"):
        return name, b""
    begin = max(name.rfind(b" (/"), name.rfind(b" (["))
    if begin < 0:
        depth = 0
        for at in range(len(name) - 1, -1, -1):
            depth += (name[at] == 0x29) - (name[at] == 0x28)
            if not depth:
                begin = at - 1
                break
        if begin >= 0 and name[begin] != 0x20:  # the parameters of a function
            return name, b""
    return name[: max(begin, 0)].rstrip(), name[begin + 2 : -1]


def _in_kernel(address: int, module: bytes) -> bool:
    """perf does not print which one it was, and names in brackets are others' too ("[JIT app cache]"): the address tells.

    Of a kernel of 32 bits it does not, nor does an offset in a file of the kernel's.
    """
    if address >> 63:
        return not module.startswith(b"[vsyscall]")
    return module.startswith(_KERNEL_NAMES) or module.endswith(_KERNEL_FILES)
