"""What `gotrace tlb` counts, on the hosts of tests/testdata/hosts (where their facts are from is said at their tops)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gotrace.errors import HostError, UsageError
from gotrace.kernel import pmu, tlb_events
from gotrace.kernel.pmu import PmuEvent
from gotrace.kernel.tlb_events import MEANING, Choice, choose, cpus_of, named

HOSTS = Path(__file__).parents[1] / "testdata" / "hosts"
ALL = sorted(folder.name for folder in HOSTS.iterdir())
FULL = ["cpu_cycles", "dtlb_walk", "inst_retired", "l1d_tlb_refill", "l1d_tlb", "itlb_walk", "l1i_tlb_refill"]


def unpack(host: str, folder: Path) -> str:
    """Lay out a host's files below ``folder``: lines of path, tab, content."""
    for line in (HOSTS / host / "files").read_text().splitlines():
        if not line.startswith("#"):
            path, text = line.split("\t")
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("\\t", "\t").replace("\\n", "\n") + "\n")
    return str(folder)


def opener(root: str) -> Callable[[PmuEvent], bool]:
    """What that host's kernel opens, by its file perf_event_open/PMU; on Arm it opens what it should not, so: anything."""
    files = {file.name: file.read_text().split() for file in Path(root, "perf_event_open").glob("*")}
    return lambda event: not files or event.name in files[event.pmu]


def look(host: str, folder: Path, limit: int = 7) -> Choice:
    root = unpack(host, folder)
    return choose(root, limit, opener(root))


def names(choice: Choice) -> list[str]:
    return [event.name for event in choice.events]


@pytest.mark.parametrize(
    "host", ["graviton2_metal", "graviton3_metal", "graviton4_metal", "ampere_altra", "neoverse_n2", "kunpeng920"]
)
def test_arm_servers(host, tmp_path):
    """Cycles have a counter of their own, and six events share the six others."""
    choice = look(host, tmp_path)
    assert names(choice) == FULL and choice.missing == ()
    assert [event.config[0] for event in choice.events] == [0x11, 0x34, 0x08, 0x05, 0x25, 0x35, 0x02]
    assert names(look(host, tmp_path, 99))[7:] == [
        *["l2d_tlb_refill", "l2d_tlb", "remote_access", "mem_access", "stall_backend", "stall_frontend"]
    ]


def test_an_arm_core_with_few_events(tmp_path):
    choice = look("graviton1", tmp_path)
    assert names(choice) == ["cpu_cycles", "inst_retired", "l1d_tlb_refill", "l1i_tlb_refill", "mem_access"]
    missing = dict(choice.missing)
    assert missing["page walks for data"] == (
        "armv8_pmuv3_0 cannot count dtlb_walk: the processor does not support it, or the hypervisor hides it"
    )
    assert "data TLB refills" not in missing and "data TLB accesses" in missing


@pytest.mark.parametrize("host", ["qemu_arm64", "arm_vm_two_events"])
def test_arm_machines_without_tlb_events(host, tmp_path):
    """A raw l1d_tlb_refill would open there, and count 0."""
    choice = look(host, tmp_path)
    assert {"cpu_cycles"} <= set(names(choice)) <= {"cpu_cycles", "stall_backend", "stall_frontend"}
    assert {"instructions", "data TLB refills", "page walks for data"} <= dict(choice.missing).keys()


@pytest.mark.parametrize("host", ALL)
@pytest.mark.parametrize("limit", [0, 1, 3, 7, 99])
def test_every_host(host, limit, tmp_path):
    choice = look(host, tmp_path, limit)
    pmus = pmu.pmus(str(tmp_path))
    assert len(set(names(choice))) * len(pmus) == len(choice.events) <= limit * len(pmus)
    if pmus and not pmus[0].startswith("cpu"):
        assert set(choice.events) <= set(pmu.events(str(tmp_path)))
    most = look(host, tmp_path, 99)
    assert choice.events == most.events[: len(choice.events)] and choice.missing == most.missing
    assert {event.name for event in choice.events} <= MEANING.keys()
    assert not {MEANING[event.name] for event in most.events} & dict(choice.missing).keys()
    assert all(what and why for what, why in choice.missing)


