"""What tests of services under load share."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
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


@contextlib.contextmanager
def image_of(program: Path, folder: Path) -> Iterator[tuple[list[str], str]]:
    """(podman's `run` with a container's name, the name): an image with one program, /NAME. Both are gone afterwards."""
    if shutil.which("podman") is None:
        pytest.skip("no podman")
    runc = Path("/usr/sbin/runc")
    podman = ["podman", *(["--runtime", str(runc)] if runc.exists() else [])]
    name = f"gotrace-test-{os.getpid()}"
    shutil.copy(program, folder / program.name)
    subprocess.run(["tar", "-C", folder, "-cf", folder / "image.tar", program.name], check=True)
    subprocess.run([*podman, "import", folder / "image.tar", f"{name}:1"], check=True, capture_output=True)
    # The defaults may be more than is allowed here.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    try:
        yield [*podman, "run", "-i", "--rm", "--network=host", *limits, "--name", name], name
    finally:
        subprocess.run([*podman, "rm", "-f", "-t", "0", name], capture_output=True)
        subprocess.run([*podman, "rmi", "-f", f"{name}:1"], check=True, capture_output=True)
        remove_podmans_groups()
