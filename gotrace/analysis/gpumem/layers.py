"""Calls of several layers, joined: each byte belongs to one space, however many layers reported it.

* A call of the driver that a call of the runtime made is the same one, and left out (the probe marks it).
* What `cudaMalloc` handed to PyTorch's allocator as a segment is that allocator's, from the event that says so on; and what
  was mapped for its expandable segments, too.
* What `cudaMalloc` refused a thread until PyTorch's allocator reports there that it is out of memory (it tries again when
  it has given back what it can) is one OOM, PyTorch's.

A free names no pool: it goes where its address was allocated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.gpumem import calls
from gotrace.analysis.gpumem.space import (
    ALLOC,
    EVENT,
    FREE,
    MAP,
    OOM,
    SEGMENT,
    SEGMENT_FREE,
    TRIM,
    UNMAP,
    Course,
    Space,
)

DIRECT, POOL, MAPPED, TORCH = "cudaMalloc", "pool", "mapped", "PyTorch"
UNKNOWN = -1  # a device

CALL = np.dtype(
    [
        *(("time_ns", "<i8"), ("tid", "<u4")),
        *((name, "<u8") for name in ("call", "address", "size", "stream", "pool")),
        ("trace", "?"),  # an event of PyTorch's allocator
    ]
)

_REQUESTS = {calls.OPS[name] for name in ("malloc", "managed", "pitch")}
_POOLED = {calls.OPS[name] for name in ("malloc_async", "malloc_from_pool")}
_TRACED = {
    "alloc": ALLOC,
    "free_completed": FREE,
    "segment_alloc": SEGMENT,
    "segment_free": SEGMENT_FREE,
    "segment_map": MAP,
    "segment_unmap": UNMAP,
    "oom": OOM,
}


class Key(NamedTuple):
    """A space: what kind, its device (-1: unknown), and its pool (0: the device's default) or allocator."""

    kind: str
    device: int
    handle: int


_MAPPINGS = Key(MAPPED, UNKNOWN, 0)


class Layers:
    """Sorts calls into spaces. Feed it in order of time."""

    def __init__(self) -> None:
        self.spaces: dict[Key, Space] = {}
        self.told: dict[Key, dict[int, tuple[int, int]]] = {}  # (time, value) of a pool's attributes, the last of each
        self.calls: Counter[tuple[str, bool]] = Counter()  # (name, whether it failed)
        self.nested = 0
        self.mem_info: tuple[int, int, int] | None = None  # time, free and total bytes of a device, when last asked
        self._device: dict[int, int] = {}  # by thread
        self._defaults: dict[int, int] = {}  # device by its default pool
        self._used: dict[int, int] = {}  # the pool that was chosen for a device
        self._owner: dict[int, Key] = {}  # by address
        self._mapped: dict[int, int] = {}  # size by address
        self._torchs: set[int] = set()  # addresses that are PyTorch's by now
        self._pending: dict[Key, list[tuple[int, int, int, int, int]]] = {}
        # Where requests were noted that a thread was refused since it was last served, and those that gave an address.
        self._refused: dict[int, list[tuple[Key, int]]] = {}
        self._handed: dict[int, tuple[Key, int]] = {}

    def feed(self, events: npt.NDArray[np.void]) -> None:
        """`CALL` rows, each of them by its number in ``row``."""
        self._pending = {}
        self._refused, self._handed = {}, {}
        for row, event in enumerate(events.tolist()):
            (self._trace if event[-1] else self._call)(row, *event[:-1])
        for key, rows in self._pending.items():
            kept = [each for each in rows if each[1]]
            space = self.spaces.get(key)
            if space is None and not kept:
                continue
            if space is None:
                space = self.spaces[key] = Space(told=key.kind in (TORCH, MAPPED), keeps=key.kind != DIRECT)
            space.feed(np.array(kept, EVENT))

    def courses(self) -> dict[Key, Course]:
        return {key: space.course() for key, space in self.spaces.items()}

    def _put(self, key: Key, time_ns: int, op: int, address: int, size: int, row: int) -> None:
        self._pending.setdefault(key, []).append((time_ns, op, address, size, row))

    def _call(self, row: int, time_ns: int, tid: int, word: int, address: int, size: int, _: int, pool: int) -> None:
        op, failed = word & 0xFF, word >> 16 & 0xFFFF
        if word >> 8 & 1:
            self.nested += 1
            return
        name = calls.NAMES.get(op, "unknown")
        self.calls[name, bool(failed)] += 1
        if op in _REQUESTS or op in _POOLED:
            device = self._device.get(tid, UNKNOWN)
            key = self._pool(pool or self._used.get(device, 0), device) if op in _POOLED else Key(DIRECT, device, 0)
            if not failed and size:
                self._refused.pop(tid, None)
                self._owner[address] = key
                self._torchs.discard(address)
                self._put(key, time_ns, ALLOC, address, size, row)
                self._handed[address] = key, len(self._pending[key]) - 1
            elif failed == calls.OUT_OF_MEMORY:
                self._put(key, time_ns, OOM, 0, size, row)
                self._refused.setdefault(tid, []).append((key, len(self._pending[key]) - 1))
        elif failed:
            return
        elif name in ("free", "free_async"):
            self._handed.pop(address, None)
            if address in self._torchs:
                self._torchs.discard(address)
            elif address:
                key = self._owner.pop(address, Key(POOL if name == "free_async" else DIRECT, UNKNOWN, 0))
                self._put(key, time_ns, FREE, address, 0, row)
        elif name == "map":
            self._mapped[address] = size
            self._put(_MAPPINGS, time_ns, MAP, address, size, row)
            self._handed[address] = _MAPPINGS, len(self._pending[_MAPPINGS]) - 1
        elif name == "unmap":
            self._unmapped(address, address + size, time_ns, row)
        elif name == "pool_trim":
            self._trimmed(pool, size, time_ns, row)
        elif name == "pool_destroy":
            self._trimmed(pool, 0, time_ns, row)
        elif name in ("pool_get", "pool_set"):
            self.told.setdefault(self._pool(pool, UNKNOWN), {})[address] = (time_ns, size)
        elif name == "mem_info":
            self.mem_info = (time_ns, address, size)
        elif name == "pool_default":
            self._defaults[address] = size
        elif name == "pool_use":
            self._used[address] = pool
        elif name == "set_device":
            self._device[tid] = address

    def _pool(self, pool: int, device: int) -> Key:
        """The space of a pool; ``device`` is that of the thread, which counts where no pool was named."""
        if not pool:
            return Key(POOL, device, 0)
        return Key(POOL, self._defaults[pool], 0) if pool in self._defaults else Key(POOL, UNKNOWN, pool)

    def _trimmed(self, pool: int, keep: int, time_ns: int, row: int) -> None:
        key = self._pool(pool, UNKNOWN)
        if key in self.spaces or key in self._pending:
            self._put(key, time_ns, TRIM, 0, keep, row)

    def _unmapped(self, begin: int, end: int, time_ns: int, row: int) -> None:
        """Mappings that are still the program's own leave."""
        for at in [at for at in self._mapped if begin <= at < end]:
            self._handed.pop(at, None)
            self._put(_MAPPINGS, time_ns, UNMAP, at, self._mapped.pop(at), row)

    def _trace(self, row: int, time_ns: int, tid: int, word: int, address: int, size: int, _: int, allocator: int) -> None:
        action = calls.ACTIONS[word & 0xFF] if word & 0xFF < len(calls.ACTIONS) else "unknown"
        op = _TRACED.get(action, 0)
        if not op:
            return
        key = Key(TORCH, word >> 8 & 0xFF, allocator)
        if op == SEGMENT:
            self._torchs.add(address)
            owner = self._owner.pop(address, None)
            if address in self._handed:  # by cudaMalloc, a moment ago
                self._drop(*self._handed.pop(address))
            elif owner is not None:
                self._put(owner, time_ns, FREE, address, 0, row)
        elif op == MAP:
            for at in [at for at in self._mapped if at in self._handed and address <= at < address + size]:
                self._drop(*self._handed.pop(at))
                del self._mapped[at]
            self._unmapped(address, address + size, time_ns, row)
        elif op == OOM:
            for where in self._refused.pop(tid, ()):
                self._drop(*where)
        self._put(key, time_ns, op, 0 if op == OOM else address, size, row)

    def _drop(self, key: Key, at: int) -> None:
        """What was noted there counts elsewhere."""
        time_ns, _, address, size, row = self._pending[key][at]
        self._pending[key][at] = (time_ns, 0, address, size, row)


def now(every: Iterable[Layers]) -> dict[str, Any]:
    """Bytes live and reserved, and the fragmentation of all that is free; without mappings, of which it is unknown."""
    spaces = [space for layers in every for key, space in layers.spaces.items() if key.kind != MAPPED]
    live, free, largest = (sum(each.sizes[at] for each in spaces) for at in range(3))
    return {"live": live, "reserved": live + free, "fragmentation": 1 - largest / free if free else 0.0}


def joined(events: list[npt.NDArray[np.void]]) -> npt.NDArray[np.void]:
    """`CALL` rows in order of time: a free is of its call, and reported when that has returned."""
    whole = np.concatenate(events) if events else np.zeros(0, CALL)
    return whole[np.argsort(whole["time_ns"], kind="stable")]
