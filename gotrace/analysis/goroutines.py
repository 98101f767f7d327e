"""What a dump of goroutines comes to: who is alike, and what of their stacks the runtime itself would print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gotrace.analysis.columns import Array
from gotrace.analysis.flame import Profile, profile_of
from gotrace.analysis.stacks import INLINED, USER, Frame

if TYPE_CHECKING:
    from gotrace.kernel.system_calls import SystemCall

Version = tuple[int, int]
Stack = tuple[tuple[int, int], ...]
Labels = tuple[tuple[str, str], ...]  # key and value

GOROUTINE = np.dtype(
    [
        *(("goid", "<u8"), ("status", "u1"), ("reason", "u1"), ("parent", "<u8")),
        *(("waits_since_ns", "<i8"), ("not_before_ns", "<i8")),
        *(("created_at", "<u8"), ("begins_at", "<u8"), ("locked", "?"), ("tid", "<i4"), ("labels", "<i4")),
        *(("channel", "<u8"), ("turns", "u1"), ("stack", "<i4"), ("sampled", "?")),
    ]
)
RAN, TORN = -1, -2  # in place of a stack's number


@dataclass(frozen=True)
class Dump:
    """The goroutines that were there, rows of `GOROUTINE`, in the order in which the runtime has them.

    ``stacks`` are the distinct ones as (PC, address to look up), innermost first, link-time; a row's ``stack`` is a number
    of one, `RAN` or `TORN`: the goroutine ran, or changed whenever it was read. Of those that ran some were ``sampled``:
    theirs is the stack that a timer found. ``broken`` is how many stacks end in no
    root. ``labels`` are the distinct ones, which the rows have by number. ``calls`` has, by goid, the system calls that
    they were in from before to after it was asked. Times are CLOCK_MONOTONIC, 0 if unknown.
    """

    began_ns: int
    took_ns: int
    rows: Array
    stacks: list[Stack]
    broken: int
    labels: list[Labels]
    calls: Mapping[int, SystemCall] = field(default_factory=dict)

    @property
    def torn(self) -> int:
        return int(np.count_nonzero(self.rows["stack"] == TORN))


def seen_waiting_by(told_ns: npt.NDArray[np.int64], last_mark_end_ns: int) -> npt.NDArray[np.int64]:
    """When each goroutine was seen waiting at the latest; 0 if that is unknown.

    A collection that is the first to see a goroutine wait notes in g.waitsince when the one before had marked
    (work.tstart: gcMark in runtime/mgc.go, markroot in runtime/mgcmark.go): it was not waiting then, and began
    to any time after. It was seen before the next collection had marked: when that was, others' g.waitsince tell, or
    ``last_mark_end_ns``, when the last one had (0: unknown).
    """
    known = np.unique(np.append(told_ns[told_ns > 0], last_mark_end_ns))
    place = np.searchsorted(known, told_ns, side="right")
    return np.where((told_ns > 0) & (place < len(known)), known[np.minimum(place, len(known) - 1)], 0)


class Called(NamedTuple):
    """One function of a stack; ``offset`` from its entry, None for one that was compiled into the next."""

    function: str
    file: str
    line: int
    offset: int | None
    wrapper: bool = False


# A wrapper that has called one of these is shown: the method that it stands for was never reached.
_PANICS = ("runtime.gopanic", "runtime.sigpanic", "runtime.panicwrap")
_IN_PANIC = "runtime.gopanic"
_RUNNERS = ("runtime.runFinalizers", "runtime.runCleanups")
_RUNTIME = "runtime."
# They begin in the runtime and run the program's code.
_NOT_SYSTEM = ("runtime.main", "runtime.corostart", "runtime.handleAsyncEvent")


def shown(stack: Sequence[Called], version: Version) -> list[bool]:
    """Which functions of a stack, innermost first, a traceback of the runtime shows (showframe of runtime/traceback.go)."""
    out: list[bool] = []
    callee = ""
    for each in stack:
        name = each.function
        if each.wrapper and callee not in _PANICS:
            show = False
        else:
            show = (name == _IN_PANIC and any(out)) or is_shown(name, version)
        out.append(show)
        callee = name
    return out if any(out) else [True] * len(out)


def is_shown(name: str, version: Version) -> bool:
    """Whether a function is shown wherever it stands: what is not the runtime's, or is there for programs to call."""
    if name in _RUNNERS and version >= (1, 25):
        return True
    if not name.startswith(_RUNTIME):
        return "." in name
    rest = name.removeprefix(_RUNTIME)
    receiver, _, method = rest.rpartition(".")
    if version < (1, 23):
        receiver, method = "", rest
    if receiver.startswith("(*") and receiver.endswith(")"):
        receiver = receiver[2:-1]
    return "A" <= method[:1] <= "Z" and (not receiver or "A" <= receiver[0] <= "Z")


