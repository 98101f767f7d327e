"""`gotrace sched` against what the runtime and the program count themselves, and what the kernel says of its threads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

import groundtruth
import pages
import targets
from conftest import GOTRACE, PATIENCE_S, cpu_quota, until
from gotrace.analysis.columns import Kinds
from gotrace.analysis.scheduling import CPU_CLASSES, bounds
from gotrace.binary.program import GoProgram
from gotrace.binary.scheduler import find_books
from gotrace.kernel.process import Process
from gotrace.lab import measure
from gotrace.lab.children import Group
from gotrace.recording.reader import Recording
from gotrace.records.all import schema_of_command
from gotrace.runtime.goroutines import GoroutineReader
from gotrace.runtime.scheduler import SchedulerReader

CASES = [
    *((version, "stripped") for version in targets.MATRIX),
    *((version, flavour) for version in ("1.19.8", "1.22.10", targets.NEWEST) for flavour in ("pie-stripped", "noopt")),
]
CASES = [
    (version, flavour)
    for version, flavour in CASES
    if version in targets.MATRIX
    and not (targets.EMULATED and (flavour, version) not in {("stripped", each) for each in targets.SOME})
]


class Scheduled:
    """The program: at rest, its counts settled, once a command was answered, until `go_on`."""

    def __init__(self, start, procs, version=targets.NEWEST, flavour="stripped"):
        self.target = start(targets.build("scheduled", version, flavour), str(procs))
        self.pid = self.target.pid
        self._answered = False
        self.ask("wait")  # what the runtime does at its start is over by the next one

    def begin(self, command):
        if self._answered:
            self.target.process.stdin.write("x")
        self.target.process.stdin.write(f"{command}\n")
        self.target.process.stdin.flush()

    def answer(self):
        self._answered = True
        return json.loads(self.target.process.stdout.readline())

    def kill(self):
        """So that nothing of it is in a control group any more."""
        self.target.process.kill()
        self.target.process.wait()

    def ask(self, command):
        self.begin(command)
        return self.answer()


def told(pid, *options, while_=lambda: None):
    """The records of `gotrace sched` until it is interrupted after ``while_``; the last one is of all of it."""
    command = [*GOTRACE, "sched", "--pid", str(pid), "-i", "200ms", "--format", "ndjson", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline()]
            while_()
            time.sleep(0.3)
        finally:
            process.terminate()
            out, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    lines += out.splitlines()
    return [json.loads(line) for line in lines if line.strip()]


@pytest.mark.everywhere
@pytest.mark.parametrize(("version", "flavour"), CASES)
def test_counts_are_the_runtimes(version, flavour, start):
    """At rest: every bucket of how long goroutines waited, and waits for mutexes to the nanosecond."""
    program = Scheduled(start, 2, version, flavour)
    created = []
    for command in ("wait", "yield 20 2000", "lock 8 3000", "sleep 50", "wait"):
        truth = program.ask(command)
        for _ in range(5):
            with Process.open(program.pid) as process:
                reader = SchedulerReader(process)
                found, sample = reader.totals(), reader.sample(reader.glance())
                states = GoroutineReader(process).states()
            count = len(found.waits)
            # The metric begins with what was below 0, and ends with what was beyond.
            if truth["Counts"][1 : count + 1] == found.waits:
                break
            truth = program.ask("wait")  # one of the runtime's own goroutines ran after it had read its metrics
        assert truth["Counts"][1 : count + 1] == found.waits
        assert sum(truth["Counts"][count + 1 :]) == found.beyond
        assert set(reader.books.missing) == ({"how Ps spent their time"} if version.startswith("1.19") else set())
        edges = np.array(truth["Buckets"][1 : count + 1])
        assert np.allclose(edges * 1e9, bounds(count)[:count], atol=0.5)
        if version >= "1.21":
            assert found.mutex_wait_ns == round(truth["MutexWait"] * 1e9)
            assert found.mutex_wait_ns > 0 or len(created) < 2
        else:
            assert found.mutex_wait_ns is None
        if truth["Created"]:
            assert found.created == truth["Created"]
        created.append(found.created)
        assert len(sample.ps) == truth["Procs"] == 2
        assert sum(count for _, system, count in states if not system) == truth["Goroutines"]
        assert found.threads == len(os.listdir(f"/proc/{program.pid}/task"))
    assert np.diff(created).tolist() == [20, 8, 50, 0]


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.MATRIX if not targets.EMULATED else ("1.22.10", targets.NEWEST))
def test_what_the_time_of_ps_went_to(version, start, gotrace):
    """As runtime/metrics has it, which is as of the last collection."""
    program = Scheduled(start, 2, version)
    program.ask("hog 2 50")
    before = program.ask("collect")["Classes"]
    with Process.open(program.pid) as process:
        reader = SchedulerReader(process)
        first = reader.totals().cpu
        if before is None:
            assert first is None and version.startswith("1.19")
            return
        assert np.array(first) / 1e9 == pytest.approx(before)
        program.ask("hog 2 50")
        after = program.ask("collect")["Classes"]
        assert np.array(reader.totals().cpu) / 1e9 == pytest.approx(after)
    *_, whole = told(program.pid, while_=lambda: program.ask("collect"))
    found, last = whole["cpu_classes"], program.ask("wait")["Classes"]
    truth = dict(zip(CPU_CLASSES, np.subtract(last, after), strict=True))
    assert {name: found[f"{name}_ns"] / 1e9 for name in truth} == pytest.approx(truth, abs=1e-9)
    assert found["gc_ns"] + found["scavenge_ns"] + found["user_ns"] + found["idle_ns"] == found["total_ns"]


@pytest.mark.parametrize("arch", ("amd64", "arm64"))
@pytest.mark.parametrize("version", targets.MATRIX)
def test_where_the_books_are(version, arch):
    """As the symbol table has it."""
    for flavour in ("default", "noopt"):
        with GoProgram.open(targets.build("gcload", version, flavour, arch)) as program:
            symbols = {name: address for name, address, _ in program.elf.symbols()}
            found = find_books(program)
        names = ("sched", "allp", "allm")
        assert {name: getattr(found, name) for name in names} == {name: symbols[f"runtime.{name}"] for name in names}


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.SOME)
def test_turns_and_waits(version, start):
    """What the program yields are turns; the percentiles are those of the runtime's own histogram."""
    program = Scheduled(start, 2, version)
    yields = 4000 if targets.EMULATED else 60000
    after = {}
    for _ in range(4):
        before = program.ask("wait")
        *lines, found = told(program.pid, while_=lambda: after.update(program.ask(f"yield 20 {yields}")))
        more = np.array(after["Counts"]) - np.array(before["Counts"])
        latency, edges = found["latency"], np.array(after["Buckets"]) * 1e9
        if latency["calls"]:
            more[1] -= latency["calls"]
            assert version != targets.NEWEST
        if latency["samples"] == more.sum():
            break  # else one of the runtime's own goroutines ran before or after
    assert latency["samples"] == more.sum()
    # Whom the others have left alone waits for nobody: up to Go 1.25 that looks like a return from a system call.
    assert found["turns"] + 8 * latency["calls"] == pytest.approx(20 * yields, rel=0.01)
    assert found["created"] == 20
    up_to = np.cumsum(more)
    names = {50: "p50_ns", 90: "p90_ns", 95: "p95_ns", 99: "p99_ns", 99.9: "p99.9_ns", 100: "max_ns"}
    for percent, name in names.items():
        wanted = max(1, np.ceil(percent / 100 * more.sum()))
        assert latency[name] == pytest.approx(edges[np.searchsorted(up_to, wanted) + 1], abs=1), name
    middles = (edges[1:] + edges[:-1]) / 2
    assert latency["mean_ns"] == pytest.approx((more * middles).sum() / more.sum(), rel=1e-6)
    assert found["waiting_ns"] == pytest.approx(8 * (more * middles).sum(), rel=1e-6)
    assert {(each["from_ns"], each["count"]) for each in latency["buckets"]} == {
        (round(edges[at]), int(more[at])) for at in np.flatnonzero(more)
    }
    # Each yield ends a time slice, as do few other things.
    assert 20 * yields <= found["slices"] <= 1.02 * 20 * yields + 1000
    assert found["slices"] == sum(p["slices"] for p in found["ps"])
    # The intervals add up to the whole.
    for name in ("turns", "slices", "created", "samples", "length_ns", "waiting_ns", "mutex_wait_ns"):
        if found[name] is not None:
            assert sum(line[name] for line in lines) == found[name], name
    if found["mutex_wait_ns"] is not None:
        wait = after["MutexWait"] - before["MutexWait"]
        assert found["mutex_wait_ns"] == pytest.approx(wait * 1e9, abs=1)


