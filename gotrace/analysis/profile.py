"""A profile: stacks of named frames with what they weigh. The form that every flame graph and profile file is made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

USER, INLINED, KERNEL = "user", "inlined", "kernel"


@dataclass(frozen=True)
class Frame:
    """One function of a stack. All text comes from the target and is not to be trusted: whoever prints it escapes it."""

    function: str
    file: str = ""
    line: int = 0  # 0 where it is not known
    module: str = ""  # the file the code is in: an executable, a library; "" for the kernel
    kind: str = USER  # USER, INLINED (into the frame below it, its caller) or KERNEL


Stack = tuple[Frame, ...]  # root first, as in folded stacks


@dataclass
class Profile:
    """Weighted stacks. ``stacks[stack]`` is [value in ``unit``, how many samples or intervals it was seen in]."""

    title: str
    unit: str  # "nanoseconds" or "samples" (then value and count are the same)
    stacks: dict[Stack, list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what a reader has to know: losses, what is missing

    def add(self, stack: Iterable[Frame], value: int, count: int = 1) -> None:
        weight = self.stacks.setdefault(tuple(stack), [0, 0])
        weight[0] += value
        weight[1] += count

    @property
    def total(self) -> int:
        return sum(value for value, _ in self.stacks.values())
