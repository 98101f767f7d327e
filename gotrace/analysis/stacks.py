"""User stacks as the kernel walks them by frame records, completed.

Go makes frame records on both architectures, so bpf_get_stack sees a goroutine's whole stack, but for these:

* the immediate caller, at a place without a frame record: `with_caller`;
* on the system stack of ARM64 the walk ends at ``runtime.systemstack``: up to Go 1.24 always, from 1.25 on unless the
  goroutine's stack lies at a higher address than the thread's (the kernel follows records upwards only, see
  user_backtrace in arch/arm64/kernel/perf_callchain.c). On x86-64 it goes on into the goroutine;
* on ARM64 up to Go 1.20 the records of a stack that has grown still point into the old one: only the innermost frames,
  and not the outermost ``runtime.goexit``, can be relied on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Addresses = npt.NDArray[np.uint64]

# The kinds of frames. A frameless function has no frame record at that place, so that the walk by records has missed its
# caller; an inlined one was compiled into the function that follows.
USER, INLINED, KERNEL, FRAMELESS = "user", "inlined", "kernel", "frameless"


class Frame(NamedTuple):
    """One function at an address; ``line`` is 0 where it is not known. Names are the target's: escape them."""

    function: str
    file: str
    line: int
    module: str
    kind: str


def with_caller(stacks: Addresses, callers: Addresses) -> Addresses:
    """Put the immediate caller into stacks taken where the function had no frame record yet, or none any more.

    There (at an entry, at a return, in a leaf) the kernel goes straight from the program counter to the caller's caller.
    ``stacks`` are rows of addresses, innermost first, padded with 0; ``callers`` the return address of each: the link
    register on ARM64, the word at SP on x86-64. The result has one column more.

    Only for kernels that do not do so themselves. Linux 6.12 and later do on x86-64, on the instruction that pushes the
    frame pointer (is_uprobe_at_func_entry in arch/x86/events/core.c); none does on ARM64. It cannot be told from a
    stack alone: a recursive function's caller and its caller's caller may be the same address.
    """
    return np.concatenate([stacks[:, :1], callers[:, None], stacks[:, 1:]], axis=1)


class StackTable:
    """The stacks that arrive in events of the kind called "stack", three addresses each; ``kinds`` are its numbers.

    ``lookups(stack)`` are the addresses to resolve, innermost first: the innermost is where the thread was, every other a
    return address, whose call is one byte before.
    """

    def __init__(self, kinds: Iterable[int]) -> None:
        self._kinds = np.array(sorted(kinds), np.uint16)
        self._parts: dict[int, dict[int, list[int]]] = {}
        self._whole: dict[int, tuple[int, ...]] = {}

    def feed(self, events: npt.NDArray[np.void]) -> list[int]:
        """Take the stacks out of a batch of events; returns the numbers of those that became whole."""
        wanted = np.flatnonzero(np.isin(events["kind"], self._kinds))
        done = []
        for _, _, _, _, stack, place, *addresses in events.take(wanted).tolist():
            if stack in self._whole:
                continue
            parts = self._parts.setdefault(stack, {})
            parts[place & 0xFFFFFFFF] = addresses
            length = place >> 32
            if 3 * len(parts) >= length:
                whole = [address for at in sorted(parts) for address in parts[at]][:length]
                # A walk may end in a 0, where a stack has no root.
                self._whole[stack] = tuple(whole[:1] + [address - 1 for address in whole[1:] if address])
                del self._parts[stack]
                done.append(stack)
        return done

    def lookups(self, stack: int) -> tuple[int, ...]:
        """Empty for a stack that is not known: none could be taken, or its frames were lost."""
        return self._whole.get(stack, ())
