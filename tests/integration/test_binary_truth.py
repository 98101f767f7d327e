"""`gotrace.binary` against Go's own tools, on every release and build flavour of the matrix, for both architectures."""

from __future__ import annotations

import random
import re

import pytest

import targets
from gotrace.binary import code
from gotrace.binary.globals import find_globals
from gotrace.binary.goroutines import find_goroutines
from gotrace.binary.layout import layout_of, stw_reasons
from gotrace.binary.program import GoProgram
from gotrace.probes import assist, gc, pool, refaults

STRIPPED_TWIN = {"default": "stripped", "pie": "pie-stripped"}
# the flavours with a symbol table to compare with
CASES = [
    (version, arch, flavour)
    for version in targets.MATRIX
    for arch in ("amd64", "arm64")
    for flavour in ("default", "pie", "cgo-internal", "cgo-external", "cgo-external-pie", "noopt", "pgo")
    if flavour in targets.flavours_of(version, arch)
    # one old, one middle and the newest release for what costs a build of the whole standard library
    and (flavour == "default" or version in ("1.19.8", "1.22.10", "1.25.5", "1.27.3"))
]
everything = pytest.mark.parametrize(("version", "arch", "flavour"), CASES)


def program_of(version, arch, flavour):
    name = "cgo" if flavour.startswith("cgo") else "gcload"
    return targets.build(name, version, flavour, arch)


def spelled(name):
    """A symbol's name as the pclntab spells it: plain dots, no mark of the ABI, no arguments of generic types."""
    return re.sub(r"\[.*\]", "[...]", name.replace("·", ".").removesuffix(".abi0"))


@everything
def test_every_function_is_where_nm_says(version, arch, flavour):
    path = program_of(version, arch, flavour)
    theirs = {}
    for line in targets.go_tool("nm", path):
        fields = line.split(maxsplit=2)
        if len(fields) == 3 and fields[1] in "Tt":
            theirs.setdefault(int(fields[0], 16), set()).add(spelled(fields[2]))
    with GoProgram.open(path) as program:
        table = program.pclntab
        ours = dict(zip(table.entries[:-1].tolist(), table.names(), strict=True))
    # The linker's own marks of a section's ends share an address with a function.
    wrong = {hex(entry): name for entry, name in ours.items() if spelled(name) not in theirs.get(entry, ())}
    assert len(ours) > 1000
    # C code that was linked in has symbols but no entry; Go's table ends with names the symbol table may lack.
    assert wrong == {}


@everything
def test_random_places_are_what_addr2line_says(version, arch, flavour):
    path = program_of(version, arch, flavour)
    choose = random.Random(f"{version} {arch} {flavour}")
    with GoProgram.open(path) as program:
        table = program.pclntab
        places = []
        while len(places) < 300:
            function = table.find(choose.randrange(int(table.entries[0]), int(table.entries[-1])))
            if function is not None and function.end > function.entry:
                step = 4 if arch == "arm64" else 1
                places.append(function.entry + choose.randrange(0, function.end - function.entry, step))
        answer = targets.go_tool("addr2line", path, text="".join(f"{place:#x}\n" for place in places))
        for place, name, where in zip(places, answer[::2], answer[1::2], strict=True):
            file, line = where.rsplit(":", 1)
            frames = table.frames(place)
            if name == "?":
                continue
            assert spelled(table.find(place).name) == spelled(name), hex(place)
            if table.line(table.find(place).entry) == ("", 0):
                # C has no positions here, nor have the linker's marks; the tool reads them off the table's first byte
                assert not name.startswith(("runtime.", "main.")), hex(place)
                continue
            # in the padding behind a body it says "?:-1" or ":-1", we say ("", 0)
            assert (frames[0].file, frames[0].line) == (file.strip("?"), max(0, int(line))), hex(place)
            assert frames[-1].function == table.find(place).name


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("version", targets.MATRIX)
@pytest.mark.parametrize("flavour", STRIPPED_TWIN)
def test_stripped_and_unstripped_are_the_same(version, arch, flavour):
    """A plan made from a stripped file probes the same instructions as one made from its unstripped twin."""
    plans = []
    for variant in (flavour, STRIPPED_TWIN[flavour]):
        with GoProgram.open(targets.build("gcload", version, variant, arch)) as program:
            plans.append(gc.plan(program))
            assert program.stripped == (variant != flavour)
    whole, stripped = plans
    assert [(p.name, p.symbol, p.instruction.split()[0]) for p in whole.points] == [
        (p.name, p.symbol, p.instruction.split()[0]) for p in stripped.points
    ]
    assert whole.missing == stripped.missing
    assert {k: v for k, v in whole.config.items() if k not in whole.addresses} == {
        k: v for k, v in stripped.config.items() if k not in stripped.addresses
    }


