"""Finding the Go processes of this host: what each is, by what the test itself started and by /proc."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import until
from gotrace.find import processes
from gotrace.find.processes import Scan, Scanner, executable_of
from targets import NEWEST, build

OLD = "1.22.10"


@contextlib.contextmanager
def running(*commands: list[str | Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Each waits on its standard input, for good."""
    started = []
    try:
        for command in commands:
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
        yield started
    finally:
        for child in started:
            child.kill()
            child.communicate()


def found(scan: Scan) -> dict[int, processes.GoProcess]:
    return {process.pid: process for process in scan.processes}


def test_every_kind_of_go_program_and_nothing_else(tmp_path: Path) -> None:
    kinds = {
        build("gcload"): (f"go{NEWEST}", True),
        build("gcload", NEWEST, "pie"): (f"go{NEWEST}", False),
        build("gcload", OLD, "nosections"): (f"go{OLD}", True),
    }
    renamed = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\x1b[31m)\xff"))
    shutil.copy(build("gcload", OLD, "default"), renamed)
    kinds[renamed] = f"go{OLD}", False
    with running(*([path] for path in kinds), ["cat"]) as children:
        scan = Scanner().scan()
        there = found(scan)
        for (path, (version, stripped)), child in zip(kinds.items(), children, strict=False):
            process = there[child.pid]
            assert process.exe == str(path) and process.name == path.name
            assert (process.executable.go_version, process.executable.stripped) == (version, stripped)
            assert process.executable.refusal == ""
            stat = os.fsdecode(Path(f"/proc/{child.pid}/stat").read_bytes()).rpartition(")")[2].split()
            assert (process.start, process.parent) == (int(stat[19]), os.getpid())
            assert process.comm == os.fsdecode(Path(f"/proc/{child.pid}/comm").read_bytes())[:-1]
            assert 0 <= process.age_s < 60
        assert not {child.pid for child in children[len(kinds) :]} & there.keys()
        assert scan.seen >= len(children) + 1
        renamed.unlink()
        assert found(Scanner().scan())[children[len(kinds) - 1].pid].exe == str(renamed)


def test_an_executable_is_read_once_and_again_when_it_is_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read: list[str] = []
    monkeypatch.setattr(processes, "executable_of", lambda path: (read.append(os.readlink(path)), executable_of(path))[1])
    program = tmp_path / "program"
    shutil.copy(build("gcload"), program)
    scanner = Scanner()
    with running(*([program] for _ in range(30)), ["cat"]) as children:
        for _ in range(3):
            assert {child.pid for child in children[:30]} <= found(scanner.scan()).keys()
        assert read.count(str(program)) == 1 and read.count(os.path.realpath(shutil.which("cat") or "")) == 1
        program.unlink()
        shutil.copy(build("gcload", OLD), program)
        with running([program]) as (newer,):
            there = found(scanner.scan())
            assert there[newer.pid].executable.go_version == f"go{OLD}"
            assert {there[child.pid].executable.go_version for child in children[:30]} == {f"go{NEWEST}"}


def test_processes_that_come_and_go_are_no_errors() -> None:
    hello, scanner, done = build("hello"), Scanner(), threading.Event()

    def start() -> None:
        while not done.is_set():
            subprocess.run([hello], stderr=subprocess.DEVNULL, check=True)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        scans = [scanner.scan() for _ in range(300)]
    finally:
        done.set()
        thread.join()
    seen = [process for scan in scans for process in scan.processes if process.name == "hello"]
    assert len({(process.pid, process.start) for process in seen}) > 3
    assert {process.exe for process in seen} == {str(hello)}


def test_a_thread_is_no_process() -> None:
    """It has a folder in /proc by its number, which may have been a process's until now."""
    with running([build("gcload")]) as (ours,):
        until(lambda: len(os.listdir(f"/proc/{ours.pid}/task")) > 1)
        found = {int(name): Scanner().look(int(name)) for name in os.listdir(f"/proc/{ours.pid}/task")}
    assert [pid for pid, process in found.items() if process is not None] == [ours.pid]


def test_a_scan_costs_little() -> None:
    """500 processes in less than a tenth of what 5,000 may cost, once executables are known."""
    with running(*(["cat"] for _ in range(500))):
        scanner = Scanner()
        assert scanner.scan().seen > 500
        costs = []
        for _ in range(5):
            begin = time.process_time()
            scanner.scan()
            costs.append(time.process_time() - begin)
    assert min(costs) < 0.010, costs


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_what_another_user_may_not_see_is_counted() -> None:
    with running([build("gcload")]) as (ours,):
        everything = Scanner().scan()
        reading, writing = os.pipe()
        if not (child := os.fork()):
            with contextlib.suppress(BaseException):
                os.setgroups([])
                os.setresgid(*[65534] * 3)
                os.setresuid(*[65534] * 3)
                scan = Scanner().scan()
                os.write(writing, f"{scan.seen} {len(scan.unreadable)} {len(scan.processes)}".encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        seen, unreadable, go = map(int, os.read(reading, 100).split())
        os.close(reading)
        assert ours.pid in found(everything) and go == 0
        assert abs(seen - everything.seen) < 50 and unreadable > seen - 50 > len(everything.unreadable) - 50


def test_go_that_cannot_be_traced_says_why(tmp_path: Path) -> None:
    """It runs all the same."""
    old, gccgo = tmp_path / "old", tmp_path / "gccgo"
    old.write_bytes(build("gcload").read_bytes().replace(f"go{NEWEST}".encode(), b"go1.18.9"))
    shutil.copy(shutil.which("cat") or "", gccgo)
    subprocess.run(["objcopy", "--add-section", ".go_export=/dev/null", gccgo], check=True)
    old.chmod(0o755)
    with running([old], [gccgo]) as children:
        refusals = [found(Scanner().scan())[child.pid].executable for child in children]
    assert [each.refusal for each in refusals] == [
        "it was built with go1.18.9",
        "it was built with gccgo, which has a different runtime",
    ]
    assert [each.hint for each in refusals] == ["gotrace supports Go 1.19 and later", "build it with Go's own compiler"]


def test_a_large_file_is_not_searched(tmp_path: Path) -> None:
    """One with holes costs who runs it nothing."""
    path = tmp_path / "large"
    cases = (("stripped", 64, "its executable is larger than 512 MiB"), ("nosections", 64, ""), ("stripped", 32, ""))
    for flavour, bits, refusal in cases:
        data = bytearray(build("gcload", OLD, flavour).read_bytes())
        data[4] = bits // 32  # EI_CLASS
        path.write_bytes(data)
        os.truncate(path, 8 << 30)
        begin = time.process_time()
        about = executable_of(str(path))
        assert (about.refusal if about else "") == refusal and time.process_time() - begin < 0.5
