"""Weighted stacks, which every kind of flame graph is drawn from.

A `Profile` holds them as arrays: a million stacks take some dozen megabytes, and are merged without a loop in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stacks import INLINED, KERNEL, USER, Frame

Numbers = npt.NDArray[np.int64]

# What flamegraph.pl and its kin know: the kernel's functions and inlined ones have their own colours.
SUFFIXES = {KERNEL: "_[k]", INLINED: "_[i]"}


@dataclass(frozen=True)
class Profile:
    """Stacks and what each weighs.

    ``frames`` are the distinct functions. ``path`` holds the stacks one after the other as indexes into ``frames``, in each
    the outermost function first; stack number i is ``path[ends[i - 1] : ends[i]]``. ``weights`` are in ``unit``
    ("nanoseconds", or what an event counts), ``counts`` the samples or occurrences that a stack was made of.
    """

    frames: Sequence[Frame]
    path: npt.NDArray[np.int32]
    ends: Numbers
    weights: Numbers
    counts: Numbers
    unit: str = "nanoseconds"

    def stack(self, number: int) -> list[Frame]:
        """The functions of one stack, the outermost first."""
        begin = int(self.ends[number - 1]) if number else 0
        return [self.frames[index] for index in self.path[begin : int(self.ends[number])].tolist()]

    def __len__(self) -> int:
        return len(self.ends)


def profile_of(stacks: Mapping[tuple[Frame, ...], tuple[int, int]], unit: str = "nanoseconds") -> Profile:
    """A profile of ``stacks``: the functions, outermost first -> (weight, count)."""
    numbers: dict[Frame, int] = {}
    path = [numbers.setdefault(frame, len(numbers)) for stack in stacks for frame in stack]
    return Profile(
        list(numbers),
        np.array(path, np.int32),
        np.cumsum([len(stack) for stack in stacks], dtype=np.int64),
        np.array([weight for weight, _ in stacks.values()], np.int64),
        np.array([count for _, count in stacks.values()], np.int64),
        unit,
    )


def label(frame: Frame) -> str:
    """A function as folded stacks name it.

    A semicolon (Go's instantiated generics have them) becomes a colon, the end of a line a space.
    """
    return frame.function.replace(";", ":").translate(_LINE_ENDS) + SUFFIXES.get(frame.kind, "")


_LINE_ENDS = {ord(char): " " for char in "\n\r\v\f\x85\u2028\u2029"}


def frame_of(text: str) -> Frame:
    """The function that `label` made ``text`` of, as far as a name tells."""
    kind = next((kind for kind, suffix in SUFFIXES.items() if text.endswith(suffix)), USER)
    return Frame(text.removesuffix(SUFFIXES.get(kind, "")), "", 0, "", kind)


def folded(stack: Iterable[Frame]) -> str:
    """One line's stack in the folded format; ``stack`` is outermost first."""
    return ";".join(map(label, stack))
