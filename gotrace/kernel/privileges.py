"""What this process may do, why the kernel refused it, and giving root back once it is no longer needed."""

from __future__ import annotations

import os

from gotrace.errors import HostError

CAP_SYS_ADMIN, CAP_SYS_PTRACE = 21, 19
# The hint of `refused` about another process.
PROTECTED = "no right is missing: a security policy protects this process (SELinux, AppArmor, a sandbox); allow it there"
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


def refused(message: str, otherwise: str, unprivileged: str = "run as root (sudo)", root: str = "/") -> HostError:
    """The error for what the kernel refused (EPERM, EACCES): its hint says which right is missing.

    ``otherwise`` is the hint where none is, ``unprivileged`` that for ordinary users.
    """
    held, wanted = capabilities(root), {"CAP_SYS_ADMIN": CAP_SYS_ADMIN, "CAP_SYS_PTRACE": CAP_SYS_PTRACE}
    lacking = [name for name, bit in wanted.items() if not held >> bit & 1]
    if lacking and os.geteuid() != 0:
        hint = unprivileged
    elif not in_initial_namespace("user", root):
        hint = "this is root in a user namespace only: run it with sudo outside the rootless container"
    elif lacking:
        hint = f"this root lacks {' and '.join(lacking)}: run the container with --privileged, or gotrace on the host"
    else:
        hint = otherwise
    return HostError(message, hint)


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
