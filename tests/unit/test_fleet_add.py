"""What is in a fleet after files were added: equal to the values themselves, once, and whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reports as made
from hypothesis import given, settings
from hypothesis import strategies as st
from spools import BEGIN_NS, MINUTE_NS, Written

from gotrace.agent.families import STW
from gotrace.analysis.exponential import buckets_of
from gotrace.api import replaying
from gotrace.errors import GotraceError, UsageError
from gotrace.fleet.add import Outcome, add
from gotrace.fleet.database import answered, opened
from gotrace.fleet.machines import Told
from gotrace.fleet.percentiles import merged
from gotrace.fleet.prices import read, stored
from gotrace.fleet.store import SEAL, adding, sources_in
from gotrace.recording.reader import Recording
from gotrace.run.starts import replayed
from gotrace.views.gc import Gc

RECORDINGS = Path(__file__).parents[1] / "testdata" / "recordings"
NOBODY = Told()


def written(folder: Path, report: dict[str, Any], name: str = "report.json") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(report))
    return str(folder)


def report(seed: int = 1, **host: Any) -> dict[str, Any]:
    found = made.report({"old": {}}, runs=2, seed=seed, host=host)
    for run in found["runs"]:
        run.setdefault("time", "2026-11-29T12:00:01.250000000Z")
        run["recording"] = ""
        run["load"]["percentiles_are"] = "exact"
    return found


def kinds(outcomes: list[Outcome]) -> list[str]:
    return ["skipped" if each.skipped else each.kind or f"refused: {each.problem}" for each in outcomes]


def test_a_recording_has_what_its_records_have(tmp_path: Path) -> None:
    """The pauses of `gotrace report`, one by one."""
    path = str(RECORDINGS / "all.gotrace")
    assert kinds(add(str(tmp_path / "fleet"), [path], NOBODY)) == ["recording"]
    database = opened(str(tmp_path / "fleet"))
    records = list(replaying(path, Gc()))
    pauses = [each for each in records if each["type"] == "stw"]
    for part in ("total", "stopping", "stopped"):
        values = np.array([each[f"{part}_ns"] for each in pauses])
        (row,) = database.rows(
            "select sum(count), sum(sum_ns), max(max_ns), min(min_ns) from total where metric = ?", f"stw.{part}"
        )
        assert row == (len(values), values.sum(), values.max(), values.min())
        found = database.rows(
            "select bucket, sum(n)::bigint from hist where metric = ? group by 1 order by 1", f"stw.{part}"
        )
        assert found == list(zip(*(each.tolist() for each in buckets_of(values)), strict=True))
        longest = database.rows("select value_ns from worst where metric = ? order by 1 desc", f"stw.{part}")
        assert [each for (each,) in longest] == sorted(values.tolist(), reverse=True)[:16]
    explained = database.rows(
        "select cause, len(stack) > 0 from worst where metric = 'stw.total' order by value_ns desc limit 1"
    )
    (first,) = (each for each in replaying(path, Gc(explained=1)) if each["type"] == "explained")
    assert explained == [(first["cause"], True)]
    cycles = [each for each in records if each["type"] == "cycle"]
    assert database.rows("select count, sum_ns from total where metric = 'gc.mark'") == [
        (len(cycles), sum(each["mark_ns"] for each in cycles))
    ]


def test_starts_and_memory(tmp_path: Path) -> None:
    paths = [str(RECORDINGS / f"{name}.gotrace") for name in ("coldstart", "mem")]
    assert kinds(add(str(tmp_path), paths, NOBODY)) == ["recording", "recording"]
    database = opened(str(tmp_path))
    with Recording.open(paths[0]) as source:
        starts = replayed(source).starts
    looks = [each for each in replaying(paths[1]) if each["type"] == "memory"]
    (parts,) = database.rows("select sum(value) from value where metric like 'rss.part.%'")
    (rss,) = database.rows("select value from value where metric = 'rss.mean'")
    assert parts[0] == pytest.approx(rss[0]) == pytest.approx(np.mean([each["rss_bytes"] for each in looks]))
    stages = dict(database.rows("select start_ns, value from value where metric = 'start.exec' order by 1"))
    assert list(stages.values()) == [
        row.duration_ns for start in starts for row in start.rows if (row.stage, row.depth) == ("exec", 0)
    ]
    lengths = database.rows("select length_ns from run where service = 'starter' order by start_ns")
    assert [each for (each,) in lengths] == [start.total_ns for start in starts]


def test_what_of_our_own_may_be_below_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heap that was read between two updates of the counters, and a program that executed another while tracing began."""
    look = {"type": "memory", "rss_bytes": 5, "amplification": None, "parts": {"heap": 5}}
    looks = [{**look, "counters": {"heap_alloc": heap}} for heap in (-800, 0, 100, 300)]
    end = property(lambda _: {"duration_ns": -7, "lost": 0}, lambda *_: None)
    monkeypatch.setattr("gotrace.api.replaying", lambda *_: iter(looks))
    monkeypatch.setattr(Recording, "end", end, raising=False)
    assert kinds(add(str(tmp_path / "f"), [str(RECORDINGS / "mem.gotrace")], NOBODY)) == ["recording"]
    database = opened(str(tmp_path / "f"))
    assert database.rows("select heap_bytes, length_ns from period") == [(200, 0)]
    assert database.rows("select length_ns from run") == [(0,)]


