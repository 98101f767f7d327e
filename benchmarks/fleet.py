"""Percentiles of a thousand hosts, and adding a thousand reports, against plain scripts with pyarrow, numpy and json."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from reports import report

from gotrace.fleet.database import opened
from gotrace.fleet.percentiles import merged
from gotrace.fleet.recordings import Pauses
from gotrace.fleet.store import adding, files_of
from gotrace.recording.reader import Recording

RECORDING = Path(__file__).parents[1] / "tests" / "testdata" / "recordings" / "gc.gotrace"
HOSTS, HOURS, METRICS, BUCKETS = 1000, 24, ("stw.total", "stw.stopping", "stw.stopped", "gc.mark"), 45
BEGIN_NS, HOUR_NS = 1_780_012_800_000_000_000, 3_600 * 10**9
ROUNDS, REPORTS = 5, 1000
# What people do not wait for, and what may be used.
MOST_S, MOST_BY_HOST_S, MOST_BYTES, MOST_ADDING_S, MOST_ADDING_BYTES = 0.5, 2.5, 10_000_000, 20, 500_000_000
# The percentile of each group, by the sum of its buckets.
SCRIPT = """
import sys, time
import numpy as np, pyarrow.parquet as pq, pyarrow as pa
begin = time.perf_counter()
by, files = sys.argv[1].split(","), sys.argv[2:]
table = pa.concat_tables(pq.read_table(f, columns=["host", "metric", "bucket", "n"], partitioning=None) for f in files)
table = table.filter(pa.compute.equal(table["metric"], "stw.total"))
sums = table.group_by(by).aggregate([("n", "sum")]).sort_by([(each, "ascending") for each in by])
buckets, counts = sums["bucket"].to_numpy(), sums["n_sum"].to_numpy()
hosts = sums["host"].to_numpy(zero_copy_only=False) if "host" in by else np.zeros(len(counts))
starts = np.flatnonzero(np.r_[True, hosts[1:] != hosts[:-1]])
for a, b in zip(starts, [*starts[1:], len(counts)]):
    up_to = np.cumsum(counts[a:b])
    index = buckets[a:b][np.searchsorted(up_to, np.ceil(round(0.99 * up_to[-1], 6)))]
    if a == 0:
        print(index)
print(time.perf_counter() - begin)
"""
ADD = """
import sys
from gotrace.fleet.add import add
from gotrace.fleet.machines import Told
add(sys.argv[1], [line.strip() for line in sys.stdin], Told())
print(*(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
READ = """
import json, sys
for line in sys.stdin:
    for run in json.load(open(line.strip() + "/report.json"))["runs"]:
        sum(run["load"]["histogram"]["count"])
"""


def run() -> list[dict[str, Any]]:
    """Both in turns; that they agree is seen to first."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_percentiles(Path(folder, "fleet")), _adding(Path(folder))]


def _fill(folder: Path) -> int:
    """Hours of hosts, with the shape of a real run's pauses, each host a little slower or faster than the others."""
    with Recording.open(str(RECORDING)) as source:
        real = Pauses(source)
    values = real.pauses["total_ns"]
    random, rows = np.random.default_rng(1), 0
    with adding(str(folder)) as addition:
        for host in range(HOSTS):
            name = f"web-{host:04}"
            about = {"host": name, "fingerprint": "f", "service": "shop", "version": "1", "label": "", "source": name}
            addition.add("host", [{"host": name, "fingerprint": "f", "seen_ns": BEGIN_NS, "source": name}])
            shift = random.integers(-8, 8)
            weights = np.bincount(np.digitize(np.log2(values), np.linspace(13, 22, BUCKETS - 1)), minlength=BUCKETS) + 1
            for metric in METRICS:
                buckets = np.tile(np.arange(BUCKETS) - 540 + shift, HOURS)
                counts = random.poisson(np.tile(weights, HOURS)) + 1
                starts = np.repeat(BEGIN_NS + HOUR_NS * np.arange(HOURS), BUCKETS)
                addition.add_columns(
                    "hist", {**about, "metric": metric, "start_ns": starts, "bucket": buckets, "n": counts}
                )
                each = counts.reshape(HOURS, BUCKETS).sum(1)
                total = {"start_ns": starts[::BUCKETS], "length_ns": HOUR_NS, "count": each, "zeros": 0}
                addition.add_columns("total", {**about, "metric": metric, **total})
                rows += len(counts)
    return rows


def _percentiles(folder: Path) -> list[dict[str, Any]]:
    rows = _fill(folder)
    files = files_of(folder, "hist")
    size = sum(each.stat().st_size for each in folder.rglob("*.parquet"))
    found = []
    for name, by, columns, most_s in (
        ("fleet_p99", [], "bucket", MOST_S),
        ("fleet_p99_by_host", ["host"], "host,bucket", MOST_BY_HOST_S),
    ):
        ours, theirs = [], []
        for _ in range(ROUNDS):
            database = opened(str(folder))
            begin = time.perf_counter()
            groups = merged(database, "stw.total", by, [99])
            ours.append(time.perf_counter() - begin)
            command = [sys.executable, "-c", SCRIPT, columns, *files]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            theirs.append(float(told[1]))
        index = round(np.log2(groups[0].values_ns[0] / 1e9) * 32 + 0.5)
        assert index == int(told[0]), (index, told)
        middle = statistics.median(ours)
        kept = middle <= most_s and size <= MOST_BYTES
        found.append(
            {
                "name": name,
                "ratio": middle / statistics.median(theirs),
                "ours": middle,
                "theirs": statistics.median(theirs),
                "unit": f"s, {rows / 1e6:.1f} M rows in {size / 1e6:.1f} MB (at most {most_s:g} s and "
                f"{MOST_BYTES / 1e6:g} MB: {'kept' if kept else 'MISSED'})",
            }
        )
    return found


def _adding(folder: Path) -> dict[str, Any]:
    paths = []
    made = [json.dumps(_with_times(report({"s": {}}, 8, 0.03, seed))) for seed in range(10)]
    for number in range(REPORTS):
        path = folder / "reports" / f"{number}"
        path.mkdir(parents=True)
        (path / "report.json").write_text(made[number % 10].replace('"seed": 1', f'"seed": {number}'))
        paths.append(f"{path}\n")
    seconds, peak = [], 0
    for code, arguments in ((ADD, [str(folder / "added")]), (READ, [])):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], input="".join(paths), capture_output=True, text=True
        )
        seconds.append(time.perf_counter() - begin)
        assert done.returncode == 0, done.stderr
        peak = peak or int(done.stdout)
    assert opened(str(folder / "added")).rows("select count(*) from run") == [(REPORTS * 8,)]
    kept = seconds[0] <= MOST_ADDING_S and peak <= MOST_ADDING_BYTES
    return {
        "name": "fleet_add",
        "ratio": seconds[0] / seconds[1],
        "ours": seconds[0],
        "theirs": seconds[1],
        "unit": f"s, {REPORTS} reports of 8 runs, {peak / 1e6:.0f} MB (at most {MOST_ADDING_S} s and "
        f"{MOST_ADDING_BYTES / 1e6:g} MB: {'kept' if kept else 'MISSED'})",
    }


def _with_times(made: dict[str, Any]) -> dict[str, Any]:
    for each in made["runs"]:
        each["recording"] = ""
    return made


if __name__ == "__main__":
    for line in run():
        print(line)
