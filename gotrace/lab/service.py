"""The service under test: a command that is started for one run, found to be ready, and ended."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import signal
import socket
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gotrace.errors import ServiceError, UsageError
from gotrace.kernel.process import Process, family
from gotrace.lab.children import Group
from gotrace.run.refusal import refusal
from gotrace.text import duration_text, printable

_POLL_S = 0.002
_PATIENCE_S = 10.0
_LAST_LINES = 3


@dataclass(frozen=True)
class Ready:
    """When a service counts as ready: something accepts connections at a port, or answers a GET of ``path`` with 2xx."""

    host: str
    port: int
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Ready:
        """Of ``tcp:8080``, ``tcp:host:8080`` or ``http://host:8080/path``. Raises UsageError."""
        kind, _, rest = text.partition(":")
        with contextlib.suppress(ValueError):
            if kind == "tcp":
                host, _, port = rest.rpartition(":")
                return cls(host or "127.0.0.1", _port(port))
            if kind == "http":
                found = urllib.parse.urlsplit(text)
                return cls(found.hostname or "127.0.0.1", found.port or 80, found.path or "/")
        raise UsageError(f"cannot read --ready {text!r}", "write tcp:PORT, tcp:HOST:PORT or http://HOST:PORT/PATH")

    @classmethod
    def of_url(cls, url: str) -> Ready:
        """That the address of ``url`` accepts connections."""
        found = urllib.parse.urlsplit(url)
        return cls(found.hostname or "127.0.0.1", found.port or (443 if found.scheme == "https" else 80))

    def __str__(self) -> str:
        if self.path is None:
            return f"tcp:{self.host}:{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.path}"

    def met(self) -> bool:
        """Whether it is ready now."""
        try:
            if self.path is None:
                socket.create_connection((self.host, self.port), 1).close()
                return True
            connection = http.client.HTTPConnection(self.host, self.port, timeout=1)
            with contextlib.closing(connection):
                connection.request("GET", self.path)
                return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return False


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 1 << 16:
        raise ValueError(text)
    return port


@dataclass(frozen=True)
class Running:
    """A service that is ready: ``pid`` is its Go program's, ``ready_ns`` how long that took from its start, None of one
    that ran before.
    """

    pid: int
    ready_ns: int | None
    ready_at_ns: int | None  # in CLOCK_MONOTONIC
    ended: Callable[[], str]
    """How it ended, with what it wrote last; "" while it runs."""


@contextlib.contextmanager
def started(
    command: Sequence[str],
    ready: Ready,
    log: Path,
    cpus: Collection[int] = (),
    patience_s: float = _PATIENCE_S,
    root: Callable[[int], int] = lambda pid: pid,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[Running]:
    """The service, ended on the way out: by SIGTERM to it and all that it started, and by SIGKILL if that does not help.

    It ends with us, too, be we killed. What it writes goes to the file ``log``; ``cpus`` are those that it may use, all if
    there are none. ``root`` tells, of the command's process, the one that is the Go program or has started it;
    ``meanwhile`` is called again and again until it is ready. Raises ServiceError where it cannot be started, something is
    at its port already, or it does not become ready in ``patience_s``.
    """
    if ready.met():
        raise ServiceError(
            f"something already answers at {ready} before the service is started",
            "stop it, or give the service another port",
        )

    with open(log, "wb") as output:
        began_ns = time.monotonic_ns()
        try:
            child = Group(command, cpus, stdout=output, stderr=output)
        except OSError as error:
            hint = "check the command after `--`: its spelling, its permissions, your PATH"
            raise UsageError(f"cannot run {printable(command[0])}: {error.strerror}", hint) from None

        def ended() -> str:
            return _ended(child, log)

        program = None
        try:
            while not ready.met():
                if ended():
                    raise ServiceError(f"the service exited before it was ready: {ended()}", f"its output is in {log}")
                if time.monotonic_ns() - began_ns > patience_s * 1e9:
                    waited = duration_text(patience_s * 1e9)
                    raise ServiceError(
                        f"the service was not ready after {waited}: nothing answers at {ready}",
                        f"say how to tell that it is ready with --ready; its output is in {log}",
                    )
                meanwhile()
                time.sleep(_POLL_S)
            ready_at_ns = time.monotonic_ns()
            pid = _go_program(root(child.pid))
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                program = os.pidfd_open(pid)
            yield Running(pid, ready_at_ns - began_ns, ready_at_ns, ended)
        finally:
            _end(child, program)


@contextlib.contextmanager
def found(pid: int, ready: Ready) -> Iterator[Running]:
    """A service that runs already, and goes on. Raises ServiceError if it is not ready, TargetError if there is none."""
    with Process.open(pid) as process:
        if not ready.met():
            raise ServiceError(
                f"nothing answers at {ready}", f"give the address on which process {pid} listens with --ready"
            )
        yield Running(pid, None, None, lambda: f"process {pid} has exited" if process.wait(0) else "")


def _ended(child: Group, log: Path) -> str:
    status = child.poll()
    if status is None:
        return ""
    how = f"status {status}" if status >= 0 else signal.Signals(-status).name
    last = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    return ": ".join([how, *([" / ".join(map(printable, last))] if last else [])])


def _end(child: Group, program: int | None) -> None:
    """``program`` is a pidfd of the Go program, which may have a session of its own."""
    child.end(_PATIENCE_S)
    if program is None:
        return
    with contextlib.closing(os.fdopen(program)), contextlib.suppress(ProcessLookupError):
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(program, number)
            if select.select([program], [], [], _PATIENCE_S)[0]:
                return


def _go_program(pid: int) -> int:
    """The process itself, or the one Go program below it: a launcher (a script, `env`) may stand before it."""
    found = [each for each in (pid, *family(pid)) if refusal(f"/proc/{each}/exe", "it") is None]
    if pid in found:
        return pid
    if len(found) != 1:
        what = "no Go program" if not found else f"{len(found)} Go programs"
        raise ServiceError(f"the command runs {what}", "give the command that starts one")
    return found[0]