def test_a_report_has_its_metrics_and_latencies(tmp_path: Path) -> None:
    one = report(instance="c7g.large")
    assert kinds(add(str(tmp_path / "f"), [written(tmp_path / "r", one)], Told(host_name="a", provider="aws"))) == [
        "baseline"
    ]
    database = opened(str(tmp_path / "f"))
    for number, run in enumerate(one["runs"]):
        values = dict(database.rows("select metric, value from value where run like ?", f"%:{number}"))
        assert values == {name: value for name, value in run["metrics"].items() if value is not None}
    loads = [run["load"]["histogram"] for run in one["runs"]]
    raw = np.sort(np.concatenate([np.repeat(each["value_ns"], each["count"]) for each in loads]))
    (found,) = merged(database, "latency", ["host", "vendor", "type"], [50, 99, 99.9, 100])
    assert found.group == ("a", "aws", "c7g.large") and found.count == len(raw)
    for value, percent in zip(found.values_ns, (50, 99, 99.9, 100), strict=True):
        true = raw[max(0, int(np.ceil(round(percent / 100 * len(raw), 6))) - 1)]
        assert abs(value / true - 1) <= 0.011
    assert found.values_ns[-1] == raw[-1] and found.exact[-1]


def test_twice_is_once_and_what_is_refused_keeps_nothing_out(tmp_path: Path) -> None:
    folder, good = str(tmp_path / "f"), written(tmp_path / "good", report())
    newer = written(tmp_path / "newer", {**report(), "schema": "gotrace.baseline/9"})
    damaged = written(tmp_path / "damaged", {**report(), "runs": [{"version": "old"}]})
    odd = written(tmp_path / "odd", {**report(), "host": {"host_class": "x"}})
    (tmp_path / "text").write_text("no recording\n")
    cut = tmp_path / "cut.gotrace"
    cut.write_bytes((RECORDINGS / "gc.gotrace").read_bytes()[:-20_000])
    large = report()
    large["runs"][0]["load"]["histogram"]["count"][0] = 1 << 63
    paths = [newer, damaged, str(tmp_path / "text"), str(tmp_path / "none"), good, str(cut), odd]
    paths.append(written(tmp_path / "large", large))
    found = add(folder, paths, NOBODY)
    assert [bool(each.problem) for each in found] == [True] * 4 + [False] * 3 + [True], kinds(found)
    assert "gotrace.baseline/9" in found[0].problem and "damaged" in found[1].problem and "damaged" in found[7].problem
    assert found[5].notes and "truncated" in found[5].notes[-1]
    copy = written(tmp_path / "copy", report())
    assert kinds(add(folder, [good, copy, str(cut)], NOBODY)) == ["skipped"] * 3
    assert opened(folder).rows("select count(*) from source")[0][0] == 3


