"""Calls on files against programs that know their own, strace, the kernel's own names, and a FUSE server's log."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as parquet
import pytest
from hdrh.histogram import HdrHistogram

import services
import targets
from conftest import GOTRACE, PATIENCE_S, Others, Target, until
from gotrace.records.all import schema_of_command
from gotrace.text import printable
from pages import Parsed

pytestmark = pytest.mark.bpf

PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable  # itself, not what chooses one


@pytest.fixture(scope="module")
def caller() -> Path:
    return targets.build("iocaller", flavour=targets.C)


def ndjson(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def traced(folder: Path, *command: object, options: tuple[str, ...] = ("--min", "1ns")) -> tuple[list[Any], list[Any]]:
    """(what a command told of itself, the records of `gotrace datapath`: each call, and the summary last)."""
    out = folder / "records.ndjson"
    arguments = [*GOTRACE, "datapath", *options, "-o", str(out), "--", *map(str, command)]
    done = subprocess.run(arguments, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr.decode()
    records = ndjson(out.read_text())
    assert records[-1]["type"] == "datapath" and records[-1]["lost"] == 0
    for record in (*records[:20], records[-1]):
        jsonschema.validate(record, schema_of_command("datapath"))
    return ndjson(done.stdout.decode()), records


def name(record: dict[str, Any]) -> bytes:
    return os.fsencode(record["path"] or "")


def told(truth: list[Any]) -> Counter[tuple[str, bytes]]:
    found: Counter[tuple[str, bytes]] = Counter()
    for each in truth:
        found[each["call"], bytes.fromhex(each["path"])] += each["count"]
    return found


def seen(records: list[Any]) -> Counter[tuple[str, bytes]]:
    return Counter((each["call"], name(each)) for each in records if each["type"] == "datapath_call")


def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.mark.everywhere
def test_counts_are_the_programs_own(tmp_path: Path, caller: Path) -> None:
    log = tmp_path / "run.hlog"
    options = ("--min", "1ns", "-o", str(log))
    truth, records = traced(tmp_path, caller, "counted", work(tmp_path), options=options)
    found, summary = seen(records), records[-1]
    for what, count in told(truth).items():
        assert found[what] == count, what
    rows = {row["name"]: row for row in summary["rows"]}
    assert sum(found.values()) == summary["all"]["calls"] == sum(row["calls"] for row in rows.values())
    assert rows["pread64"]["bytes"] >= 10007 * 64 and rows["pwrite64"]["bytes"] == 5003 * 100
    assert {each["error"]: each["count"] for each in summary["errors"]}["ENOENT"] >= 997 + 499
    (line,) = [each for each in log.read_text().splitlines() if each.startswith("Tag=pread64,")]
    histogram = HdrHistogram.decode(line.rsplit(",", 1)[1])
    took = [each["duration_ns"] for each in records if each.get("call") == "pread64"]
    assert histogram.get_total_count() == len(took) and rows["pread64"]["latency"]["max_ns"] == max(took)
    assert rows["pread64"]["latency"]["p50_ns"] == pytest.approx(sorted(took)[len(took) // 2], rel=0.002, abs=1)


def test_hard_names_are_the_kernels(tmp_path: Path, caller: Path) -> None:
    truth, records = traced(tmp_path, caller, "hard", work(tmp_path))
    found = seen(records)
    wrong = {what: (count, found[what]) for what, count in told(truth).items() if found[what] != count}
    assert not wrong


def test_a_container_by_its_name(tmp_path: Path) -> None:
    """Its calls are those that it tells of itself, with the names that files have in it."""
    program, out = tmp_path / "iocaller", tmp_path / "records.ndjson"
    source = targets.SOURCES / "iocaller" / "iocaller.c"
    subprocess.run(["gcc", "-O2", "-static", "-o", program, source, "-pthread"], check=True)
    (tmp_path / "image").mkdir()
    with services.image_of(program, tmp_path / "image") as (run, container):
        words = [*run, "-e", "WAIT=1", f"{container}:1", "/iocaller", "counted", "/etc"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdin is not None
            inspect = ["podman", "inspect", "-f", "{{.State.Running}}", container]
            until(lambda: subprocess.run(inspect, capture_output=True, text=True).stdout == "true\n")
            arguments = [*GOTRACE, "datapath", "--container", container, "--min", "1ns", "-o", str(out)]
            with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
                assert tracer.stderr is not None and "Tracing" in tracer.stderr.readline()
                truth, _ = running.communicate("\n", timeout=PATIENCE_S)
                assert tracer.wait(PATIENCE_S) == 0
    records = ndjson(out.read_text())
    found, wanted = seen(records), told(ndjson(truth))
    assert records[-1]["lost"] == 0 and wanted["pread64", b"/etc/data"] == 10007
    assert {what: found[what] for what in wanted} == dict(wanted)


_STRACE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\w+)(?: (E\w+))?")
_RESUMED = re.compile(r"^\d+ +<\.\.\. \w+ resumed>(.*)")
_OF_FD = re.compile(r"^\d+<(/[^>]*)>")


def test_counts_are_straces(tmp_path: Path) -> None:
    """Of programs that do the same each time: calls, errors, and files by descriptor."""
    folder = work(tmp_path)  # its own: what is on the machine may change
    for number in range(60):
        (folder / f"{number % 7}" / "below").mkdir(parents=True, exist_ok=True)
        (folder / f"{number % 7}" / f"{number}.conf").write_text(f"{number}\n" * number)
    script = f"cd {folder}; ls -lR . /nowhere; cat /etc/hostname */*.conf; find . -name x; wc */*.conf; cp 1/1.conf 2/copy"
    command = ("sh", "-c", f"({script}) > /dev/null 2>&1")
    log = tmp_path / "strace"
    subprocess.run(["strace", "-f", "-y", "-s", "0", "-o", str(log), *command], check=True)
    calls: Counter[str] = Counter()
    errors: Counter[tuple[str, str]] = Counter()
    files: Counter[tuple[str, str]] = Counter()
    unfinished: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        pid = line.split()[0]
        if line.endswith("<unfinished ...>"):  # of two processes at once
            unfinished[pid] = line.removesuffix("<unfinished ...>").rstrip()
        resumed = _RESUMED.match(line)
        match = _STRACE.match(f"{unfinished.pop(pid)}{resumed[1]}" if resumed and pid in unfinished else line)
        if match is None or "MAP_ANONYMOUS" in match[2]:
            continue
        calls[match[1]] += 1
        if match[4]:
            errors[match[1], match[4]] += 1
        if file := _OF_FD.match(match[2]):
            files[match[1], file[1]] += 1
    (folder / "2" / "copy").unlink()
    records = traced(tmp_path, *command)[1]
    singles = [each for each in records if each["type"] == "datapath_call"]
    ours = Counter(each["call"] for each in singles if not each["call"].startswith("page fault"))
    assert sum(ours.values()) > 500 and {"openat", "getdents64", "read", "close", "mmap", "newfstatat"} <= ours.keys()
    # Of ioctl only copies are shown, and what is traced has been executed when that begins.
    assert ours.pop("execve") == calls["execve"] - 1 and ours.pop("ioctl", 0) <= calls["ioctl"]
    assert ours == {call: calls[call] for call in ours}
    assert Counter((each["call"], each["error"]) for each in singles if each["error"] and each["call"] in ours) == {
        what: count for what, count in errors.items() if what[0] in ours
    }
    by_file = Counter((each["call"], each["path"]) for each in singles)
    by_path = {"newfstatat", "openat", "statx"}  # those too may begin with a descriptor
    with_fd = {what: count for what, count in files.items() if what[0] in ours and what[0] not in by_path}
    assert len(with_fd) > 100 and {what: by_file[what] for what in with_fd} == with_fd


@pytest.mark.alone
def test_lengths_are_the_programs_own(tmp_path: Path, caller: Path) -> None:
    """Reads that wait 20 ms each, to 1 % by its own clock."""
    truth, records = traced(tmp_path, caller, "slow", tmp_path, options=("--min", "1ns", "--by", "file", "--top", "200"))
    (own,) = truth
    path = bytes.fromhex(own["path"]).decode()
    took = [each["duration_ns"] for each in records if each.get("path") == path and each.get("call") == "read"]
    assert len(took) == 10 and sum(took) == pytest.approx(own["ns"], rel=0.01)
    row = next(row for row in records[-1]["rows"] if row["name"] == path)
    assert row["latency"]["max_ns"] == max(each["duration_ns"] for each in records if each.get("path") == path)


def test_a_process_and_what_it_forks(tmp_path: Path, caller: Path, start: Any) -> None:
    """--pid follows threads and children; a recording reports what was reported live."""
    folder = work(tmp_path)
    target: Target = start(caller, "hard", str(folder), env={"WAIT": "1"})
    recording = tmp_path / "run.gotrace"
    options = ["--pid", str(target.pid), "--by", "dir", "--min", "1ns", "-o", str(recording), "--format", "ndjson"]
    tracer = subprocess.Popen([*GOTRACE, "datapath", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None and tracer.stderr.readline().startswith("Tracing")
    target.go()
    assert target.process.stdout is not None
    truth = told(ndjson(target.process.stdout.read()))
    text, rest = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0, rest
    records = ndjson(text)
    found = seen(records)
    assert not {what: (count, found[what]) for what, count in truth.items() if found[what] != count}
    summary = records[-1]
    assert summary["processes"] == 5 and summary["threads"] == 6
    again = subprocess.run([*GOTRACE, "report", str(recording), "--format", "ndjson"], capture_output=True, text=True)
    assert ndjson(again.stdout) == records, again.stderr
    row = next(row for row in summary["rows"] if row["name"] == str(folder))
    assert row["calls"] == sum(count for (_, path), count in found.items() if os.path.dirname(path) == os.fsencode(folder))


def test_what_the_page_cache_had(tmp_path: Path, caller: Path) -> None:
    """Reads after posix_fadvise(DONTNEED), the same again, past the cache, and in page faults of a mapping."""
    folder = targets.ROOT / "tests" / f".datapath-{os.getpid()}"  # not in memory, as /tmp may be
    folder.mkdir()
    try:
        truth, records = traced(
            tmp_path, caller, "mapped", folder, options=("--min", "1ns", "--by", "file", "--top", "500")
        )
    finally:
        shutil.rmtree(folder)
    own = {each["call"]: (bytes.fromhex(each["path"]).decode(), each["count"]) for each in truth}
    rows = {row["name"]: row for row in records[-1]["rows"]}
    read = rows[own["cold"][0]]["cache"]
    assert read == {name: own[name][1] for name in ("cold", "warm", "direct")}
    faults = [each for each in records if each.get("call") == "page fault" and each["path"] == own["pages"][0]]
    # The rest came in by read-ahead that another fault had begun.
    assert len(faults) >= 1 and sum(each["pages"] for each in faults) == pytest.approx(own["pages"][1], rel=0.1)
    assert rows[own["pages"][0]]["cache"]["cold"] == len(faults)


def test_io_uring(tmp_path: Path, caller: Path) -> None:
    truth, records = traced(tmp_path, caller, "ring", work(tmp_path))
    if truth[-1]["call"] == "no io_uring":
        pytest.skip("this kernel has no io_uring")
    own, found = told(truth), seen(records)
    assert {what: found[what] for what in own} == own
    rows = {row["name"]: row for row in records[-1]["rows"]}
    assert rows["io_uring read"]["bytes"] == 31 * 4096 and rows["io_uring write"]["bytes"] == 12 * 4096
    for each in truth[2:]:
        took = sum(record["duration_ns"] for record in records if record.get("call") == each["call"])
        assert 0 < took < each["ns"]


class SlowFs:
    """A FUSE file system that takes its time (four times what it says), until `log` is read.

    That is: (folder, kind of request) -> nanoseconds of each.
    """

    OPEN, READ, FSYNC = 14, 15, 20  # enum fuse_opcode

    def __init__(self, point: Path) -> None:
        point.mkdir()
        command = [targets.build("slowfs", flavour=targets.C), point, "400"]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None and self.server.stdout.readline() == "mounted\n"

    def log(self) -> dict[tuple[str, int], list[int]]:
        lines = ndjson(self.server.communicate(timeout=30)[0])
        return {(each["folder"], each["operation"]): each["ns"] for each in lines}


@pytest.fixture
def slowfs(tmp_path: Path) -> Any:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this host has no /dev/fuse")
    point = tmp_path / "slow"
    server = SlowFs(point)
    yield point, server
    if server.server.poll() is None:
        server.log()


# Seven files opened, sixty blocks read and five syncs, of the slow folders; three names that are not there.
_SLOWLY = """
import os, sys
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # what it takes to get a CPU is in nobody's log
point = sys.argv[1]
for number in range(7):
    os.close(os.open(f"{point}/opening/{number}", os.O_RDONLY))