def test_intel(tmp_path):
    choice = look("intel_icelake_sp", tmp_path)
    assert [(event.name, event.type, event.config[0]) for event in choice.events] == [
        ("cpu-cycles", 4, 0x3C),
        ("dTLB-load-misses", 3, 0x10003),
        ("instructions", 4, 0xC0),
        ("dTLB-store-misses", 3, 0x10103),
        ("iTLB-load-misses", 3, 0x10004),
    ]
    assert choice.missing == ()
    (tmp_path / "proc/sys/kernel/nmi_watchdog").write_text("0\n")  # it needs a counter
    assert names(choose(str(tmp_path), opens=opener(str(tmp_path))))[5:] == ["dTLB-loads"]


def test_amd(tmp_path):
    choice = look("amd_zen3", tmp_path)
    assert names(choice) == ["cpu-cycles", "dTLB-load-misses", "instructions", "iTLB-load-misses", "dTLB-loads"]
    assert choice.events[0].config[0] == 0x76
    assert dict(choice.missing)["data TLB store misses"].startswith("cpu cannot count dTLB-store-misses: ")
    assert {"loads from a remote node's memory", "data TLB stores"} <= dict(choice.missing).keys()


def test_x86_whose_sysfs_lists_nothing(tmp_path):
    (tmp_path / "sys/bus/event_source/devices/cpu").mkdir(parents=True)
    choice = choose(str(tmp_path), 3, lambda _: True)
    assert [(event.name, event.type, event.config[0]) for event in choice.events] == [
        *[("cpu-cycles", 0, 0), ("dTLB-load-misses", 3, 0x10003), ("instructions", 0, 1)]
    ]


def test_a_machine_without_counters(tmp_path):
    choice = look("azure_x86_vm", tmp_path)
    assert choice.events == ()
    assert choice.missing == (("hardware counters", "this machine has none, as is common in virtual machines"),)


def test_big_and_little(tmp_path):
    """One event for each kind of processors, to be opened on those alone; what only one kind has is not counted."""
    choice = look("rk3588", tmp_path, 99)
    assert [(event.pmu, event.type) for event in choice.events[:2]] == [("armv8_cortex_a55", 8), ("armv8_cortex_a76", 9)]
    assert [event.name for event in choice.events[::2]] == [event.name for event in choice.events[1::2]]
    assert names(choice)[:14:2] == FULL and "remote_access" not in names(choice)
    why = "only armv8_cortex_a76 can count remote_access, not armv8_cortex_a55"
    assert choice.missing == (("accesses to another chip", why),)
    little, big = choice.events[:2]
    assert cpus_of(little, str(tmp_path)) == (0, 1, 2, 3) and cpus_of(big, str(tmp_path)) == (4, 5, 6, 7)


def test_hybrid_x86(tmp_path):
    """Generic events name their PMU in the config's upper half."""
    choice = look("intel_alder_lake", tmp_path)
    assert names(choice)[::2] == [
        *["cpu-cycles", "dTLB-load-misses", "instructions", "dTLB-store-misses", "iTLB-load-misses", "dTLB-loads"]
    ]
    atom, core = choice.events[2:4]
    assert (atom.pmu, atom.type, atom.config[0]) == ("cpu_atom", 3, 8 << 32 | 0x10003)
    assert (core.pmu, core.type, core.config[0]) == ("cpu_core", 3, 4 << 32 | 0x10003)
    assert (
        dict(choice.missing)["loads from a remote node's memory"]
        == "only cpu_core can count node-load-misses, not cpu_atom"
    )
    assert cpus_of(atom, str(tmp_path)) == tuple(range(16, 24)) and cpus_of(core, str(tmp_path)) == tuple(range(16))


def test_the_processors_of_an_event(tmp_path):
    root = unpack("ampere_altra", tmp_path)
    assert cpus_of(pmu.find("dtlb_walk", root), root) == tuple(range(156))  # four of 160 are offline
    (tmp_path / "sys/devices/system/cpu/online").unlink()
    assert cpus_of(pmu.find("dtlb_walk", root), root) == tuple(range(160))
    assert cpus_of(PmuEvent("software", "page-faults", 1, (2, 0, 0)), root) is None
    intel = unpack("intel_icelake_sp", tmp_path / "intel")
    assert cpus_of(pmu.find("instructions", intel), intel) is None


