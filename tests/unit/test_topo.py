"""`gotrace topo` against answers that were derived by hand from each sample, before there was a parser."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations, pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.cluster.topo.differences import wrong
from gotrace.cluster.topo.fabric import Fabric
from gotrace.cluster.topo.merge import machines
from gotrace.cluster.topo.model import SMI, Facts, Gpu, Nic, Nodes, Ring, Source, is_nvlink
from gotrace.cluster.topo.report import topology
from gotrace.cluster.topo.rings import counted
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
    assert wrong([found], None) == bool(answer["status"])


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


@st.composite
def small_machines(draw: st.DrawFn) -> Facts:
    facts = Facts(Source(SMI, "made"))
    facts.gpus = [Gpu(f"GPU{at}", at, numa=draw(st.sampled_from([0, 1, 2, None]))) for at in range(draw(st.integers(2, 6)))]
    facts.nics = [
        Nic(f"NIC{at}", number=at, numa=draw(st.sampled_from([0, 1, None]))) for at in range(draw(st.integers(0, 2)))
    ]
    for one, other in combinations([each.name for each in (*facts.gpus, *facts.nics)], 2):
        facts.see(one, other, draw(st.sampled_from(["NV4", "SYS", "SYS"] if "NIC" not in one + other else ["SYS"])))
    return facts


@settings(deadline=None, max_examples=120)
@given(small_machines())
def test_no_ring_has_fewer_crossings_than_the_ones_that_are_found(facts: Facts) -> None:
    """Against every order of the GPUs."""
    nodes = Nodes(facts)
    names = [gpu.name for gpu in facts.gpus]
    for each in counted(facts, nodes):
        assert sorted(stop for stop in each.ring.stops if stop.startswith("GPU")) == names
        nic = () if each.ring.closes else (each.ring.stops[0],)
        least = min(
            sum(nodes.crossing(*edge) is not False for edge in Ring(0, (*nic, *order, *nic), each.ring.closes).edges)
            for order in permutations(names)
        )
        assert each.high == least


def test_of_more_than_nine_gpus_a_ring_may_begin_at_any() -> None:
    """A chain of NVLinks with GPU0 in its middle: who begins there crosses twice."""
    facts, chain = Facts(Source(SMI, "made")), [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    facts.gpus = [Gpu(f"GPU{at}", at, numa=at) for at in range(len(chain))]
    linked = {frozenset(pair) for pair in pairwise(chain)}
    for one, other in combinations(range(len(chain)), 2):
        facts.see(f"GPU{one}", f"GPU{other}", "NV4" if {one, other} in linked else "SYS")
    (found,) = counted(facts, Nodes(facts))
    assert (found.ring.stops[0], found.ring.stops[-1], found.low, found.high) == ("GPU3", "GPU7", 1, 1)
