"""What a family of processes maps, looked at while who maps it is held: a process and all that it starts.

A process of our own waits for two things (`gotrace.kernel.execs`): that one of the family executes a program, and that
its dynamic linker has mapped libraries. Whoever does is held for a moment, or where there is something new, until another
of our processes has looked at it. So nothing is missed of a library but where nobody could be held in time, and then it is
known for how long.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

from gotrace.errors import GotraceError
from gotrace.kernel import bpf
from gotrace.kernel.execs import Asked, Exec, ExecWatch, first_in_line
from gotrace.kernel.forked import cpu_s, forked, is_readable
from gotrace.kernel.process import Process, family

# Looks at what a process has mapped, for so long at most before anything was done about it (None: before gotrace began, or
# before it ran); a message, or None if there is nothing to say. Raises GotraceError.
Look = Callable[[Process, int | None], dict[str, Any] | None]

# Where in a dynamic linker, by its path, it tells that it has mapped libraries. Raises GotraceError.
Site = Callable[[str], int]

_LINKER = re.compile(r"/ld(-[\w.-]+)?\.so\b|/ld-musl-[^/]*\.so\.1$|/ld-[\d.]+\.so$")
_MOST_BYTES = 1 << 20
_MOST_KNOWN = 1 << 15
_READY = {"ready": True}


class Family:
    """That process, from outside. Messages are those of `Look`; of who could not be looked at they have the ``reason``."""

    def __init__(self, pid: int, look: Look, site: Site, names: Sequence[str], foreign: Sequence[int] = ()) -> None:
        """``names`` are how those libraries begin that are looked at."""
        self._socket, self._child = forked(lambda parent: _Looking(parent, pid, look, site, names).run(), foreign)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MOST_BYTES)
        self.first: list[dict[str, Any]] = []  # of who is there already
        while (told := self.receive(None)) != _READY:
            assert told is not None
            self.first.append(told)

    def receive(self, seconds: float | None) -> dict[str, Any] | None:
        """The next message, or None after ``seconds``. Raises GotraceError."""
        if seconds is not None and not is_readable(self._socket, seconds):
            return None
        data = self._socket.recv(_MOST_BYTES)
        if not data:
            raise GotraceError(
                "the process that inspects other processes' mappings exited", "start again; `gotrace doctor` shows details"
            )
        told: dict[str, Any] = json.loads(data)
        return told

    def cpu_s(self) -> float:
        return cpu_s(self._child)

    def close(self) -> None:
        """No more of it; its probes go with it."""
        self._socket.close()
        os.waitpid(self._child, 0)


class _Looking:
    """That process, from inside."""

    def __init__(self, parent: socket.socket, pid: int, look: Look, site: Site, names: Sequence[str]) -> None:
        self._parent, self._pid, self._look, self._site = parent, pid, look, site
        self._news = _News(names)
        self._linkers: dict[tuple[int, int], bool] = {}  # by their inodes, whether there is a probe
        self._probes: list[int] = []
        self._waiting: list[bytes] = []  # messages that nobody has read for long: no process is held for that

    def run(self) -> None:
        with contextlib.suppress(OSError), bpf.closing_all(self._probes), ExecWatch.opened(self._pid, tree=True) as watch:
            holder, child = forked(lambda ours: _hold(ours, watch, self._news))
            try:
                others = family(self._pid)
                watch.follow(others)
                for pid in (self._pid, *others):
                    self._seen(watch, pid, None)
                self._tell(_READY)
                while not self._is_over(holder):
                    self._send()
                    if is_readable(holder):
                        self._found(watch, holder)
            finally:
                holder.close()
                os.waitpid(child, 0)

    def _is_over(self, holder: socket.socket) -> bool:
        """Wait for something to do; True if nobody is there any more, who never says a word."""
        poll = select.poll()
        for each in (self._parent, holder):
            poll.register(each, select.POLLIN)
        return any(fd == self._parent.fileno() for fd, _ in poll.poll(100 if self._waiting else None))

    def _found(self, watch: ExecWatch, holder: socket.socket) -> None:
        data = holder.recv(_MOST_BYTES)
        if not data:
            raise OSError
        number, pid, late_ns, linked = json.loads(data)
        try:
            self._seen(watch, pid, late_ns, executed=not linked)
        finally:
            holder.send(b"%d" % number)

    def _seen(self, watch: ExecWatch, pid: int, late_ns: int | None, executed: bool = True) -> None:
        about: dict[str, Any] = {"pid": pid, "exe": "?", "libraries": [], "late_ns": late_ns}
        try:
            with Process.open(pid) as process:
                about["exe"] = process.exe_name
                # Who has just executed a program comes to its linker yet, where it has one.
                waits = executed and self._has_linker(watch, process) and late_ns is not None
                told = None if waits else self._look(process, late_ns)
        except GotraceError as error:
            if os.path.exists(f"/proc/{pid}"):
                self._tell(about | {"reason": error.message.replace(f"/proc/{pid}/exe", "it")})
            return
        if told is not None:
            self._tell(told)

    def _has_linker(self, watch: ExecWatch, process: Process) -> bool:
        """Whether it has a dynamic linker that tells when it has mapped libraries: from now on, if that is new."""
        for each in process.mappings():
            if not (each.executable and _LINKER.search(each.path)):
                continue
            with contextlib.suppress(OSError, GotraceError):
                fd = process.open_mapped(each)
                try:
                    status = os.stat(fd)
                    key = status.st_dev, status.st_ino
                    if key not in self._linkers:
                        self._linkers[key] = False
                        path = f"/proc/self/fd/{fd}"
                        self._probes.append(watch.watch_linker(path, self._site(path)))
                        self._linkers[key] = True
                    return self._linkers[key]
                finally:
                    os.close(fd)
        return False

    def _tell(self, about: dict[str, Any]) -> None:
        self._waiting.append(json.dumps(about).encode())
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._waiting:
                self._parent.send(self._waiting[0], socket.MSG_DONTWAIT)
                del self._waiting[0]


class _News:
    """Whether there is something new to look at in a process that was held."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [b"/" + name.encode() for name in names]
        parts = b"|".join(map(re.escape, self._names))
        self._line = re.compile(rb"^\S+ r.x. \S+ (\S+ \d+) .*(?:%s)[^/\n]*$" % parts, re.M)
        self._linker = re.compile(rb"^\S+ r.x. \S+ (\S+ \d+) .*/ld[^/\n]*$", re.M)
        self._known: set[tuple[object, ...]] = set()

    def of(self, pid: int, linked: bool) -> bool:
        """The first time that a program executes, or that a process has these libraries. A file is known by its inode."""
        try:
            exe = os.stat(f"/proc/{pid}/exe")
            with open(f"/proc/{pid}/maps", "rb") as file:
                maps = file.read()
        except OSError:
            return True  # whoever looks says what is wrong
        has = linked and any(name in maps for name in self._names)
        # Who has just executed a program may have libraries of its own; and its number may be another's from now on.
        which = frozenset(self._line.findall(maps)) if has else frozenset(self._linker.findall(maps))
        about = (pid if has else 0, exe.st_dev, exe.st_ino, which)
        if about in self._known:
            return False
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(about)
        return True

    def executed(self, pid: int) -> None:
        """What it had is gone."""
        self._known = {each for each in self._known if each[0] != pid}


def _hold(looking: socket.socket, watch: ExecWatch, news: _News) -> None:
    """Hold who does something, and if that is news say so, until told to release it. It does nothing else, so that it is
    never late."""
    held: dict[int, Exec] = {}
    asked: list[Asked] = []
    numbers = itertools.count(1)
    with first_in_line():
        while True:
            # Whoever was asked may not get a CPU for long: others must not wait for that.
            if (found := watch.ask(0.0005 if asked else 3600, looking.fileno())) is not None:
                asked.append(found)
            for each in list(asked):
                if (stopped := each.try_stopped()) is None:
                    continue
                asked.remove(each)
                if not stopped.linked:
                    news.executed(stopped.pid)
                if news.of(stopped.pid, stopped.linked):
                    number = next(numbers)
                    held[number] = stopped
                    looking.send(json.dumps([number, stopped.pid, stopped.late_ns, stopped.linked]).encode())
                else:
                    stopped.release()
            while not watch.has_more() and is_readable(looking):
                data = looking.recv(64)
                if not data:
                    return
                held.pop(int(data)).release()