@everything
def test_globals_are_where_the_symbol_table_has_them(version, arch, flavour):
    path = program_of(version, arch, flavour)
    with GoProgram.open(path) as program:
        found = find_globals(program, pacing=True)
        symbols = {name: address for name, address, _ in program.elf.symbols()}
        layout = layout_of(program)
        assert found.missing == {}
        assert found.work == symbols["runtime.work"]
        assert found.gc_controller == symbols["runtime.gcController"]
        offsets = {
            field: layout.offset("runtime.workType", field)
            for field in (
                "cycles",
                "tSweepTerm",
                "tMark",
                "tMarkTerm",
                "tEnd",
                "pauseNS",
                "heap0",
                "maxprocs",
                "userForced",
            )
        }
        assert found.work_cycles == found.work + offsets["cycles"]
        assert found.work_cycles + found.work_heaps == found.work + offsets["heap0"]
        assert found.work_user_forced == found.work + offsets["userForced"]
        constants = gc.PROBE.constants
        for field, name in (
            ("tSweepTerm", "T_SWEEP_TERM"),
            ("tEnd", "T_END"),
            ("pauseNS", "PAUSE_NS"),
            ("maxprocs", "MAXPROCS"),
        ):
            assert offsets[field] - offsets["cycles"] == constants[f"WORK_{name}"]
        assert found.gc_last_heap_goal == layout.offset("runtime.gcControllerState", "lastHeapGoal")
        assert found.gc_assist_time == layout.offset("runtime.gcControllerState", "assistTime")
        last = layout.offset("runtime.gcCPULimiterState", "lastEnabledCycle")
        assert found.limiter_cycle == symbols["runtime.gcCPULimiter"] + last
        if version >= "1.21":
            returned = layout.offset("runtime.mheap", "pages.scav.releasedEager")
            assert found.returned_eager == symbols["runtime.mheap_"] + returned
            name = "cpuStats.ScavengeAssistTime" if version >= "1.23" else "cpuStats.scavengeAssistTime"
            assert found.scavenge_assist == found.work + layout.offset("runtime.workType", name)


@everything
def test_mark_assists_begin_and_end_where_they_should(version, arch, flavour):
    """All three instructions are there, cheap, and in the order of the source: two branches, each behind its call."""
    with GoProgram.open(program_of(version, arch, flavour)) as program:
        plan = assist.plan(program)
        layout = layout_of(program)
        assert plan.missing == ()
        parked, checked, begin = plan.points
        assert begin.address < checked.address < parked.address
        assert plan.config["g_assist_bytes"] == layout.offset("runtime.g", "gcAssistBytes")
        for point in plan.points:
            function = program.pclntab.find(point.address)
            assert function is not None and function.name == point.symbol == "runtime.gcAssistAlloc"
            assert program.elf.read(point.address, len(point.code)) == point.code
            assert point.emulated, point


@everything
def test_memory_is_returned_where_it_should(version, arch, flavour):
    """The entry of the function that calls madvise for that, on a cheap instruction."""
    with GoProgram.open(program_of(version, arch, flavour)) as program:
        plan = refaults.plan(program)
        (point,) = (each for each in plan.points if each.program == "returned")
        function = program.pclntab.find(point.address)
        assert function is not None and function.name == "runtime.sysUnusedOS" and point.emulated
        assert plan.missing == () and code.call_sites(program, function.name, "runtime.madvise")


@everything
def test_what_pools_keep_is_where_the_symbol_table_has_it(version, arch, flavour):
    with GoProgram.open(program_of(version, arch, flavour)) as program:
        plan = pool.plan(program)
        if flavour == "noopt":
            assert [each.name for each in plan.missing] == ["pools"] and not plan.points
            return
        symbols = {name: address for name, address, _ in program.elf.symbols()}
        assert plan.missing == () and plan.config["old_pools"] == symbols["sync.oldPools"]
        missed, cleaned = plan.points
        assert missed.emulated and cleaned.emulated and cleaned.symbol == "sync.poolCleanup"
        # Behind it only New is called, by its address.
        behind = [each for each in code.decode(program, missed.symbol) if each.address > missed.address]
        first = next(each for each in behind if each.mnemonic in ("call", "bl", "blr"))
        assert missed.symbol == "sync.(*Pool).Get" and not first.target


