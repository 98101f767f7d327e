"""Agents' spools over HTTP: in parts, from where the last time ended, whoever does not answer."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spools import BEGIN_NS, Written

from gotrace.agent import spool_pages
from gotrace.agent.http import Response, Route, Security, Server
from gotrace.agent.remote import Answer, Remote
from gotrace.agent.requests import Request
from gotrace.errors import UsageError
from gotrace.fleet.add import add
from gotrace.fleet.collect import Asked, Bounds, _note, collect, urls_in
from gotrace.fleet.database import opened
from gotrace.fleet.machines import Told
from gotrace.fleet.show import shown
from gotrace.fleet.tables import MOST_SKEW_NS

NOBODY = Told()
HERE = ("127.0.0.1", 0)


def serving(spool: Written, **more: Any) -> Server:
    return Server(HERE, spool_pages.routes(str(spool.folder)), **more)


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.address[1]}"


def fetched(folder: Path, *servers: Server, bounds: Bounds | None = None, **more: str) -> list[Asked]:
    return list(collect(str(folder), [url_of(each) for each in servers], NOBODY, bounds or Bounds(), **more))


def rows(folder: Path) -> list[tuple[Any, ...]]:
    return opened(str(folder)).rows(
        "select host, service, metric, start_ns, bucket, sum(n)::bigint from hist group by all order by all"
    )


def test_what_was_collected_is_what_is_added_of_the_files(tmp_path: Path) -> None:
    spools = [Written(tmp_path / f"spool{number}", f"web-{number}") for number in range(3)]
    for spool in spools:
        for _ in range(4):
            spool.minute()
    with serving(spools[0]) as one, serving(spools[1]) as two, serving(spools[2]) as three:
        asked = fetched(tmp_path / "f", one, two, three)
        assert sorted(str(each.host) for each in asked) == ["web-0", "web-1", "web-2"]
        assert [(each.minutes, each.problem, each.more) for each in asked] == [(4, "", False)] * 3
        assert all(each.skew_ns is not None and abs(each.skew_ns) <= 2 * 10**9 for each in asked)
        assert [each.minutes for each in fetched(tmp_path / "f", one, two, three)] == [0, 0, 0]
        spools[1].minute()
        assert sorted(each.minutes for each in fetched(tmp_path / "f", one, two, three)) == [0, 0, 1]
    add(str(tmp_path / "g"), [str(each.folder) for each in spools], NOBODY)
    assert rows(tmp_path / "f") == rows(tmp_path / "g") != []
    # whoever adds the same spools as files adds nothing twice
    assert all(each.skipped for each in add(str(tmp_path / "f"), [str(each.folder) for each in spools], NOBODY))


def test_it_goes_on_where_it_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of some lines, segments that end, an agent that goes away in the middle, and a bound of bytes."""
    monkeypatch.setattr(spool_pages, "MOST_BYTES", 20_000)
    spool = Written(tmp_path / "spool")
    for number in range(40):
        if number % 15 == 0:
            spool.begin_segment()
        spool.minute(count=500)
    answers = iter(range(1000))

    def dropping(request: Request) -> Any:
        if next(answers) == 7:
            raise OSError("it went away")
        return routes["/spool"].handlers["GET"](request)

    routes = spool_pages.routes(str(spool.folder))
    with Server(HERE, {**routes, "/spool": Route({"GET": dropping})}) as server:
        (first,) = fetched(tmp_path / "f", server)
        assert "status 500" in first.problem and 0 < first.minutes < 40
        (second,) = fetched(tmp_path / "f", server, bounds=Bounds(most_bytes=30_000))
        assert second.more and not second.problem and 0 < second.minutes < 40 - first.minutes
        (third,) = fetched(tmp_path / "f", server)
        assert first.minutes + second.minutes + third.minutes == 40
    add(str(tmp_path / "g"), [str(spool.folder)], NOBODY)
    assert rows(tmp_path / "f") == rows(tmp_path / "g")
    absent = opened(str(tmp_path / "f")).rows("select url, problem from absent order by time_ns")
    assert [each for each, _ in absent] == [url_of(server)] * 2
    assert "status 500" in absent[0][1] and absent[1][1] is None  # the second time it answered


@contextlib.contextmanager
def one_of_three_waits(folder: Path) -> Iterator[tuple[list[Server], threading.Event, threading.Event]]:
    """(agents with a minute each, when the last of them is asked, and until when it says nothing)."""
    spools = [Written(folder / f"spool{number}", f"web-{number}") for number in range(3)]
    for spool in spools:
        spool.minute()
    asked, hold = threading.Event(), threading.Event()

    def held(request: Request) -> Any:
        asked.set()
        hold.wait(600)
        return spool_pages.routes(str(spools[2].folder))["/spool"].handlers["GET"](request)

    with (
        serving(spools[0]) as one,
        serving(spools[1]) as two,
        Server(HERE, {**spool_pages.routes(str(spools[2].folder)), "/spool": Route({"GET": held})}) as three,
    ):
        (folder / "urls").write_text("".join(f"{url_of(each)}\n" for each in (one, two, three)))
        yield [one, two, three], asked, hold


