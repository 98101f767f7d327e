"""`gotrace gc --explain` names what was planted in 95 % of the pauses it lengthened, and nothing in a clean run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

import targets
from conftest import Others, cpu_quota

pytestmark = [pytest.mark.bpf, pytest.mark.alone]

MS = 1_000_000
SECONDS = 12 if targets.EMULATED else 3


class Planted:
    """A traced run of the program `planted`: what was explained, and when the cause was at work."""

    def __init__(self, records, spans, others):
        self.records = records
        self.others = others
        self.explained = [record for record in records if record["type"] == "explained"]
        self.spans = spans

    def lengthened(self, least_ns=MS):
        """The pauses of some length that consist of the planted cause for the most part, by the planter's clocks.

        Not those which something else lengthened more, that happened to coincide: with as many busy threads as CPUs
        there is always some waiting. When the planter itself was without a CPU is not known, only for how long: all
        of that may have been in the pause.
        """
        found = []
        for record in self.explained:
            begin, end = record["monotonic_ns"], record["monotonic_ns"] + record["length_ns"]
            planted = sum(max(0, min(end, last) - max(begin, first) - max(0, idle)) for first, last, idle in self.spans)
            if record["length_ns"] >= least_ns and planted > record["length_ns"] / 2:
                found.append(record)
        return found

    def named(self, cause, least, least_ns=MS):
        """Assert that at least 95 % of ``least`` or more lengthened pauses are said to have waited for ``cause``.

        Of the pauses that waited for a CPU, so many more may be among them as other processes had of the CPUs.
        """
        found = self.lengthened(least_ns)
        causes = Counter(record["cause"] for record in found)
        assert len(found) >= least, causes
        by_others = min(causes["waiting for a CPU"], self.others * len(found)) if cause != "waiting for a CPU" else 0
        other = [record["sentence"] for record in found if record["cause"] != cause]
        assert causes[cause] + by_others >= 0.95 * len(found), (causes, self.others, other)
        return [record for record in found if record["cause"] == cause]


@pytest.fixture
def planted(start, trace, request):
    """planted(mode, *arguments, version=, env=, cause=) -> Planted; ``cause(target, end)`` plants it from outside."""

    def run(mode, *arguments, version=targets.NEWEST, env=None, cause=None):
        pace = {"GAP_US": "3000"} if targets.EMULATED else {}
        Others.wait_quiet()
        others = Others()
        target = start(targets.build("planted", version), mode, str(SECONDS), *arguments, env={**pace, **(env or {})})
        time.sleep(0.3)
        tracer = trace("--pid", str(target.pid), "--explain", "--top", "1000", "--min-pause", "1ms")
        watchdog = threading.Timer(SECONDS + 60, target.process.kill)
        watchdog.start()
        request.addfinalizer(watchdog.cancel)
        target.go()
        spans = cause(target, time.monotonic() + SECONDS - 0.2) if cause else []
        truth = target.truth()
        assert target.process.wait(30) == 0
        assert tracer.finish() == 0
        summary = tracer.records[-1]
        assert summary["events"]["lost"] == 0
        return Planted(tracer.records, spans or truth["spans"] or [], others.share())

    return run


def now_ns():
    return time.monotonic_ns()


def test_code_that_cannot_be_preempted(planted):
    found = planted("memmove").named("not preemptible", 20)
    assert all("runtime.memmove" in record["sentence"] for record in found)


@pytest.mark.parametrize(
    "version",
    [
        targets.MATRIX[0],
        pytest.param("1.22.10", marks=[pytest.mark.everywhere, pytest.mark.thorough]),
        pytest.param(targets.NEWEST, marks=pytest.mark.everywhere),
    ],
)
def test_clearing_memory(planted, version):
    found = planted("memclr", version=version).named("not preemptible", 20)
    assert all("runtime.memclrNoHeapPointers" in record["sentence"] for record in found)


def test_a_loop_without_preemption_points(planted):
    found = planted("loop", env={"GODEBUG": "asyncpreemptoff=1"}).named("not preemptible", 20)
    assert all("asyncpreemptoff" in record["sentence"] for record in found)


def test_work_inside_the_kernel(planted):
    found = planted("kernel").named("in the kernel", 10)
    assert all("main.advise" in record["sentence"] for record in found)


def test_page_faults(planted):
    # Clearing takes 35 ms. Pauses below a slice of the scheduler (4 ms) met its end while they waited for a CPU.
    found = planted("fault").named("page fault", 10, 5 * MS)
    assert all("faults)" in record["sentence"] for record in found)


def test_cpu_quota(planted):
    with cpu_quota(12_000, 20_000) as (join, stat):
        begun = []

        def plant(target, end):
            join.write_text(str(target.pid))
            begun.append(now_ns())
            time.sleep(max(0, end - time.monotonic()))
            return [(begun[0], now_ns(), 0)]

        run = planted("spin", cause=plant)
        # Two threads use up the quota in 6 to 12 ms, and wait for what is left of the period then.
        found = run.named("CPU quota", 10, 6 * MS)
        text = stat.read_text().split()
        # the kernel's own account of it
        assert int(text[text.index("nr_throttled") + 1]) >= len(found) / 2
        assert all("CPU quota" in record["sentence"] for record in found)


def test_stopped_by_a_signal(planted):
    def plant(target, end):
        spans = []
        while time.monotonic() < end:
            target.process.send_signal(19)
            begin = now_ns()
            time.sleep(0.02)
            target.process.send_signal(18)
            spans.append((begin, now_ns(), 0))
            time.sleep(0.01)
        return spans

    # One stop comes right after the other, so the first to wait for a stopped thread waits for nearly all of the 20 ms.
    planted("spin", cause=plant).named("stopped by a signal", 10, 12 * MS)


# In a process of its own: only the thread that attached may go on with the one it holds.
PTRACE = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000
pid, end = int(sys.argv[1]), float(sys.argv[2])
busiest = lambda tid: sum(map(int, open(f"/proc/{pid}/task/{tid}/stat").read().rsplit(")", 1)[1].split()[11:13]))
while time.monotonic() < end:
    tids = sorted(map(int, os.listdir(f"/proc/{pid}/task")), key=busiest)
    tid = tids[-1]
    if libc.ptrace(SEIZE, tid, None, None):
        sys.exit(1)
    libc.ptrace(INTERRUPT, tid, None, None)
    _, status = os.waitpid(tid, WALL)
    begin = time.monotonic_ns()
    time.sleep(0.015)
    print(begin, time.monotonic_ns(), flush=True)
    # A signal that it stopped at must reach it, or the runtime waits for ever for one that was lost.
    libc.ptrace(DETACH, tid, None, os.WSTOPSIG(status) if status >> 16 == 0 and os.WSTOPSIG(status) != 5 else 0)
    time.sleep(0.03)
"""


