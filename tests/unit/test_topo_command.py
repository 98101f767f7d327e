"""`gotrace topo` as people use it: verdicts for what is planted, nodes, settings, outputs, pages, and live machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from conftest import HOSTILE
from gotrace.cli.main import main
from gotrace.cluster.topo.merge import machines
from gotrace.cluster.topo.recommend import settings
from gotrace.cluster.topo.report import topology
from gotrace.cluster.topo.sources import parse_text
from gotrace.export.topology import draw
from gotrace.records.all import schema_of_command
from gotrace.records.topo import TopoFinding, Topology
from gotrace.text import printable
from pages import MOST, Parsed

SAMPLES = Path(__file__).parents[1] / "testdata" / "topo"
FILES = sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".txt", ".log", ".xml"))
H100 = (SAMPLES / "h100-8gpu-8nic-paired-shifted.txt").read_text()
H800 = (SAMPLES / "h800-8gpu-9nic-bond.txt").read_text()
P2P = "\n{0}\tGPU0\tGPU1\t\nGPU0\tX\t{1}\t\nGPU1\t{1}\tX\t\n"
LOG = "node1:1:2 [0] NCCL INFO "
CHECK = jsonschema.Draft202012Validator(schema_of_command("topo"))
Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs a command line in this process: its status, standard output and standard error."""
    monkeypatch.chdir(SAMPLES)

    def run_here(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["topo", *arguments])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return run_here


def record(*texts: str, limit: int | None = None) -> Topology:
    parts = [facts for number, text in enumerate(texts) for facts in parse_text(text, f"f{number}")]
    (found,) = machines(parts, "node")
    return topology(found, limit)


def finding(found: Topology, code: str) -> TopoFinding:
    (one,) = [each for each in found["findings"] if each["code"] == code]
    return one


def codes(found: Topology) -> set[str]:
    return {each["code"] for each in found["findings"]}


def ibstat(*ports: tuple[str, str, str, int]) -> str:
    return "".join(
        f"CA '{name}'\n\tCA type: MT4129\n\tSystem image GUID: 0x{at // 2 + 1:016x}\n\tPort 1:\n\t\tState: {state}\n"
        f"\t\tPhysical state: {physical}\n\t\tRate: {rate}\n\t\tSM lid: 1\n\t\tLink layer: InfiniBand\n"
        for at, (name, state, physical, rate) in enumerate(ports)
    )


UP = ("Active", "LinkUp", 400)
EIGHT = ibstat(*((f"mlx5_{at}", *UP) for at in range(8)))


# --- Verdicts: each is planted, and has to be named


def test_a_healthy_machine_has_nothing_wrong() -> None:
    found = record(H100, EIGHT)
    assert {each["severity"] for each in found["findings"]} == {"note"}


@pytest.mark.parametrize(
    ("text", "code", "severity", "do"),
    [
        ("NCCL_IB_DISABLE=1", "env-ib-disable", "wrong", "unset NCCL_IB_DISABLE"),
        ("export NCCL_NET=Socket", "env-socket", "wrong", "unset NCCL_NET"),
        ("NCCL_P2P_DISABLE=1", "env-p2p", "wrong", "unset NCCL_P2P_DISABLE"),
        ("NCCL_SOCKET_IFNAME=lo", "env-loopback", "warning", "unless the job has one node"),
        ("NCCL_SOCKET_IFNAME==lo", "env-loopback", "warning", "unset NCCL_SOCKET_IFNAME"),
        ("NCCL_IB_HCAS=mlx5_0", "env-unknown", "warning", "NCCL_IB_HCA?"),
        ("NCCL_SOCKET_IFNAM=eth0", "env-unknown", "warning", "NCCL_SOCKET_IFNAME?"),
        ("NCCL_NET_GDR_LEVL=PHB", "env-unknown", "warning", "NCCL_NET_GDR_LEVEL?"),
        ("NCCL_SHM_DISABLE=1", "env-shm", "warning", "unset NCCL_SHM_DISABLE"),
        ("NCCL_NET_GDR_LEVEL=LOC", "env-gdr", "wrong", "unset NCCL_NET_GDR_LEVEL"),
        ("NCCL_NET_GDR_LEVEL=SYS", "env-gdr", "warning", "measure"),
        ("NCCL_NET_GDR_LEVEL=0", "env-gdr", "wrong", "unset NCCL_NET_GDR_LEVEL"),
        ("NCCL_NET_GDR_LEVEL=sys", "env-gdr", "warning", "LOC, PIX, PXB, PHB, SYS"),
        ("NCCL_P2P_LEVEL=NODE", "env-p2p", "warning", "LOC, PIX, PXB, PHB, SYS"),
        ("NCCL_P2P_LEVEL=LOC", "env-p2p", "wrong", "unset NCCL_P2P_LEVEL"),
        ("NCCL_IB_HCA==mlx5_0,mlx5_1", "env-hca", "note", "same fabric"),
        ("NCCL_PXN_DISABLE=1", "env-pxn", "warning", "unset NCCL_PXN_DISABLE"),
        ("NCCL_IB_HCA==eth9", "env-hca", "wrong", "correct the names"),
        (f"{LOG}Channel 00/0 : 0[0] -> 8[0] [send] via NET/IB/3", "log-no-gdr", "wrong", "nvidia-peermem"),
        (f"{LOG}Channel 00/0 : 0[0] -> 8[0] [send] via NET/Socket/0", "log-socket", "wrong", "NET/IB"),
        (f"{LOG}Channel 00/0 : 0[0] -> 1[1] via SHM/direct/direct", "log-shm", "wrong", "NCCL_P2P_DISABLE"),
        (f"{LOG}NET/IB : No device found.", "log-no-ib", "wrong", "/dev/infiniband"),
        ("GPU 3: NVIDIA H100\n\t Link 0: 26.562 GB/s\n\t Link 1: <inactive>\n", "nvlink-dead", "wrong", "Xid"),
        (
            "0000:08:00.0 PCI bridge: Broadcom\n\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+\n",
            "acs",
            "wrong",
            "disable ACS",
        ),
        (P2P.format("", "CNS"), "p2p-status", "wrong", "ACS"),
        (f"{LOG}NCCL_IB_DISABLE set by environment to 1.", "env-ib-disable", "wrong", "unset NCCL_IB_DISABLE"),
    ],
)  # fmt: skip
def test_what_is_planted_is_found_and_what_to_do(text: str, code: str, severity: str, do: str) -> None:
    found = finding(record(H100, EIGHT, text), code)
    assert found["severity"] == severity and do in found["do"]
    assert "f2" in found["source"] or code in ("env-hca", "p2p-status")


