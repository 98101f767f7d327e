"""What the pictures have in common: text that fits and does no harm, and the frame of a page, light and dark."""

from __future__ import annotations

import html as markup
from itertools import accumulate

from gotrace.text import printable

# The beginning of an HTML page, to be formatted with its title; more style follows, then "</style>".
PAGE_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{font: 15px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; margin: 1.5em auto; max-width: 1240px; padding: 0 1em;
background: #fcfcfa; color: #1c1c22}}
h1 {{font-size: 1.3em; margin: 0; overflow-wrap: anywhere}}
h2 {{font-size: 1.05em; margin: 1.6em 0 0.4em}}
svg {{width: 100%; height: auto; display: block}}
table {{border-collapse: collapse; font-variant-numeric: tabular-nums}}
@media (prefers-color-scheme: dark) {{
body {{background: #17181c; color: #e4e4ea}}
}}
"""


def escaped(text: str) -> str:
    """Somebody else's words for SVG and HTML."""
    return markup.escape(printable(text))


def cells(text: str) -> int:
    """How wide a text is at most, in characters of Latin."""
    return sum(map(_width, text))


def cut(text: str, room: int) -> str:
    """``text``, or its beginning with two dots, in no more than ``room`` cells."""
    if cells(text) <= room:
        return text
    ends = accumulate(map(_width, text))
    return text[: sum(end <= room - 2 for end in ends)] + ".."


def _width(char: str) -> int:
    return 1 if char < "\u1100" else 2
