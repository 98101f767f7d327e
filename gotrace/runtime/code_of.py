"""Names for the addresses of many processes: of each that is asked about, its code is opened, for a few at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gotrace.errors import GotraceError

if TYPE_CHECKING:
    from gotrace.analysis.stacks import Frame
    from gotrace.runtime.symbols import Symbols

_PROCESSES = 16  # whose code is kept open


class _Opened(NamedTuple):
    stack: contextlib.ExitStack
    symbols: Symbols


class CodeOf:
    """Opened at the first question about a process, which has to be there then; `close` gives the files back."""

    def __init__(self) -> None:
        self._opened: dict[int, _Opened | None] = {}

    def of(self, pid: int) -> Symbols | None:
        """None if the process is gone, or may not be read."""
        if pid not in self._opened:
            self._opened[pid] = _open(pid)
            if len(self._opened) > _PROCESSES:
                self.forget(next(iter(self._opened)))
        opened = self._opened[pid]
        return opened.symbols if opened is not None else None

    def frames(self, pid: int, addresses: Sequence[int]) -> Sequence[Frame]:
        """The functions there, in the order of the addresses; none if the process is gone."""
        symbols = self.of(pid)
        return symbols.frames(addresses) if symbols is not None else ()

    def forget(self, pid: int) -> None:
        """It runs another program, or is gone."""
        opened = self._opened.pop(pid, None)
        if opened is not None:
            opened.stack.close()

    def close(self) -> None:
        for pid in list(self._opened):
            self.forget(pid)


def _open(pid: int) -> _Opened | None:
    from gotrace.kernel.process import Process
    from gotrace.runtime.symbols import Symbols

    with contextlib.ExitStack() as stack, contextlib.suppress(GotraceError, OSError):
        symbols = stack.enter_context(Symbols.of(stack.enter_context(Process.open(pid))))
        return _Opened(stack.pop_all(), symbols)
    return None
