"""Stacks as ``ebpf/stack.bpf.h`` walks them by frame records, completed.

Go makes frame records on both architectures, so a walk sees a goroutine's whole stack, but for these:

* the immediate caller, at a place without a frame record: `StackTable` puts it in;
* on the system stack of ARM64 the kernel's walk ends at ``runtime.systemstack``: up to Go 1.24 always, from 1.25 on unless
  the goroutine's stack lies at a higher address than the thread's (the kernel follows records upwards only, see
  user_backtrace in arch/arm64/kernel/perf_callchain.c), so there the probe walks. On x86-64 it goes on into the goroutine;
* on ARM64 up to Go 1.20 the records of a stack that has grown still point into the old one: only the innermost frames,
  and not the outermost ``runtime.goexit``, can be relied on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# The kinds of frames. A frameless function has no frame record at that place, so that the walk by records has missed its
# caller; of one that is entering (or leaving) the record is being made or taken away, and only registers tell whether it is
# there; an inlined one was compiled into the function that follows.
USER, INLINED, KERNEL, FRAMELESS, ENTERING = "user", "inlined", "kernel", "frameless", "entering"


class Frame(NamedTuple):
    """One function at an address; ``line`` is 0 where it is not known. Names are the target's: escape them."""

    function: str
    file: str
    line: int
    module: str
    kind: str


def no_frames(addresses: Sequence[int]) -> Sequence[Frame]:
    """Where no names are to be had."""
    return ()


# Flags of a stack's `place`, beside the number of its addresses. HAS_CALLER (ebpf/stack.bpf.h): in front of
# them stands the innermost function's caller in case that function has no frame record, or 0; with NO_RECORD if it has none
# for certain. EXACT: every address is to be looked up as it is; otherwise all but the innermost are return addresses, whose
# call is one byte before.
HAS_CALLER, EXACT, NO_RECORD = 1 << 63, 1 << 62, 1 << 63
_FLAGS = HAS_CALLER | EXACT

# The parts of a stack are emitted back to back: of one that is older than so many others the rest was lost.
_INCOMPLETE = 1024

# Go calls it to leave a goroutine that waits: what its thread does next is on nobody's behalf.
_LEAVES_GOROUTINE = "runtime.mcall"


class StackTable:
    """The stacks that arrive in events of the kind called "stack"; ``kinds`` are its numbers.

    ``frames(addresses)`` are the functions at addresses of the target, inlined ones too, each innermost first.
    """

    def __init__(self, kinds: Iterable[int], frames: Callable[[Sequence[int]], Sequence[Frame]]) -> None:
        self._kinds = np.array(sorted(kinds), np.uint16)
        self._frames = frames
        self._parts: dict[int, dict[int, list[int]]] = {}
        self._whole: dict[int, tuple[int, ...]] = {}
        self._callers: dict[int, tuple[int, tuple[str, ...]]] = {}  # with the kinds of innermost frames that it is for

    def feed(self, events: npt.NDArray[np.void]) -> list[int]:
        """Take the stacks out of a batch of events; returns the numbers of those that became whole."""
        wanted = np.flatnonzero(np.isin(events["kind"], self._kinds))
        done = []
        for _, _, _, _, stack, place, *addresses in events.take(wanted).tolist():
            if stack in self._whole:
                continue
            parts = self._parts.setdefault(stack, {})
            parts[place & 0xFFFFFFFF] = addresses
            length = (place & ~_FLAGS) >> 32
            if 3 * len(parts) >= length:
                whole = [address for at in sorted(parts) for address in parts[at]][:length]
                before = 0 if place & EXACT else 1
                caller = whole.pop(0) if place & HAS_CALLER else 0
                if caller:
                    kinds = (FRAMELESS, ENTERING) if caller & NO_RECORD else (FRAMELESS,)
                    self._callers[stack] = ((caller & ~NO_RECORD) - before, kinds)
                # A walk may end in a 0, where a stack has no root.
                self._whole[stack] = tuple(whole[:1] + [address - before for address in whole[1:] if address])
                del self._parts[stack]
                done.append(stack)
        for stack in list(self._parts)[:-_INCOMPLETE]:
            del self._parts[stack]
        return done

    def addresses(self, stack: int) -> tuple[int, ...]:
        """Every address that `frames` may look up."""
        return self._whole.get(stack, ()) + self._callers.get(stack, ())[:1]

    def frames(self, stack: int) -> list[Frame]:
        """The functions of a stack, innermost first; empty if it is not known: none was taken, or its frames were lost.

        The caller that has no frame record is put in; what belongs to a goroutine that the thread has left is taken away.
        """
        addresses = self._whole.get(stack, ())
        found = list(self._frames(addresses[:1]))
        caller, kinds = self._callers.get(stack, (0, ()))
        # Linux 6.12 and later put it in themselves, on x86-64 and while a uprobe runs: not twice.
        if found and found[-1].kind in kinds and caller not in addresses[1:2]:
            addresses = (*addresses[:1], caller, *addresses[1:])
        found += self._frames(addresses[1:])
        for number, frame in enumerate(found):
            if frame.function == _LEAVES_GOROUTINE:
                return found[: number + 1]
        return found

    def names(self, stack: int) -> list[str]:
        """`frames`, their names alone."""
        return [frame.function for frame in self.frames(stack)]