def is_system(begins_in: str, stack: Sequence[Called]) -> bool:
    """Whether a goroutine is the runtime's own, by the function that it began in, and not at work for the program."""
    if not begins_in.startswith(_RUNTIME) or begins_in in _NOT_SYSTEM:
        return False
    return not any(not each.function.startswith(_RUNTIME) and "." in each.function for each in stack)


def printed_name(function: str) -> str:
    """A function as a traceback has it: type arguments are left out, and runtime.gopanic is a panic."""
    if function == _IN_PANIC:
        return "panic"
    begin, end = function.find("["), function.rfind("]")
    return function if not 0 <= begin < end else f"{function[:begin]}[...]{function[end + 1 :]}"


_ALIKE = ["status", "reason", "stack", "created_at", "begins_at", "labels", "sampled"]


def alike(dump: Dump) -> Iterator[npt.NDArray[np.int64]]:
    """Goroutines in one state, with one stack, created at one place, with equal labels: their places, most first."""
    rows = dump.rows[_ALIKE]
    if not len(rows):
        return
    _, group = np.unique(rows, return_inverse=True)
    order = np.argsort(group, kind="stable")
    yield from sorted(np.split(order, np.flatnonzero(np.diff(group[order])) + 1), key=len, reverse=True)


WAITS = "[waits: "  # how the root of what goroutines wait for begins in a flame graph
ON_THEIR_WAY = ("running", "runnable", "syscall", "preempted", "copystack")


class Sums:
    """What goroutines did and waited for over several dumps (records of `gotrace.records.goroutines`), by stack.

    A dump stands for the time since the one before. Of a single one there is no time: how many goroutines there were.
    """

    def __init__(self) -> None:
        self.dumps = 0
        self.begin_ns = self.end_ns = 0
        self._found: dict[tuple[Frame, ...], list[int]] = {}  # nanoseconds, goroutines

    def add(self, dump: dict[str, Any]) -> None:
        """The next dump."""
        at_ns = int(dump["monotonic_ns"])
        passed = at_ns - self.end_ns if self.dumps else 0
        self.dumps, self.begin_ns, self.end_ns = self.dumps + 1, self.begin_ns or at_ns, at_ns
        for group in dump["groups"]:
            sums = self._found.setdefault(_frames(group), [0, 0])
            sums[0] += passed * group["count"]
            sums[1] += group["count"]

    def profile(self) -> Profile:
        """The stacks, outermost first: below their root, what they wait for."""
        if self.dumps == 1:
            return profile_of({stack: (count, count) for stack, (_, count) in self._found.items()}, "goroutines")
        return profile_of({stack: (ns, count) for stack, (ns, count) in self._found.items() if ns})


def _frames(group: dict[str, Any]) -> tuple[Frame, ...]:
    state = group["state"]
    root = Frame(f"[{state}]" if state in ON_THEIR_WAY else f"{WAITS}{state}]", "", 0, "", USER)
    shown = [each for each in group["stack"] or () if each["shown"]]
    frames = [
        Frame(each["function"], each["file"], each["line"], "", USER if each["offset"] is not None else INLINED)
        for each in shown
    ]
    return (root, *reversed(frames))
