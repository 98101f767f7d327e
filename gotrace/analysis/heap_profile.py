"""The runtime's sampled heap profile: what its samples stand for, and what grew between two of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeapProfile:
    """What was sampled by stack: return addresses, innermost first, link-time, and how large each object is.

    ``allocs`` and ``frees`` are sampled objects. A profile ``published`` ends with the cycle before the last, as pprof has
    it; otherwise it is of all samples up to now. ``rate`` is how many bytes are allocated from one sample to the next.
    """

    stacks: list[tuple[int, ...]]
    sizes: Numbers
    allocs: Numbers
    frees: Numbers
    rate: int
    cycle: int
    published: bool

    def estimates(self) -> dict[str, Numbers]:
        """Objects and bytes that were allocated, and of these in use, by stack: what the samples stand for.

        An object is sampled with a probability of 1 - exp(-size / rate) (scaleHeapSample of runtime/pprof/protomem.go).
        """
        sizes = self.sizes.astype(np.float64)
        with np.errstate(over="ignore", divide="ignore"):
            scale = 1 / -np.expm1(-sizes / self.rate) if self.rate > 1 else np.ones(len(sizes))
        scale[~np.isfinite(scale)] = 1.0
        found = {}
        for name, objects in (("alloc", self.allocs), ("inuse", self.allocs - self.frees)):
            found[f"{name}_objects"] = (objects * scale).astype(np.int64)
            found[f"{name}_bytes"] = (objects * sizes * scale).astype(np.int64)
        return found


def between(before: HeapProfile, after: HeapProfile) -> HeapProfile:
    """What was allocated from one profile of a process to a later one; nothing of it counts as in use."""
    old = dict(zip(zip(before.stacks, before.sizes.tolist(), strict=True), before.allocs.tolist(), strict=True))
    known = [old.get(key, 0) for key in zip(after.stacks, after.sizes.tolist(), strict=True)]
    allocs = np.maximum(after.allocs - np.array(known, np.int64), 0)
    return replace(after, allocs=allocs, frees=allocs)


def by_stack(profile: HeapProfile) -> dict[tuple[int, ...], dict[str, int]]:
    """The estimates of each stack, of whatever sizes its objects are, and how many allocations of it were sampled."""
    found: dict[tuple[int, ...], dict[str, int]] = {}
    columns = {name: values.tolist() for name, values in profile.estimates().items()} | {"samples": profile.allocs.tolist()}
    for number, stack in enumerate(profile.stacks):
        sums = found.setdefault(stack, dict.fromkeys(columns, 0))
        for name, values in columns.items():
            sums[name] += values[number]
    return found
