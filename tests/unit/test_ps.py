"""The table of `gotrace ps`: names are somebody else's, and terminals are narrow."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import threading
import time
from typing import Any

import pytest

from gotrace.agent.remote import Row
from gotrace.agent.told import add_pauses, rows_of
from gotrace.cli.text import ps
from gotrace.cli.text.layout import rendered
from gotrace.errors import GotraceError
from gotrace.records.ps import Ps, PsProcess
from gotrace.run.files import Sink

SUMMARY: Ps = {"type": "ps", "seen": 90, "go": 2, "shown": 2, "wait_s": None, "unreadable": 0, "unreadable_pids": []}


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
        assert " ".join(lines[0].split()) == "pid name Go where used CPUs Ps quota RSS live heap GC/s longest age symbols"
        assert " ".join(lines[2].split()) == "4194303 api 1.27.3 - 1.50 64 64 2.50 5.00 GiB 1.00 GiB 12.25 - 1 d stripped"
    if room and room >= 80:
        assert {"where", "RSS", "GC/s"} <= set(lines[0].split())


def test_names_are_bounded_in_a_file_and_whole_in_json() -> None:
    """Of a name that is not UTF-8 the bytes are there, as in the agent's /processes."""
    name = "n" * 200 + os.fsdecode(b"\xff")
    written = {}
    for format_ in ("table", "json"):
        stream = io.StringIO()
        ps.write(Sink(stream, format_), format_, [process(name=name)], SUMMARY)
        written[format_] = stream.getvalue()
    assert max(map(len, written["table"].splitlines())) < 160 and f"{'n' * 39}…" in written["table"]
    assert json.loads(written["json"])[0]["name"] == "n" * 200 + "\\xff"


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
    blind = {**changed, "unknown": dict.fromkeys(changed, "its memory cannot be read")}
    many = list(rendered(ps._lines([process(pid=pid, **blind) for pid in range(1, 12)], SUMMARY)))
    assert many[-1] == "Unknown for 1, 2, 3, 4, 5, 6, 7, 8 and 3 more: its memory cannot be read."
    both = [process(pid=pid, **blind, quota_cpus=None) for pid in (1, 2)]
    lines = list(rendered(ps._lines(both, {**SUMMARY, "wait_s": 2.0, "unreadable": 1, "unreadable_pids": [77]})))
    assert " ".join(lines[1].split()) == "1 api 1.27.3 - 1.50 64 ? - 5.00 GiB ? ? - 1 d stripped"
    assert lines[3] == "CPUs used and GC/s: averages over 2 s."
    assert lines[4] == "Unknown for 1, 2: its memory cannot be read."
    assert lines[5] == "1 of 90 processes could not be inspected (pid 77)."
    assert list(rendered(ps._lines([], SUMMARY))) == ["No Go processes found."]


def row(**changed: Any) -> Row:
    return Row(**{"pid": 7, "exe": "/bin/api", "go_version": "go1.27.3", "state": "traced", "reason": "", **changed})


def test_pauses_are_of_the_same_program() -> None:
    known = process(pid=7, exe="/bin/api", unknown={})
    add_pauses([known], [row(longest_pause_ns=2_500_000, traced_s=30.0), row(pid=8)])
    assert (known["longest_pause_ns"], known["traced_s"], known["unknown"]) == (2_500_000, 30.0, {})
    lines = list(rendered(ps._lines([known], SUMMARY)))
    assert (
        " 2.50 ms " in lines[1] and "Longest pause: since the agent began tracing the process, 30 s ago or more." in lines
    )
    add_pauses([none := process(pid=7, exe="/bin/api", unknown={})], [row(traced_s=31.0)])
    assert (none["longest_pause_ns"], none["traced_s"], ps._longest(none, False)) == (None, 31.0, "-")
    lines = list(rendered(ps._lines([process(pid=7), process(pid=8)], SUMMARY, "cannot connect to there")))
    assert all(" ? " in line for line in lines[1:3])  # and not "-", which says that there was no pause
    assert lines[4] == "Longest pause: unknown without an agent: cannot connect to there (--connect URL)."
    for wrong, said in (
        (row(exe="/bin/other", longest_pause_ns=1), "not traced by the agent"),
        (row(state="\x1b[31m" + "x" * 1000), "not traced by the agent: \\x1b[31m" + "x" * 75),
        (row(longest_pause_ns=-1), "implausible value from the agent"),
        (row(longest_pause_ns=10**30), "implausible value from the agent"),
    ):
        one = process(pid=7, exe="/bin/api", unknown={})
        add_pauses([one], [wrong])
        assert (one["longest_pause_ns"], one["unknown"]) == (None, {"longest_pause_ns": said})
        lines = list(rendered(ps._lines([one], SUMMARY)))
        assert " ? " in lines[1] and lines[-1] == f"Unknown for 7: {said}." and all(map(str.isprintable, lines))


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1, 2, 3]", "cannot parse the response from"),
        (b"HTTP/1.1 200 \x1b[31mOK\r\n\r\n" + b"[" * 100_000, "cannot parse the response from"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "responded with status 404"),
        (b"\x1b[31m\r\n\r\n", "cannot connect to"),
        (b"", "did not respond in time"),
    ],
)
def test_an_agent_that_is_none(sent: bytes, said: str) -> None:
    """Whatever answers, it is one printable line, and soon."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError):
                taken, _ = listening.accept()
                with taken:
                    taken.recv(1 << 16)
                    taken.sendall(sent)
                    for _ in range(100 if not sent else 0):  # a byte now and then, for longer than anybody waits
                        taken.sendall(b"H")
                        time.sleep(0.05)

        threading.Thread(target=answer, daemon=True).start()
        begin = time.monotonic()
        with pytest.raises(GotraceError) as raised:
            rows_of(f"http://127.0.0.1:{listening.getsockname()[1]}", patience_s=0.5)
    assert said in raised.value.message and raised.value.message.isprintable() and time.monotonic() - begin < 3
