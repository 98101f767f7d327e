"""What machines have compiled, kept by scripts/arm64-vm for the next ones."""

from __future__ import annotations

import io
import runpy
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import targets

VM = runpy.run_path(str(targets.ROOT / "scripts" / "arm64-vm"), run_name="arm64_vm")


def made(path: Path, age_s: float = 0, **contents: str) -> Path:
    """A tar of these files, as old as that."""
    with tarfile.open(path, "w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), time.time() - age_s
            tar.addfile(member, io.BytesIO(content.encode()))
    return path


def kept(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar]
        return {name: file.read() for name, file in files if file}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder / "compiled.tar"


def test_what_several_machines_keep_at_once_is_all_kept(cache: Path, tmp_path: Path) -> None:
    tars = [made(tmp_path / f"{number}.tar", **{f"f{number}": str(number) * 9999}) for number in range(16)]
    with ThreadPoolExecutor(len(tars)) as pool:
        list(pool.map(lambda tar: VM["keep"](tar, cache), tars))
    assert kept(cache) == {f"f{number}": (str(number) * 9999).encode() for number in range(16)}


def test_the_newest_is_kept_and_the_old_is_not(cache: Path, tmp_path: Path) -> None:
    made(cache, one="before", two="before")
    VM["keep"](made(tmp_path / "made.tar", one="after"), cache)
    assert kept(cache) == {"one": b"after", "two": b"before"}
    made(cache, VM["KEPT_S"] + 60, two="before")
    VM["keep"](made(tmp_path / "made.tar", one="after"), cache)
    assert kept(cache) == {"one": b"after"}


@pytest.mark.parametrize("size", [0, 100, 700, 1024, 3000])
def test_a_damaged_one_counts_as_none(size: int, cache: Path, tmp_path: Path) -> None:
    whole = made(cache, one="before" * 200, two="before" * 200).read_bytes()
    cache.write_bytes(whole[:size])
    VM["keep"](made(tmp_path / "made.tar", three="after"), cache)
    assert kept(cache)["three"] == b"after"
    cache.write_bytes(b"\x1f\x8b" + bytes(size))  # begins as a compressed one
    VM["keep"](made(tmp_path / "made.tar", three="after"), cache)
    assert kept(cache) == {"three": b"after"}


def test_a_failure_leaves_what_was_kept_and_no_other_file(cache: Path, tmp_path: Path) -> None:
    before = made(cache, one="before").read_bytes()
    (tmp_path / "made.tar").write_bytes(b"?" * 2000)
    with pytest.raises(tarfile.ReadError):
        VM["keep"](tmp_path / "made.tar", cache)
    assert cache.read_bytes() == before
    assert {path.name for path in cache.parent.iterdir()} == {"compiled.tar", ".compiled.tar.lock"}
