"""The ring reader under flood: nothing lost, nothing torn, nothing twice; and every loss counted."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gotrace.kernel import bpf
from gotrace.kernel.child import Child
from gotrace.kernel.compiler import compile_object
from gotrace.kernel.ring import RingReader

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from ring_cpu_per_event import FLOOD, flood_ns, go, sized, source, start_flood  # noqa: E402

pytestmark = [pytest.mark.bpf, pytest.mark.everywhere]


def flooded(events, ring_bytes, pause_s, threads=2):
    """(the numbers received in order, how many were lost) after a flood from ``threads`` threads."""
    obj = sized(Child(compile_object, source(), FLOOD.cflags()).result(), ring_bytes)
    flood = start_flood(events, threads)
    fds = []
    with bpf.load(obj) as loaded, bpf.closing_all(fds):
        loaded.maps["config"].write_words([flood.pid])
        fds.append(bpf.attach_tracepoint(next(iter(loaded.programs.values())), "syscalls", "sys_enter_getppid"))
        ring = RingReader(loaded.maps["events"].fd, ring_bytes)
        go(flood)
        parts = []
        while flood.poll() is None:
            parts.append(ring.read())
            time.sleep(pause_s)
        parts.append(ring.read())
        assert len(ring.read()) == 0
        lost = loaded.maps["lost"].words()[0]
    assert flood_ns(flood) > 0
    records = np.concatenate(parts)
    number = records["a"]
    # every field is a function of the number: a torn record would not fit
    assert np.array_equal(records["b"], number * np.uint64(3))
    assert np.array_equal(records["c"], ~number)
    assert np.array_equal(records["d"], number ^ np.uint64(0x5555))
    assert np.all(records["e"] == 7) and np.array_equal(records["time_ns"], number)
    assert len(np.unique(number)) == len(number) == ring.received
    return number, lost


def test_a_flood_of_events_from_two_cpus(load):
    for _ in range(load.floods):
        # The ring wraps twice, and holds a third of a second of the flood: two flooding threads leave the reader no CPU.
        number, lost = flooded(load.events, load.ring_bytes, 0.01)
        assert lost == 0
        assert int(number.sum()) == load.events * (load.events - 1) // 2


@pytest.mark.thorough
def test_a_slow_reader_loses_and_counts():
    number, lost = flooded(1_000_000, 1 << 16, 0.05)
    assert lost > 0
    assert len(number) + lost == 1_000_000
