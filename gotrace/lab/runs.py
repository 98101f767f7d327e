"""Which runs of a report count, and what they are worth. Small to import: an agent does, which has no reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.text import count_text

if TYPE_CHECKING:
    from gotrace.lab.report import Baseline, Run

MOST_ERRORS = 0.001  # of the requests of a run that counts
ONE_SAMPLE = "all runs of one process: a single sample"


def valid_runs(report: Baseline, version: str) -> list[Run]:
    """Those that count, in order."""
    return [run for run in report["runs"] if run["version"] == version and run["valid"]]


def enough(report: Baseline) -> bool:
    """Whether as many runs of each version count as were planned."""
    return all(len(valid_runs(report, each["name"])) >= report["plan"]["runs"] for each in report["versions"])


def extended_text(report: Baseline) -> str:
    """That and when it was extended, in a sentence; "" if it was not."""
    found = report.get("extended") or []
    times = ", then ".join(f"by {count_text(each['runs'], 'run')} after {each['after']}" for each in found)
    return f"Extended {times} of each version" if found else ""


def of_one_process(report: Baseline) -> bool:
    """Whether all runs are of a process that ran before: one sample, however often it was put under load."""
    return any(version.get("pid") is not None for version in report["versions"])
