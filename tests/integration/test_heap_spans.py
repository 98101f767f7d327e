"""`gotrace heap --alloc --now` of programs that take no heap profile: allocations by span, against what was allocated."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, until
from gotrace import session
from gotrace.analysis.allocations import WindowSums
from gotrace.analysis.columns import Kinds
from gotrace.binary import code
from gotrace.binary.program import GoProgram
from gotrace.kernel import bpf
from gotrace.kernel.process import Process
from gotrace.probe import DELAY_NS
from gotrace.probes import alloc
from gotrace.records.all import schema_of_command
from gotrace.text import bytes_text

pytestmark = pytest.mark.bpf

# What a round of the program allocates at each place, as the runtime counts it: by size classes, and whole pages.
ROUND = {
    "main.medium": 320 * (1024 + 24),
    "main.small": 256 * (64 + 24),
    "main.pointers": 256 * 48,
    "main.inlinedToo": 256 * 256,
    "main.deep": 20 * 512,
    "main.large": 13 * 8192 + 24,
}
RELEASES = [version for version in ("1.19.8", "1.22.10", targets.NEWEST) if version in targets.MATRIX]


class Spender:
    """The program, which allocates while it answers a line."""

    def __init__(self, start, *arguments, version=targets.NEWEST, flavour="stripped"):
        self.target = start(targets.build("spender", version, flavour), *arguments)
        self.pid = self.target.pid

    def begin(self, seconds):
        self.target.process.stdin.write(f"{seconds}\n")
        self.target.process.stdin.flush()

    def spend(self, seconds):
        self.begin(seconds)
        return self.target.truth()


def spent(program, seconds, *options):
    """What the program allocates in that time: its own words, and what a command prints that sees all of it."""
    duration = f"{seconds + (15 if targets.EMULATED else 3)}s"
    command = [*GOTRACE, "heap", "--pid", str(program.pid), "--alloc", "--now", "-d", duration, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        head = [tracer.stdout.readline() for _ in range(2)]  # by the first line it has read the runtime's counter
        truth = program.spend(seconds)
        out, err = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0 and "Traceback" not in err, err
    return truth, "".join([*head, out])


def of_functions(record):
    """Share and standard error of the stacks whose innermost function has a name; windows differ for all of them alike."""
    shares, errors = Counter(), Counter()
    for each in record["stacks"]:
        shares[each["stack"][0]["function"]] += each["share"]
        errors[each["stack"][0]["function"]] += 0.01 if each["share_error"] is None else each["share_error"]
    return shares, errors


@pytest.mark.parametrize(
    ("version", "flavour"),
    [
        *((version, "stripped") for version in RELEASES[:-1]),
        pytest.param(targets.NEWEST, "stripped", marks=pytest.mark.everywhere),
        (targets.NEWEST, "pie-stripped"),
        (targets.NEWEST, "noopt"),
    ],
)
def test_shares_are_the_programs(version, flavour, start, tmp_path):
    """Who has allocated how much, of a program without symbols and without a profile; and how much in all.

    A share may be off by five of its standard errors, which come from a dozen windows, and by what does not show in them:
    half a percent, for the objects in spans that a collection takes from a P are not seen.
    """
    program = Spender(start, version=version, flavour=flavour)
    recording, path = tmp_path / "x.gotrace", tmp_path / "x.json"
    truth, out = spent(program, 5, "-o", str(recording), "-o", str(path))
    records = json.loads(path.read_text())
    check = jsonschema.Draft202012Validator(schema_of_command("heap"))
    for each in records:
        check.validate(each)
    last = records[-1]
    assert last["type"] == "heap_spans" and last["lost"] == 0 and last["windows"] >= (3 if targets.EMULATED else 8)
    assert 0.01 < last["windows_ns"] / last["length_ns"] < 0.08
    # What is in spans that are in use is counted later.
    assert last["alloc_bytes"] == pytest.approx(truth["TotalAlloc"], rel=0.005, abs=2 << 20)
    assert truth["TotalAlloc"] == pytest.approx(truth["Rounds"] * sum(ROUND.values()), rel=0.005)
    assert sum(each["alloc_bytes"] for each in last["stacks"]) == pytest.approx(last["alloc_bytes"], rel=1e-3)
    assert last["alloc_objects"] == pytest.approx(truth["Mallocs"], rel=0.1)
    shares, errors = of_functions(last)
    for name, size in ROUND.items():
        share = truth["Rounds"] * size / truth["TotalAlloc"]
        assert shares[name] == pytest.approx(share, abs=5 * errors[name] + 0.005), (name, errors[name])
    assert sum(shares[name] for name in ROUND) > 0.99
    (inner,) = [each["stack"] for each in last["stacks"] if each["stack"][0]["function"] == "main.inlinedToo"][:1]
    assert [each["function"] for each in inner[:3]] == ["main.inlinedToo", "main.inlined", "main.round"]
    assert inner[0]["inlined"] == (flavour != "noopt")
    deepest = max(last["stacks"], key=lambda each: len(each["stack"]))["stack"]
    assert [each["function"] for each in deepest].count("main.deep") > 10
    # What it says, and says again.
    percent = f"{last['windows_ns'] / last['length_ns']:.1%} of the time"
    told = rf": allocations by span, seen in {last['windows']} windows of \d+ ms, {percent}; ended by: duration\n"
    assert re.search(told, out), out
    sizes = [bytes_text(last[name]) for name in ("seen_bytes", "alloc_bytes")]
    assert f"\n{sizes[0]} seen, of {sizes[1]} counted by the runtime in " in out
    assert re.search(r"^ +\S+ [KMG]iB +[\d,]+ +\d+\.\d% +\d+\.\d% +[\d,]+  main\.large < main\.round < ", out, re.M), out
    cost = last["cost"]
    assert cost["probe_hits"] >= sum(each["spans"] for each in last["stacks"]) and cost["target_ns_estimate"] > 0
    assert f"\ncost: {cost['probe_hits']:,} probe hits, about " in out
    again = subprocess.run([*GOTRACE, "report", str(recording)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert again.stdout == out, again.stderr
    assert program.target.finish() == 0


@pytest.mark.parametrize("version", RELEASES)
def test_every_byte(version, start, monkeypatch):
    """In a window without end all is seen, once, and nothing else: what the runtime counts, but for spans in use.

    A function that finds its stack too small begins anew, at the probe too where that is at its branch.
    """
    monkeypatch.setattr(alloc, "PROBE", dataclasses.replace(alloc.PROBE, window_ns=60 * 10**9, every_ns=60 * 10**9))
    program = Spender(start, "-workers", "20", "-pause", "20ms", version=version)
    with Process.open(program.pid) as process, session.opened([alloc], process) as tracing:
        tracing.open_windows()
        until(lambda: code_at(program.pid, "mem") != code_at(program.pid, "exe"), 10)
        time.sleep(0.1)
        truth = program.spend(1)
        tracing.close_windows()
        time.sleep(DELAY_NS / 1e9)
        events, kinds = tracing.read(), Kinds.of_probe(tracing.header(0), "alloc")
        assert tracing.lost == 0
    (window,) = kinds.of(events, "window")[["begin_ns", "time_ns"]].tolist()
    sums = WindowSums()
    sums.add(kinds.of(events, "allocated"), [window])
    seen = sum(int(each.bytes.sum()) for each in sums.stacks.values())
    assert 0 not in sums.stacks and truth["TotalAlloc"] > 50 << 20
    assert 0.97 * truth["TotalAlloc"] < seen < truth["TotalAlloc"] + (1 << 20), truth
    objects = sum(each.objects for each in sums.stacks.values())
    assert objects == pytest.approx(truth["Mallocs"], rel=0.03)


def test_every_output(start, tmp_path, gotrace):
    """Flame graphs and profiles say the same; so do those that are made of the recording."""
    program = Spender(start)
    endings = ("gotrace", "folded", "pb.gz", "svg", "html", "speedscope.json", "ndjson")
    options = [word for ending in endings for word in ("-o", str(tmp_path / f"x.{ending}"))]
    _, out = spent(program, 2, *options, "-i", "1s")
    last = json.loads((tmp_path / "x.ndjson").read_text().splitlines()[-1])
    assert len(re.findall(r"^\d\d:\d\d:\d\d +", out, re.M)) == len((tmp_path / "x.ndjson").read_text().splitlines()) >= 3
    sums = Counter()
    for line in (tmp_path / "x.folded").read_text().splitlines():
        stack, _, weight = line.rpartition(" ")
        sums[stack.split(";")[-1]] += int(weight)
    assert sum(sums.values()) == sum(each["alloc_bytes"] for each in last["stacks"])
    for index, unit, value in (("alloc_space", "B", "alloc_bytes"), ("alloc_objects", "", "alloc_objects")):
        flat = targets.pprof_top(tmp_path / "x.pb.gz", index, unit)["main.medium"][0]
        ours = sum(each[value] for each in last["stacks"] if each["stack"][0]["function"] == "main.medium")
        assert flat == pytest.approx(ours, rel=0.01)
    for ending in ("svg", "html"):
        text = (tmp_path / f"x.{ending}").read_text()
        assert "main.medium" in text and "seen, of" in text and "allocations by span" in text
    assert "main.medium" in (tmp_path / "x.speedscope.json").read_text()
    for ending in ("folded", "svg", "speedscope.json", "ndjson"):
        done = gotrace("report", str(tmp_path / "x.gotrace"), "-o", str(tmp_path / f"y.{ending}"))
        assert done.returncode == 0 and done.stdout == out, done.stderr
        assert (tmp_path / f"y.{ending}").read_bytes() == (tmp_path / f"x.{ending}").read_bytes(), ending
        if ending != "ndjson":  # that has the events
            done = gotrace("export", str(tmp_path / "x.gotrace"), "-o", str(tmp_path / f"z.{ending}"))
            assert (
                done.returncode == 0 and (tmp_path / f"z.{ending}").read_bytes() == (tmp_path / f"x.{ending}").read_bytes()
            )
    refused = gotrace("heap", "diff", str(tmp_path / "x.gotrace"), str(tmp_path / "x.gotrace"))
    assert refused.returncode == 1 and "holds allocations by span, not a heap profile" in refused.stderr, refused.stderr


def test_what_it_is_not_used_for(start, gotrace):
    """Without --duration, --alloc and --now there is nothing to show, and who has a profile is asked for that."""
    program = Spender(start)
    for options in ((), ("--alloc", "--now"), ("-d", "1s", "--alloc")):
        done = gotrace("heap", "--pid", str(program.pid), *options)
        assert done.returncode == 1, done.stderr
        assert [line.strip() for line in done.stderr.splitlines()] == [
            "gotrace: the program keeps no heap profile: nothing in it reads one, so the linker dropped it",
            "hint: `gotrace heap --pid PID -d 10s --alloc --now` shows which code allocates, `gotrace mem` what its memory "
            "consists of",
        ]
    done = gotrace("heap", "--pid", str(program.pid), "--spans", "--alloc", "--now")
    assert done.returncode == 2 and "--spans has no effect without --duration, --alloc and --now" in done.stderr
    for arguments, kind in (
        (("-rate", "0"), "heap_spans"),
        (("-rate", "4096"), "heap"),
        (("-rate", "4096", "--spans"), "heap_spans"),
    ):
        mine = [each for each in arguments if each == "--spans"]
        hoarder = start(targets.build("hoarder"), *arguments[:2])
        hoarder.process.stdin.write("allocate\n")
        hoarder.process.stdin.flush()
        hoarder.truth()
        options = ("-d", "1s", "--alloc", "--now", "--format", "ndjson", *mine)
        done = gotrace("heap", "--pid", str(hoarder.pid), *options)
        assert {json.loads(line)["type"] for line in done.stdout.splitlines()} == {kind}, done.stderr
    text = gotrace("heap", "--pid", str(program.pid), "-d", "1s", "--alloc", "--now").stdout
    assert "No span was used up within a window: trace for longer" in text, text


def code_at(pid, where):
    """The instructions that are probed, in the process's memory ("mem") or in its file ("exe")."""
    with GoProgram.open(f"/proc/{pid}/exe") as program, open(f"/proc/{pid}/{where}", "rb", buffering=0) as file:
        place = "address" if where == "mem" else "file_offset"
        return [os.pread(file.fileno(), len(point.code), getattr(point, place)) for point in alloc.plan(program).points]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays(number, start):
    """Between windows the program's code is its own, and after a kill; it runs on unharmed."""
    program = Spender(start)
    program.begin(8)
    command = [*GOTRACE, "heap", "--pid", str(program.pid), "-d", "1m", "--alloc", "--now"]
    own = code_at(program.pid, "exe")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        assert "Tracing" in tracer.stderr.readline()
        seen = []
        for _ in range(2000):
            seen.append(code_at(program.pid, "mem") == own)
            if seen.count(False) > 2 and seen[-1]:
                break
            time.sleep(0.002)
        assert {*seen} == {True, False}  # it comes, and goes
        until(lambda: code_at(program.pid, "mem") != own, 10)
        tracer.send_signal(number)
        tracer.wait(PATIENCE_S)
    until(lambda: code_at(program.pid, "mem") == own, 10)
    truth = program.target.truth()
    assert truth["TotalAlloc"] == pytest.approx(truth["Rounds"] * sum(ROUND.values()), rel=0.005)
    assert program.target.finish() == 0


