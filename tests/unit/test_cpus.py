"""What sysfs says of the CPUs that a process may use, and what /proc has of its threads."""

from __future__ import annotations

import os
import threading
import time

import pytest

from conftest import until
from gotrace.errors import TargetError
from gotrace.kernel.cpus import ThreadCpus, ThreadTurns, cpu_times, cpus_for, last_cpu


def machine(root, cpus):
    """``cpus``: of each the siblings and its capacity; "" is not there."""
    for cpu, (siblings, capacity) in cpus.items():
        folder = root / f"sys/devices/system/cpu/cpu{cpu}"
        (folder / "topology").mkdir(parents=True)
        if siblings:
            (folder / "topology/thread_siblings_list").write_text(f"{siblings}\n")
        if capacity:
            (folder / "cpu_capacity").write_text(f"{capacity}\n")
    return str(root)


@pytest.mark.parametrize(
    ("cpus", "cores", "capacities"),
    [
        ({0: ("0,4", ""), 4: ("0,4", ""), 1: ("1,5", "")}, 2, ()),
        ({0: ("0-1", "1024"), 1: ("0-1", "1024")}, 1, (1024,)),
        ({0: ("0", "446"), 1: ("1", "1024"), 2: ("2", "446")}, 3, (446, 1024)),
        ({0: ("", ""), 1: ("", "")}, 2, ()),
    ],
)
def test_cores_and_their_kinds(tmp_path, monkeypatch, cpus, cores, capacities):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus))
    found = cpus_for(7, machine(tmp_path, cpus))
    assert (found.allowed, found.cores, found.capacities) == (tuple(sorted(cpus)), cores, capacities)


def test_a_process_that_has_exited():
    with pytest.raises(TargetError, match="has exited"):
        cpus_for(1 << 22)
    with pytest.raises(TargetError, match="has exited"):
        ThreadTurns(1 << 22)


def test_what_threads_got_is_the_kernels():
    """Of one that ends meanwhile, too, up to where it was seen last."""
    turns = ThreadTurns(os.getpid())
    before = time.process_time_ns()
    go_on, end = threading.Event(), threading.Event()

    def work():
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass
        go_on.set()
        end.wait()

    worker = threading.Thread(target=work)
    worker.start()
    go_on.wait()
    (ran, _, _), threads = turns.total()
    end.set()
    worker.join()
    until(lambda: len(os.listdir("/proc/self/task")) < threads)
    (later, _, times), fewer = turns.total()
    used = time.process_time_ns() - before
    assert 0.19e9 <= ran <= later <= used + 0.02e9 and later >= used - 0.02e9
    assert fewer == threads - 1 and times > 0


def test_where_threads_are():
    cpus = ThreadCpus(os.getpid())
    allowed = os.sched_getaffinity(0)
    try:
        for cpu in sorted(allowed)[:2]:
            os.sched_setaffinity(0, {cpu})
            stats = {tid: cpus.stat(tid) for tid in (threading.get_native_id(), 1 << 22)}
            assert {tid: last_cpu(stat) for tid, stat in stats.items() if stat} == {threading.get_native_id(): cpu}
    finally:
        os.sched_setaffinity(0, allowed)
        cpus.close()


def test_what_cpus_did_is_the_clock():
    """Busy, idle and stolen are all there is."""
    allowed = os.sched_getaffinity(0)
    before, begin = cpu_times(allowed), time.monotonic_ns()
    time.sleep(1)
    passed, more = time.monotonic_ns() - begin, sum(cpu_times(allowed)) - sum(before)
    assert more == pytest.approx(len(allowed) * passed, rel=0.1)
