"""A target through procfs: what it is, and every way in which it may be something else, or gone."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotrace.errors import GotraceError, HostError, NoRoomError, TargetError
from gotrace.find.processes import Scanner
from gotrace.kernel.forked import cpu_s
from gotrace.kernel.host import require_descriptors
from gotrace.kernel.numa import node_bytes
from gotrace.kernel.process import Process, is_there
from gotrace.session import opened_files

WAIT = ("-c", "read line")
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """spawn(*command) -> a running process, killed at the end of the test."""
    running: list[subprocess.Popen[bytes]] = []

    def run(*command: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(command, stdin=subprocess.PIPE)
        running.append(child)
        until(lambda: executed(child.pid))  # exec closes Popen's pipe before it maps the program
        return child

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of this test's own, which it may delete or replace: a shell, waiting for input if given WAIT."""
    return Path(shutil.copy(os.path.realpath("/bin/sh"), tmp_path / "waiter"))


def executed(pid: int) -> bool:
    """Whether exec is over, by proc(5)'s startcode, which it sets last, or so is the process."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return fields[0] == b"Z" or int(fields[23]) != 0


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def refusal(pid: int) -> GotraceError:
    """The error of opening ``pid``."""
    with pytest.raises(GotraceError) as error, Process.open(pid):
        pass
    assert error.value.message.isprintable() and error.value.hint.isprintable() and error.value.hint
    return error.value


def test_this_very_process() -> None:
    with Process.open(os.getpid()) as process:
        assert process.pid == os.getpid() and not process.deleted
        assert process.exe_name == os.path.realpath(sys.executable)
        assert os.path.samefile(process.exe_path, sys.executable)
        assert not process.exec_changed() and not process.wait(0)
        assert process.time_offset_ns() == 0
        status = os.stat(sys.executable)
        assert process.identity()[:3] == (status.st_dev, status.st_ino, status.st_size)


def test_no_descriptor_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Process.open(os.getpid()):
            pass
        refusal(4194303)
        refusal(threading.get_native_id() if os.getpid() != threading.get_native_id() else 4194303)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("pid", [4194303, 4194304, 2**31 - 1, 2**31, 2**63, 10**30])
def test_no_such_process(pid: int) -> None:
    error = refusal(pid)
    assert isinstance(error, TargetError) and error.message == f"there is no process with pid {pid}"


@pytest.mark.parametrize("pid", [0, -1, -(2**40)])
def test_no_process_id(pid: int) -> None:
    assert "not a valid process id" in refusal(pid).message


def test_zombie(spawn: Spawn) -> None:
    child = spawn("true")
    until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z")
    assert "zombie" in refusal(child.pid).message
    child.wait()
    assert "no process" in refusal(child.pid).message


def test_thread() -> None:
    """The id of a thread is answered with its process."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        error = refusal(thread.native_id)
        assert "thread" in error.message and error.hint == f"use --pid {os.getpid()}"
    finally:
        done.set()
        thread.join()


@pytest.mark.skipif(not os.path.exists("/proc/2/status"), reason="a container: no kernel threads")
def test_kernel_thread() -> None:
    if "VmSize" in Path("/proc/2/status").read_text():
        pytest.skip("a container: process 2 is an ordinary one")
    assert refusal(2).message == "2 is a kernel thread (kthreadd)"


def test_kernel_threads_are_told_apart_from_the_dying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.8 the status does not say what is a kernel thread."""
    from gotrace.kernel import process

    status = {"Tgid": "77", "State": "I (idle)", "Name": "kworker/0:1\x1b[31m", "PPid": "2"}
    monkeypatch.setattr(process, "_status", lambda _: status)
    with pytest.raises(TargetError, match=r"77 is a kernel thread \(kworker/0:1\\x1b\[31m\)"):
        process._exe_name(77)
    for other in ({"PPid": "1"}, {"Kthread": "0"}):
        monkeypatch.setattr(process, "_status", lambda _, other=other: {**status, "Tgid": "4194303", **other})
        with pytest.raises(TargetError, match="no process with pid"):
            process._exe_name(4194303)


def test_it_vanishes_after_it_was_opened(spawn: Spawn) -> None:
    """Every question has an answer or a TargetError when the process is gone, and nothing hangs."""
    child = spawn("sleep", "60")
    with Process.open(child.pid) as process:
        assert not process.wait(0.01)
        child.kill()
        begin = time.monotonic()
        assert process.wait(30)
        assert time.monotonic() - begin < 10
        for _ in range(2):  # a zombie first, then nothing at all
            with pytest.raises(TargetError):
                process.identity()
            with pytest.raises(TargetError):
                process.load_bias(0)
            assert not process.exec_changed()
            assert process.time_offset_ns() == 0
            assert process.wait(0)
            child.wait()


def test_processes_that_die_while_they_are_opened() -> None:
    """Whatever moment it is, an attempt ends in a process or in a clean error."""
    for number in range(100):
        child = subprocess.Popen(["true"])
        time.sleep(number % 10 * 0.0003)
        try:
            with Process.open(child.pid) as process:
                process.exec_changed()
                process.identity()
                process.load_bias(0)
        except TargetError as error:
            assert error.hint
        finally:
            child.wait()


def test_hidden_processes(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc mounted with hidepid=1 shows other users' processes, and nothing of them."""
    child, real = spawn("sleep", "60"), open

    def refused(path: str, *arguments: object, **options: object) -> object:
        if path == f"/proc/{child.pid}/status":
            raise PermissionError
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", refused)
    assert isinstance(refusal(child.pid), HostError)