def test_held_by_a_debugger(planted):
    def plant(target, end):
        command = [sys.executable, "-c", PTRACE, str(target.pid), str(end)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return [(*map(int, line.split()), 0) for line in done.stdout.splitlines()]

    # Nearly all of the 15 ms, likewise: a shorter pause did not need the thread that was held.
    planted("spin", cause=plant).named("traced", 10, 10 * MS)


HOG = "import os, sys\nos.nice(-15)\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass\n"


@pytest.mark.parametrize("mode", ["spin", "locked"])
def test_another_process_on_the_same_cpu(planted, mode):
    hogs = []

    def plant(target, end):
        cpu = max(os.sched_getaffinity(0))
        # Both Ps on one CPU, with a competitor of higher priority there.
        for tid in os.listdir(f"/proc/{target.pid}/task"):
            os.sched_setaffinity(int(tid), {cpu})
        begin = now_ns()
        hogs.append(subprocess.Popen([sys.executable, "-c", HOG, str(cpu)]))
        time.sleep(max(0, end - time.monotonic()))
        hogs[0].kill()
        hogs[0].wait()
        return [(begin + 200 * MS, now_ns(), 0)]

    found = planted(mode, cause=plant).named("waiting for a CPU", 10)
    # what there is besides is another thread of the program on the same CPU
    by_hog = [record for record in found if f"(pid {hogs[0].pid})" in record["sentence"]]
    assert len(by_hog) >= 0.8 * len(found), [record["sentence"] for record in found]


def test_many_ps(planted):
    run = planted("spin", env={"GOMAXPROCS": "32"}, cause=lambda target, end: [(0, 1 << 62, 0)])
    found = run.named("waiting for a CPU", 10)
    assert any("other threads of the program" in record["sentence"] for record in found)


OUTSIDE = ("CPU quota", "stopped by a signal", "traced", "frozen", "page fault", "in the kernel", "not preemptible")


def test_a_clean_run_names_nothing(planted):
    for _ in range(3):  # the machine itself may have had something to do, and then it is rightly named
        run = planted("spin")
        assert len(run.explained) > 100
        named = [record for record in run.explained if record["length_ns"] >= MS and record["cause"] in OUTSIDE]
        if not named:
            break
    assert named == []


def test_classes_add_up_to_the_pause(planted):
    run = planted("memclr")
    of = {record["monotonic_ns"]: record for record in run.records if record["type"] == "stw"}
    for record in run.explained:
        if record["total_ns"] < MS:
            continue
        assert sum(sum(part.values()) for part in record["parts"].values()) == record["length_ns"]
        pause = of[record["monotonic_ns"]]
        assert record["length_ns"] == pause["total_ns"] + pause["restart_lag_ns"]
        assert sum(record["parts"]["stopping"].values()) == pause["stopping_ns"]
        assert sum(record["parts"]["restart"].values()) == max(0, pause["restart_lag_ns"])