fd = os.open(f"{point}/reading/1", os.O_RDONLY)
for block in range(60):
    os.pread(fd, 4096, block * 8192)
for block in range(60):
    os.pread(fd, 4096, block * 8192)
fd = os.open(f"{point}/syncing/2", os.O_RDWR)
for _ in range(5):
    os.fsync(fd)
for number in range(3):
    try:
        os.stat(f"{point}/other/x{number}")
    except OSError:
        pass
"""


@pytest.mark.alone
def test_a_slow_server_is_named_and_measured(tmp_path: Path, slowfs: Any) -> None:
    """Call, folder, mount and kind of file system of a FUSE server that sleeps; its time to 1 % of its own log."""
    point, server = slowfs
    Others.wait_quiet(10)
    others = Others()
    options = ("--min", "1ns", "--by", "dir", "--top", "500")
    _, records = traced(tmp_path, PYTHON, "-c", _SLOWLY, point, options=options)
    exactly = 0.01 if others.share() < 0.3 else 0.03  # else others have the CPUs when somebody is to be woken
    log = server.log()
    calls: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for each in records:
        if (path := str(each.get("path") or "")).startswith(f"{point}/"):
            calls[each["call"], path.split("/")[-2]].append(each)
    for call, folder, operation, count in (
        ("openat", "opening", SlowFs.OPEN, 7),
        ("pread64", "reading", SlowFs.READ, 60),
        ("fsync", "syncing", SlowFs.FSYNC, 5),
    ):
        served = log[folder, operation]
        singles = [each for each in calls[call, folder] if each["server_ns"]]
        assert len(singles) == len(served) == count
        # The server's time is within the request's, and that within the call's; the rest is what it takes to be woken.
        assert all(own <= each["server_ns"] <= each["duration_ns"] for each, own in zip(singles, served, strict=True))
        # Of the quicker half: how long the server takes to be woken is the machine's, up to 0.1 ms; a read takes 20 ms.
        ratios = sorted(each["server_ns"] / own for each, own in zip(singles, served, strict=True))
        assert statistics.median(ratios[: (count + 1) // 2]) == pytest.approx(1, abs=exactly), call
        assert statistics.median(each["duration_ns"] - each["server_ns"] for each in singles) < 500_000
    # What was read is in the page cache: the second time nobody is asked.
    reads = [each["pages"] > 0 for each in calls["pread64", "reading"]]
    assert reads == [True] * 60 + [False] * 60
    summary = records[-1]
    row = next(row for row in summary["rows"] if row["name"] == f"{point}/opening")
    opened = sum(each["duration_ns"] for (_, folder), singles in calls.items() if folder == "opening" for each in singles)
    assert row["total_ns"] == opened > sum(log["opening", SlowFs.OPEN])
    assert row["metadata_ns"] == row["total_ns"] and row["cache"] is None
    assert next(row for row in summary["rows"] if row["name"] == f"{point}/other")["not_found"] == 3
    (mount,) = [each for each in summary["mounts"] if each["point"] == str(point)]
    assert mount["type"] == "fuse.slowfs" and mount["source"] == "slow" and "nosuid" in mount["options"]


# Three epochs: one, two and three slow opens, ten slow reads each. It prints when each began by its own clock.
_EPOCHS = """
import json, os, sys, time
point, folder = sys.argv[1:]
for epoch in range(3):
    print(json.dumps(time.monotonic_ns()), flush=True)
    os.close(os.open(f"{folder}/checkpoint-{epoch}", os.O_RDWR | os.O_CREAT))
    for number in range(epoch + 1):
        os.close(os.open(f"{point}/opening/{number}", os.O_RDONLY))
    fd = os.open(f"{point}/reading/{epoch}", os.O_RDONLY)
    for block in range(10):
        os.pread(fd, 4096, block * 8192)
    for number in range(211):
        try:
            os.stat(f"{folder}/cache/{number % 100}")
        except OSError:
            pass
