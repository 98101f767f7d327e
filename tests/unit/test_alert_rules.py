"""docs/prometheus: promtool reads the rules and the dashboard's queries, and the agent has every metric in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gotrace.agent import books, families

FOLDER = Path(__file__).parents[2] / "docs" / "prometheus"
DASHBOARD = json.loads((FOLDER / "gotrace.dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
RULES = [rule for group in yaml.safe_load((FOLDER / "gotrace.rules.yaml").read_text())["groups"] for rule in group["rules"]]

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool")


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_rules() -> None:
    promtool("check", "rules", FOLDER / "gotrace.rules.yaml")
    promtool("test", "rules", FOLDER / "gotrace.rules.test.yaml")


@needs_promtool
def test_a_service_without_processes_is_over_no_budget(tmp_path: Path) -> None:
    """Two paused for 2 % of the time, and one of them ended. This promtool has no histograms to give to a rule."""
    (rule,) = (each for each in RULES if each.get("alert") == "GoPauseBudgetSpent")
    paused = 'histogram_sum(rate(gotrace_stw_duration_seconds{part="total"}[5m]))'
    assert paused in rule["expr"]
    rule = {**rule, "expr": rule["expr"].replace(paused, "rate(paused_seconds[5m])"), "for": "0m"}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "pauses", "rules": [rule]}]}))
    series = [
        *({"series": f'paused_seconds{{service_name="{name}"}}', "values": "0+1.2x20"} for name in ("here", "gone")),
        {"series": 'gotrace_processes{service_name="here"}', "values": "1x20"},
        {"series": 'gotrace_processes{service_name="gone"}', "values": "1 0x20"},
    ]
    fires = 'ALERTS{alertname="GoPauseBudgetSpent", alertstate="firing"}'
    expected = [{"labels": '{service_name="here"}', "value": 1}]
    case = {"expr": f"count by (service_name) ({fires})", "eval_time": "10m", "exp_samples": expected}
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [case]}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", tmp_path / "test.yaml")


@needs_promtool
def test_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m").replace("$service", ".*")}
        for number, query in enumerate(QUERIES)
    ]
    assert len(rules) > 10 and not any("$" in rule["expr"] for rule in rules)
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def test_the_agent_has_every_metric() -> None:
    names = {each.sample_name for each in families.ALL}
    variables = [each["query"] for each in DASHBOARD["templating"]["list"]]
    for text in (*QUERIES, *(rule["expr"] for rule in RULES), *variables):
        used = set(re.findall(r"\b(?:go|gotrace|process)_\w+", re.sub(r'"[^"]*"', "", text)))
        assert used <= names, used - names


def test_counters_that_are_read_now_and_then_say_how_often() -> None:
    """Whoever reads them of a short job has to know that its end is missing."""
    for each in (families.MEMORY_ALLOCATED, families.MEMORY_ALLOCATIONS, families.SCHEDULE):
        assert f"Read every {books.EVERY_S:.0f} s: " in each.help and "until " in each.help


@needs_promtool
def test_what_promtool_says_of_the_names() -> None:
    """One complaint, which docs/metrics.md has: a name of OpenTelemetry's."""
    kinds = {"info": "gauge"}
    text = "".join(
        f"# HELP {each.sample_name} x\n# TYPE {each.sample_name} {kinds.get(each.kind, each.kind)}\n{each.sample_name} 1\n"
        for each in families.ALL
        if each.kind != "histogram"
    )
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    complaints = done.stderr.splitlines()
    assert [line for line in complaints if "_count" in line] == complaints and "go_goroutine_count" in complaints[0]
