"""Stacks in a line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gotrace.analysis.goroutines import printed_name

_SHOWN = 8
# Of a Go function its package's path, up to the package; a major version is none.
_PATH = re.compile(r"^[^(\[]*/(?!v\d+\.)")


def in_a_line(functions: Sequence[str]) -> str:
    """The innermost functions of a stack, which comes innermost first, without their packages' paths."""
    more = " < …" if len(functions) > _SHOWN else ""
    names = [_PATH.sub("", printed_name(each)) for each in functions[:_SHOWN]]
    return f"{' < '.join(names)}{more}"
