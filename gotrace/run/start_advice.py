"""`--advise` for cold starts: what their code was, and what the rules find in it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from gotrace.advice.finding import Advice, advice
from gotrace.advice.starts import Seen
from gotrace.analysis.stacks import ENTERING, FRAMELESS, NOWHERE, USER, Frame
from gotrace.analysis.start_code import Collector, StartCode
from gotrace.analysis.start_summary import ENOUGH, median
from gotrace.analysis.timeline import Start, by_place
from gotrace.binary.program import GoProgram
from gotrace.errors import BinaryError, GotraceError
from gotrace.kernel.cgroup import cpu_group
from gotrace.kernel.ring import Events
from gotrace.probes.startcode import FAULT_NS, PROBE
from gotrace.runtime.symbols import KernelNames, go_frames
from gotrace.text import count_text, duration_text

UNSEEN = "whether anything needs the result of an init before the first request"


class Names:
    """The functions of an executable and of the kernel; ``asked`` has all that were found, by address.

    Those of the executable are at link-time addresses.
    """

    def __init__(self, path: str) -> None:
        """Raises BinaryError."""
        self.asked: dict[int, Sequence[Frame]] = {}
        self._stack = contextlib.ExitStack()
        self._program = self._stack.enter_context(GoProgram.open(path))
        self._kernel = KernelNames()

    def functions(self, address: int) -> Sequence[Frame]:
        """The functions at an address of the executable, innermost first."""
        with contextlib.suppress(BinaryError):
            table = self._program.pclntab
            if frames := table.frames(address):
                kind = {True: USER, False: FRAMELESS, None: ENTERING}[table.has_record(address)]
                self.asked[address] = go_frames(frames, "", kind)
        return self.asked.get(address, [NOWHERE])

    def kernel(self, addresses: Sequence[int]) -> Sequence[Frame]:
        """The functions at addresses of the kernel."""
        for address in addresses:
            if address not in self.asked:
                self.asked[address] = list(self._kernel.frames([address]))
        return [frame for address in addresses for frame in self.asked[address]]

    def close(self) -> None:
        self._stack.close()


class Advisor:
    """Keeps the events that are needed while starts are traced, and gives advice when they are over.

    ``quotas`` are what is known of each start's CPU quota: when it began,
    and the CPUs it has on average, None for no limit.
    """

    def __init__(self, header: Mapping[str, Any], collector: Collector) -> None:
        self._header, self._collector = header, collector
        self.quotas: list[tuple[int, float | None]] = []

    def feed(self, events: Events) -> None:
        self._collector.feed(events)

    def look(self, start: Start) -> None:
        """Learn the CPU quota of a start that is over, while its process is still there."""
        with contextlib.suppress(GotraceError, OSError):
            self.quotas.append((start.exec_ns, cpu_group(start.pid).quota_cpus))

    def code_of(self, starts: Sequence[Start]) -> list[StartCode]:
        """What each start's time was spent in."""
        return [self._collector.of(start) for start in starts]

    def of(self, starts: Sequence[Start], lost: int) -> Advice:
        """Of the first start of each run: what a program starts again by itself is another program's business."""
        mine = [starts[number] for number in by_place(starts)[0]]
        code = self.code_of(mine)
        target, about = self._header["target"], self._header["probes"]["startcode"]
        quotas = dict(self.quotas)
        cpus = [quotas.get(start.exec_ns) for start in mine]
        seen = Seen(mine, code, target["go_version"], about["facts"]["cgo"], cpus)
        without = [f"{item['name']}: {item['reason']}" for item in about["missing"]]
        nowhere = sum(each.without_owner for each in code)
        if nowhere:
            without.append(
                f"the init function of {count_text(nowhere, 'sample')} of the main thread (the runtime's own, mostly)"
            )
        if len(mine) < ENOUGH:
            without.append(f"how much starts vary, with fewer than {ENOUGH}: intervals are then less reliable")
        if gone := sum(start.exec_ns not in quotas for start in mine):
            without.append(f"the CPU quota of {count_text(gone, 'start')}, which ended too early")
        if lost:
            without.append(f"{count_text(lost, 'event')} that were lost")
        return advice("coldstart", seen, (UNSEEN, *without), self._cost(code))

    def _cost(self, code: Sequence[StartCode]) -> str:
        samples, hits = (median([getattr(each, name) for each in code]) for name in ("sampled", "hits"))
        faults = median([each.faults for each in code])
        ns = samples * PROBE.kernel_hit_ns + hits * self._header["coldstart"]["hit_ns"] + faults * FAULT_NS
        counts = f"{samples:,.0f} samples, {hits:,.0f} hits, {faults:,.0f} page faults"
        return f"--advise added about {duration_text(ns)} more to each start: {counts}."
