"""The kernel's transparent huge pages: their size, and how often they were split.

Documentation/admin-guide/mm/transhuge.rst of the kernel.
"""

from __future__ import annotations

import os

_PMD_SIZE = "sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
_SPLITS = (b"thp_split_page", b"thp_split_pmd")


def page_bytes(root: str = "/") -> int:
    """The size of a huge page; 2 MiB where the kernel has none and so does not tell."""
    try:
        with open(os.path.join(root, _PMD_SIZE)) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 2 << 20


def splits(root: str = "/") -> dict[str, int]:
    """Splits of huge pages on the whole machine since it booted, by the kernel's names; empty where it counts none."""
    try:
        with open(os.path.join(root, "proc/vmstat"), "rb") as file:
            words = (line.split() for line in file)
            return {name.decode(): int(count) for name, count in words if name in _SPLITS}
    except OSError:
        return {}
