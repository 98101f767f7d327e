"""`gotrace contention` against the profiles that the program writes of itself, and what it measured."""

from __future__ import annotations

import functools
import json
import re
import subprocess

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, records_of
from gotrace.binary.profiles import find_contention
from gotrace.binary.program import GoProgram

CASES = [
    *((version, "stripped") for version in targets.ENDS),
    *((version, flavour) for version in ("1.19.8", "1.22.10", targets.NEWEST) for flavour in ("pie-stripped", "noopt")),
]
CASES = [case for case in CASES if case[0] in targets.MATRIX and (case[1] == "stripped" or not targets.EMULATED)]


class Contender:
    """The program, at rest once it has answered; ``profiles`` are the files that it wrote then, by kind."""

    def __init__(self, start, folder, *arguments, version=targets.NEWEST, flavour="stripped"):
        self.profiles = {kind: folder / f"{kind}.pb.gz" for kind in ("mutex", "block")}
        files = [argument for kind, path in self.profiles.items() for argument in (f"-{kind}", str(path))]
        self.target = start(targets.build("contender", version, flavour), *files, *arguments)
        self.pid = self.target.pid

    def ask(self):
        """(waits for the lock, how long in ns, those for the channel, how long) since it began, as it measured them."""
        self.target.go()
        return json.loads(self.target.process.stdout.readline()).values()


RUNTIMES = ("runtime._LostContendedRuntimeLock",)


def near(ns):
    """A thread may lose its CPU between the program's looks at the clock and the runtime's."""
    return pytest.approx(ns, rel=0.3 if targets.EMULATED else 0.15)


told = functools.partial(records_of, "contention")


def through(waits, name):
    """(waits, ns) of the stacks with a function."""
    found = [each for each in waits["stacks"] if name in [function["function"] for function in each["stack"]]]
    return sum(each["count"] for each in found), sum(each["delay_ns"] for each in found)


@pytest.mark.everywhere
@pytest.mark.parametrize(("version", "flavour"), CASES)
def test_waits_are_those_of_the_programs_profiles(version, flavour, start, tmp_path, gotrace):
    """Every stack, by `go tool pprof`; and as long as the program itself has waited."""
    program = Contender(start, tmp_path, version=version, flavour=flavour)
    locks, locked, channels, received = program.ask()
    (record,) = told(program.pid)
    for kind, path in program.profiles.items():
        ours = tmp_path / f"ours-{kind}.pb.gz"
        assert gotrace("contention", "--pid", str(program.pid), f"--{kind}", "-o", str(ours)).returncode == 0
        if not targets.EMULATED:
            for index, unit in (("delay", "ns"), ("contentions", "count")):
                theirs, found = (targets.pprof_traces(each, index, unit) for each in (path, ours))
                # Locks of the runtime itself, whose waiters 1.22 cannot name: one may come after the profile was written.
                found = {stack: number for stack, number in found.items() if stack in theirs or stack != RUNTIMES}
                assert found.keys() == theirs.keys() and theirs, (kind, index)
                for stack, number in theirs.items():
                    assert found[stack] == pytest.approx(number, rel=0.001, abs=50), (kind, index, stack)
    # What let others wait for its lock is an unlock; what waited, a lock.
    count, delay = through(record["mutex"], "main.hold")
    assert count == pytest.approx(locks, abs=1) and delay == near(locked) and locks > 10
    (inner,) = {
        tuple(f["function"] for f in each["stack"][:3])
        for each in record["mutex"]["stacks"]
        if through({"stacks": [each]}, "main.hold")[0]
    }
    assert inner == ("sync.(*Mutex).Unlock", "main.letGo", "main.hold")
    for name, waits, ns in (("main.wait", locks, locked), ("main.receive", channels, received)):
        count, delay = through(record["block"], name)
        assert count == pytest.approx(waits, abs=1) and delay == near(ns), name


def test_what_was_waited_meanwhile(start, tmp_path, gotrace):
    program = Contender(start, tmp_path)
    _, locked, channels, received = program.ask()
    recording, folded = tmp_path / "x.gotrace", tmp_path / "x.folded"
    options = ["-d", "3s", "--block", "-o", str(recording), "-o", str(folded)]
    with subprocess.Popen(
        [*GOTRACE, "contention", "--pid", str(program.pid), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tracer:
        assert "delay" in tracer.stdout.readline()
        first = tracer.stdout.readline()  # the first profile is taken
        _, locked_then, channels_then, received_then = program.ask()
        out, err = tracer.communicate(timeout=PATIENCE_S)
    assert tracer.returncode == 0, err
    weights = {}
    for stack, _, weight in (line.rpartition(" ") for line in folded.read_text().splitlines()):
        for name in set(stack.split(";")):
            weights[name] = weights.get(name, 0) + int(weight)
    for name, ns in (("main.wait", locked_then - locked), ("main.receive", received_then - received)):
        assert weights[name] == near(ns), name
    count = channels_then - channels
    waits = f"({count - 1}|{count}|{count + 1})"
    assert re.search(rf"^ .* {waits} +\d\.\d\d ms  runtime\.chanrecv1 < main\.receive < main\.round", out, re.M), out
    assert "There is also a mutex profile" in out
    report = gotrace("report", str(recording)).stdout.splitlines()
    assert report[1:] == [first.rstrip("\n"), *out.splitlines()]
    assert gotrace("report", str(recording), "--format", "folded").stdout == folded.read_text()


def test_of_a_program_that_collects_none(start, tmp_path, gotrace):
    program = Contender(start, tmp_path, "-rate", "0")
    program.ask()
    (record,) = told(program.pid)
    assert record["mutex"] == record["block"] == {"count": 0, "delay_ns": 0, "stacks": []}
    for kind in ("Mutex", "Block"):
        out = gotrace("contention", "--pid", str(program.pid), f"--{kind.lower()}").stdout
        assert f"The profile is empty: the program does not collect it (runtime.Set{kind}Profile" in out
    for options, words in (
        (("--mutex", "--block"), "are mutually exclusive"),
        (("-i", "1s"), "--interval has no effect without --duration"),
        (("--format", "json", "--top", "3"), "--top has no effect without a table"),
    ):
        done = gotrace("contention", "--pid", str(program.pid), *options)
        assert done.returncode == 2 and words in done.stderr, done.stderr


def test_addresses_are_where_nm_says():
    for version in targets.MATRIX:
        for arch in ("amd64", "arm64"):
            for flavour in ("default", "pie", "noopt"):
                if flavour == "default" or version in ("1.19.8", "1.22.10", targets.NEWEST):
                    with GoProgram.open(targets.build("hoarder", version, flavour, arch)) as program:
                        found = find_contention(program)
                        symbols = {name: address for name, address, _ in program.elf.symbols()}
                    assert {*found.lists} == {symbols["runtime.xbuckets"], symbols["runtime.bbuckets"]}, (version, arch)
