"""`gotrace top` under a pilot that presses keys: what is on the screen, of a source whose answers are known."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from gotrace.agent.course import Course, nearest_rank, quantile
from gotrace.agent.http import Response, Route, Security, Server
from gotrace.agent.remote import Details, Remote, Row
from gotrace.agent.requests import Request
from gotrace.analysis.exponential import Exponential
from gotrace.cli.text import top as text
from gotrace.cli.text.layout import rendered
from gotrace.cli.tui.top import Top
from gotrace.errors import HostError, UsageError

EVIL = "[red]a\x1b]0;evil\x07[/]\u202e[bold"
MS, MIB = 1_000_000, 1 << 20


def row(pid: int, name: str, max_ms: int = 1, rss: int = 40, **changed: Any) -> dict[str, Any]:
    interval = {"seconds": 2.0, "cycles": 5, "pauses": 10, "paused_ns": 4 * MS, "marking_ns": 500 * MS, "cpu_s": 3.0}
    interval |= {"p50_ns": MS // 2, "p99_ns": max_ms * MS, "max_ns": max_ms * MS}
    found = {"pid": pid, "name": name, "exe": f"/srv/{name}", "go_version": "go1.27.3", "state": "traced", "reason": ""}
    found |= {"traced_s": 10.0, "cycles": 50, "longest_pause_ns": 9 * MS, "rss_bytes": rss * MIB, "cost_ns": MS}
    found |= {"heap_live_bytes": 20 * MIB, "heap_goal_bytes": 44 * MIB, "gomaxprocs": 4, "interval": interval}
    return found | changed


class Made:
    """Three that are traced, two that are not."""

    title = "made"

    def __init__(self) -> None:
        self.all = [row(30, "api", 3, 90), row(20, "shop", 7, 60), row(10, EVIL, 5, 80)]
        self.all += [{"pid": 40, "exe": "/srv/old", "go_version": "go1.15", "state": "cannot be traced", "reason": "old"}]
        self.all += [{"pid": 50, "exe": f"/srv/{EVIL}", "go_version": "", "state": "failed", "reason": EVIL}]
        self.error: Exception | None = None

    def rows(self) -> list[Row]:
        if self.error is not None:
            raise self.error
        return msgspec.convert(self.all, list[Row])

    def details(self, pid: int) -> Details | None:
        for each in self.all:
            if each["pid"] == pid and each["state"] == "traced":
                part = {"count": 1234, "p50_ns": MS, "p90_ns": 2 * MS, "p99_ns": 3 * MS, "max_ns": 4 * MS, "sum_ns": 5 * MS}
                heap = [dict.fromkeys(("start", "end", "live", "goal"), size * MIB) for size in (1, 4, 8)]
                more = {"reasons": [part | {"reason": "GC mark termination", "part": "total"}], "heap": heap}
                more |= {"phases": [part | {"phase": "sweep"}]}
                more |= {"longest": [{"total_ns": 4 * MS, "time_ns": 1_700_000_000_123_000_000, "reason": EVIL}]}
                return msgspec.convert(each | more, Details)
        return None


def drive(script: Callable[[Top, Pilot[None], Made], Awaitable[None]], size: tuple[int, int] = (80, 24)) -> Top:
    async def run() -> Top:
        source = Made()
        app = Top(source, every_s=0.05)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await script(app, pilot, source)
        return app

    return asyncio.run(run())


def names(app: Top) -> list[str]:
    table = app.screen_stack[0].query_one(DataTable)
    return [table.get_row_at(at)[0].plain.strip() for at in range(table.row_count)]


def state(app: Top) -> str:
    return str(app.screen.query_one("#state", Static).render())


def lines(app: Top) -> list[str]:
    """What is on the screen, as text."""
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


async def later(condition: Callable[[], bool], pilot: Pilot[None]) -> None:
    for _ in range(100):
        if condition():
            return
        await pilot.pause(0.02)
    raise AssertionError(lines(pilot.app))  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_columns_go_where_there_is_no_room_and_names_are_harmless(width: int) -> None:
    async def script(app: Top, pilot: Pilot[None], _: Made) -> None:
        seen = "\n".join(lines(app))
        assert all(char.isprintable() for char in seen.replace("\n", "")) and "\u202e" not in seen
        assert "[red]a" in seen and "not traced:" in seen
        heads = " ".join(lines(app)[1].split())
        wide = "pid name max p99 p50 paused GC/s marking MAF RSS live goal CPU Ps longest cycles lost cost"
        assert heads == {200: wide, 80: "pid name max paused GC/s MAF RSS CPU", 40: "pid name max"}.get(width, heads)
        shop = next(line.split() for line in lines(app) if " shop " in line)
        if width == 200:  # 7 ms at most; 4 ms of 2 s; 5 in 2 s; 0.5 s of 2 s; 60 / 20 MiB; 3 s of CPU in 2 s
            assert " ".join(shop[:11]) == "20 shop 7.00 ms 7.00 ms 500 us 0.20% 2.5 25.0%"
            assert " ".join(shop[11:]) == "3.00 60.0 MiB 20.0 MiB 44.0 MiB 150% 4 9.00 ms 50 0 0.01%"
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert names(app) == ["20", "10", "30"] and " ".join(lines(app)[1].split()).endswith("RSS CPU")

    drive(script, (width, 24))


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(app: Top, pilot: Pilot[None], source: Made) -> None:
        assert "3 traced, 2 not" in state(app) and "by longest pause" in state(app)
        for title in [each.title for each in text.SORTS[1:]]:
            await pilot.press("s")
            assert f"by {title}" in state(app)
            if title == "RSS":
                assert names(app) == ["30", "10", "20"]
        await pilot.press("s", "j")
        table = app.query_one(DataTable)
        source.all[0]["interval"]["max_ns"] = 9 * MS  # the chosen one stays chosen when another goes above it
        await later(lambda: names(app) == ["30", "20", "10"], pilot)
        assert table.cursor_row == 2
        await pilot.press("slash", *"sho")
        assert names(app) == ["20"] and "only 'sho'" in state(app)
        await pilot.press("enter", "e", "e")
        assert not app.query_one("#filter", Input).display and names(app) == ["20"]
        written = [json.loads(path.read_text()) for path in sorted(tmp_path.iterdir())]
        assert [each["pid"] for each in written] == [20, 20] and written[0]["interval"]["paused_ns"] == 4 * MS
        await pilot.press("escape")
        assert names(app) == ["30", "20", "10"]
        assert app.query_one("#untraced").display
        await pilot.press("u")
        assert not app.query_one("#untraced").display
        await pilot.press("p")
        source.all[0]["interval"]["max_ns"] = 1
        await pilot.pause(0.2)
        assert names(app)[0] == "30" and "PAUSED" in state(app)
        await pilot.press("p")
        await later(lambda: names(app)[-1] == "30", pilot)
        await pilot.press("question_mark")
        box = [line for line in lines(app) if "│" in line]  # complete, on 80 columns
        assert any("select a process" in line for line in box) and {line.count("│") for line in box} == {2}
        await pilot.press("x", "q")

    assert drive(script).return_code == 0


def test_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(app: Top, pilot: Pilot[None], source: Made) -> None:
        await pilot.press("enter")
        await later(lambda: any("1,234" in line for line in lines(app)), pilot)
        seen = "\n".join(lines(app))
        assert all(char.isprintable() for char in seen.replace("\n", ""))
        for part in ("/srv/shop, pid 20, go1.27.3", "GC mark termination", "1.00 ms", "▁▅█"[1:], "8.00 MiB", "4.00 ms"):
            assert part in seen, part
        await pilot.press("e")
        assert json.loads((tmp_path / "gotrace-top.ndjson").read_text())["reasons"][0]["count"] == 1234
        del source.all[1]
        await later(lambda: "pid 20 is no longer traced" in state(app), pilot)
        await pilot.press("escape")
        await later(lambda: any("shop (ended)" in line for line in lines(app)), pilot)
        monkeypatch.setattr("gotrace.cli.tui.top._ENDED_S", 0)
        await later(lambda: names(app) == ["10", "30"], pilot)

    drive(script, (120, 50))


def test_failures_of_the_source() -> None:
    async def script(app: Top, pilot: Pilot[None], source: Made) -> None:
        source.error = HostError("it does not answer")
        await later(lambda: "it does not answer" in state(app), pilot)
        assert names(app) == ["20", "10", "30"]  # the last that was known
        source.error = None
        await later(lambda: "answer" not in state(app), pilot)
        source.error = RuntimeError("a mistake")
        await later(lambda: app.failure is not None, pilot)

    assert str(drive(script).failure) == "a mistake"


@pytest.mark.parametrize("body", [b"[", b"{}", b'[{"pid": "x"}]', b"[1]", b"\xff", b"[" * 100_000])
def test_an_agent_elsewhere(body: bytes, tmp_path: Path) -> None:
    made, bodies = Made(), [body]

    def answer(request: Request) -> Response:
        if not request.query:
            return Response(200, bodies[0])
        found = made.details(int(request.query.removeprefix("pid=")))
        return Response(200, msgspec.json.encode(found)) if found else Response(404)

    token = tmp_path / "token"
    token.write_text("secret")
    routes = {"/processes": Route({"GET": answer})}
    with Server(("127.0.0.1", 0), routes, security=Security(token=str(token))) as server:
        url = f"http://127.0.0.1:{server.address[1]}"
        with pytest.raises(HostError, match="status 401"):
            Remote(url).rows()
        remote = Remote(f"{url}/", str(token))
        with pytest.raises(HostError, match="cannot parse the response"):
            remote.rows()
        bodies[0] = json.dumps(made.all).encode()
        assert remote.rows() == made.rows() and remote.details(20) == made.details(20) and remote.details(7) is None
    with pytest.raises(HostError, match="cannot connect to"):
        remote.rows()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_an_agent_with_a_certificate_of_a_private_ca(tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    made += ["-keyout", key, "-out", certificate, "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(made, check=True, capture_output=True)
    routes = {"/processes": Route({"GET": lambda request: Response(200, b"[]")})}
    with Server(("127.0.0.1", 0), routes, security=Security(certificate=certificate, key=key)) as server:
        url = f"https://127.0.0.1:{server.address[1]}"
        with pytest.raises(HostError) as refused:
            Remote(url).rows()
        assert "certificate" in refused.value.message and "--ca-file" in refused.value.hint
        assert Remote(url, ca_file=certificate).rows() == []
    for options, what in (({"ca_file": key}, "CA"), ({"ca_file": "/nowhere"}, "CA"), ({"token_file": "/nowhere"}, "token")):
        with pytest.raises(UsageError, match=f"cannot read the {what} in"):
            Remote(url, **options).rows()


def test_details_say_what_they_cover() -> None:
    found = {"traced_s": 60.0, "reasons": [], "phases": [], "longest": [], "heap": []}
    for changed, said in (
        ({}, "Pauses since this page was first opened; percentiles accurate to 2.2%"),
        ({"details_s": 12.34}, "Pauses since this page was first opened, 12.3 s ago; percentiles accurate to 2.2%"),
        ({"details_s": 59.9}, "Pauses since tracing began; percentiles accurate to 2.2%"),
    ):
        shown = list(rendered(text.details(msgspec.convert(row(1, "api") | found | changed, Details))))
        assert said in shown
    course, told = Course(), Course().details()
    assert told["details_s"] < 1 and not course.detailed and Course(detailed=True).details()["details_s"] < 1
    course.details()
    began, course.detailed_at = course.detailed_at, course.detailed_at - 100
    assert 100 <= course.details()["details_s"] < 101 and began > course.detailed_at  # and not since the second request


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentiles_of_buckets_are_within_a_bucket(values: list[int], share: float) -> None:
    array = np.array(values)
    exact = sorted(values)[max(1, int(np.ceil(share * len(values)))) - 1]
    assert nearest_rank(array, share) == exact
    kept = Exponential().plus(array)
    width = 2 ** (1 / 2**kept.schema)
    assert exact * (1 - 1e-9) - 1 <= quantile(kept, share) <= exact * width + 1