@pytest.mark.parametrize(
    "text",
    [
        "NCCL_IB_DISABLE=0",
        "NCCL_SOCKET_IFNAME=eth0",
        "NCCL_SOCKET_IFNAME=^lo,docker0",
        "NCCL_DEBUG=INFO",
        "NCCL_FASTRAK_ENABLE_CONTROL_CHANNEL=0",
        "NCCL_IB_HCA==mlx5_0,mlx5_1",
        f"{LOG}Channel 00/0 : 0[0] -> 8[0] [send] via NET/IB/3/GDRDMA",
        f"{LOG}Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM",
        "GPU 3: NVIDIA H100\n\t Link 0: 26.562 GB/s\n",
        "0000:08:00.0 PCI bridge: Broadcom\n\tACSCtl:\tSrcValid- TransBlk- ReqRedir- CmpltRedir-\n",
        "0000:0f:00.0 3D controller: NVIDIA\n\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+\n",
        P2P.format("", "OK"),
    ],
)
def test_what_is_right_is_not_found(text: str) -> None:
    parts = [H100, EIGHT, text]
    found = topology(machines([facts for part in parts for facts in parse_text(part, "f")], "node")[0])
    assert {each["severity"] for each in found["findings"]} <= {"note"}, found["findings"]


def test_ports_that_are_down_slow_or_without_a_subnet_manager() -> None:
    ports = [(f"mlx5_{at}", *UP) for at in range(8)]
    ports[1] = ("mlx5_1", "Down", "Polling", 10)
    ports[2] = ("mlx5_2", "Initializing", "LinkUp", 400)
    ports[3] = ("mlx5_3", "Active", "LinkUp", 200)
    found = record(H100, ibstat(*ports))
    assert finding(found, "port-down")["devices"] == ["mlx5_1"]
    assert finding(found, "port-initializing")["devices"] == ["mlx5_2"]
    assert finding(found, "port-slow")["devices"] == ["mlx5_3"]
    assert {each["severity"] for each in found["findings"] if each["code"].startswith("port")} == {"wrong"}
    assert not {"mlx5_1", "mlx5_2"} & {stop for ring in found["rings"] for stop in ring["stops"]}
    # Near no GPU, and switched off by somebody: that may be meant.
    apart = ibstat(*((f"mlx5_{at}", *UP) for at in range(8)), ("mlx5_8", "Down", "Disabled", 10))
    assert finding(record(H100, apart), "port-down")["severity"] == "warning"


def test_an_interface_without_an_address_is_no_port_that_is_down() -> None:
    text = (SAMPLES / "ibdev2netdev-h100-12nic.txt").read_text()
    assert text.count("(Down)") == 10 and codes(record(text)) == {"prefix-trap"}


def test_a_gpu_that_has_fallen_off_nvlink() -> None:
    lines = H100.splitlines()
    row = lines[4].split()
    assert row[0] == "GPU3"
    lines[4] = lines[4].replace("NV18", "SYS ")
    for at in (1, 2, 3, 5, 6, 7, 8):
        cells = [match.start() for match in re.finditer(r"\S+", lines[at])]
        lines[at] = f"{lines[at][: cells[4]]}SYS {lines[at][cells[4] + 4 :]}"
    found = finding(record("\n".join(lines)), "nvlink-uneven")
    assert (found["severity"], found["devices"]) == ("wrong", ["GPU3"])
    assert "nvlink-uneven" not in codes(record((SAMPLES / "v100-sxm2-8gpu-1ib.txt").read_text()))
    four = "\tGPU0\tGPU1\tGPU2\tGPU3\n" + "".join(
        f"GPU{a}\t" + "\t".join("X" if a == b else "NV17" if 3 in (a, b) else "NV18" for b in range(4)) + "\n"
        for a in range(4)
    )
    assert finding(record(f"{four}\nLegend:\n"), "nvlink-uneven")["devices"] == ["GPU3"]
    fewer = H100.replace("NV18", "NV17", 7)
    with pytest.raises(Exception, match="GPU1 to GPU0 is NV18"):
        record(fewer)


