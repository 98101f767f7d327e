"""`gotrace top` on a real terminal, of tmux: its numbers are what the programs count, and the terminal is left as it was."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import targets
from conftest import GOTRACE, Target, until
from groundtruth import gctrace

pytestmark = pytest.mark.bpf

Start = Callable[..., Target]


class Terminal:
    """A shell in tmux, 200 columns wide."""

    def __init__(self, folder: Path) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        shell = ["env", "PS1=$ ", "sh"]
        self._do("new-session", "-d", "-x", "200", "-y", "45", *shell)

    def _do(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True, timeout=10).stdout

    def type(self, line: str) -> None:
        self._do("send-keys", "-l", line)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        self._do("send-keys", *keys)

    def screen(self) -> str:
        return self._do("capture-pane", "-p")

    def is_alternate(self) -> bool:
        return self._do("display-message", "-p", "#{alternate_on}").strip() == "1"

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._do("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("no tmux")
    found = Terminal(tmp_path)
    yield found
    found.close()


def cells(screen: str, pid: int) -> dict[str, str]:
    """The row of a process, by the heads of its columns: these end where the cells do."""
    lines = screen.split("\n")
    head = next(line for line in lines if re.search(r"pid +name", line))
    row = next((line for line in lines if re.match(rf" *{pid} ", line)), None)
    if row is None:
        return {}
    found, begin = {}, 0
    for match in re.finditer(r"so far|\S+", head):
        end = match.end()
        if match[0] == "name":
            end = head.index("max") - 6
        found[match[0]] = row[begin:end].strip()
        begin = end
    return found


@pytest.mark.parametrize("how", ["q", "TERM"])
def test_what_is_on_the_screen(terminal: Terminal, start: Start, tmp_path: Path, how: str) -> None:
    """Two programs of two releases; left by its key, or killed."""
    prefix = f"top{os.getpid()}"
    ours: list[Target] = []
    for name, version in ((f"{prefix}-new", targets.NEWEST), (f"{prefix}-old", "1.19.8")):
        path = shutil.copy(targets.build("gcload", version), tmp_path / name)
        ours.append(start(Path(path), "-cycles", "200", env={"GODEBUG": "gctrace=1"}))
    settings, pid_file = tmp_path / "stty", tmp_path / "pid"
    command = shlex.join([*GOTRACE, "top", "--name", f"{prefix}-*"])
    script = tmp_path / "script"
    script.write_text(f"cd {tmp_path}\necho $$ >{pid_file}\nexec {command}\n")
    terminal.type(f"stty -g >{settings}.before; sh {script}; stty -g >{settings}")
    until(lambda: "2 traced" in terminal.screen(), 60)
    assert terminal.is_alternate()
    before = [len(gctrace(each.stderr.read_text())) for each in ours]
    for each in ours:
        each.go()
    truths: list[dict[str, Any]] = [each.truth() for each in ours]
    own = [each["NumGC"] - count for each, count in zip(truths, before, strict=True)]
    until(lambda: [cells(terminal.screen(), each.pid).get("cycles") for each in ours] == list(map(str, own)), 20)
    for each, truth, count in zip(ours, truths, before, strict=True):
        seen = cells(terminal.screen(), each.pid)
        assert (seen["lost"], seen["Ps"]) == ("0", str(os.cpu_count())), seen
        assert milliseconds(seen["so far"]) == pytest.approx(max(truth["PauseNs"][count : truth["NumGC"]]) / 1e6, rel=0.25)
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{each.pid}/status").read_text())
        assert mebibytes(seen["RSS"]) == pytest.approx(int(resident) / 1024, rel=0.05)
    terminal.press("e")
    until(lambda: "wrote gotrace-top.ndjson" in terminal.screen())
    written = {each["pid"]: each for each in map(json.loads, (tmp_path / "gotrace-top.ndjson").read_text().splitlines())}
    for each, truth, count in zip(ours, truths, before, strict=True):
        told = written[each.pid]
        assert told["pauses"] == 2 * told["cycles"] and told["paused_ns"] == sum(truth["PauseNs"][count : truth["NumGC"]])
    terminal.press("Enter")
    until(lambda: "GC mark termination" in terminal.screen() and "The longest pauses" in terminal.screen())
    terminal.press("Escape")
    assert [each.finish() for each in ours] == [0, 0]
    until(lambda: terminal.screen().count("(ended)") == 2)
    until(lambda: "(ended)" not in terminal.screen())
    if how == "q":
        terminal.press("q")
    else:
        os.kill(int(pid_file.read_text()), 15)
    until(settings.exists, 20)
    until(lambda: settings.read_text() != "")
    assert settings.read_text() == Path(f"{settings}.before").read_text() and not terminal.is_alternate()
    assert "Traceback" not in terminal.screen() and "internal error" not in terminal.screen()


def milliseconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1e3}[unit]


def mebibytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}[unit]


def test_what_is_refused(
    gotrace: Callable[..., subprocess.CompletedProcess[str]], terminal: Terminal, tmp_path: Path
) -> None:
    done = gotrace("top")
    assert (done.returncode, done.stderr.count("\n")) == (2, 2) and "needs a terminal" in done.stderr
    assert gotrace("top", "--pid", "1", "--name", "x").returncode == 2
    assert gotrace("top", "--token-file", "x").returncode == 2
    command = shlex.join([*GOTRACE, "top"])
    for prefix, options, said in (
        ("TERM=dumb", "", "TERM=dumb"),
        ("", "--connect http://127.0.0.1:21500", "does not answer: Connection refused"),
        ("", "--connect nowhere", "cannot read the address"),
        ("", f"--name nobody{os.getpid()}", "no process fits"),
    ):
        terminal.type(f"clear; {prefix} {command} {options}")
        until(lambda said=said: said in terminal.screen() and "hint:" in terminal.screen(), 20)  # type: ignore[misc]
