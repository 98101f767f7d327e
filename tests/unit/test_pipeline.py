"""`gotrace run`: what a pipeline may say, in which order its steps run, and what is not done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import targets
from conftest import GOTRACE, until
from gate_reports import report
from gotrace.errors import UsageError
from gotrace.lab import pipeline, pipeline_file, plan_file
from gotrace.lab.build import Build
from gotrace.lab.compare import NotComparableError, require_comparable, sides_of
from gotrace.lab.container import Container
from gotrace.lab.load import parse_load
from gotrace.lab.plan import Plan, Version
from gotrace.lab.service import Ready
from services import needs_wrk

HEAD = "schema: gotrace.pipeline/1\n"
PLAN = """
versions: {server: {command: ["true", --port, "8080"]}}
load: {tool: wrk, args: [-c2, -d30s, "http://127.0.0.1:8080/ping"]}
"""
MEASURED = "{" + ", ".join(PLAN.strip().splitlines()) + "}"
GO_MOD = "module demo\n\ngo 1.20\n"
MAIN = 'package main\n\nfunc main() { println("%s") }\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(*steps: str, out: str = "") -> str:
    """A pipeline of such steps, in YAML."""
    text = HEAD + (f"out: {out}\n" if out else "") + "steps:\n" + "".join(f"  - {{{step}}}\n" for step in steps)
    Path("p.yaml").write_text(text)
    return "p.yaml"


def resolved(*steps: str, **options: Any) -> pipeline.Resolved:
    return pipeline.resolve(pipeline_file.read(written(*steps)), **options)


def ran(*steps: str, **options: Any) -> tuple[int, list[str]]:
    """The exit status, and the steps that were run, not skipped."""
    done: list[str] = []
    return pipeline.run(resolved(*steps, **options), ended=lambda name, _: done.append(name)), done


def states() -> dict[str, Any]:
    return dict(json.loads(Path("out/pipeline.json").read_text())["steps"])


# --- What a file may say


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "p.yaml: steps: expected a list, got nothing"),
        (["name: a, shell: x", "name: a, shell: x"], "two steps have the name a"),
        (["name: ../a, shell: x"], "'../a' is not a valid step name"),
        (["name: a"], "the step a is of no kind"),
        (["name: a, shell: x, compare: {reports: [b]}"], "the step a has 2 kinds: compare, shell"),
        (["name: a, shell: x, needs: [b]"], "the step a needs 'b', which is not a step"),
        (["name: a, shell: x, needs: [a]"], "steps depend on each other in a cycle: a needs a"),
        (
            ["name: z, shell: x", "name: a, shell: x, needs: [b]", "name: b, shell: x, needs: [z, a]"],
            "steps depend on each other in a cycle: a needs b needs a",
        ),
        (["name: a, shel: x"], "p.yaml: steps[0]: there is no key 'shel'"),
        (["name: a, shell: [ls, -l]"], "p.yaml: steps[0].shell: expected text or nothing, got a list"),
        (["name: a, build: {package: ., out: x, arch: [mips]}"], "p.yaml: steps[0].build.arch[0]: invalid enum value"),
        (["name: a, compare: {reports: [b]}, makes: [x]"], "the step a has `makes`"),
    ],
)
def test_what_a_pipeline_may_not_say(steps: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        pipeline_file.read(written(*steps))
    assert caught.value.message.startswith(message) and caught.value.hint


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["name: a, compare: {reports: [none]}"], "the step a: cannot read none: "),
        (["name: a, compare: {reports: []}"], "the step a: it has no reports, or the same one twice"),
        (["name: a, compare: {reports: [x], margin: 0%}"], "the step a: a margin must be above 0"),
        (["name: a, compare: {reports: [x], margin: '5'}"], "the step a: cannot read margin: '5' is not a percentage"),
        (["name: a, reproduce: {report: none}"], "the step a: cannot read none: "),
        (
            [f"name: m, baseline: {MEASURED}", "name: a, compare: {reports: [m]}"],
            "the step a: it uses the report of m, which is not in its needs",
        ),
        ([f"name: a, baseline: {MEASURED.replace('true', './none')}"], "the step a: there is no command './none'"),
        ([f"name: a, baseline: {MEASURED.replace('wrk', 'wrkk')}"], "the step a: 'wrkk' is not a supported load tool"),
        (
            ["name: b, shell: x, makes: [true]", f"name: a, baseline: {MEASURED}"],
            "the step a: it uses true, which the step b makes",
        ),
        (["name: a, shell: x, makes: [f]", "name: b, shell: x, makes: [./f]"], "the steps a and b write the same file"),
        (["name: a, shell: x, makes: [p.yaml]"], "the step a: p.yaml already exists"),
        (["name: a, shell: x, files: [none]"], "the step a: there is no file 'none'"),
        (["name: a, build: {package: ., out: x, dir: none}"], "the step a: there is no folder 'none'"),
        (["name: a, build: {package: ., out: x, arch: [amd64, arm64]}"], "the step a: it builds several"),
        (["name: a, build: {package: ., out: x, arch: [amd64], smoke: {arm64: [x]}}"], "the step a: smoke names arm64"),
    ],
)
def test_what_is_known_before_anything_is_started(steps: list[str], message: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", f"{targets.go(targets.NEWEST).parent}:{os.environ['PATH']}")
    if "write the same" not in message and "makes: [true]" in steps[0]:
        steps = [steps[0].replace("makes: [true]", 'makes: ["true"]'), *steps[1:]]
    with pytest.raises(UsageError) as caught:
        resolved(*steps)
    assert caught.value.message.startswith(message) and caught.value.hint
    assert not Path("out").exists()


def test_no_go(monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="there is no command 'go'"):
        resolved("name: a, build: {package: ., out: x}")


# --- Steps


def test_each_step_comes_after_what_it_needs() -> None:
    steps = [
        "name: c, needs: [b, a], shell: echo c >> log",
        "name: a, shell: echo a >> log",
        "name: b, needs: [a], shell: echo b >> log",
    ]
    assert ran(*steps) == (0, ["a", "b", "c"])
    assert Path("log").read_text().split() == ["a", "b", "c"]
    assert {name: state["status"] for name, state in states().items()} == dict.fromkeys("abc", "done")


def test_a_step_that_fails_is_the_last_one() -> None:
    steps = ["name: a, shell: echo out; echo wrong >&2; exit 7", "name: b, shell: touch b"]
    with pytest.raises(Exception, match="the step a: sh ended with status 7: wrong") as caught:
        ran(*steps)
    assert getattr(caught.value, "exit_code", 0) == 1 and not Path("b").exists()
    assert Path("out/a.log").read_text().splitlines()[:3] == [
        "$ /bin/sh -ec 'echo out; echo wrong >&2; exit 7'",
        "out",
        "wrong",
    ]
    assert (states()["a"]["status"], states()["a"]["exit_code"]) == ("failed", 1)


def test_what_a_shell_step_promises_has_to_be_there() -> None:
    with pytest.raises(Exception, match="the step a: it did not create x"):
        ran("name: a, shell: echo, makes: [x]")


def test_what_is_done_is_not_done_again() -> None:
    Path("in").write_text("1")
    steps = [
        "name: a, shell: cat in > one, files: [in], makes: [one]",
        "name: b, needs: [a], shell: cat one > two, makes: [two]",
        "name: c, shell: date > three, makes: [three]",
    ]
    assert ran(*steps) == (0, ["a", "b", "c"])
    with pytest.raises(UsageError, match="is from an earlier run"):
        resolved(*steps)
    assert ran(*steps, resume=True) == (0, [])
    Path("in").write_text("2")  # what a reads
    assert ran(*steps, resume=True) == (0, ["a", "b"]) and Path("two").read_text() == "2"
    Path("two").unlink()  # what b has made
    assert ran(*steps, resume=True) == (0, ["b"])
    Path("one").write_text("touched")
    assert ran(*steps, resume=True) == (0, ["a"])  # and it is what it was for b
    steps[2] = steps[2].replace("date", "date -u")
    assert ran(*steps, resume=True) == (0, ["c"])
    assert ran(*steps, force=True) == (0, ["a", "b", "c"])


def test_a_step_that_failed_is_tried_again() -> None:
    steps = ["name: a, shell: echo >> tries, makes: [tries]", "name: b, needs: [a], shell: test -e good"]
    with pytest.raises(Exception, match="the step b: sh ended with status 1"):
        ran(*steps)
    Path("good").touch()
    assert ran(*steps, resume=True) == (0, ["b"])
    assert Path("tries").read_text() == "\n"


def test_only_some_steps() -> None:
    steps = ["name: a, shell: echo a", "name: b, needs: [a], shell: echo b", "name: c, shell: echo c"]
    with pytest.raises(UsageError, match="the step b needs a, which is not done"):
        resolved(*steps, only=["b"])
    with pytest.raises(UsageError, match="there is no step 'd'"):
        resolved(*steps, only=["d"])
    assert ran(*steps, only=["c"]) == (0, ["c"])
    assert ran(*steps, only=["a"]) == (0, ["a"])
    assert ran(*steps, only=["b"]) == (0, ["b"])
    assert ran(*steps, resume=True) == (0, [])


def test_a_state_that_is_none_of_ours() -> None:
    Path("out").mkdir()
    for text in (
        "{",
        "[]",
        '{"schema": "gotrace.pipeline-state/9", "steps": {}}',
        '{"schema": "gotrace.pipeline-state/1"}',
    ):
        Path("out/pipeline.json").write_text(text)
        with pytest.raises(UsageError, match="was not written by this gotrace"):
            resolved("name: a, shell: echo", resume=True)


def test_builds(monkeypatch: Any) -> None:
    for name, value in targets.environment(targets.NEWEST).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{targets.go(targets.NEWEST).parent}:{os.environ['PATH']}")
    Path("cmd").mkdir()
    Path("cmd/main.go").write_text(MAIN % "one")
    Path("go.mod").write_text(GO_MOD)
    about = 'package: ./cmd, flags: [-ldflags=-s], arch: [amd64, arm64], out: "bin/{arch}/x"'
    steps = [
        f'name: a, build: {{{about}, smoke: {{amd64: ["{{out}}"], arm64: [test, -e, "{{out}}"]}}}}',
        "name: b, needs: [a], shell: date > x, files: [bin/amd64/x], makes: [x]",
    ]
    assert ran(*steps) == (0, ["a", "b"])
    machines = [Path(f"bin/{arch}/x").read_bytes()[18] for arch in ("amd64", "arm64")]
    assert machines == [62, 183]  # e_machine: EM_X86_64, EM_AARCH64
    host = targets.HOST_ARCH
    told = [{"arch": arch, "emulated": arch != host, "ended": 0} for arch in ("amd64", "arm64")]
    assert states()["a"]["data"] == {"smoke": told}
    assert ran(*steps, resume=True) == (0, [])
    Path("cmd/main.go").write_text("// A comment.\n" + MAIN % "one")
    assert ran(*steps, resume=True)[1][0] == "a"
    Path("cmd/main.go").write_text(MAIN % "two")
    assert ran(*steps, resume=True) == (0, ["a", "b"])
    Path("cmd/main.go").write_text("package main\n\nfunc main() { x }\n")
    with pytest.raises(Exception, match="the step a: go ended with status 1"):
        ran(*steps, resume=True)
    assert "undefined: x" in Path("out/a.log").read_text()


def reported(name: str, versions: dict[str, dict[str, float]], spread: float = 0.005) -> None:
    Path(name).mkdir()
    Path(name, "report.json").write_text(json.dumps(report(versions, 12, spread)))


def test_comparisons_and_gates() -> None:
    reported("both", {"old": {}, "new": {"latency.p50": 1.2}})
    reported("same", {"old": {}, "new": {}})
    reported("noisy", {"old": {}, "new": {}}, 0.5)
    compared = "name: c, compare: {reports: [both]}"
    assert ran(compared) == (0, ["c"])
    assert "  worse: latency.p50" in states()["c"]["lines"]
    (told,) = json.loads(Path("out/c/compare.json").read_text())["comparisons"]
    assert {row["metric"]: row["verdict"] for row in told["metrics"]}["latency.p50"] == "worse"
    after = "name: z, needs: [g], shell: touch z"
    for rule, status, verdict in (
        ("report: same", 0, "pass"),
        ("report: same, margin: 0.1%", 3, "inconclusive"),
        ("report: same, margin: 0.1%, inconclusive: pass", 0, "inconclusive"),
        ("report: both", 1, "fail"),
        ("report: both, margin: 40%", 0, "pass"),
        ("report: noisy", 3, "inconclusive"),
        ("report: same, require: [latency.p50 <= 1ms]", 0, "pass"),
        ("report: same, require: [latency.p50 <= 100us]", 1, "fail"),
    ):
        Path("z").unlink(missing_ok=True)
        found, done = ran(f"name: g, gate: {{{rule}}}", after, force=True)
        assert (found, json.loads(Path("out/g/gate.json").read_text())["verdict"]) == (status, verdict), rule
        assert done == ["g", "z"][: 1 if status else 2] and Path("z").exists() == (status == 0)
        assert (states()["g"]["status"], states()["g"]["exit_code"]) == ("failed" if status else "done", status)


def test_a_gate_by_rules_in_a_file() -> None:
    reported("same", {"old": {}, "new": {}})
    reported("other", {"s": {}})
    Path("gate.yaml").write_text("schema: gotrace.gate/1\nmetrics: {latency.p50: {margin: 5%}}\n")
    step = "name: g, gate: {report: same, file: gate.yaml}"
    assert ran(step) == (0, ["g"]) and ran(step, resume=True) == (0, [])
    Path("gate.yaml").write_text("schema: gotrace.gate/1\nmetrics: {latency.p50: {margin: 0.1%}}\n")
    assert ran(step, resume=True)[1] == ["g"]
    for gate, message in (
        ("report: same, file: none", "the step g: cannot read none"),
        ("report: same, file: gate.yaml, margin: 5%", "the step g: margin and file are mutually exclusive"),
        ("report: same, require: [x]", "the step g: "),
        ("report: same, margin: 0%", "the step g: a margin must be above 0"),
        ("report: other, against: other", "the step g: a report was given twice"),
        ("report: none", "the step g: cannot read none"),
    ):
        with pytest.raises(UsageError) as caught:
            resolved(f"name: g, gate: {{{gate}}}", force=True)
        assert caught.value.message.startswith(message)


def test_reports_that_are_not_comparable_end_with_4() -> None:
    for name, host in (("a", "x"), ("b", "y")):
        reported(name, {"s": {}})
        told = json.loads(Path(name, "report.json").read_text())
        told["host"]["host_class"] = host
        Path(name, "report.json").write_text(json.dumps(told))
    for step in ("compare: {reports: [a, b]}", "gate: {report: a, against: b}"):
        with pytest.raises(NotComparableError) as caught:
            ran(f"name: s, {step}", force=True)
        assert caught.value.exit_code == states()["s"]["exit_code"] == 4


# --- Plans


def test_a_plan_in_a_file() -> None:
    Path("plan.yaml").write_text(
        "schema: gotrace.plan/1\n"
        + PLAN
        + "runs: 3\npreload: 1m30s\ncpus: 0-1\nload_cpus: '1'\nmax_drift: 4.5%\nexplain: true\nseed: 7\nready: tcp:99\n"
        + "events: true\nwakeups: true\ncoldstart: true\n"
    )
    load = parse_load(["wrk", "-c2", "-d30s", "http://127.0.0.1:8080/ping"])
    versions = (Version("server", ("true", "--port", "8080")),)
    more = dict.fromkeys(("events", "wakeups", "coldstart"), True)
    expected = Plan(versions, load, 3, 90 * 10**9, Ready("127.0.0.1", 99), 7, (0, 1), (1,), 0.045, 5, **more)  # type: ignore[arg-type]
    assert plan_file.read("plan.yaml") == expected
    Path("plan.yaml").write_text("schema: gotrace.plan/1\n" + PLAN)
    found = plan_file.read("plan.yaml")
    assert (found.runs, found.warmup_ns, found.most_drift, str(found.ready)) == (10, 5 * 10**9, 0.03, "tcp:127.0.0.1:8080")
    assert not found.flame


def test_builds_and_containers_in_a_file() -> None:
    Path("plan.yaml").write_text(
        "schema: gotrace.plan/1\nload: {tool: wrk, args: ['http://127.0.0.1:8080/']}\npprof: http://127.0.0.1:8080/\n"
        "versions:\n"
        "  a: {build: {package: ./cmd/s, flags: [-trimpath]}, args: [-v]}\n"
        "  b: {container: {image: 's:1', cpus: 3.5, memory: 7g, options: [--env=A=1], tool: [nerdctl]}, args: [-v]}\n"
    )
    found = plan_file.read("plan.yaml")
    assert found.versions == (
        Version("a", ("./cmd/s", "-v"), Build("./cmd/s", ("-trimpath",))),
        Version("b", ("-v",), container=Container("s:1", ("nerdctl",), "7g", 3.5, ("--env=A=1",))),
    )
    assert found.flame and found.pprof == "http://127.0.0.1:8080/debug/pprof/heap"
    for wrong, message in (
        ("{}", "'a' needs a name, and one of command, build and container"),
        ("{command: [a], build: {package: .}}", "one of command, build and container"),
        ("{command: [a], args: [-v]}", "has args besides its command"),
        ("{build: {package: ''}}", "a build without a package"),
        ("{container: {image: a, cpu: 1}}", "container: there is no key 'cpu'"),
        ("{container: {image: a, cpus: many}}", "container.cpus: expected"),
    ):
        Path("plan.yaml").write_text(
            f"schema: gotrace.plan/1\nload: {{tool: wrk, args: ['http://h:1/']}}\nversions: {{a: {wrong}}}\n"
        )
        with pytest.raises(UsageError) as caught:
            plan_file.read("plan.yaml")
        assert message in caught.value.message, caught.value.message


def test_sources_of_a_build_that_is_measured_and_an_image_that_a_step_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is done again where these have changed."""
    Path("podman").write_text("#!/bin/sh\ntest -e image && echo '[{\"Id\": \"'$(cat image)'\"}]'\n")
    Path("podman").chmod(0o755)
    tool = str(Path("podman").absolute())
    for name, text in (("go.mod", GO_MOD), ("main.go", MAIN % 1)):
        Path(name).write_text(text)
    monkeypatch.setenv("PATH", f"{targets.go(targets.NEWEST).parent}:{os.environ['PATH']}")
    load = 'load: {tool: wrk, args: ["http://127.0.0.1:1/"]}'
    versions = f"{{a: {{build: {{package: .}}}}, b: {{container: {{image: s, tool: ['{tool}']}}}}}}"
    steps = ["name: make, shell: echo 7 > image", f"name: m, needs: [make], baseline: {{versions: {versions}, {load}}}"]
    work = resolved(*steps).works["m"]
    assert {Path(path).name for path in work.files()} == {"go.mod", "main.go"}
    assert work.others() == [""]
    Path("image").write_text("7")
    assert work.others() == ["7"]
    assert any("built: go build -o" in line for line in work.describe())
    Path("image").unlink()
    with pytest.raises(UsageError, match="podman image failed"):
        resolved(steps[1].replace("needs: [make], ", ""))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("runs: 0", "runs: 0 is out of range"),
        ("preload: soon", "cannot read preload: 'soon' is not a duration"),
        ("max_drift: '3'", "cannot read max_drift: '3' is not a percentage"),
        ("cpus: x", "cannot read cpus 'x'"),
        ("ready: x", "cannot read --ready 'x'"),
        ("run: 3", "plan.yaml: there is no key 'run'"),
    ],
)
def test_plans_that_cannot_be_meant(more: str, message: str) -> None:
    Path("plan.yaml").write_text(f"schema: gotrace.plan/1\n{PLAN}{more}\n")
    with pytest.raises(UsageError) as caught:
        plan_file.read("plan.yaml")
    assert caught.value.message.startswith(message)


