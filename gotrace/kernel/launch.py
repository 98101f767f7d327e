"""Starting a command: at once, or so that it is stopped before its first instruction until its probes are in place.

To be stopped, the child asks to be traced and executes the command: the kernel stops it inside execve, with its executable
mapped and nothing of it run. Detaching lets it go. It is untouched either way: descriptors, signals, terminal and process
group are the caller's.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import select
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator

from gotrace.errors import HostError, UsageError
from gotrace.kernel import ptrace
from gotrace.text import printable

# What our caller had ignored (nohup, a shell's background), before we listened for it ourselves: a command inherits that.
_IGNORED = [n for n in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM) if signal.getsignal(n) is signal.SIG_IGN]

_HINT = "check the command after `--`: its spelling, its permissions, your PATH"


@contextlib.contextmanager
def _ignoring_as_before() -> Iterator[None]:
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in _IGNORED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def program_path(program: str) -> str:
    """The path of a command's program, as a shell finds it. Raises UsageError when there is none to execute."""
    path = shutil.which(program)
    if path is not None:
        return path
    why = "no such program"
    if "/" in program and os.path.exists(program):
        why = "it is a folder" if os.path.isdir(program) else "it is not executable"
    raise UsageError(f"cannot run {printable(program)}: {why}", _HINT)


class NotExecutableError(UsageError):
    """What the kernel does not know how to execute, though it is there and may be executed."""


def _failed(program: str, number: int) -> UsageError:
    """What to say of an execve that failed, by its errno."""
    kind = NotExecutableError if number == errno.ENOEXEC else UsageError
    return kind(f"cannot run {printable(program)}: {os.strerror(number)}", _HINT)


class Spawned:
    """A command we started that runs at once, as a shell would start it.

    By vfork: execve has to take down the address space of who calls it, and ours is large (measured: five times the
    execve of a fork). posix_spawn would leave two signals ignored.
    """

    def __init__(self, command: list[str]) -> None:
        """Raises UsageError when ``command`` cannot be executed."""
        try:
            # With a folder given, subprocess does not take posix_spawn; descriptors are the caller's to close.
            with _ignoring_as_before():
                self._child = subprocess.Popen(command, close_fds=False, cwd=".")
        except OSError as error:
            raise _failed(command[0], error.errno or 0) from None
        self.pid = self._child.pid

    def wait(self, seconds: float) -> bool:
        """Sleep up to ``seconds``; True as soon as it has ended."""
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, patience_s: float = 10.0) -> None:
        """Ask it to end (SIGTERM); kill it if it does not."""
        self._child.terminate()
        if not self.wait(patience_s):
            self._child.kill()
            self._child.wait()

    def interrupt(self, patience_s: float = 10.0) -> None:
        """Ask it and all that it started to end, as Ctrl-C on a terminal does (SIGINT); end it if it does not.

        What `go run` started, and compilers, would go on without the go command.
        """
        for pid in [self.pid, *_below(self.pid)]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGINT)
        if not self.wait(patience_s):
            self.end()

    def exit_code(self) -> int:
        """As a shell would report it (128 + the signal that ended it); 0 while it runs."""
        code = self._child.poll() or 0
        return code if code >= 0 else 128 - code


def _below(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those have (proc(5), children of each thread)."""
    for path in glob.iglob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path) as file:
            for child in map(int, file.read().split()):
                yield child
                yield from _below(child)


class Launched:
    """A command we started. It must be released or killed."""

    def __init__(self, command: list[str]) -> None:
        """Start ``command`` and stop it; raises UsageError when it cannot be executed, HostError without ptrace."""
        self.released = False
        self._status: int | None = None
        read_end, write_end = os.pipe()  # close-on-exec: a successful execve closes it without a word
        self.pid = os.fork()
        if self.pid == 0:
            self._become(command, write_end)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as file:
            failure = file.read()
        _, status = os.waitpid(self.pid, 0)
        if failure:
            stage, number = struct.unpack("ci", failure)
            if stage == b"t":
                raise HostError(f"cannot trace a child process: {os.strerror(number)}", "start it yourself and use --pid")
            raise _failed(command[0], number)
        if not os.WIFSTOPPED(status):
            raise HostError(f"{command[0]} exited before it could be traced", "start it yourself and use --pid")
        ptrace.kill_when_we_die(self.pid)
        self._pidfd = os.pidfd_open(self.pid)

    def _become(self, command: list[str], write_end: int) -> None:
        try:
            # Python ignores these two; a command expects the system's defaults.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            for number in _IGNORED:
                signal.signal(number, signal.SIG_IGN)
            stage = b"t"
            failure = ptrace.trace_me()
            if failure:
                raise OSError(failure, "")
            stage = b"e"
            os.execvp(command[0], command)
        except OSError as error:
            os.write(write_end, struct.pack("ci", stage, error.errno or 0))
        finally:
            os._exit(127)

    def run_to(self, address: int, seconds: float = 10) -> None:
        """Let it run until it comes to ``address`` and is stopped again, there or where it is after so many seconds.

        Or until it has ended. Raises OSError.
        """
        self._status = ptrace.run_to(self.pid, address, seconds)
        self.released = self._status is not None

    def release(self) -> None:
        """Let the command run."""
        ptrace.let_go(self.pid)
        self.released = True

    def kill(self) -> None:
        """End a command that was never released, or that has to go at once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._wait(0)

    def ask_to_end(self) -> None:
        """By SIGTERM; only while `poll` says that it runs."""
        os.kill(self.pid, signal.SIGTERM)

    def wait_ended(self) -> None:
        if self.poll() is None:
            self._wait(0)

    def wait(self, seconds: float) -> bool:
        """Sleep up to ``seconds``; True as soon as it has ended."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def poll(self) -> int | None:
        """The command's wait status, or None while it runs."""
        return self._status if self._status is not None else self._wait(os.WNOHANG)

    def exit_code(self) -> int:
        """The command's exit status as a shell would report it (128 + the signal that ended it)."""
        status = self.poll()
        if status is None:
            return 0
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def _wait(self, options: int) -> int | None:
        pid, status = os.waitpid(self.pid, options)
        if pid:
            self._status = status
        return self._status
