"""What takes long to make of an executable: in a bounded child, several at work at once, and kept in the cache."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import gotrace
from gotrace import cache
from gotrace.arch import a_machine, host_arch
from gotrace.errors import TargetError
from gotrace.kernel.child import Child

if TYPE_CHECKING:
    from gotrace.binary.program import GoProgram, Program
    from gotrace.kernel.process import Process


class Places(Protocol):
    """Where something is in an executable: a dataclass of link-time addresses that JSON can hold."""

    @property
    def pie(self) -> bool: ...

    @property
    def first_vaddr(self) -> int: ...

    def to_json(self) -> dict[str, Any]: ...


PlacesT = TypeVar("PlacesT", bound=Places)


def found_in(process: Process, name: str, kind: type[PlacesT], find: Callable[[GoProgram], PlacesT]) -> PlacesT:
    """What ``find`` finds in a target's executable: in a child, for it disassembles, or in the cache under ``name``.

    Raises what it does, and TargetError for a program of another architecture than this machine's.
    """
    with contextlib.ExitStack() as stack:
        return kind(**finding(stack, process, name, find).json())


def finding(
    stack: contextlib.ExitStack, process: Process, name: str, find: Callable[[GoProgram], Places], cpu_seconds: int = 30
) -> Made:
    """The same at work: its `json` raises what `found_in` does."""

    def make(path: str) -> Places:
        from gotrace.binary.program import GoProgram

        with GoProgram.open(path) as program:
            require_same_arch(program)
            return find(program)

    key = cache.key(name, gotrace.__version__, code_stamp(), *process.identity())
    return Made(stack, key, make, process.exe_path, cpu_seconds=cpu_seconds)


def bias_in(process: Process, places: Places) -> int:
    """What is added to link-time addresses in this process. Raises TargetError or HostError."""
    return process.load_bias(places.first_vaddr) if places.pie else 0


class Made:
    """Something that takes long to make: from the cache, or from a child that is at work until `json` is called."""

    def __init__(self, stack: contextlib.ExitStack, key: str, make: Callable[..., Any], *args: Any, **limits: int) -> None:
        self.key = key
        self._entry = cache.get(key)
        self._child = None if self._entry else Child(make, *args, **limits)
        stack.callback(self._abandon)

    def json(self) -> Any:
        if self._child is not None:
            child, self._child = self._child, None
            self._entry = child.result().to_json()
            cache.put(self.key, self._entry)
        return self._entry

    def _abandon(self) -> None:
        if self._child is not None:
            self._child.abandon()


def require_same_arch(program: Program) -> None:
    """Raises TargetError for a program of another architecture than this machine's."""
    host = host_arch().goarch
    if program.arch != host:
        raise TargetError(
            f"the target is a program for {program.arch}, but this machine is {host}",
            f"run gotrace on {a_machine(program.arch)}",
        )


def code_stamp() -> str:
    """Changes whenever the code that makes plans does: a plan of an older gotrace must not be used by a newer one."""
    from gotrace import arch, binary, probe, probes

    paths = [arch.__file__, probe.__file__]
    for folder in (*binary.__path__, *probes.__path__):
        with os.scandir(folder) as files:
            paths += sorted(file.path for file in files if file.is_file())
    return ",".join(f"{os.path.basename(path)}:{os.stat(path).st_mtime_ns}" for path in paths)
