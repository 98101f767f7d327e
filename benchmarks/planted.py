"""Regressions planted in a service, and what `gotrace compare` says of each: writes benchmarks/planted.json, for the docs.

About ten minutes; not a part of `make bench`, for it measures no peer.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import targets
from gotrace.lab.compare import compare, sides_of
from gotrace.lab.report import read

GOTRACE = str(Path(__file__).parent.parent / "scripts" / "gotrace")
OUT = Path(__file__).parent / "planted.json"
ROUNDS, SECONDS, MARGIN = 10, 5, 0.05
# So much memory in all of them that what is planted elsewhere does not show in it; and requests that wait, as for a
# database, so that the CPUs have time left: where they have none, the longest pause is somebody else's time slice.
SAME = ("-hold", "128", "-wait", "3ms")
# name -> (what it is, flags of the service)
PLANTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "before": ("", ("-allocate", "60")),
    "nothing": ("nothing", ("-allocate", "60")),
    "allocation10": ("10 % more allocation", ("-allocate", "66")),
    "allocation100": ("twice the allocation", ("-allocate", "120")),
    "straggler2": ("a straggler of 2 ms, once a second", ("-allocate", "60", "-straggle", "2ms")),
    "straggler20": ("a straggler of 20 ms, once a second", ("-allocate", "60", "-straggle", "20ms")),
    "init": ("100 ms more until it listens", ("-allocate", "60", "-init", "100ms")),
    "leak": ("a leak of 1 MiB/s outside of the heap", ("-allocate", "60", "-spill", "1")),
}


def main() -> None:
    folder = Path(__file__).parent.parent / "build" / "planted"
    baseline(folder, {name: (*SAME, *flags) for name, (_, flags) in PLANTED.items()}, ROUNDS, SECONDS)
    report = read(str(folder))
    before, *others = sides_of([("", report)])
    rows = []
    for side in others:
        found = compare(before, side, MARGIN, everything=True)
        told = {row.metric: [row.verdict, row.primary, row.change and float(f"{row.change[0]:.4g}")] for row in found}
        rows.append({"what": PLANTED[side.name][0], "flags": list(PLANTED[side.name][1]), "told": told})
    host = report["host"]
    about = {"cpu": host["cpu"], "cpus": host["cpus"], "kernel": host["kernel"], "rounds": ROUNDS, "seconds": SECONDS}
    text = json.dumps({**about, "planted": rows}).replace('{"what"', '\n{"what"')  # a line for each
    OUT.write_text(text + "\n")
    for row in rows:
        print(f"{row['what']}:", *_words(row["told"]), sep="\n  ")


def _words(told: dict[str, list[Any]]) -> list[str]:
    return [f"{name} {verdict}" for name, (verdict, _, _) in told.items() if verdict in ("better", "worse")]


def baseline(folder: Path, versions: Mapping[str, tuple[str, ...]], rounds: int, seconds: int) -> None:
    """`gotrace baseline` of the service with these flags, by the versions' names; its report is in ``folder``."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    program = targets.build("shop")
    words = []
    for name, flags in versions.items():
        words += ["--ab", shlex.join([f"{name}={program}", "-port", str(port), *flags])]
    load = f"wrk -t1 -c4 -d{seconds}s http://127.0.0.1:{port}/ping"
    words += ["--load", load, "--preload", "500ms", "-n", str(rounds), "--max-drift", "1000"]
    subprocess.run([GOTRACE, "baseline", *words, "--out", folder, "--force"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
