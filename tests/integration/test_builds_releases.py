"""Go commands of each release against what they print (-x), their graph, a proxy's log and the programs they run."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import re
import subprocess
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S

pytestmark = pytest.mark.bpf

APP, DEP = "example.com/app", "example.org/Dep"
SLEPT_NS = 20_000_000
SOURCES = {
    "go.mod": f"module {APP}\n\ngo 1.19\n",
    "main.go": f"""package main

//go:generate go run -x ./gen

import "{APP}/lib"

func main() {{ println(lib.F(2)) }}
""",
    "lib/lib.go": "package lib\n\nfunc F(a int) int { return a + 1 }\n",
    "gen/gen.go": f"""package main

import (
	"{APP}/lib"
	"time"
)

func main() {{
	begin := time.Now()
	time.Sleep({SLEPT_NS})
	println("RAN", time.Since(begin).Nanoseconds(), lib.F(1))
}}
""",
    "dep/go.mod": f"module example.com/dep\n\ngo 1.19\n\nrequire {DEP} v1.0.0\n",
    "lib/lib_test.go": f"""package lib

import (
	"testing"
	"time"
)

func TestF(t *testing.T) {{
	begin := time.Now()
	time.Sleep({SLEPT_NS})
	println("RAN", time.Since(begin).Nanoseconds())
}}
""",
}


class Proxy(http.server.ThreadingHTTPServer):
    """A module proxy for one module, which notes when it was asked for what and when it had answered."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.log: dict[str, tuple[int, int]] = {}
        packed = io.BytesIO()
        mod = f"module {DEP}\n\ngo 1.19\n"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(f"{DEP}@v1.0.0/go.mod", mod)
            archive.writestr(f"{DEP}@v1.0.0/a.go", "package dep\n")
        self.answers = {"info": b'{"Version": "v1.0.0"}', "mod": mod.encode(), "zip": packed.getvalue()}


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        begin = time.monotonic_ns()
        found = self.server.answers.get(self.path.rpartition(".")[2]) if "/example.org/" in self.path else None
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(found or b"")
        self.server.log[self.path.rpartition(".")[2]] = begin, time.monotonic_ns()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def written(folder: Path) -> None:
    for name, text in SOURCES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def traced(folder: Path, script: str, env: dict[str, str]) -> tuple[dict, str]:
    """The build, and what the commands printed."""
    result = folder / "build.json"
    done = subprocess.run(
        [*GOTRACE, "coldstart", "--tree", "--force", "-o", str(result), "--", "sh", "-ec", script],
        capture_output=True, text=True, env=env, cwd=folder, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    build, summary = json.loads(result.read_text())
    assert summary["lost"] == build["unread"] == build["cut"] == 0
    return build, done.stdout + done.stderr


def steps(build: dict, stage: str) -> list[dict]:
    return [step for step in build["steps"] if step["stage"] == stage]


def agrees(build: dict, printed: str) -> None:
    """As many tools ran as were printed before they were run."""
    tools = Counter(re.findall(r"^[^#\n]*/pkg/tool/\w+/(compile|asm|link|vet) ", printed, re.MULTILINE))
    of = {"compile": "compile", "asm": "assemble", "link": "link", "vet": "vet"}
    assert {tool: len(steps(build, stage)) for tool, stage in of.items()} == {tool: tools[tool] for tool in of}
    ran = [int(ns) for ns in re.findall(r"^RAN (\d+)", printed, re.MULTILINE)]
    runs = steps(build, "run")
    assert len(runs) == len(ran) and all(step["exit_code"] == 0 for step in runs)
    for step, slept in zip(runs, ran, strict=True):  # one after the other
        assert SLEPT_NS <= slept <= step["duration_ns"]


@pytest.mark.parametrize("version", targets.MATRIX)
def test_every_release_and_command(version, tmp_path):
    """The second run of a program has it from the cache from Go 1.24 on."""
    written(tmp_path)
    graph = tmp_path / "graph.json"
    go = targets.go(version)
    script = f"""
{go} build -x -debug-actiongraph={graph} -o out .
{go} run -x ./gen; {go} run -x ./gen
{go} generate -x .
{go} install -x .
cd dep; GOPROXY=$PROXY {go} mod download {DEP}
"""
    with proxy() as server:
        env = {
            **targets.environment(version), "PATH": f"{go.parent}:/usr/bin:/bin", "GOBIN": str(tmp_path / "bin"),
            "PROXY": f"http://127.0.0.1:{server.server_port}", "GOSUMDB": "off", "GOMODCACHE": str(tmp_path / "mod"),
            "GOFLAGS": "-mod=mod -modcacherw",
        }  # fmt: skip
        build, printed = traced(tmp_path, script, env)
    agrees(build, printed)
    built = {each["Package"] for each in json.loads(graph.read_text()) if "compile" in "".join(each.get("Cmd") or ())}
    assert {APP, f"{APP}/lib"} <= built <= set(build["compiled"]) | {APP}
    assert set(build["compiled"]) - built == {f"{APP}/gen"}
    links = Counter(step["name"] for step in steps(build, "link"))
    assert links[APP] == 2 and links[f"{APP}/gen"] == (1 if int(version.split(".")[1]) >= 24 else 3)
    assert [step["name"] for step in steps(build, "run")] == ["gen"] * 3
    (download,), (unzip,) = steps(build, "download"), steps(build, "unzip")
    assert download["name"] == unzip["name"] == f"{DEP}@v1.0.0" and build["mod_files"] == 1
    begin = build["monotonic_ns"] + download["begin_ns"]
    asked, _ = server.log["zip"]
    assert begin <= asked <= begin + download["duration_ns"] and set(server.log) == {"info", "mod", "zip"}


@pytest.mark.parametrize("version", [targets.NEWEST])
def test_tests_and_vets(version, tmp_path):
    """A test waits for its program and for the vet of its package; the second time its result is the go command's own."""
    written(tmp_path)
    go = targets.go(version)
    build, printed = traced(tmp_path, f"{go} test -v -x ./lib", targets.environment(version))
    agrees(build, printed)
    (run,), (link,) = steps(build, "run"), steps(build, "link")
    (took,) = re.findall(r"^ok\s+\S+\s+([\d.]+)s$", printed, re.MULTILINE)
    assert run["duration_ns"] / 1e9 <= float(took) + 0.001
    assert link["name"] == f"{APP}/lib.test" and run["name"] == "lib.test"
    before, last = build["chain"][-2:]
    assert last["stage"] == "run" and before["name"] == {"link": f"{APP}/lib.test", "vet": f"{APP}/lib"}[before["stage"]]
    again, printed = traced(tmp_path, f"{go} test -v -x ./lib; {go} vet -x ./lib", targets.environment(version))
    assert "(cached)" in printed and not steps(again, "run")
    agrees(again, printed.replace("RAN", "ran before"))
