"""Objects of each `sync.Pool` that collections dropped, and that were made anew: what ``probes/pool.py`` has seen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gotrace.analysis.columns import Array, Kinds

REFILL = np.dtype(
    [
        ("time_ns", "<i8"),  # CLOCK_MONOTONIC
        ("pool", "<u8"),
        ("stack", "<u8"),  # who asked the pool for an object
        ("object_bytes", "<i8"),  # with the array behind a slice that it begins with
        ("private", "<i8"),  # 1: what was dropped had been in reach of one P only
        ("kept", "<i8"),  # objects that would still be in the pool, had none been dropped
    ]
)


@dataclass
class Pools:
    """Adds up by pool. ``unfinished`` is how many collections had more than could be looked at."""

    kinds: Kinds
    dropped: dict[int, int] = field(default_factory=dict)
    collections: dict[int, int] = field(default_factory=dict)  # that dropped something
    most_kept: dict[int, int] = field(default_factory=dict)
    unfinished: int = 0

    def add(self, events: Array) -> Array:
        """The refills among ``events``, of REFILL."""
        dropped = self.kinds.of(events, "pool_dropped")
        pools, which = np.unique(dropped["pool"], return_inverse=True)
        objects = np.zeros(len(pools), np.int64)
        np.add.at(objects, which, (dropped["shared"] + dropped["private"]).astype(np.int64))
        for pool, count, collections in zip(pools.tolist(), objects.tolist(), np.bincount(which).tolist(), strict=True):
            if not pool:
                self.unfinished += collections
                continue
            self.dropped[pool] = self.dropped.get(pool, 0) + count
            self.collections[pool] = self.collections.get(pool, 0) + collections
        found = self.kinds.of(events, "pool_refill")
        out = np.zeros(len(found), REFILL)
        for name in out.dtype.names or ():
            out[name] = found[name].astype(out.dtype[name])
        pools, which = np.unique(out["pool"], return_inverse=True)
        most = np.zeros(len(pools), np.int64)
        np.maximum.at(most, which, out["kept"] + 1)
        for pool, kept in zip(pools.tolist(), most.tolist(), strict=True):
            self.most_kept[pool] = max(self.most_kept.get(pool, 0), kept)
        return out
