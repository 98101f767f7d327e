"""Which events of the processor's counters (PMU) show how well the TLBs work on this host.

Arm: common events of PMUv3, by the names in sysfs. The kernel lists there what the processor says it has (PMCEID,
drivers/perf/arm_pmuv3.c), and that list is the only witness: a raw event the processor lacks opens without an error and
counts 0. What l1d_tlb_refill counts may still be found in the second-level TLB; dtlb_walk and itlb_walk are the misses of
both levels (Arm's Neoverse PMU guides, perf's tlb.json).

x86: perf's generic events, which the kernel maps or refuses by processor (the tables in arch/x86/events/intel/core.c and
amd/core.c). Their misses are misses of both levels, so page walks; dTLB-loads are all loads on Intel, but what missed the
first level on AMD since Zen.

How many can count at once: Neoverse cores have 6 counters and one for cycles (libpfm's manual pages). On x86 6 events are
counted: AMD has 6 counters and none for cycles alone, Intel cores with two threads often 4 besides those of cycles and
instructions; the NMI watchdog takes one. A virtual machine may have fewer (two on a small Graviton4: docs/PMU.md of
aws/aperf): the kernel then rotates the events, which shows in a counter's times (pmu.Counter.read).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gotrace.errors import HostError, UsageError
from gotrace.kernel import host, pmu
from gotrace.kernel.bpf import perf_event_open
from gotrace.kernel.pmu import PmuEvent

_DEVICES = "sys/bus/event_source/devices"
_HARDWARE, _SOFTWARE, _CACHE = 0, 1, 3  # PERF_TYPE_HARDWARE, _SOFTWARE, _HW_CACHE
_X86_COUNTERS = 6

# Name -> what it counts, most telling first: walks cost, instructions and cycles are what they are measured against.
_ARM = {
    "cpu_cycles": "cycles",
    "dtlb_walk": "page walks for data",
    "inst_retired": "instructions",
    "l1d_tlb_refill": "data TLB refills",
    "l1d_tlb": "data TLB accesses",
    "itlb_walk": "page walks for instructions",
    "l1i_tlb_refill": "instruction TLB refills",
    "l2d_tlb_refill": "second-level TLB refills",
    "l2d_tlb": "second-level TLB accesses",
    "remote_access": "accesses to another chip",
    "mem_access": "memory accesses",
    "stall_backend": "cycles waiting for data",
    "stall_frontend": "cycles waiting for instructions",
}
_X86 = {
    "cpu-cycles": "cycles",
    "dTLB-load-misses": "data TLB load misses",
    "instructions": "instructions",
    "dTLB-store-misses": "data TLB store misses",
    "iTLB-load-misses": "instruction TLB misses",
    "dTLB-loads": "data TLB loads",
    "node-load-misses": "loads from a remote node's memory",
    "node-loads": "loads from the local node's memory",
    "dTLB-stores": "data TLB stores",
}
MEANING = _ARM | _X86

# perf_event_open(2): a cache event is cache | operation << 8 | result << 16.
_GENERIC = {"cycles": (_HARDWARE, 0), "cpu-cycles": (_HARDWARE, 0), "instructions": (_HARDWARE, 1)} | {
    f"{cache}-{operation}{result}": (_CACHE, number | write << 8 | miss << 16)
    for cache, number in {"L1-dcache": 0, "LLC": 2, "dTLB": 3, "iTLB": 4, "node": 6}.items()
    for write, operation in enumerate(("load", "store"))
    for miss, result in enumerate(("s", "-misses"))
}
_KERNEL = ("cpu-clock", "task-clock", "page-faults", "context-switches", "cpu-migrations", "minor-faults", "major-faults")


@dataclass(frozen=True)
class Choice:
    """The events to count together, most telling first (one per PMU for each name), and what this host cannot count."""

    events: tuple[PmuEvent, ...]
    missing: tuple[tuple[str, str], ...]  # (what, why), both in words


def _opens(event: PmuEvent) -> bool:
    try:
        os.close(perf_event_open(event.type, event.config, 0, 0, 0, f"count {event.name}"))
    except HostError:
        return False
    return True


def choose(root: str = "/", limit: int = 7, opens: Callable[[PmuEvent], bool] = _opens) -> Choice:
    """At most ``limit`` names, each of which every PMU has: hybrid hosts have several, each for its own processors.

    ``opens`` says whether the kernel accepts an event; it is asked on x86 only, where the answer means something. What is
    left out for want of counters is not missing: it can be asked for by name.
    """
    pmus = pmu.pmus(root)
    if not pmus:
        return Choice((), (("hardware counters", "this machine has none, as is common in virtual machines"),))
    x86 = _is_x86(pmus)
    meanings = _X86 if x86 else _ARM
    room = min(limit, _X86_COUNTERS - (_read(root, "proc/sys/kernel/nmi_watchdog") == "1")) if x86 else limit
    chosen: list[list[PmuEvent]] = []
    missing = []
    for name, found in _by_name(meanings, root, opens):
        if len(found) < len(pmus):
            having = [event.pmu for event in found]
            lacking = ", ".join(each for each in pmus if each not in having)
            hidden = f"{lacking} cannot count {name}: the processor does not support it, or the hypervisor hides it"
            missing.append(
                (meanings[name], f"only {', '.join(having)} can count {name}, not {lacking}" if having else hidden)
            )
        elif len(chosen) < room:
            chosen.append(found)
    return Choice(tuple(event for events in chosen for event in events), tuple(missing))


def accesses(root: str = "/", opens: Callable[[PmuEvent], bool] = _opens) -> tuple[PmuEvent, ...]:
    """Accesses to memory and those to another node's (x86) or chip's (Arm), as far as every PMU of this host has them."""
    pmus = pmu.pmus(root)
    names = ("node-loads", "node-load-misses") if _is_x86(pmus) else ("mem_access", "remote_access")
    return tuple(event for _, found in _by_name(names, root, opens) if len(found) == len(pmus) for event in found)


def _is_x86(pmus: Sequence[str]) -> bool:
    return any(each.startswith("cpu") for each in pmus)


def _by_name(names: Iterable[str], root: str, opens: Callable[[PmuEvent], bool]) -> Iterator[tuple[str, list[PmuEvent]]]:
    """Each name with the event on every PMU that has it."""
    pmus, listed = pmu.pmus(root), {(event.pmu, event.name): event for event in pmu.events(root)}
    x86 = _is_x86(pmus)
    for name in names:
        here = [listed.get((each, name)) or (_generic(name, each, root) if x86 else None) for each in pmus]
        yield name, [event for event in here if event and (not x86 or opens(event))]


def _generic(name: str, which: str, root: str) -> PmuEvent | None:
    """The kernel's generic event on that PMU; where there are several, its type is in the config's upper half.

    (PERF_PMU_TYPE_SHIFT of include/uapi/linux/perf_event.h; tools/perf/Documentation/intel-hybrid.txt)
    """
    kind, config = _GENERIC[name]
    if len(pmu.pmus(root)) > 1:
        text = _read(root, _DEVICES, which, "type")
        if not text.isdigit():
            return None
        config |= int(text) << 32
    return PmuEvent(which, name, kind, (config, 0, 0))


def named(names: Sequence[str], root: str = "/") -> tuple[PmuEvent, ...]:
    """The events of those names, on every PMU that has them: sysfs's, perf's generic ones, or the kernel's own (software).

    Raises HostError, in plain words, for one that cannot be counted here, and UsageError for a name that nobody knows.
    Whether a generic event is counted shows when it is opened.
    """
    pmus, listed = pmu.pmus(root), pmu.events(root)
    events: list[PmuEvent] = []
    for name in names:
        found = [event for event in listed if event.name == name]
        if not found and name in _KERNEL:
            found = [PmuEvent("software", name, _SOFTWARE, (_KERNEL.index(name), 0, 0))]
        if not found and name in _GENERIC:
            found = [event for each in pmus if (event := _generic(name, each, root))]
        if not found and name not in {*MEANING, *_GENERIC}:
            raise _unknown(name, list(dict.fromkeys((*(event.name for event in listed), *_KERNEL))))
        events += found or [pmu.find(name, root)]
    return tuple(events)


def _unknown(name: str, here: Sequence[str]) -> UsageError:
    """``here`` are the events that this host lists."""
    import difflib

    near = difflib.get_close_matches(name, sorted({*here, *_GENERIC, *MEANING}), 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join((*here, *_GENERIC))}"
    return UsageError(f"there is no event {name!r} here", hint)


def cpus_of(event: PmuEvent, root: str = "/") -> tuple[int, ...] | None:
    """The online CPUs that ``event`` is counted on, from its PMU's device; None: on all of them."""
    text = _read(root, _DEVICES, event.pmu, "cpus")
    if not text:
        return None
    online = host.cpus_of(_read(root, "sys/devices/system/cpu/online") or text)
    return tuple(sorted(set(host.cpus_of(text)) & set(online)))


def _read(*path: str) -> str:
    """A small file's text, empty where there is none."""
    try:
        with open(os.path.join(*path)) as file:
            return file.read().strip()
    except OSError:
        return ""
