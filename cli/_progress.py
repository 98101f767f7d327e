"""A progress bar where somebody may be waiting."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

# Smaller files are read before anybody looks.
_FROM = 32 << 20


@contextlib.contextmanager
def reading(size: int, wanted: bool = True) -> Iterator[Callable[[int], None]]:
    """Yields what is to be told how many of ``size`` bytes have been read; on a terminal it is drawn."""
    if not wanted or size < _FROM or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("reading", total=size)
        yield lambda done: bar.update(task, completed=done)
