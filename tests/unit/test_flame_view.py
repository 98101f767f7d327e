"""What a flame graph takes from a recording, and what it says that it left out."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gotrace.analysis.flame import folded
from gotrace.analysis.samples import is_idle
from gotrace.analysis.stacks import USER, Frame
from gotrace.errors import GotraceError
from gotrace.kernel.ring import wire_dtype
from gotrace.recording import perf_import
from gotrace.recording.perf_script import PerfScript
from gotrace.recording.reader import Recording
from gotrace.recording.writer import Writer
from gotrace.run.export import write
from gotrace.views.flame import Answer, Question, answer

RECORDINGS = Path(__file__).parents[1] / "testdata" / "recordings"


def answered(path: Path, question: Question) -> Answer:
    return answer(lambda *, again=False: Recording.open(str(path)), question)


def stacks(told: Answer) -> dict[str, int]:
    profile = told.profile
    return {folded(profile.stack(number)): weight for number, weight in enumerate(profile.weights.tolist())}


def test_what_idle_threads_wait_is_left_out_and_told() -> None:
    path = RECORDINGS / "all.gotrace"
    with Recording.open(str(path)) as recording:
        columns = recording.header["probes"]["offcpu"]["kinds"]["off_cpu_stack"]
        begin = "abcde"[columns["columns"].index("off_ns")]
        parts = [chunk.events[chunk.events["kind"] == columns["number"]] for chunk in recording.chunks()]
    total = sum(int(row["time_ns"]) - int(row[begin]) for part in parts for row in part)
    with_idle, without = (answered(path, Question("off-cpu", idle=idle)) for idle in (True, False))
    assert with_idle.profile.weights.sum() == total
    left_out = {stack: weight for stack, weight in stacks(with_idle).items() if stack not in stacks(without)}
    assert sum(left_out.values()) + without.profile.weights.sum() == total
    (note,) = (note for note in without.notes if "left out" in note)
    said = re.match(r"([0-9.]+) s of idle threads left out \(--idle shows them\)", note)
    assert said is not None and float(said[1]) == pytest.approx(sum(left_out.values()) / 1e9, abs=0.005)
    assert not any("left out" in note for note in with_idle.notes)
    # by the folded text alone: nothing that was for a goroutine
    assert not any("runtime.goexit" in stack for stack in left_out)
    for name in ("runtime.stopm;", "runtime.netpoll;", "runtime.sysmon;runtime.usleep;"):
        assert any(name in stack for stack in left_out) and not any(name in stack for stack in stacks(without)), name


@pytest.mark.parametrize(("mode", "kind"), [("on-cpu", "sample"), ("off-cpu", "off_cpu_stack")])
def test_a_time_and_a_thread_of_it(mode: str, kind: str) -> None:
    """By the recording's own events, one by one."""
    path, whole = RECORDINGS / "all.gotrace", Question(mode, idle=True)
    with Recording.open(str(path)) as recording:
        begin = int(recording.header["clock"]["begin_ns"])
        (kinds,) = (each["kinds"][kind] for each in recording.header["probes"].values() if kind in each["kinds"])
        name = dict(zip(kinds["columns"], "abcdefgh", strict=False))
        events = [row for chunk in recording.chunks() for row in chunk.events if row["kind"] == kinds["number"]]

    def weight(row: Any, first: int, last: int) -> int:
        at = int(row["time_ns"])
        if kind == "sample":
            return int(row[name["period_ns"]]) if first <= at < last else 0
        return max(0, min(at, last) - max(int(row[name["off_ns"]]), first))

    edges = [0, 300_000_000, 700_000_000, 1 << 60]
    for from_ns, to_ns in itertools.pairwise(edges):
        told = answered(path, replace(whole, from_ns=from_ns, to_ns=to_ns))
        first = begin + from_ns if from_ns else 0
        assert told.profile.weights.sum() == sum(weight(row, first, begin + to_ns) for row in events) > 0
    assert (
        answered(path, replace(whole, to_ns=edges[-1])).profile.weights.sum() == answered(path, whole).profile.weights.sum()
    )
    by_thread = Counter[int]()
    for row in events:
        by_thread[int(row["tid"])] += weight(row, 0, 1 << 62)
    for tid, expected in by_thread.items():
        assert answered(path, replace(whole, tid=tid)).profile.weights.sum() == expected


