"""Flame graphs of programs that know where their time went."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S
from gotrace.kernel import pmu

pytestmark = pytest.mark.bpf

SECONDS = 6 if targets.EMULATED else 2
# In the emulated machine timers are late, which is no time on a CPU to anybody, and waking up takes as long as sleeping.
CLOSE = 0.35 if targets.EMULATED else 0.15
# Where a stack may begin: a goroutine's, a thread's own, or the place where the runtime left a goroutine for its thread's.
ROOTS = {"runtime.goexit", "runtime.mcall", "runtime.morestack", "runtime.mstart", "runtime.clone", "runtime.rt0_go"}
# where callbacks and the growth of stacks are laid out in different ways
CALLBACKS = ("1.19.8", "1.22.10", "1.25.5", targets.NEWEST)
SAMPLE_NS = 1e9 / 997


def folded(text):
    """stack (a tuple, outermost first) -> weight"""
    found = {}
    for line in text.splitlines():
        stack, _, weight = line.rpartition(" ")
        found[tuple(stack.split(";"))] = int(weight)
    return found


class Recorded:
    """A recording of a program, and what the program says of itself."""

    def __init__(
        self, folder, program, *arguments, version=targets.NEWEST, flavour="stripped", probes="gc,tail,profile,offcpu"
    ):
        self.path = folder / "run.gotrace"
        command = [*GOTRACE, "record", "-o", str(self.path), "--probes", probes, "--"]
        command += [str(targets.build(program, version, flavour)), *arguments]
        done = subprocess.run(command, input="\n", capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0 and " 0 lost" in done.stderr, done.stderr
        self.truth = json.loads(done.stdout)

    def flame(self, *options, format_="folded"):
        command = [*GOTRACE, "flame", str(self.path), *options, "-o", "-", "--format", format_]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        return folded(done.stdout.decode()) if format_ == "folded" else done.stdout

    def report(self):
        command = [*GOTRACE, "report", str(self.path), "--format", "ndjson"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def burner(tmp_path_factory):
    return Recorded(tmp_path_factory.mktemp("burner"), "burner", str(SECONDS))


def under(stacks, function):
    return sum(weight for stack, weight in stacks.items() if function in stack)


@pytest.mark.everywhere
@pytest.mark.alone
def test_cpu_time_is_where_the_program_spent_it(burner):
    stacks = burner.flame("--on-cpu")
    for name in ("main.heavy", "main.light"):
        assert under(stacks, name) == pytest.approx(burner.truth[name], rel=CLOSE), name
    # out of step with the program's own rhythm
    assert under(stacks, "main.heavy") / under(stacks, "main.light") == pytest.approx(3, rel=0.25)


@pytest.mark.everywhere
@pytest.mark.alone
def test_time_off_the_cpu_is_what_the_program_measured(burner):
    stacks = burner.flame("--off-cpu")
    # A goroutine that comes back from a system call waits for a P; the one that is locked to its thread, without its stack.
    idle = burner.flame("--off-cpu", "--idle")
    back = {stack: weight for stack, weight in idle.items() if "runtime.exitsyscall" in " ".join(stack)}
    for name, waited in {"main.asleep": 0, "main.reader": under(back, "runtime.stoplockedm")}.items():
        # what it measured holds the way into the kernel and back, and waiting for a CPU
        assert under(stacks, name) + waited == pytest.approx(burner.truth[name], rel=CLOSE), name
    whole = [stack for stack in stacks if "main.asleep" in stack]
    assert any(any(frame.endswith("_[k]") for frame in stack) for stack in whole)
    assert not any(frame.startswith(("bpf_trace_run", "__traceiter_")) for stack in stacks for frame in stack)


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.ENDS)
def test_stacks_are_whole(version, tmp_path):
    """From the root to a function without a frame, whose caller no frame record tells."""
    stacks = Recorded(tmp_path, "burner", str(SECONDS / 2), version=version, probes="profile").flame("--on-cpu")
    total = sum(stacks.values())
    # an interrupt may have taken the thread into the kernel
    leaves = defaultdict(int)
    for stack, weight in stacks.items():
        in_user = tuple(frame for frame in stack if not frame.endswith("_[k]"))
        if in_user and in_user[-1] == "main.leaf":
            leaves[in_user] += weight
    assert sum(leaves.values()) > (0.2 if targets.EMULATED else 0.8) * total
    rooted = targets.HOST_ARCH == "amd64" or tuple(map(int, version.split(".")[:2])) >= (1, 21)
    by_caller = defaultdict(int)
    for stack, weight in leaves.items():
        # where memory could not be read at that moment, there is at most the caller that a register holds
        caller = stack[-2] if len(stack) > 2 else "none"
        by_caller[caller] += weight
        if rooted and caller in ("main.heavy", "main.light"):
            assert (stack[0], stack[-3]) == ("runtime.goexit", "main.burn") and len(stack) <= 5, stack
    assert by_caller["main.heavy"] + by_caller["main.light"] >= 0.99 * sum(leaves.values())
    if rooted:
        # a thread's own stack on ARM64 has no proper root in some releases
        least = 0.98 if targets.HOST_ARCH == "amd64" else 0.85
        assert sum(weight for stack, weight in stacks.items() if stack[0] in ROOTS) >= least * total
        # what runs on the system stack is for a goroutine
        switched = {stack: weight for stack, weight in stacks.items() if "runtime.systemstack" in stack}
        for_one = sum(weight for stack, weight in switched.items() if stack[0] in ("runtime.goexit", "runtime.mcall"))
        assert for_one >= (0.95 if targets.HOST_ARCH == "amd64" else 0.85) * sum(switched.values())


@pytest.mark.everywhere
@pytest.mark.parametrize("version", ("1.22.10", targets.NEWEST) if targets.EMULATED else CALLBACKS)
def test_stacks_go_on_behind_c_and_where_they_grow(version, tmp_path):
    """In Go that C has called, whether that keeps frame records or not, and while the runtime makes a stack larger."""
    callback = Recorded(tmp_path, "callback", str(SECONDS), version=version, flavour="cgo-external", probes="profile")
    stacks, truth = callback.flame("--on-cpu"), callback.truth
    samples = sum(stacks.values()) / SAMPLE_NS
    called = {stack: weight for stack, weight in stacks.items() if "main.called" in stack}
    again = {stack: weight for stack, weight in called.items() if "main.again" in stack}
    grinding = {stack: weight for stack, weight in stacks.items() if "grind" in stack}
    # two calls a round, and what the thread's clock does not see of them
    close = CLOSE + 4 / samples**0.5
    if targets.EMULATED:  # its timers leave samples out, of whatever runs: only how they are divided can be compared
        told = sum(map(sum, (called.values(), grinding.values()))) + under(stacks, "main.grow")
        truth = {name: told / sum(truth.values()) * spent for name, spent in truth.items()}
    assert under(stacks, "main.again") == pytest.approx(truth["main.again"], rel=close)
    assert sum(called.values()) == pytest.approx(truth["main.called"] + truth["main.again"], rel=close)
    assert under(stacks, "main.grinder") == pytest.approx(truth["main.grinder"], rel=close)
    assert under(stacks, "main.grow") == pytest.approx(truth["main.grow"], rel=close)
    # QEMU interrupts between its blocks, so more often where a function has no frame record yet
    least = 0.8 if targets.EMULATED else 0.98
    for weights, way in (
        (called, ["runtime.goexit", "main.caller", "runtime.cgocall", "runtime.cgocallback", "main.called"]),
        (grinding, ["runtime.goexit", "main.grinder", "main._Cfunc_grind", "grind"]),
        (again, ["main.called", "runtime.cgocall", "with_records", "runtime.cgocallback", "main.again"]),
    ):
        whole = {stack: weight for stack, weight in weights.items() if is_way(way, stack) and "[unknown]" not in stack}
        assert sum(whole.values()) >= least * sum(weights.values()) > 0, weights
    growing = {stack: weight for stack, weight in stacks.items() if "runtime.copystack" in stack}
    joined = {stack: weight for stack, weight in growing.items() if is_way(["runtime.goexit", "runtime.morestack"], stack)}
    assert sum(joined.values()) >= least * sum(growing.values()) > 0.1 * truth["main.grow"], growing
    # A stack's size is a power of two, as main.grow's frame is: it is too small for that many of them, and none is missing.
    needed = {stack[: stack.index("runtime.morestack")].count("main.grow") for stack in joined if "main.grow" in stack}
    assert needed and needed <= {1, 2, 4, 8, 16, 32}


def is_way(names, stack):
    """Whether ``stack`` has these functions in this order."""
    rest = iter(stack)
    return all(name in rest for name in names)


@pytest.mark.everywhere
@pytest.mark.thorough
def test_windows_hold_what_happened_in_them(burner):
    """Sample by sample and interval by interval, from what the report says of the stops and cycles."""
    records = burner.report()
    stops = [record for record in records if record["type"] == "stw"]
    cycles = [record for record in records if record["type"] == "cycle"]
    assert len(stops) > 20 and len(cycles) > 10
    spans = defaultdict(list)
    for stop in stops:
        begin = stop["monotonic_ns"]
        again = begin + stop["total_ns"] + max(0, stop["restart_lag_ns"])
        spans["stw"].append((begin, again))
        spans["stopping"].append((begin, begin + stop["stopping_ns"]))
        if stop["total_ns"] >= 100_000:
            spans["long"].append((begin, again))
    command = [*GOTRACE, "export", str(burner.path), "-o", "-", "--format", "ndjson"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    for event in events:
        if event["type"] == "cycle_clock":
            spans["mark"].append((event["mark"], event["mark_term"]))
            spans["gc"].append((event["sweep_term"], event["end"]))
    samples = [event for event in events if event["type"] == "sample"]
    offs = [event for event in events if event["type"] == "off_cpu_stack"]
    for name, parts in spans.items():
        options = ("--window", "stw", "--min-pause", "100us") if name == "long" else ("--window", name)
        inside = [each for each in samples if any(begin <= each["monotonic_ns"] < end for begin, end in parts)]
        assert sum(burner.flame("--on-cpu", *options).values()) == sum(each["period_ns"] for each in inside), name
        expected = sum(
            max(0, min(end, each["monotonic_ns"]) - max(begin, each["off_ns"])) for each in offs for begin, end in parts
        )
        assert sum(burner.flame("--off-cpu", "--idle", *options).values()) == expected > 0, name
    assists = burner.flame("--on-cpu", "--window", "assist")
    assert all("runtime.gcAssistAlloc" in stack for stack in assists)
    assert burner.flame("--on-cpu", "--window", "stw", "--min-pause", "10s") == {}


@pytest.mark.everywhere
def test_stragglers_add_up_to_the_stops(burner):
    stops = [record for record in burner.report() if record["type"] == "stw"]
    command = [*GOTRACE, "flame", str(burner.path), "--straggler", "--window", "stopping", "-o", "-", "--format", "folded"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    stacks, lengths = folded(done.stdout), sorted(record["stopping_ns"] for record in stops)
    # Of some the emulated machine's timers leave out what they waited for, and it says of how many.
    missed = re.search(r"(\d+) of them not seen completely", done.stderr)
    without = int(missed[1]) if missed else 0
    assert without <= (3 if targets.EMULATED else 0)
    assert 0.98 * sum(lengths[: len(lengths) - without]) <= sum(stacks.values()) <= 1.02 * sum(lengths)
    assert all(stack[0].startswith("[") for stack in stacks)


@pytest.mark.everywhere
@pytest.mark.alone
def test_the_straggler_is_named(tmp_path):
    stacks = Recorded(tmp_path, "planted", "memmove", str(SECONDS), probes="gc,tail").flame(
        "--straggler", "--min-pause", "2ms"
    )
    copies = {stack: weight for stack, weight in stacks.items() if stack[0] == "[not preemptible]"}
    named = sum(weight for stack, weight in copies.items() if "main.plant" in stack and stack[-1] == "runtime.memmove")
    assert named >= 0.95 * sum(copies.values()) > 0, copies
    if not targets.EMULATED:  # there waiting for a CPU is half of it
        assert named >= 0.75 * sum(stacks.values())


@pytest.mark.everywhere
@pytest.mark.thorough
@pytest.mark.alone
def test_a_straggler_that_goes_on_to_other_code(tmp_path):
    """A stop that begins with clearing waits for the copying too: each has its own time."""
    planted = Recorded(tmp_path, "planted", "both", str(SECONDS), probes="gc,tail")
    stacks = planted.flame("--straggler", "--window", "stopping")
    waits = [
        (record["monotonic_ns"], record["monotonic_ns"] + record["stopping_ns"])
        for record in planted.report()
        if record["type"] == "stw"
    ]
    for name, spans in (
        ("runtime.memclrNoHeapPointers", planted.truth["spans"][::2]),
        ("runtime.memmove", planted.truth["spans"][1::2]),
    ):
        waited = sum(max(0, min(end, until) - max(begin, since)) for begin, end, _ in spans for since, until in waits)
        assert under(stacks, name) == pytest.approx(waited, rel=CLOSE), name


@pytest.mark.everywhere
@pytest.mark.thorough
def test_a_process_is_looked_at_live(start, tmp_path, gotrace):
    target = start(targets.build("burner"), "120")
    target.go()
    out, kept = tmp_path / "x.folded", tmp_path / "kept.gotrace"
    done = gotrace("flame", "--pid", str(target.pid), "-d", "2s", "-o", str(out), "--hz", "499")
    assert done.returncode == 0, done.stderr
    stacks = folded(out.read_text())
    assert under(stacks, "main.leaf") > 0.2e9
    assert all(weight % round(1e9 / 499) == 0 for weight in stacks.values())
    done = gotrace("flame", "--pid", str(target.pid), "-d", "1s", "-o", str(out), "--record", str(kept), "--force")
    assert done.returncode == 0 and kept.stat().st_size, done.stderr
    again = gotrace("flame", str(kept), "-o", str(tmp_path / "again.folded"))
    assert again.returncode == 0 and (tmp_path / "again.folded").read_text() == out.read_text()


def test_a_difference(burner, tmp_path, gotrace):
    other = Recorded(tmp_path, "burner", str(SECONDS / 4), probes="profile")
    out = tmp_path / "diff.folded"
    done = gotrace("flame", "--diff", str(burner.path), str(other.path), "-o", str(out))
    assert done.returncode == 0, done.stderr
    before, after = burner.flame(), other.flame()
    rows = [line.rsplit(" ", 2) for line in out.read_text().splitlines()]
    told = {tuple(stack.split(";")): (int(a), int(b)) for stack, a, b in rows}
    assert told == {stack: (before.get(stack, 0), after.get(stack, 0)) for stack in {*before, *after}}
    done = gotrace("flame", "--diff", str(burner.path), str(other.path), "-o", str(tmp_path / "diff.svg"))
    assert done.returncode == 0 and "<svg" in (tmp_path / "diff.svg").read_text()
    done = gotrace("flame", "--diff", str(burner.path), str(other.path), "-o", str(tmp_path / "diff.pb.gz"))
    assert done.returncode == 2 and "-diff_base" in done.stderr


def test_what_cannot_be_meant(burner, gotrace, tmp_path):
    out = str(tmp_path / "x.svg")
    for arguments, said in (
        ([], "give one of"),
        ([str(burner.path), "--pid", "1"], "give one of"),
        ([str(burner.path), "--window", "mark", "--min-pause", "1ms"], "--min-pause applies to pauses"),
        ([str(burner.path), "--straggler", "--window", "mark"], "--straggler applies to pauses"),
        ([str(burner.path), "-d", "1s"], "no effect without --pid"),
    ):
        done = gotrace("flame", *arguments, "-o", out)
        assert done.returncode == 2 and said in done.stderr, (arguments, done.stderr)
    done = gotrace("flame", str(burner.path), "-o", str(tmp_path / "x.doc"))
    assert done.returncode == 2 and ".svg" in done.stderr
    (tmp_path / "x.svg").write_text("mine")
    done = gotrace("flame", str(burner.path), "-o", out)
    assert done.returncode == 1 and "--force" in done.stderr and (tmp_path / "x.svg").read_text() == "mine"


def test_an_event_that_is_not_there(burner, gotrace, tmp_path):
    done = gotrace("flame", str(burner.path), "--event", "cycles", "-o", str(tmp_path / "x.svg"))
    assert done.returncode == 1 and "'cycles'" in done.stderr


def test_a_recording_without_stacks(tmp_path, gotrace):
    path = Recorded(tmp_path, "burner", "0.3", probes="gc").path
    done = gotrace("flame", str(path), "-o", str(tmp_path / "x.folded"))
    assert done.returncode == 1 and "gotrace record --probes gc,profile -o FILE.gotrace" in done.stderr


def sampled_by(event, pid, path, seconds):
    """`gotrace flame --event` of a process: its stacks, what it said, and how many page faults there were meanwhile."""
    command = [*GOTRACE, "flame", "--pid", str(pid), "-d", seconds, "--event", event, "-o", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        line = tracer.stderr.readline()
        before = faults_of(pid)
        said = line + tracer.communicate(timeout=PATIENCE_S)[1]
        assert tracer.returncode == 0, said
    return folded(path.read_text()), said, faults_of(pid) - before


def faults_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[7])


@pytest.mark.everywhere
@pytest.mark.thorough
@pytest.mark.alone
def test_page_faults_are_where_memory_is_touched(tmp_path, start):
    """Another event than the clock: its samples stand for as many as the kernel counts."""
    target = start(targets.build("gcload"), "-seconds", "120", "-percent", "20")
    target.go()
    stacks, said, counted = sampled_by("page-faults", target.pid, tmp_path / "x.folded", "4s")
    target.process.kill()
    assert " page-faults in " in said
    # each one by itself; we count for some moments longer
    assert 0.9 * counted < sum(stacks.values()) <= 1.05 * counted
    assert f"from {sum(stacks.values()):,} samples" in said
    assert under(stacks, "runtime.mallocgc") > 0.7 * sum(stacks.values())


@pytest.mark.pmu
def test_samples_of_a_hardware_event(tmp_path, start):
    """Cycles are spent where CPU time is."""
    target = start(targets.build("burner"), "120")
    target.go()
    cycles = next(event.name for event in pmu.events() if event.name in ("cpu_cycles", "cpu-cycles"))
    stacks, _, _ = sampled_by(cycles, target.pid, tmp_path / "x.folded", "6s")
    target.process.kill()
    heavy, light = under(stacks, "main.heavy"), under(stacks, "main.light")
    assert heavy + light > 0.2 * sum(stacks.values())
    assert heavy / light == pytest.approx(3, rel=0.35)
