"""GPU memory without a GPU: every call of the stand-in libraries is there once, as they wrote it down themselves."""

from __future__ import annotations

import importlib
import os
from collections import defaultdict
from pathlib import Path

import pytest

import gpulibs
from conftest import until
from gotrace import session
from gotrace.analysis.columns import Kinds
from gotrace.analysis.gpumem import calls as words
from gotrace.kernel.process import Process
from gotrace.probes import gpumem

pytestmark = pytest.mark.bpf

KINDS = Kinds(gpumem.PROBE.header_kinds())


@pytest.fixture
def run(start, tmp_path):
    """run(program, scenario, when) -> (the running target, the file of its truth)."""

    def started(program, *arguments):
        truth = tmp_path / "truth"
        target = start(gpulibs.built() / program, *arguments, env=gpulibs.environment(truth))
        until(lambda: os.path.basename(os.readlink(f"/proc/{target.pid}/exe")) == program)
        if program == "linked" or arguments[-1] == "start":
            until(lambda: "/libcuda.so.1" in Path(f"/proc/{target.pid}/maps").read_text())
        return target, truth

    return started


def seen(events):
    """What was reported, by thread, as `expected` has it."""
    found = defaultdict(list)
    for event in events:
        tid = int(event["tid"])
        if event["kind"] == KINDS.number("call"):
            word, address, size, stream, pool = (int(event[letter]) for letter in "abcde")
            layer = "cu" if word >> 9 & 1 else "rt"
            found[tid].append(
                (f"{layer}_{words.NAMES[word & 0xFF]}", word >> 8 & 1, word >> 16 & 0xFFFF, address, size, stream, pool)
            )
        elif event["kind"] == KINDS.number("trace"):
            word, address, size, stream, allocator = (int(event[letter]) for letter in "abcde")
            found[tid].append((words.ACTIONS[word & 0xFF], 0, word >> 8 & 0xFF, address, size, stream, allocator))
    return dict(found)


def expected(truth):
    """The truth in the words of the probe. A call of the driver is nested if the runtime's of the same kind ends next."""
    found = {}
    for tid, rows in gpulibs.calls(truth).items():
        programs = [gpumem.FUNCTIONS.get(row.name, (row.name,))[0] for row in rows]
        nested = [
            one.startswith("cu_") and two == f"rt_{one[3:]}" for one, two in zip(programs, [*programs[1:], ""], strict=True)
        ]
        found[tid] = [
            (program, int(inner), row.result, *row[1:5]) for program, inner, row in zip(programs, nested, rows, strict=True)
        ]
    return found


@pytest.mark.parametrize(("program", "when"), [("linked", "start"), ("unlinked", "start"), ("static", "start")])
def test_every_call(program, when, run):
    """Random calls of three threads: entry by entry, with arguments, results, addresses, and who asked whom."""
    target, truth = run(program, "mix", when)
    with Process.open(target.pid) as process, session.opened([gpumem], process) as tracing:
        target.go()
        target.truth()
        events = tracing.read()
        assert tracing.lost == 0
    told, wanted = seen(events), expected(truth)
    for tid, rows in wanted.items():
        for number, (one, two) in enumerate(zip(told[tid], rows, strict=False)):
            assert one == two, number
    assert told == wanted and len(told) == 3
    assert sum(map(len, told.values())) > 1500
    assert any(row[2] == 2 for rows in told.values() for row in rows)
    assert {row[0] for rows in told.values() for row in rows} >= {
        "rt_malloc",
        "cu_malloc",
        "rt_malloc_from_pool",
        "rt_pitch",
    }
