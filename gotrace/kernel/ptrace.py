"""ptrace(2), as far as gotrace needs it: to be stopped at execve, and to stop others for a moment.

A thread that is traced is let go by the kernel when its tracer goes, however it goes: nothing stays behind, stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

from gotrace.arch import host_arch

# enum __ptrace_request, the same on every architecture
_TRACEME, _POKEUSER, _CONT, _DETACH, _SETOPTIONS, _SEIZE, _INTERRUPT = 0, 6, 7, 17, 0x4200, 0x4206, 0x4207
_OPTION_EXITKILL = 0x100000
_EVENT_STOP = 128
_WALL = 0x40000000  # __WALL: threads too, whoever's children they are

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, data: int = 0) -> int:
    """0, or the errno."""
    return ctypes.get_errno() if _libc.ptrace(request, pid, None, data) == -1 else 0


def trace_me() -> int:
    """Be stopped by one's parent at the next execve; 0, or the errno."""
    return _ptrace(_TRACEME, 0)


def kill_when_we_die(pid: int) -> None:
    """For a child that asked for `trace_me` and is stopped: it must not run on untraced."""
    _ptrace(_SETOPTIONS, pid, _OPTION_EXITKILL)


def let_go(pid: int) -> bool:
    """Trace a stopped thread no more: it runs on. False when it has been killed."""
    return _ptrace(_DETACH, pid) == 0


def seize(tid: int) -> bool:
    """Ask a thread to stop before its next instruction; False if it cannot be traced, or another tracer has it."""
    return _ptrace(_SEIZE, tid) == 0 and _ptrace(_INTERRUPT, tid) == 0


def wait_stopped(tid: int) -> bool:
    """Wait until a thread that was seized has stopped; False when it has exited."""
    try:
        while True:
            _, status = os.waitpid(tid, _WALL)
            if not os.WIFSTOPPED(status):
                return False
            if status >> 16 == _EVENT_STOP:
                return True
            # A signal that came first: it takes its course.
            _ptrace(_CONT, tid, 0 if os.WSTOPSIG(status) == signal.SIGTRAP else os.WSTOPSIG(status))
    except ChildProcessError:
        return False


def has_stopped(tid: int) -> bool | None:
    """Whether a thread that was seized has stopped, or exited (False); None while it has not come to it."""
    try:
        found, status = os.waitpid(tid, os.WNOHANG | _WALL)
    except ChildProcessError:
        return False
    if not found:
        return None
    if not os.WIFSTOPPED(status):
        return False
    if status >> 16 == _EVENT_STOP:
        return True
    _ptrace(_CONT, tid, 0 if os.WSTOPSIG(status) == signal.SIGTRAP else os.WSTOPSIG(status))
    return None


def run_to(pid: int, address: int, seconds: float) -> int | None:
    """Let a child that is stopped, with one thread, run until it comes to ``address``, where it is stopped again.

    Or for so many seconds at most: then it is stopped where it is. Signals take their course. Its wait status if it has
    ended, else None. Raises OSError.
    """
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        trap = host_arch().uprobe_breakpoint
        code = os.pread(memory.fileno(), len(trap), address)
        os.pwrite(memory.fileno(), trap, address)
        deadline, sent, asked = time.monotonic() + seconds, 0, False
        try:
            _ptrace(_CONT, pid)
            while True:
                ended, status = os.waitpid(pid, os.WNOHANG | _WALL)
                if ended and not os.WIFSTOPPED(status):
                    return status
                if not ended:
                    time.sleep(0.0005)
                    if time.monotonic() > deadline and not asked:
                        asked = True
                        os.kill(pid, signal.SIGSTOP)
                    continue
                sent = os.WSTOPSIG(status)
                if sent == signal.SIGTRAP or (asked and sent == signal.SIGSTOP):
                    break
                _ptrace(_CONT, pid, sent)
        finally:
            with contextlib.suppress(OSError):
                os.pwrite(memory.fileno(), code, address)
    if sent == signal.SIGTRAP and host_arch().trap_pc >= 0:
        _libc.ptrace(_POKEUSER, pid, host_arch().trap_pc, address)
    return None


class Stopped:
    """A process that was seized, once all its threads have stopped, or a thread ``alone``, which has stopped.

    `release` lets them run on.
    """

    def __init__(self, pid: int, alone: bool = False) -> None:
        self.pid = pid
        self._tids: list[int] = [pid] if alone or wait_stopped(pid) else []
        # One that has run since may have made threads, and threads threads.
        while not alone and (more := [tid for tid in self._threads() if tid not in self._tids]):
            stopped = [tid for tid in more if seize(tid) and wait_stopped(tid)]
            if not stopped:
                break
            self._tids += stopped

    def _threads(self) -> list[int]:
        try:
            return [int(name) for name in os.listdir(f"/proc/{self.pid}/task")]
        except OSError:
            return []

    def release(self) -> None:
        for tid in reversed(self._tids):  # the first thread has not ended before the others were listened to
            if not let_go(tid) and not (tid == self.pid and _parent(tid) == os.getpid()):
                # Whoever traces it learns of its end first, and keeps it from its parent until it has listened.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(tid, _WALL)
        self._tids = []


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0
