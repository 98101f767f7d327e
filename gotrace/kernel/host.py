"""What this host lets us do: privileges, kernel features, BCC."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gotrace.errors import HostError

CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF = 21, 19, 38, 39
_INITIAL_NAMESPACE = {"user": 0xEFFFFFFD, "pid": 0xEFFFFFFC}


def capabilities(root: str = "/") -> int:
    """The effective capabilities of this process, one bit each."""
    with open(os.path.join(root, "proc/self/status")) as file:
        return next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)


def in_initial_namespace(kind: str, root: str = "/") -> bool:
    """Whether this process is in the "user" or "pid" namespace the machine booted with, not in a container's.

    Their inode numbers are fixed: PROC_USER_INIT_INO and PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h.
    """
    try:
        name = os.readlink(os.path.join(root, "proc/self/ns", kind))
    except OSError:
        return True  # a kernel without such namespaces
    return name == f"{kind}:[{_INITIAL_NAMESPACE[kind]}]"


def kernel_pid(pid: int) -> int:
    """``pid`` as the kernel numbers the process itself, 0 where only the number in a container is known."""
    return pid if in_initial_namespace("pid") else 0


def _lacking_privilege(root: str) -> tuple[str, str] | None:
    """What keeps this process from tracing, and what to do about it; None if nothing does."""
    if not capabilities(root) >> CAP_SYS_ADMIN & 1:
        return "tracing needs root (CAP_SYS_ADMIN)", "run it with sudo; in a container, with --privileged"
    if not in_initial_namespace("user", root):
        return (
            "tracing needs root of the machine, this is root of a user namespace only",
            "run it with sudo outside of the rootless container",
        )
    return None


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

    lacking = _lacking_privilege(root)
    machine, release = os.uname().machine, os.uname().release
    bcc = _bcc(root)
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
            lacking is None,
            lacking[0] if lacking else "CAP_SYS_ADMIN",
            lacking[1] if lacking else "",
        ),
        Check(
            "PID namespace",
            None,
            "the machine's"
            if in_initial_namespace("pid", root)
            else "a container's: only processes in it can be named, by the pid they have in it",
        ),
        Check("kernel lockdown", locked != "confidentiality", locked, "boot with lockdown=integrity or without lockdown"),
        Check(
            "uprobes",
            exists("sys/bus/event_source/devices/uprobe/type"),
            "yes" if exists("sys/bus/event_source/devices/uprobe/type") else "absent",
            "use a kernel with CONFIG_UPROBE_EVENTS (4.17 or later)",
        ),
        _ring_buffer(),
        _page_faults(lacking is None),
        Check("BCC", bool(bcc), bcc or "not found", "install it: apt-get install python3-bpfcc"),
        Check("kernel headers", None, "not needed"),
        _tracefs(root),
        _jit(read("proc/sys/net/core/bpf_jit_enable")),
        Check("BTF", None, "yes" if exists("sys/kernel/btf/vmlinux") else "absent"),
        Check(
            "BPF for other users",
            None,
            {"0": "allowed", "1": "denied for good", "2": "denied"}.get(
                read("proc/sys/kernel/unprivileged_bpf_disabled"), "unknown"
            ),
        ),
        *_counters(root),
        Check("NUMA nodes", None, str(max(1, len(nodes)))),
    ]


def _counters(root: str) -> list[Check]:
    """One line per PMU of the processor, with the events the kernel lists."""
    from gotrace.kernel import pmu

    events: dict[str, list[str]] = {name: [] for name in pmu.pmus(root)}
    for event in pmu.events(root):
        events[event.pmu].append(event.name)
    if not events:
        return [Check("hardware counters", None, "none on this machine")]
    return [
        Check(f"hardware counters ({name})", None, ", ".join(names) or "no event by name") for name, names in events.items()
    ]


def _tracefs(root: str) -> Check:
    try:
        os.stat(os.path.join(root, "sys/kernel/tracing/events"))
    except PermissionError:
        return Check("tracefs", None, "only root can tell")
    except OSError:
        value = "not mounted (only tracepoints need it, not `gotrace gc`)"
        return Check("tracefs", None, value, "mount -t tracefs tracefs /sys/kernel/tracing")
    return Check("tracefs", True, "mounted")


def _jit(setting: str) -> Check:
    if setting == "0":
        return Check("BPF JIT", None, "off: a probe costs the target more", "sysctl net.core.bpf_jit_enable=1")
    return Check("BPF JIT", None, "on" if setting else "unknown")


def _ring_buffer() -> Check:
    """Ask the kernel itself for a small ring buffer."""
    from gotrace.errors import GotraceError
    from gotrace.kernel.bpf import MAP_TYPE_RINGBUF, BpfObject, MapSpec, load

    try:
        with load(BpfObject((MapSpec("doctor", MAP_TYPE_RINGBUF, 0, 0, 4096),), {})):
            return Check("BPF ring buffer", True, "yes")
    except GotraceError as error:
        return Check("BPF ring buffer", False, error.message, error.hint)


def _page_faults(privileged: bool) -> Check:
    from gotrace.kernel.bpf import has_sleepable_uprobes

    if not privileged:
        return Check("page faults in probes", None, "only root can tell")
    if has_sleepable_uprobes():
        return Check("page faults in probes", True, "yes")
    return Check("page faults in probes", None, "no (Linux 6.0): on a NUMA machine a number may be lost, and is counted")


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
    """Raises HostError with the first reason why nothing can be traced here. Quick: it reads a few small files."""
    if os.uname().machine not in ("x86_64", "aarch64"):
        raise HostError(f"this machine is {os.uname().machine}", "gotrace runs on x86-64 and ARM64 Linux")
    lacking = _lacking_privilege(root)
    if lacking:
        raise HostError(*lacking)
    if lockdown(root) == "confidentiality":
        raise HostError(
            "kernel lockdown (confidentiality) forbids reading a process's memory from BPF",
            "boot with lockdown=integrity or without lockdown",
        )
    if not os.path.exists(os.path.join(root, "sys/bus/event_source/devices/uprobe/type")):
        raise HostError("this kernel has no uprobes for perf", "use a kernel with CONFIG_UPROBE_EVENTS (4.17 or later)")


def online_cpus() -> list[int]:
    """The numbers of the CPUs that are in use."""
    with open("/sys/devices/system/cpu/online") as file:
        return cpus_of(file.read())


def cpus_of(text: str) -> list[int]:
    """The numbers in one of the kernel's lists: 0-3,8,10-11."""
    ranges = [part.split("-") for part in text.strip().split(",") if part]
    return [cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)]
