"""Cold starts against what others tell of them: the runtime's own traces, the program's clock, strace, hyperfine."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

import debian
import groundtruth
import targets
from conftest import GOTRACE, PATIENCE_S, cpu_quota, until
from gotrace import session
from gotrace.analysis.timeline import HEAP_KNOWN_FROM
from gotrace.kernel.executable import Executable, Filter
from gotrace.probes import coldstart as probe
from gotrace.run import starts_live
from gotrace.text import duration_text

pytestmark = pytest.mark.bpf

MODULE = "targets/starter/"
TOUCHING = [f"{MODULE}toucher", f"{MODULE}toucher.init.0"]
PLANTED = ("burner", "dialer", "sleeper", "toucher", "twenty")
LINKS = ("stripped", "pie-stripped", "cgo-internal", "cgo-external", "cgo-external-pie")
BUILDS = targets.EVERYWHERE_STARTS if targets.EMULATED else [(one, link) for one in targets.MATRIX for link in LINKS]


class Traced:
    """What `gotrace coldstart --format json` printed, and what the command did."""

    def __init__(self, *arguments, env=None, cwd=None, stdin=None, status=0):
        command = [*GOTRACE, "coldstart", "--format", "json", *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            input=stdin,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == status, done.stderr
        self.stderr = done.stderr
        # the command's own standard output comes first
        self.stdout, _, text = done.stdout.partition("[\n{")
        *self.starts, self.summary = json.loads("[{" + text)
        for start in self.starts:
            check(start)
        assert self.summary["lost"] == 0

    @property
    def one(self):
        (start,) = self.starts
        return start

    def told(self, word):
        """The number that the program printed behind ``word``."""
        return int(re.search(rf"^{word} (\d+)", self.stderr, re.MULTILINE)[1])


STATES = ("on_cpu_ns", "runnable_ns", "throttled_ns", "blocked_ns")


def check(start):
    """Rows follow one another and add up."""
    rows = [row for row in start["rows"] if row["stage"] != "before exec"]
    assert start["unattributed_ns"] < 0.01 * start["total_ns"]
    assert sum(row["duration_ns"] for row in rows if row["depth"] == 0) + start["unattributed_ns"] == start["total_ns"]
    for depth in (0, 1):
        at = 0
        for number, row in enumerate(rows):
            if row["depth"] != depth:
                continue
            assert row["begin_ns"] == at, row
            at += row["duration_ns"]
            within = []
            for each in rows[number + 1 :]:
                if each["depth"] <= depth:
                    break
                within += [each] if each["depth"] == depth + 1 else []
            for what in ("duration_ns", *STATES, "minor_faults", "major_faults", "pages_read"):
                assert not within or sum(each[what] for each in within) == row[what], (what, row)
    for row in rows:
        assert min(row[state] for state in STATES) >= 0 and sum(row[state] for state in STATES) == row["duration_ns"]


def rows_of(start, stage, depth=1):
    return [row for row in start["rows"] if row["stage"] == stage and row["depth"] == depth]


def row(start, stage, name):
    (found,) = [each for each in start["rows"] if each["stage"] == stage and each["name"] == name]
    return found


def whole(start, stage):
    (found,) = rows_of(start, stage, 0)
    return found


def packages(start):
    rows = start["rows"]
    return [a for a, b in zip(rows, rows[1:], strict=False) if a["depth"] == 1 and b["depth"] == 2]


INITTRACE = re.compile(r"^init (\S+) @(\S+) ms, (\S+) ms clock, (\d+) bytes", re.MULTILINE)


def interval(text):
    """The nanoseconds that a number of milliseconds which was cut off to two digits may stand for."""
    return float(text) * 1e6, (float(text) + 10.0 ** -len(text.partition(".")[2])) * 1e6


@pytest.mark.everywhere
@pytest.mark.parametrize(("version", "flavour"), BUILDS)
def test_package_inits_are_what_inittrace_prints(version, flavour):
    if flavour not in targets.flavours_of(version, targets.HOST_ARCH):
        pytest.skip("no C compiler for it here")
    program = targets.build("starter", version, flavour)
    for _ in range(3):
        traced = Traced("--until", "exit", "-n", "3", "--", program, env={"GODEBUG": "inittrace=1"})
        # Between the runtime's look at the clock and ours a thread may be held up (seen: once in 1500 packages, 40 us), but
        # not twice at one place: of three starts two have to agree about each package. Beside others it may.
        agreed = collections.Counter()
        for text, start in zip(re.split(r"^main \d+$", traced.stderr, flags=re.MULTILINE), traced.starts, strict=False):
            told, found = INITTRACE.findall(text), packages(start)
            assert [name for name, *_ in told] == [each["name"] for each in found]
            assert len(told) > 15
            for (name, _, clock, _), each in zip(told, found, strict=True):
                low, high = interval(clock)
                # In the emulated machine what is between two readings of the clock takes ten times as long.
                slack = max(30_000 * (10 if targets.EMULATED else 1), 0.03 * high)
                agreed[name] += low - slack <= each["duration_ns"] <= high + slack
        assert len(traced.starts) == 3
        if min(agreed.values()) >= 2:
            break
    assert min(agreed.values()) >= 2, agreed


@pytest.mark.everywhere
@pytest.mark.alone
def test_planted_inits():
    traced = Traced("--until", "main", "--", targets.build("starter"))
    start = traced.one
    found = {each["name"].removeprefix(MODULE): each for each in packages(start)}
    assert set(PLANTED) <= set(found)
    assert found["sleeper"]["duration_ns"] >= 20_000_000
    # It sleeps for 20 ms, which begin some instructions before it leaves the CPU; later it may have to wait for one.
    sleeper = found["sleeper"]
    assert 20_000_000 - sleeper["on_cpu_ns"] <= sleeper["blocked_ns"] <= sleeper["duration_ns"]
    if not targets.EMULATED:
        assert sleeper["blocked_ns"] >= 19_000_000
        assert sleeper["on_cpu_ns"] <= 0.05 * sleeper["duration_ns"]
    # The scheduler may take the P of it once, and what is held in its thread waits for another then.
    burner = found["burner"]
    assert burner["duration_ns"] >= 15_000_000
    assert burner["on_cpu_ns"] == pytest.approx(traced.told("burner"), rel=0.15 if targets.EMULATED else 0.02, abs=300_000)
    # each page of 32 MiB is touched for the first time, but for what came as huge pages before the init forbade them
    pages = (32 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert (0.9 if targets.EMULATED else 1) * pages <= found["toucher"]["minor_faults"] <= 1.1 * pages
    functions = [each for each in start["rows"] if each["depth"] == 2 and each["name"].startswith(f"{MODULE}twenty.")]
    assert [each["name"] for each in functions] == [f"{MODULE}twenty.init.{number}" for number in range(20)]
    assert all(each["duration_ns"] >= 100_000 for each in functions)


@pytest.mark.everywhere
def test_page_faults_are_those_of_rusage():
    program, counted = targets.build("starter"), []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
        run(program)
        counted.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before)
    start = Traced("--until", "exit", "--", program).one
    found = sum(each["minor_faults"] for each in start["rows"] if each["depth"] == 0)
    # where huge pages are given to everybody, one run has up to 500 faults more than the next
    exactly = 0.06 if targets.EMULATED else 0.02
    assert (1 - exactly) * min(counted) <= found <= (1 + exactly) * max(counted)


@pytest.mark.everywhere
def test_heap_growth_is_what_an_init_allocated():
    """inittrace prints the bytes; GC is off, so that nothing is freed meanwhile."""
    for _ in range(3):  # other threads of the runtime may take spans meanwhile
        traced = Traced("--until", "exit", "--", targets.build("starter"), env={"GODEBUG": "inittrace=1", "GOGC": "off"})
        allocated = {name: int(size) for name, _, _, size in INITTRACE.findall(traced.stderr)}
        found = {each["name"]: each["heap_bytes"] for each in packages(traced.one)}
        # What is below 64 KiB is shown as no more than that: the runtime counts by spans.
        told = {name: pytest.approx(size, rel=0.01, abs=HEAP_KNOWN_FROM) for name, size in allocated.items()}
        if {name: found[name] for name in told} == told:
            return
    assert {name: found[name] for name in told} == told


@pytest.mark.everywhere
@pytest.mark.thorough
def test_little_and_unknown_are_not_the_same(tmp_path):
    """A collection takes from the heap while toucher is initialised: by how much that grew is unknown, not nothing."""
    made = {end: tmp_path / f"start.{end}" for end in ("txt", "html", "perfetto")}
    outputs = [word for path in made.values() for word in ("-o", path)]
    program = targets.build("starter")
    traced = Traced("--until", "exit", *outputs, "--", program, "-gc", "1", env={"GODEBUG": "gctrace=1,inittrace=1"})
    before, _, _ = traced.stderr.partition(f"init {MODULE}toucher ")
    assert "gc 1 @" in before
    found = {each["name"]: each["heap_bytes"] for each in packages(traced.one)}
    assert found[f"{MODULE}toucher"] is None and abs(found[f"{MODULE}sleeper"]) < HEAP_KNOWN_FROM
    lines = made["txt"].read_text().splitlines()
    names = next(line for line in lines if "CPU quota" in line)
    columns = (
        "start",
        "duration",
        "share",
        "on-CPU",
        "runnable",
        "CPU quota",
        "blocked",
        "minor",
        "major",
        "pages",
        "heap",
    )
    ends = {name: names.index(name) + len(name) for name in columns}
    for line in lines[lines.index(names) + 1 : lines.index("", lines.index(names))]:
        assert all(line[end - 1].strip() for end in ends.values()), line
    toucher = next(line for line in lines if line.strip().startswith(f"{MODULE}toucher "))
    assert toucher[ends["heap"] - 2 : ends["heap"]] == " ?"
    page = made["html"].read_text()
    table = page[page.index("<tbody>") :]
    assert not re.search(r"<td data-value=[^>]*></td>", table) and ">?</td>" in table and ">&lt;64.0 KiB</td>" in table
    slices = {name: about for name, *_, about in groundtruth.Timeline(made["perfetto"]).slices["cold start"]}
    assert slices[f"{MODULE}toucher"]["heap_bytes"] == "?" and slices["fork to execve"]["minor_faults"] == "?"
    assert slices[f"{MODULE}sleeper"]["heap_bytes"] == found[f"{MODULE}sleeper"]
    assert slices["exec"]["starter_pid"] == traced.one["starter"]["pid"]


def test_cpu_quota(tmp_path):
    """Against the kernel's own account of its cgroup: one CPU and one thread at a time, or several would count twice."""
    program = targets.build("starter")
    trace, page = tmp_path / "start.perfetto", tmp_path / "start.html"
    with cpu_quota(10_000, 100_000) as (join, stat):
        shell = f"echo $$ > {join}; exec taskset -c 0 {program} -gc 30"
        outputs = ("-o", trace, "-o", page, "-o", tmp_path / "start.txt")
        arguments = ("--until", "exit", *outputs, "--exe", program, "--", "sh", "-c", shell)
        start = Traced(*arguments, env={"GOMAXPROCS": "1"}).one
        told = dict(line.split() for line in stat.read_text().splitlines())
    theirs = int(told["throttled_usec"]) * 1000 if "throttled_usec" in told else int(told["throttled_time"])
    ours = sum(whole(start, stage)["throttled_ns"] for stage in ("exec", "runtime bootstrap", "runtime.main", "main.main"))
    assert theirs > 300_000_000
    assert ours == pytest.approx(theirs, rel=0.03)
    share = f"{duration_text(ours)} ({ours / start['total_ns']:.0%})"
    assert f"Its cgroup's CPU quota throttled it for {share}." in (tmp_path / "start.txt").read_text()
    slices = groundtruth.Timeline(trace).slices["cold start"]
    (about,) = [about for name, *_, about in slices if name == "main.main"]
    assert about["throttled_ns"] == whole(start, "main.main")["throttled_ns"]
    text = page.read_text()
    assert 'class="throttled"' in text and f"{100 * ours / start['total_ns']:.1f} % CPU quota" in text