@pytest.mark.alone  # when it looks at the queues depends on when it has a CPU
@pytest.mark.parametrize("version", ("1.19.8", "1.22.10", targets.NEWEST))
def test_littles_law(version, start):
    """How often something waits, by how long, is what waits on average: about, for the one is every eighth wait, some of
    them long, and the other is what was seen a hundred times a second, when gotrace had a CPU."""
    program = Scheduled(start, 2, version)
    after = {}
    *_, found = told(program.pid, while_=lambda: after.update(program.ask("yield 20 60000")))
    queued = (found["queue"]["local"] + found["queue"]["global"]) * found["length_ns"]
    # Beside those in queues there are those that a P has in its hands: in no queue yet, or in none any more.
    assert 0.7 * queued <= found["waiting_ns"] <= 1.12 * 20 * after["Elapsed"]


@pytest.mark.everywhere
def test_queues(start):
    """Five goroutines share the one P that the main goroutine leaves, so that four of them always wait."""
    program = Scheduled(start, 2)
    program.ask("spin 5")
    *_, found = told(program.pid, while_=lambda: time.sleep(1))
    assert found["queue"]["local"] + found["queue"]["global"] == pytest.approx(4, abs=0.1)
    assert found["queue"]["max"] <= 5
    assert found["statuses"]["running"] == pytest.approx(2, abs=0.05) and found["statuses"]["idle"] < 0.05
    assert found["while_queued"]["ps_taken"] >= 0.95
    assert found["limits"]["gomaxprocs"] == 2
    states = found["goroutines"]["states"]
    # the main goroutine and one that spins; whoever was asked to yield is none of either for a moment
    assert states["running"] in (1, 2) and states["running"] + states["runnable"] in (5, 6)
    by_p = {p["p"]: p for p in found["ps"]}
    assert sum(p["queued"] for p in by_p.values()) == pytest.approx(found["queue"]["local"], abs=0.01)


