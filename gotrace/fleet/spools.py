"""Spools of `gotrace serve` as rows: a minute of each service, and what the longest pauses waited for."""

from __future__ import annotations

import contextlib
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
from gotrace.fleet.store import check_columns
from gotrace.recording.reader import Recording
from gotrace.run.kept import recordings_in, told
from gotrace.text import count_text, printable

Causes = Mapping[tuple[int, int], Mapping[str, Any]]  # by pid and length


def name_of(data: bytes) -> str:
    """That of a segment with these lines, whatever it is called, and however much has been written to it since."""
    return "spool:" + hashlib.sha256(data[: data.index(b"\n")]).hexdigest()[:24]


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


def records_of(data: bytes) -> Iterator[dict[str, Any]]:
    """Of whole lines; of one that is no record {}. Raises GotraceError for those of another schema."""
    for line in data.split(b"\n")[:-1]:
        try:
            record = json.loads(line)
            kind = str(record["schema"])
        except (ValueError, TypeError, KeyError, RecursionError):
            yield {}
            continue
        if kind != SCHEMA and kind.startswith(SCHEMA.partition("/")[0]):
            raise GotraceError(f"it has a different version ({printable(kind)})", f"this gotrace reads {SCHEMA}")
        yield record if kind == SCHEMA else {}


def span_of(records: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """The first and last times (since 1970) of records, as far as they can be told."""
    times: list[int] = []
    for record in records:
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            times += (int(record["begin_ns"]), int(record["begin_ns"]) + int(record["length_ns"]))
    return min(times, default=0), max(times, default=0)


def damage_of(lines: int) -> str:
    """What is told of lines that were left out."""
    return f"{count_text(lines, 'damaged line')} left out"


def parts_of(
    records: Iterable[Mapping[str, Any]], about: Told, name: str, causes: Causes, skew_ns: int | None = None
) -> tuple[dict[str, Any], list[Part], int, int]:
    """Columns of the row in "source", other rows, of how many records, and how many were left out as damaged."""
    parts: list[Part] = []
    hosts: dict[str, Mapping[str, Any]] = {}
    first_ns, last_ns, used, damaged = None, None, 0, 0
    for record in records:
        try:
            whose, row = _whose(record, about, name)
            end_ns = whose.start_ns + int(record["length_ns"])
            found: list[Part] = [("period", {**_period(record, whose), "skew_ns": skew_ns})]
            for each in record["histograms"]:
                found += _histogram(whose, each)
            found += (("worst", {**whose.of(), **_worst(each, causes)}) for each in record["worst"])
            for table, columns in [*found, ("host", row), ("source", {"last_ns": end_ns})]:
                check_columns(table, columns)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError):
            damaged += 1
            continue
        hosts[row["fingerprint"]] = row
        first_ns, last_ns = min(first_ns or whose.start_ns, whose.start_ns), max(last_ns or 0, end_ns)
        parts += found
        used += 1
    parts += [("host", {**row, "source": name}) for row in hosts.values()]
    host = next(iter(hosts.values()))["host"] if hosts else None
    return {"kind": "spool", "host": host, "first_ns": first_ns, "last_ns": last_ns}, parts, used, damaged


def _whose(record: Mapping[str, Any], about: Told, name: str) -> tuple[Whose, dict[str, Any]]:
    """And the row of its host."""
    host = about.host_name or str(record["host"]["name"])
    start_ns = int(record["begin_ns"])
    machine = {"architecture": record["host"]["machine"], "kernel": record["host"]["kernel"]}
    row = host_row(host, {**machine, **record["host"].get("made_of", {})}, start_ns, about)
    labels = record["labels"]
    whose = Whose(
        host,
        row["fingerprint"],
        about.service or labels.get("service.name") or labels.get("process.executable.name") or "unknown",
        about.version or record.get("version"),
        start_ns,
        int(record["length_ns"]),
        name,
    )
    return whose, row


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
