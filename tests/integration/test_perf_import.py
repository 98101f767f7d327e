"""`gotrace import` of what the real perf recorded here, compared with what perf itself says field by field."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import targets
from gotrace.analysis.stacks import INLINED, KERNEL
from gotrace.recording.perf_script import PerfScript, Sample
from gotrace.recording.reader import Recording

Gotrace = Callable[..., "subprocess.CompletedProcess[str]"]

EVENTS = ("cpu-clock", "page-faults", "sched:sched_switch", "raw_syscalls:sys_enter", "raw_syscalls:sys_exit")


@pytest.fixture(scope="module", autouse=True)
def _perf() -> None:
    """perf is what `scripts/setup test` installs, where the distribution has it; recording all of a machine needs root."""
    reason = "needs root" if os.geteuid() else ""
    if shutil.which("perf") is None or subprocess.run(["perf", "version"], capture_output=True).returncode:
        reason = "has no perf for its kernel"
    if reason and os.environ.get("GOTRACE_REQUIRE_BPF") == "1":
        pytest.fail(f"GOTRACE_REQUIRE_BPF is set, but this host {reason}")
    if reason:
        pytest.skip(f"this host {reason}")


def perf(*arguments: str | Path) -> str:
    done = subprocess.run(["perf", *map(str, arguments)], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="replace")


@pytest.fixture(scope="module")
def data(_perf: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording by perf of the whole machine for a while: a Go program, and one whose name has spaces and colons."""
    folder = tmp_path_factory.mktemp("perf")
    odd = folder / "an odd: na [0]"
    shutil.copy(targets.build("gcload", flavour="default"), odd)
    program = targets.build("gcload", flavour="default")
    out = folder / "perf.data"
    # every occurrence of a tracepoint (-c 1 for each), samples at a frequency
    events = [f"-e{event}" if ":" in event else f"-e{event}/freq=997/" for event in EVENTS]
    futex = "id == 202 || id == 98"  # on x86-64 and ARM64
    events = [word for event in events for word in ([event, "--filter", futex] if "raw_" in event else [event])]
    script = f'echo | "{program}" -cycles 20 >/dev/null & echo | "{odd}" -cycles 20 >/dev/null; wait'
    record = ["record", "-o", str(out), "-a", "-g", "-m", "8M", *events, "--", "sh", "-c", script]
    done = subprocess.run(["perf", *record], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return out


def printed(data: Path, *arguments: str) -> str:
    return perf("script", "-i", data, *arguments)


def read(tmp_path: Path, text: str) -> tuple[list[Sample], PerfScript]:
    (tmp_path / "perf-script.txt").write_text(text)
    with open(tmp_path / "perf-script.txt", "rb") as file:
        script = PerfScript(file)  # by perf alone: it is the truth, and whatever else runs on the machine may be stripped
        return list(script), script


def columns(text: str) -> Iterator[tuple[str, list[str]]]:
    """(first line, callchain) of each sample, by the plainest rule: an empty line ends it."""
    for block in re.split(r"\n\n+", text.strip("\n")):
        first, *rest = block.split("\n")
        yield first, rest


def test_the_default_output_agrees_with_each_field(data: Path, tmp_path: Path) -> None:
    samples, script = read(tmp_path, printed(data))
    assert script.garbage == 0, script.first_garbage
    # each field alone, as perf prints it: nothing to be told apart
    alone = {
        name: [line.strip() for line in printed(data, "-G", "-F", name).splitlines()]
        for name in ("time", "tid", "event", "cpu", "comm")
    }
    assert len(samples) > 500
    assert [
        f"{each.time_ns // 1_000_000_000}.{each.time_ns // 1000 % 1_000_000:06d}:"
        for each in samples
        if each.time_ns is not None
    ] == alone["time"]
    assert [str(each.tid) for each in samples] == alone["tid"]
    assert [f"{each.event}:" for each in samples] == alone["event"]
    assert [f"[{each.cpu:03d}]" for each in samples] == alone["cpu"]
    assert [each.comm for each in samples] == alone["comm"]
    assert {"gcload", "an odd: na [0]"} <= {each.comm for each in samples}


def test_periods_and_processes(data: Path, tmp_path: Path) -> None:
    samples, script = read(tmp_path, printed(data, "--ns", "-F", "comm,pid,tid,cpu,time,event,period,ip,sym,dso"))
    assert script.garbage == 0, script.first_garbage
    fields = [line.split() for line in printed(data, "--ns", "-G", "-F", "pid,tid,time,period").splitlines()]
    expected = [[*pair.split("/"), time, period] for pair, time, period in fields if "/" in pair]
    assert len(expected) == len(fields)
    got = [
        [str(each.pid), str(each.tid), f"{each.time_ns // 10**9}.{each.time_ns % 10**9:09d}:", str(each.period)]
        for each in samples
        if each.time_ns is not None
    ]
    assert got == expected


def test_stacks(data: Path, tmp_path: Path) -> None:
    """Symbols and objects of every frame, against outputs that have only these."""
    samples, _ = read(tmp_path, printed(data))
    stacks = [
        [line.split(None, 1)[1] for line in chain] for _, chain in columns(printed(data, "-F", "tid,time,event,ip,sym"))
    ]
    modules = [
        [line.split(None, 1)[1] for line in chain] for _, chain in columns(printed(data, "-F", "tid,time,event,ip,dso"))
    ]
    assert [[each.function for each in sample.frames] for sample in samples] == [
        [name.removesuffix(" (inlined)") for name in stack] for stack in stacks
    ]
    for sample, names in zip(samples, modules, strict=True):
        shown = [f"({each.module})" if each.kind != INLINED else "(inlined)" for each in sample.frames]
        assert shown == [name.strip() for name in names]
    kernel = {each.function for sample in samples for each in sample.frames if each.kind == KERNEL}
    assert "do_syscall_64" in kernel or "el0_svc" in kernel
    assert not any(name.startswith(("runtime.", "main.")) for name in kernel)


SELECTIONS = (
    *("comm,pid,tid,cpu,time,event,trace", "+pid,+ip,+sym,+dso", "+misc", "tid,time,ip,sym", "comm,tid,ip,sym,dso"),
    *("comm,ip,sym", "comm,ip,sym,dso", "comm,event,ip,sym", "comm,cpu,ip,sym", "comm,event,period,ip,sym", "cpu,ip,sym"),
    *("event,ip,sym", "comm,tid,event,period,ip", "pid,tid,cpu,time,event"),
)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        *((fields, options) for fields in SELECTIONS for options in ((), ("-G",), ("--ns", "--header"))),
        *(("ip,sym,symoff", options) for options in ((), ("-G",))),
    ],
)
def test_every_selection_of_fields(data: Path, tmp_path: Path, fields: str, options: tuple[str, ...]) -> None:
    whole, _ = read(tmp_path, printed(data, "--ns"))
    samples, script = read(tmp_path, printed(data, *options, "-F", fields))
    assert script.garbage == 0, script.first_garbage
    if fields.startswith("ip,") and "-G" not in options:  # of a stack that could not be walked perf prints nothing at all
        whole = [each for each in whole if each.frames]
    assert len(samples) == len(whole)
    for number, (name, place) in enumerate({"tid": "tid", "event": "event", "cpu": "cpu", "comm": "comm"}.items()):
        if name in fields.split(",") or fields.startswith("+"):
            assert [getattr(each, place) for each in samples] == [getattr(each, place) for each in whole], number
    if "sym" in fields and "-G" not in options:
        assert [[f.function for f in each.frames] for each in samples] == [
            [f.function for f in each.frames] for each in whole
        ]


