"""A progress bar for whoever is waiting at a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from gotrace.recording.reader import Recording

# Smaller files are read before anybody looks.
_FROM = 32 << 20
_EVERY_S = 0.1


@contextlib.contextmanager
def reading(size: int, wanted: bool = True) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of bytes read so far, of ``size``; draws a bar on a terminal."""
    if not wanted or size < _FROM or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("reading", total=size)
        yield lambda done: bar.update(task, completed=done)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal that something is going on; yields a function to report progress with.

    Without a thread, which `gotrace.kernel.child` must not find when it forks: drawn when progress is reported.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    spinner, drawn = Spinner("dots", f"{what}…"), 0.0
    with Live(spinner, console=Console(file=sys.stderr), auto_refresh=False, transient=True) as live:
        live.refresh()

        def tell(how_far: str) -> None:
            nonlocal drawn
            if time.monotonic() >= drawn + _EVERY_S:
                drawn = time.monotonic()
                spinner.update(text=f"{what}: {how_far}…")
                live.refresh()

        yield tell


@contextlib.contextmanager
def recording(path: str, nameless: BinaryIO | None = None, bar: bool = True, again: bool = False) -> Iterator[Recording]:
    """`Recording.open` with a progress bar on a terminal; reports a missing end, unless it is read ``again``.

    ``bar`` False: no bar, because lines printed while reading would run into it.
    """
    from gotrace.recording.reader import Recording

    with Recording.open(path, nameless) as source, reading(source.size, bar) as source.tell:
        yield source
    if source.cut_off and not again:
        print("gotrace: the recording is truncated; this is everything up to the last complete chunk", file=sys.stderr)
