"""gate.yaml: what it means, what is refused with its place, and the schema that is published."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from gotrace.errors import UsageError
from gotrace.lab.gate_file import rules_of, schema

HEAD = "schema: gotrace.gate/1\n"
WHOLE = """\
margin: 4%
metrics:
  latency.p99:
  stw.total.p99: {margin: 12.5%}
  rss.growth: {at_most: 1MiB/min}
  throughput: {margin: 3%, at_least: 12500/s}
  cpu: {}
require: ["errors.share <= 0.1% and latency.p50 < 2ms"]
looks: 2
"""


def test_a_file(tmp_path: Any) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(HEAD + WHOLE)
    rules = rules_of(str(path))
    assert rules.margins == {"latency.p99": 0.04, "stw.total.p99": 0.125, "throughput": 0.03, "cpu": 0.04}
    assert [str(each) for each in rules.requirements] == [
        "errors.share <= 0.1%",
        "latency.p50 < 2ms",
        "rss.growth <= 1MiB/min",
        "throughput >= 12500/s",
    ]
    assert (rules.margin, rules.looks, rules.alpha) == (0.04, 2, 0.025)
    jsonschema.validate(yaml.safe_load(HEAD + WHOLE), schema())
    path.write_text(HEAD)
    assert (rules_of(str(path)).margins, rules_of(str(path)).margin) == (None, 0.05)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("marign: 5%", "there is no key 'marign'", "did you mean margin?"),
        ("metrics: {latency.p99: {marign: 5%}}", "metrics.latency.p99: there is no key 'marign'", "did you mean margin?"),
        ("metrics: {latency.p98: {}}", "metrics: there is no metric 'latency.p98'", "did you mean latency.p9"),
        ("metrics: {latency.p99: 5%}", "metrics.latency.p99: expected keys with values, got text", ""),
        ("metrics: {latency.p99: {at_most: 3}}", "metrics.latency.p99.at_most: expected text", ""),
        ("metrics: {latency.p99: {at_most: 3MiB}}", "metrics.latency.p99.at_most: latency.p99 is not measured in MiB", ""),
        ("metrics: {cpu: {at_most: '1 CPU and cpu < 2 CPUs'}}", "metrics.cpu.at_most: expected the end", ""),
        ("metrics: {3: {}}", "metrics: expected text, got a whole number", ""),
        ("metrics: [latency.p99]", "metrics: expected keys with values", ""),
        ("margin: 0%", "margin: '0%' is not a margin", "equality cannot be shown"),
        ("metrics: {cpu: {margin: 0.0%}}", "metrics.cpu.margin: '0.0%' is not a margin", "above 0"),
        ("margin: 5", "margin: expected text, got a whole number", ""),
        ("margin: five", "margin: 'five' is not a percentage", "write 5%"),
        ("require: ['latency.p99 < 3s', 'latency.p99 = 3s']", "require[1]: '=' is not a comparison", "write =="),
        ("looks: 0", "looks: expected a whole number >= 1", ""),
        ("margin: 5%\nmetrics: {a: [}", ", line 3: ", "YAML"),
        ("margin: 5%\nmargin: 6%", "the key margin appears twice", ""),
    ],
)
def test_what_is_refused(text: str, message: str, hint: str, tmp_path: Any) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(HEAD + text + "\n")
    with pytest.raises(UsageError) as error:
        rules_of(str(path))
    assert error.value.message.startswith("gate.yaml") and message in error.value.message
    assert hint in error.value.hint and error.value.hint and "\n" not in error.value.message + error.value.hint


def test_other_schemas_are_refused(tmp_path: Any) -> None:
    path = tmp_path / "gate.yaml"
    for text in ("", "margin: 5%\n", "schema: gotrace.gate/2\n", "- 5%\n"):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"gate\.yaml"):
            rules_of(str(path))