@pytest.mark.parametrize(
    ("names", "idle"),
    [
        ("runtime.mcall runtime.park_m runtime.schedule runtime.findRunnable runtime.stopm runtime.notesleep", True),
        ("runtime.mcall runtime.schedule runtime.stoplockedm runtime.mPark runtime.notesleep runtime.futex", True),
        ("runtime.mcall runtime.schedule runtime.findRunnable runtime.netpoll runtime.epollwait", True),
        ("runtime.mstart runtime.mstart1 runtime.sysmon runtime.usleep", True),
        # a lock that somebody holds; a CPU that somebody else has
        ("runtime.mcall runtime.schedule runtime.findRunnable runtime.stopm runtime.lock2 runtime.futexsleep", False),
        ("runtime.mcall runtime.schedule runtime.findRunnable", False),
        # on behalf of a goroutine
        ("runtime.goexit runtime.gcStart runtime.stopTheWorldWithSema runtime.notetsleep", False),
        ("runtime.goexit main.main internal/poll.(*FD).Read syscall.read", False),
    ],
)
def test_idle_threads(names: str, idle: bool) -> None:
    assert is_idle([Frame(name, "", 0, "", USER) for name in reversed(names.split())]) is idle


def test_a_window_that_the_release_does_not_record() -> None:
    """Up to Go 1.21 nothing says when the world had stopped: to sample more often would not help."""

    @contextlib.contextmanager
    def older(path: Path, *, again: bool = False) -> Iterator[Recording]:
        with Recording.open(str(path)) as recording:
            recording.header["target"]["go_version"] = "go1.21.13"
            recording.header["probes"]["gc"]["facts"]["has_worldstop"] = False
            yield recording

    opener = functools.partial(older, RECORDINGS / "all.gotrace")
    for mode in ("on-cpu", "off-cpu"):
        with pytest.raises(GotraceError, match=r"go1\.21\.13 does not record when the world had stopped"):
            answer(opener, Question(mode, "stopping"))


