"""Recordings that version 0.1.0 made, one of each kind: what is told of them stays what that version told.

Where it is meant to change, `python tests/unit/test_earlier_recordings.py` writes the new expectations.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gotrace

RECORDINGS = Path(__file__).parents[1] / "testdata" / "recordings"
EXPECTED = RECORDINGS / "expected.json"  # the command line -> a digest of what it prints

REPORTS = {
    "gc": ("", "--explain", "--format ndjson", "--explain --format json -i 100ms"),
    "gc-1.19": ("", "--format ndjson"),
    "all": ("--explain",),
    **dict.fromkeys(("mem", "cycles", "faults", "numa", "tlb", "coldstart"), ("", "--format ndjson")),
}
EXPORTS = {
    "gc": ("ndjson", "csv", "hlog", "hgrm", "perfetto"),
    "gc-1.19": ("ndjson", "hlog", "perfetto"),
    "all": ("ndjson", "folded", "pprof", "speedscope", "svg", "html"),
    "mem": ("hlog",),
    "faults": ("hgrm",),
    "coldstart": ("svg", "html", "hlog", "perfetto"),
    "perf": ("ndjson", "folded"),
}
FLAMES = ("", "--off-cpu", "--straggler", "--window stw", "--window mark")

COMMANDS = [
    *(f"report {name}.gotrace {options}".strip() for name, each in REPORTS.items() for options in each),
    *(f"export {name}.gotrace --format {format_} -o -" for name, each in EXPORTS.items() for format_ in each),
    *(f"flame all.gotrace --format folded -o - {options}".strip() for options in FLAMES),
]


def digest(command: str) -> str:
    """Of what is printed, whichever version prints it; a command that fails, or says anything else, has none."""
    environment = {**os.environ, "TZ": "UTC"}
    arguments = [sys.executable, "-m", "gotrace.cli", *command.split()]
    done = subprocess.run(arguments, cwd=RECORDINGS, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.replace(f"gotrace {gotrace.__version__}".encode(), b"gotrace 0.1.0")
    return hashlib.sha256(printed).hexdigest()[:16]


def test_they_are_small() -> None:
    assert all(path.stat().st_size < 200 << 10 for path in RECORDINGS.glob("*.gotrace"))


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_told_of_them(command: str) -> None:
    assert digest(command) == json.loads(EXPECTED.read_text())[command]


if __name__ == "__main__":
    EXPECTED.write_text(json.dumps({command: digest(command) for command in COMMANDS}, indent=2) + "\n")
