"""Stacks as ``ebpf/stack.bpf.h`` walks them by frame records, completed.

Go makes frame records on both architectures, so a walk sees a goroutine's whole stack, but for these:

* the immediate caller, at a place without a frame record: `StackTable` puts it in;
* where the thread is on another stack than the goroutine's: the walk says how it goes on. Linux 5.14 and earlier cannot
  walk so: there stacks that have to grow begin at ``runtime.morestack``, and callbacks where C has no records;
* on ARM64 up to Go 1.20 the records of a stack that has grown still point into the old one: only the innermost frames,
  and not the outermost ``runtime.goexit``, can be relied on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import named

# The kinds of frames. A frameless function has no frame record at that place, so that the walk by records has missed its
# caller; of one that is entering (or leaving) the record is being made or taken away, and only registers tell whether it is
# there; an inlined one was compiled into the function that follows.
USER, INLINED, KERNEL, FRAMELESS, ENTERING = "user", "inlined", "kernel", "frameless", "entering"


class Frame(NamedTuple):
    """One function at an address; ``line`` is 0 if unknown. Names are the target's: escape them."""

    function: str
    file: str
    line: int
    module: str
    kind: str


# Of an address at which the process has no code. At the end of a walk it is none: C keeps other things in the frame
# pointer's register, and the walk took one of them for a frame.
NOWHERE = Frame("[unknown]", "", 0, "", USER)


def no_frames(addresses: Sequence[int]) -> Sequence[Frame]:
    """For targets without names."""
    return ()


# Flags of a stack's `place`, beside the number of its addresses. HAS_CALLER (ebpf/stack.bpf.h): in front of
# them stands the innermost function's caller in case that function has no frame record, or 0; with NO_RECORD if it has none
# for certain. EXACT: every address is to be looked up as it is; otherwise all but the innermost are return addresses, whose
# call is one byte before.
HAS_CALLER, EXACT, NO_RECORD = 1 << 63, 1 << 62, 1 << 63
_FLAGS = HAS_CALLER | EXACT
_USER_END, _END = 1 << 63, 1 << 64

# The parts of a stack are emitted back to back: of one that is older than so many others the rest was lost.
_INCOMPLETE = 1024

# Go calls it to leave a goroutine that waits: what its thread does next is on nobody's behalf. Where a stack has to grow
# the goroutine may be left as well, for another that waits for the CPU.
_LEAVES_GOROUTINE, _MAY_LEAVE, _NEXT_GOROUTINE = "runtime.mcall", "runtime.morestack", "runtime.schedule"
# Where C calls Go, and Go C. What is no code in between is what C has in the frame pointer's register, or where crosscall2
# saves registers (PUSH_REGS_HOST_TO_ABI0 in runtime/cgo/abi_amd64.h).
_FROM_C, _INTO_C = "crosscall2", ("runtime.asmcgocall", "runtime.cgocall")


# Of events of the kind "stack".
COLUMNS = ("stack", "place", "pc0", "pc1", "pc2")


class StackTable:
    """The stacks that arrive in events of the kind called "stack"; ``kinds`` are its numbers.

    ``frames(addresses)`` are the functions at addresses of the target, inlined ones too, each innermost first.
    """

    def __init__(self, kinds: Iterable[int], frames: Callable[[Sequence[int]], Sequence[Frame]]) -> None:
        self._kinds = np.array(sorted(kinds), np.uint16)
        self._frames = frames
        self._parts: dict[int, dict[int, list[int]]] = {}
        self._whole: dict[int, tuple[int, ...]] = {}
        self._exact: set[int] = set()
        self._callers: dict[int, tuple[int, tuple[str, ...]]] = {}  # with the kinds of innermost frames that it is for

    def feed(self, events: npt.NDArray[np.void]) -> list[int]:
        """Take the stacks out of a batch of events; returns the numbers of those that became whole."""
        wanted = np.flatnonzero(np.isin(events["kind"], self._kinds))
        done = []
        for stack, place, *addresses in named(events.take(wanted), COLUMNS)[list(COLUMNS)].tolist():
            if stack in self._whole:
                continue
            parts = self._parts.setdefault(stack, {})
            parts[place & 0xFFFFFFFF] = addresses
            length = (place & ~_FLAGS) >> 32
            if 3 * len(parts) >= length:
                whole = [address for at in sorted(parts) for address in parts[at]][:length]
                before = 0 if place & EXACT else 1
                if not before:
                    self._exact.add(stack)
                caller = whole.pop(0) if place & HAS_CALLER else 0
                if caller:
                    kinds = (FRAMELESS, ENTERING) if caller & NO_RECORD else (FRAMELESS,)
                    self._callers[stack] = ((caller & ~NO_RECORD) - before, kinds)
                # A walk may end in a 0, where a stack has no root; and in the kernel there is no user's code.
                most = _USER_END if place & HAS_CALLER else _END
                self._whole[stack] = tuple(whole[:1] + [address - before for address in whole[1:] if 0 < address < most])
                del self._parts[stack]
                done.append(stack)
        for stack in list(self._parts)[:-_INCOMPLETE]:
            del self._parts[stack]
        return done

    def addresses(self, stack: int) -> tuple[int, ...]:
        """Every address that `frames` may look up."""
        return self._whole.get(stack, ()) + self._callers.get(stack, ())[:1]

    def caller(self, stack: int) -> int:
        """Where the innermost function was called, if it has no frame record, as `frames` would look it up; 0 for none."""
        return self._callers.get(stack, (0, ()))[0]

    def frames(self, stack: int) -> list[Frame]:
        """The functions of a stack, innermost first; empty if unknown: none was taken, or its frames were lost.

        The caller that has no frame record is put in; what belongs to a goroutine that the thread has left is taken away,
        and what is no code.
        """
        addresses = self._whole.get(stack, ())
        found = list(self._frames(addresses[:1]))
        caller, kinds = self._callers.get(stack, (0, ()))
        # Linux 6.12 and later put it in themselves, on x86-64 and while a uprobe runs: not twice.
        if found and found[-1].kind in kinds and caller not in addresses[1:2]:
            addresses = (*addresses[:1], caller, *addresses[1:])
        found += self._frames(addresses[1:])
        while stack not in self._exact and len(found) > 1 and found[-1] == NOWHERE:
            found.pop()
        return _on_its_behalf(found, stack in self._exact)

    def names(self, stack: int) -> list[str]:
        """`frames`, their names alone."""
        return [frame.function for frame in self.frames(stack)]


def _on_its_behalf(frames: list[Frame], exact: bool) -> list[Frame]:
    """Without what belongs to a goroutine that the thread has left, and what is no code on a way through C."""
    kept: list[Frame] = []
    in_c, scheduling = bool(frames) and not frames[0].file, False
    for frame in frames:
        if frame.function == _FROM_C:
            in_c = True
        elif frame.function in _INTO_C:
            in_c = False
        elif in_c and frame == NOWHERE and kept and not exact:
            continue
        kept.append(frame)
        scheduling |= frame.function == _NEXT_GOROUTINE
        if frame.function == _LEAVES_GOROUTINE or (frame.function == _MAY_LEAVE and scheduling):
            break
    return kept