@needs_wrk
def test_a_baseline_by_a_plan_in_a_file(gotrace: Callable[..., Any]) -> None:
    Path("plan.yaml").write_text("schema: gotrace.plan/1\n" + PLAN + "runs: 3\n")
    load = "wrk -c2 -d30s http://127.0.0.1:8080/ping"
    options = ["--load", load, "-n", "3", "--ab", "server=true --port 8080"]
    by_file = gotrace("baseline", "-f", "plan.yaml", "--out", "x", "--dry-run")
    assert by_file.returncode == 0 and by_file.stdout == gotrace("baseline", *options, "--out", "x", "--dry-run").stdout
    for more, message in (
        (["-n", "3"], "--runs and --file are mutually exclusive"),
        (["--", "true"], "a command and --file are mutually exclusive"),
    ):
        done = gotrace("baseline", "-f", "plan.yaml", "--out", "x", "--dry-run", *more)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    done = gotrace("baseline", "--out", "x", "--", "true")
    assert done.returncode == 2 and "give a load with --load" in done.stderr


def test_times_of_an_emulated_machine_are_compared_with_nothing() -> None:
    plan = {"load": ["wrk"], "warmup_ns": 0, "cpus": [], "load_cpus": [], "explained": 0, "emulated": True}
    report: Any = {"host": {"host_class": "x"}, "plan": plan, "versions": [{"name": "s"}], "runs": []}
    with pytest.raises(NotComparableError, match="emulated machine"):
        require_comparable(*sides_of([("a", report), ("b", report)]))


