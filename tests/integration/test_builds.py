"""Builds by a go command against what that says itself (-debug-actiongraph, its caches), strace and the clock."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import time
import zipfile
from datetime import datetime
from pathlib import Path

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, until
from services import names_with

pytestmark = pytest.mark.bpf

VERSIONS = tuple(dict.fromkeys((targets.MATRIX[0], targets.NEWEST)))
APP, COSTLY, DEPS = "example.com/app", "example.com/app/costly", ("example.org/one", "example.org/Two")
SOURCES = {
    "go.mod": f"module {APP}\n\ngo 1.19\n\nrequire (\n" + "".join(f"\t{dep} v1.0.0\n" for dep in DEPS) + ")\n",
    "main.go": """package main

import (
	"errors"
	"example.com/app/costly"
	"example.org/Two"
	"example.org/one"
)

func main() { println(errors.New(one.Name+two.Name).Error(), costly.F0(1)) }
""",
    # far more than any other package that is not of the standard library
    "costly/costly.go": "package costly\n\n"
    + "".join(f"func F{n}(a int) int {{ for i := 0; i < a; i++ {{ a ^= i*{n} + a%7 }}; return a }}\n" for n in range(6000)),
    "inc/inc.go": """package main

// int twice(int n) { return 2 * n; }
import "C"

