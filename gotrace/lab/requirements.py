"""What is required of a run: 'latency.p99 <= 28ms', 'throughput >= 12500/s', 'rss.growth <= 2% and errors.share == 0'.

    requirements = requirement { "and" requirement }
    requirement  = metric ( "<=" | "<" | ">=" | ">" | "==" ) quantity
    quantity     = [ "-" | "+" ] number [ unit ]

A metric is one of `gotrace.lab.metrics`; a unit is one that its dimension is measured in. What is unknown is never met.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal, NoReturn

from gotrace.errors import UsageError
from gotrace.lab.metrics import MEASURED_IN, METRICS, Dimension, Metric, find
from gotrace.text import printable

Operator = Literal["<=", "<", ">=", ">", "=="]
Verdict = Literal["met", "broken", "unknown"]

_COMPARE = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt, "==": operator.eq}

_TIMES = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_PER = {"/s": Fraction(1), "/min": Fraction(1, 60), "/h": Fraction(1, 3600)}
# Dimension -> its units, and what one of each is in the base unit, exactly.
UNITS: Mapping[Dimension, Mapping[str, Fraction]] = {
    "time": {unit: Fraction(factor) for unit, factor in _TIMES.items()},
    "bytes": {unit: Fraction(factor) for unit, factor in _BYTES.items()},
    "rate": _PER,
    "share": {"%": Fraction(1, 100)},
    "growth": {f"{unit}{per}": size * each for unit, size in _BYTES.items() for per, each in _PER.items()},
    "cpus": {"CPUs": Fraction(1)},
    "plain": {"": Fraction(1)},
}
# Other spellings of units. What differs by its case alone is in here only where it cannot be taken for another unit.
_SPELLINGS = {"\u00b5s": "us", "\u03bcs": "us", "CPU": "CPUs", "cpu": "CPUs", "cpus": "CPUs"}

_TOKEN = re.compile(
    r"\s*(?:(?P<operator><=|>=|==|[<>=])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)"
    r"|(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+))"
    r"|(?P<unit>%|\u00b5s|\u03bcs|/)"
    r"|(?P<other>\S))"
)
_EXAMPLE = "for example: 'latency.p99 <= 28ms'"
_LONGEST = 30  # digits of a number


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, as it was written: '28ms'. ``value`` is the same in the base unit, exactly."""

    number: Decimal
    unit: str
    dimension: Dimension

    @property
    def value(self) -> Fraction:
        # 0 needs no unit.
        return Fraction(self.number) * UNITS[self.dimension].get(self.unit, 0)

    def __str__(self) -> str:
        return f"{self.number:f}{' ' if self.unit == 'CPUs' else ''}{self.unit}"


@dataclass(frozen=True)
class Requirement:
    """One comparison of a metric with a limit."""

    metric: str
    operator: Operator
    limit: Quantity

    def __str__(self) -> str:
        return f"{self.metric} {self.operator} {self.limit}"

    def check(self, values: Mapping[str, float | None]) -> Outcome:
        """Against what was measured, by metric; what is absent, None or not a number is unknown."""
        value = values.get(self.metric)
        if value is None or math.isnan(value):
            return Outcome(self, None, "unknown")
        # Both as floats: a share of 0.02 is to be equal to 2 %.
        return Outcome(self, value, "met" if _COMPARE[self.operator](value, float(self.limit.value)) else "broken")


@dataclass(frozen=True)
class Outcome:
    """What came of a requirement."""

    requirement: Requirement
    value: float | None
    verdict: Verdict

    def __str__(self) -> str:
        required = f"required {self.requirement.operator} {self.requirement.limit}"
        return f"{self.requirement.metric} is {METRICS[self.requirement.metric].text(self.value)}, {required}"


def evaluate(requirements: Iterable[Requirement], values: Mapping[str, float | None]) -> tuple[Outcome, ...]:
    """Each of them, in their order."""
    return tuple(each.check(values) for each in requirements)


def verdict(outcomes: Iterable[Outcome]) -> Verdict:
    """Of all together: broken if one is, unknown if one is, else met."""
    found = {each.verdict for each in outcomes}
    return "broken" if "broken" in found else "unknown" if "unknown" in found else "met"


def parse(text: str) -> tuple[Requirement, ...]:
    """Read one requirement, or several with "and" between them. UsageError says what cannot be read, or meant."""
    tokens = _Tokens(text)
    found = [_requirement(tokens)]
    while tokens.kind:
        if tokens.take("name") != "and":
            tokens.refuse("expected 'and', or the end", "several requirements are joined by 'and'", at=-1)
        found.append(_requirement(tokens))
    return tuple(found)


def parse_all(texts: Iterable[str]) -> tuple[Requirement, ...]:
    """Those of several texts, one after the other."""
    return tuple(each for text in texts for each in parse(text))