def test_a_nic_that_has_fallen_off_the_bus() -> None:
    lines = [line for line in H800.splitlines() if not line.startswith("NIC3")]
    cut = []
    for line in lines:
        cells = line.split()
        is_row = line.startswith(("GPU", "NIC")) and len(cells) > 16
        if line.startswith(" ") and "GPU0" in line:
            line = line.replace("NIC3    ", "")
        elif is_row:
            starts = [match.start() for match in re.finditer(r"\S+", line)]
            line = line[: starts[12]] + line[starts[13] :]
        cut.append(line)
    found = finding(record("\n".join(cut)), "nic-missing")
    assert found["devices"] == ["GPU3"] and "nic-missing" not in codes(record(H800)) | codes(record(H100))


@pytest.mark.parametrize(
    ("value", "severity", "words"),
    [
        ("mlx5_1", "wrong", "NCCL_IB_HCA=mlx5_1 takes mlx5_10 too"),
        ("^mlx5_1", "wrong", "leaves out mlx5_10 too"),
        ("=mlx5_1", "", ""),
        ("=mlx5_1:1,mlx5_10:1", "", ""),
        ("=mlx5_2", "wrong", "leaves no active port"),
        ("=mlx5_1,mlx5_2", "warning", "includes mlx5_2, which cannot pass data"),
        ("^=mlx5_1", "warning", "includes mlx5_2, which cannot pass data"),
        ("^=mlx5_2", "", ""),
    ],
)
def test_names_of_devices_in_ib_hca(value: str, severity: str, words: str) -> None:
    text = ibstat(("mlx5_1", *UP), ("mlx5_10", *UP), ("mlx5_2", "Down", "Disabled", 10))
    found = [each for each in record(text, f"NCCL_IB_HCA={value}")["findings"] if each["code"] == "env-hca"]
    assert [each["severity"] for each in found][:1] == ([severity] if severity else [])
    assert not found or words in found[0]["what"]


def test_p2p_beyond_the_default_wants_the_drivers_word() -> None:
    pair = (SAMPLES / "pair-phb-numa-na.txt").read_text()
    assert finding(record(pair, "NCCL_P2P_LEVEL=SYS"), "env-p2p")["severity"] == "warning"
    assert "env-p2p" not in codes(record(pair, "NCCL_P2P_LEVEL=SYS", P2P.format("", "OK")))
    far = record(pair, P2P.format("", "OK"), "NCCL_P2P_LEVEL=PHB")
    assert far["pairs"][0]["p2p"] and far["pairs"][0]["p2p"]["answer"] == "yes"


def test_levels_are_what_nccl_takes_for_one() -> None:
    """By ncclGetLevel of NCCL's src/graph/paths.cc: words in capitals, numbers 0 to 4, all else is ignored."""
    pair = (SAMPLES / "pair-phb-numa-na.txt").read_text()
    for value, answer in [("PHB", "yes"), ("3", "yes"), ("9", "yes"), ("PXB", "no"), ("2", "no"), ("phb", "unknown")]:
        found = record(pair, P2P.format("", "OK"), f"NCCL_P2P_LEVEL={value}")["pairs"][0]["p2p"]
        assert found and found["answer"] == answer, value
    found = record(H100, "NCCL_P2P_LEVEL=LOC")["pairs"][0]["p2p"]
    assert found and found["answer"] == "no"


def test_rings_above_the_limit() -> None:
    text = (SAMPLES / "rtx6000ada-4gpu-4nic.txt").read_text()
    assert "crossings" not in codes(record(text))
    many = (SAMPLES / "pcie-6gpu-ansi-header.txt").read_text().replace("\t0-23,48-71\t0\t", "\t0-23,48-71\t2\t", 2)
    assert finding(record(many.replace("\tNODE", "\tSYS")), "crossings")["severity"] == "warning"  # three nodes
    found = record(text, limit=1)
    assert finding(found, "crossings")["severity"] == "wrong" and all(ring["over_limit"] for ring in found["rings"])


def test_sources_that_contradict_each_other_are_both_named() -> None:
    xml = (SAMPLES / "oci-bm-h100-dump.xml").read_text()
    matrix = (SAMPLES / "h100-8gpu-narrow-columns.txt").read_text()
    assert "contradiction" not in codes(record(xml, matrix))
    other = record(xml, (SAMPLES / "a100-8gpu-narrow-columns.txt").read_text())
    text = finding(other, "contradiction")["what"]
    assert "NV18 for NCCL XML, f0" in text and "NV12 for nvidia-smi, f1" in text and "27 more pairs" in text
    assert other["pairs"][0]["level"] == "NV18"  # NCCL's own word counts more
    port = (SAMPLES / "ibstatus-roce.txt").read_text()
    both = record(port, (SAMPLES / "ibv_devinfo-cx7-down.txt").read_text())
    assert "Active for ibstatus, f0" in finding(both, "contradiction")["what"]


