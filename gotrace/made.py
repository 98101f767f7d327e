"""What takes long to make of an executable: in a bounded child, several at work at once, and kept in the cache."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gotrace
from gotrace import cache
from gotrace.arch import a_machine, host_arch
from gotrace.errors import TargetError
from gotrace.kernel.child import Child

if TYPE_CHECKING:
    from gotrace.binary.program import Program
    from gotrace.kernel.process import Process


def of_executable(process: Process, name: str, make: Callable[[str], Any]) -> Any:
    """``make(path)`` of a target's executable as JSON, made in a child or taken from the cache under ``name``."""
    key = cache.key(name, gotrace.__version__, code_stamp(), *process.identity())
    with contextlib.ExitStack() as stack:
        return Made(stack, key, make, process.exe_path, cpu_seconds=30).json()


class Made:
    """Something that takes long to make: from the cache, or from a child that is at work until `json` is called."""

    def __init__(self, stack: contextlib.ExitStack, key: str, make: Callable[..., Any], *args: Any, **limits: int) -> None:
        self._key = key
        self._entry = cache.get(key)
        self._child = None if self._entry else Child(make, *args, **limits)
        stack.callback(self._abandon)

    def json(self) -> Any:
        if self._child is not None:
            child, self._child = self._child, None
            self._entry = child.result().to_json()
            cache.put(self._key, self._entry)
        return self._entry

    def _abandon(self) -> None:
        if self._child is not None:
            self._child.abandon()


def require_same_arch(program: Program) -> None:
    """Raises TargetError for a program of another architecture than this machine's."""
    host = host_arch().goarch
    if program.arch != host:
        raise TargetError(
            f"the target is a program for {program.arch}, this machine is {host}",
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
