"""The machine that something was measured on: what has to be equal to compare times, and how fast it is just now."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

from gotrace.errors import GotraceError
from gotrace.kernel.cgroup import cpu_group
from gotrace.kernel.cpus import cpus_for
from gotrace.kernel.host import cpu_name, online_cpus, text_of
from gotrace.kernel.links import Link, link_text, nvlinks_of_host, pcie_links

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


# What has to be equal on machines on which times may be compared.
COMPARED = ("architecture", "cpu", "cpus", "cores", "page_bytes", "numa_nodes", "governor", "boost")
DEVICES = ("links", "nvlinks")
_NOTED = ("kernel", "memory_bytes", "huge_pages", "hypervisor", "quota_cpus")


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
    links: Annotated[list[Link], "the PCIe links of GPUs and NICs"]
    nvlinks: Annotated[list[str] | None, "of each GPU, as nvidia-smi nvlink -s has them"]


def host() -> Host:
    """This machine. ``host_class`` is the same for machines on which times may be compared."""
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
        "cpu": cpu_name(),
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
        "links": pcie_links(),
        "nvlinks": nvlinks_of_host(),
    }
    text = json.dumps([*(found[name] for name in COMPARED), text_of(_DMI, "product_name") or None])
    return {"host_class": hashlib.sha256(text.encode()).hexdigest()[:12], **found}  # type: ignore[typeddict-item]


class Difference(NamedTuple):
    """``matters``: what was measured on one says nothing about the other."""

    what: str
    then: str
    now: str
    matters: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.then} then, {self.now} now"


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Between two `Host`s, of which the older may lack what it did not know yet; what is unknown of one is noted alone.

    Of kernels the release matters (6.8), not what a distribution made of it. The speed at which the link of an idle GPU
    runs is lowered by its driver, so that of GPUs only the widths matter, and what they could be.
    """
    for name in (*COMPARED, *_NOTED):
        one, other = (host.get(name) for host in (then, now))
        if one != other:
            what = name.removesuffix("_bytes").replace("_", " ")
            known = one is not None and other is not None
            matters = name in COMPARED or (name == "kernel" and _release(one) != _release(other))
            yield Difference(what, _known(one), _known(other), known and matters)
    yield from _of_links(then.get("links"), now.get("links"))
    one, other = (host.get("nvlinks") for host in (then, now))
    if one != other:
        texts = ["unknown" if each is None else "; ".join(each) for each in (one, other)]
        yield Difference("NVLink", texts[0], texts[1], one is not None and other is not None)


def _of_links(then: list[Link] | None, now: list[Link] | None) -> Iterator[Difference]:
    both = [{each["device"]: each for each in links or ()} for links in (then, now)]
    known = then is not None and now is not None
    for device in sorted({*both[0], *both[1]}):
        found = [of.get(device) for of in both]
        if found[0] == found[1]:
            continue
        kind = next(each["kind"] for each in found if each)
        texts = [link_text(each) if each else "not there" if known else "unknown" for each in found]
        fixed = [each and {name: value for name, value in each.items() if name != "speed"} for each in found]
        unsure = any(None in each.values() for each in found if each)
        matters = known and not unsure and (kind != "gpu" or fixed[0] != fixed[1])
        yield Difference(f"PCIe link of the {kind} {device}", texts[0], texts[1], matters)


def _release(kernel: Any) -> str:
    found = re.match(r"\d+\.\d+", str(kernel))
    return found[0] if found else str(kernel)


def _known(value: Any) -> str:
    return "unknown" if value is None else str(value)


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