def test_the_command(data: Path, tmp_path: Path, gotrace: Gotrace) -> None:
    text, out = tmp_path / "perf-script.txt", tmp_path / "run.gotrace"
    text.write_text(printed(data, "--ns", "--header", "-F", "+pid,+ip,+sym,+dso") + "garb\x1b[31mage\n")
    samples, _ = read(tmp_path, text.read_text())
    done = gotrace("import", str(text), "-o", str(out))
    assert done.returncode == 0, done.stderr
    last = text.read_text().count("\n")
    assert f"1 of {last:,} lines could not be parsed; the first is line {last}: garb\\x1b[31mage" in done.stderr
    assert f"{len(samples):,} samples" in done.stderr
    again = gotrace("import", str(text), "-o", str(out))
    assert again.returncode == 1 and "--force" in again.stderr

    with Recording.open(str(out)) as recording:
        chunks = list(recording.chunks())
        end = recording.end
        kinds = {name: kind["number"] for name, kind in recording.header["probes"]["perf"]["kinds"].items()}
        rows = [row for chunk in chunks for row in chunk.events.tolist() if row[2] == kinds["sample"]]
        places: dict[int, dict[int, list[int]]] = {}
        for chunk in chunks:
            for row in chunk.events[chunk.events["kind"] == kinds["stack"]].tolist():
                places.setdefault(row[4], {})[row[5] & 0xFFFFFFFF] = list(row[6:])
        stacks = {
            number: recording.frames([address for at in sorted(parts) for address in parts[at] if address])
            for number, parts in places.items()
        }
        texts = {number: recording.text(number & ((1 << 48) - 1), number >> 48) for number in {row[6] for row in rows}}
    assert end is not None and end["perf"]["garbage"] == 1
    mask = 0xFFFFFFFF
    assert [(row[0], row[1], row[3], row[4], texts[row[6]], row[8]) for row in rows] == [
        (each.time_ns, (each.tid or 0) & mask, each.cpu, each.period or 1, each.event, (each.pid or 0) & mask)
        for each in samples  # perf says -1 of a thread that is just exiting
    ]
    # Whatever else ran on the machine may be stripped Go programs, which gotrace can name and perf cannot.
    compared = [(tuple(stacks.get(row[5], ())), each.frames) for row, each in zip(rows, samples, strict=True)]
    named = [pair for pair in compared if not any(f.function == "[unknown]" != f.module for f in pair[1])]
    assert len(named) > 500
    assert [ours for ours, _ in named] == [perfs for _, perfs in named]

    exported = gotrace("export", str(out), "-o", str(tmp_path / "run.ndjson"))
    assert exported.returncode == 0, exported.stderr
    lines = [json.loads(line) for line in (tmp_path / "run.ndjson").read_text().splitlines()]
    assert Counter(each["text"] for each in lines if each["type"] == "sample") == Counter(each.event for each in samples)


