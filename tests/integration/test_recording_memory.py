"""A report's memory does not grow with the recording."""

from __future__ import annotations

import importlib.util
import os
import subprocess

import numpy as np
import pytest

import targets
from conftest import GOTRACE
from gotrace.kernel.ring import wire_dtype
from gotrace.probes import tail
from gotrace.recording import format as form
from gotrace.recording.writer import Writer

GROWTH = 30 << 20
FEW, MANY = 300_000, 3_000_000


pytestmark = pytest.mark.started  # it is about the memory that a command takes


def long_recording():
    """The benchmark's module, which makes long recordings."""
    path = targets.ROOT / "benchmarks" / "report_events_per_s.py"
    spec = importlib.util.spec_from_file_location("report_events_per_s", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peak(*arguments, stdout=subprocess.DEVNULL) -> int:
    """The most memory, in bytes, that the finished command had at once."""
    process = subprocess.Popen([*GOTRACE, *arguments], stdout=stdout)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    make = long_recording().make
    folder = tmp_path_factory.mktemp("long")
    paths = [str(folder / "few.gotrace"), str(folder / "many.gotrace")]
    assert make(paths[0], FEW) >= FEW and make(paths[1], MANY) >= MANY
    return paths


@pytest.mark.parametrize(
    "options",
    [["--interval", "1s"], ["--interval", "24h"], ["--format", "ndjson"], ["--hlog", "out.hlog", "--hgrm", "out.hgrm"]],
    ids=["table", "one-interval", "ndjson", "histograms"],
)
def test_of_pauses_and_cycles(recordings, tmp_path, options):
    options = [str(tmp_path / word) if word.startswith("out.") else word for word in options]
    few, many = (peak("report", path, *options, "--force") for path in recordings)
    assert many - few < GROWTH, (few, many)


def with_evidence(path, count):
    """A recording with what the probe ``tail`` tells of every stop: threads, stacks, names."""
    module = long_recording()
    number = {kind.name: kind.number for kind in tail.PROBE.kinds}
    header = module.header()
    kinds = tail.PROBE.header_kinds()
    header["probes"]["tail"] = {"kinds": kinds, "points": [], "missing": [], "facts": {}}
    begin_ns = header["clock"]["begin_ns"]

    def event(stw, kind, time_ns, *values):
        out = np.zeros(len(stw), wire_dtype())
        out["time_ns"], out["tid"], out["kind"], out["cpu"] = time_ns, stw["tid"], number[kind], stw["cpu"]
        for letter, value in zip("abcde", values, strict=False):
            out[letter] = value
        return out

    made = 0
    with open(path, "wb", buffering=0) as file:
        writer = Writer(file, header, wire_dtype())
        for address in range(0x1000, 0x1010):
            writer.note(form.FRAMES, address, b'[["main.f", "/f.go", 1, "service", "user"]]')
        for part in module.parts(count // 3, begin_ns):
            stw = part[part["kind"] == 0x101]
            asked, stopped, end = stw["c"], stw["d"], stw["time_ns"]
            stack = stw["a"] % 100 + 1
            events = np.concatenate(
                [
                    part,
                    event(stw, "stop_asked", asked, 1),
                    event(stw, "stack", asked + 10, stack, 3 << 32, 0x1001, 0x1002, 0x1003),
                    # one of a stack that never becomes whole
                    event(stw, "stack", asked + 11, stw["c"], 6 << 32, 0x1001, 0x1002, 0x1003),
                    event(stw, "task", asked + 12, 0x6F6F66, 0, 1),
                    event(stw, "off_cpu", asked + 50, asked + 1, asked + 40, 1, stack),
                    event(stw, "ran", asked + 60, asked + 2),
                    event(stw, "p_stopped", stopped, 3),
                    event(stw, "restart_done", end, stopped + 1),
                ]
            )
            events = events[np.argsort(events["time_ns"], kind="stable")]
            made += len(events)
            writer.events(events)
            writer.flush()
        cost = dict.fromkeys(("probe_hits", "target_ns_estimate", "tool_cpu_s", "tool_rss_bytes"), 0)
        about = {"duration_ns": int(events["time_ns"][-1]) - begin_ns, "ended": "duration", "cost": cost}
        writer.close({**about, "received": made, "lost": 0})
    return made


def test_of_explanations(tmp_path):
    few, many = str(tmp_path / "few.gotrace"), str(tmp_path / "many.gotrace")
    assert with_evidence(few, FEW) >= FEW and with_evidence(many, MANY // 2) >= MANY // 2
    with open(tmp_path / "out", "w") as out:
        peaks = [peak("report", path, "--explain", "-i", "1h", stdout=out) for path in (few, many)]
    text = (tmp_path / "out").read_text()
    assert text.count("longest pauses and what the world waited for") == 2 and "Not explained" not in text
    assert peaks[1] - peaks[0] < GROWTH, peaks
