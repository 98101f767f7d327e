"""Packages of other Debian releases, fetched with this machine's apt and cached outside the tree; never installed."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

import debian_packages

import targets


def unpacked(suite: str, arch: str, *names: str) -> Path:
    """The folder that these packages of ``suite`` for ``arch`` (Debian's name, which is Go's) were unpacked into."""
    target = targets.cache() / "debian" / "-".join((suite, arch, *names))
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as name:
                folder = Path(name)
                _fetch(suite, arch, names, folder)
                for package in folder.glob("*.deb"):
                    subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
                shutil.move(folder / "root", target)
    return target


def _fetch(suite: str, arch: str, names: tuple[str, ...], folder: Path) -> None:
    env = debian_packages.apt_environment(suite, arch, folder)
    for command in (["update"], ["download", *names]):
        subprocess.run(["apt-get", "-qq", *command], cwd=folder, env=env, check=True, capture_output=True)