print(json.dumps(time.monotonic_ns()), flush=True)
"""


@pytest.mark.alone
def test_explained(tmp_path: Path, slowfs: Any) -> None:
    """Epochs begin when the program says; metadata and data in them are what its file system slept."""
    point, server = slowfs
    folder = work(tmp_path)
    options = ("--explain", "--epoch", r"checkpoint-\d$", "--dataset", f"{point}/*ing/**", "--dataset", "/nothing/**")
    command = (PYTHON, "-c", _EPOCHS, point, folder)
    times, records = traced(tmp_path, *command, options=options)
    server.log()
    (summary,) = records
    explained = summary["explained"]
    epochs = explained["epochs"]
    assert len(epochs) == 4
    for number, (epoch, begin_ns, end_ns) in enumerate(zip(epochs[1:], times, times[1:], strict=False)):  # type: ignore[misc]
        assert 0 <= epoch["monotonic_ns"] - begin_ns < 50_000_000
        assert epoch["length_ns"] == pytest.approx(end_ns - begin_ns, abs=50_000_000)
        slept_ns = (number + 1) * 138_000_000
        assert slept_ns < epoch["metadata_ns"] and epoch["data_ns"] > 50_000_000  # it takes longer on a busy machine
        assert epoch["metadata_ns"] + epoch["data_ns"] <= epoch["length_ns"]
        assert epoch["metadata_share"] == pytest.approx(epoch["metadata_ns"] / epoch["length_ns"])
        assert epoch["most_share"] == pytest.approx(epoch["metadata_share"])  # of its only thread
    (thread,) = explained["threads"]
    assert 6 * 138_000_000 < thread["metadata_ns"] < thread["wall_ns"]
    slowest = explained["slowest"]
    assert [each["duration_ns"] for each in slowest] == sorted((each["duration_ns"] for each in slowest), reverse=True)
    assert {(each["call"], os.path.dirname(each["path"])) for each in slowest[:6]} == {("openat", f"{point}/opening")}
    assert any(f"in calls on {point} (fuse.slowfs) was in its server" in each for each in explained["advice"])
    storm = next(each for each in explained["storms"] if each["path"] == f"{folder}/cache")
    assert storm["not_found"] == 3 * 211 and storm["names"] == 100
    rows = {row["name"]: row for row in summary["rows"]}
    assert set(rows) == {f"{point}/*ing/**", "(other files)", "/nothing/**"} and rows["/nothing/**"]["calls"] == 0
    data_set = rows[f"{point}/*ing/**"]
    assert data_set["bytes"] == 30 * 4096 and data_set["cache"]["cold"] == 30
    assert data_set["server_ns"] == pytest.approx(data_set["total_ns"], rel=0.05)


@pytest.mark.parametrize("program", ["callstacks", "gocallstacks"])
def test_long_calls_have_stacks(tmp_path: Path, slowfs: Any, gotrace: Any, program: str) -> None:
    """The functions of a C program and of a Go program, those without a frame record too, also in a recording's report."""
    point, _ = slowfs
    files = [f"{point}/opening/{number}" for number in range(2)]
    built = targets.build(program, flavour=targets.C) if program == "callstacks" else targets.build(program)
    recording = tmp_path / "run.gotrace"
    options = ("--explain", "--min", "100ms", "-o", str(recording))
    out = tmp_path / "records.ndjson"
    command = [*GOTRACE, "datapath", *options, "-o", str(out), "--", str(built), *files]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as tracer:
        until(lambda: out.exists() and out.read_bytes().count(b'"openat"') >= 2, PATIENCE_S)
        text = tracer.communicate(b"", timeout=PATIENCE_S)[1].decode()  # now the program may end
    assert tracer.returncode == 0, text
    records = ndjson(out.read_text())
    jsonschema.validate(records[-1], schema_of_command("datapath"))
    opens = [
        each for each in records if each["type"] == "datapath_call" and each["path"] in files and each["call"] == "openat"
    ]
    assert [each["path"] for each in opens] == files
    if program == "callstacks":
        begin, functions = ["syscall"], ["innermost", "in_between", "outermost", "main"]
    else:
        begin, functions = [], ["os.Open", "main.innermost", "main.inBetween", "main.outermost", "main.main"]
    for each in opens:
        at = each["stack"].index(functions[0])
        assert each["stack"][: len(begin)] == begin and each["stack"][at : at + len(functions)] == functions
        assert at == 1 or each["stack"][0].startswith(("syscall.", "internal/runtime/syscall"))
    slowest = records[-1]["explained"]["slowest"]
    assert sorted(each["path"] for each in slowest[:2]) == files and slowest[0]["stack"] == opens[0]["stack"]
    assert slowest[-1]["duration_ns"] < 1_000_000 and not slowest[-1]["stack"]
    assert f"{functions[0]} < {functions[1]} < " in text
    again = gotrace("report", str(recording), "--format", "ndjson")
    assert ndjson(again.stdout) == records, again.stderr


