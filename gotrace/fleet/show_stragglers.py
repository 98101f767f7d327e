"""What the longest stops of all hosts waited for, as weighted stacks."""

from __future__ import annotations

from typing import NamedTuple

from gotrace.analysis.flame import Profile, frame_of, profile_of
from gotrace.analysis.stacks import Frame
from gotrace.fleet.database import JOINED, REAL, VALID, Database
from gotrace.text import count_text


class Stragglers(NamedTuple):
    """Stacks in ns of pauses, each ending in the cause; ``explained`` of ``kept`` pauses, on so many ``hosts``."""

    profile: Profile
    explained: int
    kept: int
    hosts: int

    @property
    def subtitle(self) -> str:
        """How much of the fleet that is."""
        if not self.explained:
            return f"None of {count_text(self.kept, 'long pause')} came with an explanation; recordings have them."
        return (
            f"{self.explained:,} of {count_text(self.kept, 'long pause')} (at most 16 of each window or run, and not the"
            f" short ones) came with an explanation, from {count_text(self.hosts, 'host')}"
        )


def stragglers(database: Database, emulated: bool = False) -> Stragglers:
    """Of all pauses that are kept themselves and were explained."""
    only = "" if emulated else f"and {REAL} "
    rows = database.rows(
        "select part.stack, part.cause, sum(part.value_ns)::bigint, count(*), list(distinct part.host) from worst part "
        f"{JOINED} "
        f"where part.metric = 'stw.total' and {VALID} {only}group by all order by all"
    )
    stacks: dict[tuple[Frame, ...], tuple[int, int]] = {}
    hosts: set[str] = set()
    for stack, cause, weight, count, of in rows:
        if cause is None:
            continue
        names = [*(stack or ["[no stack]"]), f"[{cause}]"]
        stacks[tuple(frame_of(name) for name in names)] = (weight, count)
        hosts |= set(of)
    explained = sum(count for _, count in stacks.values())
    return Stragglers(profile_of(stacks), explained, sum(row[3] for row in rows), len(hosts))