def test_idle(start):
    """Of four Ps the main goroutine has one."""
    program = Scheduled(start, 4)
    program.ask("wait")
    *_, found = told(program.pid, while_=lambda: time.sleep(0.7))
    assert found["statuses"] == {"idle": 3, "running": 1, "syscall": 0, "stopped": 0}  # means
    assert found["queue"] == {"local": 0, "global": 0, "max": 0} and found["while_queued"] == {}
    assert found["turns"] == found["slices"] == found["waiting_ns"] == 0
    assert found["latency"]["p99_ns"] is None and found["latency"]["mean_ns"] is None
    if os.cpu_count() == 2:
        assert found["advice"][0] == "GOMAXPROCS is 4, but its threads may run on only 2 CPUs."


class Kernel(threading.Thread):
    """What the kernel counts, read by us all the time: ``read`` returns numbers that only grow."""

    def __init__(self, read):
        super().__init__()
        self._read, self._rows, self._over = read, [], threading.Event()

    def run(self):
        while not self._over.wait(0.01):
            self._rows.append((time.monotonic_ns(), *self._read()))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()

    def during(self, record):
        """How much they grew in the time that a record is of."""
        times, *numbers = np.array(self._rows).T
        ends = (record["monotonic_ns"] - record["length_ns"], record["monotonic_ns"])
        return [float(np.diff(np.interp(ends, times, each))[0]) for each in numbers]


def turns_of(pid):
    """(ran, waited, times) of all threads of a process."""
    texts = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return tuple(map(sum, zip(*(map(int, text.split()) for text in texts), strict=True)))


def sched(gotrace, pid, duration):
    """The record of so long a time."""
    done = gotrace("sched", "--pid", str(pid), "-d", duration, "-i", "1s", "--format", "ndjson")
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.alone
def test_a_quota(start, gotrace):
    """Two Ps that share half a CPU: what the threads got, and what the quota took, is the kernel's."""
    program = Scheduled(start, 2)
    program.ask("spin 4")
    program.begin("spin 4")
    with cpu_quota(50_000, 100_000) as (join, stat):
        join.write_text(str(program.pid))

        def counts():
            found = dict(line.split() for line in stat.read_text().splitlines())
            took = int(found["throttled_time"]) if "throttled_time" in found else 1000 * int(found["throttled_usec"])
            return (*turns_of(program.pid), took, int(found["nr_throttled"]), int(found["nr_periods"]))

        with Kernel(counts) as kernel:
            found = sched(gotrace, program.pid, "3s")
        text = gotrace("sched", "--pid", str(program.pid), "-d", "1s").stdout
        program.kill()
    limits, threads = found["limits"], found["threads"]
    ran, waited, _, took, throttled, periods = kernel.during(found)
    assert limits["quota_cpus"] == 0.5 and limits["limited_by"].rpartition("/")[2].startswith("gotrace-test")
    assert threads["ran_ns"] == pytest.approx(ran, rel=0.02) == pytest.approx(found["length_ns"] / 2, rel=0.05)
    assert threads["waited_ns"] == pytest.approx(waited, rel=0.1)
    assert limits["throttled_ns"] == pytest.approx(took, rel=0.1)
    assert limits["throttled_periods"] == pytest.approx(throttled, abs=2) and throttled >= 0.8 * periods
    assert limits["periods"] == pytest.approx(periods, abs=2)
    assert "GOMAXPROCS is 2, but the quota is 0.5 CPUs" in found["advice"][0]
    assert any(re.search("the quota throttled them for", each) for each in found["advice"]), found["advice"]
    assert "a quota of 0.5 CPUs (of /gotrace-test" in text and "The quota throttled the group in" in text


@pytest.mark.alone
def test_who_had_the_cpus(start, gotrace):
    """Two processes want each CPU: the program's share is the kernel's, and the others are named."""
    program = Scheduled(start, 2)
    program.begin("spin 4")
    program.answer()
    program.begin("spin 4")
    hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2)]
    try:
        with Kernel(lambda: turns_of(program.pid)) as kernel:
            found = sched(gotrace, program.pid, "3s")
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    threads, cpus, length = found["threads"], found["cpus"], found["length_ns"]
    ran, waited, _ = kernel.during(found)
    assert threads["ran_ns"] == pytest.approx(ran, rel=0.02) and threads["waited_ns"] == pytest.approx(waited, rel=0.05)
    assert sum((threads["ran_ns"], *cpus.values())) / length == pytest.approx(os.cpu_count(), rel=0.02)
    assert cpus["others_ns"] / length == pytest.approx(os.cpu_count() - threads["ran_ns"] / length, abs=0.1)
    if os.cpu_count() == 2:
        assert any("other processes and the kernel used" in each for each in found["advice"]), found["advice"]