def test_what_nccl_and_nvidia_call_differently_is_no_contradiction() -> None:
    """PXB is PIX where NCCL flattens a switch, NODE is PHB, and NVL has no number."""
    xml = (SAMPLES / "oci-bm-h100-dump.xml").read_text()
    nics = re.findall(r'<net name="(\w+)"', xml)[::2]
    rows = ["\t" + "\t".join([*(f"GPU{at}" for at in range(8)), *nics])]
    levels = [["NODE" if a // 4 == b // 4 else "SYS" for b in range(8)] for a in range(8)]
    for at in range(8):
        to_nics = ["PXB" if at == b else levels[at][b] for b in range(8)]
        rows.append("\t".join([f"GPU{at}", *("X" if at == b else "NV18" for b in range(8)), *to_nics]))
    for at, nic in enumerate(nics):
        to_gpus = ["PXB" if at == b else levels[at][b] for b in range(8)]
        rows.append("\t".join([nic, *to_gpus, *("X" if at == b else levels[at][b] for b in range(8))]))
    found = record(xml, "\n".join(rows) + "\n\nLegend:\n")
    assert "contradiction" not in codes(found)
    assert found["gpus"][0]["near_nics"] == ["mlx5_0", "mlx5_1"]


def test_a_process_that_is_bound_far_from_its_gpu() -> None:
    log = f"{LOG}comm 0x1 rank 0 nranks 8 cudaDev 4 nvmlDev 4 busId 89000\n{LOG}Setting affinity for GPU 4 to ff\n"
    found = finding(record((SAMPLES / "oci-bm-h100-dump.xml").read_text(), log), "affinity")
    assert found["devices"] == ["GPU4"] and "0-7" in found["what"]
    near = log.replace("to ff\n", "to ff,00000000,00000000\n")
    (facts,) = parse_text((SAMPLES / "oci-bm-h100-dump.xml").read_text(), "x")
    assert set(range(64, 72)) <= facts.node_cpus[1]
    assert "affinity" not in codes(record((SAMPLES / "oci-bm-h100-dump.xml").read_text(), near))


def test_a_log_of_a_later_version_has_bus_addresses_in_its_rings() -> None:
    lines = [
        "comm 0x5 rank 0 nranks 2 cudaDev 0 nvmlDev 0 busId 2a000",
        "comm 0x6 rank 1 nranks 2 cudaDev 1 nvmlDev 1 busId ab000",
        "NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_2:1/RoCE [RO]; OOB eth0:10.0.0.1<0>",
        "=== System : maxBw 48.0 totalBw 48.0 ===",
        "CPU/0-0 (1/1/2)",
        "+ PCI[48.0] - PCI/0-16000 (1000c0301000100b)",
        "              + PCI[48.0] - GPU/0-2a000 (0)",
        "              + PCI[48.0] - NIC/0-19000",
        "                            + NET[50.0] - NET/0-0 (1/1/50.000000)",
        "+ SYS[10.0] - CPU/0-1",
        "CPU/0-1 (1/1/2)",
        "+ PCI[48.0] - GPU/0-ab000 (1)",
        "Pattern 4, crossNic 0, nChannels 1, bw 10.000000/10.000000, type SYS/PIX, sameChannels 1",
        " 0 : NET/0-0 GPU/0-2a000 GPU/0-ab000 NET/0-0",
        "some line that no version has had so far",
    ]
    found = record("".join(f"[2026-01-01 00:00:00] node1:1:2 [0] NCCL INFO {line}\n" for line in lines))
    (ring,) = found["rings"]
    assert ring["stops"] == ["mlx5_0", "GPU0", "GPU1", "mlx5_0"]
    assert (ring["crossings"], ring["crossings_at_most"]) == (2, 2)  # to the second GPU, and back to the NIC
    levels = {(pair["one"], pair["other"]): pair["level"] for pair in found["pairs"]}
    assert levels["GPU0", "mlx5_0"] == "PIX" and levels["GPU1", "mlx5_0"] == "SYS"


def test_without_the_graph_a_log_has_the_order_of_ranks() -> None:
    """What NCCL_DEBUG=INFO alone prints; a later communicator has other ranks."""
    lines = [
        *(
            f"comm 0x1 rank {3 - at} nranks 4 cudaDev {at} nvmlDev {at} busId {at + 1:x}0000 - Init START"
            for at in range(4)
        ),
        "Channel 00/02 :    0   1   2   3",
        "Channel 01/02 :    0   2   1   3",
        "comm 0x2 rank 0 nranks 2 cudaDev 3 nvmlDev 3 busId 40000 - Init START",
    ]
    log = "".join(f"{LOG}{line}\n" for line in lines)
    found = record(log, (SAMPLES / "rtx6000ada-4gpu-4nic.txt").read_text())
    assert [ring["stops"] for ring in found["rings"]] == [
        ["GPU3", "GPU2", "GPU1", "GPU0"],
        ["GPU3", "GPU1", "GPU2", "GPU0"],
    ]
    # 3 2 | 1 0 |, and 3 | 1 | 2 | 0 |
    assert [ring["crossings"] for ring in found["rings"]] == [2, 4]
    assert finding(found, "crossings")["source"].startswith("NCCL log, f0:")


def test_the_log_of_a_healthy_job_has_nothing_wrong() -> None:
    """What a job on two such machines prints with NCCL_DEBUG=INFO alone; the ranks of the other one are not here."""
    lines = [
        "Bootstrap : Using ens3:10.0.0.1<0>",
        "NET/Plugin : Plugin load (libnccl-net.so) returned 2 : libnccl-net.so: cannot open shared object file",
        "NET/IB : Using " + " ".join(f"[{at}]mlx5_{at}:1/IB" for at in range(8)) + " [RO]; OOB ens3:10.0.0.1<0>",
        "Using network IB",
        *(
            f"comm 0x1 rank {at} nranks 16 cudaDev {at} nvmlDev {at} busId {at + 1:x}8000 commId 0x2 - Init"
            for at in range(8)
        ),
        "Setting affinity for GPU 0 to ffff,ffffffff",
        "NVLS multicast support is available on dev 0",
        "Channel 00/16 :    0   7   6   5   4   3   2   1   9   8  15  14  13  12  11  10",
        "Trees [0] 1/8/-1->0->-1 [1] 1/-1/-1->0->8",
        "Channel 00/0 : 10[2] -> 0[0] [receive] via NET/IB/0/GDRDMA",
        "Channel 00/0 : 0[0] -> 7[7] via P2P/CUMEM/read",
        "Channel 00/0 : 1[1] -> 9[1] [send] via NET/IB/0(0)/GDRDMA",
        "Connected all rings",
    ]
    found = record(H100, EIGHT, "".join(f"{LOG}{line}\n" for line in lines))
    assert {each["severity"] for each in found["findings"]} == {"note"}
    assert [gpu["rank"] for gpu in found["gpus"]] == [*range(8)] and found["gpus"][7]["bus"] == "0000:88:00.0"
    assert len(found["nics"]) == 8 and all(ring["source"] is None for ring in found["rings"])


def test_a_machine_without_numa_nodes_and_a_log_that_says_what_is_direct() -> None:
    lines = [
        "NCCL_IB_HCA set to rxe0",
        "NET/IB : Using [0]rxe0:1/RoCE [1]rxe1:1/RoCE [RO]; OOB eth0:10.0.0.1<0>",
        "GPU Direct RDMA Disabled for GPU 80 / HCA 0 (distance 7 > 4)",
        "GPU Direct RDMA Enabled for GPU 80 / HCA 1 (distance 7 <= 7), read 0",
        "=== System : maxBw 0.3 totalBw 12.0 ===",
        "CPU/FFFFFFFFFFFFFFFF (1/1/1)",
        "+ PCI[5000.0] - NIC/0-0-0",
        "                 + NET[0.3] - NET/0-0-0 (6216a3feff3e16f8/1/0.312500)",
        "                 + NET[0.3] - NET/0-0-1 (6216a3feff3e16f8/2/0.312500)",
        "+ PCI[12.0] - GPU/0-0-80 (0)",
        "GPU/80 :GPU/80 (0/5000.000000/LOC) CPU/FFFFFFFFFFFFFFFF (1/12.000000/PHB) NET/0 (3/0.312500/PHB)",
        "Pattern 4, crossNic 0, nChannels 1, bw 0.240000/0.240000, type LOC/PHB, sameChannels 1",
        " 0 : NET/0-0-1 GPU/0-0-80 NET/0-0-1",
    ]
    found = record("".join(f"{LOG}{line}\n" for line in lines))
    (gpu,) = found["gpus"]
    assert (gpu["bus"], gpu["node"], gpu["gdr_nic"]) == ("0000:00:08.0", None, "rxe1")
    judged = {pair["other"]: pair["gdr"]["answer"] for pair in found["pairs"] if pair["gdr"]}
    assert judged == {"rxe0": "no", "rxe1": "yes"} and [nic["node"] for nic in found["nics"]] == [None, None]
    (ring,) = found["rings"]
    assert ring["stops"] == ["rxe1", "0000:00:08.0", "rxe1"] and ring["crossings_at_most"] == 0  # by one CPU: PHB


def test_the_environment_of_a_process(tmp_path: Path, here: Here) -> None:
    (tmp_path / "environ").write_bytes(b"PASSWORD=x\0NCCL_IB_DISABLE=1\0HOME=/\0")
    status, printed, _ = here("check", "ibstatus-roce.txt", str(tmp_path / "environ"))
    assert (
        status == 1
        and printed.startswith("WRONG: NCCL_IB_DISABLE=1")
        and "environ:2" in printed
        and "PASSWORD" not in printed
    )


def test_lspci_may_have_gpus_that_nvidia_smi_has_not() -> None:
    cards = "".join(f"0000:{at:02x}:00.0 3D controller: NVIDIA\n\tNUMA node: {at}\n" for at in range(1, 4))
    found = record((SAMPLES / "pair-nv2-numa-na.txt").read_text(), cards)
    assert [(gpu["name"], gpu["node"]) for gpu in found["gpus"]] == [("GPU0", None), ("GPU1", None)]
    assert "could not be matched" in found["notes"][0]
    two = record((SAMPLES / "pair-nv2-numa-na.txt").read_text(), cards.partition("0000:03")[0])
    assert [gpu["node"] for gpu in two["gpus"]] == ["1", "2"] and two["gpus"][1]["bus"] == "0000:02:00.0"


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><system version="1"><cpu numaid="&c;"/></system>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><system version="1"></system>',
        '<system version="1"><cpu numaid="&undefined;"/></system>',
        '<system version="1"><cpu numaid="0">' + '<pci busid="1">' * 200 + "</pci>" * 200 + "</cpu></system>",
        '<system><cpu numaid="0">' + '<pci busid="0000:00:00.0" class="0x030200"/>' * 600 + "</cpu></system>",
        '<system version="1"><cpu numaid="0"',
    ],
)
def test_hostile_xml_is_refused(text: str, tmp_path: Path, here: Here) -> None:
    (tmp_path / "x.xml").write_text(text)
    status, printed, said = here("check", str(tmp_path / "x.xml"))
    assert (status, printed) == (1, "") and len(said.splitlines()) == 2 and "hint" in said and "root:" not in said


