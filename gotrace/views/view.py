"""What a view is, and what it is fed from.

A `View` is one question about a process. It is fed the events of the probes that it needs, and asks its `Source` for
what only the machine knows (`Source.ask`); a recording keeps the answers, so that the same view gives the same
records from it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from gotrace.analysis.columns import Kinds
from gotrace.probe import FOREVER_NS
from gotrace.records.times import moment
from gotrace.text import printable, program_text

if TYPE_CHECKING:
    from gotrace.analysis.histogram import Histogram
    from gotrace.analysis.pauses import Batch, GcDecoder
    from gotrace.analysis.stacks import Frame
    from gotrace.kernel.ring import Events
    from gotrace.runtime.books import Books
    from gotrace.views.flame import Answer as Flame

Record = dict[str, Any]
Answer = TypeVar("Answer")


class Source:
    """Where a view's events and answers come from. ``header`` is `Session.header`'s.

    ``name`` says which process it is; ``now_ns`` is when the events were fetched, in CLOCK_MONOTONIC; ``last`` is True
    once no more will come, and ``end`` then says how it ended and what it cost. ``decoder`` is what decodes the events
    of the probe gc, if that is there. ``in_progress`` is what the runtime's books say of a stop of the world that has
    lasted for long, or not ended at the end, and of a mark phase then (see `gotrace.records.gc.in_progress_record`). Once
    ``failing`` tells True, because what is done with the records fails, no more comes. ``blocked_ns`` tells how long
    writing them has been blocked: nothing was asked in that time.
    """

    header: Record
    # What a view asks of a process that is there, and nothing of a recording: it, its session, its runtime's books.
    process: Any
    tracing: Any
    books: Books
    last = False
    in_progress: Sequence[Record] = ()
    lost = 0
    now_ns = 0
    end: Record
    decoder: GcDecoder | None = None
    failing: Callable[[], bool] = staticmethod(lambda: False)
    blocked_ns: Callable[[], int] = staticmethod(lambda: 0)

    @property
    def name(self) -> str:
        target = self.header["target"]
        if target["pid"] < 0:
            return printable(target["exe"])
        return f"pid {target['pid']} ({program_text(target['exe'], target['go_version'])})"

    @property
    def begin_ns(self) -> int:
        return int(self.header["clock"]["begin_ns"])

    @property
    def wall_offset_ns(self) -> int:
        """What is added to CLOCK_MONOTONIC to get the time since the epoch."""
        return int(self.header["clock"]["wall_offset_ns"])

    def kinds(self, stem: str) -> Kinds:
        """The kinds of a probe's events: they give its columns their names."""
        return Kinds.of_probe(self.header, stem)

    def text(self, address: int, length: int) -> str:
        """What stands in the executable at a run-time address."""
        raise NotImplementedError

    def frames(self, addresses: Sequence[int]) -> Sequence[Frame]:
        """The functions at addresses of a stack, those that were inlined too; none where there are no symbols."""
        return ()

    def place(self, address: int) -> str:
        """What is mapped at an address of data, as `gotrace.runtime.symbols.Symbols.place` says it; "" if unknown."""
        return ""

    def portions(self) -> Iterator[Events]:
        """The events as they come. What is asked before the next is fetched belongs to them."""
        raise NotImplementedError

    def ask(self, what: str, answer: Callable[[], Answer], due: bool = True, of_host: bool = False) -> Answer | None:
        """What ``answer`` returns (something JSON can hold), if it is ``due``; None too when the process is gone.

        What is ``of_host`` is asked of the machine, be the process gone or not.
        """
        raise NotImplementedError


class Interval(NamedTuple):
    """What took how long in an interval, by tags as `gotrace.export.hdr_log.tag` makes them; None: of all together.

    Readers that are given no tag read what has none. ``begin_ns`` is CLOCK_MONOTONIC.
    """

    begin_ns: int
    length_ns: int
    histograms: Sequence[tuple[str | None, Histogram]]


