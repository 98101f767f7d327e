"""Runs of an emulated machine, as the repository has them for `make demo-fleet`: counted in a fleet, and never timed."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import fleets
import jsonschema
import pytest

from gotrace.api import replaying
from gotrace.cli.main import main
from gotrace.fleet.add import add
from gotrace.fleet.database import opened
from gotrace.fleet.machines import Told
from gotrace.kernel.host import is_emulated
from gotrace.recording.reader import Recording
from gotrace.records.all import schema_of_command
from gotrace.views.gc import Gc

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "fleet" / "arm64"
RECORDINGS = sorted(map(str, SHIPPED.glob("*.gotrace")))
# As if it were one more of a fleet's machines: of a type and a service that others have.
UNTIMED = {"emulated_left_out", "emulated_counts", "amplification", "amplification_along", "resident", "invalid_runs"}
LIKE_OTHERS = Told("arm64-vm", fleets.SERVICE, fleets.VERSION, *fleets.TYPES["host-0"])


@functools.cache
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SHIPPED / "report.json").read_text())
    return found


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit):
        main([*arguments, "--format", "json"])
    # DuckDB gives rows of one group in no order, which the last digit of a spread depends on.
    found: dict[str, Any] = json.loads(capsys.readouterr().out, parse_float=lambda text: float(f"{float(text):.9g}"))
    return found


@pytest.mark.parametrize(
    ("cpu", "emulated"),
    [
        ("implementer 0x00, part 0x051, variant 0x0, revision 0", True),
        ("QEMU TCG CPU version 2.5+", True),
        ("QEMU Virtual CPU version 2.5+", False),  # may be under KVM
        ("implementer 0x41, part 0xd0c, variant 0x3, revision 1", False),
        ("implementer 0x00, part 0x0510", False),
        ("AMD EPYC", False),
        (None, False),
    ],
)
def test_what_a_processor_is_called(cpu: str | None, emulated: bool) -> None:
    assert is_emulated(cpu) == emulated


def test_they_say_themselves_that_they_are_emulated(tmp_path: Path) -> None:
    """By the processor alone, in a recording as in a report; and this version reads all of them."""
    outcomes = add(str(tmp_path / "fleet"), [str(SHIPPED), *RECORDINGS], Told())
    assert [(each.kind, each.notes) for each in outcomes] == [("baseline", ()), *[("recording", ())] * len(RECORDINGS)]
    database = opened(str(tmp_path / "fleet"))
    assert not report()["plan"]["emulated"] and len(RECORDINGS) == 3
    assert database.rows("select distinct architecture, emulated from host") == [("aarch64", True)]
    assert database.rows("select count(*) from run")[0][0] == len(report()["runs"]) + 5 + 2


def test_one_source_that_says_so_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For those of the same host that do not name its processor."""
    folder = str(tmp_path / "fleet")
    add(folder, [str(Path(__file__).parents[1] / "testdata" / "recordings" / "gc.gotrace")], Told("arm64-vm", "shop"))
    question = ("fleet", "show", folder, "--metric", "stw.total.p90")
    assert [each["service"] for each in told(capsys, *question)["groups"]] == ["shop"]
    add(folder, [RECORDINGS[0]], Told("arm64-vm"))
    found = told(capsys, *question)
    assert (found["groups"], found["reasons"], found["longest"]) == ([], [], [])
    assert "shop" in {each["service"] for each in found["emulated_counts"]}


def test_they_are_in_no_time_of_a_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fleets.made(tmp_path / "fleet").folder
    questions = [
        ("show", folder, "--metric", metric, *more)
        for metric, more in (("latency.p99", ()), ("stw.total.p90", ("--by", "service")), ("throughput", ("--by", "host")))
    ]
    questions += [("choose", folder, "--service", fleets.SERVICE, "--slo", "latency.p99<=1s"), ("trend", folder)]
    before = [told(capsys, "fleet", *each) for each in questions]
    add(folder, [str(SHIPPED), *RECORDINGS], LIKE_OTHERS)
    after = [told(capsys, "fleet", *each) for each in questions]
    jsonschema.validate(after[0], schema_of_command("fleet show"))
    for old, new in zip(before, after, strict=True):
        assert {**new, **{key: old[key] for key in UNTIMED & old.keys()}} == old
    assert before[0]["groups"][0]["letters"] and before[0]["emulated_counts"] == []
    assert after[0]["emulated_left_out"] == ["arm64-vm"]
    assert not [each for each in after[0]["starts"] if each["emulated"]]
    # but for sizes
    (own,) = [each for each in after[0]["amplification"] if each["emulated"]]
    assert own["hosts"] == 1 and own["settings"]["page_bytes"] == [str(report()["host"]["page_bytes"])]


def test_counts_and_causes_are_those_of_their_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "fleet")
    add(folder, [str(SHIPPED), *RECORDINGS], Told("arm64-vm"))
    counts = {
        each["service"]: each
        for each in told(capsys, "fleet", "show", folder, "--metric", "stw.total.p90")["emulated_counts"]
    }
    for service in ("prometheus", "prometheus-node-exporter"):
        pauses = [each for each in replaying(str(SHIPPED / f"{service}.gotrace"), Gc(explained=0)) if each["type"] == "stw"]
        assert sum(counts[service]["pauses"].values()) == len(pauses) > 0
        assert counts[service]["runs"] == 1 and sum(counts[service]["causes"].values()) == min(16, len(pauses))
    assert sum(each["runs"] for each in counts.values()) == sum(run["valid"] for run in report()["runs"]) + 5 + 2
    with pytest.raises(SystemExit):
        main(["fleet", "show", folder, "--metric", "stw.total.p90"])
    text = capsys.readouterr().out
    assert "Emulated: counted, not timed: arm64-vm" in text and " ms" not in text and " us" not in text


def test_a_recording_has_its_processor() -> None:
    with Recording.open(RECORDINGS[0]) as source:
        assert is_emulated(source.header["host"]["cpu"])