def test_events_by_name(tmp_path):
    root = unpack("graviton3_metal", tmp_path)
    assert named(["stall", "page-faults", "dTLB-load-misses", "cycles"], root) == (
        PmuEvent("armv8_pmuv3_0", "stall", 8, (0x3C, 0, 0)),
        PmuEvent("software", "page-faults", 1, (2, 0, 0)),
        PmuEvent("armv8_pmuv3_0", "dTLB-load-misses", 3, (0x10003, 0, 0)),
        PmuEvent("armv8_pmuv3_0", "cycles", 0, (0, 0, 0)),
    )
    with pytest.raises(UsageError) as error:
        named(["cpu_cycles", "no-such-event"], root)
    assert error.value.message == "there is no event 'no-such-event' here"
    assert {"dtlb_walk", "page-faults", "dTLB-loads"} <= set(error.value.hint.replace(",", "").split())
    assert named([], root) == ()


@pytest.mark.parametrize(
    ("name", "near"), [("dtlb-load-misses", "dTLB-load-misses"), ("dtlb_wlak", "dtlb_walk"), ("page-fault", "page-faults")]
)
@pytest.mark.parametrize("host", ["graviton3_metal", "azure_x86_vm"])
def test_a_name_that_is_misspelt(host, name, near, tmp_path):
    """Its neighbours are named, whether or not this host has counters."""
    with pytest.raises(UsageError) as error:
        named([name], unpack(host, tmp_path))
    assert error.value.message == f"there is no event {name!r} here"
    assert error.value.hint.startswith("did you mean ") and near in error.value.hint


def test_generic_names(tmp_path):
    """perf's names, as in the configs its -vv shows."""
    root = unpack("intel_icelake_sp", tmp_path)
    configs = {"dTLB-loads": 0x3, "dTLB-stores": 0x103, "dTLB-store-misses": 0x10103, "iTLB-loads": 0x4}
    configs |= {"iTLB-load-misses": 0x10004, "node-loads": 0x6, "node-load-misses": 0x10006, "node-store-misses": 0x10106}
    for name, config in configs.items():
        assert named([name], root) == (PmuEvent("cpu", name, 3, (config, 0, 0)),)


def test_software_events_need_no_counters(tmp_path):
    root = unpack("azure_x86_vm", tmp_path)
    kernel = [
        "cpu-clock",
        "task-clock",
        "page-faults",
        "context-switches",
        "cpu-migrations",
        "minor-faults",
        "major-faults",
    ]
    assert [event.config[0] for event in named(kernel, root)] == list(range(7))
    for name in ("dTLB-load-misses", "dtlb_walk"):
        with pytest.raises(HostError) as error:
            named([name], root)
        assert "no hardware counters" in error.value.message


def test_by_name_on_a_hybrid(tmp_path):
    root = unpack("rk3588", tmp_path)
    assert [event.pmu for event in named(["remote_access"], root)] == ["armv8_cortex_a76"]
    assert [event.config[0] >> 32 for event in named(["dTLB-loads"], root)] == [8, 9]
    (tmp_path / "sys/bus/event_source/devices/armv8_cortex_a55/type").unlink()
    assert [event.pmu for event in named(["dTLB-loads"], root)] == ["armv8_cortex_a76"]


def test_the_kernel_is_asked(monkeypatch):
    """Opened and closed for the caller, or refused."""
    closed = []
    monkeypatch.setattr(tlb_events, "perf_event_open", lambda *arguments: arguments)
    monkeypatch.setattr(tlb_events.os, "close", closed.append)
    event = PmuEvent("cpu", "dTLB-loads", 3, (3, 0, 0))
    assert tlb_events._opens(event) and closed == [(3, (3, 0, 0), 0, 0, 0, "count dTLB-loads")]

    def refuse(*_: object) -> int:
        raise HostError("refused")

    monkeypatch.setattr(tlb_events, "perf_event_open", refuse)
    assert not tlb_events._opens(event)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("graviton3_metal", {"mem_access", "remote_access"}),
        ("qemu_arm64", set()),
        ("azure_x86_vm", set()),
        ("intel_icelake_sp", {"node-loads", "node-load-misses"}),
    ],
)
def test_accesses_to_memory(host, expected, tmp_path):
    """What `gotrace numa` counts beside faults: only what the host has."""
    root = unpack(host, tmp_path)
    found = {event.name for event in tlb_events.accesses(root, opener(root))}
    assert found <= {"mem_access", "remote_access", "node-loads", "node-load-misses"}
    assert found == expected