class View:
    """One question about a process. ``stems`` are the probes whose events it is fed; those ``of_one`` follow one process,
    so where several are traced they are left out.

    ``complete``: it has yielded everything, and can be summed up. ``interval_ns`` is how often it yields records, 0: when
    events say so; ``look_ns`` how often it looks at a process that is there between two portions (0: not at all).
    ``recorded``: a recording made while it is asked is to be read with the same question and options.
    ``drawn``: the types of its records that a page shows; None: all. ``drawn_by``: the module of `gotrace.export` that
    makes this page. ``tells_cost``: its records say what tracing cost the target, which has to be measured then.
    """

    name: ClassVar[str]
    recorded: ClassVar[bool] = True
    drawn: ClassVar[frozenset[str] | None] = None
    drawn_by: ClassVar[str] = "memory_page.draw"
    tells_cost: ClassVar[bool] = False
    interval_ns: int = 0
    look_ns: int = 0
    complete = False
    stems: tuple[str, ...] = ()
    of_one: ClassVar[frozenset[str]] = frozenset()
    source: Source
    _due_ns = 0

    @property
    def options(self) -> Record:
        """What it was made with: a recording keeps that, for the view that reads it."""
        return {}

    def prepare(self, books: Books) -> None:
        """Open those that it will read, before time counts; what cannot be opened is opened again to be read."""

    def begin(self) -> Iterator[Record]:
        """The records that come first; called once, when ``source`` is known."""
        yield from ()

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        """The records that are complete by now; ``batch`` is what the events of the probe gc come to."""
        yield from ()

    def look(self) -> None:
        """See something of the process; `feed` will ask what. Of what raises a GotraceError nothing was seen."""

    def end(self) -> Iterator[Record]:
        """The records that were waiting for the end; called once, when there are no more events."""
        yield from ()

    def over(self, source: Source) -> Iterator[Record]:
        """Its records from ``source``, as they come."""
        for _, records in records_of(source, [self]):
            yield from records

    def is_due(self) -> bool:
        """Whether it is time to look at the process: at once, and at every ``interval_ns`` (0: not again)."""
        if self.source.now_ns < self._due_ns:
            return False
        self._due_ns = self.next_ns(self.interval_ns)
        return True

    def snapshot(self, take: Callable[[], Record]) -> Record | None:
        """What ``take`` returns as a record of this view, when `is_due`, and at the end if there is an interval.

        So what is compared is of all the time. None between two of them.
        """
        due = self.is_due() or (self.interval_ns > 0 and self.source.last)
        found = self.source.ask(self.name, take, due)
        if found is None:
            return None
        return {"type": self.name, **moment(found["monotonic_ns"], self.source.wall_offset_ns), **found}

    def next_ns(self, period_ns: int) -> int:
        """The next multiple of a period since the beginning, in CLOCK_MONOTONIC; of 0 there is none before the end."""
        if not period_ns:
            return FOREVER_NS
        since = self.source.now_ns - self.source.begin_ns
        return self.source.begin_ns + (since // period_ns + 1) * period_ns

    def drawing(self) -> Any:
        """What its page shows where that is more than its records; None: these."""
        return None

    def flame(self) -> Flame | None:
        """What a flame graph shows of all that was seen, for views whose records are of stacks; None if that is nothing."""
        return None

    def of_interval(self, record: Record) -> Interval | None:
        """The histograms of one of its records; None if it is not of an interval."""
        return None

    def histograms(self) -> dict[str, Histogram]:
        """Of all that was seen, what took how long, by tags as `gotrace.export.hdr_log.tag` makes them."""
        return {}


def records_of(source: Source, views: Sequence[View]) -> Iterator[tuple[View, list[Record]]]:
    """Feed ``views`` until the end; yields the records of each, a portion at a time, even of a run that then fails."""
    # Decoding takes most of the time; who only records the events of this probe has them decoded later.
    source.decoder = _decoder(source) if any("gc" in view.stems for view in views) else None
    for view in views:
        view.source = source
        yield view, list(view.begin())
    ended = False
    try:
        for events in source.portions():
            batch = source.decoder.feed(events) if source.decoder is not None else None
            for view in views:
                yield view, list(view.feed(events, batch))
            if source.last:  # what is asked now still belongs to these events
                ended = True
                yield from _ends(views)
    except (Exception, KeyboardInterrupt):
        if not ended and hasattr(source, "end"):
            yield from _ends(views)
        raise
    if not ended:
        yield from _ends(views)


def _ends(views: Sequence[View]) -> Iterator[tuple[View, list[Record]]]:
    for view in views:
        told = list(view.end())
        view.complete = True
        yield view, told


def _decoder(source: Source) -> GcDecoder | None:
    if "gc" not in source.header["probes"]:
        return None
    from gotrace.probes.gc import decoder

    return decoder(source.header, source.text)


def recorded(header: Record) -> list[View]:
    """The views that a recording was made for, by what its header says of them."""
    return [
        importlib.import_module(f"gotrace.views.{name}").VIEW(**options)
        for name, options in header["views"].items()
        if name in NAMES
    ]


NAMES = (
    "memory",
    "contention",
    "cycles",
    "datapath",
    "faults",
    "goroutines",
    "gpumem",
    "heap",
    "heap_spans",
    "numa",
    "sched",
    "sched_events",
    "sched_wakeups",
    "tlb",
)
