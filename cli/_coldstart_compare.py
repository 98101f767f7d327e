"""`gotrace coldstart compare`: two recordings of starts, row by row."""

from __future__ import annotations

import dataclasses
import json
import sys

from gotrace.analysis.start_summary import Change, changes
from gotrace.cli._coldstart_run import Result, replayed
from gotrace.cli._coldstart_table import row_name
from gotrace.recording.reader import Recording
from gotrace.text import duration_text, printable

_FEW = 5  # starts, from which on an interval says something
_LEAST_SHARE = 0.005


def run(before: str, after: str, format_: str, everything: bool) -> None:
    """Print how the starts in the recording ``after`` differ from those in ``before``."""
    results = []
    for path in (before, after):
        with Recording.open(path) as source:
            results.append(replayed(source))
    one, other = results
    found = changes(one.starts, other.starts)
    if format_ == "json":
        rows = [{**dataclasses.asdict(change), "certain": change.certain} for change in found]
        json.dump({"before": _about(before, one), "after": _about(after, other), "rows": rows}, sys.stdout, indent=1)
        print()
        return
    for name, path, result in (("A", before, one), ("B", after, other)):
        print(f"{name}: {printable(path)}: {len(result.starts)} starts of {result.title}")
    if min(len(one.starts), len(other.starts)) < _FEW:
        print(f"Fewer than {_FEW} starts on a side: what may be chance cannot be told. Record more with -n 20.")
    print()
    columns = "{:>9} {:>9} {:>10} {:>25}"
    print(f"{row_name('', 0)} {columns.format('A', 'B', 'B - A', '95 % interval')}")
    least = _LEAST_SHARE * max(found[0].before or 0, found[0].after or 0)
    hidden = 0
    for change in found:
        if change.depth and not everything and abs(change.difference) < least:
            hidden += 1
            continue
        sides = ["-" if value is None else duration_text(value) for value in (change.before, change.after)]
        interval = f"{_signed(change.low)} … {_signed(change.high)}"
        numbers = columns.format(*sides, _signed(change.difference), interval)
        print(f"{row_name(change.name or change.stage, change.depth)} {numbers}  {_verdict(change)}".rstrip())
    if hidden:
        print(f"  ({hidden} rows that changed by less than {_LEAST_SHARE:.1%} of the total; --all shows them)")


def _signed(ns: float) -> str:
    return f"{'-' if ns < 0 else '+'}{duration_text(abs(ns))}"


def _verdict(change: Change) -> str:
    if change.before is None or change.after is None:
        return "only in A" if change.after is None else "only in B"
    if not change.certain:
        return "may be chance"
    return f"{'slower' if change.difference > 0 else 'faster'} ({change.difference / max(1.0, change.before):+.0%})"


def _about(path: str, result: Result) -> dict[str, object]:
    return {"recording": path, "starts": len(result.starts), "target": result.header["target"]}
