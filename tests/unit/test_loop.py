"""The one loop that decides when a run ends, and why."""

from __future__ import annotations

import pytest

from gotrace.errors import GotraceError
from gotrace.run.target import LeftBehind, Loop, StopRequest


class Failing(Loop):
    """Of which nothing can be heard any more after some looks."""

    def __init__(self, looks: int, duration: int | None = None) -> None:
        super().__init__(StopRequest(), lambda _: None, duration)
        self._looks = looks
        self.release()

    def wait(self, seconds: float) -> bool:
        self._looks -= 1
        if not self._looks:
            raise GotraceError("it was killed", "start it again")
        return False


def test_a_failure_comes_after_what_was_there_before_it() -> None:
    """The reader gets its turn with the reason, and then the error."""
    polls = Failing(3).polls(10**9, lambda: False)
    assert [next(polls)[1] for _ in range(3)] == ["", "", "it was killed"]
    with pytest.raises(GotraceError, match="it was killed"):
        next(polls)


def test_the_end_of_a_duration() -> None:
    loop = Failing(1000, duration=1)
    assert [why for _, why in loop.polls(10**9, lambda: False)] == ["duration"] and loop.ended == "duration"


def test_who_waits_for_what_a_command_left_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeftBehind, "PATIENCE_S", 0.5)
    monkeypatch.setattr(LeftBehind, "_UNTOLD_S", 0.05)
    said: list[str] = []
    assert LeftBehind(lambda: True, "make", said.append).is_over()
    left = LeftBehind(lambda: False, "make", said.append)
    assert not left.is_over(0.1) and said == []  # it may be over soon
    looks = 0
    while not left.is_over(0.01):
        looks += 1
    assert looks > 0 and len(said) == 1
    assert said[0].startswith("make has exited, but left processes running: waiting up to 0.5 s ")
