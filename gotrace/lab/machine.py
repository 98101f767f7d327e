"""The machine that a baseline was measured on: what has to be equal to compare times, and how fast it is just now."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, TypedDict

from gotrace.errors import GotraceError
from gotrace.kernel.cgroup import cpu_group
from gotrace.kernel.cpus import cpus_for
from gotrace.kernel.host import online_cpus, text_of

_YARDSTICK_S = 0.2
_YARDSTICKS = 5
_DMI = "/sys/class/dmi/id"
# What stands in DMI on the machines of clouds; names as cloud.provider has them in OpenTelemetry's conventions.
_PROVIDERS = {
    "Amazon EC2": "aws",
    "Google": "gcp",
    "Microsoft Corporation": "azure",
    "Alibaba Cloud": "alibaba_cloud",
    "Tencent Cloud": "tencent_cloud",
    "Hetzner": "hetzner",
    "DigitalOcean": "digitalocean",
    "OVHcloud": "ovh",
    "OracleCloud.com": "oracle_cloud",
}


class Host(TypedDict):
    """A machine; null: unknown."""

    host_class: str
    architecture: str
    cpu: str | None
    cpus: int
    cores: int
    kernel: str
    page_bytes: int
    memory_bytes: int
    numa_nodes: int
    governor: str | None
    boost: str | None
    huge_pages: str | None
    hypervisor: str | None
    provider: str | None
    instance: str | None
    cgroup_version: int | None
    quota_cpus: float | None


def host() -> Host:
    """This machine. ``host_class`` is the same for machines on which times may be compared."""
    cpuinfo = _cpuinfo()
    cpus = cpus_for(os.getpid())
    version, quota = None, None
    try:
        group = cpu_group(os.getpid())
        version, quota = group.version, group.quota_cpus
    except GotraceError:
        pass
    vendor, product = text_of(_DMI, "sys_vendor"), text_of(_DMI, "product_name")
    found: dict[str, Any] = {
        "architecture": os.uname().machine,
        "cpu": cpuinfo,
        "cpus": len(online_cpus()),
        "cores": cpus.cores,
        "kernel": os.uname().release,
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1,
        "governor": text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        "boost": text_of("/sys/devices/system/cpu/cpufreq/boost") or None,
        "huge_pages": _chosen(text_of("/sys/kernel/mm/transparent_hugepage/enabled")),
        "hypervisor": _hypervisor(),
        "provider": next((name for text, name in _PROVIDERS.items() if text in (vendor, product)), None),
        "instance": product or None,
        "cgroup_version": version,
        "quota_cpus": quota,
    }
    compared = ("architecture", "cpu", "cpus", "cores", "page_bytes", "numa_nodes", "governor", "boost", "instance")
    text = json.dumps([found[name] for name in compared])
    return {"host_class": hashlib.sha256(text.encode()).hexdigest()[:12], **found}  # type: ignore[typeddict-item]


def _cpuinfo() -> str | None:
    """The processor's name; on ARM64 what identifies it, for /proc/cpuinfo has no name there."""
    fields: dict[str, str] = {}
    for line in text_of("/proc/cpuinfo").splitlines():
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


def _chosen(text: str) -> str | None:
    """Of a setting of sysfs, which shows all: never madvise [always]."""
    return text[text.find("[") + 1 : text.find("]")] or None if "[" in text else None


def _hypervisor() -> str | None:
    named = text_of("/sys/hypervisor/type")
    if named:
        return named
    return "yes" if " hypervisor" in text_of("/proc/cpuinfo") else None


def yardstick() -> float:
    """How often a second this machine runs a fixed loop now: in the fastest of five fifths of a second.

    What interrupts it is not its speed; what slows down all of them (a neighbour on the same core, a lower clock) is.
    """
    found = []
    for _ in range(_YARDSTICKS):
        count, begin = 0, time.perf_counter()
        while (passed := time.perf_counter() - begin) < _YARDSTICK_S:
            sum(range(1000))
            count += 1
        found.append(count / passed)
    return max(found)