@pytest.mark.skipif(os.cpu_count() < 2, reason="needs two CPUs")
def test_ps_on_cpus(start):
    """A P whose threads are sent from one CPU to the other, ten times."""
    program = Scheduled(start, 2)
    program.ask("spin 1")
    first, second = sorted(os.sched_getaffinity(0))[:2]

    def send(cpu):
        for tid in os.listdir(f"/proc/{program.pid}/task"):
            os.sched_setaffinity(int(tid), {cpu})

    sent = []

    def there_and_back():
        for _ in range(5):
            for cpu in (first, second):
                send(cpu)
                sent.append(time.monotonic())
                time.sleep(0.2)

    send(second)
    *_, found = told(program.pid, while_=there_and_back)
    # that of the main goroutine sleeps in a system call, and may stay where it was
    spins = max(found["ps"], key=lambda p: p["moves"]["cpus"])
    assert [p["moves"]["cpus"] <= 10 for p in found["ps"]] == [True, True] and spins["moves"]["cpus"] == 10
    assert found["moves"]["cpus"] == sum(p["moves"]["cpus"] for p in found["ps"])
    seen = spins["cpus"]
    assert set(seen) == {str(first), str(second)} and sum(seen.values()) == pytest.approx(1, abs=0.01)
    assert seen[str(first)] * found["length_ns"] / 1e9 == pytest.approx(sum(sent[1::2]) - sum(sent[::2]), abs=0.1)
    assert found["limits"]["cpus"] == [second]


def drawn(text, records):
    """A page shows the numbers of the records."""
    page = pages.Parsed(text)
    *intervals, whole = records
    over_time = page.figures[0]
    values = {each["name"]: each["values"] for chart in over_time["charts"] for each in chart["series"]}
    of = {
        "p99": [each["latency"]["p99_ns"] for each in intervals],
        "in queues of Ps": [each["queue"]["local"] for each in intervals],
        "running": [each["statuses"]["running"] for each in intervals],
        "ran": [round(each["threads"]["ran_ns"] / each["length_ns"], 4) for each in intervals],
        "goroutines": [each["goroutines"]["count"] for each in intervals],
    }
    assert {name: values[name] for name in of} == of
    assert len(over_time["times"]) == len(intervals)
    waits = [each for figure in page.figures[1:] for each in figure["series"][0]["values"]]
    assert sum(waits) == whole["latency"]["samples"]
    assert [row[0] for row in page.tables["Ps"][1:]] == [f"P {each['p']}" for each in whole["ps"]]
    assert dict(page.tables["The program's goroutines at the end"][1:]) == {
        state: f"{count:,}" for state, count in whole["goroutines"]["states"].items()
    }


@pytest.mark.everywhere
@pytest.mark.thorough
def test_a_report_is_what_was_printed(start, gotrace, tmp_path):
    program = Scheduled(start, 2)
    program.ask("spin 3")
    files = {name: tmp_path / f"x.{name}" for name in ("gotrace", "ndjson", "hgrm", "hlog", "html", "json")}
    options = [word for path in files.values() for word in ("-o", str(path))]
    printed = gotrace("sched", "--pid", str(program.pid), "-d", "1s", "-i", "200ms", *options)
    assert printed.returncode == 0, printed.stderr
    assert gotrace("report", str(files["gotrace"])).stdout == printed.stdout
    records = [json.loads(line) for line in files["ndjson"].read_text().splitlines()]
    assert json.loads(files["json"].read_text()) == records
    check = jsonschema.Draft202012Validator(schema_of_command("sched"))
    for record in records:
        check.validate(record)
    again = tmp_path / "again.ndjson"
    gotrace("report", str(files["gotrace"]), "-o", str(again))
    assert [json.loads(line) for line in again.read_text().splitlines()] == records
    assert len(records) >= (2 if targets.EMULATED else 5) and [record["type"] for record in records[-2:]] == [
        "sched_interval",
        "sched",
    ]
    counted = records[-1]["latency"]["samples"]
    total = re.search(r"TotalCount|Total count *= *(\d+)|#\[Max.*Total count *= *(\d+)\]", files["hgrm"].read_text())
    assert total is not None and (counted == 0 or f"{counted}" in files["hgrm"].read_text())
    drawn(files["html"].read_text(), records)
    refused = gotrace("report", str(files["gotrace"]), "-o", str(tmp_path / "x.svg"))
    assert refused.returncode == 2 and "a report of a scheduler cannot be written as svg" in refused.stderr
    reader = HistogramLogReader(str(files["hlog"]), HdrHistogram(1, 1 << 42, 3))
    counts = [histogram.get_total_count() for histogram in iter(reader.get_next_interval_histogram, None)]
    assert counts == [each["latency"]["samples"] for each in records[:-1]]
    with Recording.open(files["gotrace"]) as recording:
        assert recording.header["views"] == {"sched": {"interval_ns": 200_000_000, "thrifty": False}}


