"""The processor's own counters (PMU): which events this host offers, by the names the kernel gives them, and counting.

Events are read from sysfs (the kernel's Documentation/ABI/testing/sysfs-bus-event_source-devices-{events,format}):
``devices/PMU/events/NAME`` holds terms like ``event=0x11,umask=0x01``, and ``devices/PMU/format/TERM`` says which bits of
perf_event_attr.config, config1 or config2 a term fills. The same code serves every architecture.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass

from gotrace.errors import HostError
from gotrace.kernel.bpf import perf_event_open

_DEVICES = "sys/bus/event_source/devices"
# The PMUs of processors: x86's (hybrid ones have two) and Arm's; the others count memory controllers, links and the like.
_PROCESSOR = re.compile(r"cpu(_core|_atom)?|armv\d+_.+|arm_v\d+_.+|apple_.+_pmu")
_FORMAT_TOTAL_TIMES = 1 | 2  # PERF_FORMAT_TOTAL_TIME_ENABLED | _RUNNING
_SOFTWARE, _CLOCKS = 1, (0, 1)  # PERF_TYPE_SOFTWARE; PERF_COUNT_SW_CPU_CLOCK, _TASK_CLOCK
_INHERIT, _EXCLUDE_KERNEL = 1 << 1, 1 << 5


@dataclass(frozen=True)
class PmuEvent:
    """An event: its PMU's perf type and the three config words of perf_event_attr."""

    pmu: str
    name: str
    type: int
    config: tuple[int, int, int]

    @property
    def rare(self) -> bool:
        """Whether it is the kernel's own and no clock: page faults and their like come one by one, not all the time.

        The kernel would find a period for them too, but only after it has let hundreds go by.
        """
        return self.type == _SOFTWARE and self.config[0] not in _CLOCKS

    def opened(self, cpu: int) -> int:
        """A descriptor that counts it on one CPU, for whatever runs there. Raises HostError."""
        return perf_event_open(self.type, self.config, 0, 0, -1, f"count {self.name} on CPU {cpu}", cpu=cpu)


def pmus(root: str = "/") -> tuple[str, ...]:
    """The names of the processors' PMUs; none in most virtual machines."""
    try:
        names = os.listdir(os.path.join(root, _DEVICES))
    except OSError:
        return ()
    return tuple(sorted(name for name in names if _PROCESSOR.fullmatch(name)))


def events(root: str = "/") -> tuple[PmuEvent, ...]:
    """Every event the kernel lists for the processors' PMUs, in the order of their names."""
    return tuple(event for pmu in pmus(root) for event in _events_of(pmu, root))


def find(name: str, root: str = "/") -> PmuEvent:
    """The event of that name. Raises HostError, in plain words, when this host has none."""
    known = events(root)
    for event in known:
        if event.name == name:
            return event
    if not pmus(root):
        raise HostError(
            f"this machine has no hardware counters: cannot count {name}",
            "virtual machines often have none: use bare metal, or a hypervisor that passes the PMU through",
        )
    offered = ", ".join(event.name for event in known) or "no event by name"
    raise HostError(f"the processor's counters ({', '.join(pmus(root))}) have no event {name}", f"they have: {offered}")


class Counter:
    """Counts one event for one thread (``tid``, 0 for the caller) on any CPU, from now until closed.

    With ``inherit`` also for the threads that it starts from then on. Raises HostError when the kernel refuses it.
    """

    def __init__(self, event: PmuEvent, tid: int = 0, user_only: bool = False, inherit: bool = False) -> None:
        self.event = event
        flags = (_EXCLUDE_KERNEL if user_only else 0) | (_INHERIT if inherit else 0)
        self._fd = perf_event_open(event.type, event.config, flags, _FORMAT_TOTAL_TIMES, tid, f"count {event.name}")

    def read(self) -> tuple[int, int, int]:
        """(count, ns enabled, ns counting): where the two differ, the PMU was shared out and the count is partial."""
        count, enabled, running = struct.unpack("=QQQ", os.read(self._fd, 24))
        return count, enabled, running

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(*path: str) -> str:
    with open(os.path.join(*path)) as file:
        return file.read().strip()


def _events_of(pmu: str, root: str) -> list[PmuEvent]:
    folder = os.path.join(root, _DEVICES, pmu)
    try:
        kind = int(_read(folder, "type"))
        names = sorted(name for name in os.listdir(os.path.join(folder, "events")) if "." not in name)
    except (OSError, ValueError):
        return []
    found = []
    for name in names:  # NAME.scale and NAME.unit describe an event and are none
        try:
            found.append(PmuEvent(pmu, name, kind, _config(folder, _read(folder, "events", name))))
        except (OSError, ValueError):
            continue  # a term without a format, or one that the caller has to fill in ("?")
    return found


def _config(folder: str, terms: str) -> tuple[int, int, int]:
    """The config words of ``event=0x3c,umask=0x0``; a term without a value is 1."""
    words = {"config": 0, "config1": 0, "config2": 0}
    for term in terms.split(","):
        name, _, text = term.partition("=")
        value = int(text, 0) if text else 1
        word, _, places = _read(folder, "format", name.strip()).partition(":")
        for place in places.split(","):  # "0-7,32-35": the value's low bits go to the first range
            low, _, high = place.partition("-")
            width = int(high or low) - int(low) + 1
            words[word] |= (value & ((1 << width) - 1)) << int(low)
            value >>= width
    return words["config"], words["config1"], words["config2"]
