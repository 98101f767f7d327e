"""`gotrace.lab.yaml_file`: what is right, and what is said of what is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gotrace.agent.settings import SCHEMA as AGENT
from gotrace.agent.settings import Settings
from gotrace.errors import UsageError
from gotrace.lab.yaml_file import parse, read


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    margin: float = 5
    words: list[str] = []


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    schema: str
    steps: list[Inner]
    runs: int = 1


SCHEMA = "gotrace.test/1"
HEAD = f"schema: {SCHEMA}\n"


def test_a_file(tmp_path: Any) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + 'steps: [{margin: 3, words: [a, "8080"]}]\n')
    assert read(str(path), Outer, SCHEMA) == Outer(SCHEMA, [Inner(3, ["a", "8080"])])


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("steps: [{marign: 3}]", "x.yaml: steps[0]: there is no key 'marign'", "did you mean margin?"),
        ("steps: []\nrun: 3", "x.yaml: there is no key 'run'", "did you mean runs?"),
        ("runs: 3", "x.yaml: the key 'steps' is missing", "correct it in x.yaml"),
        (
            "steps: [{words: [8080]}]",
            "x.yaml: steps[0].words[0]: expected text, got a whole number",
            "correct it in x.yaml",
        ),
        ("steps: []\nsteps: []", "x.yaml, line 3: the key steps appears twice", "remove one of them"),
        ("steps: []\nruns: few", "x.yaml: runs: expected a whole number, got text", "write it like runs: 1"),
        ("steps: [", "x.yaml, line 2: ", "YAML"),
        ("steps: a: b", "x.yaml, line 2: mapping values are not allowed here", "YAML"),
        ("steps: \x07", "x.yaml is not text: ", "UTF-8"),
        ("steps: 2026-13-45", "x.yaml: month must be in 1..12", "quote"),
        ("steps: *unknown", "x.yaml, line 2: found undefined alias 'unknown'", "YAML"),
        ("steps: !!python/object/apply:os.getcwd []", "x.yaml, line 2: could not determine a constructor", "YAML"),
        (f"steps: {'[' * 5000}", "x.yaml is nested too deeply", ""),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse((HEAD + text).encode(), "x.yaml", Outer, SCHEMA)
    assert caught.value.message.startswith(message) and hint in caught.value.hint


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.yaml holds no keys"),
        (b"- a", "x.yaml holds no keys"),
        (b"steps: []", "x.yaml has no key schema"),
        (b"schema: gotrace.test/2", "x.yaml is of gotrace.test/2"),
        (b"\xff\xfe\xff", "x.yaml is not text"),
        (b"schema: \xff", "x.yaml is not text"),
    ],
)
def test_files_of_another_kind(data: bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(data, "x.yaml", Outer, SCHEMA)
    assert caught.value.message.startswith(message)


def test_no_file(tmp_path: Any) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            read(str(path), Outer, SCHEMA)
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(UsageError, match="more than 1 MiB"):
        read(str(tmp_path / "large"), Outer, SCHEMA)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("min_age: 5", "min_age: expected text, got a whole number", "write it like min_age: 30s"),
        ("select: name=api", "select: expected a list, got text", "write it like select: [name=etcd]"),
        ("select: [5]", "select[0]: expected text, got a whole number", "write it like select: [name=etcd]"),
        ("cost_percent: .nan", "cost_percent: expected a number > 0.0", "write it like cost_percent: 0.1"),
        ("spool_bytes: 100MiB", "spool_bytes: expected a whole number, got text", "write it like spool_bytes: 104857600"),
        ("anyone: 1", "anyone: expected true or false, got a whole number", "write it like anyone: false"),
    ],
)
def test_an_agents_settings_say_how_they_are_written(line: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"schema: {AGENT}\n{line}".encode(), "agent.yaml", Settings, AGENT)
    assert (caught.value.message, caught.value.hint) == (f"agent.yaml: {message}", hint)