def test_a_program_that_ends(start, gotrace):
    program = Scheduled(start, 2)
    program.ask("wait")
    command = [*GOTRACE, "sched", "--pid", str(program.pid), "-i", "100ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.readline()
        program.target.process.kill()
        out, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and not errors
    assert "ended by: target exited" in out and "GOMAXPROCS 2" in out
    until(lambda: program.target.process.poll() is not None)
    gone = gotrace("sched", "--pid", str(program.pid))
    assert gone.returncode == 1 and "there is no process with pid" in gone.stderr


def test_what_cannot_be_read_is_said(start, gotrace):
    """Go 1.19 keeps no time of waits for mutexes."""
    if "1.19.8" not in targets.MATRIX:
        pytest.skip("there is no Go 1.19 here")
    program = Scheduled(start, 2, "1.19.8")
    program.ask("wait")
    out = gotrace("sched", "--pid", str(program.pid), "-d", "500ms").stdout
    assert "Not available: goroutines' mutex wait time (go1.19.8 does not record it)." in out
    assert "Mutex waits" not in out


class Hits:
    """How often a function of a program is entered, as perf counts at the address that the symbol table has."""

    def __init__(self, program, symbol, pid):
        nm = targets.go_tool("nm", str(program))
        (address,) = (int(line.split()[0], 16) for line in nm if line.split()[-1] == symbol)
        with GoProgram.open(program) as found:
            offset = found.elf.file_offset(address)
        self._name, self._pid = f"gotrace_test_{os.getpid()}", pid
        self._tell(f"p:{self._name} {program}:{offset:#x}\n")

    def _tell(self, line):
        file = os.open("/sys/kernel/tracing/uprobe_events", os.O_WRONLY | os.O_APPEND)
        os.write(file, line.encode())
        os.close(file)

    def __enter__(self):
        command = ["perf", "stat", "-x,", "-e", f"uprobes:{self._name}", "-p", str(self._pid)]
        self._perf = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self._perf.send_signal(signal.SIGINT)
        _, told = self._perf.communicate(timeout=30)
        self._tell(f"-:{self._name}\n")
        self.count = int(told.split(",")[0])


@pytest.mark.alone
@pytest.mark.parametrize("version", ("1.19.8", "1.22.10", targets.NEWEST))
def test_steals(version, start):
    """One goroutine starts the others and keeps its P, so that the other P has to take every one from it."""
    if version not in targets.MATRIX:
        pytest.skip(f"there is no Go {version} here")
    program = Scheduled(start, 2, version, "default")
    rounds, each = 20, 200
    for _ in range(6):
        program.ask("wait")
        with Hits(targets.build("scheduled", version, "default"), "runtime.runqsteal", program.pid) as hits:
            _, *_, found = told(program.pid, "--events", while_=lambda: program.ask(f"spread {each} {rounds}"))
        steals = found["steals"]
        # it may lose its P to the runtime's watchdog, which runs some of them there, and get the other
        from_it = max((one["goroutines"] for one in steals["by"]), default=0)
        if min(steals["goroutines"], from_it) >= 0.98 * rounds * each:
            break
    assert found["type"] == "sched_events" and found["missing"] == {} and found["lost"] == 0
    assert 0.98 * rounds * each <= steals["goroutines"] <= rounds * each + 20
    assert abs(steals["attempts"] - hits.count) <= 3
    assert steals["goroutines"] == sum(each["goroutines"] for each in steals["by"])
    assert from_it >= 0.95 * rounds * each
    assert steals["failure_rate"] == pytest.approx(steals["failed"] / steals["attempts"])
    assert 0 < steals["failed"] < steals["attempts"]


@pytest.mark.alone
def test_a_run_of_a_baseline(start, tmp_path, gotrace):
    """While its load lasts: what the program, its runtime, perf and the kernel count, and percentiles as numpy has them."""
    program, recorded = Scheduled(start, 2, targets.NEWEST, "default"), tmp_path / "x.gotrace"
    before = program.ask("wait")

    def load():
        program.begin("follow 20 4000")
        return Group(["sleep", "2"])

    hits = Hits(targets.build("scheduled", targets.NEWEST, "default"), "runtime.runqsteal", program.pid)
    with hits, Kernel(lambda: turns_of(program.pid)) as kernel:
        seen = measure.watch(program.pid, load, recorded, events=True, wakeups=True)
    after, values = program.answer(), measure.metrics(seen)
    assert seen.summary["events"] == {"received": seen.summary["events"]["received"], "lost": seen.lost} and seen.lost == 0
    assert seen.load_status == 0
    moves = seen.wakeups.result["moves"]["count"]
    assert after["Moved"] > 100 and moves == pytest.approx(after["Moved"], rel=0.02, abs=20)
    assert abs(seen.events.attempts - hits.count) <= 3
    assert values["steal.failure_rate"] == pytest.approx(
        1 - np.count_nonzero(columns(recorded, "steal", "taken")) / hits.count
    )
    _, _, times = kernel.during(seen.events.result)
    got, since = columns(recorded, "got_cpu", "time_ns"), columns(recorded, "got_cpu", "runnable_ns")
    assert len(got) == pytest.approx(times, rel=0.03, abs=5)
    moved, began = columns(recorded, "moved", "time_ns"), columns(recorded, "moved", "since_ns")
    waits = columns(recorded, "ran", "waited_ns")
    for name, each in (
        ("sched.cpu_wait.p95", got - since),
        ("sched.binding.p95", moved - began),
        ("sched.wait.p95", waits[waits > 0]),
    ):
        assert values[name] == pytest.approx(np.percentile(each.astype(float), 95), rel=0.05), name
    # In the bucket in which the runtime has it, or one beside it: one of its own goroutines may have run after.
    grown, edges = np.diff([before["Counts"], after["Counts"]], axis=0)[0][1:], np.array(after["Buckets"][1:]) * 1e9
    place = np.searchsorted(np.cumsum(grown), 0.95 * grown.sum())
    assert edges[place - 1] <= values["sched.wait.p95"] <= edges[place + 2]
    told = gotrace("report", str(recorded)).stdout
    assert "runnable without a CPU" in told and "Individual goroutines, over" in told
    assert f"{moves / seen.wakeups.result['length_ns'] * 1e9:,.1f} times per second" in told


def columns(path, kind, name):
    """A column of all events of a kind in a recording."""
    with Recording.open(str(path)) as recording:
        kinds = Kinds.of_probe(recording.header, "sched" if kind in ("steal", "got_cpu") else "wakeup")
        return np.concatenate([kinds.of(chunk.events, kind)[name] for chunk in recording.chunks()])


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.SOME)
def test_single_goroutines(version, start, tmp_path):
    """Every wait is in the bucket in which the runtime has it, and moves are those that the goroutines noticed."""
    program = Scheduled(start, 2, version)
    before = program.ask("wait")
    answers = []
    recorded = tmp_path / "x.gotrace"
    command = "follow 8 500" if targets.EMULATED else "follow 20 6000"  # among others few move
    _, *_, whole, found = told(
        program.pid, "--wakeups", "-o", str(recorded), while_=lambda: answers.append(program.ask(command))
    )
    (after,) = answers
    assert (whole["type"], found["type"], found["lost"]) == ("sched", "sched_wakeups", 0)
    moves, truth = found["moves"], after["Moved"]
    assert truth > (10 if targets.EMULATED else 100) and moves["count"] == pytest.approx(truth, rel=0.02, abs=20)
    assert moves["count"] == sum(each["count"] for each in moves["by"]) and moves["goroutines"] > 0
    assert {(each["from_p"], each["to_p"]) for each in moves["by"]} == {(0, 1), (1, 0)}
    yields = int(command.split()[1]) * int(command.split()[2])
    assert 1 <= moves["turns"]["p50"] <= moves["turns"]["p95"] <= moves["turns"]["max"] <= yields
    if version.startswith("1.19"):
        assert "inlined" in found["missing"]["single waits"] and not found["waited"]["count"]
        return
    # Each of the runtime's buckets has grown by as many as fell into it; up to Go 1.25 returns from system calls are 0.
    with Recording.open(str(recorded)) as recording:
        kinds = Kinds.of_probe(recording.header, "wakeup")
        waits = np.concatenate([kinds.of(chunk.events, "ran")["waited_ns"] for chunk in recording.chunks()])
    count = len(before["Counts"]) - 2
    grown = np.diff([before["Counts"], after["Counts"]], axis=0)[0][1 : count + 1]
    ours = np.bincount(np.searchsorted(bounds(count)[1:], waits, "right"), minlength=count)
    assert abs(ours - grown).sum() <= 4 and grown.sum() > yields / 20, (
        ours,
        grown,
    )  # one of the runtime's own may run after
    assert found["waited"]["count"] + found["at_once"] == len(waits) and found["waited"]["max_ns"] == waits.max()
    longest = [each["wait_ns"] for each in found["longest"]]
    assert longest == sorted(waits.tolist(), reverse=True)[:5]
    assert abs(found["waited"]["count"] - whole["latency"]["samples"]) <= 4