def test_no_quota_no_throttling():
    start = Traced("--until", "main", "--", targets.build("starter")).one
    assert all(each["throttled_ns"] == 0 for each in start["rows"] if each["stage"] != "before exec")


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.ENDS)
def test_main_listen_and_accept_by_the_programs_own_clock(version, tmp_path):
    """Each time lies between two of the program's own, always, and right before the second, unless the thread lost its CPU
    in between: it does not in three starts.
    """
    late = [of_a_start_that_listens(version, tmp_path / "log")]
    while late[-1] > (300_000_000 if targets.EMULATED else 300_000) and len(late) < 3:
        late.append(of_a_start_that_listens(version, tmp_path / "log"))
    assert late[-1] <= (300_000_000 if targets.EMULATED else 300_000), late


def of_a_start_that_listens(version, log):
    """How long after a time of ours the program's own next one was, at most, in ns."""
    program = targets.build("starter", version)
    command = [*GOTRACE, "coldstart", "--until", "exit", "--format", "json", "--", str(program), "-listen"]
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
    until(lambda: re.search(r"^listen \d+ \d+$", log.read_text(), re.MULTILINE), 30)
    time.sleep(0.2)
    port = int(re.search(r"^listen \d+ (\d+)$", log.read_text(), re.MULTILINE)[1])
    connecting = time.monotonic_ns()
    socket.create_connection(("127.0.0.1", port)).close()
    out, _ = process.communicate(timeout=30)
    start, _ = json.loads(out)
    check(start)
    told = {word: int(number) for word, number in re.findall(r"^(\w+) (\d+)", log.read_text(), re.MULTILINE)}
    begin, late = start["monotonic_ns"], []
    for before, found, after in (
        (told["init"], whole(start, "main.main")["begin_ns"], told["main"]),
        (told["listening"], start["listen_ns"], told["listen"]),
        (connecting, start["ready_ns"], told["accept"]),
    ):
        assert before <= begin + found <= after
        late.append(after - begin - found)
    assert row(start, "main.main", "listening")["blocked_ns"] >= 150_000_000
    assert start["exit_code"] == 0 and start["ended"] == "exit 0"
    return max(late)


