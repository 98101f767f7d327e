"""`gotrace gate --listen`, spoken to as Argo Rollouts and Flagger do, and the manifests that the documentation has."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import jsonschema
import pytest
import yaml

from conftest import GOTRACE, PATIENCE_S
from gate_reports import report
from gotrace.cli.commands.gate import command
from gotrace.lab.gate_file import SCHEMA, rules_of, schema

PAGE = Path(__file__).parents[2] / "docs" / "commands" / "gate.md"
MANIFESTS = [
    found
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    if "kind" in (found := yaml.safe_load(block))
]

PASS, FAIL, UNKNOWN = {}, {"latency.p99": 2.0}, {"latency.p99": 1.05}


class Gate:
    """A gate that listens, and the report that it reads."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], port: int) -> None:
        self.folder, self.process, self.port = folder, process, port

    def keep(self, factors: dict[str, float]) -> None:
        self.folder.mkdir(exist_ok=True)
        text = json.dumps(report({"A": {}, "B": factors}, 10, 0.01))
        (self.folder / "report.json").write_text(text)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[..., Gate]]:
    """listening(*options) -> a `Gate` on a report of two versions, about their latency."""
    running: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Gate:
        words = ["gate", str(tmp_path / "out"), "--metric", "latency.p99", "--listen", "0", *options]
        process = subprocess.Popen([*GOTRACE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"Listening at http://127\.0\.0\.1:(\d+)/gate; .*\n", line)
        assert found, line
        return Gate(tmp_path / "out", process, int(found[1]))

    yield start
    for process in running:
        process.kill()
        process.communicate()


def argo(gate: Gate, metric: dict[str, Any]) -> str:
    """The phase of a measurement: Argo Rollouts' metricproviders/webmetric and utils/evaluate, of version 1.10."""
    web = metric["provider"]["web"]
    status, body = gate.ask("GET", urlsplit(web["url"]).path)
    if not 200 <= status < 300:
        return "Error"
    assert web["jsonPath"] == "{$}"  # the whole body
    result = json.loads(body)
    success, failure = (met(metric[f"{name}Condition"], result) for name in ("success", "failure"))
    return "Failed" if failure else "Successful" if success else "Inconclusive"


def met(condition: str, result: dict[str, Any]) -> bool:
    """A condition as expr has it, as far as the page uses that: a member of the result against a text."""
    found = re.fullmatch(r'result\.(\w+) (==|!=) "([^"]*)"', condition)
    assert found, condition
    return (result[found[1]] == found[3]) == (found[2] == "==")


def flagger(gate: Gate, hook: dict[str, Any]) -> str | None:
    """Why a check failed, None if it did not: Flagger's pkg/controller/webhook.go."""
    payload = {
        "name": "shop",
        "namespace": "default",
        "phase": "Progressing",
        "checksum": "5d8b",
        "metadata": hook["metadata"],
    }
    body = json.dumps(payload).encode()
    status, answer = gate.ask("POST", urlsplit(hook["url"]).path, body, Content_Type="application/json")
    return answer if status > 202 else None


def manifest(name: str) -> dict[str, Any]:
    return next(each for each in MANIFESTS if each["metadata"]["name"] == name)


def understood(arguments: list[str]) -> dict[str, Any]:
    """The options of a command line, if `gotrace gate` takes it."""
    parent = click.Context(command, help_option_names=["-h", "--help"])  # which click keeps for the command
    return command.make_context("gate", arguments, parent=parent).params


def test_the_manifests_of_the_page(listening: Callable[..., Gate]) -> None:
    (metric,) = manifest("gotrace-gate")["spec"]["metrics"]
    (hook,) = manifest("shop")["spec"]["analysis"]["webhooks"]
    gate = listening()
    assert argo(gate, metric) == "Error" and "cannot read" in (flagger(gate, hook) or "")
    for factors, phase, reason in (
        (PASS, "Successful", None),
        (FAIL, "Failed", "fail: latency.p99\n"),
        (UNKNOWN, "Inconclusive", "inconclusive: latency.p99\n"),
    ):
        gate.keep(factors)  # is read anew
        assert (argo(gate, metric), flagger(gate, hook)) == (phase, reason)


def test_the_job_of_the_page() -> None:
    (metric,) = manifest("gotrace-gate-job")["spec"]["metrics"]
    (container,) = metric["provider"]["job"]["spec"]["template"]["spec"]["containers"]
    words = container["command"]
    assert words[:2] == ["gotrace", "gate"]
    parsed = understood(words[2:])
    assert parsed["folder"] == "/reports/out" and parsed["file"] == "/etc/gate/gate.yaml"
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert mounted == {"/reports", "/etc/gate"}


def test_the_rules_of_the_page(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    files = [block for block in blocks if yaml.safe_load(block).get("schema") == SCHEMA]
    assert len(files) == 2
    for text in files:
        (tmp_path / "gate.yaml").write_text(text)
        assert rules_of(str(tmp_path / "gate.yaml")).margins
        jsonschema.validate(yaml.safe_load(text), schema())


def test_the_workflow_of_the_page() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (workflow,) = (found for block in blocks if "jobs" in (found := yaml.safe_load(block)))
    steps = [shlex.split(step["run"]) for step in workflow["jobs"]["gate"]["steps"]]
    assert [words[:2] for words in steps] == [["gotrace", "baseline"], ["gotrace", "gate"]]
    assert understood(steps[1][2:])["outputs"] == ("gate.xml",)


@pytest.mark.parametrize(("as_", "status", "verdict"), [("pass", 200, "pass"), ("fail", 409, "fail")])
def test_what_is_made_of_an_inconclusive_one(as_: str, status: int, verdict: str, listening: Callable[..., Gate]) -> None:
    gate = listening("--inconclusive", as_)
    gate.keep(UNKNOWN)
    assert gate.ask("POST", "/", b"{}")[0] == status
    found = json.loads(gate.ask("GET", "/gate?x=1")[1])
    assert found["verdict"] == verdict and found["result"]["verdict"] == "inconclusive"


def test_what_is_refused(listening: Callable[..., Gate]) -> None:
    gate = listening()
    gate.keep(PASS)
    name = {"name": "shop", "namespace": "default", "phase": "x"}
    for method, path, body, status in (
        ("GET", "/", None, 404),
        ("GET", "/../report.json", None, 404),
        ("POST", "/report", b"{}", 404),
        ("PUT", "/gate", b"{}", 501),
        ("POST", "/", b"{", 400),
        ("POST", "/", b"\xff\xfe", 400),
        ("POST", "/", b"[" * 60_000, 400),
        ("POST", "/", b"[]", 400),
        ("POST", "/", json.dumps({**name, "phase": 3}).encode(), 400),
        ("POST", "/", json.dumps({**name, "metadata": [1]}).encode(), 400),
        ("POST", "/", b"{" + b" " * (64 << 10), 413),
        ("POST", "/", json.dumps({**name, "metadata": {"a": "\x1b[31m"}}).encode(), 200),
    ):
        assert gate.ask(method, path, body)[0] == status, (method, path, body and body[:40])
    for length, status in (("-1", 411), ("9" * 30, 413), ("", 411), ("1e3", 411)):
        assert gate.ask("POST", "/", b"", Content_Length=length)[0] == status
    assert gate.ask("POST", "/", iter([b"{}"]))[0] == 411  # type: ignore[arg-type]  # in chunks
    gate.process.send_signal(signal.SIGTERM)
    _, err = gate.process.communicate(timeout=PATIENCE_S)
    assert gate.process.returncode == 0 and "Traceback" not in err and "\x1b" not in err
    assert "default/shop x: pass: 1 condition met" in err


def test_connections_are_bounded_and_it_ends_at_once(listening: Callable[..., Gate]) -> None:
    """Clients that say nothing take 16 places; the next is turned away, and is served when one has gone."""
    gate = listening()
    gate.keep(PASS)
    idle = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(16)]
    with contextlib.ExitStack() as stack:
        for each in idle:
            stack.enter_context(each)
        with pytest.raises((http.client.HTTPException, OSError)):
            gate.ask("GET", "/gate")
        idle[0].close()
        for _ in range(100):
            with contextlib.suppress(http.client.HTTPException, OSError):
                assert gate.ask("GET", "/gate")[0] == 200
                break
        else:
            pytest.fail("no place became free")
        gate.process.send_signal(signal.SIGINT)
        _, err = gate.process.communicate(timeout=PATIENCE_S)
        assert gate.process.returncode == 0 and "Traceback" not in err


def test_an_address_that_is_taken(gotrace: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = gotrace(
            "gate", str(tmp_path), "--require", "cpu < 1 CPU", "--listen", f"127.0.0.1:{port}", env=dict(os.environ)
        )
    assert done.returncode == 1 and f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