def explained(program, command, known=True):
    """The answer to a command, and the longest waits that are explained while it runs: nearly whole, if ``known``."""
    answers = []
    *_, found = told(program.pid, "--explain", "--top", "30", while_=lambda: answers.append(program.ask(command)))
    assert found["type"] == "sched_wakeups" and found["lost"] == 0 and found["missing"] == {}
    jsonschema.validate(found, schema_of_command("sched"))
    waits = [each for each in found["longest"] if "had_p" in each]
    assert all(each["wait_ns"] >= 1e6 for each in waits)
    for each in waits:
        assert sum(part["held_ns"] for part in each["had_p"]) + each["unknown_ns"] == each["wait_ns"]
        # but before the first turn that was seen, and of more turns than are kept
        assert not known or each["unknown_ns"] <= 0.05 * each["wait_ns"] + 20_000 or not 0 < len(each["had_p"]) <= 3, each
        assert all(part["throttled_ns"] <= part["no_cpu_ns"] <= part["held_ns"] for part in each["had_p"])
    return answers[0], waits


def overlap(one, other):
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


@pytest.mark.everywhere
@pytest.mark.alone
@pytest.mark.parametrize("version", (pytest.param("1.22.10", marks=pytest.mark.thorough), targets.NEWEST))
def test_who_had_the_p(version, start):
    """Three goroutines share a P, and note themselves when they ran."""
    if version not in targets.MATRIX:
        pytest.skip(f"there is no Go {version} here")
    program = Scheduled(start, 1, version)
    answer, waits = explained(program, "hog 3 3000")
    hogs = {goid for goid, *_ in answer["Ran"]}
    waits = [each for each in waits if each["goid"] in hogs]
    assert len(hogs) == 3 and len(waits) >= 2, waits  # one of them may have run at once
    wrong = []
    for each in waits:
        span = each["monotonic_ns"] - each["wait_ns"], each["monotonic_ns"]
        for goid in hogs:
            mine = [ran for who, *ran in answer["Ran"] if who == goid]
            # What held it up for less than 1 ms may have been a wait for a CPU, or something that only it can notice.
            gaps = [(one[1], other[0]) for one, other in zip(mine, mine[1:], strict=False) if other[0] - one[1] < 1e6]
            least = sum(overlap(span, ran) for ran in mine)
            most = least + sum(overlap(span, gap) for gap in gaps)
            parts = [part for part in each["had_p"] if part["goid"] == goid]
            ours = sum(part["held_ns"] - part["no_cpu_ns"] for part in parts)
            if not 0.98 * least - 1e6 <= ours <= 1.02 * most + 1e6:
                wrong.append((each, least, ours, most))
            assert {part["function"] for part in parts} <= {"main.each.func1"} and not any(part["taken"] for part in parts)
    # The hypervisor may hold the whole machine once, which is time that a goroutine has its P. Emulated, everything does.
    assert targets.EMULATED or len({span["monotonic_ns"] for span, *_ in wrong}) <= max(1, 0.1 * len(waits)), wrong


