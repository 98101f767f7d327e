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
    ours = Counter(each["call"] for each in singles if each["call"] != "page fault")
    assert sum(ours.values()) > 500 and {"openat", "getdents64", "read", "close", "mmap", "newfstatat"} <= ours.keys()
    assert ours == {call: calls[call] for call in ours}
    assert Counter((each["call"], each["error"]) for each in singles if each["error"]) == {
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
    """A FUSE file system that takes its time, until `log` is read: (folder, kind of request) -> nanoseconds of each."""

    OPEN, READ, FSYNC = 14, 15, 20  # enum fuse_opcode

    def __init__(self, point: Path) -> None:
        point.mkdir()
        command = [targets.build("slowfs", flavour=targets.C), point]
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
        more = statistics.median(each["server_ns"] / own for each, own in zip(singles, served, strict=True))
        assert more == pytest.approx(1, abs=exactly), call
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
    assert set(rows) == {f"{point}/*ing/**", "(other files)"}
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
    assert "Cost:" in done.stderr and "each system call of any other process" in done.stderr


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
        (("--by", "dataset", "--pid", "1"), "has no effect without --dataset"),
        (("--explain", "--epoch", "(", "--pid", "1"), "is no regular expression"),
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