# --- Many nodes, and two


def test_where_there_was_nothing_to_check_something_is_wrong() -> None:
    """Or whoever gates by the exit status would be told that all is well."""
    found = record('<system version="1"></system>')
    assert [each["code"] for each in found["findings"]] == ["nothing"] and finding(found, "nothing")["severity"] == "wrong"


def test_the_odd_node_is_the_finding(tmp_path: Path, here: Here) -> None:
    for name in "abcd":
        text = H800 if name != "c" else H800.replace("mlx5_5", "mlx5_17")
        (tmp_path / f"{name}.txt").write_text(text)
    files = [str(tmp_path / f"{name}.txt") for name in "abcd"]
    status, printed, _ = here("check", "--nodes", *files)
    assert status == 1 and printed.startswith("ODD: c of 4 nodes. The others are alike.\n")
    assert "mlx5_17" in printed.split("c:\n")[0]
    status, printed, _ = here("check", "--nodes", *files[:2], files[3])
    assert status == 0 and printed.startswith("3 nodes are alike.\n")
    status, printed, _ = here("check", "--nodes", *files, "--format", "json")
    (nodes,) = [each for each in json.loads(printed) if each["type"] == "topology_nodes"]
    CHECK.validate(nodes)
    assert [each["node"] for each in nodes["odd"]] == ["c"]
    assert here("check", "--nodes", files[0])[1].startswith("1 node: nothing to compare it with.\n")
    status, printed, _ = here("check", "--nodes", files[0], files[2])
    assert status == 1 and "none of them are a majority" in printed


