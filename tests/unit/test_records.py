"""Records fit the schemas that stand beside their types, and the schemas say what they mean to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import jsonschema
import pytest

from gotrace.records.all import RECORDS, schema_of_command
from gotrace.records.schema import Keys, OneOf, schema_of

RECORDINGS = Path(__file__).parents[1] / "testdata" / "recordings"
# recording -> the command whose records it gives, and options that add some
MADE = {"gc": ("gc", "--explain"), "gc-1.19": ("gc",), "coldstart": ("coldstart",)}
MADE |= {name: (command,) for name, command in zip(("mem", "cycles", "faults", "numa", "tlb"), ("mem",) * 5, strict=True)}


class Whole(TypedDict):
    """Members that are always there."""

    type: Literal["whole"]
    counts: Annotated[dict[str, int], Keys(("a", "b")), "by letter"]


class Partly(Whole, total=False):
    """And one that may be."""

    why: Annotated[str | None, OneOf(("x", None))]


GOOD = {"type": "whole", "counts": {"a": 1}}


@pytest.mark.parametrize("good", [GOOD, {**GOOD, "why": None}, {**GOOD, "why": "x"}, {**GOOD, "counts": {}}])
def test_what_fits(good):
    jsonschema.validate(good, schema_of(Partly))


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "whole"},
        {**GOOD, "type": "part"},
        {**GOOD, "more": 1},
        {**GOOD, "counts": {"c": 1}},
        {**GOOD, "counts": {"a": "1"}},
        {**GOOD, "why": "y"},
    ],
)
def test_what_does_not(bad):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema_of(Partly))


@pytest.mark.parametrize("command", RECORDS)
def test_every_schema_is_one(command):
    jsonschema.Draft202012Validator.check_schema(schema_of_command(command))


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_fits(name):
    command, *options = MADE[name]
    arguments = [sys.executable, "-m", "gotrace.cli", "report", f"{name}.gotrace", "--format", "ndjson", *options]
    done = subprocess.run(arguments, cwd=RECORDINGS, capture_output=True, text=True, check=True)
    check = jsonschema.Draft202012Validator(schema_of_command(command))
    lines = done.stdout.splitlines()
    assert lines
    for line in lines:
        check.validate(json.loads(line))
