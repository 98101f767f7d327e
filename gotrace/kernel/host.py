"""What this host lets us do: privileges, kernel features, BCC."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from dataclasses import dataclass

from gotrace import arch
from gotrace.errors import HostError, NoRoomError
from gotrace.kernel.privileges import (
    CAP_DAC_READ_SEARCH,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    capabilities,
    in_initial_namespace,
    lacking_to_trace,
)


def kernel_pid(pid: int) -> int:
    """``pid`` as the kernel numbers the process itself, 0 where only the number in a container is known."""
    return pid if in_initial_namespace("pid") else 0


def _lacking_privilege(root: str) -> tuple[str, str] | None:
    """What keeps this process from tracing, and what to do about it; None if nothing does."""
    held = capabilities(root)
    if lacking := lacking_to_trace(held):
        needed = " and ".join(lacking_to_trace(0))
        without = "" if needed == (missing := " and ".join(lacking)) else f"; {missing} is missing"
        return f"tracing needs root, or {needed}{without}", "run it with sudo; in a container, with these capabilities"
    if not in_initial_namespace("user", root):
        return (
            "tracing needs root on the host; this is root only in a user namespace",
            "run it with sudo outside the rootless container",
        )
    return None


def _privileges(root: str) -> str:
    """What a process that may trace has, and what it may not do all the same."""
    held = capabilities(root)
    enough = "CAP_SYS_ADMIN" if held >> CAP_SYS_ADMIN & 1 else "CAP_BPF and CAP_PERFMON"
    if held >> CAP_SYS_PTRACE & 1:
        return enough
    return f"{enough}, but not CAP_SYS_PTRACE: processes with more privileges than this one cannot be inspected"


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
    """One check: ``ok`` is None for a fact that is neither good nor bad; ``fix`` says what to do."""

    name: str
    ok: bool | None
    value: str
    fix: str = ""


def checks(root: str = "/") -> list[Check]:
    """Everything `gotrace doctor` reports about this host. ``root`` stands in for / in tests."""

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
        Check("machine", machine in arch.BY_MACHINE, machine, f"gotrace runs on {arch.SUPPORTED}"),
        Check("kernel", None, release),
        Check(
            "privileges",
            lacking is None,
            lacking[0] if lacking else _privileges(root),
            lacking[1] if lacking else "",
        ),
        Check(
            "PID namespace",
            None,
            "the machine's"
            if in_initial_namespace("pid", root)
            else "of a container: only its processes can be traced, by their pid inside it",
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
        _jit(text_of(root, "proc/sys/net/core/bpf_jit_enable")),
        Check("BTF", None, "yes" if exists("sys/kernel/btf/vmlinux") else "absent"),
        Check(
            "BPF for other users",
            None,
            {"0": "allowed", "1": "denied permanently", "2": "denied"}.get(
                text_of(root, "proc/sys/kernel/unprivileged_bpf_disabled"), "unknown"
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
        return Check("tracefs", None, "unknown without root")
    except OSError:
        value = "not mounted (only tracepoints need it, not `gotrace gc`)"
        return Check("tracefs", None, value, "mount -t tracefs tracefs /sys/kernel/tracing")
    return Check("tracefs", True, "mounted")


def _jit(setting: str) -> Check:
    if setting == "0":
        return Check("BPF JIT", None, "off: probes cost the target more", "sysctl net.core.bpf_jit_enable=1")
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
        return Check("page faults in probes", None, "unknown without root")
    if has_sleepable_uprobes():
        return Check("page faults in probes", True, "yes")
    return Check(
        "page faults in probes", None, "no (needs Linux 6.0): on NUMA machines, events may be lost; losses are counted"
    )


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
    arch.host_arch()
    lacking = _lacking_privilege(root)
    if lacking:
        raise HostError(*lacking)
    if lockdown(root) == "confidentiality":
        raise HostError(
            "kernel lockdown (confidentiality) forbids reading a process's memory from BPF",
            "boot with lockdown=integrity or without lockdown",
        )
    if not os.path.exists(os.path.join(root, "sys/bus/event_source/devices/uprobe/type")):
        raise HostError(
            "this kernel does not support uprobes through perf", "use a kernel with CONFIG_UPROBE_EVENTS (4.17 or later)"
        )


def allow_descriptors() -> None:
    """Raise the limit on this process's open files as far as it may: each traced executable takes some ten of them."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # of a hard limit above fs.nr_open
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def require_descriptors(count: int) -> None:
    """Raises NoRoomError unless so many more files may be open."""
    try:
        free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd")) + 1  # without its own
    except OSError:
        free = 0
    if free < count:
        raise NoRoomError(
            "the limit on open files leaves no room for another process", "raise it (ulimit -n; LimitNOFILE= of a unit)"
        )


def require_everybodys_processes(root: str = "/") -> str:
    """What cannot be seen of other users' programs all the same, "" if nothing. Raises HostError without CAP_SYS_PTRACE."""
    held = capabilities(root)
    if not held >> CAP_SYS_PTRACE & 1:
        raise HostError(
            "inspecting other users' processes needs CAP_SYS_PTRACE, which is missing",
            "run it with sudo; in a container, add this capability",
        )
    if held >> CAP_DAC_READ_SEARCH & 1:
        return ""
    return "CAP_DAC_READ_SEARCH is missing: programs readable only by their owners are not seen."


def text_of(*path: str) -> str:
    """What a file of /proc or sysfs says, without space around it; "" if it cannot be read. ``path`` is in parts."""
    try:
        with open(os.path.join(*path), errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def online_cpus() -> list[int]:
    """The numbers of the CPUs that are in use."""
    with open("/sys/devices/system/cpu/online") as file:
        return cpus_of(file.read())


def cpus_of(text: str) -> list[int]:
    """The numbers in one of the kernel's lists: 0-3,8,10-11."""
    ranges = [part.split("-") for part in text.strip().split(",") if part]
    return [cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)]


# What QEMU's emulation (TCG) calls its own processors; with a name of a real one it cannot be told. Under KVM the real one
# shows through. On ARM64 an implementer of 0 is reserved for software (target/arm/tcg/cpu64.c, aarch64_max_tcg_initfn).
_EMULATED = re.compile(r"QEMU TCG CPU|implementer 0x00, part 0x051\b")


def is_emulated(cpu: str | None) -> bool:
    """Whether a processor of this name (`cpu_name`) is certainly emulated, so that its times say nothing of a real one."""
    return bool(cpu and _EMULATED.match(cpu))


def cpu_name() -> str | None:
    """The processor's name; on ARM64 what identifies it, for /proc/cpuinfo has no name there."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", errors="replace") as file:
        for line in iter(file.readline, "\n"):  # of the first CPU: on a machine of many the kernel takes long for all
            if not line:
                break
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    if "model name" in fields:
        return fields["model name"]
    parts = [
        f"{name} {fields[f'CPU {name}']}"
        for name in ("implementer", "part", "variant", "revision")
        if f"CPU {name}" in fields
    ]
    return ", ".join(parts) or None
