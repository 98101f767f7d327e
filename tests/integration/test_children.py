"""A process that has its work done by a child: that it is there and collects is said, with the command that traces it."""

from __future__ import annotations

import os

import pytest

import targets

pytestmark = pytest.mark.bpf


@pytest.mark.parametrize(
    ("by_way_of", "sudo"),
    [(("/bin/sh", "-c", '"$0" "$@"; exit $?'), False), ((), True)],
    ids=["by way of a shell", "as the caller of sudo"],
)
def test_a_child_that_collects(by_way_of, sudo, start, trace, gotrace, open_path, monkeypatch):
    if sudo:
        monkeypatch.setenv("SUDO_UID", "65534")
        monkeypatch.setenv("SUDO_GID", "65534")
        os.chown(open_path, 65534, 65534)
    work = (str(targets.build("gcload")), "-cycles", "60")
    target = start(targets.build("launcher"), *by_way_of, *work)
    recording = open_path / "run.gotrace"
    tracer = trace("--pid", str(target.pid), "-o", str(recording))
    tracer.process.stdout.readline(), tracer.process.stdout.readline()  # a second is over: it has looked
    target.go()
    counted = target.truth()["NumGC"]
    said = tracer.process.stderr.readline()
    tracer.interrupt()
    assert tracer.finish() == 0
    assert target.finish() == 0
    (summary,) = tracer.of("summary")
    (child,) = summary["not_seen"]["children"]
    assert summary["cycles"] == 0
    assert counted - 5 <= child["cycles"] <= counted  # without those of its start
    assert child["exe"] == work[0] and child["go_version"] == f"go{targets.NEWEST}"
    assert said.startswith(f"pid {child['pid']} ({work[0]}, go{targets.NEWEST}), a child of pid {target.pid}, ")
    assert said.endswith(f": gotrace gc --pid {child['pid']}\n")
    assert f"NOT TRACED: at least {child['cycles']} GC cycles of a child, pid {child['pid']} " in tracer.stdout
    assert gotrace("report", str(recording)).stdout.endswith(tracer.stdout[-200:])
