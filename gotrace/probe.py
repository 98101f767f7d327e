"""What a probe is: data and pure functions. One stem names two files, ``ebpf/<stem>.bpf.c`` and ``probes/<stem>.py``.

The Python file is a `ProbeModule`: a `Probe` called ``PROBE`` (the kinds of events with their named columns, the settings
its C text reads, the counters of its hits, and what it wants of a session), ``plan(program)``, which says what instructions
to probe and with what settings, and ``settings(target)``, what it has to know about the host. A session acts on what is
declared and knows no probe by name; everything that has to know all probes walks `all_probes`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from gotrace.errors import BinaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gotrace.binary.code import Site
    from gotrace.binary.layout import Layout
    from gotrace.binary.program import GoProgram, Program
    from gotrace.kernel.bpf import BpfObject
    from gotrace.kernel.executable import Executable
    from gotrace.kernel.process import Process

    Traceable = Process | Executable

ProgramT = TypeVar("ProgramT", bound="Program")


# How long after its time an event is in the ring at the latest: a program may have to wait for a page.
DELAY_NS = 20_000_000
FOREVER_NS = (1 << 63) - 1


@dataclass(frozen=True)
class Kind:
    """A kind of event: its number on the wire and the names of its columns a..e (fewer than five leave the rest 0).

    ``text`` names the column that refers to text in the executable (address | length << 48), which a recording keeps, and
    ``place`` one with an address of data, of which it keeps what is mapped there. ``once``: it is told once only, and gives
    others their meaning. ``of_session``: no program emits it, the session does (`window_kind`).
    """

    name: str
    number: int
    columns: tuple[str, ...]
    text: str = ""
    place: str = ""
    once: bool = False
    of_session: bool = False


# Shared texts. A probe with STACKS declares a `stack_kind` and the settings STACK_CONFIG, which `PlanBuilder.add_stacks`
# fills in; one with TARGET the setting "tgid" and the hits "seen", and calls `PlanBuilder.add_target`; one with QUOTA the
# settings `gotrace.kernel.btf.QUOTA_FIELDS`; one with TASKS the settings "task_state" and "task_comm" and a `task_kind`;
# one with HINTS the settings `gotrace.kernel.btf.BALANCING_FIELDS`.
STACKS, TARGET, QUOTA, TASKS, HINTS = "stack.bpf.h", "target.bpf.h", "quota.bpf.h", "task.bpf.h", "hints.bpf.h"
_STACK_FUNCTIONS = ("text", "switch", "morestack", "cgocallback", "asmcgocall", "cgocall")
STACK_ADDRESSES = tuple(f"stack_{name}_{end}" for name in _STACK_FUNCTIONS for end in ("begin", "end"))
STACK_CONFIG = (
    *STACK_ADDRESSES,
    *("stack_g_m", "stack_m_g0", "stack_m_curg", "stack_g_sched_pc", "stack_g_sched_bp", "stack_g_sched_caller"),
    *("stack_unlinked", "stack_callback_pc", "stack_callback_fp", "stack_tls_g", "stack_task_tls"),
)


def stack_kind(number: int) -> Kind:
    """Three frames of a stack, innermost first; place: index of the first (32 bits), how many there are, and flags."""
    return Kind("stack", number, ("stack", "place", "pc0", "pc1", "pc2"), once=True)


def task_kind(number: int) -> Kind:
    """What a task is called: tid is the task, its name 16 bytes in two words."""
    return Kind("task", number, ("name_low", "name_high", "tgid"), once=True)


def window_kind(number: int) -> Kind:
    """At the end of a window: since begin_ns every point of the probe was set."""
    return Kind("window", number, ("begin_ns",), of_session=True)


def time_of(hit: str) -> str:
    """What the time of one that is timed is called."""
    return f"{hit}_ns"


@dataclass(frozen=True)
class Probe:
    """A probe's declaration. ``config`` and ``hits`` are names; their order is their place in the kernel's arrays.

    ``hits`` names every C function: those of the plan's points, and those whose name says where in the kernel they run
    (see `gotrace.kernel.bpf`). ``parts`` are texts in ``ebpf/`` that it shares with others: `STACKS` and so on.
    ``kernel_hit_ns`` is what a hit in the kernel costs the target, where there is no trap: some reads and a hash look-up,
    or (measured on x86-64 in a virtual machine, by the kernel's own statistics) the walks of two stacks. ``timed`` are
    hits whose programs add up how long they took, which the target pays besides. ``ring_bytes`` is how many bytes of
    events may wait for the reader: 64 each.

    What its target is: a Go program, or any where ``go`` is False; then ``libraries`` that the process has mapped when the
    session is opened can be probed too, named without version and ending ("libc", "libcuda"). With ``later`` there need be
    none of them yet: `gotrace.session.Session.probe_libraries` probes what is mapped since. ``tools`` are other programs,
    by the names of their files, of which it probes those that an `Executable` has. An executable
    that has none of the texts ``inside`` has no functions of such libraries in itself. With ``of_starts`` it is no
    process but every start of an executable (`gotrace.kernel.executable`). With ``tree`` it follows by itself what the
    process executes and all that it forks; its map ``followed`` has the numbers of the others.

    What it wants of a session, by names of its hits: ``optional`` ones, which it can do without where the kernel cannot
    attach them; ``ticks``, which the clock runs on each CPU every ``tick_ns`` (0: once a sampling period); ``samples``,
    once a period, or at another event if one was asked for. ``attached``: its setting of this name becomes 1 as soon as
    every probe is set. ``window_ns``: its points are too dear to stay. They are set for so long only, once in every
    ``every_ns``, at a random time of it; it declares a `window_kind`.
    ``spare``: a program that has nothing of what it probes is no reason to refuse, as others are traced with it.
    ``counters`` is how many hardware counters it reads at once: from its map of this name, at
    ``cpu * COUNTERS + number``, and its setting of this name says how many there are. ``books``: its views read the books
    of the target's runtime too, at places which its facts name.
    """

    stem: str
    summary: str
    kinds: tuple[Kind, ...]
    config: tuple[str, ...]
    hits: tuple[str, ...]
    constants: dict[str, int] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    kernel_hit_ns: float = 150.0
    walk_ns: float = 0.0
    timed: tuple[str, ...] = ()
    ring_bytes: int = 1 << 20
    go: bool = True
    libraries: tuple[str, ...] = ()
    later: bool = False
    inside: tuple[bytes, ...] = ()
    tools: tuple[str, ...] = ()
    of_starts: bool = False
    tree: bool = False
    optional: tuple[str, ...] = ()
    ticks: tuple[str, ...] = ()
    tick_ns: int = 0
    samples: tuple[str, ...] = ()
    attached: bool = False
    counters: int = 0
    books: bool = False
    window_ns: int = 0
    every_ns: int = 0
    spare: bool = False

    def __post_init__(self) -> None:
        assert bool(self.window_ns) == any(kind.of_session for kind in self.kinds) and self.window_ns <= self.every_ns
        assert {*self.optional, *self.ticks, *self.samples, *self.timed} <= set(self.hits)
        assert self.attached == ("attached" in self.config) and bool(self.counters) == ("counters" in self.config)

    @property
    def counts(self) -> tuple[str, ...]:
        """What the kernel counts: its hits, and nanoseconds of those that are ``timed``."""
        return (*self.hits, *map(time_of, self.timed))

    @property
    def names_code(self) -> bool:
        """Whether the target's code has to be named: of the stacks it takes, or those in the runtime's books."""
        return self.books or any(kind.name == "stack" for kind in self.kinds)

    def header_kinds(self) -> dict[str, dict[str, Any]]:
        """Its kinds as a session's header has them: {name: {"number", "columns", "text"}}."""
        return {kind.name: {"number": kind.number, "columns": kind.columns, "text": kind.text} for kind in self.kinds}

    def cflags(self, many: int = 0) -> tuple[str, ...]:
        """The declaration as macros, so that the C text names what is declared here and cannot disagree.

        ``many`` is for how many processes at once at most it is to be set; 0 for one.
        """
        macros = {f"KIND_{kind.name.upper()}": kind.number for kind in self.kinds}
        macros |= {f"CONFIG_{name.upper()}": slot for slot, name in enumerate(self.config)}
        macros |= {f"HIT_{name.upper()}": slot for slot, name in enumerate(self.counts)}
        macros |= self.constants
        macros |= {"COUNTERS": self.counters} if self.counters else {}
        macros |= {"CONFIG_SLOTS": len(self.config), "HIT_SLOTS": len(self.counts)}
        macros |= {"MANY": many} if many else {}
        return tuple(f"-D{name}={value}" for name, value in macros.items())

    def source(self) -> str:
        """The C text to compile: the shared maps, then the probe's own file, with line numbers that point into them."""
        from gotrace.kernel.compiler import ebpf_text

        parts = ("ring.bpf.h", *self.parts, f"{self.stem}.bpf.c")
        return "\n".join(f'#line 1 "{name}"\n{ebpf_text(name)}' for name in parts)

    def compile(self, many: int = 0) -> BpfObject:
        """Compile with BCC; for a short-lived child process only. ``many`` as in `cflags`."""
        from gotrace.kernel.compiler import compile_object

        return compile_object(self.source(), self.cflags(many))


@dataclass(frozen=True)
class Point:
    """One instruction to probe: ``program`` is the C function that runs there, ``code`` the bytes that must be there.

    ``file`` has the instruction where that is not the target's executable: a library or the dynamic linker, by the path
    that a `Traceable` opens it under. ``returns``: the program runs when the function that begins there returns, by a
    return probe; only for C functions, which nothing unwinds.
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
    returns: bool = False


@dataclass(frozen=True)
class Missing:
    """Something this target cannot give, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Library:
    """A shared library that the target has mapped; ``code_vaddr`` as in `gotrace.binary.elf.Elf`."""

    path: str
    build_id: str
    code_vaddr: int


@dataclass(frozen=True)
class Plan:
    """Everything about an executable file and its libraries that tracing needs; a function of these files alone, so it is
    cached. ``go_version`` is "" for other programs.

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
    libraries: tuple[Library, ...] = ()

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
        libraries = tuple(Library(**item) for item in data["libraries"])
        lists = {name: tuple(data[name]) for name in ("addresses", "without")}
        return cls(**{**data, "points": points, "missing": missing, "libraries": libraries, **lists})


class PlanBuilder(Generic[ProgramT]):
    """Collects the points of a plan; what cannot be had goes to ``missing`` with its reason."""

    def __init__(self, program: ProgramT) -> None:
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

    def add_return(self, c_program: str) -> None:
        """Add the return of the C function whose entry was added last."""
        self.points.append(dataclasses.replace(self.points[-1], program=c_program, returns=True))

    def add_function(self, name: str, c_program: str, symbol: str, library: str = "") -> bool:
        """Add the entry of a function by its symbol: of the executable, or of a ``library`` the probe declares.

        Arguments are where the C ABI has them (C_ARG0 and so on in goabi.h). Calls that a compiler inlined are not seen.
        """
        from gotrace.binary import code

        files = {path: elf for path, elf in self.program.libraries.items() if is_library(path, library)}
        if not library:
            files = {"": self.program.elf}
        if not files:
            self.lacks(name, f"the process has not loaded {library}")
        for path, elf in files.items():
            self.add(name, c_program, lambda elf=elf: [code.function_site(elf, symbol)], path)  # type: ignore[misc]
            for copy in code.partial_copies(elf, symbol):
                self.lacks(f"some of: {name}", f"the compiler made {copy} of {symbol}, which calls may use instead")
        return any(point.name == name for point in self.points)

    def lacks(self, name: str, reason: str) -> None:
        self.missing.append(Missing(name, reason))

    def add_stacks(self: PlanBuilder[GoProgram], layout: Layout) -> None:
        """What ``ebpf/stack.bpf.h`` has to know: where Go code is, and how a goroutine changes to its thread's stack."""
        from gotrace.binary.stacks import changes_of_stacks

        entries = self.program.pclntab.entries
        self.config |= {"stack_text_begin": int(entries[0]), "stack_text_end": int(entries[-1])}
        try:
            found = changes_of_stacks(self.program, layout)
        except BinaryError:
            self.lacks("goroutines behind the system stack", "how this Go version switches stacks is unknown")
            return
        self.config |= {f"stack_{name}": value for name, value in found.items()}

    def add_target(self: PlanBuilder[GoProgram]) -> None:
        """Where the target reports its number; Go programs of every kind have this place, out of line."""
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
            libraries=tuple(Library(path, elf.build_id, elf.code_vaddr) for path, elf in program.libraries.items()),
        )


