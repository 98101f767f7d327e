"""Stacks of goroutines that do not run, walked as the runtime walks them: by its table of how far functions move SP.

Frame records are not needed, so that every release, every function and both architectures are walked alike
(runtime/traceback.go). All goroutines are walked together, a level at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gotrace.binary.pclntab import SP_WRITE, TOP_FRAME

if TYPE_CHECKING:
    from gotrace.arch import Arch
    from gotrace.binary.pclntab import Pclntab

U64 = npt.NDArray[np.uint64]
Left = tuple[U64, U64, U64]  # PC, SP and LR of each
_MOST_FRAMES = 1 << 14
# Behind these a function is not called but was interrupted: its address is one of an instruction, not of a return.
_INJECTED = ("runtime.sigpanic", "runtime.asyncPreempt", "runtime.debugCallV2")
_ALIGNED = 16  # of what a signal's handler puts on a stack in front of them, where calls push nothing
_PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Stacks:
    """The memory of many stacks in ``words``: each from address ``low`` on, ``length`` words from number ``first``."""

    words: U64
    first: npt.NDArray[np.int64]
    low: U64
    length: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Walked:
    """The distinct stacks, and for each goroutine which is its own and whether it was walked to its root.

    A stack is (PC, address to look up) of its frames, innermost first, both link-time.
    """

    stacks: list[tuple[tuple[int, int], ...]]
    of: npt.NDArray[np.int64]
    whole: npt.NDArray[np.bool_]


class Unwinder:
    """Walks the stacks of one program, whose table is ``pclntab``; it remembers the places that it has met."""

    def __init__(self, pclntab: Pclntab, isa: Arch, bias: int) -> None:
        self._pclntab, self._isa, self._bias = pclntab, isa, np.uint64(bias)
        self._injected = [each.index for name in _INJECTED for each in pclntab.functions(name, every=True)]
        self._pcs = np.zeros(0, np.uint64)
        self._facts = np.zeros((0, 3), np.int64)

    def _of(self, pcs: U64) -> npt.NDArray[np.int64]:
        """`Pclntab.unwinding` of each, shape (n, 3)."""
        wanted, back = np.unique(pcs, return_inverse=True)
        new = wanted[~np.isin(wanted, self._pcs, assume_unique=True)]
        if len(new):
            facts = np.array([self._pclntab.unwinding(pc) for pc in new.tolist()], np.int64).reshape(-1, 3)
            order = np.argsort(known := np.concatenate([self._pcs, new]), kind="stable")
            self._pcs, self._facts = known[order], np.concatenate([self._facts, facts])[order]
        return self._facts[np.searchsorted(self._pcs, wanted)][back]

    def walk(self, left_at: Left, stacks: Stacks, exact: bool = False) -> Walked:
        """From where each goroutine left its thread: ``exact`` if an instruction was interrupted there."""
        pc, sp, lr = left_at
        total, eight = len(pc), np.uint64(8)
        here = np.arange(total)
        pc = pc - self._bias
        as_it_is = np.full(total, exact)
        whole, hashes = np.zeros(total, bool), np.zeros(total, np.uint64)
        levels: list[tuple[npt.NDArray[np.int64], U64, U64]] = []
        while len(here) and len(levels) < _MOST_FRAMES:
            index, moved, flags = self._of(pc).T
            known = index >= 0
            if not known.all():
                here, pc, sp, lr, as_it_is, index, moved, flags = (
                    each[known] for each in (here, pc, sp, lr, as_it_is, index, moved, flags)
                )
            at_entry = pc == self._pclntab.entries[index]
            looked_up = pc - (~as_it_is & ~at_entry).astype(np.uint64)
            levels.append((here, pc, looked_up))
            hashes[here] = (hashes[here] ^ looked_up) * _PRIME + np.uint64(len(levels))
            top = (flags & TOP_FRAME) != 0
            whole[here[top]] = True
            on = ~top
            if len(levels) > 1:
                on &= (flags & SP_WRITE) == 0
            injected = np.isin(index, self._injected)
            down = moved.astype(np.uint64)
            if self._isa.call_pushes:
                above = sp + down + eight
                place, kept = above - eight, np.zeros(len(sp), bool)
            else:
                above = sp + down
                place, kept = sp, (lr != 0) & ~((moved > 0) if len(levels) == 1 else np.zeros(len(sp), bool))
            caller, there = _read(stacks, here, place)
            caller = np.where(kept, lr, caller)
            on &= (there | kept) & (caller != 0)
            after = np.zeros(len(sp), np.uint64)
            if not self._isa.call_pushes and injected.any():
                saved, _ = _read(stacks, here, above)
                behind = self._of(caller - self._bias)
                after = np.where(injected & (behind[:, 0] >= 0) & (behind[:, 1] == 0), saved, after)
                above = np.where(injected, above + np.uint64(_ALIGNED), above)
            here, pc, sp, lr, as_it_is = here[on], caller[on] - self._bias, above[on], after[on], injected[on]
        return _distinct(levels, hashes, whole)


def _read(stacks: Stacks, here: npt.NDArray[np.int64], place: U64) -> tuple[U64, npt.NDArray[np.bool_]]:
    """The word at ``place`` of the stack of each goroutine ``here``, and whether it is there; 0 otherwise."""
    offset = (place - stacks.low[here]).astype(np.int64)
    there = (offset >= 0) & (offset % 8 == 0) & (offset // 8 < stacks.length[here])
    at = np.where(there, stacks.first[here] + offset // 8, 0)
    found = stacks.words[at] if len(stacks.words) else np.zeros(len(here), np.uint64)
    return np.where(there, found, np.uint64(0)), there


def _distinct(levels: list[tuple[npt.NDArray[np.int64], U64, U64]], hashes: U64, whole: npt.NDArray[np.bool_]) -> Walked:
    _, first, of = np.unique(hashes, return_index=True, return_inverse=True)
    chosen = np.full(len(hashes), -1)
    chosen[first] = np.arange(len(first))
    stacks: list[list[tuple[int, int]]] = [[] for _ in first]
    for here, pc, looked_up in levels:
        of_it = chosen[here]
        wanted = of_it >= 0
        for number, at, up in zip(of_it[wanted].tolist(), pc[wanted].tolist(), looked_up[wanted].tolist(), strict=True):
            stacks[number].append((at, up))
    return Walked([tuple(each) for each in stacks], of.astype(np.int64), whole)
