"""`gotrace gate` on the command line: statuses, formats as their readers take them, GitHub's runner, and bad input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jsonschema
import junitparser
import pytest

from gate_reports import report
from gotrace.export import github, junit

Gate = Callable[..., "CompletedProcess[str]"]
NAME = "<b>\x1b[31m|`x`\n::error::x"  # what somebody may call a version


@pytest.fixture
def gate(gotrace: Any, tmp_path: Path) -> Gate:
    """gate(*arguments, **variables) in a folder that has reports out-a and out-b, both (of A and B) and gate.yaml."""
    keep(tmp_path / "out-a", report({"s": {}}, 8, 0.01, 1))
    keep(tmp_path / "out-b", report({"s": {"latency.p50": 1.5}}, 8, 0.01, 2))
    keep(tmp_path / "both", report({"A": {}, "B": {"latency.p99": 1.3}}, 10, 0.01, 3))
    (tmp_path / "gate.yaml").write_text("schema: gotrace.gate/1\nmetrics: {rss.peak: {margin: 20%}}\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}

    def run(*arguments: str, **variables: str) -> CompletedProcess[str]:
        done: CompletedProcess[str] = gotrace("gate", *arguments, cwd=tmp_path, env={**inherited, **variables})
        return done

    return run


def keep(folder: Path, of: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(of))


def test_statuses(gate: Gate, tmp_path: Path) -> None:
    for arguments, status, verdict in (
        (("out-b", "--against", "out-a", "-f", "gate.yaml"), 0, "PASS: 1 condition met"),
        (("out-b", "--against", "out-a", "--metric", "latency.p50"), 1, "FAIL: latency.p50"),
        (("out-b", "--against", "out-a", "--metric", "stw.total.max", "--margin", "0.1%"), 3, "INCONCLUSIVE: "),
        (("out-b", "--against", "out-a", "--metric", "stw.total.max", "--inconclusive", "pass"), 0, "INCONCLUSIVE: "),
        (("out-b", "--against", "out-a", "--metric", "stw.total.max", "--inconclusive", "fail"), 1, "INCONCLUSIVE: "),
        (("both", "--metric", "latency.p99"), 1, "FAIL: latency.p99"),
        (("out-a", "--require", "latency.p99 <= 28ms and rss.peak <= 1GiB"), 0, "PASS: 2 conditions met"),
        (("out-a", "--require", "latency.p99 <= 1ms", "--require", "rss.peak <= 1GiB"), 1, "FAIL: latency.p99"),
    ):
        done = gate(*arguments)
        assert (done.returncode, verdict in done.stdout) == (status, True), (arguments, done.stdout, done.stderr)
    other = json.loads((tmp_path / "out-b/report.json").read_text())
    other["host"]["host_class"] = "y"
    keep(tmp_path / "out-b", other)
    done = gate("out-b", "--against", "out-a", "--inconclusive", "pass")
    assert done.returncode == 4 and done.stdout == "" and "different kinds of machines" in done.stderr
    done = gate("out-b", "--against", "out-a", "--anyway")
    assert done.returncode == 3 and "NOT COMPARABLE" in done.stdout
    other |= {"complete": False, "cut_off": "the service exited under load: signal 9"}
    keep(tmp_path / "out-b", other)
    done = gate("out-b", "--against", "out-a", "--anyway", "--inconclusive", "pass")
    assert done.returncode == 5 and "the service exited under load: signal 9" in done.stderr


def test_bad_input(gate: Gate, tmp_path: Path) -> None:
    damaged = json.loads((tmp_path / "out-a/report.json").read_text())
    damaged["runs"][2]["metrics"] = [NAME]
    keep(tmp_path / "damaged", damaged)
    unplanned = json.loads((tmp_path / "both/report.json").read_text())
    keep(tmp_path / "unplanned", {**unplanned, "plan": {}})
    keep(tmp_path / "other", {"schema": "gotrace.baseline/9"})
    (tmp_path / "bad.yaml").write_text("schema: gotrace.gate/1\nmetrics: {latency.p99: {margn: 5%}}\n")
    for arguments, status, text in (
        ((), 2, "Missing argument"),
        (("out-a",), 2, "there is nothing to judge by"),
        (("nowhere", "--require", "cpu < 1 CPU"), 2, "cannot read nowhere"),
        (("out-a", "--require", "latenc.p99 <= 1ms"), 2, "did you mean latency.p99"),
        (("out-a", "--require", "latency.p95 <= 1ms"), 2, "it has latency.p99"),
        (("out-a", "--require", "latency.p99 <= 1MiB"), 2, "not measured in MiB"),
        (("out-a", "--against", "out-a/"), 2, "a report was given twice"),
        (("out-a", "--metric", "latency.p99"), 2, "nothing to compare with"),
        (("out-b", "--against", "both"), 2, "give a report with one version"),
        (("both", "--judge", "C"), 2, "there are A, B"),
        (("both", "--margin", "0"), 2, "--margin"),
        (("both", "-f", "bad.yaml"), 2, "metrics.latency.p99: there is no key 'margn'"),
        (("both", "-f", "none.yaml"), 2, "cannot read none.yaml"),
        (("both", "-f", "gate.yaml", "--margin", "3"), 2, "--margin and --file are mutually exclusive"),
        (("damaged", "--require", "cpu < 1 CPU"), 2, "is damaged: Expected object, got array - at $.runs[2].metrics"),
        (("unplanned",), 2, "its plan lacks the key load"),
        (("other", "--require", "cpu < 1 CPU"), 2, "a report in a different version"),
        (("both", "-o", "x.html"), 2, "cannot infer the format"),
        (("both", "-o", "gate.yaml", "--format", "md"), 1, "gate.yaml already exists"),
        (("both", "-o", "both/report.json", "--force"), 2, "two outputs go to the same file"),
        (("both", "--listen", "nowhere"), 2, "invalid address"),
        (("both", "--listen", "127.0.0.1:99999"), 2, "invalid address"),
        (("both", "--listen", "192.0.2.1:21090"), 1, "cannot listen on 192.0.2.1:21090"),
        (("both", "--listen", "21090", "--format", "json"), 2, "are mutually exclusive"),
    ):
        done = gate(*arguments)
        assert (done.returncode, text in done.stderr) == (status, True), (arguments, done.stderr)
        assert done.stderr.count("\n") <= 3 and done.stdout == ""


def test_json_says_what_the_table_says(gate: Gate) -> None:
    found = json.loads(gate("both", "--require", "latency.p99 <= 28ms", "--format", "json").stdout)
    assert (found["verdict"], found["status"], found["schema"]) == ("fail", 1, "gotrace.gate.result/1")
    assert (found["a"]["name"], found["b"]["name"], found["b"]["runs"]) == ("A", "B", 10)
    change, limit = (
        next(each for each in found["metrics"] if (each["metric"], each["kind"]) == ("latency.p99", kind))
        for kind in ("change", "requirement")
    )
    assert change["verdict"] == "fail" and change["low"] > 1.05 and change["limit"] == 1.05
    assert limit["verdict"] == "pass" and limit["high"] < limit["limit"] == 28e6
    table = gate("both", "--require", "latency.p99 <= 28ms").stdout
    assert f"{change['measured'] - 1:+.1%}" in table and f"{limit['measured'] / 1e6:.2f} ms" in table


def test_junit_as_others_read_it(gate: Gate, tmp_path: Path) -> None:
    options = ("--metric", "latency.p99", "--metric", "stw.total.max", "--margin", "0.5", "--require", "latency.p50 <= 1s")
    for name, more, counts in (("x.xml", (), (1, 1)), ("y.xml", ("--inconclusive", "fail"), (2, 0))):
        assert gate("both", *options, *more, "-o", name).returncode == 1
        read = junitparser.JUnitXml.fromfile(str(tmp_path / name))
        (suite,) = read
        assert (read.tests, read.failures, read.errors) == (suite.tests, suite.failures, suite.errors) == (3, counts[0], 0)
        assert suite.skipped == counts[1]
        cases = {case.name: case.result for case in suite}
        assert isinstance(cases["latency.p99 below +0.5%"][0], junitparser.Failure)
        assert cases["latency.p50 <= 1s"] == []
        told = cases["latency.p99 below +0.5%"][0]
        assert told.type == "failure" and told.message.startswith("latency.p99 must be below +0.5%: +")
        # What read it counts for itself.
        suite.update_statistics()
        assert (suite.tests, suite.failures, suite.skipped) == (3, *counts)


def test_junit_has_the_attributes_of_jenkins_schema() -> None:
    """Those that it requires, and no others; in the order passed, failed, skipped, in error."""
    from xml.etree import ElementTree

    cases = [junit.Case(f"{NAME}{kind}", kind, NAME, NAME) for kind in ("passed", "failure", "skipped", "error")]
    root = ElementTree.fromstring(junit.document(NAME, cases).encode())
    assert (root.tag, set(root.attrib)) == ("testsuites", {"name", "tests", "failures", "errors", "time"})
    (suite,) = root
    assert set(suite.attrib) == {"name", "tests", "failures", "errors", "skipped", "time"}
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    for case, kind in zip(suite, (None, "failure", "skipped", "error"), strict=True):
        assert set(case.attrib) == {"name", "classname", "time"} and "\x1b" not in case.get("name", "")
        assert [child.tag for child in case] == ([kind] if kind else [])
        assert all(set(child.attrib) <= {"message", "type"} for child in case)


def test_what_stops_a_gate_is_in_every_format(gate: Gate, tmp_path: Path) -> None:
    of = json.loads((tmp_path / "out-b/report.json").read_text())
    keep(tmp_path / "out-b", {**of, "tool": "0.1.0"})
    files = [word for name in ("x.xml", "x.md", "x.json") for word in ("-o", name)]
    assert gate("out-b", "--against", "out-a", *files).returncode == 4
    (case,) = next(iter(junitparser.JUnitXml.fromfile(str(tmp_path / "x.xml"))))
    assert isinstance(case.result[0], junitparser.Error)
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["status"], found["verdict"], found["metrics"]) == (4, "inconclusive", [])
    for text in (found["problem"], case.result[0].message, (tmp_path / "x.md").read_text()):
        assert "the reports differ in their version of gotrace" in text


def test_names_are_harmless_everywhere(gate: Gate, tmp_path: Path) -> None:
    of = report({"A": {}, NAME: {"latency.p99": 2}}, 10, 0.01)
    of["runs"].append({**of["runs"][-1], "valid": False, "reasons": [NAME]})
    keep(tmp_path / "evil", of)
    files = [word for name in ("x.xml", "x.md", "x.txt") for word in ("-o", name)]
    done = gate("evil", *files, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(tmp_path / "sum"))
    assert done.returncode == 1
    for name in ("x.xml", "x.md", "x.txt", "sum"):
        text = (tmp_path / name).read_text()
        assert "\x1b" not in text and "\n::error" not in text
        if name in ("x.md", "sum"):
            assert "<b>" not in text and "|`x`" not in text
    assert "\x1b" not in done.stderr and not [line for line in done.stderr.splitlines() if line.startswith("::error::x")]


def test_what_github_is_told(gate: Gate, tmp_path: Path) -> None:
    """As actions/runner reads a command: up to the second "::", properties by commas, then unescaped."""
    (tmp_path / "sum").write_text("before\n")
    options = ("both", "--metric", "latency.p99", "--metric", "stw.total.max", "--margin", "0.5")
    done = gate(*options, "--format", "json", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(tmp_path / "sum"))
    json.loads(done.stdout)  # nothing but that
    found = [read(line) for line in done.stderr.splitlines() if line.startswith("::")]
    assert [(kind, properties) for kind, properties, _ in found] == [
        ("error", {"title": "gotrace gate: latency.p99"}),
        ("warning", {"title": "gotrace gate: stw.total.max"}),
    ]
    assert found[0][2].startswith("latency.p99 must be below +0.5%: +")
    text = (tmp_path / "sum").read_text()
    assert text.startswith("before\n### gotrace gate: fail: latency.p99\n") and "| latency.p99 | below +0.5% |" in text
    assert "::" not in gate(*options).stderr
    done = gate(*options, GITHUB_STEP_SUMMARY=str(tmp_path))
    assert done.returncode == 1 and "cannot write the summary" in done.stderr
    evil = read(github.command("error", "100%\r\nof: a, b", "a:b,c%\nd"))
    assert evil == ("error", {"title": "a:b,c%\\nd"}, "100%\nof: a, b")


def read(line: str) -> tuple[str, dict[str, str], str]:
    head, message = line.removeprefix("::").split("::", 1)
    kind, _, properties = head.partition(" ")
    pairs = (each.split("=", 1) for each in properties.split(","))
    found = {name: value.replace("%3A", ":").replace("%2C", ",") for name, value in pairs}
    return kind, {name: plain(value) for name, value in found.items()}, plain(message)


def plain(text: str) -> str:
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def test_the_schema_is_published(gate: Gate) -> None:
    schema = json.loads(gate("--json-schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"schema": "gotrace.gate/1", "metrics": {"cpu": None}}, schema)
    for bad in ({"schema": "gotrace.gate/2"}, {"schema": "gotrace.gate/1", "margn": "5%"}, {"margin": "5%"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)