def is_library(path: str, name: str) -> bool:
    """Whether ``path`` is a library called ``name``, of any version: libc.so.6, libc-2.31.so, libcuda.so.535.104.

    Or with the hash that wheels put into the names of what they bundle: libcudart-9335f6a2.so.12.4.127.
    """
    rest = os.path.basename(path).removeprefix(name)
    return os.path.basename(path).startswith(name) and re.match(r"(-[\da-f.]+)?\.so(\.|$)", rest) is not None


def is_inlined(program: GoProgram, symbol: str) -> bool:
    """Whether the compiler put copies of ``symbol`` into other functions; if that is unknown, it may have."""
    try:
        return bool(program.pclntab.inlined_in(symbol))
    except BinaryError:
        return True


class ProbeModule(Protocol):
    """What a module of `gotrace.probes` has. Its functions are pure, except that they read facts about this host."""

    PROBE: Probe

    def plan(self, program: GoProgram, /) -> Plan:
        """What to probe in ``program``, any `Program` where ``PROBE.go`` is False. Raises BinaryError."""

    def settings(self, target: Traceable, /) -> dict[str, int]:
        """Settings about this host and the target, which no plan can know. Raises HostError if the host lacks them."""


def probe_module(stem: str) -> ProbeModule:
    """The module of one probe. Raises ModuleNotFoundError."""
    return cast(ProbeModule, importlib.import_module(f"gotrace.probes.{stem}"))


def stems() -> list[str]:
    """The stem of every probe, in order; imports none of them."""
    import pkgutil

    return sorted(info.name for info in pkgutil.iter_modules(importlib.import_module("gotrace.probes").__path__))


def all_probes() -> dict[str, ProbeModule]:
    """Every module of the package `gotrace.probes`, by stem."""
    return {stem: probe_module(stem) for stem in stems()}
