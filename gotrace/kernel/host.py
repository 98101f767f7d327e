"""What this host lets us do: privileges, kernel features, BCC."""

from __future__ import annotations

import os
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``ok`` is None for a fact that is neither good nor bad; ``fix`` says what to do."""

    name: str
    ok: bool | None
    value: str
    fix: str = ""


def checks(root: str = "/") -> list[Check]:
    """Everything `gotrace doctor` tells about this host. ``root`` stands in for / in tests."""

    def read(path: str) -> str:
        try:
            with open(os.path.join(root, path)) as file:
                return file.read().strip()
        except OSError:
            return ""

    def exists(path: str) -> bool:
        return os.path.exists(os.path.join(root, path))

    have = capabilities(root)
    machine, release = os.uname().machine, os.uname().release
    bcc = _bcc(root)
    pmus = (
        sorted(os.listdir(os.path.join(root, "sys/bus/event_source/devices")))
        if exists("sys/bus/event_source/devices")
        else []
    )
    nodes = (
        [name for name in os.listdir(os.path.join(root, "sys/devices/system/node")) if name[4:].isdigit()]
        if exists("sys/devices/system/node")
        else []
    )
    locked = lockdown(root)
    return [
        Check("machine", machine in ("x86_64", "aarch64"), machine, "gotrace runs on x86-64 and ARM64"),
        Check("kernel", None, release),
        Check(
            "privileges",
            bool(have >> CAP_SYS_ADMIN & 1),
            "CAP_SYS_ADMIN" if have >> CAP_SYS_ADMIN & 1 else "not enough",
            "run it with sudo; in a container, with --privileged",
        ),
        Check("kernel lockdown", locked != "confidentiality", locked, "boot with lockdown=integrity or without lockdown"),
        Check(
            "uprobes",
            exists("sys/bus/event_source/devices/uprobe/type"),
            "yes" if exists("sys/bus/event_source/devices/uprobe/type") else "absent",
            "use a kernel with CONFIG_UPROBE_EVENTS (4.17 or later)",
        ),
        _ring_buffer(),
        Check("BCC", bool(bcc), bcc or "not found", "install it: apt-get install python3-bpfcc"),
        Check("kernel headers", None, "not needed"),
        Check(
            "tracefs",
            True if exists("sys/kernel/tracing/events") else None,
            "mounted"
            if exists("sys/kernel/tracing/events")
            else "not mounted (only tracepoints need it, not `gotrace gc`)",
            "mount -t tracefs tracefs /sys/kernel/tracing",
        ),
        Check("BTF", None, "yes" if exists("sys/kernel/btf/vmlinux") else "absent"),
        Check(
            "BPF for other users",
            None,
            {"0": "allowed", "1": "denied for good", "2": "denied"}.get(
                read("proc/sys/kernel/unprivileged_bpf_disabled"), "unknown"
            ),
        ),
        Check(
            "hardware counters",
            None,
            ", ".join(name for name in pmus if "pmu" in name or name.startswith("cpu")) or "none on this machine",
        ),
        Check("NUMA nodes", None, str(max(1, len(nodes)))),
    ]


def _ring_buffer() -> Check:
    """Ask the kernel itself for a small ring buffer."""
    from gotrace.errors import GotraceError
    from gotrace.kernel.bpf import MAP_TYPE_RINGBUF, BpfObject, MapSpec, load

    try:
        with load(BpfObject((MapSpec("doctor", MAP_TYPE_RINGBUF, 0, 0, 4096),), {})):
            return Check("BPF ring buffer", True, "yes")
    except GotraceError as error:
        return Check("BPF ring buffer", False, error.message, error.hint)


def _bcc(root: str) -> str:
    """BCC's version, read without loading its hundred megabytes."""
    from gotrace.kernel.compiler import BCC_FOLDERS

    for folder in BCC_FOLDERS:
        path = os.path.join(root, folder.lstrip("/"), "bcc/version.py")
        if os.path.exists(path):
            with open(path) as file:
                return file.read().split("=")[-1].strip().strip("'\"")
    return ""


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