@pytest.mark.everywhere
@pytest.mark.parametrize("version", targets.ENDS)
def test_first_gc_is_cycle_1_of_gctrace(version):
    traced = Traced("--until", "exit", "--", targets.build("starter", version), env={"GODEBUG": "gctrace=1,inittrace=1"})
    start = traced.one
    at, first, second, third = re.search(
        r"^gc 1 @([\d.]+)s \d+%: ([\d.]+)\+([\d.]+)\+([\d.]+) ms clock", traced.stderr, re.MULTILINE
    ).groups()
    # Both traces count from one moment, to the millisecond: inittrace tells when it was, in most packages' lines even if
    # a thread was held up in one of them between the runtime's look at the clock and ours.
    told = INITTRACE.findall(traced.stderr)
    origin = statistics.median(
        each["begin_ns"] - float(since) * 1e6 for (_, since, *_), each in zip(told, packages(start), strict=True)
    )
    assert -1_200_000 <= start["gc"]["begin_ns"] - origin - float(at) * 1e9 <= 1_200_000
    for text, pause in zip((first, third), start["gc"]["pauses_ns"], strict=True):
        low, high = interval(text)
        assert low <= round(pause, -3) and pause < high
    assert start["gc"]["end_ns"] - start["gc"]["begin_ns"] >= float(second) * 1e6 * 0.9 - 100_000
    assert start["gc"]["trigger"] == "heap"
    toucher = next(each for each in packages(start) if each["name"] == f"{MODULE}toucher")
    assert toucher["begin_ns"] <= start["gc"]["asked_ns"] <= toucher["begin_ns"] + toucher["duration_ns"]


@pytest.mark.everywhere
@pytest.mark.thorough
def test_until_the_first_gc_and_none():
    program = targets.build("starter")
    start = Traced("--until", "first-gc", "--", program, "-wait").one
    assert start["ended"] == "the first GC" and start["gc"]["end_ns"] == start["total_ns"]
    assert len(start["gc"]["pauses_ns"]) == 2
    # It is over in an init, which is not.
    assert [each["name"] for each in start["rows"] if "had not ended" in each["detail"]] == TOUCHING
    start = Traced("--until", "main", "--", program, env={"GOGC": "off"}).one
    assert start["gc"] is None and not any("had not ended" in each["detail"] for each in start["rows"])
    start = Traced("--until", "10ms", "--", program, "-wait").one
    assert start["total_ns"] == 10_000_000 and start["exit_code"] is None


