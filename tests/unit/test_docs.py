"""The pages and the program say the same: commands, options, links, numbers, and which test proves a row of support."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import jsonschema
import pytest

import gotrace
import targets
from gotrace.cli.main import group

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MAKE_DOCS = runpy.run_path(str(ROOT / "scripts" / "make-docs"))
AT_THE_ROOT = sorted(ROOT.glob("*.md"))
PAGES = [*AT_THE_ROOT, *sorted(DOCS.rglob("*.md"))]

# --- What is generated


def test_generated_parts_are_up_to_date():
    """By a process of its own: here other tests have used the commands."""
    code = "import runpy, sys; print(*runpy.run_path(sys.argv[1])['stale'](), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code, MAKE_DOCS["__file__"]], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", ""), "`make docs` writes them"


def test_every_command_has_its_options_on_a_page():
    shown = {
        found for page in DOCS.rglob("*.md") for found in re.findall(r"<!-- generated: options ?(.*) -->", page.read_text())
    }
    assert {name.removeprefix("gotrace").strip() for name in MAKE_DOCS["commands"]()} == shown


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
@pytest.mark.parametrize("page", sorted((DOCS / "man").glob("*.1")), ids=lambda page: page.stem)
def test_man_takes_a_manual_page_without_a_warning(page):
    command = ["man", "--warnings", "--local-file", "--pager=cat", page]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.index("NAME") < done.stdout.index("SYNOPSIS") < done.stdout.index("OPTIONS")


# --- What readers are told to type


def blocks(text: str) -> Iterator[str]:
    """The lines of blocks that hold commands, those that go on in the next line joined."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


def arguments(line: str) -> Iterator[list[str]]:
    """The arguments of every `gotrace` in a line of shell."""
    simple = re.sub(r"\$\([^)]*\)", "1", line)
    for part in simple.split("|"):
        words = shlex.split(part, comments=True)
        words = list(itertools.takewhile(lambda word: word not in (">", "<", "&"), words))
        while words and (words[0] in ("sudo", "env") or re.match(r"\w+=", words[0])):
            words = words[1:]
        if words[:3] == ["scripts/arm64-vm", "run", "--"]:
            words = words[3:]
        if words and os.path.basename(words[0]) == "gotrace":
            yield ["1" if word == "PID" else word for word in words[1:]]


