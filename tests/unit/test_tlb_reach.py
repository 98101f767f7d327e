"""How far TLBs reach: which sizes belong to which host, and the estimate."""

from __future__ import annotations

import pytest
from unit.test_tlb_events import ALL, unpack

from gotrace.kernel import tlb_reach
from gotrace.kernel.tlb_reach import HUGE, Reach, Tlb, processor, reach

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
NAMES = {
    "amd_zen3": "Zen 3",
    "ampere_altra": "Neoverse N1",
    "azure_x86_vm": "Zen 3",
    "graviton1": "Cortex-A72",
    "graviton2_metal": "Neoverse N1",
    "graviton3_metal": "Neoverse V1",
    "graviton4_metal": "Neoverse V2",
    "intel_icelake_sp": "Ice Lake-SP",
    "neoverse_n2": "Neoverse N2",
}


@pytest.mark.parametrize("host", ALL)
def test_hosts(host, tmp_path):
    found = processor(unpack(host, tmp_path))
    assert (found.name if found else None) == NAMES.get(host)


@pytest.mark.parametrize(
    ("vendor", "family", "model", "name"),
    [
        ("GenuineIntel", 6, 85, "Skylake-SP or Cascade Lake"),
        ("GenuineIntel", 6, 106, "Ice Lake-SP"),
        ("GenuineIntel", 6, 143, "Sapphire Rapids"),
        ("GenuineIntel", 6, 207, None),  # Emerald Rapids: nothing was found that says
        ("AuthenticAMD", 23, 0x01, None),  # Zen 1
        ("AuthenticAMD", 23, 0x31, "Zen 2"),
        ("AuthenticAMD", 23, 0x71, "Zen 2"),
        ("AuthenticAMD", 25, 0x01, "Zen 3"),
        ("AuthenticAMD", 25, 0x11, "Zen 4"),
        ("AuthenticAMD", 25, 0x61, "Zen 4"),
        ("AuthenticAMD", 26, 0x02, "Zen 5"),
        ("GenuineIntel", 25, 0x11, None),
    ],
)
def test_x86_models(vendor, family, model, name, tmp_path):
    (tmp_path / "proc").mkdir()
    first = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
    first += "model name\t: a : b\nflags\t\t:\n"
    (tmp_path / "proc/cpuinfo").write_text(first + "\n" + first.replace(f": {model}\n", ": 999\n"))
    found = processor(str(tmp_path))
    assert (found.name if found else None) == name


def test_a_host_that_says_nothing(tmp_path):
    assert processor(str(tmp_path)) is None


def test_every_entry_makes_sense():
    table = [*tlb_reach._ARM.values(), *(tlb for _, tlb in tlb_reach._X86)]
    assert len({tlb.name for tlb in table}) == len(table)
    for tlb in table:
        assert (tlb.l1 or 0) < tlb.l2 and (tlb.l2_huge or 0) <= tlb.l2 and tlb.source
    models = [
        (vendor, family, model)
        for (vendor, family, ranges), _ in tlb_reach._X86
        for first, last in ranges
        for model in range(first, last + 1)
    ]
    assert len(set(models)) == len(models)


def test_reach():
    """1,280 entries map 5 MiB on 4 KiB pages, 80 MiB on 64 KiB pages and 2.5 GiB on huge ones."""
    tlb = Tlb("a core", 48, 1280, 1280, "this test")
    assert reach(tlb, {HUGE: 10 * GIB, 4 * KIB: 20 * MIB, 64 * KIB: 80 * MIB}) == (
        Reach(4 * KIB, 5120, 0.25),
        Reach(64 * KIB, 1280, 1.0),
        Reach(HUGE, 5120, 0.25),
    )
    assert reach(tlb, {4 * KIB: 5 * KIB, HUGE: 0}) == (Reach(4 * KIB, 2, 1.0),)
    assert reach(tlb, {}) == ()


def test_reach_that_is_not_documented():
    tlb = Tlb("a core", None, 2048, None, "this test")
    assert reach(tlb, {4 * KIB: 16 * MIB, HUGE: GIB, GIB: 2 * GIB}) == (
        Reach(4 * KIB, 4096, 0.5),
        Reach(HUGE, 512, None),
        Reach(GIB, 2, None),
    )