def collecting(folder: Path, *options: str, **streams: Any) -> subprocess.Popen[str]:
    words = ["fleet", "collect", str(folder / "f"), "--from", str(folder / "urls"), *options]
    return subprocess.Popen([sys.executable, "-m", "gotrace.cli", *words], text=True, **streams)


def test_who_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with one_of_three_waits(tmp_path) as (agents, _, hold):
        with collecting(tmp_path) as child:
            time.sleep(2)
            child.kill()
        hold.set()
        assert sum(each.minutes for each in fetched(tmp_path / "f", *agents)) <= 3
    assert opened(str(tmp_path / "f")).rows("select count(*), count(distinct host) from period") == [(3, 3)]


def test_ctrl_c_keeps_whole_agents(tmp_path: Path) -> None:
    """Of one that is being asked nothing is taken; the next time it is."""
    with one_of_three_waits(tmp_path) as (agents, asked, hold):
        with collecting(tmp_path, "--jobs", "1", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert asked.wait(300)
            child.send_signal(signal.SIGINT)
            output, errors = child.communicate(timeout=300)
        assert child.returncode == 130
        assert output.startswith("2 agents of 3: 2 minutes of services"), output
        assert "interrupted: 1 agent not asked" in errors and "Traceback" not in errors
        count = "select count(*), count(distinct host) from period"
        assert opened(str(tmp_path / "f")).rows(count) == [(2, 2)]
        assert not [each for each in (tmp_path / "f").rglob(".*") if each.name != ".lock"]
        hold.set()
        assert sorted(each.minutes for each in fetched(tmp_path / "f", *agents)) == [0, 0, 1]
    assert opened(str(tmp_path / "f")).rows(count) == [(3, 3)]
    assert opened(str(tmp_path / "f")).rows("from absent") == []


def test_who_answers_again_is_not_missing(tmp_path: Path) -> None:
    """With nothing new as well; who is gone again is."""
    spool = Written(tmp_path / "spool")
    spool.minute()
    folder = tmp_path / "f"

    def missing() -> list[tuple[str, int]]:
        return [(url, times) for _, url, times, _, _ in shown(opened(str(folder)), "stw.total.p99", "host").absent]

    with serving(spool) as server:
        url, port = url_of(server), server.address[1]
        fetched(folder, server)
    for times in (1, 2):
        assert [bool(each.problem) for each in collect(str(folder), [url], NOBODY, Bounds())] == [True]
        assert missing() == [(url, times)]
    for _ in range(2):
        with Server(("127.0.0.1", port), spool_pages.routes(str(spool.folder))) as server:
            assert [(each.minutes, each.problem) for each in fetched(folder, server)] == [(0, "")]
        assert missing() == []
    assert opened(str(folder)).rows("select count(*), count(problem) from absent") == [(3, 2)]
    list(collect(str(folder), [url], NOBODY, Bounds()))
    assert missing() == [(url, 3)]


def test_who_is_absent_and_why(tmp_path: Path) -> None:
    spool = Written(tmp_path / "spool")
    spool.minute()
    token = tmp_path / "token"
    token.write_text("secret\n")
    skewed = spool_pages.routes(str(spool.folder))["/spool"].handlers["GET"]

    def odd(request: Request) -> Any:
        return type(skewed(request))(
            200, b"<html>", headers=[("Gotrace-Segment", "../../x.ndjson"), ("Gotrace-Offset", "0")]
        )

    def late(request: Request) -> Any:
        answer = skewed(request)
        headers = [each for each in answer.headers if each[0] != "Date"]
        return type(answer)(200, answer.body, headers=[*headers, ("Date", "Mon, 01 Jan 2024 00:00:00 GMT")])

    with (
        serving(spool, security=Security(token=str(token))) as guarded,
        Server(HERE, {"/processes": Route({"GET": lambda request: Response(200, b"[]")})}) as without,
        Server(HERE, {}) as other,
        Server(HERE, {"/processes": Route({"GET": lambda request: Response(200, b"[7]")})}) as others,
        Server(HERE, {"/processes": Route({"GET": lambda request: Response(502, b"")})}) as proxy,
        Server(HERE, {"/spool": Route({"GET": lambda request: Response(200, b"")})}) as nothing,
        Server(HERE, {"/spool": Route({"GET": odd})}) as html,
        Server(HERE, {**spool_pages.routes(str(spool.folder)), "/spool": Route({"GET": late})}) as skew,
        socket.create_server(HERE) as silent,
    ):
        urls = [url_of(each) for each in (guarded, without, html, skew, other, others, proxy, nothing)]
        urls += [f"http://127.0.0.1:{silent.getsockname()[1]}", "http://127.0.0.1:1"]
        begun = time.monotonic()
        asked = {each.url: each for each in collect(str(tmp_path / "f"), urls, NOBODY, Bounds(patience_s=1))}
        assert time.monotonic() - begun < 8
        problems = [asked[url].problem for url in urls]
        invalid, none = "response is invalid", "no gotrace agent"
        expected = ("status 401", "keeps no spool", invalid, "", none, none, "status 502", invalid, "timed out", "refused")
        for problem, words in zip(problems, expected, strict=True):
            assert words in problem and bool(words) == bool(problem), problems
        assert asked[urls[3]].skew_ns is not None and abs(asked[urls[3]].skew_ns) > MOST_SKEW_NS
        (with_token,) = fetched(tmp_path / "g", guarded, token_file=str(token))
        assert with_token.minutes == 1
    database = opened(str(tmp_path / "f"))
    assert database.rows("select count(*) from absent") == [(9,)]
    assert database.rows("select skew_ns < -300_000_000_000 from period") == [(True,)]


def test_the_routes_are_bounded_and_read_nothing_else(tmp_path: Path) -> None:
    spool = Written(tmp_path / "spool")
    spool.minute()
    (tmp_path / "spool" / f"{BEGIN_NS:019}.7.gotrace").write_bytes(b"x" * 1000)
    (tmp_path / "secret").write_text("no")
    with serving(spool) as server:
        remote = Remote(url_of(server))
        for path in ("/spool?after=../../secret:0", "/spool?after=1:2", "/spool?x", "/spool/recording", "/spool?after="):
            assert remote.asked(path).status == 400
        assert remote.asked("/spool/recording?name=../../secret").status == 400
        assert remote.asked(f"/spool/recording?name={BEGIN_NS + 1:019}.7.gotrace").status == 404
        assert remote.asked(f"/spool/recording?name={BEGIN_NS:019}.7.gotrace").body == b"x" * 1000
        assert remote.asked("/spool/recordings").body == f'["{BEGIN_NS:019}.7.gotrace"]'.encode()
        name = sorted(each.name for each in spool.folder.iterdir() if each.suffix == ".ndjson")[0]
        assert remote.asked(f"/spool?after={name}:999999999").body == b""
        assert remote.asked(f"/spool?after={9:0>19}.ndjson:0").body != b""  # a segment that has gone: the next


def test_the_file_of_urls(tmp_path: Path) -> None:
    file = tmp_path / "urls"
    file.write_text("# mine\n\nhttp://a:1  # one\nhttp://b\nhttp://a:1\n")
    assert urls_in(str(file)) == ["http://a:1", "http://b"]
    file.write_text("\ufeffhttp://a:1/\r\nhttp://a:1\r\n")
    assert urls_in(str(file)) == ["http://a:1"]
    for text, words in (
        ("# none\n", "no URLs"),
        ("http://a\nftp://x\n", "line 2: invalid URL"),
        ("http://[x:1\n", "invalid URL"),
        ("http://a b\n", "invalid URL"),
        ("http://a:99999\n", "invalid URL"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=words):
            urls_in(str(file))


def test_who_answers_nonsense_costs_nobody_else(tmp_path: Path) -> None:
    """Nor itself: what is damaged is passed over, and is not asked for again."""
    good, hurt = Written(tmp_path / "good", "web-1"), Written(tmp_path / "hurt", "web-2")
    for spool in (good, hurt):
        spool.minute()
        spool.minute()
    (segment,) = hurt.folder.iterdir()
    first, last = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(first + b'{"schema": "gotrace.spool/1", "host": 5}\nxxx\n' + last)

    def answering(body: bytes, offset: str = "0") -> Server:
        headers = [("Gotrace-Segment", segment.name), ("Gotrace-Offset", offset)]
        return Server(HERE, {"/spool": Route({"GET": lambda _: Response(200, body, headers=headers)})})

    with (
        serving(good) as one,
        serving(hurt) as two,
        answering(b"no end") as three,
        answering(b"{}\n", "9" * 30) as four,
        answering(b"\n\n") as five,
    ):
        asked = {each.url: each for each in fetched(tmp_path / "f", one, two, three, four, five)}
        found = [asked[url_of(each)] for each in (one, two, three, four, five)]
        assert [each.minutes for each in found] == [2, 2, 0, 0, 0]
        assert "response is invalid" in found[2].problem and "is unknown" in found[3].problem
        assert all(bool(each.hint) == bool(each.problem) for each in found)
        assert found[1].notes == ["2 damaged lines left out"] and found[1].problem == ""
        hurt.minute()
        assert [(each.minutes, each.notes) for each in fetched(tmp_path / "f", two)] == [(1, [])]
    assert opened(str(tmp_path / "f")).rows("select host, count(*) from period group by 1 order by 1") == [
        ("web-1", 2),
        ("web-2", 3),
    ]


def test_nonsense_about_recordings_costs_no_minutes(tmp_path: Path) -> None:
    """Nor is a file written by a name that is none."""
    with contextlib.ExitStack() as stack:
        servers = []
        for number, body in enumerate((b"no", b'[".."]', b'[""]')):
            spool = Written(tmp_path / f"spool{number}", f"web-{number}")
            spool.minute()
            names = Route({"GET": lambda _, body=body: Response(200, body)})  # type: ignore[misc]
            routes = {**spool_pages.routes(str(spool.folder)), "/spool/recordings": names}
            servers.append(stack.enter_context(Server(HERE, routes)))
        asked = {each.url: each for each in fetched(tmp_path / "f", *servers)}
    found = [asked[url_of(each)] for each in servers]
    assert [each.minutes for each in found] == [1, 1, 1]
    assert [each.problem for each in found] == ["its response is invalid", "", ""]


def test_out_of_time_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched is added, and it says what was not."""
    spool = Written(tmp_path / "spool")
    spool.minute()
    monkeypatch.setattr("gotrace.fleet.collect._note", lambda asked, data: (_note(asked, data), time.sleep(1.1)))
    with serving(spool) as server:
        (asked,) = fetched(tmp_path / "f", server, bounds=Bounds(patience_s=1))
    assert (asked.minutes, asked.problem) == (1, "") and "no time was left" in asked.notes[0]


def test_what_keeps_no_spool_is_asked_within_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patience = []

    def asked(_: Remote, path: str, most_bytes: int = 0, patience_s: float = 0, given_up: Any = None) -> Answer:
        patience.append(patience_s)
        time.sleep(0.3)
        return Answer(404, {}, b"")

    monkeypatch.setattr(Remote, "asked", asked)
    (found,) = collect(str(tmp_path / "f"), ["http://127.0.0.1:1"], NOBODY, Bounds(patience_s=0.7))
    assert "no gotrace agent" in found.problem
    assert patience[0] <= 0.7 and patience[1] <= patience[0] - 0.3


def test_two_that_collect_at_once_add_once(tmp_path: Path) -> None:
    """Both have asked what there is before either adds."""
    spool = Written(tmp_path / "spool")
    for _ in range(3):
        spool.minute()
    routes, both = spool_pages.routes(str(spool.folder)), threading.Barrier(2, timeout=60)

    def together(request: Request) -> Any:
        if "after" not in request.query:
            both.wait()
        return routes["/spool"].handlers["GET"](request)

    found: list[int] = []

    def collecting(server: Server) -> None:
        found.extend(each.minutes for each in fetched(tmp_path / "f", server))

    with Server(HERE, {**routes, "/spool": Route({"GET": together})}) as one:
        with Server(HERE, {**routes, "/spool": Route({"GET": together})}) as two:
            threads = [threading.Thread(target=collecting, args=(each,)) for each in (one, two)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
    assert sorted(found) == [0, 3]
    assert opened(str(tmp_path / "f")).rows("select count(*) from period") == [(3,)]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_over_tls_with_a_token(tmp_path: Path) -> None:
    spool = Written(tmp_path / "spool")
    spool.minute()
    certificate, key, token = (str(tmp_path / name) for name in ("certificate", "key", "token"))
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    Path(token).write_text("secret\n")
    folder = str(tmp_path / "f")
    with serving(spool, security=Security(token=token, certificate=certificate, key=key)) as server:
        url = f"https://localhost:{server.address[1]}"

        def hint(url: str = url, **files: str) -> str:
            (asked,) = collect(folder, [url], NOBODY, Bounds(), **files)
            assert asked.minutes == 0 and asked.problem
            return asked.hint

        assert "--ca-file" in hint()
        assert "--token-file" in hint(ca_file=certificate)
        (tmp_path / "wrong").write_text("other")
        assert "not the agent's" in hint(ca_file=certificate, token_file=str(tmp_path / "wrong"))
        assert "host name" in hint(url.replace("localhost", "127.0.0.1"), ca_file=certificate, token_file=token)
        (asked,) = collect(folder, [url], NOBODY, Bounds(), token, certificate)
        assert (asked.minutes, asked.problem) == (1, "")
        before = opened(folder).rows("select count(problem) from absent")
        with pytest.raises(UsageError, match="cannot read the token"):  # that is nobody's absence
            list(collect(folder, [url], NOBODY, Bounds(), str(tmp_path / "none"), certificate))
        assert opened(folder).rows("select count(problem) from absent") == before == [(4,)]
