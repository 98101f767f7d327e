"""Where long calls came from: the stacks that `gotrace.probes.datapath` takes, with the names of functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gotrace.analysis.stacks import Frame, StackTable
from gotrace.arch import BY_MACHINE, host_arch
from gotrace.runtime.code_of import CodeOf

if TYPE_CHECKING:
    from gotrace.kernel.ring import Events
    from gotrace.views.view import Record, Source

# CALL rel32; CALL [RIP + rel32]; CALL of a register
_CALL = re.compile(rb"(?:\xe8.{4}|\xff\x15.{4}|\x41?\xff[\xd0-\xd7])\Z", re.DOTALL)


class CallStacks:
    """Stacks by call. Names are looked up when a stack is seen first: its process is there then. A recording keeps them."""

    def __init__(self, source: Source) -> None:
        self._source, self._kinds = source, source.kinds("datapath")
        self._table = StackTable(self._kinds.numbers("call_stack"), self._frames)
        self._named: dict[int, list[str]] = {}
        self._of_calls: dict[tuple[int, int], int] = {}
        self._code = CodeOf()
        self._process = 0  # whose stack is being named

    def feed(self, events: Events) -> None:
        """Take the stacks, and which calls they are of; the calls come after them."""
        self._table.feed(events)
        found = self._kinds.of(events, "called_from")
        new: dict[int, int] = {}
        for tid, begin_ns, stack, process in zip(
            *(found[name].tolist() for name in ("tid", "begin_ns", "stack", "process")), strict=True
        ):
            self._of_calls[tid, begin_ns] = stack
            if stack not in self._named:
                new[stack] = process
        if new:
            told: Record = self._source.ask("call stacks", lambda: self._named_of(new), of_host=True) or {}
            self._named |= {int(stack): names for stack, names in told.items()}

    def take(self, tid: int, begin_ns: int) -> list[str]:
        """The functions, innermost first, of the call of a thread that began then: once. Empty if unknown, or not long."""
        return self._named.get(self._of_calls.pop((tid, begin_ns), 0), [])

    def close(self) -> None:
        self._code.close()

    def _named_of(self, stacks: dict[int, int]) -> Record:
        return {str(stack): self._names(stack, process) for stack, process in stacks.items()}

    def _names(self, stack: int, process: int) -> list[str]:
        self._process = process
        frames, caller = self._table.frames(stack), self._table.caller(stack)
        # The C library's functions need not keep a frame record: the walk misses who called them, but SP may be there.
        if (
            frames
            and not frames[0].file
            and caller not in self._table.addresses(stack)[1:-1][:1]
            and self._follows_call(caller)
        ):
            frames[1:1] = self._frames([caller])
        return [frame.function for frame in frames]

    def _follows_call(self, address: int) -> bool:
        """Whether ``address`` is in a call instruction of the process that is being named, at its end (x86-64)."""
        symbols = self._code.of(self._process)
        if symbols is None or host_arch() is not BY_MACHINE["x86_64"]:
            return False
        return bool(_CALL.search(symbols.code(address, 6)))

    def _frames(self, addresses: Sequence[int]) -> Sequence[Frame]:
        return self._code.frames(self._process, addresses)
