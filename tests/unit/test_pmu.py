"""The kernel's lists of hardware events, read from folders laid out as sysfs is on the hosts named at each."""

from __future__ import annotations

import pytest

from gotrace.errors import HostError
from gotrace.kernel import pmu
from gotrace.kernel.host import _counters


def make(root, name, type_, formats, events):
    folder = root / "sys/bus/event_source/devices" / name
    for part, texts in (("format", formats), ("events", events)):
        (folder / part).mkdir(parents=True)
        for key, text in texts.items():
            (folder / part / key).write_text(text + "\n")
    (folder / "type").write_text(f"{type_}\n")


# drivers/perf/arm_pmuv3.c: event config:0-15, long config1:0, rdpmc config1:1
ARM_FORMAT = {"event": "config:0-15", "long": "config1:0", "rdpmc": "config1:1"}
# arch/x86/events/core.c and intel/core.c
INTEL_FORMAT = {
    "event": "config:0-7",
    "umask": "config:8-15",
    "cmask": "config:24-31",
    "ldlat": "config1:0-15",
    "inv": "config:23",
}


def test_an_arm_server(tmp_path):
    events = {"cpu_cycles": "event=0x0011", "l1d_tlb_refill": "event=0x0005", "dtlb_walk": "event=0x0034"}
    make(tmp_path, "armv8_pmuv3_0", 8, ARM_FORMAT, events)
    make(tmp_path, "arm_cmn_0", 9, {"eventid": "config:0-7"}, {"hnf_cache_miss": "eventid=1"})  # not a processor's
    assert pmu.pmus(tmp_path) == ("armv8_pmuv3_0",)
    assert [event.name for event in pmu.events(tmp_path)] == sorted(events)
    assert pmu.find("dtlb_walk", tmp_path) == pmu.PmuEvent("armv8_pmuv3_0", "dtlb_walk", 8, (0x34, 0, 0))
    assert [(check.name, check.value) for check in _counters(str(tmp_path))] == [
        ("hardware counters (armv8_pmuv3_0)", "cpu_cycles, dtlb_walk, l1d_tlb_refill")
    ]


def test_an_intel_host(tmp_path):
    events = {
        "instructions": "event=0xc0",
        "mem-loads": "event=0xcd,umask=0x1,ldlat=3",
        "mem-loads.scale": "1",
        "odd": "event=0x3c,inv,cmask=0x10",
        "asked": "event=?",
        "unknown": "event=1,nothing=2",
    }
    make(tmp_path, "cpu", 4, INTEL_FORMAT, events)
    assert [event.name for event in pmu.events(tmp_path)] == ["instructions", "mem-loads", "odd"]
    assert pmu.find("mem-loads", tmp_path).config == (0x1CD, 3, 0)
    assert pmu.find("odd", tmp_path).config == (0x3C | 1 << 23 | 0x10 << 24, 0, 0)


def test_a_term_in_several_places(tmp_path):
    """AMD's event numbers have 12 bits, in two places (arch/x86/events/amd/core.c)."""
    make(tmp_path, "cpu", 4, {"event": "config:0-7,32-35"}, {"far": "event=0x1c7"})
    assert pmu.find("far", tmp_path).config == (0x1000000C7, 0, 0)


def test_big_and_little(tmp_path):
    """Two kinds of processors list their events each; the first that has one is taken."""
    make(tmp_path, "cpu_atom", 10, INTEL_FORMAT, {"cpu-cycles": "event=0x3c", "only-atom": "event=1"})
    make(tmp_path, "cpu_core", 4, INTEL_FORMAT, {"cpu-cycles": "event=0x3c"})
    assert pmu.find("cpu-cycles", tmp_path).pmu == "cpu_atom" and pmu.find("only-atom", tmp_path).pmu == "cpu_atom"
    assert len(_counters(str(tmp_path))) == 2


def test_what_is_lacking_is_told_in_words(tmp_path):
    with pytest.raises(HostError) as error:
        pmu.find("dtlb_walk", tmp_path)
    assert "no hardware counters" in error.value.message and "bare metal" in error.value.hint
    make(tmp_path, "armv8_pmuv3", 8, ARM_FORMAT, {"cpu_cycles": "event=0x11"})
    with pytest.raises(HostError) as error:
        pmu.find("dtlb_walk", tmp_path)
    assert "(armv8_pmuv3) have no event dtlb_walk" in error.value.message and error.value.hint == "they have: cpu_cycles"