def test_order_of_events_is_that_of_strace(tmp_path):
    program = targets.build("starter", targets.NEWEST, "cgo-external")
    start = Traced("--until", "exit", "--", program).one
    log = tmp_path / "strace"
    subprocess.run(["strace", "-ttt", "-f", "-o", log, program], check=True, stderr=subprocess.DEVNULL)
    lines = [line.split(None, 2)[2] for line in log.read_text().splitlines()]
    opened = [re.search(r'"(.*?)"', line)[1] for line in lines if line.startswith("open") and "= -1" not in line]
    libraries = [each["name"] for each in rows_of(start, "dynamic linker") if "/" in each["name"]]
    assert libraries == opened[: len(libraries)] and libraries[0] == "/etc/ld.so.cache" and len(libraries) > 1
    # exec, linker, program: the stages are in the order in which strace sees what belongs to them
    stages = [each["stage"] for each in start["rows"] if each["depth"] == 0 and each["stage"] != "before exec"]
    assert stages == ["exec", "dynamic linker", "runtime bootstrap", "runtime.main", "main.main"]
    connects = next(n for n, line in enumerate(lines) if "connect(" in line and "sin_port=htons(1)" in line)
    writes = next(n for n, line in enumerate(lines) if re.match(r'write\(2, "main', line))
    last_library = max(n for n, line in enumerate(lines) if any(f'"{name}"' in line for name in libraries))
    assert lines[0].startswith("execve(") and 0 < last_library < connects < writes
    (mapped,) = {each["detail"] for each in rows_of(start, "dynamic linker") if "libc.so" in each["name"]}
    behind = lines[next(n for n, line in enumerate(lines) if "libc.so" in line) :]
    size = next(int(line.split(", ")[1]) for line in behind if line.startswith("mmap(NULL") and "MAP_DENYWRITE" in line)
    assert mapped == f"{size / (1 << 20):.2f} MiB mapped"


def of_place(traced, place):
    return [start for start in traced.starts if start["place"] == place]


def test_starts_of_one_run_are_compared_with_their_like(gotrace, tmp_path):
    """A program that starts a copy of itself: whose child it is, it says itself."""
    program, runs = targets.build("reexec"), 4
    made = {end: tmp_path / f"starts.{end}" for end in ("gotrace", "txt", "html", "svg", "hlog")}
    outputs = [word for path in made.values() for word in ("-o", path)]
    traced = Traced("-n", runs, *outputs, "--", program, "fork")
    copies = [tuple(map(int, each)) for each in re.findall(r"^copy (\d+) (\d+)", traced.stderr, re.MULTILINE)]
    assert [(start["run"], start["place"]) for start in traced.starts] == [(n, p) for n in range(runs) for p in (0, 1)]
    assert len(copies) == runs
    for first, copy, pids in zip(of_place(traced, 0), of_place(traced, 1), copies, strict=True):
        assert (copy["pid"], first["pid"]) == pids
        assert copy["starter"] == {"pid": first["pid"], "name": "reexec"}
        assert first["starter"]["name"] != "reexec" and copy["ended"] == "listen"
        assert copy["monotonic_ns"] > first["monotonic_ns"] + 20_000_000
    wholes = {part["place"]: part for part in traced.summary["parts"] if part["name"] == "total"}
    for place in (0, 1):
        durations = [start["total_ns"] for start in of_place(traced, place)]
        assert wholes[place]["count"] == runs
        assert wholes[place]["median_ns"] == pytest.approx(statistics.median(durations), abs=1)
    text = made["txt"].read_text()
    assert f"{2 * runs} starts in {runs} runs" in text and f"{runs} started by reexec" in text
    assert re.findall(r"^Start (\d) of a run", text, re.MULTILINE) == ["1", "2"]
    assert made["html"].read_text().count("<table") == 2 and made["svg"].read_text().count('class="waterfall"') == 2
    assert "Tag=start_2_exec" in made["hlog"].read_text()
    assert gotrace("report", str(made["gotrace"])).stdout == text
    found = json.loads(
        gotrace("coldstart", "compare", str(made["gotrace"]), str(made["gotrace"]), "--format", "json").stdout
    )["rows"]
    assert {row["place"]: row["before"] for row in found if row["name"] == "total"} == {
        place: pytest.approx(part["median_ns"], abs=1) for place, part in wholes.items()
    }


def test_a_single_run_of_two_starts_shows_each(gotrace):
    done = gotrace("coldstart", "--", str(targets.build("reexec")), "fork")
    first, copy = re.findall(
        r"^Start \d of the run, pid (\d+), started by (\S+) \(pid (\d+)\): ", done.stderr, re.MULTILINE
    )
    assert copy[1:] == ("reexec", first[0])
    assert "median" not in done.stderr


@pytest.mark.parametrize("named", [True, False])
def test_starts_that_a_script_leaves_in_the_background(named, tmp_path):
    """They begin after the script has ended, and each has ended before the next run."""
    pids, program = tmp_path / "pids", targets.build("lifecycle")
    script = f'(sleep 1.5; echo "$(exec sh -c "echo \\$PPID")" >> {pids}; exec {program}) >/dev/null 2>&1 &'
    traced = Traced(*(["--exe", program] if named else []), "-n", "2", "--until", "main", "--", "sh", "-c", script)
    told = [int(line) for line in pids.read_text().split()]
    assert [start["pid"] for start in traced.starts] == told[-2:] and len(told) == 3 - named
    for pid in told[-2:]:  # gone, or not waited for yet
        with contextlib.suppress(OSError):
            assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"


