"""The runtime's mutex and block profiles: by stack, how often and how long goroutines waited for one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Of the code that let others wait for a lock, at its unlock; of the code that waited, for whatever.
MUTEX, BLOCK = "mutex", "block"


@dataclass(frozen=True)
class Contention:
    """By stack (return addresses, innermost first, link-time) how many waits there were, and how long all of them, in ns.

    Both are estimates of the runtime, which samples: that they are of all waits is its own arithmetic (mprof.go).
    """

    stacks: list[tuple[int, ...]]
    counts: npt.NDArray[np.float64]
    delays_ns: npt.NDArray[np.float64]
