"""What is wrong with a machine for NCCL, with the evidence, who gave it, and what to change.

``wrong`` costs speed or a job and can be changed; a ``warning`` may; a ``note`` is a trap for who configures by hand. No
finding claims more than its source shows: an interface without an address is no port that is down, SYS is no crossing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.cluster.topo import verdicts_gpus, verdicts_job, verdicts_nics
from gotrace.cluster.topo.finding import SEVERITIES, Finding, Severity
from gotrace.cluster.topo.model import NCCL_XML, Facts, Nodes, cpu_set, list_text
from gotrace.cluster.topo.rings import Counted

# Of remarks that a source made: how bad it is, and what to do.
_REMARKS: dict[str, tuple[Severity, str, str]] = {
    "acs": (
        "wrong",
        "disable ACS on these bridges (in the BIOS, or setpci -s BRIDGE ECAP_ACS+0x6.w=0000), unless this is a VM host",
        "with SrcValid+ and ReqRedir+, traffic between PCIe devices goes up to the root complex and back",
    ),
    "iommu": (
        "warning",
        "boot with iommu=pt, unless devices are passed through to VMs",
        "with a translating IOMMU, peer-to-peer traffic goes through the root complex, or fails",
    ),
    "pcie-slow": (
        "warning",
        "in a VM, give NCCL the cloud's topology file (NCCL_TOPO_FILE); on bare metal, compare LnkCap with LnkSta in "
        "lspci -vv",
        "NCCL rates every path by its slowest link, and chooses rings accordingly",
    ),
    "mask-odd": ("warning", "correct the affinity in the file", "NCCL binds its threads to these CPUs"),
    "nvlink-self": (
        "warning",
        "correct the nvlink targets in the file, or remove these elements: NCCL then asks the driver",
        "an nvlink element names the GPU or switch at the other end",
    ),
    "contradiction": (
        "warning",
        "find out which of the two is outdated or from another machine",
        "the two sources contradict each other",
    ),
    "log-no-ib": (
        "wrong",
        "make the RDMA devices visible to the job (in containers /dev/infiniband, and the driver's user-space library)",
        "NCCL then uses TCP sockets",
    ),
}
_ORDER = (
    "odd-node",
    "env-ib-disable",
    "env-loopback",
    "env-unknown",
    "env-socket",
    "log-socket",
    "log-no-ib",
    "port-down",
    "port-initializing",
    "nvlink-dead",
    "nvlink-uneven",
    "p2p-status",
    "acs",
    "log-no-gdr",
    "crossings",
)


def findings(facts: Facts, nodes: Nodes, rings: Sequence[Counted], most_crossings: int | None) -> list[Finding]:
    """Everything, the worst first. ``most_crossings`` None: nobody has set a limit."""
    found = [
        *verdicts_job.environment(facts),
        *verdicts_job.log(facts),
        *verdicts_nics.ports(facts),
        *verdicts_gpus.nvlinks(facts),
        *verdicts_gpus.peers(facts, rings),
        *verdicts_gpus.crossings(rings, most_crossings),
        *verdicts_nics.gdr(facts),
        *verdicts_nics.nics(facts),
        *verdicts_gpus.distances(facts, nodes),
        *verdicts_gpus.columns(facts, nodes),
        *_affinity(facts),
        *_whole(facts),
    ]
    for remark in facts.remarks:
        severity, do, why = _REMARKS[remark.code]
        found.append(Finding(remark.code, severity, remark.text, do, why, str(remark.source), remark.devices))
    places = {code: at for at, code in enumerate(_ORDER)}
    return sorted(found, key=lambda each: (SEVERITIES.index(each.severity), places.get(each.code, len(_ORDER))))


def _affinity(facts: Facts) -> Iterator[Finding]:
    """CPUs of a process that are not near its GPU."""
    for number, (cpus, source) in sorted(facts.affinity.items()):
        gpu = next((each for each in facts.gpus if each.index is not None and str(each.index) == number), None)
        if gpu is None:
            continue
        near = cpu_set(gpu.cpus) if gpu.cpus else facts.node_cpus.get(gpu.numa if gpu.numa is not None else -1)
        if near and not cpus <= near:
            yield Finding(
                "affinity",
                "warning",
                f"the process of {gpu.name} may run on CPUs that are not near it: {list_text(cpus - near)[:60]}",
                "bind it to the GPU's NUMA node (numactl, or the launcher's binding), or set NCCL_IGNORE_CPU_AFFINITY=1",
                f"near are {list_text(near)[:60]}",
                str(source),
                (gpu.name,),
            )


def _whole(facts: Facts) -> Iterator[Finding]:
    """Whether all there is to see was seen."""
    if facts.cut is not None:
        yield Finding(
            "cut",
            "warning",
            f"the matrix is truncated at line {facts.cut.line}: the missing part is unknown",
            "save it to a file: nvidia-smi topo -m > topo.txt",
            "its last row or rows are incomplete",
            str(facts.cut),
        )
    devices = facts.gpus or facts.nics or facts.ports or facts.others or facts.links or facts.p2p
    if not (devices or facts.rings or facts.transports or facts.environment or facts.netdevs or facts.fabric):
        yield Finding(
            "nothing",
            "wrong",
            "no GPU, NIC or port is described: nothing to check",
            "nvidia-smi topo -m > topo.txt; ibstat > ibstat.txt; gotrace topo check topo.txt ibstat.txt",
            "a clean result covers only what was checked",
            str(facts.sources[0]) if facts.sources else "",
        )
    if not facts.gpus and facts.others:
        yield Finding(
            "no-gpu",
            "warning",
            f"no device is known to be a GPU: {len(facts.others)} PCI devices have no class",
            "read NCCL's own dump instead: NCCL_TOPO_DUMP_FILE=topo.xml",
            "this file says only which NUMA node they are on",
            next((str(source) for source in facts.sources if source.kind == NCCL_XML), ""),
        )
