"""Spools of `gotrace serve` as rows: a minute of each service, and what the longest pauses waited for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gotrace.agent.spool import SCHEMA
from gotrace.analysis.exponential import SCHEMA as BUCKETS
from gotrace.errors import GotraceError
from gotrace.fleet.machines import Told, host_row
from gotrace.fleet.series import Part, Whose, histogram
from gotrace.recording.reader import Recording
from gotrace.run.kept import recordings_in, told

Causes = Mapping[tuple[int, int], Mapping[str, Any]]  # by pid and length


def name_of(segment: str, first_line: bytes) -> str:
    """A segment's, wherever it was copied to, and however much has been written to it."""
    return "spool:" + hashlib.sha256(os.path.basename(segment).encode() + b"\n" + first_line).hexdigest()[:24]


def whole_lines(data: bytes) -> bytes:
    """Without a line that is still being written, or was cut off."""
    return data[: data.rfind(b"\n") + 1]


def causes_in(folder: str, first_ns: int, last_ns: int) -> tuple[Causes, list[str]]:
    """What the agent kept of pauses between two times (since 1970), and the names of recordings that cannot be read."""
    found: dict[tuple[int, int], Mapping[str, Any]] = {}
    broken = []
    for path in recordings_in(folder):
        if first_ns <= int(os.path.basename(path).partition(".")[0]) <= last_ns:
            try:
                with Recording.open(path) as source:
                    kept = told(source)
            except (GotraceError, OSError):
                broken.append(os.path.basename(path))
                continue
            if kept is not None:
                found[kept["pid"], kept["total_ns"]] = kept
    return found, broken


def records_of(data: bytes) -> list[dict[str, Any]]:
    """Of whole lines. Raises GotraceError for those of another schema, or that are damaged."""
    found = []
    for line in data.splitlines():
        try:
            record = json.loads(line)
            kind = record["schema"]
        except (ValueError, TypeError, KeyError):
            raise GotraceError("a line of it is damaged", "copy it again") from None
        if kind != SCHEMA:
            raise GotraceError(f"it is of another version ({kind})", f"this gotrace reads {SCHEMA}")
        found.append(record)
    return found


def parts_of(
    records: Iterable[Mapping[str, Any]], about: Told, name: str, causes: Causes, skew_ns: int | None = None
) -> tuple[dict[str, Any], list[Part]]:
    """Columns of the row in "source", and other rows. Raises GotraceError for what is damaged."""
    parts: list[Part] = []
    hosts: dict[str, Mapping[str, Any]] = {}
    first_ns, last_ns = 1 << 62, 0
    try:
        for record in records:
            whose = _whose(record, about, name, hosts)
            first_ns, last_ns = min(first_ns, whose.start_ns), max(last_ns, whose.start_ns + record["length_ns"])
            parts.append(("period", {**_period(record, whose), "skew_ns": skew_ns}))
            for each in record["histograms"]:
                parts += _histogram(whose, each)
            parts += (("worst", {**whose.of(), **_worst(each, causes)}) for each in record["worst"])
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise GotraceError(f"a line of it is damaged: {type(error).__name__}: {error}", "copy it again") from None
    parts += [("host", {**row, "source": name}) for row in hosts.values()]
    host = next(iter(hosts.values()))["host"] if hosts else None
    return {"kind": "spool", "host": host, "first_ns": first_ns, "last_ns": last_ns}, parts


def _whose(record: Mapping[str, Any], about: Told, name: str, hosts: dict[str, Mapping[str, Any]]) -> Whose:
    host = about.host_name or str(record["host"]["name"])
    start_ns = int(record["begin_ns"])
    machine = {"architecture": record["host"]["machine"], "kernel": record["host"]["kernel"]}
    row = host_row(host, {**machine, **record["host"].get("made_of", {})}, start_ns, about)
    hosts[row["fingerprint"]] = row
    labels = record["labels"]
    return Whose(
        host,
        row["fingerprint"],
        about.service or labels.get("service.name") or labels.get("process.executable.name") or "unknown",
        about.version or record.get("version"),
        start_ns,
        int(record["length_ns"]),
        name,
    )


def _period(record: Mapping[str, Any], whose: Whose) -> dict[str, Any]:
    sizes = {f"{each}_bytes": record.get(f"{each}_bytes") or None for each in ("rss", "heap", "live", "goal")}
    known = {each: record.get(each) for each in ("go_version", "gogc", "gomaxprocs", "lost")}
    return {**whose.lasting(), "processes": int(record["processes"]), **sizes, **known}


def _histogram(whose: Whose, each: Mapping[str, Any]) -> Iterator[Part]:
    metric, label = _named(each["name"], each["labels"])
    if not metric:
        return
    if each["schema"] != BUCKETS:
        raise ValueError(f"buckets of schema {each['schema']}")
    total = {column: int(each[column]) for column in ("count", "zeros", "sum_ns", "min_ns", "max_ns")}
    indexes, counts = (list(map(int, column)) for column in each["buckets"])
    yield from histogram(whose, metric, label, (indexes, counts), total)


def _named(family: str, labels: Mapping[str, str]) -> tuple[str, str]:
    """A metric as it is called here, and its label; "" for what is not wanted: the sum of others, or unknown."""
    if family == "gotrace.stw.duration" and labels["part"] != "restart":
        return f"stw.{labels['part']}", labels["reason"]
    if family == "gotrace.gc.phase.duration":
        return {"concurrent mark": "gc.mark", "sweep": "gc.sweep"}.get(labels["phase"], f"gc.{labels['phase']}"), ""
    return "", ""


def _worst(each: Mapping[str, Any], causes: Causes) -> dict[str, Any]:
    cause = causes.get((int(each["pid"]), int(each["length_ns"])), {})
    return {
        "metric": "stw.total",
        "label": str(each["reason"]),
        "time_ns": int(each["time_ns"]),
        "value_ns": int(each["length_ns"]),
        "pid": int(each["pid"]),
        "cause": cause.get("cause"),
        "stack": [list(cause["code"])[::-1] if cause else None],
        "recording": cause.get("file"),
    }
