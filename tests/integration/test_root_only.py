"""gotrace where only root can read it: what is needed after root was given back was read before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import targets
from conftest import PATIENCE_S

pytestmark = pytest.mark.bpf

ROOT = Path(__file__).parents[2]
NOBODY = 65534
# As they are in `install_requires`, by the names that they are imported by.
LIBRARIES = ("arro3", "backports", "capstone", "click", "hdrh", "pyhdrh", "nanoarrow", "numpy", "google", "rich")
# Of each command that gives root back: its arguments. One function makes those that print raw events.
FILES = {
    "gc": ["gc", *(f"-ogc.{ending}" for ending in ("txt", "ndjson", "json", "hlog", "hgrm"))],
    "gc-explain": ["gc", "--explain", "-orun.gotrace"],
    "record": ["record", "--probes", "gc,tail", "-orecorded.gotrace"],
    "raw": ["tail", "-oevents.ndjson"],
    "flame": ["flame", *(f"-oflame.{ending}" for ending in ("svg", "html", "folded", "pb.gz", "speedscope.json"))],
}


@pytest.fixture(scope="module")
def folders() -> Iterator[tuple[Path, Path]]:
    """The installation, in a folder of root's alone, and a folder of nobody's for what is written."""
    top = Path(tempfile.mkdtemp(prefix="gotrace-root-only-"))
    top.chmod(0o755)
    installed, out = top / "installed", top / "out"
    installed.mkdir(mode=0o700)
    for folder, place in (("gotrace", ""), ("cli", "cli"), ("probes", "probes"), ("ebpf", "ebpf")):
        shutil.copytree(ROOT / folder, installed / "gotrace" / place, dirs_exist_ok=True)
    for name in LIBRARIES:
        spec = find_spec(name)
        if spec is not None:  # backports are for old Pythons, pyhdrh is where it was compiled
            for place in spec.submodule_search_locations or [spec.origin]:
                assert place is not None
                (installed / Path(place).name).symlink_to(place)
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    yield installed, out
    shutil.rmtree(top)


Run = Callable[..., tuple[int, str, str, int]]


@pytest.fixture
def run(folders: tuple[Path, Path], start) -> Run:
    """run(*arguments) -> (status, standard output, standard error, cycles) of a command through sudo.

    So many cycles its target counted itself.
    """
    installed, out = folders

    def run(*arguments: str, cwd: Path = out) -> tuple[int, str, str, int]:
        environment = {
            **os.environ,
            "GOTRACE_DEBUG": "1",
            "SUDO_UID": str(NOBODY),
            "SUDO_GID": str(NOBODY),
            "PYTHONPATH": str(installed),
        }
        target = start(targets.build("gcload"), "-cycles", "60", "-workers", "1")
        command = [sys._base_executable, "-S", "-m", "gotrace.cli", *arguments, "--pid", str(target.pid)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=environment, cwd=cwd, text=True, **pipes) as process:
            head = process.stderr.readline()
            assert head.startswith("Tracing pid"), head + process.stderr.read()
            target.go()
            cycles = target.truth()["NumGC"]
            target.finish()
            stdout, stderr = process.communicate(timeout=PATIENCE_S)
        return process.returncode, stdout, stderr, cycles

    return run


def test_every_command_that_gives_root_back_is_here() -> None:
    sources = (path for folder in ("cli", "gotrace") for path in (ROOT / folder).rglob("*.py"))
    gives = {path.stem for path in sources if "gives_root_back=True" in path.read_text()}
    assert gives == {"flames" if name == "flame" else name.partition("-")[0] for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_what_it_writes(name: str, run: Run, folders: tuple[Path, Path], gotrace) -> None:
    _, out = folders
    status, stdout, stderr, last = run(*FILES[name])
    assert status == 0, stderr
    found = {}
    for path in (out / argument.removeprefix("-o") for argument in FILES[name] if argument.startswith("-o")):
        assert path.stat().st_uid == NOBODY and path.stat().st_size > 0, path
        if path.suffix == ".gotrace":
            found[path.name] = json.loads(gotrace("report", str(path), "--format", "json").stdout)
        elif path.suffix == ".json" and name == "gc":
            found[path.name] = json.loads(path.read_text())
        elif path.suffix == ".ndjson":
            found[path.name] = [json.loads(line) for line in path.read_text().splitlines()]
    for records in found.values():
        cycles = [each["cycle"] for each in records if each["type"] == "cycle"]
        if name != "raw":
            assert cycles == list(range(cycles[0], last + 1)) and len(cycles) >= 60
            assert records[-1]["events"]["lost"] == 0
        else:
            assert records[-1]["received"] > 0 and records[-1]["lost"] == 0
    if name.startswith("gc"):
        assert "GC mark termination" in stdout + (out / "gc.txt").read_text()


def test_what_goes_wrong_is_still_said(run: Run, folders: tuple[Path, Path]) -> None:
    top = folders[0].parent
    status, _, stderr, _ = run("gc", "-orun.ndjson", cwd=top)
    assert status == 1 and not (top / "run.ndjson").exists()
    *_, what, hint = stderr.splitlines()
    assert what == "gotrace: cannot write run.ndjson: Permission denied"
    assert hint == "  hint: choose an existing directory that you can write to"
