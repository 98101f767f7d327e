"""Reports of `gotrace baseline` as rows: every run with its metrics, its latencies, and its pauses from the raw events."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gotrace.errors import GotraceError
from gotrace.fleet.machines import Told, host_row
from gotrace.fleet.recordings import Pauses, causes_of, time_ns
from gotrace.fleet.series import Part, Whose, longest_counted, of_counted
from gotrace.lab import report as reports
from gotrace.recording.reader import Recording
from gotrace.text import count_text


def parts_of(path: str, told: Told, name: str) -> tuple[dict[str, Any], list[Part], list[str]]:
    """Of a report, or the folder of one: as `gotrace.fleet.recordings.parts_of`. Raises GotraceError."""
    report = reports.whole(path)
    folder = reports.file_of(path).parent
    notes: list[str] = []
    try:
        seen_ns = time_ns(report["time"])
        host = told.host_name or _host_of(report, folder)
        row = host_row(host or "", {**report["host"], "emulated": report["plan"].get("emulated")}, seen_ns, told)
        if not host:
            row["host"] = host = f"unnamed {row['fingerprint']}"
            notes.append("its machine name is unknown: give one with --host-name")
        parts: list[Part] = [("host", {**row, "source": name})]
        lacking = 0
        for run in report["runs"]:
            of = next(each for each in report["versions"] if each["name"] == run["version"])
            whose = Whose(
                host,
                row["fingerprint"],
                told.service or os.path.basename(of["exe"]) or run["version"],
                told.version or run["version"],
                time_ns(run["time"]),
                int(run["length_ns"]),
                name,
            )
            parts += _run(whose, f"{name}:{run['order']}", run, of["go_version"], report["plan"])
            found = _pauses(whose, run, folder)
            lacking += found is None
            parts += found or []
    except (ArithmeticError, ValueError, TypeError, KeyError, StopIteration, AttributeError) as error:
        raise GotraceError(f"the report is damaged: {type(error).__name__}: {error}", "measure again") from None
    if lacking:
        notes.append(f"{count_text(lacking, 'run')} without raw events: only percentiles of their pauses are known")
    if not report["complete"]:
        notes.append("it is incomplete: used up to where it was cut off")
    times = [time_ns(run["time"]) for run in report["runs"]] or [seen_ns]
    last_ns = max((at + int(run["length_ns"]) for at, run in zip(times, report["runs"], strict=False)), default=seen_ns)
    return {"kind": "baseline", "host": host, "first_ns": min(times), "last_ns": last_ns}, parts, notes


def _host_of(report: Mapping[str, Any], folder: Path) -> str | None:
    """The machine's name, which its recordings have; None if there are none."""
    for run in report["runs"]:
        try:
            with Recording.open(str(folder / str(run.get("recording")))) as source:
                return str(source.header["host"]["name"]) or None
        except (GotraceError, OSError, KeyError, TypeError):
            continue
    return None


def _run(whose: Whose, run_name: str, run: Mapping[str, Any], go_version: str, plan: Mapping[str, Any]) -> Iterator[Part]:
    load = run["load"]
    yield (
        "run",
        {
            **whose.lasting(),
            "run": run_name,
            "go_version": go_version or None,
            "plan": _plan(plan),
            "load": f"{load.get('tool', 'unknown')}, {load.get('model', 'unknown')}",
            "valid": bool(run["valid"]),
            "reasons": [list(map(str, run["reasons"]))],
            "lost": int(run["lost"]),
        },
    )
    known = {metric: float(value) for metric, value in run["metrics"].items() if value is not None}
    if known:
        yield "value", {**whose.of(), "run": run_name, "metric": list(known), "value": list(known.values())}
    latencies = load.get("histogram")
    if latencies:
        values, counts = (np.array(latencies[each], np.int64) for each in ("value_ns", "count"))
        yield from of_counted(whose, "latency", "", values, counts)
        if load.get("percentiles_are") == "exact":
            yield from longest_counted(whose, "latency", values, counts)


def _plan(plan: Mapping[str, Any]) -> str:
    """Equal for runs of which the load was the same."""
    import hashlib
    import json

    same = {name: plan.get(name) for name in ("load", "warmup_ns", "cpus", "load_cpus")}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]


def _pauses(whose: Whose, run: Mapping[str, Any], folder: Path) -> list[Part] | None:
    """Of the time of the load, as the metrics are; None if they cannot be read."""
    recording = str(run.get("recording") or "")
    path = folder / recording
    try:
        if not recording or not path.resolve().is_relative_to(folder.resolve()):
            return None
        with Recording.open(str(path)) as source:
            assert whose.length_ns is not None
            found = Pauses(source, whose.start_ns, whose.start_ns + whose.length_ns)
            pid = int(source.header["target"]["pid"])
        return list(found.parts(whose, pid, causes_of(run.get("longest") or []), recording))
    except (GotraceError, OSError, KeyError):
        return None
