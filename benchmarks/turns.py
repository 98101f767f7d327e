"""Measurements of several ways in turns, so that what changes over time changes all of them alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TypeVar

Found = TypeVar("Found")


def in_turns(ways: Mapping[str, Callable[[], Found]], rounds: int) -> dict[str, list[Found]]:
    """What each way measured in each of ``rounds``, each time in another order."""
    found: dict[str, list[Found]] = {name: [] for name in ways}
    shuffled = random.Random(1)
    for _ in range(rounds):
        for name in shuffled.sample(list(ways), len(ways)):
            found[name].append(ways[name]())
    return found
