"""Machines, as rows of the table "host"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gotrace.errors import UsageError
from gotrace.fleet.tables import MOST_NAME, TABLES
from gotrace.kernel.host import is_emulated

_MADE_OF = tuple(name for name in TABLES["host"] if name not in ("host", "fingerprint", "seen_ns", "emulated"))


@dataclass(frozen=True)
class Told:
    """What the user says of files that do not say it themselves, or not rightly; None: nothing. Raises UsageError."""

    host_name: str | None = None
    service: str | None = None
    version: str | None = None
    provider: str | None = None
    instance: str | None = None
    emulated: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, str) and len(value) > MOST_NAME:
                raise UsageError(f"--{name.replace('_', '-')} is longer than {MOST_NAME} characters", "give a shorter name")


def host_row(name: str, machine: Mapping[str, Any], seen_ns: int, told: Told) -> dict[str, Any]:
    """Of a `gotrace.kernel.machine.Host`, or as much of it as is known."""
    made_of = {each: machine.get(each) for each in _MADE_OF}
    made_of |= {each: value for each in ("provider", "instance") if (value := getattr(told, each)) is not None}
    emulated = told.emulated or bool(machine.get("emulated")) or is_emulated(machine.get("cpu"))
    fingerprint = hashlib.sha256(json.dumps([emulated, made_of]).encode()).hexdigest()[:12]
    return {"host": name, "fingerprint": fingerprint, "seen_ns": seen_ns, "emulated": emulated, **made_of}


def short_build(build_id: str | None) -> str | None:
    """A build's content, as Go's ID has it: the last of its parts; None if there is none."""
    return (build_id or "").rpartition("/")[2][:12] or None