def parse_quantity(text: str, metric: str) -> Quantity:
    """Read '28ms' as a value of ``metric``; UsageError as `parse`."""
    tokens = _Tokens(text)
    quantity, _ = _quantity(tokens, find(metric))
    if tokens.kind:
        tokens.refuse("expected the end", f"for example: '{quantity}'")
    return quantity


def _requirement(tokens: _Tokens) -> Requirement:
    if tokens.kind != "name" or tokens.word == "and":
        tokens.refuse("expected a metric", _EXAMPLE)
    metric = find(tokens.take("name"))
    if tokens.kind != "operator":
        hint = "write <= or >=" if tokens.word in ("\u2264", "\u2265") else _EXAMPLE
        tokens.refuse(f"expected <=, <, >=, > or == after {metric.name}", hint)
    compared = tokens.take("operator")
    if compared == "=":
        tokens.refuse("'=' is not a comparison", "write ==, or <= or >=", at=-1)
    limit, metric = _quantity(tokens, metric)
    return Requirement(metric.name, compared, limit)  # type: ignore[arg-type]


def _quantity(tokens: _Tokens, metric: Metric) -> tuple[Quantity, Metric]:
    """And the metric that is meant: RSS may grow by bytes per time, or by a share."""
    if tokens.kind != "number":
        tokens.refuse(f"expected a number for {metric.name}", _measured(metric))
    digits = tokens.take("number")
    if len(digits) > _LONGEST:
        tokens.refuse(f"a number has at most {_LONGEST} digits", "choose a larger unit", at=-1)
    if tokens.word in (",", "'", "_") or (tokens.kind == "name" and tokens.word.startswith("_")):
        plain = re.match(r"[-+]?[\d.,'_]+", tokens.text[tokens.begins[-1] :])
        without = re.sub(r"[,'_]", "", plain[0]) if plain else digits
        tokens.refuse("write numbers without thousands separators", f"write {without}")
    unit = _unit(tokens)
    if unit == "%" and metric.as_share:
        metric = METRICS[metric.as_share]
    number = Decimal(digits)
    if unit not in UNITS[metric.dimension] and not (unit == "" and number == 0):
        known = any(unit in units for units in UNITS.values())
        what = f"is not measured in {printable(unit)}" if known and unit else "needs a unit"
        if not known:
            near = next((each for units in UNITS.values() for each in units if each.lower() == unit.lower()), "")
            hint = f"did you mean {near}?" if near else _measured(metric)
            tokens.refuse(f"there is no unit {printable(unit)!r}", hint, at=-1)
        raise UsageError(f"{metric.name} {what}: {printable(tokens.text.strip())!r}", _measured(metric))
    return Quantity(number, unit, metric.dimension), metric


def _measured(metric: Metric) -> str:
    if metric.dimension == "plain":
        return f"{metric.name} is a plain number"
    also = f", or {MEASURED_IN['share']}" if metric.as_share else ""
    return f"{metric.name} is measured in {MEASURED_IN[metric.dimension]}{also}"


def _unit(tokens: _Tokens) -> str:
    """A name, a sign, or a name per another: 'ms', '%', '/s', 'MiB/min'."""
    unit = ""
    if tokens.kind == "name" and tokens.word != "and":
        unit = tokens.take("name")
    elif tokens.kind == "unit" and tokens.word != "/":
        unit = tokens.take("unit")
    unit = _SPELLINGS.get(unit, unit)
    if tokens.word == "/":
        tokens.take("unit")
        if tokens.kind != "name":
            tokens.refuse("expected s, min or h after '/'", "for example: 12500/s, 1MiB/min")
        unit += f"/{tokens.take('name')}"
    return unit


class _Tokens:
    """A text taken apart, and how much of it has been read. ``kind`` is "" at the end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.begins: list[int] = []  # of the tokens that were taken
        self._at = 0
        self._next()

    def _next(self) -> None:
        match = _TOKEN.match(self.text, self._at)
        self.kind = (match.lastgroup or "") if match else ""
        self.word = match[self.kind] if match and self.kind else ""
        self._begin = match.start(self.kind) if match and self.kind else len(self.text)
        self._end = match.end() if match else len(self.text)

    def take(self, kind: str) -> str:
        """The next token, which has to be of that kind."""
        if self.kind != kind:
            self.refuse(f"expected a {kind}", _EXAMPLE)
        word = self.word
        self.begins.append(self._begin)
        self._at = self._end
        self._next()
        return word

    def refuse(self, why: str, hint: str, at: int = 0) -> NoReturn:
        """Raise the error; ``at`` of -1: about the token before this one."""
        begin = self.begins[at] if at else self._begin
        where = f"at {printable(self.text[begin : begin + 20])!r}" if self.text[begin:].strip() else "at the end"
        whole = f" of {printable(self.text.strip()[:80])!r}" if self.text.strip() else " of an empty requirement"
        raise UsageError(f"{why}, {where}{whole}", hint)
