"""Markdown as GitHub shows it: tables, and other people's words made harmless."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gotrace.text import printable

# What is markup within a line or a cell. Links, mentions, references and emoji are made of the text behind the escapes, so
# that only something between keeps them from it.
_MARKUP = re.compile(r"[\\`*_{}\[\]()!|~$]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LINKS = re.compile(r"@|#|:(?=//)|(?<=[Ww]{3})\.|:(?=[\w+-]+:)|(?<=GH)-(?=\d)")
_NOTHING = "<!-- -->"


def escaped(text: str) -> str:
    """``text`` so that it shows as it is within a line: no markup, no HTML, no link, no mention."""
    harmless = "".join(_HTML.get(char, char) for char in _MARKUP.sub(r"\\\g<0>", printable(text)))
    return _LINKS.sub(rf"\g<0>{_NOTHING}", harmless)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> Iterator[str]:
    """A table, cell by cell `escaped`; columns in ``left`` are aligned left, others right."""
    yield _row(heads)
    yield _row_of([":---" if at in left else "---:" for at in range(len(heads))])
    for row in rows:
        yield _row(row)


def _row(cells: Sequence[str]) -> str:
    return _row_of([escaped(cell) for cell in cells])


def _row_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
