"""`gotrace topo` against answers that were derived by hand from each sample, before there was a parser."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gotrace.cluster.topo.fabric import Fabric
from gotrace.cluster.topo.merge import machines
from gotrace.cluster.topo.model import Facts, is_nvlink
from gotrace.cluster.topo.report import topology, wrong
from gotrace.cluster.topo.sources import read_file
from gotrace.records.topo import Topology

SAMPLES = Path(__file__).parents[1] / "testdata" / "topo"
ANSWERS: dict[str, dict[str, Any]] = json.loads((SAMPLES / "answers.json").read_text())


def facts_of(name: str, host: str = "") -> Facts:
    found = machines(read_file(str(SAMPLES / name)), "node")
    return next(each for each in found if host in ("", each.host))


def record_of(name: str, host: str = "") -> Topology:
    return topology(facts_of(name, host))


def test_every_sample_has_answers() -> None:
    assert set(ANSWERS) == {path.name for path in SAMPLES.iterdir()} - {"README.md", "answers.json"}
    assert len(ANSWERS) == 36


@pytest.mark.parametrize("name", ANSWERS)
def test_what_was_derived_by_hand(name: str) -> None:
    answer = ANSWERS[name]
    facts = facts_of(name, answer.get("of", ""))
    found = topology(facts)
    pairs = [pair for pair in found["pairs"] if pair["p2p"]]
    to_nics = [pair for pair in found["pairs"] if pair["gdr"]]
    if "gpus" in answer:
        assert len(found["gpus"]) == answer["gpus"]
        assert [nic["name"] for nic in found["nics"]] == answer["nics"]
        assert [gpu.numa for gpu in facts.gpus] == answer["numa"]
        assert Counter(pair["level"] for pair in pairs) == answer["pairs"]
        assert Counter(pair["level"] for pair in to_nics) == answer["to_nics"]
        assert Counter(pair["p2p"]["answer"] for pair in pairs if pair["p2p"]) == answer["p2p"]
        gdr = []
        for gpu in found["gpus"]:
            if gpu["gdr"]:
                via = gpu["gdr"]["why"].partition("through ")[2].partition(":")[0]
                gdr.append(f"pxn {via}" if gpu["gdr"]["answer"] == "pxn" else gpu["gdr"]["answer"])
        assert gdr == answer["gdr"]
        assert [[ring["crossings"], ring["crossings_at_most"]] for ring in found["rings"]] == answer["rings"]
    if "memory_node" in answer:
        assert [gpu.memory_node for gpu in facts.gpus] == answer["memory_node"]
    if "bus" in answer:
        assert [gpu["bus"] for gpu in found["gpus"]] == answer["bus"]
    if "stops" in answer:
        assert [ring["stops"] for ring in found["rings"]] == answer["stops"]
    if "ranks" in answer:
        ranks = [[int(stop[5:]) for stop in ring["stops"] if stop.startswith("rank")] for ring in found["rings"]]
        assert ranks == answer["ranks"]
    if "hosts" in answer:
        assert [each.host for each in machines(read_file(str(SAMPLES / name)), "x")] == answer["hosts"]
    if "env" in answer:
        assert {key: value for key, (value, _) in facts.environment.items()} == answer["env"]
    if "affinity" in answer:
        assert {gpu: sorted(cpus) for gpu, (cpus, _) in facts.affinity.items()} == answer["affinity"]
    if "others" in answer:
        assert Counter(str(node) for node in found["others"].values()) == answer["others"]
    if "ports" in answer:
        told = {each["device"]: [each["state"], each["physical"], each["gbps"], each["layer"]] for each in found["ports"]}
        assert told == answer["ports"] and list(told) == list(answer["ports"])
        assert [each["device"] for each in found["ports"] if each["usable"]] == answer["usable"]
    if "cards" in answer:
        cards: dict[str, list[str]] = {}
        for port in facts.ports:
            cards.setdefault(port.card, []).append(port.device)
        assert [card for card in cards.values() if len(card) > 1] == answer["cards"]
    if "netdevs" in answer:
        assert {device: netdev for device, (netdev, _) in facts.netdevs.items()} == answer["netdevs"]
    if "switches" in answer:
        assert isinstance(facts.fabric, Fabric) and found["fabric"]
        assert found["fabric"]["switches"] == answer["switches"]
        assert len(found["fabric"]["nodes"]) == answer["hosts_in_fabric"]
        assert found["fabric"]["hops"] == answer["hops"]
        assert {pair: found["fabric"]["pairs"][pair] for pair in answer["some"]} == answer["some"]
    assert sorted({each["code"] for each in found["findings"]}) == sorted(answer["codes"])
    assert wrong(found) == bool(answer["status"])


def test_every_verdict_has_its_evidence_and_who_gave_it() -> None:
    for name, answer in ANSWERS.items():
        found = record_of(name, answer.get("of", ""))
        for finding in found["findings"]:
            assert finding["what"] and finding["do"] and finding["why"] and finding["source"], finding
        for pair in found["pairs"]:
            judged = pair["p2p"] or pair["gdr"]
            assert judged and judged["why"] and (judged["source"] or pair["level"] == "?"), pair


def test_nvlink_crosses_nothing_and_sys_of_nvidia_smi_proves_nothing() -> None:
    for name, answer in ANSWERS.items():
        for ring in record_of(name, answer.get("of", ""))["rings"]:
            assert ring["crossings"] <= ring["crossings_at_most"] <= len(ring["stops"])
    facts = facts_of("h20-8gpu-10nic-all-sys-truncated.txt")
    assert not any(is_nvlink(facts.level(a.name, b.name)) for a, b in facts.gpu_pairs)
    found = {(pair["one"], pair["other"]): pair for pair in topology(facts)["pairs"]}
    assert found["GPU0", "GPU1"]["level"] == "SYS" and found["GPU0", "GPU1"]["numa"] == "same"
    assert found["GPU0", "GPU4"]["numa"] == "other" and found["GPU0", "GPU6"]["numa"] == "unknown"
    assert found["GPU0", "NIC8"]["level"] == "SYS" and found["GPU0", "NIC8"]["numa"] == "unknown"
