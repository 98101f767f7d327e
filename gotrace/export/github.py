"""What GitHub's runners take from the output of a step: workflow commands, which make annotations.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions; how they are escaped is in the sources
of actions/toolkit (packages/core/src/command.ts).
"""

from __future__ import annotations

from typing import Literal

from gotrace.text import printable

Kind = Literal["error", "warning", "notice"]

_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def command(kind: Kind, message: str, title: str) -> str:
    """A line that annotates the step. Lines of ``message`` stay lines, anything else that acts on a terminal does not."""
    text = "\n".join(printable(line) for line in message.splitlines())
    return f"::{kind} title={_escaped(printable(title), _PROPERTY)}::{_escaped(text, _DATA)}"


def _escaped(text: str, escapes: dict[str, str]) -> str:
    return "".join(escapes.get(char, char) for char in text)
