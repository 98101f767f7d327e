"""Page faults of memory that the runtime had returned to the kernel, and those that NUMA balancing provoked.

What ``probes/refaults.py`` has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gotrace.analysis.columns import Array, Kinds

# What of a fault's time goes to measuring it: between the two programs lie most of the first one, and of the kernel's way
# into both. [RUN: docs/limits.md]
MEASURING_NS = 400

TOLD = np.dtype(
    [
        ("time_ns", "<i8"),  # CLOCK_MONOTONIC: the end of the last of them
        ("kept", "<i8"),  # how many faults, in which the thread kept its CPU
        ("kept_ns", "<i8"),  # without `MEASURING_NS` of each
        ("lost", "<i8"),  # and in which it lost it
        ("lost_ns", "<i8"),
        ("moved", "<i8"),  # pages that balancing moved in them
        ("address", "<u8"),  # of the last of them
        ("cpu", "<i8"),
        ("stack", "<u8"),  # who had returned their pages
    ]
)


@dataclass(frozen=True)
class Taken:
    """So many faults ``kept`` their CPU, and so many ``lost`` it; how long they took; and the pages ``moved`` in them."""

    kept: int = 0
    kept_ns: int = 0
    lost: int = 0
    lost_ns: int = 0
    moved: int = 0

    def __add__(self, other: Taken) -> Taken:
        return Taken(
            self.kept + other.kept,
            self.kept_ns + other.kept_ns,
            self.lost + other.lost,
            self.lost_ns + other.lost_ns,
            self.moved + other.moved,
        )


@dataclass
class Refaults:
    """Adds up: bytes ``returned`` by stack, the faults ``of`` pages that each had returned, and ``hinting`` faults."""

    kinds: Kinds
    returned: dict[int, int] = field(default_factory=dict)
    unfollowed: int = 0  # of these bytes, whose faults were not
    of: dict[int, Taken] = field(default_factory=dict)
    hinting: Taken = Taken()

    def add(self, events: Array) -> tuple[Array, Array]:
        """What ``events`` tell of faults of returned pages, and of hinting faults: of TOLD."""
        returned = self.kinds.of(events, "returned")
        for stack, size in returned[["stack", "bytes"]].tolist():
            self.returned[stack] = self.returned.get(stack, 0) + size
        self.unfollowed += int(returned["unfollowed"].sum())
        refaults, hinting = self._told(events, "refaults"), self._told(events, "hinting")
        for stack in np.unique(refaults["stack"]).tolist():
            self.of[stack] = self.of.get(stack, Taken()) + _sum(refaults[refaults["stack"] == stack])
        self.hinting += _sum(hinting)
        return refaults, hinting

    def _told(self, events: Array, kind: str) -> Array:
        found = self.kinds.of(events, kind)
        out = np.zeros(len(found), TOLD)
        for name in {*(out.dtype.names or ())} & {*(found.dtype.names or ())}:
            out[name] = found[name].astype(out.dtype[name])
        out["kept"], out["lost"] = found["counts"] & np.uint64(0xFFFFFFFF), found["counts"] >> np.uint64(32)
        out["kept_ns"] = np.maximum(out["kept_ns"] - out["kept"] * MEASURING_NS, 0)
        return out


def _sum(told: Array) -> Taken:
    return Taken(*(int(told[name].sum()) for name in ("kept", "kept_ns", "lost", "lost_ns", "moved")))
