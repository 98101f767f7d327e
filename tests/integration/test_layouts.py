"""layouts.json is what the DWARF of real builds says, and is not believed beyond that."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import targets
from gotrace.binary.goroutines import find_goroutines
from gotrace.binary.heap import find_heap
from gotrace.binary.layout import Layout
from gotrace.binary.program import GoProgram
from gotrace.binary.scheduler import find_scheduler
from gotrace.errors import BinaryError
from gotrace.probes import gc

ROOT = targets.ROOT


def test_regenerated_part_is_the_same():
    """One old and one new release, and the two of which there are only libraries, measured again."""
    releases = ["1.20.0", "1.20.4", "1.21.13", "1.27.3"]
    command = [sys.executable, str(ROOT / "scripts/make-layouts"), *releases, "--print"]
    made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for arch, structs in made["layouts"].items():
        for struct, fields in structs.items():
            for field, runs in fields.items():
                for release in made["releases"][arch]:
                    value = next((v for since, v in reversed(runs) if _number(since) <= _number(release)), None)
                    ours = Layout(arch, _number(release))
                    assert (ours.offset(struct, field) if ours.has(struct, field) else None) == value, (arch, struct, field)


def _number(release):
    return tuple(map(int, release.split(".")))


@pytest.mark.parametrize(
    ("release", "struct", "field", "known"),
    [
        ((1, 23, 1), "runtime.workType", "cycles", 392),
        ((1, 23, 9), "runtime.workType", "cycles", 424),
        ((1, 23, 4), "runtime.g", "goid", 160),  # this one did not
        ((1, 27, 9), "runtime.g", "goid", 152),  # a later patch of the newest measured minor release
        ((1, 28, 0), "runtime.g", "goid", None),  # never measured
        ((1, 20, 12), "runtime.gcControllerState", "heapLive", 80),
        ((1, 19, 3), "runtime.g", "goid", 152),  # before the first measured patch
        ((1, 18, 0), "runtime.g", "goid", None),
    ],
)
def test_what_is_known(release, struct, field, known):
    layout = Layout("amd64", release)
    assert (layout.offset(struct, field) if layout.has(struct, field) else None) == known


@pytest.mark.parametrize(
    ("release", "experiments", "field", "known"),
    [
        ((1, 25, 3), ("greenteagc",), "enablegc", 10432),
        ((1, 25, 3), ("greenteagc", "jsonv2"), "enablegc", 10432),  # the latter changes nothing in the runtime
        ((1, 25, 3), ("jsonv2", "noaliastypeparams"), "enablegc", 8256),
        ((1, 25, 3), ("greenteagc",), "numgc", 7680),  # did not move
        ((1, 26, 2), ("nogreenteagc",), "enablegc", 8256),
        ((1, 27, 9), ("nogreenteagc",), "enablegc", 8256),
        ((1, 26, 2), ("greenteagc",), "enablegc", None),  # its own default: no toolchain writes that
        ((1, 25, 3), ("nogreenteagc",), "numgc", None),
        ((1, 25, 3), ("greenteagc", "staticlockranking"), "numgc", None),  # several that were not measured together
        ((1, 25, 3), ("unheardof",), "numgc", None),
    ],
)
def test_what_is_known_with_experiments(release, experiments, field, known):
    layout = Layout("amd64", release, experiments)
    assert (layout.offset("runtime.mstats", field) if layout.has("runtime.mstats", field) else None) == known
    if known is None:
        with pytest.raises(BinaryError, match=f"GOEXPERIMENT={','.join(experiments)}"):
            layout.offset("runtime.mstats", field)


@pytest.mark.parametrize("version", targets.EXPERIMENTS)
def test_a_program_with_an_experiment(version):
    """Everything is where the symbol table has it."""
    with GoProgram.open(targets.build("gcload", version, "experiment", "amd64")) as program:
        assert program.build_info.experiments == (targets.EXPERIMENTS[version],)
        symbols = {name: address for name, address, _ in program.elf.symbols()}
        assert {item.name for item in gc.plan(program).missing} == set()
        heap = find_heap(program)
        names = {"work": heap.work, "gcController": heap.gc_controller, "memstats": heap.memstats, "mheap_": heap.mheap}
        assert names == {name: symbols[f"runtime.{name}"] for name in names}
        assert find_scheduler(program).sched == symbols["runtime.sched"]
        found = find_goroutines(program)
        assert (found.allglen, found.allgptr) == (symbols["runtime.allglen"], symbols["runtime.allgptr"])


def test_an_experiment_that_is_not_known(tmp_path):
    """What depends on it is missing, with the reason; pauses are exact all the same."""
    data = bytearray(targets.build("gcload").read_bytes())
    at = data.index(b"\xff Go buildinf:") + 32
    words = b"\x10go1.27.3-X:other\0"  # and no module text
    data[at : at + len(words)] = words
    path = tmp_path / "program"
    path.write_bytes(data)
    with GoProgram.open(path) as program:
        plan = gc.plan(program)
        assert {point.name for point in plan.points} == {"restart begin", "restart end", "cycle", "sweep"}
        missing = {item.name: item.reason for item in plan.missing}
        assert missing.keys() == {"goid", "work.userForced", "gcController", "what has not ended"}
        assert "GOEXPERIMENT=other" in missing["gcController"]
        assert "gc_controller" not in plan.config
        with pytest.raises(BinaryError, match="GOEXPERIMENT=other"):
            find_heap(program)
