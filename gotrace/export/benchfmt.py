"""Go's benchmark format, which benchstat and others read.

Lines of configuration hold for the results behind them, `Unit` lines say which values are better, and every other line is
one result. Source: https://go.dev/design/14313-benchmark-format, and for units golang.org/x/perf/benchfmt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gotrace.text import printable

# A name, a unit and a value are fields, which space ends.
_NO_FIELD = re.compile(r"\s|[^\x21-\x7e]")


@dataclass(frozen=True)
class Result:
    """One line: ``name`` without "Benchmark", ``values`` with their units, ``config`` that is other than before."""

    name: str
    iterations: int
    values: Sequence[tuple[float, str]]
    config: Mapping[str, str]


def lines(
    config: Mapping[str, str], better: Mapping[str, str], results: Sequence[Result], comments: Sequence[str] = ()
) -> Iterator[str]:
    """The file; ``better`` is "higher" or "lower" of each unit. Keys are ours, values of ``config`` may be anybody's.

    Numbers stand in full, as Python and strconv.ParseFloat read them back. A result without values has no line.
    """
    for each in comments:
        yield f"# {printable(each)}"
    for key, value in config.items():
        yield _config(key, value)
    for unit, direction in better.items():
        yield f"Unit {unit} better={direction}"
    before: Mapping[str, str] = {}
    for result in results:
        if not result.values:
            continue
        changed = {key: value for key, value in result.config.items() if before.get(key) != value}
        if changed:
            yield ""
        for key, value in changed.items():
            yield _config(key, value)
        before = {**before, **changed}
        fields = [f"Benchmark{field(result.name)}", str(max(1, result.iterations))]
        for value_, unit in result.values:
            fields.append(f"{_number(value_)} {unit}")
        yield "\t".join(fields)


def field(name: str) -> str:
    """Somebody's name as part of a benchmark's: what would end the field or be no ASCII is an underscore."""
    return _NO_FIELD.sub("_", name)


def _config(key: str, value: str) -> str:
    return f"{key}: {printable(value)}".rstrip()


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