def test_a_spool_that_grows_is_read_from_where_it_was(tmp_path: Path) -> None:
    spool, folder = Written(tmp_path / "spool"), str(tmp_path / "f")
    for _ in range(3):
        spool.minute()
    assert kinds(add(folder, [str(spool.folder)], NOBODY)) == ["spool"]
    (segment,) = spool.folder.iterdir()
    assert kinds(add(folder, [str(spool.folder), str(segment)], NOBODY)) == ["skipped"] * 2
    spool.minute()
    with open(segment, "ab") as file:
        file.write(b'{"schema": "gotrace.spool/1", "cut')  # its agent was killed
    assert kinds(add(folder, [str(spool.folder)], NOBODY)) == ["spool"]
    database = opened(folder)
    raw = np.sort(np.concatenate(spool.values))
    assert database.rows("select count(*), count(distinct start_ns) from period") == [(4, 4)]
    found = database.rows("select bucket, sum(n)::bigint from merged where metric = 'stw.total' group by 1 order by 1")
    assert found == list(zip(*(each.tolist() for each in buckets_of(raw)), strict=True))
    (both,) = merged(database, "stw.total", ["host", "service", "version"], [50, 99, 99.9, 100])
    assert both.group == ("web-1", "shop", "1.2") and both.values_ns[-1] == raw[-1]
    assert database.rows("select distinct cpus, cpu, kernel from machine") == [(4, "EPYC", "6.1")]
    (marks,) = merged(database, "gc.mark", [], [100])  # of which the longest are not kept
    assert not marks.exact[0] and abs(marks.values_ns[0] / (3 * raw[-1]) - 1) <= 0.011


