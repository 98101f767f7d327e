"""The container tools of this host: where they are, which versions they have, and which of these are known."""

from __future__ import annotations

import functools
import os
import re
import shutil
import stat
import subprocess
from typing import Any, NamedTuple

# tool -> the beginnings of versions whose functions `gotrace.probes.coldstart_containers` knows
VERSIONS = {
    "podman": ("4.3.", "5.4.", "5.7.", "5.8."),
    "containerd": ("1.6.", "1.7.", "2.0.", "2.1.", "2.2.", "2.3."),
    "dockerd": ("20.10.", "26.1.", "27.", "28.2.", "28.3.", "28.4.", "28.5.", "29.5.", "29.6.", "29.7."),
    "kubelet": ("1.28.", "1.29.", "1.30.", "1.31.", "1.32.", "1.33.", "1.34.", "1.36."),
}
_OTHERS = ("crio", "nerdctl")
_VERSION = re.compile(r"\bv?(\d+\.\d+\.\d+)")
_PATIENCE_S = 10


class Found(NamedTuple):
    """A tool of this host; ``reason`` says why its functions are not probed, or is ""."""

    path: str
    version: str
    reason: str


@functools.cache
def tools() -> dict[str, Found]:
    """Each tool in PATH, by its name. Asks it for its version: looking at its file does not always tell."""
    places = {name: shutil.which(name) for name in (*VERSIONS, *_OTHERS)}
    return {name: _found(name, os.path.realpath(path)) for name, path in places.items() if path}


def known() -> tuple[str, ...]:
    """The files of those whose functions are known."""
    return tuple(found.path for found in tools().values() if not found.reason)


def refused() -> dict[str, str]:
    """Why the others' are not."""
    return {name: found.reason for name, found in tools().items() if found.reason}


def described() -> dict[str, Any]:
    """What a recording keeps of them."""
    return {"versions": {name: found.version for name, found in tools().items()}, "refused": refused()}


def _found(name: str, path: str) -> Found:
    if name not in VERSIONS:
        return Found(path, "", f"its functions are not known for any version of {name}")
    if os.path.basename(path) != name:
        return Found(path, "", f"{path} is another program")
    if not _is_roots(path):
        return Found(path, "", f"{path} is not executed to get its version, because users other than root may write to it")
    try:
        told = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError, UnicodeError) as error:
        return Found(path, "", f"`{path} --version` failed: {error}")
    match = _VERSION.search(told.stdout)
    if match is None:
        return Found(path, "", f"`{path} --version` prints no version")
    return Found(path, match[1], version_refusal(name, match[1]))


def version_refusal(name: str, version: str) -> str:
    """Why functions of ``name`` are not probed in that version; "" where they are known."""
    if version.startswith(VERSIONS[name]):
        return ""
    *others, last = (f"{each}x" for each in VERSIONS[name])
    known = " and ".join([*([", ".join(others)] if others else []), last])
    return f"{name} is {version}, and its functions are known only for {known}"


def _is_roots(path: str) -> bool:
    """Whether nobody but root can have put it there."""
    while True:
        found = os.stat(path)
        if found.st_uid or (found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX):
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)
