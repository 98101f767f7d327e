"""From the command to the table of two reports of 20 runs, against a plain script that asks scipy the same questions."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from reports import report

ROOT = Path(__file__).parent.parent
RUNS, REQUESTS, ROUNDS = 20, 20_000, 9
MOST_S = 1.0  # what a person does not wait for
# The test, the estimate and the median of each metric; no equivalence, power, intervals or families, which ours does too.
SCRIPT = """
import json, math, sys
import numpy as np
from scipy import stats
one, other = (json.load(open(path + "/report.json"))["runs"] for path in sys.argv[1:])
for name in one[0]["metrics"]:
    a, b = ([run["metrics"][name] for run in runs if run["valid"]] for runs in (one, other))
    if min(*a, *b) > 0:
        x, y = np.log(a), np.log(b)
        p = stats.mannwhitneyu(x, y, method="exact").pvalue
        shift = np.median(np.subtract.outer(y, x))
        print(name, np.median(a), np.median(b), math.exp(shift), p)
"""


def run() -> dict[str, Any]:
    """Both in turns; the p-values are compared first."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in "ab"]
        for number, path in enumerate(paths):
            path.mkdir()
            made = report({"s": {}}, RUNS, 0.03, number + 1, requests=REQUESTS)
            (path / "report.json").write_text(json.dumps(made, indent=1))
        arguments = [str(path) for path in paths]
        ours = [str(ROOT / "scripts" / "gotrace"), "compare", *arguments]
        theirs = [sys.executable, "-c", SCRIPT, *arguments]
        _require_equal(ours, theirs)
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(ROUNDS):
            for name, command in (("ours", ours), ("theirs", theirs)):
                begin = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - begin)
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "name": "compare_time",
        "ratio": middle["ours"] / middle["theirs"],
        "ours": middle["ours"],
        "theirs": middle["theirs"],
        "unit": f"s, 2 x {RUNS} runs (at most {MOST_S:g} s: {'kept' if middle['ours'] <= MOST_S else 'MISSED'})",
    }


def _require_equal(ours: list[str], theirs: list[str]) -> None:
    done = subprocess.run([*ours, "--all", "--format", "json"], check=True, capture_output=True, text=True)
    rows = {row["metric"]: row for row in json.loads(done.stdout)["comparisons"][0]["metrics"]}
    told = subprocess.run(theirs, check=True, capture_output=True, text=True).stdout.splitlines()
    for line in told:
        name, a, b, ratio, p = line.split()
        row = rows[name]
        if row["change"] is None:
            continue
        if name == "rss.growth":  # a difference, not a ratio
            continue
        for mine, other in ((row["a"], a), (row["b"], b), (row["change"][0], ratio), (row["p"], p)):
            if abs(mine - float(other)) > 1e-9 * abs(mine):
                raise AssertionError(f"{name}: {mine} and {other}")


if __name__ == "__main__":
    print(json.dumps(run()))
