"""What is installed is the tree: `pip install .`, an sdist's wheel, and `pip install -e .` give the same package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gotrace

ROOT = Path(__file__).parents[2]
MAPPED = {"gotrace": "gotrace", "cli": "gotrace/cli", "probes": "gotrace/probes", "ebpf": "gotrace/ebpf"}
MANUAL = "docs/man"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")

# Builds in the current folder, as pip would; the build backend leaves its own folders behind, so only in a copy.
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"


def build(kind: str, tree: Path, out: Path) -> Path:
    done = subprocess.run([sys.executable, "-c", BUILD, kind, out], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / done.stdout.splitlines()[-1]


def content(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("packaging") / "tree"
    copy.mkdir()
    for name in (*MAPPED, MANUAL):
        shutil.copytree(ROOT / name, copy / name, ignore=LEFT_OUT)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return build("wheel", tree, tree.parent)


def test_the_wheel_holds_the_tree(tree: Path, wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(tree / folder)}"
        for folder, package in MAPPED.items()
        for path in (tree / folder).rglob("*")
        if path.is_file()
    }
    data = f"gotrace-{gotrace.__version__}.data/data/share/man/man1"
    expected |= {f"{data}/{path.name}" for path in (tree / MANUAL).iterdir()}
    assert content(wheel) == expected


def test_the_sdist_makes_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-C", tmp_path, "-xf", build("sdist", tree, tmp_path)], check=True)
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    again = tmp_path / "again"
    again.mkdir()
    assert content(build("wheel", unpacked, again)) == content(wheel)


def modules(names: set[str]) -> list[str]:
    paths = (Path(name).with_suffix("") for name in names if name.endswith(".py"))
    return sorted(".".join(part for part in path.parts if part != "__init__") for path in paths if path.name != "__main__")


def test_every_installed_module_imports(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import importlib, os, sys\n"
        "for name in sys.argv[2:]: assert importlib.import_module(name).__file__.startswith(sys.argv[1]), name\n"
        "from gotrace.kernel.compiler import ebpf_folder\n"
        "from gotrace.probe import all_probes\n"
        "for stem in all_probes(): assert os.path.isfile(os.path.join(ebpf_folder(), f'{stem}.bpf.c')), stem\n"
        "assert str(ebpf_folder()).startswith(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, tmp_path, *modules(content(wheel))]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_checkout_is_what_the_tests_import() -> None:
    import gotrace.cli.main
    import gotrace.ebpf
    import gotrace.probes

    for module, folder in ((gotrace.cli.main, "cli"), (gotrace.probes, "probes"), (gotrace.ebpf, "ebpf")):
        assert module.__file__ is not None
        assert Path(module.__file__).parent == ROOT / folder
