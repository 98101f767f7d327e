"""What tests of services under load share."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path

import pytest

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None and not os.environ.get("GOTRACE_REQUIRE_BPF"), reason="no wrk")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def names_with(argument: str) -> set[str]:
    """Programs that run with such an argument."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if any(argument in word for word in words):
                found.add(Path(words[0]).name)
    return found


def remove_podmans_groups() -> None:
    """The control groups that podman leaves when its containers are gone.

    While there is a cpuset below the root's, Linux 6.17 and later never look whether pages are on the wrong node, where
    there is one node.
    """
    for root in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
        for folder, *_ in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):  # somebody else's, and in use
                os.rmdir(folder)