def test_differences_of_two_machines(here: Here) -> None:
    a, b = "a100-8gpu-narrow-columns.txt", "h100-8gpu-narrow-columns.txt"
    status, printed, _ = here("diff", a, b)
    assert status == 1 and printed.count("NV12") == printed.count("NV18") == 28 and "28 differences" in printed
    assert here("diff", a, str(SAMPLES / a))[:2] == (0, f"{a} and {SAMPLES / a} do not differ.\n")
    (found,) = json.loads(here("diff", a, b, "--format", "json")[1])
    CHECK.validate(found)
    assert len(found["differences"]) == 28 and found["differences"][0] == {
        "what": "GPU0 to GPU1",
        "one": "NV12",
        "other": "NV18",
    }


# --- What to set


def test_ib_disable_is_never_recommended(here: Here) -> None:
    for name in FILES:
        status, printed, _ = here("recommend", name)
        assert status == 0 and not re.search(r"^(?:# measure first: )?export NCCL_IB_DISABLE", printed, re.MULTILINE)


def test_settings_are_what_a_shell_takes(tmp_path: Path, here: Here) -> None:
    ports = [(f"mlx5_{at}", *UP) for at in range(8)]
    ports[7] = ("mlx5_7", "Active", "LinkUp", 200)
    (tmp_path / "node.txt").write_text(f"{H100}\n{ibstat(*ports)}\nNCCL_IB_DISABLE=1\n")
    status, printed, _ = here("recommend", str(tmp_path / "node.txt"), "-o", str(tmp_path / "env.sh"))
    assert status == 0
    script = f'NCCL_IB_DISABLE=1; . {tmp_path}/env.sh; echo "$NCCL_IB_HCA|${{NCCL_IB_DISABLE-unset}}"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "=mlx5_0,mlx5_1,mlx5_2,mlx5_3,mlx5_4,mlx5_5,mlx5_6|unset\n"
    assert "leaves out mlx5_7" in printed and "mlx5_0 and mlx5_1" in printed
    pod = yaml.safe_load(here("recommend", str(tmp_path / "node.txt"), "--format", "yaml")[1])
    assert pod == {"env": [{"name": "NCCL_IB_HCA", "value": "=mlx5_0,mlx5_1,mlx5_2,mlx5_3,mlx5_4,mlx5_5,mlx5_6"}]}
    (found,) = json.loads(here("recommend", str(tmp_path / "node.txt"), "--format", "json")[1])
    CHECK.validate(found)
    assert [each["variable"] for each in found["settings"]] == ["NCCL_IB_DISABLE", "NCCL_IB_HCA"]


def test_gdr_over_the_processor_is_for_the_gpus_of_its_node() -> None:
    text = "\tGPU0\tGPU1\tmlx5_0\nGPU0\t X \tSYS\tPHB\nGPU1\tSYS\t X \tSYS\nmlx5_0\tPHB\tSYS\t X \n"
    assert finding(record(text), "gdr-off")["do"].startswith("measure with NCCL_NET_GDR_LEVEL=PHB for GPU0: ")


def test_efa_is_not_for_ib_hca() -> None:
    found = settings(machines(parse_text(H100.replace("mlx5_", "rdmap16s"), "f"), "node")[0])
    assert "NCCL_IB_HCA" not in {each["variable"] for each in found["settings"]}
    assert any("aws-ofi-nccl" in each for each in found["left_alone"])


