"""docs/prometheus: promtool reads the rules and the dashboard's queries, and the agent has every metric in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gotrace.agent import families

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