@settings(max_examples=20, deadline=None)
@given(
    hosts=st.lists(st.lists(st.integers(0, 10**10), min_size=1, max_size=60), min_size=1, max_size=4),
    percent=st.sampled_from([0.0, 50.0, 90.0, 99.0, 99.9, 100.0]),
)
def test_percentiles_of_hosts_together_are_those_of_all_values(
    hosts: list[list[int]], percent: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fleet")
    paths = []
    for number, values in enumerate(hosts):
        spool = Written(folder / f"spool{number}", f"web-{number}")
        spool.window.add(STW, ("x", "total"), np.array(values))
        for value in values:
            spool.window.note(value, BEGIN_NS, "x", 1)
        _end(spool)
        paths.append(str(spool.folder))
    add(str(folder / "f"), paths, NOBODY)
    (found,) = merged(opened(str(folder / "f")), "stw.total", [], [percent])
    raw = np.sort(np.concatenate(hosts))
    rank = max(1, int(np.ceil(round(percent / 100 * len(raw), 6))))
    true = raw[rank - 1]
    assert found.count == len(raw) and found.hosts == len(hosts)
    if len(raw) - rank < 16:
        assert found.exact[0] and found.values_ns[0] == true
    else:
        assert abs(found.values_ns[0] - true) <= max(1, 0.011 * true)


def _end(spool: Written) -> None:
    about = {"host": {"name": spool.host, "kernel": "6.1", "machine": "x86_64"}, "labels": {}, "processes": 1}
    spool.spool.write([{**about, **spool.window.ended(BEGIN_NS + MINUTE_NS)}])
    spool.spool.close()


def test_a_log_of_ours(tmp_path: Path) -> None:
    """Bucket by bucket what hdrh says of it."""
    from hdrh.histogram import HdrHistogram

    path = tmp_path / "x.hlog"
    command = [sys.executable, "-m", "gotrace.cli", "export", str(RECORDINGS / "gc.gotrace"), "-o", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert "neither its service" in add(str(tmp_path / "f"), [str(path)], NOBODY)[0].problem
    assert kinds(add(str(tmp_path / "f"), [str(path)], Told(host_name="a", service="s"))) == ["hlog"]
    theirs = HdrHistogram(1, 3_600_000_000_000, 3)
    for line in path.read_text().splitlines():
        if line.startswith("Tag=") and ".total," in line:
            theirs.decode_and_add(line.rpartition(",")[2])
    database = opened(str(tmp_path / "f"))
    assert database.rows("select sum(count) from total where metric = 'stw.total'") == [(theirs.get_total_count(),)]
    (found,) = merged(database, "stw.total", ["host"], [50, 99])
    for value, percent in zip(found.values_ns, (50, 99), strict=True):
        assert abs(value / theirs.get_value_at_percentile(percent) - 1) <= 0.012
    (tmp_path / "y.hlog").write_text("#[StartTime: 1]\n")
    assert "nanoseconds" in add(str(tmp_path / "f"), [str(tmp_path / "y.hlog")], Told("a", "s"))[0].problem
    (tmp_path / "z.hlog").write_text("#[comment: values are nanoseconds]\n1.0,1.0,1.0,garbage\n1.2.3,1.0,1.0,HISTF\n")
    assert "no intervals" in add(str(tmp_path / "f"), [str(tmp_path / "z.hlog")], Told("a", "s"))[0].problem


KILLED = """
import sys, time
from gotrace.fleet.store import adding
with adding(sys.argv[1]) as addition:
    for number in range(1 << 20):
        addition.add_columns("hist", {"bucket": list(range(1000)), "n": 1, "host": "b", "start_ns": 1780 * 10**15})
        if number % 100 == 0:
            print(number, flush=True)
"""


def test_who_is_killed_has_added_nothing_and_two_do_not_add_at_once(tmp_path: Path) -> None:
    folder = str(tmp_path / "f")
    add(folder, [written(tmp_path / "r", report())], NOBODY)
    before = opened(folder).rows("select count(*), sum(n) from hist")
    with subprocess.Popen([sys.executable, "-c", KILLED, folder], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) < 300:  # a part of it is on the disk
            pass
        assert list(Path(folder).glob("hist/*/.*.part"))
        with pytest.raises(GotraceError, match="another gotrace is writing"):
            add(folder, [str(tmp_path / "r")], NOBODY)
        assert opened(folder).rows("select count(*), sum(n) from hist") == before
        child.kill()
    assert opened(folder).rows("select count(*), sum(n) from hist") == before
    add(folder, [written(tmp_path / "r2", report(seed=2))], NOBODY)
    assert not list(Path(folder).glob("*/*/.*.part"))
    assert opened(folder).rows("select count(distinct source) from hist") == [(2,)]


def test_who_is_killed_while_names_are_given(tmp_path: Path) -> None:
    """The journal says what has been added: it is there at once, and the next that comes gives the other names."""
    folder = str(tmp_path / "f")
    with adding(folder) as addition:
        addition.add("run", [{"host": "a", "start_ns": BEGIN_NS}])
    renaming = "import os, signal, sys\nfrom gotrace.fleet import store\nreal, count = os.rename, []\n" + (
        "def rename(a, b):\n    real(a, b)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.rename = rename\nwith store.adding(sys.argv[1]) as addition:\n"
        "    for table in ('run', 'value'):\n        addition.add(table, [{'host': 'b', 'start_ns': 1}])\n"
    )
    done = subprocess.run([sys.executable, "-c", renaming, folder], timeout=60)
    assert done.returncode == -signal.SIGKILL and list(Path(folder).glob("*/*/.*.part"))
    hosts = "select host from run union all select host from value order by 1"
    assert opened(folder).rows(hosts) == [("a",), ("b",), ("b",)]
    with adding(folder):
        pass
    assert opened(folder).rows(hosts) == [("a",), ("b",), ("b",)] and not list(Path(folder).glob("*/*/.*.part"))


def test_a_full_disk_adds_nothing(tmp_path: Path) -> None:
    code = "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n" + (
        "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from gotrace.cli.main import main\nmain(sys.argv[1:])\n"
    )
    words = [sys.executable, "-c", code, "fleet", "add", str(tmp_path / "f"), written(tmp_path / "r", report())]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "this step changed nothing" in done.stderr and "Traceback" not in done.stderr
    assert opened(str(tmp_path / "f")).rows("select count(*) from source") == [(0,)]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("select * from nope", "nope"),
        ("selec 1", "syntax error"),
        ("select * from read_text('/etc/passwd')", "disabled"),
        ("select * from '/etc/passwd'", "/etc/passwd"),
        ("copy (select 1) to '/tmp/gotrace-fleet-x'", "not a single query"),
        ("copy (select 1) to 'fleet.json'", "not a single query"),
        ("attach '/tmp/gotrace-fleet.db' as x", "not a single query"),
        ("set enable_external_access = true", "not a single query"),
        ("install httpfs", "not a single query"),
        ("select 1; select 2", "not a single query"),
        ("", "not a single query"),
    ],
)
def test_a_question_touches_nothing_else(query: str, words: str, tmp_path: Path) -> None:
    add(str(tmp_path), [str(RECORDINGS / "mem.gotrace")], NOBODY)
    with pytest.raises(UsageError, match=words):
        answered(opened(str(tmp_path)), query)


