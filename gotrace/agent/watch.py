"""What is known of each Go process, again and again, from an agent in this process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from gotrace.agent.agent import Agent, Bounds
from gotrace.agent.remote import Details, Row
from gotrace.agent.serve import RING_BYTES, STEMS
from gotrace.errors import GotraceError, HostError
from gotrace.find.processes import Scanner
from gotrace.find.selection import NOT_SELECTED, Selection
from gotrace.probe import probe_module
from gotrace.shared import MOST, SharedProbes


class Local:
    """An agent of our own, in a thread. Use `opened`."""

    title = "this host"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._stopped = threading.Event()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="agent")

    @classmethod
    @contextlib.contextmanager
    def opened(cls, selection: Selection) -> Iterator[Local]:
        """Trace what is selected, until the end. Raises GotraceError."""
        with SharedProbes.opened([probe_module(stem) for stem in STEMS], RING_BYTES) as probes:
            agent = Agent(probes, Scanner(), selection, lambda line: None, Bounds(processes=MOST, cost=1), detailed=True)
            local = cls(agent)
            local._thread.start()
            try:
                yield local
            finally:
                local._stopped.set()
                local._thread.join()
                agent.close()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._agent.step()
        except Exception as error:  # for who asks next
            self._failed = error

    def rows(self) -> list[Row]:
        self._check()
        rows = msgspec.convert(self._agent.processes(), list[Row])
        return [each for each in rows if each.state != NOT_SELECTED]

    def details(self, pid: int) -> Details | None:
        self._check()
        found: dict[str, Any] | None = self._agent.process(pid)
        return None if found is None else msgspec.convert(found, Details)

    def _check(self) -> None:
        if self._failed is not None:
            if isinstance(self._failed, GotraceError):
                raise self._failed
            raise HostError(f"tracing failed: {type(self._failed).__name__}: {self._failed}", "start it again")
