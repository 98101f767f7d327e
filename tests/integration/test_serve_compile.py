"""An agent whose probes are not compiled yet: the compiler stays out of its control group, or is not started."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import Agent

from conftest import until

pytestmark = pytest.mark.bpf

LIMIT = 64 << 20


@contextlib.contextmanager
def small_group() -> Iterator[Path]:
    """The folder of a control group with 64 MiB."""
    root, name = Path("/sys/fs/cgroup"), f"gotrace-test-memory-{os.getpid()}"
    if (root / "cgroup.controllers").exists():
        (root / "cgroup.subtree_control").write_text("+memory")
        folder, limit = root / name, "memory.max"
    else:
        folder, limit = root / "memory" / name, "memory.limit_in_bytes"
    folder.mkdir()
    try:
        (folder / limit).write_text(str(LIMIT))
        yield folder
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.05)


def test_the_compiler_is_elsewhere_or_nowhere(tmp_path):
    cache = tmp_path / "cache"
    with small_group() as folder:
        within = ["sh", "-c", f'echo $$ >{folder}/cgroup.procs; export GOTRACE_CACHE={cache}; exec "$@"', "sh"]
        read_only = ["unshare", "-m", "sh", "-c", f'mount --bind -r {folder.parent} {folder.parent}; exec "$@"', "sh"]
        refused = Agent("--select", "name=nobody", through=[*within, *read_only])
        said = refused.said()
        assert (refused.process.returncode, said.count("\n")) == (1, 2), said
        assert "the cgroup's 64 MiB are not enough" in said and "gotrace serve --prepare" in said
        # Where it may, the compiler leaves the group, in which it would be killed: it takes twice as much.
        begun = Agent("--select", "name=nobody", through=within)
        until(begun.is_ready, 60)
        begun.finish()
        # And with what was compiled it starts anywhere.
        ready = Agent("--select", "name=nobody", through=[*within, *read_only])
        until(ready.is_ready, 30)
        ready.finish()
