"""The agent with exactly the capabilities that docs/security.md lists, as nobody; and what it says without one of them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from agents import Agent

import targets
from conftest import until
from gotrace.kernel.bpf import has_uprobe_multi
from gotrace.kernel.privileges import SERVE_CAPABILITIES

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv"),
    pytest.mark.skipif(not has_uprobe_multi(), reason="before links, uprobes take CAP_SYS_ADMIN"),
]

USER, OTHER = 65534, 33


def with_only(capabilities: set[str], user: int = USER) -> list[str]:
    """The words that start a command as ``user`` with these capabilities, and no way to more."""
    given = "".join(f",+{each.removeprefix('CAP_').lower()}" for each in sorted(capabilities))
    ids = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
    return ["setpriv", *ids, f"--inh-caps=-all{given}", f"--ambient-caps=-all{given}", f"--bounding-set=-all{given}"]


@pytest.fixture
def prepared(open_path):
    """How to start a command with nobody's own cache, filled by `serve --prepare` with the two capabilities it takes."""
    cache = open_path / "cache"
    cache.mkdir()
    os.chown(cache, USER, USER)
    words = ["env", f"GOTRACE_CACHE={cache}"]
    command = [*words, *with_only({"CAP_BPF", "CAP_PERFMON"}), sys.executable, "-m", "gotrace.cli", "serve", "--prepare"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return words


@contextlib.contextmanager
def program_of(path: Path, user: int):
    """gcload, run by ``user``, in a file that only they may read."""
    shutil.copy(targets.build("gcload", targets.NEWEST), path)
    path.chmod(0o700)
    os.chown(path, user, user)
    command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", str(path), "-cycles", "20"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(path))
            yield process
        finally:
            process.kill()


def test_the_published_set_is_enough(prepared, tmp_path):
    """A program of another user is traced, and every collection counted; its owner alone may read its file, and root the
    agent's settings.
    """
    name, settings = f"rights{os.getpid()}", tmp_path / "agent.yaml"
    settings.write_text(f"schema: gotrace.agent/1\nmin_age: 0s\nselect: ['name={name}']\n")
    settings.chmod(0o600)
    with program_of(tmp_path / name, OTHER) as process:
        serving = Agent("-f", str(settings), through=[*prepared, *with_only(set(SERVE_CAPABILITIES))])
        status = Path(f"/proc/{serving.process.pid}/status").read_text()
        (held,) = re.findall(r"CapEff:\s+(\w+)", status)
        assert int(held, 16) == sum(1 << bit for bit in SERVE_CAPABILITIES.values())
        assert f"Uid:\t{USER}\t{USER}" in status
        until(lambda: serving.traced() == {process.pid})
        process.stdin.write(b"\n")
        process.stdin.flush()
        until(lambda: sum(serving.values("go_memory_gc_cycles_total", service_name=name)) >= 20)
        assert serving.one("gotrace_events_lost_total", service_name=name) == 0
        serving.finish()


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("CAP_BPF", "tracing needs root, or CAP_BPF and CAP_PERFMON; CAP_BPF is missing"),
        ("CAP_PERFMON", "tracing needs root, or CAP_BPF and CAP_PERFMON; CAP_PERFMON is missing"),
        ("CAP_SYS_PTRACE", "inspecting other users' processes needs CAP_SYS_PTRACE, which is missing"),
    ],
)
@pytest.mark.parametrize("user", [USER, 0])
def test_what_is_said_without_one(user, without, said):
    through = with_only(set(SERVE_CAPABILITIES) - {without}, user)
    command = [*through, sys.executable, "-m", "gotrace.cli", "serve", "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith(f"gotrace: {said}\n  hint: "), done.stderr


def test_files_that_only_their_owners_may_read(prepared, tmp_path):
    """Without CAP_DAC_READ_SEARCH it says so first, and does not see the program."""
    name = f"hidden{os.getpid()}"
    through = [*prepared, *with_only(set(SERVE_CAPABILITIES) - {"CAP_DAC_READ_SEARCH"})]
    with program_of(tmp_path / name, OTHER):
        serving = Agent("--select", f"name={name}", "--min-age", "0s", through=through)
        assert serving.head.startswith("CAP_DAC_READ_SEARCH is missing: ")
        until(serving.is_ready)
        assert not serving.traced()
        serving.finish()
