"""Giving root back once it is no longer needed."""

from __future__ import annotations

import os


def drop_to_caller() -> bool:
    """Become the user who called sudo, for good; False if root was not reached through sudo.

    Descriptors that are already open (maps, probes, a target's memory) keep working; files created afterwards belong
    to the caller and are subject to the caller's rights.
    """
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() != 0 or not (user.isdigit() and group.isdigit()) or int(user) == 0:
        return False
    os.setgroups(_groups_of(int(user), int(group)))
    os.setresgid(int(group), int(group), int(group))
    os.setresuid(int(user), int(user), int(user))
    return True


def _groups_of(user: int, group: int) -> list[int]:
    import pwd

    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        return [group]
