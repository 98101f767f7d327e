"""The agent's unit for systemd: systemd itself reads and judges it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import targets
from gotrace.agent.settings import Settings
from gotrace.agent.unit import SYSTEM_CALLS, require_usable, unit
from gotrace.errors import UsageError
from gotrace.kernel.privileges import SERVE_CAPABILITIES

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")


def analyzed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments, "./gotrace.service"], cwd=folder, capture_output=True, text=True, timeout=60
    )


@needs_systemd
@pytest.mark.started
def test_systemd_takes_it(tmp_path: Path) -> None:
    """Without a warning, and with an exposure of 2.6 of 10 (systemd 252): it must see processes, and open sockets."""
    with tempfile.TemporaryDirectory(dir=targets.cache()) as folder:  # not in /tmp, which a service has for itself
        file = Path(folder) / "agent $HOME %n.yaml"
        command = [sys.executable, "-m", "gotrace.cli", "serve", "--systemd", "-f", str(file)]
        file.write_text("schema: gotrace.agent/1\nspool: /var/lib/gotrace/spool\n")
        made = subprocess.run(command, capture_output=True, text=True, check=True)
    (tmp_path / "gotrace.service").write_text(made.stdout)
    done = analyzed(tmp_path, "verify")
    assert (done.returncode, done.stderr) == (0, "")
    done = analyzed(tmp_path, "security", "--offline=true")
    (exposure,) = re.findall(r"Overall exposure level for gotrace\.service: ([\d.]+)", done.stdout)
    assert float(exposure) <= 2.6


def test_its_rights_are_the_published_ones() -> None:
    text = unit(["/opt/a b/gotrace"], ["-f", "/etc/50%.yaml"])
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        (words,) = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
        assert words.split() == list(SERVE_CAPABILITIES)
    assert 'ExecStart="/opt/a b/gotrace" serve -f /etc/50%%.yaml\n' in text
    assert 'ExecStartPre="/opt/a b/gotrace" serve --prepare\n' in text
    checked = 'ExecReload="/opt/a b/gotrace" serve -f /etc/50%%.yaml --check\n'  # else nothing is reloaded
    assert f"{checked}ExecReload=/bin/sh -c 'kill -HUP $MAINPID'\n" in text


@pytest.mark.parametrize(
    ("settings", "file", "said"),
    [
        (Settings(), "/tmp/agent.yaml", "the service cannot see /tmp/agent.yaml"),
        (Settings(token_file="/var/tmp/token"), "/etc/a.yaml", "the service cannot see /var/tmp/token"),
        (Settings(spool="/srv/spool"), "/etc/a.yaml", "the service cannot write /srv/spool"),
        (Settings(spool="/var/lib/gotrace-2"), "/etc/a.yaml", "the service cannot write /var/lib/gotrace-2"),
    ],
)
def test_what_the_service_would_not_have(settings: Settings, file: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        require_usable(settings, file)
    require_usable(Settings(spool="/var/lib/gotrace/spool", token_file="/etc/gotrace/token"), "/etc/gotrace/agent.yaml")
    assert "StateDirectory=gotrace\n" in unit(["/usr/bin/gotrace"])


@needs_systemd
@pytest.mark.bpf
@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_its_system_calls_are_allowed(tmp_path: Path) -> None:
    """What compiling, loading and ending take, as strace sees it, is in the filter. Nothing else of systemd runs here."""
    words = ["systemd-analyze", "syscall-filter", *(each for each in SYSTEM_CALLS if each.startswith("@"))]
    allowed = set(SYSTEM_CALLS)
    groups = [each for each in SYSTEM_CALLS if each.startswith("@")]
    while groups:
        done = subprocess.run([*words[:2], groups.pop()], capture_output=True, text=True, check=True)
        found = {line.strip() for line in done.stdout.splitlines()[1:] if line.startswith("    ") and "#" not in line}
        groups += [each for each in found if each.startswith("@") and each not in allowed]
        allowed |= found
    log, gotrace = tmp_path / "log", [sys.executable, "-m", "gotrace.cli", "serve"]
    serving = ["timeout", "-s", "TERM", "5", *gotrace, "--listen", "127.0.0.1:0", "--min-age", "0s"]
    # Debian's kernels refuse perf events to CAP_PERFMON; what only explanations take is no reason not to compile.
    refused = ["-e", "inject=perf_event_open:error=EACCES", "env", f"GOTRACE_CACHE={tmp_path}", *gotrace, "--prepare"]
    for command, status in ((refused, 0), (serving, 124)):
        done = subprocess.run(["strace", "-f", "-qq", "-o", str(log), *command], timeout=120, capture_output=True)
        assert done.returncode == status, done.stderr
        called = set(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))
        assert "bpf" in called and called <= allowed, (shlex.join(command), called - allowed)
