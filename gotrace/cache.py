"""A folder of small results that take long to compute: compiled probes, resolved executables.

Root loads what is in here into the kernel, so an entry counts only if the folder belongs to us and no one else may
write to it. An unusable cache is not an error: things are computed again.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any

try:
    # hashlib itself loads OpenSSL: two milliseconds in front of every start
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b


def folder() -> str:
    """Where entries live: a system folder for root (whose HOME may be someone else's under sudo)."""
    base = os.environ.get("GOTRACE_CACHE")
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        base = "/var/cache/gotrace" if os.geteuid() == 0 else os.path.join(home, "gotrace")
    return os.path.join(base, "compiled")


def key(*parts: object) -> str:
    """A name for what is determined by ``parts``."""
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def identity(file: int | str) -> tuple[int, ...]:
    """What identifies a file, by its descriptor or path, and changes when the file does. Raises OSError."""
    status = os.stat(file)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def get(name: str) -> Any:
    """The entry, or None."""
    path = os.path.join(folder(), name)
    try:
        if not _trusted(os.lstat(folder())):
            return None
        with open(path) as file:
            if not _trusted(os.fstat(file.fileno())):
                return None
            return json.load(file)
    except (OSError, ValueError):
        return None


def put(name: str, value: Any) -> None:
    """Keep ``value`` (JSON); an entry appears whole or not at all."""
    try:
        os.makedirs(folder(), mode=0o755, exist_ok=True)
        if not _trusted(os.lstat(folder())):
            return
        temporary = os.path.join(folder(), f".{name}.{os.getpid()}")
        with open(temporary, "x") as file:
            json.dump(value, file)
        os.replace(temporary, os.path.join(folder(), name))
    except OSError:
        return


def _trusted(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
