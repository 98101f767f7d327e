"""`gotrace top` on a terminal, of tmux: its numbers are what the programs count, and the terminal is left as it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from textual.widgets import DataTable

import targets
from conftest import GOTRACE, Target, until
from gotrace.agent.remote import Remote
from gotrace.cli.tui.top import Top
from gotrace.text import duration_text
from groundtruth import collected, gctrace

pytestmark = pytest.mark.bpf

Start = Callable[..., Target]


class Terminal:
    """A shell in tmux, so many columns wide."""

    def __init__(self, folder: Path, columns: int = 200) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        shell = ["env", "-u", "COLUMNS", "-u", "LINES", "PS1=$ ", "sh"]
        self._do("new-session", "-d", "-x", str(columns), "-y", "45", *shell)

    def _do(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True, timeout=60).stdout

    def type(self, line: str) -> None:
        self._do("send-keys", "-l", line)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        self._do("send-keys", *keys)

    def screen(self) -> str:
        return self._do("capture-pane", "-p")

    def colours(self) -> set[tuple[str, ...]]:
        """Red, green and blue of what is on the screen."""
        return set(re.findall(r"[34]8;2;(\d+);(\d+);(\d+)", self._do("capture-pane", "-p", "-e")))

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
    for match in re.finditer(r"\S+", head):
        end = match.end()
        if match[0] == "name":
            end = head.index("max") - 6
        found[match[0]] = row[begin:end].strip()
        begin = end
    return found


@pytest.mark.parametrize("how", [pytest.param("q", marks=pytest.mark.everywhere), "TERM"])
def test_what_is_on_the_screen(terminal: Terminal, start: Start, tmp_path: Path, how: str) -> None:
    """Two programs of two releases; left by its key, or killed."""
    prefix = f"top{os.getpid()}"
    ours: list[Target] = []
    for name, version in ((f"{prefix}-new", targets.NEWEST), (f"{prefix}-old", "1.19.8")):
        path = shutil.copy(targets.build("gcload", version), tmp_path / name)
        ours.append(start(Path(path), "-cycles", "200", env={"GODEBUG": "gctrace=1"}))
    settings, pid_file = tmp_path / "stty", tmp_path / "pid"
    plain = how == "TERM"
    variables = ["COLORTERM=truecolor", *(["NO_COLOR=1"] if plain else [])]
    command = shlex.join(["env", *variables, *GOTRACE, "top", "--name", f"{prefix}-*"])
    script = tmp_path / "script"
    script.write_text(f"cd {tmp_path}\necho $$ >{pid_file}\nexec {command}\n")
    terminal.type(f"stty -g >{settings}.before; sh {script}; stty -g >{settings}")
    until(lambda: "2 traced" in terminal.screen(), 300 if targets.EMULATED else 60)
    assert terminal.is_alternate() and terminal.colours()
    assert all(len(set(each)) == 1 for each in terminal.colours()) is plain
    before = [len(gctrace(each.stderr.read_text())) for each in ours]
    for each in ours:
        each.go()
    truths: list[dict[str, Any]] = [each.truth() for each in ours]
    own = [each["NumGC"] - count for each, count in zip(truths, before, strict=True)]
    until(lambda: [cells(terminal.screen(), each.pid).get("cycles") for each in ours] == list(map(str, own)), 60)
    for each in ours:
        seen = cells(terminal.screen(), each.pid)
        assert (seen["lost"], seen["Ps"]) == ("0", str(os.cpu_count())), seen
        until(lambda pid=each.pid: is_rss(cells(terminal.screen(), pid)["RSS"], pid))  # the scavenger is still at work
    terminal.press("e")
    until(lambda: "wrote gotrace-top.ndjson" in terminal.screen())
    written = [json.loads(line) for line in (tmp_path / "gotrace-top.ndjson").read_text().splitlines()]
    for each in written:
        assert cells(terminal.screen(), each["pid"])["longest"] == duration_text(each["longest_pause_ns"])
    assert {each["pid"]: each["cycles"] for each in written} == {
        each.pid: count for each, count in zip(ours, own, strict=True)
    }
    terminal.press("Enter")
    until(lambda: "GC mark termination" in terminal.screen() and "Longest pauses" in terminal.screen())
    terminal.press("e")
    until(lambda: len(list(tmp_path.glob("gotrace-top*"))) == 2)  # the first one stays as it is
    (path,) = tmp_path.glob("gotrace-top?*.ndjson")
    until(lambda: path.read_text().endswith("\n"))
    told = json.loads(path.read_text())
    ((count, truth),) = [
        each for each, own in zip(zip(before, truths, strict=True), ours, strict=True) if own.pid == told["pid"]
    ]
    collector = [each for each in told["reasons"] if each["part"] == "total" and each["reason"].startswith("GC ")]
    pauses = truth["PauseNs"][count : truth["NumGC"]]
    assert sum(each["sum_ns"] for each in collector) == sum(pauses) and len(collector) == 2
    assert max(pauses) / 2 <= max(each["max_ns"] for each in collector) <= max(pauses)  # of two in a cycle
    assert told["longest"][0]["total_ns"] == told["longest_pause_ns"] >= max(pauses) / 2 and len(told["longest"]) == 20
    assert sum(each["count"] for each in collector) == 2 * told["cycles"]
    terminal.press("Escape")
    assert [each.finish() for each in ours] == [0, 0]
    until(lambda: terminal.screen().count("(ended)") == 2)
    until(lambda: "(ended)" not in terminal.screen())
    if how == "q":
        terminal.press("q")
    else:
        os.kill(int(pid_file.read_text()), 15)
    until(settings.exists, 60)
    until(lambda: settings.read_text() != "")
    assert settings.read_text() == Path(f"{settings}.before").read_text() and not terminal.is_alternate()
    assert "Traceback" not in terminal.screen() and "internal error" not in terminal.screen()


def is_rss(shown: str, pid: int) -> bool:
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    number, unit = shown.split()
    return unit == "MiB" and abs(float(number) * 1024 - int(resident)) < 0.02 * int(resident)


def test_what_is_refused(
    gotrace: Callable[..., subprocess.CompletedProcess[str]], terminal: Terminal, tmp_path: Path
) -> None:
    done = gotrace("top")
    assert (done.returncode, done.stderr.count("\n")) == (2, 2) and "needs a terminal" in done.stderr
    assert gotrace("top", "--pid", "1", "--name", "x").returncode == 2
    assert gotrace("top", "--token-file", "x").returncode == 2
    assert gotrace("top", "--connect", "http://127.0.0.1:1", "--ca-file", "x").returncode == 2
    command = shlex.join([*GOTRACE, "top"])
    code = "import sys; sys.modules['textual'] = None; from gotrace.cli.main import main; main(['top'])"
    for prefix, options, said in (
        (f"{shlex.join([sys.executable, '-c', code])};: ", "", f"{sys.executable} -m pip install 'textual"),
        ("TERM=dumb", "", "(TERM=dumb)"),
        ("TERM=", "", "(TERM='')"),
        ("", f"--pid {os.getpid()}", "is not a Go program"),
        ("", "--connect http://127.0.0.1:21500", "cannot connect to http://127.0.0.1:21500: Connection refused"),
        ("", "--connect nowhere", "invalid URL"),
        ("", f"--name nobody{os.getpid()}", "no process matches"),
    ):
        terminal.type(f"clear; {prefix} {command} {options}")
        until(lambda said=said: said in terminal.screen() and "hint:" in terminal.screen(), 20)  # type: ignore[misc]


def of_it(serving: Agent, target: Target) -> dict[str, Any]:
    return dict(json.loads(serving.get(f"/processes?pid={target.pid}")))


@pytest.mark.parametrize("columns", [80, 200])
def test_of_an_agent(
    columns: int, agent: Callable[..., Agent], program: Callable[..., Path], start: Start, tmp_path: Path
) -> None:
    """As Textual draws it, and on a terminal, where the agent ends meanwhile: that is said, and nothing of it stays."""
    name = f"crio-top{os.getpid()}"
    target = start(program(name, program="lister"))
    collected(target, 50, "keep")
    serving = agent("--select", f"name={name}", "--min-age", "0s")
    until(lambda: serving.traced() == {target.pid})
    collected(target, 40)
    url = f"http://127.0.0.1:{serving.port}"
    until(lambda: of_it(serving, target)["pauses"] == 80)
    longest = duration_text(of_it(serving, target)["longest_pause_ns"])

    async def drawn() -> list[list[str]]:
        app = Top(Remote(url))
        async with app.run_test(size=(columns, 24)) as pilot:
            await pilot.pause()
            table = app.query_one(DataTable)
            return [[str(cell).strip() for cell in table.get_row_at(row)] for row in range(table.row_count)]

    (cells_of_it,) = asyncio.run(drawn())
    assert {str(target.pid), name, *([longest, "40"] if columns == 200 else [])} <= set(cells_of_it)
    terminal = Terminal(tmp_path, columns)
    try:
        settings = tmp_path / "stty"
        terminal.type(
            f"echo as it was; stty -g >{settings}.before; {shlex.join([*GOTRACE, 'top', '--connect', url])};"
            f" stty -g >{settings}"
        )
        until(lambda: "1 traced" in terminal.screen() and name in terminal.screen(), 30)
        until(lambda: is_rss(cells(terminal.screen(), target.pid)["RSS"], target.pid), 60)
        seen = cells(terminal.screen(), target.pid)  # at 80 columns there is no room for the others
        assert columns == 80 or (seen["longest"], seen["cycles"]) == (longest, "40")
        terminal.press("Enter")
        until(lambda: "Longest pauses" in terminal.screen())
        terminal.press("Escape")
        serving.finish()
        until(lambda: "cannot connect" in terminal.screen())
        terminal.press("q")
        until(settings.exists, 20)
        until(lambda: settings.read_text() != "")
        assert settings.read_text() == Path(f"{settings}.before").read_text() and not terminal.is_alternate()
        assert "as it was" in terminal.screen() and "Traceback" not in terminal.screen()
    finally:
        terminal.close()