def test_what_a_script_leaves_in_the_background_of_a_container(tmp_path):
    """There gotrace does not know the numbers of processes: by those of the kernel it would wait, and end another's."""
    program = targets.build("lifecycle")
    inside = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    script = f"{program} forever >/dev/null 2>&1 & sleep 2"
    command = [*inside, *GOTRACE, "coldstart", "--format", "json", "--exe", program, "-n", "2", "--until", "main"]
    began = time.monotonic()
    done = subprocess.run([*command, "--", "sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert time.monotonic() - began < 18  # 20 s, if it waited for each to end
    *starts, _ = json.loads(done.stdout)
    assert done.returncode == 0 and [start["ended"] for start in starts] == ["main.main", "main.main"], done.stderr


@pytest.mark.parametrize("by_command", [True, False])
@pytest.mark.parametrize("how", ["exec", "thread"])
def test_a_program_that_executes_itself(how, by_command, tmp_path):
    """What was execve'd goes on as the next start, until it listens."""
    program = Path(shutil.copy(targets.build("reexec"), tmp_path / "reexec"))
    if by_command:
        traced = Traced("-n", "2", "-o", tmp_path / "two.txt", "--", program, how)
        starts, stderr = traced.starts, traced.stderr
        assert "until it re-executed itself" in (tmp_path / "two.txt").read_text()
    else:
        waiting = Waiting(program, runs=2, end="listen")
        stderr = "".join(subprocess.run([program, how], stderr=subprocess.PIPE, text=True).stderr for _ in range(2))
        starts = waiting.seen()
    told = [int(pid) for pid, _ in re.findall(r"^copy (\d+) (\d+)", stderr, re.MULTILINE)]
    assert [(start["run"], start["place"]) for start in starts] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for first, second, pid in zip(starts[::2], starts[1::2], told, strict=True):
        assert first["pid"] == second["pid"] == pid
        assert (first["ended"], second["ended"]) == ("executed itself", "listen")
        assert second["starter"] == {"pid": pid, "name": "reexec"}
        assert first["total_ns"] > 20_000_000 and second["listen_ns"] == second["total_ns"]
        # the second execve begins within the first start, which it ends
        loaded = second["monotonic_ns"] + whole(second, "exec")["duration_ns"]
        assert second["monotonic_ns"] < first["monotonic_ns"] + first["total_ns"] <= loaded
        assert not rows_of(second, "before exec")


def test_what_divides_main_main(gotrace, tmp_path):
    """The commands that are named do divide it."""
    program = targets.build("starter")
    done = gotrace("coldstart", "--until", "exit", "-o", str(tmp_path / "start.html"), "--", str(program), "-gc", "200")
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("To break down main.main")]
    assert f"-- {program} -gc 200 && gotrace flame " in (tmp_path / "start.html").read_text().replace("&amp;", "&")
    for command in line.partition("by code: ")[2].split(" && "):
        words = shlex.split(command)
        assert words[0] == "gotrace"
        subprocess.run([*GOTRACE, *words[1:]], cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE_S)
    assert "main.collect" in (tmp_path / "main.svg").read_text()
    assert "To break down" not in gotrace("coldstart", "--until", "main", "--", str(program)).stderr


def test_cold_and_warm():
    """On a disk of its own folder, for what is in memory only cannot be dropped."""
    source = targets.build("starter")
    program = source.with_name("starter-of-its-own")
    program.write_bytes(source.read_bytes())
    program.chmod(0o755)
    cold = Traced("--cache", "cold", "-n", "5", "--until", "main", "--", program)
    warm = Traced("--cache", "warm", "-n", "5", "--detail", "low", "--until", "main", "--", program)
    size = -(-program.stat().st_size // os.sysconf("SC_PAGE_SIZE"))
    for start in cold.starts:
        assert sum(each["major_faults"] for each in start["rows"] if each["depth"] == 0) > 0
        pages = sum(each["pages_read"] for each in start["rows"] if each["depth"] == 0)
        assert 0.5 * size <= pages <= 1.5 * size
    for start in warm.starts:
        assert not any(each["major_faults"] or each["pages_read"] for each in start["rows"])
    took = [statistics.median(whole(start, "exec")["duration_ns"] for start in each.starts) for each in (cold, warm)]
    assert took[0] > 1.5 * took[1]
    assert "could not be dropped" not in cold.stderr
    program.unlink()


@pytest.mark.everywhere
@pytest.mark.thorough
def test_the_command_is_as_if_nobody_looked(tmp_path):
    """Its folder, arguments, environment, input, signals and descriptors, and its exit status."""
    program = targets.build("starter")
    (tmp_path / "here").mkdir()
    env = {"GOTRACE_TEST": "a b"}
    looks = 'grep -E "^Sig(Ign|Blk|Cgt)" /proc/self/status; ls -1 /proc/self/fd; ulimit -a'
    shell = f'{looks}; exec "{program}" -echo x "y z" -exit 7'
    here = tmp_path / "here"
    alone = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, cwd=here, env={**os.environ, **env}, input="in\n"
    )
    traced = Traced("--until", "exit", "--exe", program, "--", "sh", "-c", shell, env=env, cwd=here, stdin="in\n", status=7)
    assert traced.stdout == alone.stdout and alone.returncode == 7
    assert f"cwd {here}" in alone.stdout and '"y z"' in alone.stdout and alone.stdout.endswith("in\n")
    assert traced.one["exit_code"] == 7
    assert [each["name"] for each in rows_of(traced.one, "before exec")] == ["fork to execve"]


@pytest.fixture
def own(tmp_path):
    """A copy of the program that nobody else starts."""
    return Path(shutil.copy(targets.build("starter"), tmp_path / "starter"))


class Waiting:
    """`gotrace coldstart --exe PROGRAM`, ready for its starts; `seen` waits for its end."""

    def __init__(self, program, *arguments, runs=1, end="exit"):
        command = [*GOTRACE, "coldstart", "--exe", program, "-n", runs, "--format", "json", "--until", end, *arguments]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.stderr = self.process.stderr.readline()
        if not self.stderr.startswith("Waiting for its next"):
            self.process.kill()
            raise AssertionError(self.stderr + self.process.stderr.read())

    def seen(self):
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        *starts, summary = json.loads(out)
        assert summary["lost"] == 0
        for start in starts:
            check(start)
        return starts

    def end(self):
        """Interrupt it; what it says."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=60)


@pytest.mark.alone
def test_totals_are_hyperfines(own, tmp_path):
    """Of the very same starts: it counts from before the fork to after the exit was reported."""
    runs, warmup, report = 20, 2, tmp_path / "hyperfine.json"
    tracing = Waiting(own, runs=warmup + runs)
    command = ["hyperfine", "-N", "--runs", runs, "--warmup", warmup, "--export-json", report, own]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    (theirs,) = json.loads(report.read_text())["results"]
    ours = [start["total_ns"] / 1e9 for start in tracing.seen()[warmup:]]
    more = [whole - start for whole, start in zip(theirs["times"], ours, strict=True)]
    # What is more at times is a wait for a CPU, before it or after it.
    assert 0 < min(more) < 0.004, more


def run(*command, **options):
    return subprocess.run(list(map(str, command)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)


def by_shell(program, folder):
    run("sh", "-c", f"{program}; true")


def by_env(program, folder):
    run("env", "X=1", program)


def by_symlink(program, folder):
    (folder / "link").symlink_to(program)
    run(folder / "link")


def by_script(program, folder):
    script = folder / "script"
    script.write_text(f"#!/bin/sh\nexec {program} further arguments\n")
    script.chmod(0o755)
    run(script)


def as_interpreter(program, folder):
    script = folder / "interpreted"
    script.write_text(f"#!{program}\n")
    script.chmod(0o755)
    run(script)


def by_posix_spawn(program, folder):
    os.waitpid(os.posix_spawn(program, [str(program)], os.environ), 0)


def by_vfork(program, folder):
    run(program, close_fds=False, cwd=folder)


def by_descriptor(program, folder):
    """fexecve of a file that has no name any more."""
    descriptor = os.open(program, os.O_RDONLY)
    os.unlink(program)
    child = os.fork()
    if child == 0:
        try:
            os.execve(descriptor, ["starter"], os.environ)
        finally:
            os._exit(127)
    os.close(descriptor)
    os.waitpid(child, 0)


def by_thread(program, folder):
    """execve by another thread than the first: the process keeps its number, the thread loses its own."""
    code = "import os, sys, threading; threading.Thread(target=os.execv, args=(sys.argv[1], sys.argv[1:])).start()"
    run(sys.executable, "-c", code, program)


WAYS = (by_shell, by_env, by_symlink, by_script, as_interpreter, by_posix_spawn, by_vfork, by_descriptor, by_thread)


@pytest.mark.everywhere
@pytest.mark.thorough
@pytest.mark.parametrize("way", WAYS)
def test_whoever_starts_it(way, own, tmp_path):
    waiting = Waiting(own)
    way(own, tmp_path)
    (start,) = waiting.seen()
    assert start["ended"] == "exit 0"
    assert [each["stage"] for each in start["rows"] if each["depth"] == 0][-4:] == [
        *("exec", "runtime bootstrap", "runtime.main", "main.main"),
    ]
    assert len([each for each in packages(start) if each["name"].startswith(MODULE)]) == 5


@pytest.mark.everywhere
@pytest.mark.thorough
def test_fifty_at_once(own):
    program = own
    waiting = Waiting(program, runs=50)
    children = [subprocess.Popen([program], stderr=subprocess.DEVNULL) for _ in range(50)]
    starts = waiting.seen()
    assert [child.wait() for child in children] == [0] * 50
    assert sorted(start["pid"] for start in starts) == sorted(child.pid for child in children)
    for start in starts:
        assert len([each for each in packages(start) if each["name"].startswith(MODULE)]) == 5
        assert len([each for each in start["rows"] if each["depth"] == 2 and "twenty." in each["name"]]) == 20


@pytest.mark.everywhere
@pytest.mark.thorough
def test_starts_that_end_early(tmp_path):
    """A crash in an init; a death within the dynamic linker; a library that is missing."""
    start = Traced("--", targets.build("crasher"), status=2).one
    assert start["ended"] == "exit 2" and start["rows"][-1]["name"] == "targets/crasher/boom.init.0"
    if targets.EMULATED:
        return
    program = targets.build("starter", targets.NEWEST, "cgo-external")
    library = tmp_path / "deadly.so"
    source = "#include <signal.h>\n__attribute__((constructor)) static void die(void) { raise(SIGKILL); }"
    subprocess.run(["gcc", "-shared", "-fPIC", "-xc", "-", "-o", library], input=source, text=True, check=True)
    start = Traced("--exe", program, "--", "env", f"LD_PRELOAD={library}", program, status=137).one
    assert start["ended"] == "killed by signal 9" and start["exit_code"] == 137
    last = start["rows"][-1]
    assert (last["stage"], last["name"]) == ("dynamic linker", "constructors")
    assert str(library) in [each["name"] for each in rows_of(start, "dynamic linker")]
    copy = tmp_path / "without"
    copy.write_bytes(program.read_bytes().replace(b"libc.so.6\0", b"libZ.so.6\0"))
    copy.chmod(0o755)
    start = Traced("--", copy, status=127).one
    assert start["rows"][-1]["stage"] == "dynamic linker" and start["ended"] == "exit 127"


@pytest.mark.parametrize("flavour", ["cgo-internal", "cgo-external"])
def test_start_up_of_c(flavour):
    """Only where C's comes first; _cgo_init is called either way."""
    start = Traced("--until", "main", "--", targets.build("starter", targets.NEWEST, flavour)).one
    names = [each["name"] for each in rows_of(start, "runtime bootstrap")]
    assert names[:2] == ["C start-up" if flavour == "cgo-external" else "entry", "_cgo_init"]


@pytest.mark.everywhere
@pytest.mark.thorough
def test_library_searched_in_vain():
    """Every try to open a library counts into its row."""
    program = targets.build("starter", targets.NEWEST, "cgo-external")
    command = ("env", "LD_LIBRARY_PATH=/nowhere:/nor/here", program)
    start = Traced("--until", "main", "--exe", program, "--", *command).one
    rows = rows_of(start, "dynamic linker")
    (tries,) = [each for each in rows if each["name"].endswith(".so.6, not found")]
    assert re.fullmatch(r"\d+ failed attempts", tries["detail"]) and int(tries["detail"].split()[0]) >= 2


@pytest.mark.everywhere
@pytest.mark.thorough
def test_what_is_no_go_program(gotrace, tmp_path):
    done = gotrace("coldstart", "--", "/bin/true")
    assert done.returncode == 1
    assert "--exe" in done.stderr.splitlines()[-1], done.stderr
    done = gotrace("coldstart", "--exe", "/bin/true")
    assert done.returncode == 1 and "hint" in done.stderr
    if not targets.EMULATED:
        static = tmp_path / "static"
        source = "int main(void) { return 0; }"
        subprocess.run(["gcc", "-static", "-xc", "-", "-o", static], input=source, text=True, check=True)
        done = gotrace("coldstart", "--", str(static))
        assert done.returncode == 1 and "no Go program" in done.stderr.replace("not a Go", "no Go"), done.stderr
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\ntrue\n")
    script.chmod(0o755)
    assert "--exe" in gotrace("coldstart", "--", str(script)).stderr
    done = gotrace("coldstart", "--", "no-such-command")
    assert done.returncode == 2 and "no-such-command" in done.stderr
    for why, path in (("it is a folder", tmp_path), ("it is not executable", Path(__file__))):
        done = gotrace("coldstart", "--", str(path))
        assert done.returncode == 2 and f"cannot run {path}: {why}\n" in done.stderr
    done = gotrace("coldstart", "--exe", str(targets.build("starter")), "--", "true")
    assert done.returncode == 1 and "no start was observed" in done.stderr
    for arguments in (
        [],
        ["--exe", "x", "--warmup", "1"],
        ["--until", "noon", "--", "x"],
        ["--cache", "cold", "--exe", "x"],
    ):
        assert gotrace("coldstart", *arguments).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "another file with the same content, such as one in an image, counts only with --containers --copies"),
        (("--containers", "--copies"), "a copy must have the same file name and the same size"),
    ],
)
def test_interrupted_while_it_waits(own, arguments, said):
    waiting = Waiting(own, *arguments)
    out, err = waiting.end()
    assert waiting.process.returncode == 1 and "no start was observed" in err
    assert said in err and ("with --containers" in err) != bool(arguments)