def test_wait_without_pidfd(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some sandboxes refuse pidfd_open: then looking has to do, and a zombie counts as gone."""

    def refused(pid: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refused)
    child = spawn("sleep", "60")
    with Process.open(child.pid) as process:
        assert not process.wait(0.01)
        child.kill()
        until(lambda: process.wait(0.01))
        child.wait()
        assert process.wait(0)
    assert "no process" in refusal(child.pid).message


def test_deleted_executable(program: Path, spawn: Spawn) -> None:
    child = spawn(str(program), *WAIT)
    with Process.open(child.pid) as process:
        identity = process.identity()
        text = program.read_bytes()
        program.unlink()
        program.write_bytes(b"another file of this name")
    with Process.open(child.pid) as process:
        assert process.deleted and process.exe_name == str(program)
        assert process.identity()[:3] == identity[:3]
        assert Path(process.exe_path).read_bytes() == text
        assert not process.exec_changed()
        assert process.load_bias(0) > 0


def test_names_stay_what_they_are(program: Path, spawn: Spawn) -> None:
    """A name is kept as the system gives it, bytes that are no UTF-8 included, and made harmless where it is shown."""
    odd = program.with_name(os.fsdecode(b"evil\x1b[2J\xff\n\r\x85 name"))
    program.rename(odd)
    child = spawn(str(odd), *WAIT)
    with Process.open(child.pid) as process:
        assert process.exe_name == str(odd) and not process.deleted
        assert process.load_bias(0) > 0


def test_names_that_are_no_text(program: Path, spawn: Spawn) -> None:
    """The first thread has the name of its file, cut off after 15 bytes, be that within a character."""
    odd = program.with_name(os.fsdecode(b"\xff\xfe) " + "名前".encode() * 3))
    program.rename(odd)
    pid = spawn(str(odd), *WAIT).pid
    found = Scanner(every=True).look(pid)
    assert found is not None and os.fsencode(found.comm) == os.fsencode(odd.name)[:15] and found.exe == str(odd)
    assert is_there(pid) and cpu_s(pid) >= 0
    assert sum(sum(mapping.bytes.values()) for mapping in node_bytes(pid)) > 0


def test_a_name_that_looks_deleted(program: Path, spawn: Spawn) -> None:
    odd = program.with_name("waiter (deleted)")
    program.rename(odd)
    child = spawn(str(odd), *WAIT)
    with Process.open(child.pid) as process:
        assert process.exe_name == str(odd) and not process.deleted


def test_another_program_is_executed(spawn: Spawn) -> None:
    child = spawn("sh", "-c", "read line; exec sleep 60")
    with Process.open(child.pid) as process:
        assert not process.exec_changed()
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        until(process.exec_changed)


def test_load_bias_is_where_the_file_begins(spawn: Spawn, program: Path) -> None:
    child = spawn(str(program), *WAIT)
    with Process.open(child.pid) as process:
        lines = Path(f"/proc/{child.pid}/maps").read_text().splitlines()
        lowest = min(int(line.split("-")[0], 16) for line in lines if line.endswith(str(program)))
        assert process.load_bias(0) == lowest
        assert process.load_bias(0x400000) == lowest - 0x400000


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give up")
def test_without_root(spawn: Spawn) -> None:
    """Somebody else's process: a HostError, but what everybody may know is still told."""
    child = spawn("sleep", "60")
    questions = [child.pid, os.getpid(), 4194303]
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        answers = []
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            for each in questions:
                try:
                    with Process.open(each):
                        answers.append("opened")
                except GotraceError as error:
                    answers.append(f"{type(error).__name__}: {error.message}")
            os.write(write_end, "\n".join(answers).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        others, mine, gone = file.read().split("\n")
    os.waitpid(pid, 0)
    assert others == f"{HostError.__name__}: permission denied inspecting process {child.pid}"
    assert mine.startswith(HostError.__name__)
    assert gone == f"{TargetError.__name__}: there is no process with pid 4194303"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_other_pid_and_mount_namespace(program: Path) -> None:
    """Seen from outside, by its pid here: its executable lies in a file system that only it has."""
    inside = program.parent / "inside"
    inside.mkdir()
    script = f"mount -t tmpfs none {inside} && cp {program} {inside}/hidden && exec {inside}/hidden -c 'read line'"
    outer = subprocess.Popen(
        ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script], stdin=subprocess.PIPE
    )
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        until(
            lambda: children.read_text() and os.readlink(f"/proc/{children.read_text().split()[0]}/exe").endswith("hidden")
        )
        pid = int(children.read_text().split()[0])
        with Process.open(pid) as process:
            assert process.exe_name == f"{inside}/hidden" and not os.path.exists(process.exe_name)
            assert Path(process.exe_path).read_bytes() == program.read_bytes()
            assert process.load_bias(0) > 0
            os.kill(pid, signal.SIGKILL)
            assert process.wait(10)
    finally:
        outer.kill()
        outer.communicate()


def test_why_its_executable_cannot_be_opened(spawn):
    """That it has exited is said only of one that has; and with few files left, before anything runs short."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Process.open(spawn("/bin/sh", *WAIT).pid) as process:
        os.close(lowest := os.open(os.devnull, os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            with pytest.raises(TargetError, match=f"^cannot read /proc/{process.pid}/exe: Too many open files$"):
                opened_files([], process).__enter__()
            with pytest.raises(HostError, match=f"^/proc/{process.pid}/status: Too many open files$"):
                Process.open(process.pid).__enter__()
            with pytest.raises(NoRoomError):
                require_descriptors(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        with opened_files([], process):
            require_descriptors(1)
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(TargetError, match="^the target has exited$"):
            opened_files([], process).__enter__()
