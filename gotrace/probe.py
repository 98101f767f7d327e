"""What a probe is: data. One stem names two files, ``ebpf/<stem>.bpf.c`` and ``probes/<stem>.py``.

The Python file declares a `Probe` called ``PROBE`` (the kinds of events with their named columns, the settings its C text
reads, the counters of its hits) and gives ``plan(program)``: which instructions of a Go program to probe, and with what
settings. Everything that has to know all probes walks `all_probes`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gotrace.errors import BinaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gotrace.binary.code import Site
    from gotrace.binary.layout import Layout
    from gotrace.binary.program import GoProgram
    from gotrace.kernel.bpf import BpfObject


@dataclass(frozen=True)
class Kind:
    """A kind of event: its number on the wire and the names of its columns a..e (fewer than five leave the rest 0).

    ``text`` names the column that refers to text in the executable (address | length << 48), which a recording keeps.
    """

    name: str
    number: int
    columns: tuple[str, ...]
    text: str = ""


# Shared texts. A probe with STACKS declares a `stack_kind` and the settings STACK_CONFIG, which `PlanBuilder.add_stacks`
# fills in; one with TARGET the setting "tgid" and the hits "seen", and calls `PlanBuilder.add_target`.
STACKS, TARGET = "stack.bpf.h", "target.bpf.h"
STACK_CONFIG = (
    *("stack_text_begin", "stack_text_end", "stack_switch_begin", "stack_switch_end"),
    *("stack_g_m", "stack_m_g0", "stack_m_curg", "stack_g_sched_pc", "stack_g_sched_bp"),
)
STACK_ADDRESSES = STACK_CONFIG[:4]


def stack_kind(number: int) -> Kind:
    """Three frames of a stack, innermost first; place: index of the first (32 bits), how many there are, and flags."""
    return Kind("stack", number, ("stack", "place", "pc0", "pc1", "pc2"))


@dataclass(frozen=True)
class Probe:
    """A probe's declaration. ``config`` and ``hits`` are names; their order is their place in the kernel's arrays.

    ``hits`` names every C function: those of the plan's points, and those whose name says where in the kernel they run
    (see `gotrace.kernel.bpf`). ``parts`` are texts in ``ebpf/`` that it shares with others: `STACKS`, `TARGET`.
    ``kernel_hit_ns`` is what a hit in the kernel costs the target, where there is no trap: some reads and a hash look-up,
    or (measured on x86-64 in a virtual machine, by the kernel's own statistics) the walks of two stacks. ``ring_bytes`` is
    how many bytes of events may wait for the reader: 64 each. ``of_starts``: its target is no process but every start of an
    executable (`gotrace.kernel.executable`).
    """

    stem: str
    summary: str
    kinds: tuple[Kind, ...]
    config: tuple[str, ...]
    hits: tuple[str, ...]
    constants: dict[str, int] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    kernel_hit_ns: float = 150.0
    ring_bytes: int = 1 << 20
    of_starts: bool = False

    def cflags(self) -> tuple[str, ...]:
        """The declaration as macros, so that the C text names what is declared here and cannot disagree."""
        macros = {f"KIND_{kind.name.upper()}": kind.number for kind in self.kinds}
        macros |= {f"CONFIG_{name.upper()}": slot for slot, name in enumerate(self.config)}
        macros |= {f"HIT_{name.upper()}": slot for slot, name in enumerate(self.hits)}
        macros |= self.constants
        macros |= {"CONFIG_SLOTS": len(self.config), "HIT_SLOTS": len(self.hits)}
        return tuple(f"-D{name}={value}" for name, value in macros.items())

    def source(self) -> str:
        """The C text to compile: the shared maps, then the probe's own file, with line numbers that point into them."""
        from gotrace.kernel.compiler import ebpf_folder

        parts = []
        for name in ("ring.bpf.h", *self.parts, f"{self.stem}.bpf.c"):
            with open(os.path.join(ebpf_folder(), name)) as file:
                parts.append(f'#line 1 "{name}"\n{file.read()}')
        return "\n".join(parts)

    def compile(self) -> BpfObject:
        """Compile with BCC; for a short-lived child process only."""
        from gotrace.kernel.compiler import compile_object

        return compile_object(self.source(), self.cflags())


@dataclass(frozen=True)
class Point:
    """One instruction to probe: ``program`` is the C function that runs there, ``code`` the bytes that must be there.

    ``file`` has the instruction where that is not the target's executable: the path of its dynamic linker.
    """

    name: str
    program: str
    symbol: str
    address: int
    file_offset: int
    code: bytes
    instruction: str
    emulated: bool
    file: str = ""


@dataclass(frozen=True)
class Missing:
    """Something this target cannot give, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything about an executable file that tracing it needs; a function of the file alone, so it is cached.

    ``addresses`` names the settings in ``config`` that are link-time virtual addresses: the session adds the load
    bias of a position-independent executable. ``facts`` is what the probe's own decoding needs to know. Programs that
    run in the kernel and have nothing to do for this target are named in ``without``.
    """

    go_version: str
    build_id: str
    arch: str
    stripped: bool
    pie: bool
    first_vaddr: int
    points: tuple[Point, ...]
    config: dict[str, int]
    addresses: tuple[str, ...]
    missing: tuple[Missing, ...]
    facts: dict[str, Any]
    without: tuple[str, ...] = ()

    def leaving_out(self, programs: Sequence[str]) -> Plan:
        """The same without ``programs`` and their points."""
        points = tuple(point for point in self.points if point.program not in programs)
        return dataclasses.replace(self, points=points, without=(*self.without, *programs))

    def to_json(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        for point in data["points"]:
            point["code"] = point["code"].hex()
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        points = tuple(Point(**{**point, "code": bytes.fromhex(point["code"])}) for point in data["points"])
        missing = tuple(Missing(**item) for item in data["missing"])
        lists = {name: tuple(data[name]) for name in ("addresses", "without")}
        return cls(**{**data, "points": points, "missing": missing, **lists})


class PlanBuilder:
    """Collects the points of a plan; what cannot be had goes to ``missing`` with its reason."""

    def __init__(self, program: GoProgram) -> None:
        self.program = program
        self.points: list[Point] = []
        self.missing: list[Missing] = []
        self.config: dict[str, int] = {}

    def add(self, name: str, c_program: str, sites: Callable[[], Sequence[Site]], file: str = "") -> bool:
        """Add every site of a probe, or say why there is none; ``file`` as in `Point`."""
        try:
            found = sites()
        except BinaryError as error:
            self.missing.append(Missing(name, error.message))
            return False
        if not found:
            self.missing.append(Missing(name, "the instruction to probe is not in this executable"))
        for site in found:
            self.points.append(Point(name, c_program, **dataclasses.asdict(site), file=file))
        return bool(found)

    def lacks(self, name: str, reason: str) -> None:
        self.missing.append(Missing(name, reason))

    def add_stacks(self, layout: Layout) -> None:
        """What ``ebpf/stack.bpf.h`` has to know: where Go code is, and how a goroutine changes to its thread's stack.

        The latter only for releases whose frame records end there: ARM64 up to Go 1.24.
        """
        entries = self.program.pclntab.entries
        self.config |= {"stack_text_begin": int(entries[0]), "stack_text_end": int(entries[-1])}
        if self.program.arch != "arm64" or self.program.version >= (1, 25):
            return
        switch = self.program.pclntab.function("runtime.systemstack_switch")
        needed = {"g_m": ("g", "m"), "m_g0": ("m", "g0"), "m_curg": ("m", "curg"), "g_sched": ("g", "sched")}
        needed |= {"pc": ("gobuf", "pc"), "bp": ("gobuf", "bp")}
        places = {name: (f"runtime.{struct}", field) for name, (struct, field) in needed.items()}
        if switch is None or not all(layout.has(*place) for place in places.values()):
            self.lacks("goroutines behind the system stack", "how they change stacks in this Go version is not known")
            return
        at = {name: layout.offset(*place) for name, place in places.items()}
        self.config |= {
            "stack_switch_begin": switch.entry,
            "stack_switch_end": switch.end,
            "stack_g_m": at["g_m"],
            "stack_m_g0": at["m_g0"],
            "stack_m_curg": at["m_curg"],
            "stack_g_sched_pc": at["g_sched"] + at["pc"],
            "stack_g_sched_bp": at["g_sched"] + at["bp"],
        }

    def add_target(self) -> None:
        """Where the target tells its number; Go programs of every kind have this place, out of line."""
        from gotrace.binary import code

        self.add("target", "seen", lambda: [code.entry_site(self.program, "runtime.startTheWorldWithSema")])

    def plan(self, facts: dict[str, Any], addresses: Sequence[str] = (), without: Sequence[str] = ()) -> Plan:
        """What was collected; the arguments as in `Plan`."""
        program = self.program
        return Plan(
            go_version=program.go_version,
            build_id=program.build_id,
            arch=program.arch,
            stripped=program.stripped,
            pie=program.pie,
            first_vaddr=program.elf.first_vaddr,
            points=tuple(self.points),
            config=self.config,
            addresses=tuple(addresses),
            missing=tuple(self.missing),
            facts=facts,
            without=tuple(without),
        )


def is_inlined(program: GoProgram, symbol: str) -> bool:
    """Whether the compiler put copies of ``symbol`` into other functions; where that cannot be told, it may have."""
    try:
        return bool(program.pclntab.inlined_in(symbol))
    except BinaryError:
        return True


def all_probes() -> dict[str, Any]:
    """Every module of the package `gotrace.probes`, by stem."""
    import pkgutil

    package = importlib.import_module("gotrace.probes")
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return {name: importlib.import_module(f"gotrace.probes.{name}") for name in names}
