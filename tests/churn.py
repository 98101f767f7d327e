"""Go programs that start, end, are stopped, execute others and get each other's numbers: at random, seeded."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import targets

_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def named_copies(folder: Path, prefix: str, versions: Sequence[str], program: str) -> list[Path]:
    """``program`` of each release as PREFIX-RELEASE."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(targets.build(program, each), folder / f"{prefix}-{each}")) for each in versions]


class Churn:
    """``loads`` are copies of gcload, ``execers`` of execer; at most ``most`` are there at once. Call `step` often."""

    def __init__(self, loads: Sequence[Path], execers: Sequence[Path], seed: int, most: int = 12) -> None:
        self._loads, self._execers, self._most = loads, execers, most
        self._random = random.Random(seed)
        self._running: list[subprocess.Popen[bytes]] = []
        self.done: Counter[str] = Counter()

    def step(self) -> None:
        """One of everything that may happen."""
        actions = {
            self._start: 4,
            self._go: 5,
            self._stop: 2,
            self._continue: 3,
            self._kill: 2,
            self._finish: 2,
            self._reuse: 1,
        }
        if len(self._running) >= self._most:
            del actions[self._start]
        if not self._running:
            actions = {self._start: 1}
        (action,) = self._random.choices(list(actions), list(actions.values()))
        action()
        self.done[action.__name__.strip("_")] += 1
        for each in [each for each in self._running if each.poll() is not None]:
            self._forget(each)

    def _one(self) -> subprocess.Popen[bytes]:
        return self._random.choice(self._running)

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [str(self._random.choice(self._loads)), "-cycles", "3", "-live", "1"]
        kind = self._random.randrange(4)
        if kind == 0:
            command = [str(self._random.choice(self._execers)), "-cycles", "2", "-wait", *command]
        elif kind == 1:
            command = ["/bin/sh", "-c", 'read line; exec "$@"', "sh", *command]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0)

    def _start(self) -> None:
        self._running.append(self._begin())

    def _go(self) -> None:
        """A load begins to collect, another executes a load."""
        self._write(self._one())

    def _stop(self) -> None:
        self._one().send_signal(signal.SIGSTOP)

    def _continue(self) -> None:
        self._one().send_signal(signal.SIGCONT)

    def _kill(self) -> None:
        self._one().kill()

    def _finish(self) -> None:
        process = self._one()
        process.send_signal(signal.SIGCONT)
        self._write(process, end=True)

    def _write(self, process: subprocess.Popen[bytes], end: bool = False) -> None:
        assert process.stdin is not None
        if process.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            if end:
                process.stdin.close()

    def _reuse(self) -> None:
        """The next process gets the number of one that was there until now, unless somebody else is faster."""
        process = self._one()
        process.kill()
        self._forget(process)
        with contextlib.suppress(OSError):
            _LAST_PID.write_text(str(process.pid - 1))
        self._running.append(self._begin())
        self.done["numbers given again"] += self._running[-1].pid == process.pid

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._running.remove(process)
        assert process.stdin is not None
        process.stdin.close()

    def there(self) -> dict[int, str]:
        """The executables of those that are Go programs of ours now, by pid."""
        ours = {str(path) for path in (*self._loads, *self._execers)}
        found = {}
        for each in self._running:
            with contextlib.suppress(OSError):
                if each.poll() is None and (exe := os.readlink(f"/proc/{each.pid}/exe")) in ours:
                    found[each.pid] = exe
        return found

    def end(self) -> None:
        for each in list(self._running):
            each.kill()
            self._forget(each)


def state_of(pid: int) -> tuple[int, int]:
    """A process's descriptors, and its resident memory in bytes."""
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return len(os.listdir(f"/proc/{pid}/fd")), int(resident) * 1024


def calm(pid: int, seconds: float = 10) -> tuple[int, int]:
    """The same once it holds as few descriptors as for a second: connections close, probes are taken away in threads."""
    end = time.monotonic() + seconds
    least, since = state_of(pid), time.monotonic()
    while time.monotonic() - since < 1 and time.monotonic() < end:
        time.sleep(0.05)
        now = state_of(pid)
        if now[0] < least[0]:
            least, since = now, time.monotonic()
    return least[0], state_of(pid)[1]