def test_an_end_that_is_reported_late(monkeypatch):
    """As by a thread that lost its CPU while it reported something: nothing behind that is read before it goes on."""
    held = collections.deque(maxlen=12)
    read = session.Session.read

    def late(self):
        held.append(read(self))
        return held[0] if len(held) == held.maxlen else held[0][:0]

    monkeypatch.setattr(session.Session, "read", late)
    program = str(targets.build("starter"))
    command = ("sh", "-c", f"{program} -exit 3; exit 4")
    result, status = starts_live.trace(starts_live.Wanted(program, command, 1, 0, ("", 0)), None, False)
    assert [start.ended for start in result.starts] == ["exit 3"] and status == 4


@pytest.fixture
def cgroup(tmp_path):
    """A fresh cgroup of version 2, wherever that is mounted."""
    mount = tmp_path / "cgroup2"
    mount.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", mount], check=True)
    folder = mount / f"gotrace-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    folder.rmdir()
    subprocess.run(["umount", mount], check=True)


@pytest.mark.everywhere
@pytest.mark.thorough
def test_only_in_a_cgroup(cgroup, own):
    """With the rows before exec: the cgroup was made, and the process put into it."""
    program = own
    waiting = Waiting(program, "--cgroup", cgroup)
    inner = cgroup / "inner"
    run(program)  # not there
    inner.mkdir()
    try:
        run("sh", "-c", f"echo $$ > {inner}/cgroup.procs; sleep 0.05; exec {program}")
        (start,) = waiting.seen()
    finally:
        inner.rmdir()
    before = {each["name"]: each for each in rows_of(start, "before exec")}
    assert set(before) == {"fork to execve", "cgroup created", "moved into its cgroup, to execve"}
    assert before["moved into its cgroup, to execve"]["duration_ns"] >= 50_000_000
    made = before["cgroup created"]
    assert made["begin_ns"] + made["duration_ns"] == before["moved into its cgroup, to execve"]["begin_ns"]


