"""Whose call it is, where numbers of threads and processes are given again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gotrace.analysis.gpumem.owners import Owners, Program
from gotrace.api import replaying


def of(owners, *calls):
    tids, times = zip(*calls, strict=True)
    return owners.of(np.array(tids, np.uint32), np.array(times, np.int64)).tolist()


def test_a_family():
    """A fork without exec, an exec, and a number that is given to another."""
    owners = Owners([Program(10, 0)])
    owners.thread(5, 10, 10)
    owners.thread(6, 11, 10)  # another thread of the target
    owners.forked(20, 30, 10)
    owners.thread(22, 30, 30)
    owners.executed(40, 30)
    owners.thread(41, 31, 30)
    owners.forked(60, 11, 30)  # the target's thread is gone, and a process has its number
    owners.thread(61, 11, 11)
    owners.thread(70, 99, 77)  # of a process that nobody was seen to fork
    assert owners.programs == [
        Program(10, 0),
        Program(30, 20, 0),
        Program(30, 40),
        Program(11, 60, 2),
        Program(77, 0),
    ]
    calls = (10, 5), (11, 7), (30, 22), (30, 39), (30, 40), (31, 50), (11, 59), (11, 61), (99, 70)
    assert of(owners, *calls) == [0, 0, 1, 1, 2, 2, 0, 3, 4]
    assert of(owners, (4242, 1)) == [0]  # never reported, as in recordings of the target alone
    assert owners.of(np.zeros(0, np.uint32), np.zeros(0, np.int64)).tolist() == []


def test_a_recording_of_the_target_alone():
    """Made before others were followed: it says no process of a thread, and has names of functions of its own."""
    path = Path(__file__).parents[1] / "testdata" / "recordings" / "gpumem-alone.gotrace"
    (result,) = (each for each in replaying(str(path)) if each["type"] == "gpumem")
    assert (result["pid"], result["processes"], result["others"], result["running"]) == (2448, 1, [], 0)
    assert sum(each["count"] for each in result["calls"].values()) == 16 and result["nested"] == 15
    assert result["peak_live"] == 150 << 20
    assert [each["stack"][0] for each in result["failed"] if each["why"] == "merge_failure"] == ["asks_for_the_sum"]