@pytest.mark.parametrize("version", ("1.22.10", targets.NEWEST))
def test_who_had_the_p_in_a_system_call(version, start):
    if version not in targets.MATRIX:
        pytest.skip(f"there is no Go {version} here")
    program = Scheduled(start, 1, version)
    _, waits = explained(program, "call 5 60")
    of_calls = [each for each in waits if any(part["taken"] for part in each["had_p"])]
    assert len(of_calls) >= 3, waits
    for each in of_calls:
        (called,) = (part for part in each["had_p"] if part["taken"])
        assert called["what"] == "goroutine" and called["function"] == "main.each.func1"
        assert called["held_ns"] < 30e6  # the call itself


@pytest.mark.alone  # who waits for others' CPUs does not use up its quota
def test_who_had_the_p_under_a_quota(start):
    program = Scheduled(start, 1)
    with cpu_quota(20_000, 100_000) as (join, _):
        join.write_text(str(program.pid))
        _, waits = explained(program, "hog 3 3000")
        program.kill()
    for each in waits[:2]:
        assert each["wait_ns"] > 80e6  # what the quota leaves of a period without a CPU
        no_cpu, throttled = (sum(part[name] for part in each["had_p"]) for name in ("no_cpu_ns", "throttled_ns"))
        assert no_cpu >= 0.6 * each["wait_ns"] and throttled >= 0.25 * each["wait_ns"], each


# Of 5 ms each, which no other thread can interrupt.
IN_BURSTS = """
import os, time
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
while True:
    end = time.monotonic() + 0.005
    while time.monotonic() < end:
        pass
    time.sleep(0.005)
"""


def test_a_locked_thread_has_to_be_woken(start):
    """Other processes keep the CPUs, and with them the thread that is to have the P."""
    program = Scheduled(start, 1)
    hogs = [subprocess.Popen([sys.executable, "-c", IN_BURSTS]) for _ in range(os.cpu_count())]
    try:
        _, waits = explained(program, "own 1500", known=False)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    of_locked = [part for each in waits for part in each["had_p"] if part["reason"] == "locked thread"]
    assert of_locked and all(part["what"] == "nobody" for part in of_locked), waits
    # but where it is who has to wake it that has no CPU
    assert any(part["no_cpu_ns"] >= 0.8 * part["held_ns"] and part["behind"] for part in of_locked), of_locked


@pytest.mark.everywhere
@pytest.mark.alone
def test_waits_of_threads(start):
    """With another process on each CPU: as many and as long as the kernel has counted, and behind that process."""
    program = Scheduled(start, 2)
    program.ask("spin 4")
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    try:
        with Kernel(lambda: turns_of(program.pid)) as kernel:
            *_, whole, found = told(program.pid, "--events", while_=lambda: time.sleep(3))
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    _, waited, times = kernel.during(found)
    waits = found["waits"]
    counted = waits["woken"]["count"] + waits["preempted"]["count"]
    assert whole["type"] == "sched" and found["type"] == "sched_events"
    assert counted == pytest.approx(times, rel=0.03, abs=5)
    # a wait that has not ended is in the kernel's sum only when it has; in the emulated machine it takes a while from the
    # decision to wake a thread until the kernel counts its wait
    assert waits["sum_ns"] == pytest.approx(waited, rel=0.1 if targets.EMULATED else 0.05, abs=20e6)
    assert waits["preempted"]["count"] > 20 and waits["throttled"] == 0
    held = {}
    for each in found["holders"]:
        held[each["name"], each["own"]] = held.get((each["name"], each["own"]), 0) + each["held_ns"]
    names = {Path(sys.executable).resolve().name[:15], Path(sys.executable).name[:15]}
    hog_ns = sum(ns for (name, own), ns in held.items() if name in names and not own)
    assert hog_ns >= 0.8 * sum(held.values()), found["holders"]
    longest = found["longest"]
    assert [each["wait_ns"] for each in longest] == sorted((each["wait_ns"] for each in longest), reverse=True)
    for each in longest:
        named = sum(one["held_ns"] for one in each["holders"])
        assert named + each["unknown_ns"] == pytest.approx(each["wait_ns"], abs=50_000)
    assert len(longest) == 5 and longest[0]["wait_ns"] == max(waits["woken"]["max_ns"], waits["preempted"]["max_ns"])
    jsonschema.validate(found, schema_of_command("sched"))


