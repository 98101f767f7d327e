"""The links of GPUs and NICs: how wide and fast they are, and how wide and fast they could be. sysfs, and nvidia-smi."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from typing import Annotated, TypedDict

from gotrace.kernel.host import text_of

# The first byte of a device's class (PCI Code and ID Assignment): display and accelerators; networks.
_KINDS = {"03": "gpu", "12": "gpu", "02": "nic"}
_PATIENCE_S = 20


class Link(TypedDict):
    """A PCIe link; null: unknown."""

    device: Annotated[str, "its address: 0000:17:00.0"]
    kind: Annotated[str, "gpu or nic"]
    width: Annotated[int | None, "lanes"]
    max_width: int | None
    speed: Annotated[str | None, "per lane, as reported by the kernel; GPU drivers lower it when idle"]
    max_speed: str | None


def pcie_links(root: str = "/") -> list[Link]:
    """Of each GPU and NIC that has one, by address; not those of virtual functions, which share their device's."""
    folder = os.path.join(root, "sys/bus/pci/devices")
    found: list[Link] = []
    for device in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        own = os.path.join(folder, device)
        kind = _KINDS.get(text_of(own, "class")[2:4])
        if kind is None or os.path.lexists(os.path.join(own, "physfn")):
            continue
        if not os.path.exists(os.path.join(own, "max_link_width")):  # on no PCIe: a virtual machine's own
            continue
        found.append(
            {
                "device": device,
                "kind": kind,
                "width": _lanes(text_of(own, "current_link_width")),
                "max_width": _lanes(text_of(own, "max_link_width")),
                "speed": _speed(text_of(own, "current_link_speed")),
                "max_speed": _speed(text_of(own, "max_link_speed")),
            }
        )
    return found


def _lanes(text: str) -> int | None:
    """0 and 255 are what the kernel says where it does not know."""
    return int(text) if text.isdecimal() and 0 < int(text) < 255 else None


def _speed(text: str) -> str | None:
    """ "32.0 GT/s PCIe" """
    return text.removesuffix(" PCIe") if re.match(r"\d", text) else None


def link_text(link: Link) -> str:
    """x8 of x16, 16.0 GT/s of 32.0 GT/s"""
    width, most = (f"x{each}" if each else "?" for each in (link["width"], link["max_width"]))
    return f"{width} of {most}, {link['speed'] or '?'} of {link['max_speed'] or '?'}"


def nvlinks_of_host() -> list[str] | None:
    """`nvlinks` of this machine; None where there is no nvidia-smi, or it does not answer."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return None
    try:
        done = subprocess.run(
            [tool, "nvlink", "-s"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return nvlinks(done.stdout) if not done.returncode else None


def nvlinks(text: str) -> list[str]:
    """What `nvidia-smi nvlink -s` says, a text for each GPU: "GPU 0: 17 at 26.562 GB/s, 1 inactive"."""
    links: dict[str, Counter[str]] = {}
    gpu = ""
    for line in text.splitlines():
        if match := re.match(r"\s*(GPU \d+):", line):
            gpu = match[1]
            links[gpu] = Counter()
        elif gpu and (match := re.match(r"\s*Link \d+:\s*(?:<(\w+)>|([\d.]+ GB/s))", line)):
            links[gpu][match[1] or f"at {match[2]}"] += 1
    told = {gpu: ", ".join(f"{count} {what}" for what, count in sorted(of.items())) for gpu, of in links.items()}
    return [f"{gpu}: {what or 'none'}" for gpu, what in told.items()]