func main() { println(C.twice(2)) }
""",
}


class Module:
    """A module, a proxy with what it requires, and caches of its own that are empty at first."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder = folder / "app"
        for name, text in SOURCES.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for dep in DEPS:
            escaped = re.sub("[A-Z]", lambda match: "!" + match[0].lower(), dep)
            at = folder / "proxy" / escaped / "@v"
            at.mkdir(parents=True)
            mod = f"module {dep}\n\ngo 1.19\n"
            (at / "v1.0.0.info").write_text('{"Version": "v1.0.0"}')
            (at / "v1.0.0.mod").write_text(mod)
            name = dep.rpartition("/")[2].lower()
            with zipfile.ZipFile(at / "v1.0.0.zip", "w") as archive:
                archive.writestr(f"{dep}@v1.0.0/go.mod", mod)
                archive.writestr(f"{dep}@v1.0.0/a.go", f'package {name}\n\nconst Name = "{name}"\n')
        self.caches = folder / "cache", folder / "mod"
        self.env = {
            **targets.environment(version, cgo=True),
            "GOCACHE": str(self.caches[0]),
            "GOMODCACHE": str(self.caches[1]),
            "GOFLAGS": "-mod=mod -modcacherw",
            "GOPROXY": f"file://{folder}/proxy",
            "GOSUMDB": "off",
        }
        self.go = str(targets.go(version))

    def change(self, name: str, text: str) -> None:
        with open(self.folder / name, "a") as file:
            file.write(text)

    def entries(self) -> int:
        return len(list(self.caches[0].glob("*/*-a")))

    def traced(self, *command: str, options: tuple[str, ...] = (), status: int = 0) -> list[dict]:
        done = subprocess.run(
            [*GOTRACE, "coldstart", "--format", "json", *options, "--", *command],
            capture_output=True, text=True, env=self.env, cwd=self.folder, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
        self.stdout, _, text = done.stdout.partition("[\n{")  # the command's own comes first
        found = json.loads("[{" + text)
        assert found[-1]["lost"] == 0 and all(build["unread"] == build["cut"] == 0 for build in found[:-1])
        return found


class Graph:
    """What the go command says of its actions; those without a command had nothing to do."""

    def __init__(self, path: Path) -> None:
        actions = json.loads(path.read_text())
        self.all = {each["Package"]: each for each in actions if each["Mode"] == "build" and each["Package"] != "unsafe"}
        self.built = {
            name: each for name, each in self.all.items() if any("compile" in cmd for cmd in each.get("Cmd") or ())
        }
        self.link = next(each for each in actions if each["Mode"] == "link")


def seconds(build: dict, name: str, *stages: str) -> tuple[float, float]:
    """(wall, CPU) of all steps of a package."""
    steps = [step for step in build["steps"] if step["name"] == name and step["stage"] in stages]
    assert steps and all(step["exit_code"] == 0 for step in steps)
    return sum(step["duration_ns"] for step in steps) / 1e9, sum(step["cpu_ns"] for step in steps) / 1e9


def agrees(build: dict, action: dict, *stages: str) -> None:
    """The go command's clock begins before the fork and ends after the wait, for each of its commands."""
    wall, cpu = seconds(build, action["Package"], *stages)
    theirs, used = action["CmdReal"] / 1e9, (action.get("CmdUser", 0) + action.get("CmdSys", 0)) / 1e9
    assert wall <= theirs + 0.001
    assert wall >= 0.7 * theirs - 0.05 * len(action["Cmd"]), action["Package"]  # waits for a CPU between the two
    assert abs(cpu - used) <= max(0.03, 0.1 * used), action["Package"]


def moment(text: str) -> datetime:
    """Go's nanoseconds have as many digits as they need, Python 3.10's microseconds six."""
    whole, _, rest = text.partition(".")
    digits = re.match(r"\d*", rest)[0]
    return datetime.fromisoformat(f"{whole[:19]}.{digits[:6]:0<6}")


def chain_is_of_dependencies(build: dict, graph: Graph) -> None:
    """Each step was given what the one before it made, which was done last of all that it was given."""
    numbers = {each["ID"]: name for name, each in graph.built.items()}
    for before, after in itertools.pairwise(build["chain"]):
        action = graph.link if after["stage"] == "link" else graph.built[after["name"]]
        given = [graph.built[numbers[dep]] for dep in action["Deps"] if dep in numbers]
        done = {each["Package"]: moment(each["TimeDone"]) for each in given}
        assert (max(done.values()) - done[before["name"]]).total_seconds() < 0.05, (before["name"], after["name"])


@pytest.fixture(scope="module", params=VERSIONS)
def built(request, tmp_path_factory):
    """A module that was built with empty caches and then with one change, recorded."""
    folder = tmp_path_factory.mktemp("build")
    module = Module(folder, request.param)
    graphs, found = [], []
    for name in ("cold", "warm"):
        before = module.entries()
        graph, recording = folder / f"{name}.json", folder / f"{name}.gotrace"
        command = (module.go, "build", f"-debug-actiongraph={graph}", "-o", str(folder / "out"), ".")
        build, summary = module.traced(*command, options=("-o", str(recording)))
        assert build["cache_stored"] == module.entries() - before
        graphs.append(Graph(graph))
        found.append((build, summary))
        module.change("main.go", f"\nvar After{name} = 1\n")
    return module, folder, found, graphs


def test_packages_times_and_caches_are_the_go_commands_own(built):
    module, _, ((cold, _), (warm, _)), graphs = built
    for build, graph in zip((cold, warm), graphs, strict=True):
        assert set(build["compiled"]) == set(graph.built)
        assert {*build["cached"], *build["prebuilt"]} == set(graph.all) - set(graph.built)
        for action in graph.built.values():
            agrees(build, action, "compile", "assemble")
        agrees(build, graph.link, "link")
        assert [step["name"] for step in build["steps"] if step["stage"] == "link"] == [APP]
        whole = sum(item["alone_ns"] for item in build["items"] if not item["name"])
        assert whole <= build["total_ns"]
        assert build["chain"][-1]["stage"] == "link" and build["chain"][-2]["name"] == APP
    assert set(warm["compiled"]) == {APP} and COSTLY in warm["cached"]
    own = [each["name"] for each in cold["packages"] if "." in each["name"].partition("/")[0]]
    assert own[0] == COSTLY
    chain_is_of_dependencies(cold, graphs[0])
    # the modules: those that lie in the cache now
    there = {path.parent.parent.name: path for path in module.caches[1].glob("cache/download/**/*.zip")}
    for stage in ("download", "unzip"):
        names = [step["name"] for step in cold["steps"] if step["stage"] == stage and step["ended"]]
        assert sorted(names) == sorted(f"{dep}@v1.0.0" for dep in DEPS) and len(there) == len(names)
        assert not any(step["stage"] == stage for step in warm["steps"])


def test_compare_and_report_are_of_the_same_builds(built, gotrace):
    _, folder, found, _ = built
    paths = [str(folder / f"{name}.gotrace") for name in ("cold", "warm")]
    for path, (build, summary) in zip(paths, found, strict=True):
        told = json.loads(gotrace("report", "--format", "json", path).stdout)
        assert told[0] == build and told[1]["parts"] == summary["parts"]
    rows = json.loads(gotrace("coldstart", "compare", "--format", "json", *paths).stdout)["rows"]
    of = {(row["stage"], row["name"]): row for row in rows}
    costly = next(item for item in found[0][0]["items"] if item["name"] == COSTLY and item["stage"] == "compile")
    assert of["compile", COSTLY]["before"] == costly["wall_ns"] and of["compile", COSTLY]["after"] is None
    assert of["", "total"]["difference"] == found[1][0]["total_ns"] - found[0][0]["total_ns"]


def test_what_is_up_to_date_reads_the_entries_that_strace_sees(built, tmp_path):
    module, *_ = built
    command = [module.go, "build", "."]
    subprocess.run(command, env=module.env, cwd=module.folder, check=True)
    trace = tmp_path / "strace"
    subprocess.run(
        ["strace", "-ff", "-o", trace, "-e", "trace=openat", *command], env=module.env, cwd=module.folder, check=True
    )
    text = "".join(path.read_text() for path in tmp_path.glob("strace.*"))
    opened = re.findall(r'"([^"]*/[0-9a-f]{64}-a)", O_RDONLY[^=]*= (\S+)', text)
    begin = time.time_ns()
    clock = "date +%s%N; " + " ".join(command) + "; date +%s%N"
    build, _ = module.traced("sh", "-c", clock, options=("--tree",))
    assert build["cache_found"] == len({path for path, result in opened if result != "-1"})
    assert not build["compiled"] and build["cache_stored"] == 0
    assert all(step["name"] == APP for step in build["steps"] if step["stage"] == "link")
    first, last = map(int, module.stdout.split())
    assert last - first <= build["total_ns"] <= min(time.time_ns() - begin, last - first + 100_000_000)


def test_a_build_that_fails_is_told_with_what_was_seen(built):
    module, *_ = built
    path = module.folder / "costly" / "costly.go"
    text = path.read_text()
    try:
        module.change("costly/costly.go", "func broken() int { return missing }\n")
        done = subprocess.run([module.go, "build", "."], env=module.env, cwd=module.folder, capture_output=True)
        build, _ = module.traced(module.go, "build", ".", status=done.returncode)
    finally:
        path.write_text(text)
    assert build["exit_code"] == done.returncode != 0  # 2 before Go 1.20
    (failed,) = [step for step in build["steps"] if step["stage"] == "compile" and step["exit_code"]]
    assert failed["name"] == COSTLY and COSTLY not in build["compiled"]
    assert not any(step["stage"] == "link" for step in build["steps"])


def test_cgo_is_told_by_package(built):
    module, folder, *_ = built
    graph = folder / "cgo.json"
    build, _ = module.traced(module.go, "build", f"-debug-actiongraph={graph}", "-o", str(folder / "inc"), "./inc")
    name, graph = f"{APP}/inc", Graph(graph)
    assert set(build["compiled"]) == set(graph.built) and name in build["compiled"]
    stages = {step["stage"] for step in build["steps"] if step["name"] == name}
    assert {"cgo", "C toolchain", "compile", "link"} <= stages
    assert [step for step in build["steps"] if step["name"] == "unknown"] == []


def test_all_that_was_started_is_interrupted():
    """As by a terminal, whose Ctrl-C goes to every process: what a shell waits for does not outlive it."""
    length = f"{600 + os.getpid() / 1e7:.7f}"
    command = [*GOTRACE, "coldstart", "--tree", "--", "sh", "-c", f"sleep {length}; exit 5"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracing:
        until(lambda: "sleep" in names_with(length), PATIENCE_S)
        tracing.send_signal(signal.SIGINT)
        err = tracing.communicate(timeout=PATIENCE_S)[1]
    assert tracing.returncode == 128 + signal.SIGINT and "sleep" not in names_with(length), err
    assert "Ended: Ctrl-C." in err and re.search(r"^  sleep .* exit 130$", err, re.MULTILINE), err
    assert "command alone" in err and "go command" not in err and "packages" not in err


def test_runs_have_a_spread(built):
    module, *_ = built
    *builds, summary = module.traced(module.go, "build", ".", options=("-n", "3", "--warmup", "1"))
    total = next(part for part in summary["parts"] if part["name"] == "total")
    totals = sorted(build["total_ns"] for build in builds)
    assert len(builds) == 3 and total["median_ns"] == totals[1] and totals[0] <= total["median_low_ns"]