def test_the_commands(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gotrace.cli", "fleet", *words], capture_output=True, text=True, timeout=60
        )

    folder = str(tmp_path / "f")
    done = run("add", folder, str(RECORDINGS / "gc.gotrace"), str(RECORDINGS / "perf.gotrace"))
    assert (done.returncode, done.stdout) == (
        3,
        "added 1 recording; 1 refused\n",
    ) and "perf.gotrace: refused" in done.stderr
    assert run("add", folder, str(RECORDINGS / "gc.gotrace")).stdout == "nothing added; 1 already there\n"
    done = run("sql", folder, "select service, sum(count) as pauses from total where metric = 'stw.total' group by 1")
    pauses = sum(each["type"] == "stw" for each in replaying(str(RECORDINGS / "gc.gotrace"), Gc()))
    assert done.stdout.split() == ["service", "pauses", "gcload", str(pauses)]
    assert json.loads(run("sql", folder, "select 1 as one, 'a' as b", "--format", "json").stdout) == [{"one": 1, "b": "a"}]
    assert run("sql", folder, "select 1 as one, null as b", "--format", "csv").stdout == "one,b\n1,\n"
    assert run("sql", str(tmp_path), "select 1").returncode == 2
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / f"{1:019}.ndjson").touch()
    (tmp_path / "spool" / f"{2:019}.ndjson").write_text('{"schema": "gotrace.spool/1"')
    done = run("add", folder, str(tmp_path / "spool"))
    assert (done.returncode, done.stdout) == (0, "nothing added; 2 not complete yet\n")
    assert "1.ndjson: it has no complete line yet" in done.stderr
    done = run("add", folder, str(tmp_path / "spool"), str(RECORDINGS / "gc.gotrace"))
    assert done.stdout == "nothing added; 1 already there; 2 not complete yet\n"
    broken = next(Path(folder).glob("run/*/*.parquet"))
    broken.write_bytes(b"PAR1 no")
    done = run("sql", folder, "select count(*) as n from run")
    assert done.returncode == 3 and done.stdout.split() == ["n", "0"] and "skipped" in done.stderr