@everything
def test_reasons_are_the_runtimes_own_words(version, arch, flavour):
    """The table found in the binary is the one in the release's source (which has one since Go 1.21)."""
    if version < "1.21":
        return
    source = (targets.go(version).parent.parent / "src/runtime/proc.go").read_text()
    words = re.search(r"stwReasonStrings = \[\.\.\.\]string\{(.*?)\n\}", source, re.S).group(1)
    theirs = re.findall(r'"(.*?)"', words)
    with GoProgram.open(program_of(version, arch, flavour)) as program:
        assert list(stw_reasons(program).values())[: len(theirs)] == theirs
        assert len(theirs) > 10


def test_an_unknown_newer_release(tmp_path):
    """A release newer than any measured: stops are traced, everything that would have to be guessed is missing."""
    data = targets.build("gcload").read_bytes()
    assert data.count(b"go1.27.3") >= 1
    path = tmp_path / "newer"
    path.write_bytes(data.replace(b"go1.27.3", b"go1.28.0"))
    with GoProgram.open(path) as program:
        plan = gc.plan(program)
    assert plan.go_version == "go1.28.0"
    assert {point.name for point in plan.points} == {"restart begin", "restart end"}
    assert {item.name for item in plan.missing} == {"goid", "cycle", "what has not ended"}
    assert not {"work_cycles", "gc_controller", "g_goid"} & set(plan.config)


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("version", targets.MATRIX)
def test_probes_sit_where_they_should(version, arch):
    """Every instruction is of a kind that the kernel emulates, inside its function, with the bytes of the file."""
    with GoProgram.open(targets.build("gcload", version, "stripped", arch)) as program:
        plan = gc.plan(program)
        assert {point.name for point in plan.points} >= {"cycle", "sweep", "restart end"}
        if version >= "1.22":
            assert {item.name for item in plan.missing} == set()
        for point in plan.points:
            function = program.pclntab.find(point.address)
            assert function is not None and function.name == point.symbol
            assert program.elf.read(point.address, len(point.code)) == point.code
            assert point.emulated, point
        rets = code.ret_sites(program, "runtime.startTheWorldWithSema")
        assert len(rets) == 1
        assert (code.result_slot(program, "runtime.startTheWorldWithSema") is None) == (arch == "arm64")


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("version", [one for one in targets.MATRIX if one in ("1.19.8", "1.22.10", "1.25.5", "1.27.3")])
def test_sweeping_ends_where_the_source_says(version, arch):
    """With goparkunlock inlined and without: bgsweep's last one, where it has nothing to do."""
    source = targets.go(version).parent.parent / "src/runtime/mgcsweep.go"
    lines = [number for number, line in enumerate(source.read_text().splitlines(), 1) if "goparkunlock(&sweep.lock" in line]
    assert len(lines) == 2  # when it begins, and in its loop
    for flavour in ("default", "noopt"):
        with GoProgram.open(targets.build("gcload", version, flavour, arch)) as program:
            (site,) = (point for point in gc.plan(program).points if point.name == "sweep")
            assert program.pclntab.frames(site.address)[-1].line == lines[-1]


@everything
def test_goroutines_are_where_nm_says(version, arch, flavour):
    """And what they wait for is called what the toolchain's own source calls it."""
    path = program_of(version, arch, flavour)
    with GoProgram.open(path) as program:
        found = find_goroutines(program)
        symbols = {name: address for name, address, _ in program.elf.symbols()}
    assert (found.allglen, found.allgptr) == (symbols["runtime.allglen"], symbols["runtime.allgptr"])
    source = (targets.go(version).parent.parent / "src/runtime/runtime2.go").read_text()
    table = source[source.index("var waitReasonStrings") :]
    texts = dict(re.findall(r'^\t(waitReason\w+): +"(.*)",', table[: table.index("\n}\n")], re.M))
    numbers = source[source.index("\twaitReasonZero ") :]
    reasons = [texts[name] for name in re.findall(r"^\t(waitReason\w+)", numbers[: numbers.index("\n)\n")], re.M)]
    assert len(reasons) > 25 and found.reasons[: len(reasons)] == reasons
