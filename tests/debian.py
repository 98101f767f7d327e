"""Packages of other Debian releases, fetched with this machine's apt and cached outside the tree; never installed."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import debian_packages

import targets


def unpacked(suite: str, arch: str, *names: str, libraries: bool = False) -> Path:
    """The folder that these packages of ``suite`` for ``arch`` (Debian's name, which is Go's) were unpacked into.

    With ``libraries``, those that they need as well, the C library too.
    """
    target = targets.cache() / "debian" / "-".join((suite, arch, *names, *(["libraries"] if libraries else [])))
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as name:
                folder = Path(name)
                _fetch(suite, arch, names, folder, libraries)
                for package in folder.glob("*.deb"):
                    subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
                shutil.move(folder / "root", target)
    return target


def _fetch(suite: str, arch: str, names: tuple[str, ...], folder: Path, libraries: bool) -> None:
    env = debian_packages.apt_environment(suite, arch, folder)

    def apt(*words: str) -> str:
        return subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout

    apt("apt-get", "-qq", "update")
    wanted, new = list(names), list(names)
    while libraries and new:
        needed = re.findall(r"Depends: (lib\S+)$", apt("apt-cache", "depends", "--important", *new), re.MULTILINE)
        wanted += (new := sorted(set(needed) - set(wanted)))
    apt("apt-get", "-qq", "download", *wanted)
