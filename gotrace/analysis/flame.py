"""Weighted stacks, which every kind of flame graph is drawn from.

A `Profile` holds them as arrays: a million stacks take some dozen megabytes, and are merged without a loop in Python.
`layout` merges them into the boxes of a flame graph, `diff` two profiles into the boxes of a differential one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from gotrace.analysis.stacks import INLINED, KERNEL, USER, Frame
from gotrace.errors import GotraceError

if TYPE_CHECKING:
    from arro3 import core

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


def merged(profiles: Mapping[str, Sequence[Profile]]) -> Profile:
    """All of them together; of several names each has a box of its own, around what is below it."""
    stacks: dict[tuple[Frame, ...], tuple[int, int]] = {}
    for name, each in ((name, each) for name, own in profiles.items() for each in own):
        root = (Frame(name, "", 0, "", USER),) if len(profiles) > 1 else ()
        for at, (weight, count) in enumerate(zip(each.weights.tolist(), each.counts.tolist(), strict=True)):
            stack = (*root, *each.stack(at))
            had = stacks.get(stack, (0, 0))
            stacks[stack] = (had[0] + weight, had[1] + count)
    return profile_of(stacks)


def weighing(profile: Profile) -> Profile:
    """Its stacks without those that weigh nothing."""
    kept = [number for number, weight in enumerate(profile.weights.tolist()) if weight]
    stacks = {tuple(profile.stack(at)): (int(profile.weights[at]), int(profile.counts[at])) for at in kept}
    return profile_of(stacks, profile.unit)


def label(frame: Frame) -> str:
    """A function as folded stacks name it.

    A semicolon (Go's instantiated generics have them) becomes a colon, the end of a line a space.
    """
    return frame.function.replace(";", ":").translate(_LINE_ENDS) + SUFFIXES.get(frame.kind, "")


_LINE_ENDS = {ord(char): " " for char in "\n\r\v\f\x85\u2028\u2029"}


def frame_of(text: str) -> Frame:
    """The function that `label` made ``text`` of, as far as its name reveals."""
    kind = next((kind for kind, suffix in SUFFIXES.items() if text.endswith(suffix)), USER)
    return Frame(text.removesuffix(SUFFIXES.get(kind, "")), "", 0, "", kind)


def folded(stack: Iterable[Frame]) -> str:
    """One line's stack in the folded format; ``stack`` is outermost first."""
    return ";".join(map(label, stack))


@dataclass(frozen=True)
class Boxes:
    """A flame graph: one box for each distinct path of functions, the root "all" first.

    All arrays have one element a box. The boxes go depth by depth (the root's is 0), and from left to right within each:
    a box stands behind its parent. Siblings are in the order of their names' code points. ``weight`` is the box's width and
    ``begin`` its left edge, both in ``unit``, ``own`` the part of the weight that none of its children has: it comes first,
    the children follow it. ``name`` are indexes into ``names``, ``parent`` indexes of boxes (the root's is -1).
    """

    names: Sequence[str]
    name: Numbers
    depth: Numbers
    parent: Numbers
    begin: Numbers
    weight: Numbers
    own: Numbers
    count: Numbers
    unit: str

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True)
class Difference:
    """What a differential flame graph shows: ``boxes`` are as wide as in the profile after.

    ``before`` and ``before_own`` are what the same boxes weigh, as a whole and by themselves, in the profile before. The
    boxes that only that one has are among them too, with no width. ``gone_paths`` is the share of the profile before in
    paths that are not in the one after, ``gone_functions`` in those paths with a function that is nowhere in the one after.
    """

    boxes: Boxes
    before: Numbers
    before_own: Numbers
    gone_paths: float
    gone_functions: float


ROOT = "all"


def layout(profile: Profile) -> Boxes:
    """The flame graph of ``profile``. Functions are merged by `label`, whatever their files and lines."""
    tree = _Tree.of(profile)
    return tree.boxes(profile.weights, profile.counts, profile.unit)


def diff(before: Profile, after: Profile) -> Difference:
    """The differential flame graph of two profiles.

    The boxes hold both as they are. To compare them bring both to the same total, as ``difffolded.pl -n`` does.
    """
    both = _both(before, after)
    tree = _Tree.of(both)
    old = np.arange(len(both)) < len(before)
    boxes = tree.boxes(np.where(old, 0, both.weights), np.where(old, 0, both.counts), after.unit)
    own = tree.own(np.where(old, both.weights, 0))
    weight = tree.whole(own)
    there = np.zeros(len(boxes.names), bool)
    there[boxes.name[boxes.weight > 0]] = True
    gone = ~there[boxes.name]
    for level in tree.levels[1:]:
        gone[level] |= gone[tree.parent[level]]
    total = int(weight[0]) or 1
    shares = (float(own[which].sum() / total) for which in (boxes.weight == 0, gone))
    return Difference(boxes, weight, own, *shares)