@pytest.mark.everywhere
@pytest.mark.thorough
def test_a_start_under_way_while_probes_are_attached(own):
    """Is left alone: half of it was not seen. Of what is told every start has all its rows."""
    over = threading.Event()

    def restart():
        while not over.is_set():
            run(own)

    service = threading.Thread(target=restart)
    service.start()
    try:
        starts = [start for _ in range(4) for start in Waiting(own).seen()]
    finally:
        over.set()
        service.join()
    assert len({tuple(each["name"] for each in start["rows"]) for start in starts}) == 1


@pytest.mark.everywhere
def test_an_execve_whose_entry_is_not_seen(own):
    """Nor its process's fork; it is told all the same."""
    with subprocess.Popen(["sh", "-c", f"read _; exec {own}"], stdin=subprocess.PIPE) as shell:
        entries = [f"on_trace_event__syscalls__sys_enter_{name}" for name in ("execve", "execveat")]
        target = Executable(str(own), "", Filter(), "", 0)
        with session.opened([probe], target, without=entries) as tracing:
            header = {**tracing.header(time.monotonic_ns()), "coldstart": {"until": {"what": "", "ns": 0}}}
            decoder = probe.decoder(header)
            shell.communicate(b"\n")
            (start,) = decoder.feed(tracing.read()) + decoder.close(time.monotonic_ns())
    assert (start.pid, start.ended, start.unattributed_ns) == (shell.pid, "exit 0", 0)
    assert "when execve began" in start.notes[0]
    assert [(each.name, each.duration_ns) for each in start.rows if each.depth == 1][0] == ("loading the program", 0)


@pytest.mark.everywhere
@pytest.mark.thorough
def test_only_in_a_pid_namespace(own):
    program = own
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "sh", "-c", "read _; " + str(program)], stdin=subprocess.PIPE
    ) as other:
        children = Path(f"/proc/{other.pid}/task/{other.pid}/children")
        until(lambda: children.read_text().split())
        (shell,) = children.read_text().split()
        waiting = Waiting(program, "--pid-ns", f"/proc/{shell}/ns/pid")
        run(program)
        other.communicate(b"\n")
        (start,) = waiting.seen()
        assert start["ended"] == "exit 0"


