"""The machine that a baseline was measured on: what has to be equal to compare times, and how fast it is just now."""

from __future__ import annotations

import hashlib
import json
import os
import re
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
# What firmware says on machines of clouds, as cloud-init's ds-identify knows it; names as `cloud.provider` has them in
# OpenTelemetry's conventions, where those have one.
_BY_VENDOR = {
    "Akamai": "akamai_cloud",
    "Alibaba Cloud": "alibaba_cloud",
    "Amazon EC2": "aws",
    "DigitalOcean": "digitalocean",
    "Google": "gcp",
    "Hetzner": "hetzner",
    "Linode": "akamai_cloud",
    "OVHcloud": "ovh",
    "Scaleway": "scaleway",
    "Tencent Cloud": "tencent_cloud",
    "UpCloud": "upcloud",
    "Vultr": "vultr",
}
_BY_ASSET_TAG = {
    "7783-7084-3265-9085-8269-3286-77": "azure",  # "Microsoft Corporation" alone is any Hyper-V
    "OracleCloud.com": "oracle_cloud",
    "OpenTelekomCloud": "open_telekom_cloud",
    "HUAWEICLOUD": "huawei_cloud",
}
_BY_PRODUCT = {"Google Compute Engine": "gcp", "Alibaba Cloud ECS": "alibaba_cloud", "CloudSigma": "cloudsigma"}
# Whose product is the instance's type, and how that looks; with all others it is "Virtual Machine", "Droplet", "vServer".
_TYPES = {"aws": r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "scaleway": r"SCW-[A-Z0-9-]+"}


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
    provider, instance = cloud(_DMI)
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
        "provider": provider,
        "instance": instance,
        "cgroup_version": version,
        "quota_cpus": quota,
    }
    compared = ("architecture", "cpu", "cpus", "cores", "page_bytes", "numa_nodes", "governor", "boost")
    text = json.dumps([*(found[name] for name in compared), text_of(_DMI, "product_name") or None])
    return {"host_class": hashlib.sha256(text.encode()).hexdigest()[:12], **found}  # type: ignore[typeddict-item]


def cloud(dmi: str) -> tuple[str | None, str | None]:
    """Whose machine it is and of which type, by what its firmware says in the folder ``dmi``; None: unknown.

    Google, Azure, Oracle, Hetzner and most others name no type there, only their metadata services do.
    """
    vendor, product, tag = (text_of(dmi, name) for name in ("sys_vendor", "product_name", "chassis_asset_tag"))
    provider = _BY_ASSET_TAG.get(tag) or _BY_VENDOR.get(vendor) or _BY_PRODUCT.get(product)
    if provider is None and "amazon" in text_of(dmi, "bios_version").lower():
        provider = "aws"  # its older machines are Xen's, "HVM domU"
    if provider is None and product.startswith("Exoscale"):
        provider = "exoscale"
    known = provider is not None and re.fullmatch(_TYPES.get(provider, ""), product)
    return provider, product if known and product else None


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
