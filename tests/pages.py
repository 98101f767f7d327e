"""Pages as tests read them: their elements, words and figures."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

MOST = 400_000  # bytes of a page


class Parsed(HTMLParser):
    """The page's elements, its words without those of scripts, and its tables by their captions, head and rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.heads: list[str] = []
        self.scripts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._in = ""
        self._in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")
        elif tag == "table":
            self.tables[next(word for word in reversed(self.words) if word.strip())] = []
        elif tag == "tr":
            [*self.tables.values()][-1].append([])
        elif tag in ("th", "td"):
            [*self.tables.values()][-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in = ""
        self._in_cell = self._in_cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.words.append(data)
            if self._in == "h2":
                self.heads.append(data)
            elif self._in_cell and self._in != "title":
                [*self.tables.values()][-1][-1][-1] += data

    @property
    def figures(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.scripts[0]) if self.scripts else []
        return found


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []
