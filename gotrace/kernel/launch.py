"""Starting a command: at once, or so that it is stopped before its first instruction until its probes are in place.

To be stopped, the child asks to be traced and executes the command: the kernel stops it inside execve, with its executable
mapped and nothing of it run. Detaching lets it go. It is untouched either way: descriptors, signals, terminal and process
group are the caller's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
from collections.abc import Iterator

from gotrace.errors import HostError, UsageError

_TRACEME, _DETACH, _SETOPTIONS = 0, 17, 0x4200
_OPTION_EXITKILL = 0x100000

# What our caller had ignored (nohup, a shell's background), before we listened for it ourselves: a command inherits that.
_IGNORED = [n for n in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM) if signal.getsignal(n) is signal.SIG_IGN]


@contextlib.contextmanager
def _ignoring_as_before() -> Iterator[None]:
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in _IGNORED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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
            hint = "check the command after `--`: its spelling, its permissions, your PATH"
            raise UsageError(f"cannot run {command[0]}: {error.strerror}", hint) from None
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

    def exit_code(self) -> int:
        """As a shell would report it (128 + the signal that ended it); 0 while it runs."""
        code = self._child.poll() or 0
        return code if code >= 0 else 128 - code


class Launched:
    """A command we started. It must be released or killed."""

    def __init__(self, command: list[str]) -> None:
        """Start ``command`` and stop it; raises UsageError when it cannot be executed, HostError without ptrace."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
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
                raise HostError(f"a child may not be traced: {os.strerror(number)}", "start it yourself and use --pid")
            hint = "check the command after `--`: its spelling, its permissions, your PATH"
            raise UsageError(f"cannot run {command[0]}: {os.strerror(number)}", hint)
        if not os.WIFSTOPPED(status):
            raise HostError(f"{command[0]} ended before it could be traced", "start it yourself and use --pid")
        # If we die before letting it go it must not stay behind, stopped for ever.
        self._ptrace(_SETOPTIONS, _OPTION_EXITKILL)

    def _become(self, command: list[str], write_end: int) -> None:
        try:
            # Python ignores these two; a command expects the system's defaults.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            for number in _IGNORED:
                signal.signal(number, signal.SIG_IGN)
            stage = b"t"
            if self._libc.ptrace(_TRACEME, 0, None, None) == 0:
                stage = b"e"
                os.execvp(command[0], command)
            raise OSError(ctypes.get_errno(), "")
        except OSError as error:
            os.write(write_end, struct.pack("ci", stage, error.errno or 0))
        finally:
            os._exit(127)

    def _ptrace(self, request: int, data: int = 0) -> None:
        self._libc.ptrace(request, self.pid, None, data)

    def release(self) -> None:
        """Let the command run."""
        self._ptrace(_DETACH)

    def kill(self) -> None:
        """End a command that was never released, or that has to go at once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._wait(0)

    def terminate(self) -> None:
        """Ask the command to end (SIGTERM), and wait until it has."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            self._wait(0)

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
