"""layouts.json is what the DWARF of real builds says, and is not believed beyond that."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import targets
from gotrace.binary.layout import Layout

ROOT = targets.ROOT


def test_regenerated_part_is_the_same():
    """One old and one new release, measured again."""
    releases = ["1.21.13", "1.27.3"]
    command = [sys.executable, str(ROOT / "scripts/make-layouts"), *releases, "--print"]
    made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for arch, structs in made["layouts"].items():
        for struct, fields in structs.items():
            for field, runs in fields.items():
                for release in releases:
                    value = next((v for since, v in reversed(runs) if _number(since) <= _number(release)), None)
                    ours = Layout(arch, _number(release))
                    assert (ours.offset(struct, field) if ours.has(struct, field) else None) == value, (arch, struct, field)


def _number(release):
    return tuple(map(int, release.split(".")))


@pytest.mark.parametrize(
    ("release", "struct", "field", "known"),
    [
        ((1, 23, 1), "runtime.workType", "cycles", 392),
        ((1, 23, 9), "runtime.workType", "cycles", 424),
        ((1, 23, 4), "runtime.workType", "cycles", None),  # it moved somewhere between the two
        ((1, 23, 4), "runtime.g", "goid", 160),  # this one did not
        ((1, 27, 9), "runtime.g", "goid", 152),  # a later patch of the newest measured minor release
        ((1, 28, 0), "runtime.g", "goid", None),  # never measured
        ((1, 20, 5), "runtime.g", "goid", 152),  # never measured either, but the same before and after
        ((1, 20, 5), "runtime.g", "startpc", None),
        ((1, 18, 0), "runtime.g", "goid", None),
    ],
)
def test_what_is_known(release, struct, field, known):
    layout = Layout("amd64", release)
    assert (layout.offset(struct, field) if layout.has(struct, field) else None) == known
