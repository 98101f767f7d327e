"""How often a difference is found where there is none: by gotrace, and by tests of requests, or of versions not in turns.

A simulation from real runs of one service, tests/testdata/baselines/unchanged.json, with fixed seeds. With the argument
`measure` these runs are measured anew, here, which takes some minutes: see tests/unchanged.py for what is kept of them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import planted

import unchanged
from gotrace.lab.metrics import PRIMARY
from gotrace.lab.report import read

COMPARISONS, ROUNDS, SECONDS = 1000, 20, 3
DRIFT = 1.5  # spreads


def run() -> list[dict[str, Any]]:
    """In percent of comparisons."""
    ours = unchanged.alarms(COMPARISONS)
    pooled = unchanged.pooled_alarms(COMPARISONS)
    drift = unchanged.drift_alarms(COMPARISONS, DRIFT)
    gates = unchanged.outcomes(COMPARISONS)
    any_ = ours.any / COMPARISONS
    simulated = f"% of {COMPARISONS:,} simulated comparisons"
    of_all = f"{simulated}, of {unchanged.PAIRS} pairs (gates that fail: {gates['fail'] / COMPARISONS:.1%})"
    of_one = f"{simulated}: ours any of {len(PRIMARY)} metrics, theirs one"
    of_p99 = f"{of_one} (a p99 for each of five runs a side: {pooled['p99 of runs']:.1%})"
    return [
        _row("false_alarms_metrics", any_, ours.uncorrected / COMPARISONS, of_all),
        _row("false_alarms_requests", any_, pooled["requests"], of_one),
        _row("false_alarms_p99", any_, pooled["pooled p99"], of_p99),
        _row(
            "false_alarms_drift", drift["turns"], drift["blocks"], f"{simulated}, latency p50, {DRIFT:g} spreads of drift"
        ),
    ]


def _row(name: str, ours: float, theirs: float, unit: str) -> dict[str, Any]:
    return {"name": name, "ratio": ours / theirs, "ours": ours * 100, "theirs": theirs * 100, "unit": unit}


def measure() -> None:
    """Forty runs, of two versions that are the same command."""
    with tempfile.TemporaryDirectory() as folder:
        planted.baseline(Path(folder), {name: () for name in unchanged.VERSIONS}, ROUNDS, SECONDS)
        kept = unchanged.trimmed(read(folder))
    text = json.dumps(kept, separators=(",", ":")).replace('},{"version"', '},\n{"version"')  # a line for each run
    unchanged.DATA.write_text(text + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        measure()
    else:
        print(json.dumps(run(), indent=1))
