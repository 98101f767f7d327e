"""Reading the BPF ring buffer in bulk: everything between two positions is one numpy array.

The kernel maps a ring buffer as: the consumer position's page (ours to write), the producer position's page, then the
data area. Every record is one ``struct event`` behind the kernel's 8-byte header (length and flags, page offset), 64 bytes
in all: none lies across the end, so that we do without the area's second mapping, which would count as memory again. It is
for records of other lengths (`RingReader`'s ``of_many``).
"""

from __future__ import annotations

import functools
import mmap
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gotrace.kernel.barrier import Barrier

_BUSY, _DISCARD = 1 << 31, 1 << 30
_C_TYPES = {"u8": "u1", "u16": "<u2", "u32": "<u4", "u64": "<u8"}


def event_dtype(header_text: str) -> np.dtype[np.void]:
    """The numpy dtype of ``struct event``, from the C header's text.

    Raises ValueError when the struct is absent, has a type we do not know, or would need implicit padding.
    """
    struct = re.search(r"struct event \{(.*?)\n\};", header_text, re.S)
    if struct is None:
        raise ValueError("no struct event in the header")
    body = re.sub(r"/\*.*?\*/", "", struct.group(1), flags=re.S)
    fields = re.findall(r"(\w+)\s+(\w+)\s*;", body)
    if len(fields) != body.count(";") or any(kind not in _C_TYPES for kind, _ in fields):
        raise ValueError("struct event has a field that is not a plain unsigned integer")
    packed = np.dtype([(name, _C_TYPES[kind]) for kind, name in fields])
    aligned = np.dtype([(name, _C_TYPES[kind]) for kind, name in fields], align=True)
    if packed.itemsize != aligned.itemsize or packed.fields != aligned.fields:
        raise ValueError("struct event has implicit padding")
    return packed


@functools.cache
def wire_dtype() -> np.dtype[np.void]:
    """The dtype of an event as it travels: time_ns, tid, kind, cpu, a, b, c, d, e (56 bytes)."""
    from gotrace.kernel.compiler import ebpf_folder

    with open(f"{ebpf_folder()}/include/event.h") as file:
        return event_dtype(file.read())


Events = npt.NDArray[np.void]


def no_events() -> Events:
    """None, as an array."""
    return np.zeros(0, wire_dtype())


def within(events: Events, begin_ns: int, end_ns: int, always: list[int]) -> Events:
    """Those of [begin_ns, end_ns), and all of the kinds ``always``."""
    times = events["time_ns"]
    wanted = (times >= begin_ns) & (times < end_ns)
    if wanted.all():
        return events
    return events[wanted | np.isin(events["kind"], always)]


def windows(kind: int, ended: Sequence[tuple[int, int]]) -> Events:
    """(begin, end) of windows as events of a `gotrace.probe.window_kind`."""
    events = np.zeros(len(ended), wire_dtype())
    events["kind"] = kind
    if ended:
        events["a"], events["time_ns"] = zip(*ended, strict=True)
    return events


class RingReader:
    """The consumer's end of a ring buffer that carries ``struct event`` records.

    ``received`` counts the events read so far. One reader per ring. ``of_many``: each says too which process's it is.
    """

    def __init__(self, map_fd: int, size: int, of_many: bool = False) -> None:
        self.received = 0
        self._size = size
        page = mmap.PAGESIZE
        self._consumer_page = mmap.mmap(map_fd, page)
        whose = [("tgid", "<u8")] if of_many else []
        self._record = np.dtype([("length", "<u4"), ("page", "<u4"), ("event", wire_dtype()), *whose])
        self._mapped = 2 * size if size % self._record.itemsize else size
        self._shared = mmap.mmap(map_fd, page + self._mapped, prot=mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_page, np.uint64, 1)
        self._producer = np.frombuffer(self._shared, np.uint64, 1)
        self._barrier = Barrier()

    def read(self) -> Events:
        """Every complete event since the last call, oldest first, as a copy of our own."""
        events: Events = self.read_records()["event"].copy()
        return events

    def read_by_process(self) -> dict[int, Events]:
        """The same of a ring for many, by the numbers of their processes."""
        records = self.read_records()
        records = records[np.argsort(records["tgid"], kind="stable")]
        numbers, first = np.unique(records["tgid"], return_index=True)
        return dict(zip(numbers.tolist(), np.split(records["event"].copy(), first[1:]), strict=False))

    def read_records(self) -> Events:
        """As `read`, each with what stands around it in the ring."""
        producer = int(self._producer[0])
        self._barrier()  # the position first, then the records it covers
        consumer = int(self._consumer[0])
        count = (producer - consumer) // self._record.itemsize
        first = consumer % self._size
        before_end = min(count, (self._mapped - first) // self._record.itemsize)
        records = np.frombuffer(self._shared, self._record, before_end, mmap.PAGESIZE + first)
        if before_end < count:
            others = np.frombuffer(self._shared, self._record, count - before_end, mmap.PAGESIZE)
            records = np.concatenate([records, others])
        busy = np.flatnonzero(records["length"] & _BUSY)
        if len(busy):
            records = records[: busy[0]]
        found: Events = records[(records["length"] & _DISCARD) == 0] if _any_discarded(records) else records.copy()
        self._barrier()  # the copy is finished before the kernel may reuse its place
        self._consumer[0] = consumer + len(records) * self._record.itemsize
        self.received += len(found)
        return found

    def fill(self) -> float:
        """How full the ring is, 0 to 1."""
        return (int(self._producer[0]) - int(self._consumer[0])) / self._size


def _any_discarded(records: npt.NDArray[np.void]) -> bool:
    return bool(len(records)) and bool((records["length"] & _DISCARD).any())