def imported(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.gotrace"
    script = PerfScript(io.BytesIO(text.encode()))
    with open(path, "wb", buffering=0) as file:
        writer = Writer(file, perf_import.header(script, 0), wire_dtype())
        importer = perf_import.Importer(writer, wire_dtype(), lambda *_: True, script.partial)
        importer.add(list(script))
        writer.close(importer.end(script, "end of the input"))
    return path


def sample(event: str, tid: int = 1, at_ms: int = 1, text: str = "", frames: str = "main.f") -> str:
    chain = "".join(f"\t            4100 {name} (/srv/app)\n" for name in frames.split())
    return f"srv  7/{tid} [000]  {at_ms / 1000:.6f}: 1 {event}: {text}\n{chain}\n"


def switch(left: int, came: int, at_ms: int, frames: str) -> str:
    text = f"prev_comm=a prev_pid={left} prev_prio=120 prev_state=S ==> next_comm=b next_pid={came} next_prio=120"
    return sample("sched:sched_switch", left, at_ms, text, frames)


@pytest.mark.parametrize("clock", ["cpu-clock", "cycles:ppp", "cpu_core/cycles/P", "task-clock:u"])
def test_time_on_the_cpu_comes_first_and_the_rest_is_told(clock: str, tmp_path: Path) -> None:
    text = sample(clock) * 2 + sample("sched:sched_switch") * 5 + sample("kmem:kmalloc") * 3
    told = answered(imported(tmp_path, text), Question())
    assert stacks(told) == {"main.f": 2} and told.title == "on-CPU"
    left_out = "left out: samples of sched:sched_switch (5), kmem:kmalloc (3) (--event chooses)"
    assert told.notes == [f"event {clock}", left_out]
    chosen = answered(imported(tmp_path, text), Question(event="kmem:kmalloc"))
    assert stacks(chosen) == {"main.f": 3} and chosen.title == "kmem:kmalloc" and chosen.notes == ["event kmem:kmalloc"]


def test_other_events_are_not_called_time_on_the_cpu(tmp_path: Path) -> None:
    told = answered(imported(tmp_path, sample("kmem:kmalloc") + sample("cycles_no_execute") * 2), Question())
    assert told.title == "cycles_no_execute" and "kmem:kmalloc (1)" in told.notes[1]
    unnamed = answered(imported(tmp_path, sample("x").replace(" 1 x: ", "")), Question())
    assert (unnamed.title, unnamed.profile.unit) == ("an unnamed event", "samples")
    assert unnamed.summary() == "1 sample in 1 stack, from 1 sample"
    text = io.BytesIO()
    with Recording.open(str(imported(tmp_path, sample("a:b") * 3 + sample("c:d")))) as recording:
        said = write(recording, text, "folded", 0)
    assert text.getvalue() == b"main.f 3\n" and "samples of c:d (1)" in said


def test_time_off_the_cpu_from_context_switches(tmp_path: Path) -> None:
    """By hand: thread 1 is away from 10 to 30 in f and from 31 to 35 in g, thread 2 leaves at 30 and is not seen again."""
    text = (
        switch(1, 0, 10, "main.f main.main")
        + switch(0, 2, 20, "idle")
        + switch(2, 1, 30, "main.h")
        + switch(1, 0, 31, "main.g main.main")
        + switch(0, 1, 35, "idle")
    )
    told = answered(imported(tmp_path, text), Question("off-cpu"))
    assert stacks(told) == {"main.main;main.f": 20_000_000, "main.main;main.g": 4_000_000}
    assert told.profile.unit == "nanoseconds" and told.title == "off-CPU"
    assert "1 wait without an end left out" in told.notes
    told = answered(imported(tmp_path, text), Question("off-cpu", from_ns=15_000_000, to_ns=33_000_000, tid=1))
    assert stacks(told) == {"main.main;main.f": 15_000_000, "main.main;main.g": 2_000_000}
    assert told.title == "off-CPU, from 15.0 ms, up to 33.0 ms, thread 1"
    assert not len(answered(imported(tmp_path, text), Question("off-cpu", tid=2)).profile)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (sample("cpu-clock"), "perf recorded no context switches"),
        # of one process only its departures are recorded
        (switch(1, 0, 10, "f") + switch(1, 0, 20, "f"), "none of its 2 context switches has both ends"),
        (
            (switch(1, 0, 10, "f") + switch(0, 1, 20, "f")).replace(": 1 sched", ": 3 sched"),
            "perf recorded only some of the context switches",
        ),
    ],
)
def test_why_there_is_no_time_off_the_cpu(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(GotraceError, match=f"no off-cpu stacks: {reason}"):
        answered(imported(tmp_path, text), Question("off-cpu"))


def test_without_a_name_for_it(tmp_path: Path) -> None:
    """flame.svg, as others have it; what is there already stays."""
    command = [sys.executable, "-m", "gotrace.cli", "flame", str(RECORDINGS / "all.gotrace")]
    for name in ("flame.svg", "flame.2.svg"):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and f"wrote {name} (" in done.stderr, done.stderr
        (tmp_path / "flame.svg").write_text("mine")
    assert {path.name for path in tmp_path.iterdir()} == {"flame.svg", "flame.2.svg"}
    assert (tmp_path / "flame.svg").read_text() == "mine"
    done = subprocess.run([*command, "--format", "folded"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "runtime.goexit;" in done.stdout
    done = subprocess.run([*command, "--force"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "<svg" in (tmp_path / "flame.svg").read_text()