def diff_folded(before: Profile, after: Profile) -> Iterator[str]:
    """Lines of "stack weight weight" (before, after), as difffolded.pl writes them without -n. Without line ends."""
    both = _both(before, after)
    tree = _Tree.of(both)
    old = np.arange(len(both)) < len(before)
    columns = [tree.own(np.where(which, both.weights, 0)).tolist() for which in (old, ~old)]
    paths: list[str] = [""]
    for parent, name in zip(tree.parent[1:].tolist(), tree.name[1:].tolist(), strict=True):
        paths.append(f"{paths[parent]};{tree.names[name]}" if parent else tree.names[name])
    for path, *weights in zip(paths, *columns, strict=True):
        if any(weights) and path:
            yield f"{path} {weights[0]} {weights[1]}"


def _both(before: Profile, after: Profile) -> Profile:
    """The stacks of ``before``, then those of ``after``."""
    return Profile(
        [*before.frames, *after.frames],
        np.concatenate([before.path, after.path + np.int32(len(before.frames))]),
        np.concatenate([before.ends, after.ends + len(before.path)]),
        np.concatenate([before.weights, after.weights]),
        np.concatenate([before.counts, after.counts]),
        after.unit,
    )


@dataclass(frozen=True)
class _Tree:
    """The distinct paths of a profile's stacks, ordered as the boxes are; ``last`` is the one of each stack."""

    names: Sequence[str]
    name: Numbers
    parent: Numbers
    levels: Sequence[slice]
    last: Numbers

    @classmethod
    def of(cls, profile: Profile) -> _Tree:
        labels = [label(frame) for frame in profile.frames]
        # The root is not a function, even if one has its name.
        names = [ROOT, *sorted(set(labels))]
        places = {name: place for place, name in enumerate(names[1:], 1)}
        ranks = np.array([places[each] for each in labels], np.int64)
        begins = np.concatenate([[0], profile.ends[:-1]]).astype(np.int64)
        lengths = profile.ends - begins[: len(profile)]
        last = np.zeros(len(profile), np.int64)
        parts, parents, levels = [np.zeros(1, np.int64)], [np.full(1, -1, np.int64)], [slice(0, 1)]
        left = np.flatnonzero(lengths)
        while len(left):
            depth = len(levels)
            keys = last[left] * len(names) + ranks[profile.path[begins[left] + depth - 1]]
            distinct, which = np.unique(keys, return_inverse=True)
            first = levels[-1].stop
            levels.append(slice(first, first + len(distinct)))
            parents.append(distinct // len(names))
            parts.append(distinct % len(names))
            last[left] = first + which
            left = left[lengths[left] > depth]
        return cls(names, np.concatenate(parts), np.concatenate(parents), levels, last)

    def own(self, weights: Numbers) -> Numbers:
        """What the stacks that end in each box weigh together."""
        sums = np.zeros(len(self.name), np.int64)
        np.add.at(sums, self.last, weights)
        return sums

    def whole(self, own: Numbers) -> Numbers:
        """What each box weighs with all that is above it."""
        sums: Numbers = own.copy()
        for level in reversed(self.levels[1:]):
            np.add.at(sums, self.parent[level], sums[level])
        return sums

    def boxes(self, weights: Numbers, counts: Numbers, unit: str) -> Boxes:
        own = self.own(weights)
        whole = self.whole(own)
        begin = np.zeros_like(own)
        for level in self.levels[1:]:
            parent = self.parent[level]
            before = np.cumsum(whole[level]) - whole[level]
            # Siblings stand together: what lies left of the first of them is other boxes' children.
            begin[level] = begin[parent] + own[parent] + before - before[np.searchsorted(parent, parent)]
        depth = np.repeat(np.arange(len(self.levels)), [level.stop - level.start for level in self.levels])
        count = self.whole(self.own(counts))
        return Boxes(self.names, self.name, depth, self.parent, begin, whole, own, count, unit)


_BLOCK = 1 << 26
_DIGITS = 18  # of a number that is sure to fit


def parse_folded(file: BinaryIO) -> tuple[Profile, int]:
    """The profile in lines of "outermost;...;innermost 123", and how many lines were something else and left out.

    Equal stacks become one. The number is the last word of its line, a whole one; weights and counts are both it. Blank
    lines are none. Bytes that are not UTF-8 become escapes.
    """
    parts: list[tuple[core.Array, Numbers]] = []
    skipped = 0
    rest = b""
    while block := file.read(_BLOCK):
        block = rest + block
        cut = block.rfind(b"\n") + 1
        rest = block[cut:]
        if cut:
            skipped += _parse(block[:cut], parts)
    if rest:
        skipped += _parse(rest + b"\n", parts)
    if not parts:
        return profile_of({}, "samples"), skipped
    stacks, weights = _merged(parts)
    # as floats, whose sum does not wrap around
    if weights.sum(dtype=float) >= 2**63 or weights.min() < 0:
        raise GotraceError("the numbers in the folded stacks add up to more than 2^63", "are they what they should be?")
    functions, ends = _split(stacks)
    names, path = _encoded(functions)
    frames = [frame_of(name.decode("utf-8", "backslashreplace")) for name in names.to_pylist()]
    return Profile(frames, path, ends, weights, weights, "samples"), skipped


def _parse(block: bytes, parts: list[tuple[core.Array, Numbers]]) -> int:
    """Append the block's distinct stacks and their weights to ``parts``; returns the number of malformed lines."""
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    begins = np.concatenate([[0], ends[:-1] + 1])
    ends = ends - ((ends > begins) & (text[ends - 1] == ord("\r")))
    # From the end of every line towards its beginning, as long as there are digits.
    at, values, going = ends.copy(), np.zeros(len(ends), np.int64), np.ones(len(ends), bool)
    for power in range(_DIGITS):
        digits = text[at - 1] - np.uint8(ord("0"))  # anything else wraps around to more than 9
        going &= (at > begins) & (digits < 10)
        if not going.any():
            break
        values += np.where(going, digits, 0) * np.int64(10**power)
        at -= going
    blank = (text[at - 1] == ord(" ")) | (text[at - 1] == ord("\t"))
    good = np.flatnonzero((at < ends) & (at > begins + 1) & blank)
    malformed = int(np.count_nonzero(ends > begins)) - len(good)
    if len(good):
        parts.append(_merged([(_slices(text, begins[good], at[good] - 1), values[good])]))
    return malformed


def _merged(parts: Sequence[tuple[core.Array, Numbers]]) -> tuple[core.Array, Numbers]:
    """The distinct ones of all parts' stacks, and what each weighs."""
    from arro3.core import ChunkedArray

    stacks, which = _encoded(ChunkedArray([stacks for stacks, _ in parts]).combine_chunks())
    sums = np.zeros(len(stacks), np.int64)
    np.add.at(sums, which, np.concatenate([weights for _, weights in parts]))
    return stacks, sums


def _split(stacks: core.Array) -> tuple[core.Array, Numbers]:
    """The functions of all stacks one after the other, and where those of each end."""
    from nanoarrow import c_array

    columns = c_array(stacks).view()
    bounds, text = (np.asarray(columns.buffer(number)) for number in (1, 2))
    between = np.flatnonzero(text == ord(";"))
    begins, ends = (
        np.sort(np.concatenate(each), kind="stable") for each in ((bounds[:-1], between + 1), (between, bounds[1:]))
    )
    return _slices(text, begins, ends), np.searchsorted(between, bounds[1:]) + np.arange(1, len(bounds))


def _slices(text: npt.NDArray[np.uint8], begins: Numbers, ends: Numbers) -> core.Array:
    """The parts of ``text`` between ``begins`` and ``ends``, of which none overlaps the next."""
    from arro3.core import Array
    from nanoarrow import c_array_from_buffers, large_binary

    # Arrow's texts follow each other without a gap: every other one is a part, those in between are the gaps.
    offsets = np.stack([begins, ends], axis=1).ravel()
    all_ = Array(c_array_from_buffers(large_binary(), len(offsets) - 1, [None, offsets, text]))
    return all_.take(np.arange(0, len(offsets), 2))


def _encoded(texts: core.Array) -> tuple[core.Array, npt.NDArray[np.int32]]:
    """The distinct ones in the order in which they come, and which of them each is."""
    from arro3.core import DataType, dictionary_dictionary, dictionary_indices

    coded = texts.cast(DataType.dictionary(DataType.int32(), texts.type))
    return dictionary_dictionary(coded), dictionary_indices(coded).to_numpy()
