"""What this process may do, why the kernel refused it, and giving root back once it is no longer needed."""

from __future__ import annotations

import os
import re

from gotrace.errors import HostError

CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 2, 19, 21, 38, 39
# What `gotrace serve` has to have, and nothing more: see docs/security.md. Linux before 6.10 wants CAP_SYS_ADMIN besides.
SERVE_CAPABILITIES = {
    "CAP_BPF": CAP_BPF,
    "CAP_PERFMON": CAP_PERFMON,
    "CAP_SYS_PTRACE": CAP_SYS_PTRACE,
    "CAP_DAC_READ_SEARCH": CAP_DAC_READ_SEARCH,
}
# The hint of `refused` about another process.
PROTECTED = (
    "privileges are sufficient: a security policy protects this process (SELinux, AppArmor, a sandbox); allow it there"
)
_INITIAL_NAMESPACE = {"user": 0xEFFFFFFD, "pid": 0xEFFFFFFC}


def capabilities(root: str = "/") -> int:
    """The effective capabilities of this process, one bit each."""
    with open(os.path.join(root, "proc/self/status")) as file:
        return next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)


def lacking_to_trace(held: int) -> list[str]:
    """The names of what is missing among the capabilities ``held`` to load programs and to set uprobes.

    CAP_SYS_ADMIN is enough. Links, by which uprobes are set since Linux 6.10 (`bpf.has_uprobe_multi`), take CAP_BPF and
    CAP_PERFMON; perf events of uprobes are CAP_SYS_ADMIN's (CVE-2025-38466).
    """
    if held >> CAP_SYS_ADMIN & 1:
        return []
    if kernel_version() < (6, 10):
        return ["CAP_SYS_ADMIN"]
    return [name for name, bit in (("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON)) if not held >> bit & 1]


def kernel_version() -> tuple[int, int]:
    """This kernel's release, its first two numbers."""
    major, minor = (int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    return major, minor


def in_initial_namespace(kind: str, root: str = "/") -> bool:
    """Whether this process is in the "user" or "pid" namespace the machine booted with, not in a container's.

    Their inode numbers are fixed: PROC_USER_INIT_INO and PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h.
    """
    try:
        name = os.readlink(os.path.join(root, "proc/self/ns", kind))
    except OSError:
        return True  # a kernel without such namespaces
    return name == f"{kind}:[{_INITIAL_NAMESPACE[kind]}]"


def refused(message: str, otherwise: str, unprivileged: str = "run as root (sudo)", root: str = "/") -> HostError:
    """The error for what the kernel refused (EPERM, EACCES): its hint says which right is missing.

    ``otherwise`` is the hint where none is, ``unprivileged`` that for ordinary users.
    """
    held = capabilities(root)
    lacking = [*lacking_to_trace(held), *(() if held >> CAP_SYS_PTRACE & 1 else ("CAP_SYS_PTRACE",))]
    if lacking and os.geteuid() != 0:
        hint = unprivileged if not held else f"{unprivileged}, or with {' and '.join(lacking)} too"
    elif not in_initial_namespace("user", root):
        hint = "this is root only in a user namespace: run it with sudo outside the rootless container"
    elif lacking:
        hint = f"this root lacks {' and '.join(lacking)}: add {'it' if len(lacking) == 1 else 'them'} to the container"
    else:
        hint = otherwise
    return HostError(message, hint)


def beyond_perfmon(root: str = "/") -> str:
    """What to do where perf events take more than CAP_PERFMON, and this process has no more; "" elsewhere.

    From kernel.perf_event_paranoid 3 on, which is Debian's patch and default, perf_event_open(2) takes CAP_SYS_ADMIN.
    """
    try:
        with open(os.path.join(root, "proc/sys/kernel/perf_event_paranoid")) as file:
            level = int(file.read())
    except OSError:  # a /proc with processes alone
        return ""
    if level < 3 or capabilities(root) >> CAP_SYS_ADMIN & 1:
        return ""
    return f"kernel.perf_event_paranoid is {level}: add CAP_SYS_ADMIN, or run `sysctl kernel.perf_event_paranoid=2`"


def caller() -> tuple[int, int] | None:
    """Who called sudo, as (user, group); None if root was not reached through sudo."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() != 0 or not (user.isdigit() and group.isdigit()) or int(user) == 0:
        return None
    return int(user), int(group)


def drop_to_caller() -> bool:
    """Become the user who called sudo, for good; False if root was not reached through sudo.

    Descriptors that are already open (maps, probes, a target's memory) keep working; files created afterwards belong
    to the caller and are subject to the caller's rights. So is what is imported afterwards: see `gotrace.late`.
    """
    called = caller()
    if called is None:
        return False
    user, group = called
    os.setgroups(_groups_of(user, group))
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    return True


def _groups_of(user: int, group: int) -> list[int]:
    import pwd

    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        return [group]
