"""What `gotrace doctor` found, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from gotrace.cli.text.table import Table
from gotrace.run.checks import Checks
from gotrace.run.files import Sink
from gotrace.text import printable

_SIGNS = {True: "ok", False: "no", None: "--"}


def write(stream: Sink, format_: str, checks: Checks) -> None:
    """Every check, in one of `export.formats.TABLES`."""
    if format_ == "json":
        parts = {name: [asdict(check) for check in part] for name, part in checks.items()}
        stream.write(json.dumps(parts, indent=2) + "\n")
    else:
        Table(stream).print(lines(checks))


def of_the_host() -> Iterator[str]:
    """What a dry run ends with."""
    from gotrace.run.checks import checks

    yield from ("", "gotrace doctor:", *lines(checks()))


def lines(checks: Checks) -> Iterator[str]:
    """Every check, and what to do about a "no"."""
    for name, part in checks.items():
        yield f"{name}:"
        for check in part:
            yield f"  [{_SIGNS[check.ok]}] {check.name}: {printable(check.value)}"
            if check.ok is not True and check.fix:
                yield f"       -> {printable(check.fix)}"