@pytest.mark.parametrize("libraries", ["ours", "trixie"])
def test_container_with_a_root_of_its_own(libraries, tmp_path):
    """The dynamic linker is that of the root the program runs in; in Debian 13 it is glibc 2.41's."""
    program = targets.build("starter", targets.NEWEST, "cgo-external")
    root = tmp_path / "root"
    if libraries == "trixie":
        shutil.copytree(debian.unpacked("trixie", targets.HOST_ARCH, "libc6"), root, symlinks=True)
        for name in ("lib", "lib64"):  # the base system's
            if not (root / name).exists() and (root / "usr" / name).exists():
                (root / name).symlink_to(f"usr/{name}")
    for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
        for path in re.findall(r"/\S+", line) if libraries == "ours" else ():
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path[1:])
    (root / "app").mkdir()
    shutil.copy(program, root / "app" / "starter")
    waiting = Waiting(root / "app" / "starter")
    run("unshare", "--mount", "chroot", root, "/app/starter")
    (start,) = waiting.seen()
    names = [each["name"] for each in rows_of(start, "dynamic linker")]
    assert names[0] == "start-up" and any("libc.so" in name for name in names)
    assert names[-2:] == ["relocation", "constructors"]


@pytest.mark.everywhere
@pytest.mark.thorough
def test_recording_tells_the_same(gotrace, tmp_path):
    """And what is exported from it is what was written live."""
    program = targets.build("starter")
    made = {end: tmp_path / f"live.{end}" for end in ("gotrace", "json", "svg", "html", "perfetto", "hlog")}
    outputs = [word for path in made.values() for word in ("-o", str(path))]
    done = gotrace("coldstart", "-n", "3", "--until", "main", *outputs, "--", str(program))
    assert done.returncode == 0, done.stderr
    live = json.loads(made["json"].read_text())
    again = gotrace("report", str(made["gotrace"]), "--format", "json")
    assert json.loads(again.stdout) == live
    table = gotrace("report", str(made["gotrace"])).stdout
    live_table, *wrote = done.stderr[done.stderr.index("starter (go") :].split("\nwrote ")
    assert table.strip() == live_table and len(wrote) == len(made)
    for end in ("svg", "html", "perfetto", "hlog"):
        exported = tmp_path / f"exported.{end}"
        assert gotrace("export", str(made["gotrace"]), "-o", str(exported)).returncode == 0
        assert exported.read_bytes() == made[end].read_bytes(), end
    assert gotrace("coldstart", "-o", str(made["json"]), "--", str(program)).returncode == 1  # never over a file
    rows = gotrace("export", str(made["gotrace"]), "-o", "-", "--format", "ndjson").stdout.splitlines()
    assert len([line for line in rows if '"type": "exec"' in line]) == 3


def test_histograms_of_many(gotrace, tmp_path):
    """Read by the HdrHistogram package: one a stage and package, with the medians that are printed."""
    log, program = tmp_path / "starts.hlog", targets.build("starter")
    traced = Traced("-n", "10", "--until", "main", "-o", log, "--", program)
    reader = HistogramLogReader(str(log), HdrHistogram(1, 3_600_000_000_000, 3))
    found = {}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        found[histogram.tag] = histogram
    parts = {(part["stage"], part["name"]): part for part in traced.summary["parts"]}
    assert len(found) == len(parts)
    sleeper = found["runtime_main.targets_starter_sleeper"]
    durations = sorted(row(start, "runtime.main", f"{MODULE}sleeper")["duration_ns"] for start in traced.starts)
    assert sleeper.get_total_count() == 10
    assert sleeper.get_max_value() == pytest.approx(durations[-1], rel=0.001)
    part = parts["runtime.main", f"{MODULE}sleeper"]
    assert part["median_ns"] == pytest.approx(statistics.median(durations), abs=1)
    assert part["median_low_ns"] <= part["median_ns"] <= part["median_high_ns"]
    assert part["p99_ns"] == pytest.approx(sleeper.get_value_at_percentile(99), rel=0.001)


def test_compare(gotrace, tmp_path):
    """What differs is found and named: the same program with and without its garbage collector."""
    paths = []
    for name, env in (("a", {}), ("b", {"LD_BIND_NOW": ""})):
        paths.append(str(tmp_path / f"{name}.gotrace"))
        Traced("-n", "8", "--until", "main", "-o", paths[-1], "--", targets.build("starter"), env=env)
    done = gotrace("coldstart", "compare", *paths, "--format", "json")
    rows = {(each["stage"], each["name"]): each for each in json.loads(done.stdout)["rows"]}
    sleeper = rows["runtime.main", f"{MODULE}sleeper"]
    assert sleeper["low"] <= sleeper["difference"] <= sleeper["high"]
    assert abs(sleeper["difference"]) < 0.1 * sleeper["before"]
    text = gotrace("coldstart", "compare", *paths).stdout
    assert text.startswith("A: ") and "95 % interval" in text
    assert gotrace("coldstart", "compare", paths[0], str(tmp_path / "none")).returncode == 1


def test_perfetto_has_every_row(tmp_path):
    trace = tmp_path / "start.perfetto"
    start = Traced("--until", "500ms", "-o", trace, "--", targets.build("starter"), "-listen").one
    timeline = groundtruth.Timeline(trace)
    begin = start["monotonic_ns"]
    told = [
        (name or "", first - begin, last - first, depth) for name, first, last, depth, _ in timeline.slices["cold start"]
    ]
    rows = [
        (each["name"] or each["stage"], each["begin_ns"], each["duration_ns"], each["depth"])
        for each in start["rows"]
        if each["stage"] != "before exec"
    ]
    assert set(rows) <= set(told)
    assert timeline.instants["cold start"] == [("listen", begin + start["listen_ns"])]
    (gc,) = timeline.slices["GC"]
    assert gc[1:3] == (begin + start["gc"]["begin_ns"], begin + start["gc"]["end_ns"])
