"""HdrHistogram logs of gotrace (`gotrace export --format hlog`) as rows: what others write does not say its unit."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any

import numpy as np

from gotrace.errors import GotraceError
from gotrace.fleet.machines import Told, host_row
from gotrace.fleet.series import Part, Whose, of_counted
from gotrace.fleet.spools import damage_of

_OURS = "values are nanoseconds"
_LINE = re.compile(r"(?:Tag=([^,]*),)?([0-9.]+),([0-9.]+),[0-9.]+,(\S+)")


def parts_of(path: str, told: Told, name: str) -> tuple[dict[str, Any], list[Part], list[str]]:
    """Of a log: as `gotrace.fleet.recordings.parts_of`. Raises GotraceError."""
    from hdrh.histogram import HdrHistogram

    if not told.host_name or not told.service:
        raise GotraceError("a log names neither its service nor its machine", "give --host-name and --service")
    found: defaultdict[str, HdrHistogram] = defaultdict(lambda: HdrHistogram(1, 3_600_000_000_000, 3))
    begin_s, end_s, ours, cut_off = math.inf, 0.0, False, 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            ours |= line.startswith("#") and _OURS in line
            if line.startswith(("#", '"')) or not line.strip():
                continue
            match = _LINE.fullmatch(line.strip())
            try:
                if match is None:
                    raise ValueError
                begin, length = float(match[2]), float(match[3])
                found[match[1] or ""].decode_and_add(match[4])
            except Exception:  # whatever the decoder finds in what is damaged
                cut_off += 1
                continue
            begin_s, end_s = min(begin_s, begin), max(end_s, begin + length)
    if not ours:
        raise GotraceError("it does not say that its values are nanoseconds", "only logs written by gotrace are read")
    if not math.isfinite(begin_s):
        raise GotraceError("it has no intervals", "was it cut off?")
    begin_ns, end_ns = round(begin_s * 1e9), round(end_s * 1e9)
    row = host_row(told.host_name, {}, begin_ns, told)
    whose = Whose(told.host_name, row["fingerprint"], told.service, told.version, begin_ns, end_ns - begin_ns, name)
    parts: list[Part] = [("host", {**row, "source": name})]
    tags = [tag for tag in found if tag] or [""]  # what has no tag is all the others together
    for tag in tags:
        reason, _, part = tag.partition(".")
        metric, label = (f"stw.{part}", reason.replace("_", " ")) if part else (f"log.{tag}" if tag else "stw.total", "")
        if part == "restart":
            continue
        recorded = [(each.value_iterated_to, each.count_at_value_iterated_to) for each in _recorded(found[tag])]
        values, counts = np.array(recorded, np.int64).reshape(-1, 2).T
        parts += of_counted(whose, metric, label, values, counts)
    notes = ["values have three significant digits: totals and percentiles are no more precise"]
    if cut_off:
        notes.append(damage_of(cut_off))
    return {"kind": "hlog", "host": told.host_name, "first_ns": begin_ns, "last_ns": end_ns}, parts, notes


def _recorded(histogram: Any) -> Any:
    return (each for each in histogram.get_recorded_iterator() if each.count_at_value_iterated_to)
