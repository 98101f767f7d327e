"""What is mounted where, as a process sees it: /proc/PID/mountinfo (proc(5))."""

from __future__ import annotations

import re
from typing import NamedTuple

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """``device`` is major << 20 | minor, as the kernel itself has it; ``options`` are the mount's and the file system's."""

    number: int
    device: int
    root: str
    point: str
    type: str
    source: str
    options: str


def mounts(pid: int) -> list[Mount]:
    """Those that a process sees; none if it is gone, or may not be looked at."""
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return [parsed(line) for line in file]
    except OSError:
        return []


def parsed(line: str) -> Mount:
    """One line of mountinfo."""
    mount, _, about = line.rstrip("\n").partition(" - ")
    number, _, device, root, point, options, *_ = mount.split(" ")
    kind, source, of_system = (about.split(" ", 2) + ["", ""])[:3]
    major, minor = map(int, device.split(":"))
    merged = ",".join(filter(None, dict.fromkeys([*options.split(","), *of_system.split(",")])))
    names = [plain(text) for text in (root, point, kind, source, merged)]
    return Mount(int(number), major << 20 | minor, names[0], names[1], names[2], names[3], names[4])


def plain(text: str) -> str:
    """A name as it is, without the kernel's escapes."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
