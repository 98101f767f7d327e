"""`--advise` for cold starts: what their code was, and what the rules find in it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from gotrace.advice.finding import Advice, advice
from gotrace.advice.starts import Seen
from gotrace.analysis.stacks import ENTERING, FRAMELESS, USER, Frame
from gotrace.analysis.start_code import Collector, StartCode
from gotrace.analysis.start_summary import ENOUGH, median
from gotrace.analysis.timeline import Start, by_place
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError
from gotrace.kernel.ring import Events
from gotrace.probes.startcode import PROBE
from gotrace.runtime.symbols import KernelNames, go_frames
from gotrace.text import count_text, duration_text

UNSEEN = "whether something needs the result of an init before the first request"


class Advisor:
    """Keeps the events that are needed while starts are traced, and gives advice when they are over."""

    def __init__(self, path: str, header: Mapping[str, Any]) -> None:
        """``path`` is the executable's. Raises BinaryError."""
        self._stack = contextlib.ExitStack()
        self._program = self._stack.enter_context(GoProgram.open(path))
        self._header = header
        self._collector = Collector(header, self._functions, KernelNames().frames)

    def _functions(self, address: int) -> Sequence[Frame]:
        with contextlib.suppress(BinaryError):
            table = self._program.pclntab
            if found := table.frames(address):
                kind = {True: USER, False: FRAMELESS, None: ENTERING}[table.has_record(address)]
                return go_frames(found, "", kind)
        return [Frame("[unknown]", "", 0, "", USER)]

    def feed(self, events: Events) -> None:
        self._collector.feed(events)

    def of(self, starts: Sequence[Start], lost: int) -> Advice:
        """Of the first start of each run: what a program starts again by itself is another program's business."""
        mine = [starts[number] for number in by_place(starts)[0]]
        code = [self._collector.of(start) for start in mine]
        target, about = self._header["target"], self._header["probes"]["startcode"]
        self._stack.close()
        seen = Seen(mine, code, target["go_version"], about["facts"]["cgo"])
        without = [f"{item['name']}: {item['reason']}" for item in about["missing"]]
        nowhere = sum(each.without_owner for each in code)
        if nowhere:
            without.append(
                f"the init function of {count_text(nowhere, 'sample')} of the main thread (the runtime's own, mostly)"
            )
        if len(mine) < ENOUGH:
            without.append(
                f"how much starts differ, before there are {ENOUGH}: an interval of fewer holds a gain less often"
            )
        if lost:
            without.append(f"{count_text(lost, 'event')} that were lost")
        return advice("coldstart", seen, (UNSEEN, *without), self._cost(code))

    def _cost(self, code: Sequence[StartCode]) -> str:
        samples, hits = (median([getattr(each, name) for each in code]) for name in ("sampled", "hits"))
        ns = samples * PROBE.kernel_hit_ns + hits * self._header["coldstart"]["hit_ns"]
        return f"--advise added about {duration_text(ns)} more to each start: {samples:,.0f} samples, {hits:,.0f} hits."
