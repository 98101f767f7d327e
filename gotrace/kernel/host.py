"""What this host lets us do: privileges, kernel features, BCC."""

from __future__ import annotations

import os

from gotrace.errors import HostError

CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF = 21, 19, 38, 39


def capabilities(root: str = "/") -> int:
    """The effective capabilities of this process, one bit each."""
    with open(os.path.join(root, "proc/self/status")) as file:
        return next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)


def lockdown(root: str = "/") -> str:
    """ "none", "integrity" or "confidentiality"."""
    try:
        with open(os.path.join(root, "sys/kernel/security/lockdown")) as file:
            text = file.read()
    except OSError:
        return "none"
    return text[text.find("[") + 1 : text.find("]")] or "none"


def require_tracing(root: str = "/") -> None:
    """Raises HostError with the first reason why nothing can be traced here. Quick: it reads two small files."""
    if os.uname().machine not in ("x86_64", "aarch64"):
        raise HostError(f"this machine is {os.uname().machine}", "gotrace runs on x86-64 and ARM64 Linux")
    have = capabilities(root)
    if not have >> CAP_SYS_ADMIN & 1:
        raise HostError("tracing needs root (CAP_SYS_ADMIN)", "run it with sudo; in a container, with --privileged")
    if lockdown(root) == "confidentiality":
        raise HostError(
            "kernel lockdown (confidentiality) forbids reading a process's memory from BPF",
            "boot with lockdown=integrity or without lockdown",
        )
    if not os.path.exists(os.path.join(root, "sys/bus/event_source/devices/uprobe/type")):
        raise HostError("this kernel has no uprobes for perf", "use a kernel with CONFIG_UPROBE_EVENTS (4.17 or later)")
