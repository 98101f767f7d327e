"""Wheels that a test imports and .venv lacks, for their size or version: from PyPI into the cache outside the tree."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import targets


def unpacked(*requirements: str) -> Path:
    """The folder to import them from, without what they depend on; the test is skipped where PyPI cannot be reached.

    GOTRACE_REQUIRE_BPF=1 makes that a failure.
    """
    target = targets.cache() / "wheels" / "-".join((f"py3.{sys.version_info.minor}", *requirements))
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--only-binary", ":all:"]
                command = [*pip, "--target", f"{folder}/all", *requirements]
                done = subprocess.run(command, capture_output=True, text=True, timeout=600)
                if done.returncode:
                    refuse = pytest.fail if os.environ.get("GOTRACE_REQUIRE_BPF") == "1" else pytest.skip
                    refuse(f"{' '.join(requirements)} cannot be had from PyPI: {done.stderr[-300:].strip()}")
                shutil.move(f"{folder}/all", target)
    return target