def test_tables_for_people(tmp_path: Path, caller: Path) -> None:
    """By mount and by file system, with the mount options that the kernel tells; names do no harm to a terminal."""
    folder = work(tmp_path)
    mounted = [each.split() for each in Path("/proc/self/mountinfo").read_text().splitlines()]
    for by, place in (("mount", 4), ("fs", None), ("file", None)):
        arguments = ["datapath", "--by", by, "--top", "1000", "--", str(caller), "hard", str(folder)]
        shutil.rmtree(folder)
        folder.mkdir()
        done = subprocess.run([*GOTRACE, *arguments], capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0 and "Traceback" not in done.stderr and "\x1b[31m" not in done.stderr
        names = {line.split()[0] for line in done.stderr.splitlines() if line}
        if place:
            assert {"/", "/proc"} <= names & {each[place] for each in mounted}
        if by == "fs":
            assert {"tmpfs", "proc", "pipefs"} <= names
        if by == "file":
            assert r"\xff\xfe\n\x1b[31m" in done.stderr
    assert "Cost:" in done.stderr and "each system call of other processes" in done.stderr


def test_a_step_of_a_pipeline_and_its_page(tmp_path: Path, caller: Path, gotrace: Any) -> None:
    """Its numbers are the program's own and those of the page, which a recording makes again."""
    plan, out = tmp_path / "p.yaml", tmp_path / "out"
    step = {"name": "files", "datapath": {"command": [str(caller), "counted", str(work(tmp_path))], "by": "dir"}}
    plan.write_text(json.dumps({"schema": "gotrace.pipeline/1", "out": str(out), "steps": [step]}))
    done = gotrace("run", str(plan))
    assert done.returncode == 0, done.stderr + done.stdout
    (summary,) = json.loads((out / "files/datapath.json").read_bytes())
    truth = told(ndjson("\n".join(each for each in (out / "files.log").read_text().splitlines() if each.startswith("{"))))
    total = summary["all"]
    assert total["calls"] >= sum(truth.values()) > 15_000 and summary["by"] == "dir" and summary["lost"] == 0
    assert f"{total['calls']:,} calls, {total['errors']:,} of them failed" in done.stdout + done.stderr
    page = Parsed((out / "files/datapath.html").read_text())
    rows = {row[0]: row for row in page.tables["Directories"][1:]}
    assert [rows[printable(row["name"])][5] for row in summary["rows"]] == [f"{row['calls']:,}" for row in summary["rows"]]
    assert list(page.tables)[:3] == ["Directories", "Files", "File systems"] and "Advice:" in " ".join(page.words)
    files = {row[0]: int(row[5].replace(",", "")) for row in page.tables["Files"][1:]}
    both = {path for _, path in truth} & {os.fsencode(each) for each in files}
    assert len(both) > 1
    for path in both:
        assert files[os.fsdecode(path)] == sum(count for (_, of), count in truth.items() if of == path), path
    (figure,) = page.figures
    assert sum(sum(each["values"]) for each in figure["series"]) == total["calls"]
    again = tmp_path / "again.html"
    assert gotrace("report", str(out / "files/datapath.gotrace"), "-o", str(again)).returncode == 0
    assert again.read_bytes() == (out / "files/datapath.html").read_bytes()


@pytest.mark.alone
def test_a_million_names_fit(tmp_path: Path, caller: Path) -> None:
    """Each is looked up once, and is a row; nothing is lost, and gotrace never has more than 300 MB."""
    out = tmp_path / "x.json"
    command = [*GOTRACE, "datapath", "--by", "file", "-o", str(out), "--", str(caller), "storm", str(tmp_path), "1000000"]
    # Started by a small process: until its execve it has what its parent had, and that counts.
    code = (
        "import resource, subprocess, sys; "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    told = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True).stdout
    status, peak_kib = map(int, told.split())
    assert status == 0 and peak_kib * 1024 < 300e6
    (summary,) = json.loads(out.read_text())
    assert summary["lost"] == 0 and 1_000_000 <= summary["all"]["not_found"] < 1_000_010
    assert 1_000_000 <= len(summary["rows"]) + summary["more_rows"] < 1_000_020
    assert summary["more"]["calls"] + sum(row["calls"] for row in summary["rows"]) == summary["all"]["calls"]


def test_every_row_as_parquet(tmp_path: Path, caller: Path) -> None:
    """Sums are those of the summary, names those of the program."""
    out = tmp_path / "x.parquet"
    options = ("--by", "file", "--top", "1", "-o", str(out))
    truth, records = traced(tmp_path, caller, "counted", work(tmp_path), options=options)
    rows = {row["name"]: row for row in parquet.read_table(out).to_pylist()}
    assert (
        len(rows) == 1 + records[-1]["more_rows"]
        and sum(row["calls"] for row in rows.values()) == records[-1]["all"]["calls"]
    )
    counts: Counter[str] = Counter()
    for (_, path), count in told(truth).items():
        counts[os.fsdecode(path)] += count
    both = counts.keys() & rows.keys()
    assert len(both) > 1 and {path: rows[path]["calls"] for path in both} == {path: counts[path] for path in both}


def test_what_cannot_be_asked(gotrace: Any) -> None:
    for arguments, said in (
        (("--by", "dataset", "--pid", "1"), "--by dataset needs --dataset"),
        (("--by", "file", "--dataset", "/x/**", "--pid", "1"), "--dataset and --by file are mutually exclusive"),
        (("--dataset", "x/*.jpg", "--pid", "1"), "no path begins as 'x/*.jpg' does"),
        (("--explain", "--epoch", "0s", "--pid", "1"), "shorter than 1 ms"),
        (("--explain", "--epoch", "(", "--pid", "1"), "is not a valid RE2 regular expression: missing )"),
        (("--epoch", "x", "--pid", "1"), "has no effect without --explain"),
        ((), "give either --pid PID or a command"),
    ):
        done = gotrace("datapath", *arguments)
        assert done.returncode == 2 and said in done.stderr


# A process whose worker, and the worker's worker, are there before anybody looks.
_WORKERS = """
import os, sys
for depth in range(2):
    if os.fork():
        os.wait()
        os._exit(0)
print("ready", flush=True)
os.read(0, 1)
for _ in range(int(sys.argv[1])):
    os.path.exists("/nowhere/at/all")
"""


def test_workers_that_are_there_already(tmp_path: Path, gotrace: Any) -> None:
    read, write = os.pipe()
    with subprocess.Popen([PYTHON, "-c", _WORKERS, "2003"], stdin=read, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "ready\n"
        options = ["--pid", str(parent.pid), "--by", "file", "--top", "1000", "--format", "json"]
        tracer = subprocess.Popen(
            [*GOTRACE, "datapath", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert tracer.stderr is not None and tracer.stderr.readline().startswith("Tracing")
        os.write(write, b"x")
        text, rest = tracer.communicate(timeout=PATIENCE_S)
        assert tracer.returncode == 0, rest
    os.close(write)
    os.close(read)
    (summary,) = json.loads(text)
    row = next(row for row in summary["rows"] if row["name"] == "/nowhere/at/all")
    assert row["calls"] == row["not_found"] == 2003 and row["resolved"] is False


@pytest.fixture
def cgroup(tmp_path: Path) -> Any:
    """A fresh cgroup of version 2, wherever that is mounted."""
    mount = tmp_path / "cgroup2"
    mount.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", mount], check=True)
    folder = mount / f"libpod-{os.getpid():064x}"  # as podman calls that of a container
    folder.mkdir()
    yield folder
    until(lambda: not (folder / "cgroup.procs").read_text())
    folder.rmdir()
    subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize("how", ["--cgroup", "--container"])
def test_of_a_group_of_processes(tmp_path: Path, caller: Path, cgroup: Path, start: Any, how: str) -> None:
    """All of a cgroup, by its folder; a container, by the process in it that has started the others."""
    folder = work(tmp_path)
    target: Target = start(caller, "counted", str(folder), env={"WAIT": "1"})
    (cgroup / "cgroup.procs").write_text(str(target.pid))
    value = str(cgroup) if how == "--cgroup" else cgroup.name.removeprefix("libpod-")
    options = [how, value, "--top", "100", "--format", "json"]
    tracer = subprocess.Popen([*GOTRACE, "datapath", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None and tracer.stderr.readline().startswith("Tracing")
    target.go()
    assert target.process.stdout is not None
    own = told(ndjson(target.process.stdout.read()))
    tracer.send_signal(signal.SIGINT)
    text, rest = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0, rest
    (summary,) = json.loads(text)
    rows = {row["name"]: row["calls"] for row in summary["rows"]}
    counts: Counter[str] = Counter()
    for (call, _), count in own.items():
        counts[call] += count
    exact = ("pread64", "pwrite64", "lseek", "ftruncate", "readv", "fsync")
    assert {call: rows[call] for call in exact} == {call: counts[call] for call in exact}
    assert summary["processes"] == 1 and (how == "--container" or summary["target"] == f"cgroup {cgroup}")


def paths_of(records: list[Any], folder: Path) -> Counter[tuple[str, str]]:
    """(call, path below the folder) of single calls."""
    singles = [
        each for each in records if each["type"] == "datapath_call" and (each["path"] or "").startswith(f"{folder}/")
    ]
    return Counter((each["call"], os.path.relpath(each["path"], folder)) for each in singles)


def test_requests_of_io_uring_have_names_and_kinds(tmp_path: Path) -> None:
    """What opens, links or waits by io_uring alone; its timer is no time on files."""
    folder = work(tmp_path)
    options = ("--min", "1ns", "--explain", "--epoch", "ring-a$")
    truth, records = traced(tmp_path, targets.build("ringcalls", flavour=targets.C), folder, options=options)
    if truth[-1]["call"] == "no io_uring":
        pytest.skip("this kernel has no io_uring")
    results = {(each["call"], each["path"]): each["result"] for each in truth if each["path"]}
    assert all(result >= 0 for (_, path), result in results.items() if path != "ring-nope"), results
    found = paths_of(records, folder)
    assert {what: found[what] for what in results} == dict.fromkeys(results, 1)
    (timeout,) = [each for each in truth if each["call"] == "io_uring timeout"]
    summary = records[-1]
    total, rows = summary["all"], {row["name"]: row for row in summary["rows"]}
    waits = rows["io_uring timeout"]
    assert waits["other_ns"] == waits["total_ns"] and 300_000_000 <= waits["total_ns"] <= timeout["ns"]
    assert total["other_ns"] >= waits["total_ns"]
    for call in ("symlinkat", "linkat", "openat", "unlinkat", "mkdirat"):
        assert rows[f"io_uring {call}"]["metadata_calls"] == rows[f"io_uring {call}"]["calls"], call
    assert {each["metadata"] for each in records if each.get("call") in ("io_uring timeout", "io_uring send")} == {False}
    assert len(summary["explained"]["epochs"]) == 2  # its openat begins one


# Calls that are seldom made; the other process holds the lock for 0.3 s.
_SELDOM = """
import ctypes, fcntl, json, os, sys, time
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("locked", os.O_CREAT | os.O_RDWR)
read, write = os.pipe()
if os.fork() == 0:
    fcntl.lockf(os.open("locked", os.O_RDWR), fcntl.LOCK_EX)
    os.write(write, b"x")
    time.sleep(0.3)
    os._exit(0)
os.read(read, 1)
begin = time.monotonic_ns()
fcntl.lockf(fd, fcntl.LOCK_EX)
print(json.dumps(time.monotonic_ns() - begin), flush=True)
fcntl.fcntl(fd, fcntl.F_GETFL)  # no lock
os.wait()
os.symlink("locked", "link")
os.symlink("locked", "link-at", dir_fd=os.open(".", os.O_RDONLY))
for each in (libc.removexattr, libc.lremovexattr):
    each(b"locked", b"user.none")
libc.fremovexattr(fd, b"user.none")
libc.llistxattr(b"link", None, 0)
other = os.open("clone", os.O_CREAT | os.O_RDWR)
libc.ioctl(other, 0x40049409, fd)
os.fchdir(os.open(".", os.O_RDONLY))
libc.inotify_add_watch(libc.inotify_init(), b"locked", 2)
os.memfd_create("in-memory")
for name in ("not-there/x", "not-there/y", "script"):
    if name == "script":
        open(name, "w").write("#!/bin/true")
        os.chmod(name, 0o755)
    if os.fork() == 0:
        try:
            os.execv(name, [name])
        except OSError:
            os._exit(0)
    os.wait()
"""


def test_seldom_calls(tmp_path: Path) -> None:
    """Locks, links, clones, programs that are there or not; how long a lock was waited for by the program's clock."""
    folder = work(tmp_path)
    (waited_ns,), records = traced(tmp_path, PYTHON, "-c", _SELDOM, folder, options=("--min", "1ns", "--top", "100"))
    found = paths_of(records, folder)
    expected = {
        **{(call, "locked"): 1 for call in ("removexattr", "lremovexattr", "fremovexattr", "inotify_add_watch")},
        ("fcntl", "locked"): 2,
        ("symlink", "link"): 1,
        ("symlinkat", "link-at"): 1,
        ("llistxattr", "link"): 1,
        ("ioctl", "clone"): 1,
        ("execve", "not-there/x"): 1,
        ("execve", "not-there/y"): 1,
        ("execve", "script"): 1,
    }
    assert {what: found[what] for what in expected} == expected
    singles = [each for each in records if each["type"] == "datapath_call"]
    longest = max(each["duration_ns"] for each in singles if each["call"] == "fcntl")
    assert longest == pytest.approx(waited_ns, rel=0.01) and longest > 250_000_000
    assert {each["path"] for each in singles if each["call"] == "memfd_create"} == {"/memfd:in-memory (deleted)"}
    assert ("fchdir", ".") in Counter((each["call"], os.path.relpath(each["path"] or "/", folder)) for each in singles)


# Marks 0 to 2, one a 0.1 s; one more whose open blocks in a FIFO meanwhile.
_MARKS = """
import json, os, sys, threading, time
os.chdir(sys.argv[1])
os.mkfifo("mark-slow")
thread = threading.Thread(target=lambda: os.close(os.open("mark-slow", os.O_RDONLY)))
thread.start()
for number in range(3):
    time.sleep(0.1)
    print(json.dumps(time.monotonic_ns()), flush=True)
    os.close(os.open(f"mark-{number}", os.O_CREAT | os.O_WRONLY))
    for _ in range(10 + number):
        os.path.exists("nothing")
time.sleep(0.1)
print(json.dumps(time.monotonic_ns()), flush=True)
os.close(os.open("mark-slow", os.O_WRONLY))
thread.join()
"""


def test_epochs_begin_when_a_file_has_been_opened(tmp_path: Path) -> None:
    options = ("--min", "1ns", "--explain", "--epoch", "/mark-")
    times, records = traced(tmp_path, PYTHON, "-c", _MARKS, work(tmp_path), options=options)
    epochs = records[-1]["explained"]["epochs"]
    assert len(epochs) == 6 and all(each["length_ns"] >= 0 for each in epochs)  # both ends of the FIFO open at once
    began = [each["monotonic_ns"] for each in epochs]
    assert began == sorted(began)
    assert [at - begin for at, begin in zip(began[1:5], times, strict=True)] == pytest.approx([25e6] * 4, abs=25e6)
    for number, epoch in enumerate(epochs[1:4]):
        looks = [each for each in records if each.get("call") == "newfstatat" and each["path"].endswith("/nothing")]
        inside = [each for each in looks if 0 <= each["monotonic_ns"] - epoch["monotonic_ns"] < epoch["length_ns"]]
        assert len(inside) == 10 + number <= epoch["calls"]


def test_an_expression_that_backtracks_costs_nothing(tmp_path: Path) -> None:
    name = tmp_path / ("a" * 60 + "!")
    name.write_text("")
    options = ("--explain", "--epoch", "(a+)+$")
    (summary,) = traced(tmp_path, "cat", name, options=options)[1]
    assert len(summary["explained"]["epochs"]) == 1


# What it maps is not in the page cache: in the first loop it is read in page faults, in the other in write() itself.
_MAPPED = """
import mmap, os, sys, time
for loop in range(2):
    fd = os.open(sys.argv[1], os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    mapped = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    mapped.madvise(mmap.MADV_RANDOM)
    out = os.memfd_create("out")
    for at in range(0, len(mapped), 4096):
        if loop:
            os.write(out, memoryview(mapped)[at : at + 4096])
        else:
            mapped[at]
    mapped.close()
    os.close(fd)
"""


def test_page_faults_in_calls_count_once(tmp_path: Path) -> None:
    """And a program that execve mapped, cold, has its name."""
    folder = targets.ROOT / "tests" / f".datapath-{os.getpid()}"  # not in memory, as /tmp may be
    folder.mkdir()
    try:
        program, data = folder / "program", folder / "data"
        shutil.copy(os.path.realpath(PYTHON), program)
        data.write_bytes(os.urandom(4096 * 300))
        for each in (program, data):
            fd = os.open(each, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        options = ("--min", "1ns", "--explain", "--dataset", f"{folder}/[!d]*", "--dataset", f"{folder}/d?ta")
        command = ("sh", "-c", '"$@"; true', "sh", program, "-c", _MAPPED, data)
        records = traced(tmp_path, *command, options=options)[1]
    finally:
        shutil.rmtree(folder)
    singles = [each for each in records if each["type"] == "datapath_call"]
    faults = {
        call: [each for each in singles if each["call"] == call and each["path"] == str(data)]
        for call in ("page fault", "page fault in a call")
    }
    assert [len(each) for each in faults.values()] == pytest.approx([300, 300], abs=3)
    assert {each["path"] for each in singles if each["call"].startswith("page fault")} >= {str(program), str(data)}
    assert not any("inode" in each["path"] for each in singles if each["call"] == "page fault" and each["path"])
    summary = records[-1]
    once = sum(each["duration_ns"] for each in singles if each["call"] != "page fault in a call")
    assert summary["all"]["total_ns"] == once
    for thread in summary["explained"]["threads"]:
        assert thread["metadata_ns"] + thread["data_ns"] <= thread["wall_ns"]
    rows = {row["name"]: row for row in summary["rows"]}
    assert rows[f"{folder}/[!d]*"]["cache"]["cold"] > 0 and rows[f"{folder}/d?ta"]["cache"]["cold"] >= 597


# An alarm each 10 ms, while it waits 0.2 s for its child; a child of a child that outlives it, and one that opens a FIFO.
_LEFT = """
import os, signal, sys, time
os.chdir(sys.argv[1])
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
read, write = os.pipe()
if os.fork() == 0:
    time.sleep(0.2)
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    time.sleep(4)
    os._exit(0)
os.close(write) if len(sys.argv) > 2 else None
if os.fork() == 0:
    time.sleep(0.2)
    os.write(write, b"x")
    os._exit(0)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
os.read(read, 1)
"""


def test_what_goes_on_is_said(tmp_path: Path, gotrace: Any) -> None:
    """Interrupted calls are no errors; a child that outlives its parent is said; an open that blocks has its path."""
    done = gotrace("datapath", "--", PYTHON, "-c", _LEFT, str(work(tmp_path)))
    assert "1 process that it started still runs" in done.stderr
    interrupted = re.search(r"(\d+) calls interrupted by a signal", done.stderr)
    assert interrupted is not None and 10 <= int(interrupted[1]) <= 25 and "512" not in done.stderr
    os.mkfifo(tmp_path / "fifo")
    done = gotrace("datapath", "-d", "1s", "--", "cat", str(tmp_path / "fifo"))
    assert "Ended the command after 1.00 s." in done.stderr
    assert re.search(rf"NOT ENDED: thread \d+ in openat for .* \({tmp_path}/fifo\)", done.stderr), done.stderr


def test_patterns_that_fit_nothing_have_rows(tmp_path: Path) -> None:
    records = traced(tmp_path, "true", options=("--dataset", "/nowhere/**", "--dataset", "/usr/**"))[1]
    rows = {row["name"]: row["calls"] > 0 for row in records[-1]["rows"]}
    assert not rows["/nowhere/**"] and rows["/usr/**"]


def test_a_cgroup_that_is_removed(cgroup: Path) -> None:
    inner = cgroup / "inner"
    inner.mkdir()
    command = [*GOTRACE, "datapath", "--cgroup", str(inner)]
    tracer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None and tracer.stderr.readline().startswith("Tracing")
    inner.rmdir()
    text, rest = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0 and "ended by: cgroup removed" in text, rest


def test_calls_of_32_bit_programs_are_counted(tmp_path: Path, gotrace: Any) -> None:
    """One that opens, reads and closes a file seven times, without a library."""
    source, program = tmp_path / "small.c", tmp_path / "small"
    source.write_text(
        'static int call(int n, long a, long b, long c) { int r; __asm__ volatile("int $0x80" : "=a"(r)'
        ' : "a"(n), "b"(a), "c"(b), "d"(c) : "memory"); return r; }\n'
        'static char b[9]; void _start(void) { for (int i = 0; i < 7; i++) { int f = call(5, (long)"/etc/passwd", 0, 0);'
        " call(3, f, (long)b, 9); call(6, f, 0, 0); } call(1, 0, 0, 0); for (;;) ; }\n"
    )
    flags = ["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector"]
    if subprocess.run(["gcc", *flags, "-o", program, source], capture_output=True).returncode:
        pytest.skip("no 32-bit programs can be built here")
    done = gotrace("datapath", "--", "sh", "-c", f"{program}; true")
    assert "NOT SEEN: calls of 32-bit programs (at least 22)." in done.stderr, done.stderr
