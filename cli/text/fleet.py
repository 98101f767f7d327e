"""`gotrace fleet add`, `collect` and `sql`, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from gotrace.fleet.add import Outcome
from gotrace.text import count_text, printable

REFUSED = 3  # the exit status where something could not be read, and the others were
_KINDS = {
    "baseline": "report",
    "recording": "recording",
    "spool": "segment of a spool",
    "hlog": "log",
}


def write_added(outcomes: Sequence[Outcome], say: Callable[[str], None]) -> None:
    """A line for each that was refused, or of which there is more to know, and what was added."""
    for each in outcomes:
        if each.problem:
            say(f"{printable(each.path)}: refused: {printable(each.problem)} ({printable(each.hint)})")
        for note in each.notes:
            say(f"{printable(each.path)}: {printable(note)}")
    added = Counter(each.kind for each in outcomes if not each.problem and not each.skipped)
    parts = [count_text(count, _KINDS[kind]).replace("segment of a spools", "segments of spools") for kind, count in added.items()]
    skipped = sum(each.skipped for each in outcomes)
    refused = sum(bool(each.problem) for each in outcomes)
    rest = [f"{skipped} there already"] if skipped else []
    rest += [f"{refused} refused"] if refused else []
    print("; ".join([f"added {', '.join(parts)}" if parts else "nothing added", *rest]))