def test_memory_stays_and_many_are_added_soon(tmp_path: Path) -> None:
    """100 reports: a tenth of what the bound of 20 s and 500 MB is for."""
    paths = [written(tmp_path / str(number), report(seed=number)) for number in range(100)]
    code = (
        "import sys\nfrom gotrace.fleet.add import add\nfrom gotrace.fleet.machines import Told\n"
        "add(sys.argv[1], sys.argv[2:], Told())\nprint(*[x.split()[1] for x in open('/proc/self/status') if 'HWM' in x])"
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f"), *paths], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000 and time.monotonic() - begun < 15
    assert opened(str(tmp_path / "f")).rows("select count(*) from run") == [(200,)]
    shutil.rmtree(tmp_path / "f")
    assert os.path.exists(paths[0])


def test_a_segment_under_another_name_is_the_same(tmp_path: Path) -> None:
    spool, folder = Written(tmp_path / "spool"), str(tmp_path / "f")
    spool.minute()
    (segment,) = spool.folder.iterdir()
    copy = tmp_path / "web-1.ndjson"
    shutil.copy(segment, copy)
    assert kinds(add(folder, [str(segment), str(copy)], NOBODY)) == ["spool", "skipped"]


def test_a_damaged_line_costs_no_other(tmp_path: Path) -> None:
    """Whatever is in it: of a line in the middle every value in turn is replaced."""
    spool = Written(tmp_path / "spool")
    for _ in range(2):
        spool.minute(count=3)
    first, last = next(spool.folder.iterdir()).read_bytes().splitlines(keepends=True)
    lines = [b"{", b"\0\0\0", b"[" * 100_000, b"5", b"\xff"]
    for odd in (None, -1, 1 << 70, 1.5, "x", "\ud800", [], {}, True):
        lines += [json.dumps(each).encode() for each in _replaced(json.loads(first), odd)]
    (tmp_path / "odd.ndjson").write_bytes(first + b"".join(each + b"\n" for each in lines) + last + b'{"cut')
    (found,) = add(str(tmp_path / "f"), [str(tmp_path / "odd.ndjson")], NOBODY)
    assert found.kind == "spool" and "damaged lines left out" in found.notes[0]
    database = opened(str(tmp_path / "f"))
    good = database.rows(
        "select count(*) from period where host = 'web-1' and start_ns in (?, ?)", BEGIN_NS, BEGIN_NS + MINUTE_NS
    )
    assert good[0][0] >= 2 and database.rows("select list_contains(notes, ?) from source", found.notes[0]) == [(True,)]
    (tmp_path / "all.ndjson").write_bytes(b'{"schema": "gotrace.spool/1"}\n')
    (tmp_path / "none.ndjson").write_bytes(first[:100])
    bad, none = add(str(tmp_path / "g"), [str(tmp_path / "all.ndjson"), str(tmp_path / "none.ndjson")], NOBODY)
    assert "damaged" in bad.problem and none.skipped and "complete" in none.notes[0]


def test_what_cannot_be_is_damage(tmp_path: Path) -> None:
    """Sizes and counts below 0, and names longer than any real one; a skewed clock may be behind."""
    spool = Written(tmp_path / "spool")
    spool.minute()
    good = json.loads(next(spool.folder.iterdir()).read_bytes())
    host, labels, (pauses, *more) = good["host"], good["labels"], good["histograms"]
    bad = [
        *({**good, name: -5} for name in ("rss_bytes", "heap_bytes", "live_bytes", "goal_bytes", "lost", "processes")),
        {**good, "histograms": [{**pauses, "count": -1}, *more]},
        {**good, "histograms": [{**pauses, "buckets": [[1], [-1]]}, *more]},
        {**good, "worst": [{**good["worst"][0], "length_ns": -1}]},
        {**good, "host": {**host, "made_of": {"cpus": -4}}},
        *({**good, "host": {**host, "name": "a" * length}} for length in (1025, 100_000)),
        {**good, "host": {**host, "kernel": "6" * 5000}},
        {**good, "labels": {**labels, "service.name": "a" * 1025}},
        {**good, "version": "1" * 1025},
    ]
    longest = {**good, "host": {**host, "name": "a" * 1024}, "labels": {"service.name": "b" * 1024}}
    path, folder = tmp_path / "odd.ndjson", str(tmp_path / "f")
    path.write_text("".join(json.dumps(each) + "\n" for each in (good, *bad, longest)))
    (found,) = add(folder, [str(path)], NOBODY)
    assert found.notes == (f"{len(bad)} damaged lines left out",)
    assert opened(folder).rows("select host, service from period order by all") == [
        ("a" * 1024, "b" * 1024),
        ("web-1", "shop"),
    ]
    for name in ("host_name", "service", "version", "provider", "instance"):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is longer than 1024"):
            Told(**{name: "a" * 1025})


def _replaced(value: Any, odd: Any) -> Any:
    """Copies of a value in which one part is ``odd``."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            for inner in _replaced(value[key], odd):
                copy = value.copy()
                copy[key] = inner
                yield copy
    yield odd


@pytest.mark.parametrize("data", ["", "{\n", "\0", "\0" * 28, "[" * 100_000])
def test_a_damaged_fleet_json_is_no_other_version(data: str, tmp_path: Path) -> None:
    """And what the hint says to do mends it."""
    folder, file = tmp_path / "my fleet", str(RECORDINGS / "gc.gotrace")
    add(str(folder), [file], NOBODY)
    (about := folder / "fleet.json").write_text(data)
    with pytest.raises(GotraceError, match=f"{about} is damaged") as read:
        opened(str(folder))
    with pytest.raises(GotraceError, match=f"{about} is damaged"):
        add(str(folder), [file], NOBODY)
    subprocess.run(read.value.hint.partition(": ")[2], shell=True, check=True)
    assert kinds(add(str(folder), [file], NOBODY)) == ["skipped"]
    about.write_text('{"schema": "gotrace.fleet/2"}')
    with pytest.raises(UsageError, match="different version"):
        opened(str(folder))


@pytest.mark.parametrize("data", ['{"defaultNamespace": "x"}', "[]", "7", "null", '{"schema": 1}', '{"schema": ""}'])
def test_a_fleet_json_of_another_program_is_not_to_be_overwritten(data: str, tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text(data)
    for use in (opened, lambda folder: add(folder, [str(RECORDINGS / "gc.gotrace")], NOBODY)):
        with pytest.raises(UsageError, match=r"is no fleet: its fleet\.json is another program's") as refused:
            use(str(tmp_path))
        assert "echo" not in refused.value.hint
    assert [each.name for each in tmp_path.iterdir()] == ["fleet.json"]


def test_what_mends_a_fleet_json_is_no_command_where_it_might_do_harm(tmp_path: Path) -> None:
    """Without our tables beside it, it may be another program's; and a path that is shown escaped is another one."""
    for folder in (tmp_path / "theirs", tmp_path / "a\nb"):
        folder.mkdir()
        (folder / "fleet.json").write_text("{")
        with pytest.raises(GotraceError, match="damaged") as read:
            opened(str(folder))
        assert "echo" not in read.value.hint and "fleet add" in read.value.hint
    (folder / "run" / "date=2026-11-30").mkdir(parents=True)
    with pytest.raises(GotraceError, match="damaged") as read:
        opened(str(folder))
    content = read.value.hint.partition(": ")[2]
    assert "echo" not in read.value.hint and json.loads(content) == {"schema": "gotrace.fleet/1"}


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff")
    path = tmp_path / f"{name}.gotrace"
    shutil.copy(RECORDINGS / "gc.gotrace", path)
    folder = str(tmp_path / "f")
    assert kinds(add(folder, [str(path)], Told(host_name=name, service=name))) == ["recording"]
    assert opened(folder).rows("select host, service from run where host = ?", name) == [("a\\udcff", "a\\udcff")]
    assert answered(opened(folder), f"select '{name}'").rows == [("a\\udcff",)]
    with pytest.raises(UsageError, match="not a UTF-8 name"):
        add(str(tmp_path / name), [str(path)], NOBODY)


def test_where_no_fleet_can_be_made_none_is_begun(tmp_path: Path) -> None:
    folder, file = str(tmp_path / "f"), str(RECORDINGS / "gc.gotrace")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(GotraceError, match="File too large"):
            add(folder, [file], NOBODY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kinds(add(folder, [file], NOBODY)) == ["recording"]
    with pytest.raises(UsageError, match="not empty"):
        add(str(RECORDINGS), [], NOBODY)


def test_prices_are_added_too(tmp_path: Path) -> None:
    file, empty = tmp_path / "prices.csv", tmp_path / "empty"
    file.write_text(
        "\ufeffprovider,instance,region,per_hour,currency,date,origin\naws,c7g.large,eu,0.07,USD,2026-11-01,list\n"
    )
    empty.write_text("")
    found = add(str(tmp_path / "f"), [str(file), str(file), str(empty)], NOBODY)
    assert kinds(found) == ["prices", "skipped", "refused: it is empty"]
    assert stored(opened(str(tmp_path / "f"))) == read(str(file)) != []


def test_damaged_files_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "f"
    add(str(folder), [str(RECORDINGS / "gc.gotrace")], NOBODY)
    (worst,), (source,) = (list(folder.glob(f"{table}/*/*.parquet")) for table in ("worst", "source"))
    shutil.copy(source, other := worst.with_name("other.parquet"))
    worst.rename(aside := tmp_path / "aside")
    database = opened(str(folder))  # of another table
    assert [file for file, _ in database.broken] == [str(other)] and database.rows("from worst") == []
    other.unlink()
    whole = aside.read_bytes()
    worst.write_bytes(whole[:4] + b"\xff" * 300 + whole[304:])  # its end, where its columns are listed, is whole
    for query in (lambda of: of.rows("from worst"), lambda of: answered(of, "from worst")):
        with pytest.raises(GotraceError, match=f"{worst} is damaged"):
            query(opened(str(folder)))
    for data in (b"", b"PAR1", source.read_bytes()[:-9]):  # what was added cannot be known
        source.write_bytes(data)
        with pytest.raises(GotraceError, match="says what was added"):
            add(str(folder), [str(RECORDINGS / "gc.gotrace")], NOBODY)
    assert "panicked" not in capfd.readouterr().err


def test_a_list_of_sources_with_one_bit_flipped(tmp_path: Path) -> None:
    """Of the metadata, for which the format has no checksum: the library would panic, or allocate any amount of memory."""
    folder = tmp_path / "f"
    add(str(folder), [str(RECORDINGS / "gc.gotrace")], NOBODY)
    (source,) = folder.glob("source/*/*.parquet")
    whole = source.read_bytes()
    known = sources_in(str(folder))
    for bit in range(8 * 4, 8 * len(whole), 7):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        source.write_bytes(flipped)
        if whole.find(SEAL) <= bit // 8 < whole.find(SEAL) + len(SEAL):  # where the checksum is expected
            assert sources_in(str(folder)) == known
            continue
        with pytest.raises(GotraceError, match="says what was added"):
            sources_in(str(folder))


def test_a_value_that_looks_like_the_checksum(tmp_path: Path) -> None:
    """In the metadata too, among the least and largest values."""
    folder, value = str(tmp_path / "f"), int.from_bytes(SEAL, "little")
    with adding(folder) as addition:
        addition.add("source", [{"source": "one", "path": "p", "upto_bytes": 3, "first_ns": value, "added_ns": 1}])
    (file,) = (tmp_path / "f").glob("source/*/*.parquet")
    whole = file.read_bytes()
    assert whole.count(SEAL) > 1
    assert sources_in(folder) == {"one": (3, "p")}
    for at in (whole.rindex(SEAL) + len(SEAL), len(whole) - 8, len(whole) - 5):  # behind it, and how long the metadata is
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(GotraceError, match="says what was added"):
            sources_in(folder)


def test_damage_that_the_engine_has_no_words_for(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    add(str(folder), [str(RECORDINGS / "gc.gotrace")], NOBODY)
    (source,) = folder.glob("source/*/*.parquet")
    data = bytearray(source.read_bytes())
    data[data.index(b"\x04kind") + 1] |= 0x80  # the name of a column is not UTF-8
    source.write_bytes(data)
    assert [file for file, _ in opened(str(folder)).broken] == [str(source)]


@pytest.mark.parametrize(
    "journal",
    [[], {}, {"replaced": 1, "renamed": []}, {"replaced": ["../out"], "renamed": []}, {"replaced": [], "renamed": [[1]]}],
)
def test_a_journal_that_is_none_of_ours_moves_nothing(tmp_path: Path, journal: object) -> None:
    folder, out = tmp_path / "f", tmp_path / "out"
    out.touch()
    add(str(folder), [], NOBODY)
    (folder / ".adding").write_text(json.dumps(journal))
    assert opened(str(folder)).rows("from source") == []
    assert kinds(add(str(folder), [str(RECORDINGS / "gc.gotrace")], NOBODY)) == ["recording"]
    assert out.exists()


def test_sql_that_would_write(tmp_path: Path) -> None:
    folder = str(tmp_path / "f")
    add(folder, [str(RECORDINGS / "gc.gotrace")], NOBODY)
    there = sorted((tmp_path / "f").rglob("*"))
    for copy in (
        f"copy (select 1) to '{folder}/x.parquet'",
        f"copy run to '{next(each for each in there if each.suffix)}'",
    ):
        for query in (copy, f"explain analyze {copy}", f"explain (analyze) {copy}", f"select 1; {copy}"):
            with pytest.raises(UsageError, match="not a single query"):
                answered(opened(folder), query)
    assert sorted((tmp_path / "f").rglob("*")) == there
    for query, hint in (
        ("select hots from worst", "host"),
        ("from nowhere", "there are source"),
        ("select 1 +", "describe"),
    ):
        with pytest.raises(UsageError) as raised:
            answered(opened(folder), query)
        assert hint in raised.value.hint
