"""Spools as the agent writes them, and the values that are in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gotrace.agent.families import PHASE, STW
from gotrace.agent.spool import Spool, Window

BEGIN_NS, MINUTE_NS = 1_780_000_000_000_000_000, 60_000_000_000


class Written:
    """A spool as the agent writes it, and the values that are in it."""

    def __init__(self, folder: Path, host: str = "web-1") -> None:
        self.folder, self.host = folder, host
        self.spool = Spool(str(folder))
        self.window = Window(BEGIN_NS)
        self.values: list[np.ndarray[Any, Any]] = []
        self.random = np.random.default_rng(5)
        self.number = 0

    def begin_segment(self) -> None:
        """What comes is in another file."""
        self.spool.close()
        self.spool = Spool(str(self.folder))

    def minute(self, service: str = "shop", count: int = 3000) -> None:
        values = self.random.lognormal(11, 2, count).astype(np.int64)
        self.values.append(values)
        self.window.add(STW, ("GC mark termination", "total"), values)
        self.window.add(PHASE, ("concurrent mark",), values * 3)
        for value in values.tolist():
            self.window.note(value, BEGIN_NS + self.number * MINUTE_NS, "GC mark termination", 7)
        self.number += 1
        about = {
            "host": {"name": self.host, "kernel": "6.1", "machine": "x86_64", "made_of": {"cpus": 4, "cpu": "EPYC"}},
            "labels": {"service.name": service},
            "processes": 1,
            "version": "1.2",
            **dict.fromkeys(("rss_bytes", "live_bytes", "goal_bytes", "lost"), 0),
        }
        self.spool.write([{**about, **self.window.ended(BEGIN_NS + self.number * MINUTE_NS)}])
