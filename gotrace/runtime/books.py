"""The books of one process's runtime: what reads each of them, made when it is asked for first."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from gotrace.runtime.looker import Looker

if TYPE_CHECKING:
    from gotrace.kernel.process import Process
    from gotrace.runtime.goroutines import GoroutineReader
    from gotrace.runtime.profiles import Allocations, ContentionReader, ProfileReader
    from gotrace.runtime.scheduler import SchedulerReader


class Books:
    """Each raises what the class that it is of does, where the book cannot be found."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Give back what is open; who looks again opens it again."""
        if "scheduler" in vars(self):
            self.scheduler.close()

    @cached_property
    def looker(self) -> Looker:
        return Looker(self._process)

    @cached_property
    def goroutines(self) -> GoroutineReader:
        from gotrace.runtime.goroutines import GoroutineReader

        return GoroutineReader(self._process)

    @cached_property
    def profiles(self) -> ProfileReader:
        from gotrace.runtime.profiles import ProfileReader

        return ProfileReader(self._process)

    @cached_property
    def contention(self) -> ContentionReader:
        from gotrace.runtime.profiles import ContentionReader

        return ContentionReader(self._process)

    @cached_property
    def allocations(self) -> Allocations:
        from gotrace.runtime.profiles import Allocations

        return Allocations(self.profiles)

    @cached_property
    def scheduler(self) -> SchedulerReader:
        from gotrace.runtime.scheduler import SchedulerReader

        return SchedulerReader(self._process)
