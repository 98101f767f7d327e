"""Go code that comes with a copy of the runtime: what is not seen of it is said, and counted where the runtime does."""

from __future__ import annotations

import shutil

import pytest

import targets
from conftest import until

pytestmark = [pytest.mark.bpf, pytest.mark.skipif(shutil.which("gcc") is None, reason="plugins need a C compiler")]

CYCLES = 60  # of the plugin, then of the program


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("version", [targets.MATRIX[0], targets.NEWEST])
def test_a_plugin(version, when, start, trace, gotrace, tmp_path):
    """``early``: there when tracing begins. Go 1.19 runs its collections where the program's own are, or some of them."""
    library = targets.build("plugin", version, "plugin")
    target = start(targets.build("plugged", version, "cgo-external"), str(library), when)
    assert target.process.stdout.readline() == "ready\n"
    recording = tmp_path / "run.gotrace"
    tracer = trace("--pid", str(target.pid), "-o", str(recording))
    until(lambda: tracer.records_path.exists() and tracer.records_path.read_text())  # what it starts from has been read
    target.go()
    counted = target.truth()["NumGC"]
    tracer.interrupt()
    assert tracer.finish() == 0
    (summary,) = tracer.of("summary")
    found = summary["not_seen"]
    assert found["libraries"] == [str(library)]
    assert summary["events"]["lost"] == 0
    # One may have been under way when it was looked.
    assert counted - 1 <= summary["cycles"] + found["cycles"] <= counted
    assert version.startswith("1.19.") or found["cycles"] >= CYCLES - 1
    assert f"{library} contains Go code" in tracer.stderr
    assert f"NOT SEEN: Go code in {library}: " in tracer.stdout
    report = gotrace("report", str(recording))
    assert report.stdout == tracer.stdout
