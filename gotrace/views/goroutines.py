"""What every goroutine does or waits for, dump by dump."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gotrace.analysis.goroutines import Sums
from gotrace.records.goroutines import goroutines_record
from gotrace.text import count_text
from gotrace.views.flame import GOROUTINES, Answer
from gotrace.views.view import Record, View

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events
    from gotrace.runtime.books import Books


# What goroutines are put together by.
STACK, STATE, LABEL, CREATED_BY = "stack", "state", "label", "created-by"


class Goroutines(View):
    """A dump at once, and at every ``interval_ns`` (0: no other), of goroutines that may wait for ``least_ns`` or longer.

    Those of the runtime are left out without ``system``. ``by`` and ``top``: how many groups are shown, and by what.
    ``first`` and ``last`` are the first and the last dump, ``dumps`` how many there were.
    """

    name = "goroutines"

    def __init__(
        self, interval_ns: int = 0, least_ns: int = 0, system: bool = False, by: str = STACK, top: int = 20
    ) -> None:
        self.interval_ns, self.least_ns, self.system = interval_ns, least_ns, system
        self.by, self.top = by, top
        self.first: Record | None = None
        self.last: Record | None = None
        self._sums = Sums()

    @property
    def options(self) -> Record:
        return {name: getattr(self, name) for name in ("interval_ns", "least_ns", "system", "by", "top")}

    def prepare(self, books: Books) -> None:
        _ = books.goroutines

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        source = self.source

        def dump() -> Record:
            return goroutines_record(source.books.goroutines.dump(), source.books.goroutines)

        record = self.snapshot(dump)
        if record is None:
            return
        record["groups"] = [kept for each in record["groups"] if (kept := self._wanted(each))]
        self.first = self.first or record
        self.last = record
        self._sums.add(record)
        yield record

    @property
    def dumps(self) -> int:
        return self._sums.dumps

    def flame(self) -> Answer | None:
        sums = self._sums
        if not sums.dumps:
            return None
        title = f"goroutines of {self.source.name}"
        begin_ns = sums.begin_ns + self.source.wall_offset_ns
        notes = [count_text(sums.dumps, "dump")]
        return Answer("", sums.profile(), GOROUTINES, title, notes, begin_ns, sums.end_ns - sums.begin_ns)

    def _wanted(self, group: Record) -> Record | None:
        """What of a group is asked for."""
        if group["system"] and not self.system:
            return None
        if not self.least_ns:
            return group
        kept = [each for each in group["goroutines"] if (each["waits_most_ns"] or 0) >= self.least_ns]
        return {**group, "count": len(kept), "goroutines": kept} if kept else None


def _key(group: Record, by: str) -> Any:
    """What groups that are put together have in common."""
    if by == STATE:
        return group["state"]
    if by == LABEL:
        return group["state"], tuple(group["labels"].items())
    if by == CREATED_BY:
        return group["state"], _place(group["created_by"])
    stack = tuple(map(_place, group["stack"])) if group["stack"] is not None else group["torn"]
    return group["state"], stack, _place(group["created_by"])


def _place(called: Record | None) -> Any:
    return (called["function"], called["file"], called["line"]) if called is not None else None


_LONGEST = ("longest_wait_ns", "longest_wait_most_ns")


def merged(groups: Sequence[Record], by: str) -> list[Record]:
    """Groups of a dump put together, the largest first; each has what the first of its parts has."""
    found: dict[Any, Record] = {}
    for group in groups:
        into = found.setdefault(_key(group, by), {**group, "count": 0, "goroutines": [], **dict.fromkeys(_LONGEST)})
        into["count"] += group["count"]
        into["goroutines"] += group["goroutines"]
        for name in _LONGEST:
            into[name] = max((each for each in (into[name], group[name]) if each is not None), default=None)
    return sorted(found.values(), key=lambda group: -int(group["count"]))


class Grown(NamedTuple):
    """Goroutines with one stack, created at one place, of which there are more than before; ``group`` is the last."""

    first: int
    last: int
    group: Record


def grown(before: Record, after: Record) -> list[Grown]:
    """What there is more of in the second of two dumps, most first, as far as some of these goroutines are new."""
    known = {one["goid"] for group in before["groups"] for one in group["goroutines"]}
    fresh = {
        _key(group, STACK) for group in after["groups"] if any(one["goid"] not in known for one in group["goroutines"])
    }
    return [row for row in differences(before, after) if row.last > row.first and _key(row.group, STACK) in fresh]


def differences(before: Record, after: Record) -> list[Grown]:
    """What there is more or less of in the second of two dumps, of one process or two, the largest difference first."""
    old, new = ({_key(group, STACK): group for group in merged(dump["groups"], STACK)} for dump in (before, after))
    nothing = {"count": 0}
    rows = [
        Grown(old.get(key, nothing)["count"], new.get(key, nothing)["count"], group)
        for key, group in {**new, **old, **new}.items()
    ]
    return sorted((row for row in rows if row.last != row.first), key=lambda row: -abs(row.last - row.first))


VIEW = Goroutines
