"""The kernel's transparent huge pages: when it makes them, their size, and how often they were split.

Documentation/admin-guide/mm/transhuge.rst of the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

_SPLITS = (b"thp_split_page", b"thp_split_pmd")


@dataclass(frozen=True)
class Setting:
    """What the kernel does with huge pages that are not reserved: the words of /sys/kernel/mm/transparent_hugepage.

    ``size`` is in bytes. khugepaged makes one of what is there when no more than ``max_ptes_none`` of its pages are absent.
    """

    enabled: str  # always, madvise or never
    defrag: str  # always, defer, defer+madvise, madvise or never: whether to wait for memory to be put together
    size: int
    max_ptes_none: int


def setting(root: str = "/") -> Setting | None:
    """None where the kernel has none (CONFIG_TRANSPARENT_HUGEPAGE)."""

    def read(name: str) -> str:
        with open(os.path.join(root, "sys/kernel/mm/transparent_hugepage", name)) as file:
            return file.read().strip()

    def chosen(name: str) -> str:
        text = read(name)
        return text[text.find("[") + 1 : text.find("]")]

    try:
        numbers = int(read("hpage_pmd_size")), int(read("khugepaged/max_ptes_none"))
        return Setting(chosen("enabled"), chosen("defrag"), *numbers)
    except (OSError, ValueError):
        return None


def eligible(pid: int, addresses: Sequence[int]) -> tuple[int, str] | None:
    """How many of some addresses (ascending) lie in mappings that may get huge pages, and what was asked for these and the
    others: "hg" (to have them), "nh" (to have none), both, or "". None where the kernel does not say (before Linux 5.0).

    It goes through the pages of all mappings up to the last address: 4 us a resident MiB.
    """
    left, within, count, flags = list(addresses), 0, 0, set()
    try:
        with open(f"/proc/{pid}/smaps", errors="replace", newline="\n") as file:
            for line in file:
                name, _, rest = line.partition(" ")
                if "-" in name:
                    if not left:
                        break
                    begin, end = (int(part, 16) for part in name.split("-"))
                    within = sum(begin <= address < end for address in left)
                    left = [address for address in left if address >= end]
                elif within and name == "THPeligible:":
                    count += within * (rest.strip() != "0")
                elif within and name == "VmFlags:":
                    flags |= {"hg", "nh"} & {*rest.split()}
    except (OSError, ValueError):
        return None
    return count, " ".join(sorted(flags))


def splits(root: str = "/") -> dict[str, int]:
    """Splits of huge pages on the whole machine since it booted, by the kernel's names; empty where it counts none."""
    try:
        with open(os.path.join(root, "proc/vmstat"), "rb") as file:
            words = (line.split() for line in file)
            return {name.decode(): int(count) for name, count in words if name in _SPLITS}
    except OSError:
        return {}