def test_the_nic_of_every_gpu_is_kept() -> None:
    """A PCIe machine: mlx5_0 is the only NIC of node 0, behind its host bridge; mlx5_1 shares a switch with GPU2."""
    text = (
        "\tGPU0\tGPU1\tGPU2\tGPU3\tmlx5_0\tmlx5_1\tCPU Affinity\tNUMA Affinity\n"
        "GPU0\t X \tPIX\tSYS\tSYS\tNODE\tSYS\t0-15\t0\nGPU1\tPIX\t X \tSYS\tSYS\tNODE\tSYS\t0-15\t0\n"
        "GPU2\tSYS\tSYS\t X \tPHB\tSYS\tPXB\t16-31\t1\nGPU3\tSYS\tSYS\tPHB\t X \tSYS\tPHB\t16-31\t1\n"
        "mlx5_0\tNODE\tNODE\tSYS\tSYS\t X \tSYS\nmlx5_1\tSYS\tSYS\tPXB\tPHB\tSYS\t X \n"
    )
    ports = ibstat(("mlx5_0", *UP), ("mlx5_1", *UP), ("mlx5_2", *UP))
    (found,) = machines([*parse_text(text, "f"), *parse_text(ports, "i")], "node")
    hca = settings(found)["settings"][0]
    assert (hca["variable"], hca["value"]) == ("NCCL_IB_HCA", "=mlx5_0,mlx5_1")
    assert "leaves out mlx5_2" in hca["changes"]
    assert finding(topology(found, None), "nic-shared")["what"] == "4 GPUs share 2 NICs: mlx5_0, mlx5_1"
    assert [ring["stops"][0] for ring in topology(found, None)["rings"]] == ["mlx5_0", "mlx5_1"]


def test_unknown_is_marked_in_the_matrix(tmp_path: Path, here: Here) -> None:
    """NCCL lets two GPUs over SYS with AMD processors alone, which a matrix does not tell."""
    (tmp_path / "two.txt").write_text("\tGPU0\tGPU1\nGPU0\t X \tSYS\nGPU1\tSYS\t X \n")
    assert re.search(r"GPU0 .* X +SYS\?\n", here("show", str(tmp_path / "two.txt"))[1])


def test_what_has_to_be_measured_is_a_comment(here: Here) -> None:
    printed = here("recommend", "vm-1gpu-1nic.txt")[1]
    assert "\n# measure first: export NCCL_NET_GDR_LEVEL=PHB\n" in printed
    assert yaml.safe_load(here("recommend", "pair-nv2-numa-na.txt", "--format", "yaml")[1]) == {"env": []}


def test_names_of_devices_cannot_leave_their_quotes() -> None:
    for name in ["a';touch /tmp/x;'1", "$(id)1", "`id`1", "a\nb1"]:
        text = ibstat((name.replace("'", ""), *UP))
        for facts in parse_text(text, "f"):
            for each in settings(machines([facts], "n")[0])["settings"]:
                from gotrace.cli.text.topo import _quoted

                done = subprocess.run(
                    ["sh", "-c", f"printf %s {_quoted(each['value'] or '')}"], capture_output=True, text=True
                )
                assert done.stdout == printable(each["value"] or "")


# --- Outputs


@pytest.mark.parametrize("name", FILES)
def test_records_fit_the_schema_and_pages_stand_alone(name: str, tmp_path: Path, here: Here) -> None:
    names = [str(tmp_path / f"x.{ending}") for ending in ("json", "html", "svg")]
    status, _, said = here("show", name, *(part for each in names for part in ("-o", each)))
    assert status == 0 and said.count("wrote") == 3
    for each in json.loads(Path(names[0]).read_text()):
        CHECK.validate(each)
    page = Path(names[1]).read_text()
    parsed = Parsed(page)
    assert len(page) < MOST and "script-src 'none'" in page and not parsed.scripts
    assert not [value for _, attributes in parsed.tags for key, value in attributes.items() if key in ("src", "href")]
    picture = ElementTree.fromstring(Path(names[2]).read_text())
    for each in picture.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(each.get("x", 0)) + float(each.get("width", 0)) <= draw.WIDTH
        assert float(each.get("y", 0)) + float(each.get("height", 0)) <= float(picture.get("height", 0))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_names(name: str) -> None:
    found = record(H100, EIGHT)
    text = json.dumps(found).replace("mlx5_0", json.dumps(name)[1:-1])
    hostile: Topology = json.loads(text)
    page = draw.page([hostile])
    assert "<script>" not in page and "onerror=alert" not in page.replace("onerror=alert(1)&gt;", "")
    ElementTree.fromstring(draw.svg([hostile]))


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", FILES)
def test_tables_fit(name: str, columns: int, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    from gotrace.cli.text import layout

    monkeypatch.setattr("gotrace.cli.text.table.room_of", lambda _: columns)
    for part in ("show", "check"):
        lines = here(part, name)[1].splitlines()
        assert lines and [line for line in lines if len(line) > columns and " " in line.strip()] == []
    assert layout.wrapped("a b", 1) == "a\nb"


def test_the_first_line_says_what_to_change(tmp_path: Path, here: Here) -> None:
    (tmp_path / "x.txt").write_text(f"{H100}\n{EIGHT}\nNCCL_IB_DISABLE=1\n")
    status, printed, _ = here("check", str(tmp_path / "x.txt"))
    first, second, third = printed.splitlines()[:3]
    assert status == 1 and first.startswith("WRONG: NCCL_IB_DISABLE=1 disables InfiniBand and RoCE")
    assert second.strip() == "do: unset NCCL_IB_DISABLE" and "8 RDMA ports up" in third and "x.txt:" in third


def test_a_pipe_and_several_kinds_in_one_file(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "gotrace.cli", "topo", "show", "-", "--format", "json"]
    done = subprocess.run(words, input=H100 + EIGHT, capture_output=True, text=True, check=True)
    (found,) = json.loads(done.stdout)
    assert len(found["gpus"]) == len(found["ports"]) == 8 and found["name"] == "standard input"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark(encoding: str, tmp_path: Path, here: Here) -> None:
    (tmp_path / "x.txt").write_text(H100, encoding)
    assert here("check", str(tmp_path / "x.txt"))[1].startswith("note: ")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["check", "none.txt"], 1, "none.txt: No such file"),
        (["check", "README.md"], 1, "contains nothing that gotrace knows"),
        (["check", "vm-1gpu-1nic.txt", "vm-1gpu-1nic.txt"], 2, "a file was given twice"),
        (["check", "--nodes"], 2, "--nodes has no effect without files"),
        ([], 2, "no subcommand given"),
        (["chekc"], 2, "there is no gotrace topo chekc"),
        (["show", "vm-1gpu-1nic.txt", "-o", "x.png"], 2, "cannot infer the format"),
        (["diff", "nccl-graph-2x4gpu-4net-rings.log", "vm-1gpu-1nic.txt"], 2, "describes 2 nodes"),
    ],
)
def test_mistakes_are_said_in_two_lines(arguments: list[str], status: int, said: str, here: Here) -> None:
    ended, printed, complaint = here(*arguments)
    assert (ended, printed) == (status, "") and said in complaint and len(complaint.splitlines()) == 2


