"""What `/gate` of the agent takes, and what of processes it compares."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gotrace.agent import windows
from gotrace.agent.gate import Asked, answer, judged
from gotrace.agent.requests import Request
from gotrace.agent.windows import KEPT, Windows

QUERY = "baseline=pid=1*&candidate=pid=2*"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "baseline is missing"),
        ("baseline", "the query cannot be parsed"),
        ("baseline=pid=1", "candidate is missing"),
        (f"{QUERY}&colour=red", "there is no parameter 'colour'"),
        (f"{QUERY}&baseline=colour=red", "expected KEY=GLOB"),
        (f"{QUERY}&metric=stw.total.p98", "an agent does not compare stw.total.p98"),
        (f"{QUERY}&metric=latency.p99", "an agent does not compare latency.p99"),
        (f"{QUERY}&margin=0", "margin='0' is not a percentage"),
        (f"{QUERY}&margin=nan", "margin='nan' is not a percentage"),
        (f"{QUERY}&margin=1&margin=2", "margin is given more than once"),
        (f"{QUERY}&looks=101", "looks='101' is not a number"),
        (f"{QUERY}&looks=" + "9" * 250, "is not a number"),
        (f"{QUERY}&baseline=name=" + "x" * 300, "baseline has more than 256 characters"),
        (f"{QUERY}" + "&metric=stw.share" * 20, "the query cannot be parsed"),
        (f"{QUERY}&baseline=name=%ff", "the query cannot be parsed"),
        ("baseline=%1b[31m&candidate=pid=2", "\\x1b[31m"),
    ],
)
def test_what_cannot_be_meant_is_one_line(query: str, said: str) -> None:
    found = answer([], Request("GET", "/gate", query, {}, True))
    assert found.status == 400 and isinstance(found.body, bytes)
    text = found.body.decode()
    assert said in text and text.endswith("\n") and text.count("\n") == 1 and text[:-1].isprintable()


class Clock:
    """What `windows` takes for the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(windows, "time", SimpleNamespace(monotonic=lambda: self.now))


def processes(clock: Clock, pids: list[int], paused: dict[int, float], many: int, lost: int = 0) -> list[Any]:
    """Observed for ``many`` windows, each second, with pauses of ``paused`` ns on average for a pid: seeded."""
    rng = np.random.default_rng(5)
    found = [
        SimpleNamespace(
            process=SimpleNamespace(pid=pid, name="x", comm="x"), attached_at=0, course=SimpleNamespace(windows=Windows())
        )
        for pid in pids
    ]
    for _ in range(round(many * windows.WINDOW_S)):
        for each in found:
            values = (paused[each.process.pid] * rng.uniform(0.9, 1.1, 4)).astype(np.int64)
            each.course.windows.add(1.0, values, 2, 2_000_000, lost)
        clock.now += 1
    return found


def test_by_process_and_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pids = [10, 11, 12, 13, 14, 20, 21, 22, 23, 24]
    worse = {pid: 1e5 if pid < 20 else 1.3e5 for pid in pids}
    seen = processes(clock, pids, worse, 10)
    found = judged(seen, Asked.of(QUERY))
    assert {row.metric: row.verdict for row in found.rows} == {
        "stw.total.p99": "fail",
        "stw.share": "fail",
        "gc.cycles_per_s": "pass",
    }
    share = found.rows[1]
    assert share.measured == pytest.approx(1.3, rel=0.02) and share.a == pytest.approx(4e5 / 1e9, rel=0.02)
    assert found.rows[2].a == 2 and found.rows[0].a == pytest.approx(1.1e5, rel=0.03)
    assert found.notes == ["Compared by process, 5 with 5, over the last 90 s."]

    found = judged(seen, Asked.of("baseline=pid=10&candidate=pid=20"))
    assert [(row.metric, row.verdict) for row in found.rows] == [
        ("stw.total.p99", "inconclusive"),
        ("stw.share", "fail"),
        ("gc.cycles_per_s", "inconclusive"),
    ]
    assert "nothing passes" in found.notes[0]

    same = dict.fromkeys(pids, 1e5)
    assert judged(processes(clock, pids, same, 10), Asked.of(QUERY)).verdict == "pass"
    found = judged(processes(clock, pids, same, 10, lost=1), Asked.of(QUERY))
    assert (found.verdict, {row.reason for row in found.rows}) == ("inconclusive", {"events were lost"})
    found = judged(processes(clock, pids, same, 6), Asked.of(QUERY))
    assert found.problem is not None and found.verdict == "inconclusive" and found.ended() == 3
    assert found.sentence == "inconclusive: no process of the baseline has been traced for 60 s"


def test_a_window_is_of_the_last_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are of thirty windows, single pauses of the last 150 to 300 seconds, whenever it is looked at."""
    clock = Clock(monkeypatch)
    seen = Windows()
    for second in range(2000):
        seen.add(1.0, np.array([1 + second]), 1, 0, 0)
        least = seen.pauses.min_ns - 1
        assert seen.all_pauses.count == second + 1
        assert second < 150 or 149 <= second - least < 300
        clock.now += 1
    assert [row.cycles for row in seen.rows] == [10] * (KEPT - 1)  # the one that has just begun is empty
    clock.now += 1000
    seen.add(1.0, np.zeros(0, np.int64), 0, 0, 0)
    assert (seen.pauses.count, seen.all_pauses.count) == (0, 2000) and len(seen.rows) == 1