# --- The command


@needs_wrk
def test_a_dry_run_starts_nothing(gotrace: Callable[..., Any]) -> None:
    path = written(
        f"name: measure, baseline: {MEASURED}",
        "name: compare, needs: [measure], compare: {reports: [measure], margin: 3%}",
        "name: again, needs: [measure], reproduce: {report: measure}",
        "name: tell, needs: [compare], shell: touch told",
    )
    done = gotrace("run", path, "--dry-run")
    assert done.returncode == 0, done.stderr
    for line in (
        "1. measure: baseline",
        "   version server: true --port 8080",
        "   load: wrk -c2 -d30s http://127.0.0.1:8080/ping",
        "   writes: out/measure/report.json",
        "2. compare: compare, after measure",
        "   compares out/measure within 3%",
        "   repeats out/measure, the same within 3%",
        "   /bin/sh -ec 'touch told'",
        "takes: about 13 min, and 1 step of unknown duration",
        "gotrace doctor:",
        "host:",
    ):
        assert f"{line}\n" in done.stdout, line
    assert sorted(os.listdir()) == ["p.yaml"]


def test_names_that_would_act_on_a_terminal(gotrace: Callable[..., Any]) -> None:
    path = written('name: a, shell: "echo \\e[31mred"')
    done = gotrace("run", path, "--dry-run")
    assert done.returncode == 0 and "\x1b" not in done.stdout and "\\x1b[31mred" in done.stdout


