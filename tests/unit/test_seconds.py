"""What a service does from second to second: the class of a run, and what is said of it."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from gotrace.lab import seconds

RANDOM = np.random.default_rng(1)


def values(count: int = 40, **changed: list[float]) -> dict[str, list[float]]:
    """Noise of 2 %, but for what is ``changed``."""
    flat = {name: (100 * (1 + 0.02 * RANDOM.standard_normal(count))).tolist() for name in seconds.NAMES}
    return {**flat, **changed}


def step(before: float, after: float, at: int = 10, count: int = 40) -> list[float]:
    steps = np.where(np.arange(count) < at, before, after)
    return (steps * (1 + 0.02 * RANDOM.standard_normal(count))).tolist()


def test_nothing_changes() -> None:
    found = seconds.course(values())
    assert (found["kind"], found["steady_from"], seconds.note(found)) == ("flat", 0, "")


def test_what_is_too_short_has_no_class() -> None:
    found = seconds.course(values(14))
    assert (found["kind"], found["steady_from"], seconds.note(found)) == (None, None, "")
    assert found["cpu"]["kind"] is None and len(found["cpu"]["values"]) == 14


@pytest.mark.parametrize(
    ("model", "name", "before", "after", "kind"),
    [
        ("closed", "allocated", 50, 100, "warmed up"),  # it answers more often
        ("closed", "allocated", 100, 50, "slowing down"),
        ("open", "allocated", 100, 50, "warmed up"),  # an answer takes less
        ("open", "cpu", 50, 100, "slowing down"),
        ("closed", "cpu", 50, 100, "warmed up"),
        ("open", "live_heap", 50, 100, "warmed up"),
    ],
)
def test_a_step(model: str, name: str, before: float, after: float, kind: str) -> None:
    found = seconds.course(values(**{name: step(before, after)}), model)
    assert (found["kind"], found["steady_from"], found[name]["kind"]) == (kind, 10, kind)  # type: ignore[literal-required]
    said = seconds.note(found)
    assert f"from second 10 on ({seconds.NAMES[name]})" in said and ("--preload" in said) == (kind == "warmed up")


def test_a_late_step_leaves_no_steady_state() -> None:
    found = seconds.course(values(gc_cycles=step(10, 100, at=35)))
    assert (found["kind"], found["steady_from"]) == ("no steady state", None)
    assert seconds.note(found) == "no steady state during the measurement: GC cycles changed in the last 15 s"


class OfSeconds(seconds.Seconds):
    """Whose process does what a list says."""

    def __init__(self, times_s: list[float]) -> None:
        self._clock, self._pid, self._times_s = 0, os.getpid(), times_s
        self.begin()

    def _read(self) -> tuple[int, int, int, int, int]:
        at_s = self._times_s.pop(0)
        return round(at_s * 1e9), round(at_s * 5e8), round(at_s * 1000), round(at_s * 2), 4096


def test_seconds_that_come_late_count_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.5]
    monkeypatch.setattr(time, "monotonic_ns", lambda: round(now[0] * 1e9))
    found = OfSeconds([0.0, 1.02, 4.04, 5.0])
    assert not found.look()
    for now[0] in (1.02, 4.04):
        assert found.look() and not found.look()
    assert {name: len(each) for name, each in found.values.items()} == dict.fromkeys(seconds.NAMES, 4)
    now[0] = 5.0
    assert found.look()
    assert found.values["cpu"] == pytest.approx([0.5] * 5) and found.values["allocated"] == pytest.approx(
        [1000] * 5, rel=0.01
    )
    assert found.cycles == 10 and found.why_not_steady() == "fewer than 20 seconds"
    found.values = {name: each * 5 for name, each in found.values.items()}
    assert found.why_not_steady() == ""
    found.cycles = 4
    assert found.why_not_steady() == "fewer than 5 GC cycles"