def test_a_target_that_ends_and_one_that_executes(start, gotrace):
    """What was seen until then counts."""
    program = Spender(start)
    program.begin(3)
    program.target.process.stdin.close()
    done = gotrace("heap", "--pid", str(program.pid), "-d", "1m", "--alloc", "--now")
    assert done.returncode == 0 and "ended by: target exited" in done.stdout and "main.medium < " in done.stdout, (
        done.stderr
    )
    execer = start(targets.build("execer"), "-wait", "-cycles", "3", str(targets.build("spender")))
    command = [*GOTRACE, "heap", "--pid", str(execer.pid), "-d", "8s", "--alloc", "--now"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert "Tracing" in tracer.stderr.readline()
        execer.go()
        execer.process.stdin.write("3\n")
        execer.process.stdin.flush()
        out, err = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0 and "Traceback" not in err and "/spender (go1." in err, err
    assert "main.medium < main.round" in out, out


def test_kernels_without_links_for_uprobes(start, monkeypatch):
    """Before 6.10 the probes are perf events, which go more slowly."""
    monkeypatch.setattr(bpf, "has_uprobe_multi", lambda: False)
    program = Spender(start)
    with Process.open(program.pid) as process, session.opened([alloc], process) as tracing:
        tracing.open_windows()
        program.spend(2)
        tracing.close_windows()
        time.sleep(DELAY_NS / 1e9)
        events, kinds = tracing.read(), Kinds.of_probe(tracing.header(0), "alloc")
        assert tracing.lost == 0
    sums = WindowSums()
    sums.add(kinds.of(events, "allocated"), kinds.of(events, "window")[["begin_ns", "time_ns"]].tolist())
    assert sums.windows >= 3 and sum(each.spans for each in sums.stacks.values()) > 100
    until(lambda: code_at(program.pid, "mem") == code_at(program.pid, "exe"), 10)


def test_who_sets_the_probes_is_killed(start):
    """Then no window comes any more, which is said."""
    program = Spender(start)
    command = [*GOTRACE, "heap", "--pid", str(program.pid), "-d", "1m", "--alloc", "--now"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert "Tracing" in tracer.stderr.readline()
        first = min(map(int, Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()))
        os.kill(first, signal.SIGKILL)
        _, err = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 1 and "the process that sets the probes exited" in err, err
    assert program.target.process.poll() is None


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("version", targets.MATRIX)
def test_sites(version, arch):
    """In the prologues, on instructions that the kernel emulates, and the arguments are not touched before them."""
    for flavour in ("stripped", "pie-stripped", "noopt"):
        if flavour != "stripped" and version not in RELEASES:
            continue
        with GoProgram.open(targets.build("gcload", version, flavour, arch)) as program:
            plan = alloc.plan(program)
            assert [item.name for item in plan.missing] == []
            assert {(point.name, point.symbol) for point in plan.points} == {
                ("spans", "runtime.(*mcache).refill"),
                ("large objects", "runtime.(*mcache).allocLarge"),
            }
            for point in plan.points:
                body = program.pclntab.find(point.address)
                assert body is not None and body.name == point.symbol and point.emulated, point
                assert program.elf.read(point.address, len(point.code)) == point.code
                before = [each for each in code.decode(program, point.symbol) if each.address <= point.address]
                # a look at the stack's bound, and the branch; behind it, if that can be, or at it
                assert len(before) <= 4 and point.address > body.entry, before
                checks = [each for each in before if each.mnemonic in ("cmp", "jbe", "b.ls")]
                assert [each.mnemonic for each in checks] in (["cmp", "jbe"], ["cmp", "b.ls"]), before
    with GoProgram.open(targets.build("gcload", version, "default", arch)) as program:
        symbols = {name: address for name, address, _ in program.elf.symbols()}
        total = alloc.plan(program).facts["total_alloc"]
    assert 0 < total - symbols["runtime.gcController"] < 1024
