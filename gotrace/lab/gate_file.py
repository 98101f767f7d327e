"""gate.yaml: by how much a version may be worse, and what is required of it, written down (schema gotrace.gate/1).

schema: gotrace.gate/1
margin: 5%
metrics:
  latency.p99:
  stw.total.p99: {margin: 10%}
  rss.growth: {at_most: 1MiB/min}
require: ["errors.share <= 0.1%"]
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from gotrace.errors import UsageError
from gotrace.lab.gate import Rules
from gotrace.lab.metrics import find
from gotrace.lab.requirements import Requirement, parse, parse_quantity
from gotrace.lab.yaml_file import converted, read
from gotrace.text import printable

T = TypeVar("T")

SCHEMA = "gotrace.gate/1"

_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) ?%")
_Percent = Annotated[str, msgspec.Meta(examples=["5%"], extra_json_schema={"pattern": f"^(?:{_PERCENT.pattern})$"})]
_Quantity = Annotated[str, msgspec.Meta(examples=["28ms", "1MiB/min"])]


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    """What a metric is judged by: without anything, by the margin of all."""

    margin: Annotated[_Percent | None, msgspec.Meta(description="by how much it may be worse than the other's")] = None
    at_most: Annotated[_Quantity | None, msgspec.Meta(description="a limit of its own: what it may be")] = None
    at_least: Annotated[_Quantity | None, msgspec.Meta(description="a limit of its own: what it has to be")] = None


class File(msgspec.Struct, forbid_unknown_fields=True):
    """Rules of a gate."""

    schema: Annotated[str, msgspec.Meta(extra_json_schema={"const": SCHEMA})]
    margin: Annotated[_Percent, msgspec.Meta(description="by how much a metric may be worse")] = "5%"
    metrics: Annotated[
        dict[str, Rule | None] | None,
        msgspec.Meta(description="those that are judged; without it the primary ones, by the margin"),
    ] = None
    require: Annotated[list[str], msgspec.Meta(description="such as 'latency.p99 <= 28ms'")] = []
    looks: Annotated[int, msgspec.Meta(ge=1, le=100, description="how often the runs are looked at, as planned")] = 1


class _Read(File):
    """As `File`; what is wrong with a metric is said with its name, which msgspec leaves out of paths."""

    metrics: dict[str, Any] | None = None


def schema() -> dict[str, Any]:
    """JSON Schema of the file."""
    found = msgspec.json.schema(File)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA, **found}


def rules_of(path: str) -> Rules:
    """What a file says. Raises UsageError with the line, or the path of the key, for what it cannot mean."""
    file = read(path, _Read, SCHEMA)
    name = printable(Path(path).name)
    requirements: list[Requirement] = []
    for number, text in enumerate(file.require):
        requirements += _at(f"{name}: require[{number}]", parse, text)
    margin = _at(f"{name}: margin", _share, file.margin)
    margins: dict[str, float] | None = None
    if file.metrics is not None:
        margins = {}
        for metric, value in file.metrics.items():
            _at(f"{name}: metrics", find, metric)
            place = f"metrics.{metric}"
            rule = converted(value if value is not None else {}, Rule, name, place)
            for key, operator, limit in (("at_most", "<=", rule.at_most), ("at_least", ">=", rule.at_least)):
                if limit is not None:
                    requirements += _at(f"{name}: {place}.{key}", partial(_limit, metric, operator), limit)
            if rule.margin is not None:
                margins[metric] = _at(f"{name}: {place}.margin", _share, rule.margin)
            elif rule.at_most is None and rule.at_least is None:
                margins[metric] = margin
    return Rules(margin, margins, tuple(requirements), file.looks)


def _limit(metric: str, operator: str, text: str) -> tuple[Requirement, ...]:
    parse_quantity(text, metric)  # which says better what is wrong with it, and lets nothing follow it
    return parse(f"{metric} {operator} {text}")


def _share(text: str) -> float:
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{printable(text)!r} is not a percentage", "write 5%")
    share = float(match[1]) / 100
    if not 0 < share <= 10:
        raise UsageError(
            f"{printable(text)!r} is not a margin", "it must be above 0 and at most 1000%: equality cannot be shown"
        )
    return share


def _at(place: str, read_it: Callable[[str], T], text: str) -> T:
    try:
        return read_it(text)
    except UsageError as error:
        raise UsageError(f"{place}: {error.message}", error.hint) from None