def test_filters(data: Path, tmp_path: Path, gotrace: Gotrace) -> None:
    text, out = tmp_path / "perf-script.txt", tmp_path / "run.gotrace"
    text.write_text(printed(data, "-F", "+pid,+ip,+sym,+dso"))
    samples, _ = read(tmp_path, text.read_text())
    pid = next(each.pid for each in samples if each.comm == "gcload")
    for options, count in (
        (["--comm", "an odd: na [0]"], sum(each.comm == "an odd: na [0]" for each in samples)),
        (["--pid", str(pid)], sum(each.pid == pid for each in samples)),
    ):
        done = gotrace("import", str(text), "-o", str(out), "--force", *options)
        assert done.returncode == 0 and re.search(rf"^{count:,} samples: ", done.stderr, re.M), done.stderr
    done = gotrace("import", str(text), "-o", str(out), "--force", "--comm", "nobody")
    assert done.returncode == 1 and not out.exists()
    text.write_text(printed(data))
    done = gotrace("import", str(text), "-o", str(out), "--pid", "1")
    assert done.returncode == 1 and "+pid" in done.stderr and not out.exists()


def test_no_sample_at_all(tmp_path: Path, gotrace: Gotrace) -> None:
    text, out = tmp_path / "perf-script.txt", tmp_path / "run.gotrace"
    text.write_bytes(b"nothing\n\xff\x00\n")
    for name, options in ((str(text), {}), ("-", {"stdin": subprocess.DEVNULL})):
        done = gotrace("import", name, "-o", str(out), **options)
        assert done.returncode == 1 and "no samples found" in done.stderr and not out.exists()
    assert gotrace("import", str(tmp_path / "absent"), "-o", str(out)).returncode == 1
    done = gotrace("import", str(text), "-o", str(text))
    assert done.returncode == 2 and text.read_bytes().startswith(b"nothing")