def check(words: list[str]) -> None:
    """Raises click.UsageError for what the command would refuse before it does anything."""
    if words:
        command = group.get_command(click.Context(group), words[0])
        assert command is not None, f"there is no gotrace {words[0]}"
        with contextlib.suppress(click.exceptions.Exit):  # --json-schema and the like have done their work
            command.make_context(words[0], words[1:], parent=click.Context(group, info_name="gotrace"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_are_understood(page):
    text = page.read_text()
    for line in blocks(text):
        for words in arguments(line):
            check(words)
    for span in re.findall(r"`(gotrace [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        for words in arguments(span):
            with contextlib.suppress(click.MissingParameter, click.BadOptionUsage):  # in the middle of a sentence
                check(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_runs_of_the_checkout_is_there(page):
    for line in blocks(page.read_text()):
        for target in re.findall(r"^make ([a-z0-9-]+)", line):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        for script in re.findall(r"(?:^|\s)(scripts/[\w-]+)", line):
            assert (ROOT / script).exists(), line


def test_a_command_that_is_not_there_is_found():
    line = "sudo env X=1 scripts/gotrace gc --pid $(pgrep x) --explian | gotrace nothing > x"
    (first, second) = arguments(line)
    with pytest.raises(click.NoSuchOption):
        check(first)
    with pytest.raises(AssertionError):
        check(second)


@pytest.mark.parametrize("page", sorted((DOCS / "commands").glob("*.md")), ids=lambda page: page.stem)
def test_records_of_a_page_fit_the_schema(page, capsys):
    records = re.findall(r"^```json\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    for line in "".join(records).splitlines():
        check([page.stem, "--json-schema"])
        jsonschema.validate(json.loads(line), json.loads(capsys.readouterr().out))


# --- Links (those among the pages of docs/ are checked where they are built)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", AT_THE_ROOT, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if not link.startswith("https://"):
            assert (page.parent / path).exists(), link
            assert not anchor or anchor in anchors(page.parent / path), link


def test_the_readme_is_a_front_door():
    assert (ROOT / "README.md").stat().st_size <= 9 << 10


def test_the_changelog_has_this_version():
    assert f"## [{gotrace.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_architecture_names_every_room():
    text = (DOCS / "architecture.md").read_text()
    rooms = {path.parent.name for path in ROOT.glob("gotrace/*/__init__.py")} | {"cli", "ebpf", "probes"}
    assert [room for room in sorted(rooms) if not re.search(rf"^ *{room}/ ", text, re.MULTILINE)] == []


# --- The support matrix

# Prints every test and its marks, before those for other machines are put aside.
_COLLECT = """
import json, sys, pytest

class Seen:
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        self.tests = {item.nodeid: [mark.name for mark in item.iter_markers()] for item in items}

seen = Seen()
assert pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[seen]) == 0
print("\\n" + json.dumps(seen.tests))
"""


def rows() -> Iterator[dict[str, object]]:
    for part in json.loads((DOCS / "support.json").read_text()).values():
        yield from part["rows"]


def environment_of(row: dict[str, object]) -> dict[str, str]:
    """What is set where a row's tests run."""
    if row["on"] != "arm64":
        return {}
    return {"GOTRACE_EMULATED": "1", **({"GOTRACE_ALL_RELEASES": "1"} if "ALL=1" in row["cells"][-1] else {})}


@functools.cache
def collected(**environment: str) -> dict[str, set[str]]:
    """Every test of the files that rows of such an environment name, with its marks, as pytest finds them there."""
    named = [test for row in rows() if environment_of(row) == environment for test in row["tests"]]
    files = sorted({test.partition("::")[0] for test in named if "::" in test})
    command = [sys.executable, "-c", _COLLECT, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return {test: set(marks) for test, marks in json.loads(done.stdout.splitlines()[-1]).items()}


def marks(test: str, tests: dict[str, set[str]]) -> list[set[str]]:
    """The marks of a test, or of each of its cases."""
    return [found for name, found in tests.items() if name == test or name.startswith(f"{test}[")]


def runs(test: str, row: dict[str, object]) -> bool:
    """Whether a test that a row names runs where the row says it does."""
    if "::" not in test:
        return (ROOT / test).exists() and f"step {test}" in (ROOT / ".ci" / "run").read_text()
    found = marks(test, collected(**environment_of(row)))
    if row["on"] != "arm64":
        return any(not each & {"numa", "pmu", "arm64_vm"} for each in found)
    return any("everywhere" in each for each in found)


def test_every_row_of_the_support_matrix_has_tests_that_run_there():
    assert [(row["cells"][0], row["on"], test) for row in rows() for test in row["tests"] if not runs(test, row)] == []


def test_the_support_matrix_has_every_release_on_both_architectures():
    releases = json.loads((DOCS / "support.json").read_text())["releases"]["rows"]
    proved = [(row["cells"][0], row["on"]) for row in releases if row["tests"] and row["cells"][0] in targets.RELEASES]
    assert sorted(proved) == sorted(itertools.product(targets.RELEASES, ("amd64", "arm64")))


def test_a_test_that_is_not_there_proves_nothing():
    row = {"cells": ["x"], "on": "arm64"}
    assert not runs("tests/integration/test_mem.py::test_of_nothing", row)
    assert not runs("tests/integration/test_gc_exact.py::test_collections[1.25.5]", row)  # there with ALL=1 only
    assert not runs("tests/integration/test_doctor.py::test_usage", row)
    assert not runs("scripts/nothing", row)


def test_every_metric_of_the_agent_is_documented() -> None:
    from gotrace.agent import families

    table = (ROOT / "docs" / "metrics.md").read_text()
    for each in families.ALL:
        labels = ", ".join(f"`{label.replace('.', '_')}`" for label in each.labels) or "-"
        assert f"| `{each.sample_name}` | {each.kind} | {labels} | {each.help} |" in table
