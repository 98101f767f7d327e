"""Probes on a process for a while, for commands that ask about its memory."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gotrace import session
from gotrace.cli._target import StopRequest
from gotrace.kernel.process import Process
from gotrace.text import printable


@dataclass(frozen=True)
class Watched:
    """A process with its probes in place; ``modules`` are the probes', ``name`` says what it is."""

    process: Process
    tracing: session.Session
    modules: list[Any]
    stop: StopRequest
    name: str


@contextlib.contextmanager
def watching(pid: int, stems: Sequence[str]) -> Iterator[Watched]:
    """Attach the probes called ``stems`` and say so. Raises GotraceError."""
    stop = StopRequest()
    modules = [importlib.import_module(f"gotrace.probes.{stem}") for stem in stems]
    with Process.open(pid) as process, session.opened(modules, process) as tracing:
        name = f"pid {pid} ({printable(process.exe_name)}, {tracing.plan.go_version})"
        print(f"Watching {name}… Ctrl-C to end.", file=sys.stderr, flush=True)
        with stop.installed():
            yield Watched(process, tracing, modules, stop, name)