@pytest.mark.alone
def test_waits_that_a_quota_held(start):
    program = Scheduled(start, 2)
    program.ask("spin 4")
    program.begin("spin 4")
    with cpu_quota(50_000, 100_000) as (join, _):
        join.write_text(str(program.pid))
        with Kernel(lambda: turns_of(program.pid)) as kernel:
            *_, found = told(program.pid, "--events", while_=lambda: time.sleep(3))
        program.kill()
    _, waited, times = kernel.during(found)
    waits = found["waits"]
    assert waits["sum_ns"] == pytest.approx(waited, rel=0.1)
    assert waits["throttled_ns"] >= 0.8 * waits["sum_ns"] and waits["throttled"] <= times
    assert all(each["throttled"] for each in found["longest"][:3]), found["longest"]


def test_events_are_recorded(start, gotrace, tmp_path):
    program = Scheduled(start, 2)
    program.ask("spin 3")
    paths = [str(tmp_path / name) for name in ("x.gotrace", "x.html", "x.hgrm")]
    files = [word for path in paths for word in ("-o", path)]
    printed = gotrace("sched", "--pid", str(program.pid), "-d", "1s", "--events", "--top", "3", *files)
    assert printed.returncode == 0, printed.stderr
    assert gotrace("report", paths[0]).stdout == printed.stdout
    assert "runnable without a CPU" in printed.stdout and re.search("^0 events lost.$", printed.stdout, re.M)
    assert "Waits of threads for a CPU" in Path(paths[1]).read_text()
    assert re.search(r"#\[Tag: .*preempted\]", Path(paths[2]).read_text())
    exported = tmp_path / "exported.html"
    assert gotrace("export", paths[0], "-o", str(exported)).returncode == 0
    assert "Waits of threads for a CPU" in exported.read_text()
    refused = gotrace("sched", "--pid", str(program.pid), "--top", "3")
    assert refused.returncode == 2 and "--top has no effect without --events, --wakeups or --explain" in refused.stderr


def test_a_timeline(start, tmp_path, gotrace):
    """Every wait of a thread, and what a P took of others, as the recording has them."""
    program = Scheduled(start, 2)
    recorded, trace = tmp_path / "x.gotrace", tmp_path / "x.perfetto"
    program.ask("wait")
    _, *_, events, wakeups = told(
        program.pid, "--events", "--wakeups", "-o", str(recorded), while_=lambda: program.ask("spread 200 20")
    )
    done = gotrace("export", str(recorded), "-o", str(trace))
    assert done.returncode == 0, done.stderr
    timeline = groundtruth.Timeline(trace)
    waits = [each for track, slices in timeline.slices.items() if track.startswith("thread ") for each in slices]
    counted = events["waits"]["woken"]["count"] + events["waits"]["preempted"]["count"]
    assert len(waits) == counted > 10 and {depth for *_, depth, _ in waits} == {0}
    assert sum(end - begin for _, begin, end, _, _ in waits) == events["waits"]["sum_ns"]
    assert all(about["after"] and about["cpu"] >= 0 for *_, about in waits)
    marks = [name for track, found in timeline.instants.items() if track.startswith("P ") for name, _ in found]
    taken = [int(name.split()[1]) for name in marks if name.startswith("took ")]
    assert sum(taken) == events["steals"]["goroutines"] > 1000
    assert sum("had waited" in name for name in marks) == wakeups["waited"]["count"] > 10
    assert sum(" came from P " in name for name in marks) == wakeups["moves"]["count"]


def test_a_timeline_of_who_had_the_p(start, tmp_path, gotrace):
    """Its slices are the turns of the waits that are explained, each once."""
    program = Scheduled(start, 1)
    recorded, trace = tmp_path / "x.gotrace", tmp_path / "x.perfetto"
    *_, found = told(program.pid, "--explain", "-o", str(recorded), while_=lambda: program.ask("hog 3 1500"))
    assert gotrace("export", str(recorded), "-o", str(trace)).returncode == 0
    timeline = groundtruth.Timeline(trace)
    turns = sorted((begin, end, name) for name, begin, end, *_ in timeline.slices["P 0"])
    assert len(turns) > 2 and all(one[1] <= other[0] for one, other in zip(turns, turns[1:], strict=False))
    for each in found["longest"]:
        begin, end = each["monotonic_ns"] - each["wait_ns"], each["monotonic_ns"]
        parts = each.get("had_p", ())
        stopped_ns = sum(part["held_ns"] for part in parts if part["what"] == "stop")  # drawn as turns
        for part in parts:
            if part["what"] == "goroutine":
                drawn = [turn[:2] for turn in turns if turn[2] == f"goroutine {part['goid']}"]
                drawn_ns = sum(overlap((begin, end), turn) for turn in drawn)
                assert drawn_ns - stopped_ns - 100_000 < part["held_ns"] < drawn_ns + 100_000