def test_on_the_command_line(gotrace: Callable[..., Any]) -> None:
    path = written("name: a, shell: echo", "name: b, shell: exit 3")
    done = gotrace("run", path)
    assert done.returncode == 1 and done.stderr.splitlines()[-2].startswith("gotrace: the step b: sh ended with status 3")
    assert gotrace("run", path).returncode == 2
    for arguments in (("none.yaml",), (path, "--only", "x"), (path, "--force", "--resume", "--nope"), ()):
        done = gotrace("run", *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
    Path(path).write_text(HEAD + "steps: [")
    done = gotrace("run", path)
    assert done.returncode == 2 and "p.yaml, line 2: " in done.stderr


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_an_interrupted_step_is_ended_and_begins_anew(number: int, tmp_path: Path) -> None:
    path = written(
        "name: a, shell: echo > a, makes: [a]", "name: b, needs: [a], shell: echo $$ > pid; sleep 1000 & sleep 1000"
    )
    with subprocess.Popen([*GOTRACE, "run", path], stderr=subprocess.PIPE, text=True) as process:
        until(lambda: Path("pid").exists() and Path("pid").read_text().strip(), 60)
        shell = int(Path("pid").read_text())
        time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    until(lambda: not _group(shell))
    assert states()["b"]["status"] == "interrupted" and states()["a"]["status"] == "done"
    steps = ("name: a, shell: echo > a, makes: [a]", "name: b, needs: [a], shell: echo")
    assert ran(*steps, resume=True) == (0, ["b"])


def _group(leader: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def test_topologies() -> None:
    samples = Path(__file__).parents[1] / "testdata" / "topo"

    def checked(files: str, more: str = "") -> tuple[int, list[str]]:
        lines: list[str] = []
        step = resolved(f"name: it, topo: {{read: [{files}]{more}}}", force=True)
        return pipeline.run(step, ended=lambda _, result: lines.extend(result.lines)), lines

    assert checked(f"{samples}/a100-8gpu-narrow-columns.txt") == (0, ["nothing is wrong"])
    (found,) = json.loads(Path("out/it/topo.json").read_text())
    assert found["type"] == "topology" and len(found["gpus"]) == 8
    status, lines = checked(f"{samples}/ibstat-sriov-initializing.txt")
    assert status == 1 and "mlx5_5 port 1 is Initializing" in lines[0] and "subnet manager" in lines[0]
    files = f"{samples}/a100-8gpu-narrow-columns.txt, {samples}/h100-8gpu-narrow-columns.txt"
    assert checked(files, ", nodes: true")[0] == 1
    with pytest.raises(UsageError, match="there is no file 'none.txt'"):
        checked("none.txt")


def test_commands_that_are_followed() -> None:
    keys = "command: ['true', x], duration: 3s, dataset: [/a/**, /b], epoch: 10s"
    step = resolved(f"name: it, datapath: {{{keys}}}").works["it"]
    assert [*step.describe()] == ["traces the calls on files of: true x"] and step.estimated_ns() == 3_000_000_000
    assert [path.name for path in step.outputs()] == ["datapath.json", "datapath.html", "datapath.gotrace"]
    for keys, message in (
        ("command: []", "it has no command"),
        ("command: [no-such-command]", "there is no command 'no-such-command'"),
        ("command: ['true'], by: fish", "fish"),
        ("command: ['true'], duration: x", "duration"),
        ("command: ['true'], epoch: '('", "epoch is not a valid RE2 regular expression"),
    ):
        with pytest.raises(UsageError, match=message):
            resolved(f"name: it, datapath: {{{keys}}}")
