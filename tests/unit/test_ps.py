"""The table of `gotrace ps`: names are somebody else's, and terminals are narrow."""

from __future__ import annotations

from typing import Any

import pytest

from gotrace.cli.text import ps
from gotrace.cli.text.layout import rendered
from gotrace.records.ps import Ps, PsProcess

SUMMARY: Ps = {"type": "ps", "seen": 90, "go": 2, "shown": 2, "wait_s": None, "unreadable": 0}


def process(**changed: Any) -> PsProcess:
    record: Any = dict.fromkeys(PsProcess.__required_keys__)
    record |= {"type": "process", "pid": 4194303, "name": "api", "stripped": True, "age_s": 90_000.0, "unknown": {}}
    record |= {"go_version": "go1.27.3", "cpus_used": 1.5, "cpus": 64, "gomaxprocs": 64, "quota_cpus": 2.5}
    record |= {"rss_bytes": 5 << 30, "heap_live_bytes": 1 << 30, "gc_per_s": 12.25}
    return {**record, **changed}


LONG = process(
    name="\x1b]0;evil\x07" + "n" * 80,
    container="c" * 60,
    runtime="podman",
    container_id="f" * 64,
    namespace="shop",
    pod="p" * 60,
)


@pytest.mark.parametrize("room", [60, 80, 120, 200, None])
def test_it_fits_and_nothing_acts_on_the_terminal(room: int | None) -> None:
    lines = "\n".join(rendered(ps._lines([LONG, process()], SUMMARY), room)).split("\n")
    assert all(len(line) <= (room or 10_000) and line.isprintable() for line in lines)
    assert {"pid", "name"} <= set(lines[0].split()) and len(lines) >= 4
    if room is None or room >= 200:
        assert " ".join(lines[0].split()) == "pid name Go where used CPUs Ps quota RSS live heap GC/s age symbols"
        assert " ".join(lines[2].split()) == "4194303 api 1.27.3 - 1.50 64 64 2.50 5.00 GiB 1.00 GiB 12.25 1 d stripped"
    if room and room >= 80:
        assert {"where", "RSS", "GC/s"} <= set(lines[0].split())


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({}, "-"),
        ({"user": "1000"}, "user 1000"),
        ({"user": "1000", "unit": "api.service"}, "api.service"),
        ({"unit": "a.service", "container_id": "f" * 64, "runtime": "docker"}, "docker ffffffffffff"),
        ({"container_id": "f" * 64, "runtime": "docker", "container": "shop"}, "docker shop"),
        ({"container_id": "f" * 64, "pod_uid": "u-1", "runtime": "cri-o"}, "?/u-1 (ffffffffffff)"),
        ({"container": "app", "pod_uid": "u-1", "pod": "api-1", "namespace": "shop"}, "shop/api-1 (app)"),
    ],
)
def test_where_it_runs(changed: dict[str, Any], where: str) -> None:
    assert ps.where(process(**changed)) == where


def test_what_is_unknown_is_said_once() -> None:
    changed = dict.fromkeys(("gc_per_s", "heap_live_bytes", "gomaxprocs"))
    blind = {**changed, "unknown": dict.fromkeys(changed, "its memory may not be read")}
    many = list(rendered(ps._lines([process(pid=pid, **blind) for pid in range(1, 12)], SUMMARY)))
    assert many[-1] == "Unknown of 1, 2, 3, 4, 5, 6, 7, 8 and 3 more: its memory may not be read."
    both = [process(pid=pid, **blind, quota_cpus=None) for pid in (1, 2)]
    lines = list(rendered(ps._lines(both, {**SUMMARY, "wait_s": 2.0, "unreadable": 1})))
    assert " ".join(lines[1].split()) == "1 api 1.27.3 - 1.50 64 ? - 5.00 GiB ? ? 1 d stripped"
    assert lines[3] == "CPUs used, and collections a second: averages over 2 s."
    assert lines[4] == "Unknown of 1, 2: its memory may not be read." and lines[5].startswith("1 process may not be")
    assert list(rendered(ps._lines([], SUMMARY))) == ["There is no Go process among 90 processes."]
