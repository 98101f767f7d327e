"""From events that carry stacks to weighted stacks: what a flame graph shows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from gotrace.analysis import flame
from gotrace.analysis.causes import Explanation, stack_of
from gotrace.analysis.flame import Profile
from gotrace.analysis.stacks import USER, Frame, StackTable

Numbers = npt.NDArray[np.uint64]
Weighted = dict[tuple[Frame, ...], tuple[int, int]]

NOT_KNOWN = "[unknown stack]"

# Where the scheduler parks a thread that has no goroutine to run, and where one that looks for work, or the runtime's own
# thread, sleeps.
_PARKS = {"runtime.stopm", "runtime.stoplockedm", "runtime.mPark", "runtime.templateThread"}
_WATCHES = {"runtime.findRunnable", "runtime.sysmon"}
_SLEEPS = {"runtime.netpoll", "runtime.usleep", "runtime.notesleep", "runtime.notetsleep"}
_LOCK = "runtime.lock2"

# The kernel's way from a tracepoint to the program that takes the stack.
_OF_TRACING = ("__traceiter_", "__bpf_trace_", "bpf_trace_run")


def is_idle(stack: Iterable[Frame]) -> bool:
    """Whether a thread that is off the CPU there has nothing to do: it waits for a goroutine, not for a lock, to run on."""
    names = {frame.function for frame in stack}
    return _LOCK not in names and bool(names & _PARKS or (names & _WATCHES and names & _SLEEPS))


class Collector:
    """Adds up the weights of equal stacks: a user's and a kernel's each (0 for none). Memory grows with distinct ones.

    ``left_out`` is the weight that `profile` left out.
    """

    def __init__(self, stacks: StackTable) -> None:
        self._stacks = stacks
        self._sums: dict[tuple[int, int], list[int]] = {}
        self.count = 0
        self.weight = 0
        self.left_out = 0

    def add(self, user: Numbers, kernel: Numbers, weights: npt.NDArray[np.int64]) -> None:
        """One row each."""
        if not len(user):
            return
        order = np.lexsort((kernel, user))
        user, kernel, weights = user[order], kernel[order], weights[order]
        change = (user[1:] != user[:-1]) | (kernel[1:] != kernel[:-1])
        begins = np.flatnonzero(np.concatenate([[True], change]))
        sums = np.add.reduceat(weights, begins)
        counts = np.diff(begins, append=len(user))
        for *pair, weight, count in zip(
            *(each.tolist() for each in (user[begins], kernel[begins], sums, counts)), strict=True
        ):
            total = self._sums.setdefault((pair[0], pair[1]), [0, 0])
            total[0] += weight
            total[1] += count
            self.weight += weight
            self.count += count

    def _in_kernel(self, stack: int) -> list[Frame]:
        frames = self._stacks.frames(stack)
        own = [number for number, frame in enumerate(frames[:8]) if frame.function.startswith(_OF_TRACING)]
        return frames[own[-1] + 1 :] if own else frames

    def profile(self, unit: str, within: str = "", idle: bool = True) -> Profile:
        """What was added; with ``within`` only stacks in which that function is, without ``idle`` none that `is_idle`."""
        merged: Weighted = {}
        self.left_out = 0
        for (user, kernel), (weight, count) in self._sums.items():
            inner = self._stacks.frames(user) or [Frame(NOT_KNOWN, "", 0, "", USER)]
            stack = tuple(reversed([*self._in_kernel(kernel), *inner]))
            if within and not any(frame.function == within for frame in stack):
                continue
            if not idle and is_idle(inner):
                self.left_out += weight
                continue
            _add(merged, stack, weight, count)
        return flame.profile_of(merged, unit)


def of_stragglers(told: Iterable[Explanation], stacks: StackTable, only_stopping: bool) -> Profile:
    """Whom the world waited for: the class of each piece of the stops, and the code that the thread was in then.

    That is where it left the CPU, or where the preemption signal reached it last. Weights are nanoseconds, counts pieces.
    """
    merged: Weighted = {}
    for each in told:
        for piece in each.stopping if only_stopping else each.pieces:
            if not piece.length:
                continue
            code = stacks.frames(stack_of(piece, each.stop))
            stack = (Frame(f"[{piece.kind}]", "", 0, "", USER), *reversed(code))
            _add(merged, stack, piece.length, 1)
    return flame.profile_of(merged)


def _add(merged: Weighted, stack: tuple[Frame, ...], weight: int, count: int) -> None:
    had = merged.get(stack, (0, 0))
    merged[stack] = (had[0] + weight, had[1] + count)