# --- This machine


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def fake_machine(root: Path) -> None:
    """Two NUMA nodes; on each a switch with a GPU and a NIC behind it."""
    for node, bus in enumerate(("10", "90")):
        switch = root / f"sys/devices/pci0000:{bus}/0000:{bus}:00.0"
        for name, code, vendor in ((f"0000:{bus}:01.0", "0x030200", "0x10de"), (f"0000:{bus}:02.0", "0x020700", "0x15b3")):
            device = switch / name
            device.mkdir(parents=True)
            for key, value in {
                "class": code,
                "vendor": vendor,
                "numa_node": node,
                "current_link_speed": "32.0 GT/s PCIe",
                "current_link_width": 16,
            }.items():
                (device / key).write_text(f"{value}\n")
        (switch / "class").write_text("0x060400\n")
        (root / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
        for path in (switch, *switch.glob("0000:*")):
            (root / "sys/bus/pci/devices" / path.name).symlink_to(path)
        infiniband = root / f"sys/class/infiniband/mlx5_{node}"
        port = infiniband / "ports/1"
        port.mkdir(parents=True)
        (infiniband / "device").symlink_to(switch / f"0000:{bus}:02.0")
        for key, text in {
            "state": "4: ACTIVE" if node == 0 else "1: DOWN",
            "phys_state": "5: LinkUp" if node == 0 else "2: Polling",
            "rate": "400 Gb/sec (4X NDR)",
            "link_layer": "InfiniBand",
        }.items():
            (port / key).write_text(f"{text}\n")
    (root / "sys/kernel/iommu_groups/7").mkdir(parents=True)
    (root / "proc/net").mkdir(parents=True)
    (root / "proc/cmdline").write_text("BOOT_IMAGE=/vmlinuz quiet\n")
    heads = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT"
    (root / "proc/net/route").write_text(f"{heads}\nens3 00000000 0100000A 0003 0 0 100 00000000 0 0 0\n")
    (root / "etc").mkdir()
    (root / "etc/nccl.conf").write_text("# ours\nNCCL_IB_DISABLE=1\n")


def test_a_live_machine(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """sysfs below a folder, and commands that are found by PATH; what is not there is said."""
    fake_machine(tmp_path / "root")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    rows = ("GPU0\\t X \\tSYS\\t0-9\\t0", "GPU1\\tSYS\\t X \\t10-19\\t1", "", "Legend:", "")
    matrix = "\\n".join(["\\tGPU0\\tGPU1\\tCPU Affinity\\tNUMA Affinity", *rows])
    executable(bin_ / "nvidia-smi", f'[ "$1 $2" = "topo -m" ] && printf "{matrix}" && exit; echo no such thing >&2; exit 2')
    executable(bin_ / "ibstat", "cat <<'X'\n" + ibstat(("mlx5_0", *UP)) + "X\necho ibpanic: something >&2; exit 255")
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    for name in [name for name in os.environ if name.startswith("NCCL_")]:
        monkeypatch.delenv(name)
    status, printed, said = here("check", "--root", str(tmp_path / "root"), "--format", "json")
    (found,) = json.loads(printed)
    assert status == 1
    assert [(gpu["name"], gpu["bus"], gpu["node"], gpu["near_nics"]) for gpu in found["gpus"]] == [
        ("GPU0", "0000:10:01.0", "0", ["mlx5_0"]),
        ("GPU1", "0000:90:01.0", "1", ["mlx5_1"]),
    ]
    assert [(port["device"], port["state"], port["usable"]) for port in found["ports"]] == [
        ("mlx5_0", "Active", True),
        ("mlx5_1", "Down", False),
    ]
    assert {"env-ib-disable", "port-down", "iommu"} <= codes(found)
    assert "nvlink -s: no such thing" in said and "ibdev2netdev: not found" in said
    printed = here("recommend", "--root", str(tmp_path / "root"))[1]
    assert "unset NCCL_IB_DISABLE" in printed and "export NCCL_SOCKET_IFNAME='=ens3'" in printed


def test_a_machine_without_gpus_and_rdma(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status, printed, said = here("check", "--root", str(tmp_path))
    assert (status, printed) == (1, "") and "neither a GPU nor an RDMA device" in said and "topo.txt" in said


def test_the_schema_is_the_same_for_every_part(here: Here) -> None:
    texts: set[Any] = {here(*words, "--json-schema")[1] for words in ([], ["show"], ["check"], ["recommend"], ["diff"])}
    assert len(texts) == 1
