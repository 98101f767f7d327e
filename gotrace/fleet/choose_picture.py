"""The way to a choice of machines as a picture: one question below the other, and beside each whom it cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from gotrace.export.charts.page import Markup, Page
from gotrace.export.picture.frame import escaped
from gotrace.fleet.choose import Choice
from gotrace.fleet.choose_words import cut_text, heads, rows, rule_text
from gotrace.fleet.costs import SCRIPT, costs_of, figure
from gotrace.lab.metrics import METRICS
from gotrace.text import printable

_WIDTH, _LINE, _PAD = 1100, 18, 10
_LEFT, _RIGHT = 430, 470  # how wide a question is; where whom it cut begins
_CELL = 7.2  # of a monospaced letter of 12 px


def svg(choice: Choice) -> str:
    """A whole SVG image."""
    parts: list[str] = []
    y = _PAD
    for step in choice.steps:
        asked = _wrapped([step.question, f"yes: {', '.join(each.name for each in step.kept) or 'none'}"], _LEFT)
        said = _wrapped([f"no: {cut_text(each)}" for each in step.cut], _WIDTH - _RIGHT)
        bottom = y + len(asked) * _LINE + 2 * _PAD
        after = max(bottom, y + len(said) * _LINE + 2 * _PAD) + 2 * _PAD
        parts += _box(y, asked, "#3b7dbd", _LEFT)
        parts += _lines(_RIGHT, y, said)
        parts.append(f'<path d="M{_PAD + _LEFT // 2} {bottom} V{after}" stroke="#5a6577"/>\n')
        y = after
    rules = [rule_text(rule, choice) for rule in choice.rules] or ["none meets every limit"]
    lines = _wrapped(rules, _WIDTH - 2 * _PAD)
    parts += _box(y, lines, "#3fa08f", _WIDTH - 2 * _PAD)
    y += len(lines) * _LINE + 3 * _PAD
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
        f'font-family="monospace" font-size="12"><title>{escaped(_title(choice))}</title>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{"".join(parts)}</svg>\n'
    )


def page(choice: Choice) -> str:
    """A whole HTML page: the picture, what it costs, and the evidence as a table."""
    made = Page()
    made.put(Markup(f'<div class="wide" role="region" aria-label="Decision tree" tabindex="0">\n{svg(choice)}</div>'))
    if choice.by_cost and METRICS[choice.metric].dimension == "time":
        drawn = costs_of(
            choice.service, choice.metric, [c for c in choice.candidates if choice.metric in c.measured.estimates]
        )
        made.draw(f"Cost against {choice.metric}", figure(drawn))
    if choice.rules:
        made.table("What is left", heads(choice), rows(choice))
    for note in choice.notes:
        made.say(note)
    for file, problem in choice.broken:
        made.say(f"Left out: {file}: {problem}", "lost")
    return made.made(_title(choice), "svg { max-width: none }", [SCRIPT])


def _title(choice: Choice) -> str:
    return f"Machines for {choice.service}: {' and '.join(map(str, choice.slos))}"


def _wrapped(texts: Iterable[str], width: int) -> list[str]:
    """Lines that fit in so many pixels: nothing of the evidence is cut off."""
    room = int((width - 2 * _PAD) / _CELL)
    return [line for text in texts for line in textwrap.wrap(printable(text), room, subsequent_indent="    ")]


def _box(y: int, lines: list[str], colour: str, width: int) -> Iterator[str]:
    height = len(lines) * _LINE + 2 * _PAD
    yield f'<rect x="{_PAD}" y="{y}" width="{width}" height="{height}" rx="4" fill="none" stroke="{colour}"/>\n'
    yield from _lines(2 * _PAD, y, lines)


def _lines(x: int, y: int, lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        text = escaped(line.lstrip())
        indent = (len(line) - len(line.lstrip())) * _CELL
        yield f'<text x="{x + indent:.0f}" y="{y + _PAD + number * _LINE - 5}" fill="#222222">{text}</text>\n'