def test_durations(data: Path, tmp_path: Path, gotrace: Gotrace) -> None:
    """Time off the CPU and of system calls, against pairs made here from perf's own columns."""
    text, out = tmp_path / "perf-script.txt", tmp_path / "run.gotrace"
    text.write_text(printed(data, "--ns"))
    assert gotrace("import", str(text), "-o", str(out)).returncode == 0
    with Recording.open(str(out)) as recording:
        kind = recording.header["probes"]["perf"]["kinds"]["span"]["number"]
        rows = [row for chunk in recording.chunks() for row in chunk.events.tolist() if row[2] == kind]
        names = {row[5]: recording.text(row[5] & ((1 << 48) - 1), row[5] >> 48) for row in rows}
    got = {(row[1], row[4], row[0]) for row in rows if names[row[5]] == "off CPU"}
    away: dict[int, int] = {}
    expected = set()
    for line in printed(data, "--ns", "-F", "time,event,trace").splitlines():
        found = re.fullmatch(
            r" *(\d+)\.(\d{9}): +sched:sched_switch: .* prev_pid=(\d+) .* next_pid=(\d+) next_prio=\d+", line
        )
        if found is None:
            continue
        at, left, came = int(found[1] + found[2]), int(found[3]), int(found[4])
        if came in away:
            expected.add((came, away.pop(came), at))
        if left:
            away[left] = at
    # no span reaches across a gap, of which there are few
    assert got <= expected and len(got) >= 0.9 * len(expected) > 0
    # a flame graph of them holds their time
    folded = gotrace("flame", str(out), "--off-cpu", "--idle", "-o", "-", "--format", "folded").stdout.splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in folded) == sum(end - begin for _, begin, end in got)
    calls = Counter(names[row[5]] for row in rows if names[row[5]].startswith("syscall "))
    assert (
        set(calls) <= {"syscall 202", "syscall 98"} and sum(calls.values()) > 10 and all(row[0] >= row[4] for row in rows)
    )


@pytest.mark.bpf
def test_stops_of_the_world(tmp_path: Path, gotrace: Gotrace) -> None:
    """perf's uprobes on the runtime: as many stops as the runtime counted, and not longer than it says in sum, nearly."""
    from gotrace.run.span_histograms import write_histograms

    program = tmp_path / "gcload"
    shutil.copy(targets.build("gcload", flavour="default"), program)
    names = ("stopTheWorldWithSema", "startTheWorldWithSema")
    group = f"gotrace_{os.getpid()}"
    out = tmp_path / "perf.data"
    try:
        for name in names:
            perf("probe", "-q", "-x", program, f"{group}:{name}=runtime.{name}")
        record = ["perf", "record", "-q", "-o", str(out), "-e", f"{group}:*", "--", str(program), "-cycles", "40"]
        done = subprocess.run(record, input="\n", capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        truth = json.loads(done.stdout)
    finally:
        subprocess.run(["perf", "probe", "-q", "-d", f"{group}:*"], capture_output=True)
    (tmp_path / "perf-script.txt").write_text(printed(out, "--ns"))
    assert gotrace("import", str(tmp_path / "perf-script.txt"), "-o", str(tmp_path / "run.gotrace")).returncode == 0
    for format_ in ("hgrm", "hlog"):
        with Recording.open(str(tmp_path / "run.gotrace")) as recording, open(tmp_path / f"x.{format_}", "wb") as file:
            write_histograms(recording, file, format_, 10**9)
    shown = (tmp_path / "x.hgrm").read_text()
    assert shown.startswith("#[Tag: stop_the_world]\n")
    count = int(re.search(r"Total count    = +(\d+)", shown)[1])  # type: ignore[index]
    # two stops a cycle, and those for what the program reads of the runtime's statistics
    assert 2 * truth["NumGC"] <= count <= 2 * truth["NumGC"] + 10
    assert (tmp_path / "x.hlog").read_text().count("Tag=stop_the_world,") >= 1


def test_a_flame_graph_of_them(tmp_path: Path, gotrace: Gotrace) -> None:
    """Of a program that knows where its time went."""
    data, text, recording = (tmp_path / name for name in ("perf.data", "perf.txt", "run.gotrace"))
    program = [str(targets.build("burner", flavour="default")), "1"]
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-g", "-o", str(data), "--", *program]
    done = subprocess.run(command, input="\n", capture_output=True, text=True, timeout=60, check=True)
    truth = json.loads(done.stdout)
    fields = ["-F", "+pid,+ip,+sym,+dso,+period"]
    text.write_bytes(subprocess.run(["perf", "script", "-i", str(data), *fields], capture_output=True, check=True).stdout)
    done = gotrace("import", str(text), "-o", str(recording))
    assert done.returncode == 0, done.stderr
    done = gotrace("flame", str(recording), "-o", str(tmp_path / "x.folded"))
    assert done.returncode == 0 and "event cpu-clock" in done.stderr, done.stderr
    lines = [line.rpartition(" ") for line in (tmp_path / "x.folded").read_text().splitlines()]
    # perf knows no caller of a function without a frame record
    leaf = sum(int(weight) for stack, _, weight in lines if "main.leaf" in stack.split(";"))
    assert leaf == pytest.approx(truth["main.heavy"] + truth["main.light"], rel=0.15)
    done = gotrace("flame", str(recording), "--off-cpu", "-o", str(tmp_path / "y.svg"))
    assert done.returncode == 1 and "no off-cpu stacks: perf recorded no context switches" in done.stderr
    for options in (["--window", "stw"], ["--straggler"]):
        done = gotrace("flame", str(recording), *options, "-o", str(tmp_path / "y.svg"))
        assert done.returncode == 1 and "has no GC events" in done.stderr, done.stderr


@pytest.mark.parametrize("options", [[], ["--show-mmap-events"], ["-G", "--show-mmap-events"]], ids=" ".join)
@pytest.mark.parametrize("flavour", ["stripped", "pie-stripped"])
def test_a_stripped_program(flavour: str, options: list[str], tmp_path: Path, gotrace: Gotrace) -> None:
    """perf has no name for any of its functions; its own table has, and it knows where its time went."""
    data, text, recording, program = (tmp_path / name for name in ("perf.data", "perf.txt", "run.gotrace", "burner"))
    shutil.copy(targets.build("burner", flavour=flavour), program)
    record = ["-q", "-e", "cpu-clock", "-F", "997", "-g", "-o", data, "--", program, "1"]
    done = subprocess.run(["perf", "record", *record], input="\n", capture_output=True, text=True, timeout=60, check=True)
    truth = json.loads(done.stdout)
    text.write_text(perf("script", "-i", data, "-F", "+pid,+ip,+sym,+dso,+period", *options))
    assert " main.leaf" not in text.read_text() and f"[unknown] ({program})" in text.read_text()

    def leaves() -> int:
        done = gotrace("import", str(text), "--comm", "burner", "-o", str(recording), "--force")
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
        stacks = gotrace("flame", str(recording), "-o", "-", "--format", "folded").stdout
        weights = [line.rpartition(" ") for line in stacks.splitlines()]
        return sum(int(weight) for stack, _, weight in weights if "main.leaf" in stack.split(";"))

    said: list[str] = []
    assert leaves() == pytest.approx(truth["main.heavy"] + truth["main.light"], rel=0.15)
    assert f"in {program} named from its function table as it is now: perf printed no build id" in said[0]
    if not options:
        return
    # where perf knows the build id: of processes that had begun before, and from the kernel of programs with cgo
    notes = subprocess.run(["readelf", "-n", program], capture_output=True, text=True, check=True).stdout
    build_id = re.search(r"Build ID: ([0-9a-f]{40})", notes)
    assert build_id is not None
    shown, count = re.subn(rf"(@ 0) [^]]*(\]: r-xp {program})", rf"\1 <{build_id[1]}>\2", text.read_text())
    assert count
    text.write_text(shown)
    assert leaves() == pytest.approx(truth["main.heavy"] + truth["main.light"], rel=0.15)
    assert f"in {program} named from its function table: its build id is the recorded one" in said[1]
    # another program at the same path
    program.unlink()
    shutil.copy(targets.build("gcload", flavour="stripped"), program)
    assert leaves() == 0
    assert f"{program} is a different build from the recorded one" in said[2]


def test_histograms_of_it(data: Path, tmp_path: Path, gotrace: Gotrace) -> None:
    """Read by hdrh: as many times off the CPU as the recording has, by the name of what took the time."""
    from hdrh.log import HistogramLogReader

    (tmp_path / "perf.txt").write_text(printed(data, "--ns"))
    recording = tmp_path / "run.gotrace"
    assert gotrace("import", str(tmp_path / "perf.txt"), "-o", str(recording)).returncode == 0
    for ending in ("hlog", "hgrm", "parquet"):
        done = gotrace("export", str(recording), "-o", str(tmp_path / f"run.{ending}"))
        assert done.returncode == 0, done.stderr
    from hdrh.histogram import HdrHistogram

    reader = HistogramLogReader(str(tmp_path / "run.hlog"), HdrHistogram(1, 3_600_000_000_000, 3))
    counts: Counter[str] = Counter()
    while (found := reader.get_next_interval_histogram()) is not None:
        counts[found.get_tag()] += found.get_total_count()
    import duckdb

    query = f"select text, count(*) from '{tmp_path}/run.parquet' where type = 'span' group by text"
    spans = dict(duckdb.sql(query).fetchall())
    assert sorted(counts.values()) == sorted(spans.values()) and sum(counts.values()) > 20
    assert "Total count" in (tmp_path / "run.hgrm").read_text()
    done = gotrace("report", str(recording))
    assert done.returncode == 1 and "has no GC events" in done.stderr
