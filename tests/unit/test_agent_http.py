"""The agent's HTTP server, and clients that are slow, greedy, or do not speak HTTP."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import PATIENCE_S
from gotrace.agent.http import Limits, Response, Route, Security, Server, Stream
from gotrace.agent.metrics_page import MetricsPage
from gotrace.agent.requests import Bounds, Request, RequestError, request_in
from gotrace.errors import GotraceError, UsageError
from gotrace.export.metrics.model import Family, Registry, Resource
from gotrace.export.metrics.negotiate import OPENMETRICS, PROTOBUF, TEXT

LOST = Family("gotrace.events.lost", "counter", "{event}", "Events that were lost.")
BIG = 4 << 20
HELLO = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"


def echo(request: Request) -> Response:
    return Response(200, request.body)


def broken(request: Request) -> Response:
    raise RuntimeError("secret")


ROUTES = {
    "/hello": Route({"GET": lambda request: Response(200, b"hello " + request.query.encode())}),
    "/echo": Route({"POST": echo}, most_body=100),
    "/broken": Route({"GET": broken}),
    "/big": Route({"GET": lambda request: Response(200, Stream(BIG, (bytes(1 << 16) for _ in range(BIG >> 16))))}),
}

Serving = Callable[..., Server]


@pytest.fixture
def serving() -> Iterator[Serving]:
    """serving(**options) -> a server that answers."""
    with contextlib.ExitStack() as stack:
        yield lambda routes=ROUTES, **options: stack.enter_context(Server(("127.0.0.1", 0), routes, **options))


def connected(server: Server) -> socket.socket:
    return socket.create_connection(server.address, timeout=PATIENCE_S)


def said(server: Server, data: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    with connected(server) as client:
        client.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            return b"".join(iter(lambda: client.recv(1 << 16), b""))
    return b""


def get(server: Server, path: str = "/hello", method: str = "GET", body: bytes | None = None, **headers: str) -> Any:
    connection = http.client.HTTPConnection(*server.address, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers


# --- What is answered


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /hello HTTP/1.0\r\n\r\n", 200),
        (b"GET http://there/hello HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /readyz HTTP/1.0\r\n\r\n", 200),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"BREW /hello HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 20000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * 101 + b"\r\n", 431),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA : a\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA: a\nB: b\r\n\r\n", 400),
        (b"GET /hello HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /broken HTTP/1.0\r\n\r\n", 500),
    ],
)
def test_a_request_gets_its_status(serving: Serving, request_: bytes, status: int) -> None:
    server = serving()
    answer = said(server, request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in head and b"Content-Length: %d" % len(body) in head
    assert b"secret" not in answer and b"Traceback" not in answer
    assert server.responses == {status: 1}


def test_head_is_get_without_a_body(serving: Serving) -> None:
    server = serving()
    status, body, headers = get(server, "/hello?x=1", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(b"hello x=1")))
    assert get(server, "/hello?x=1")[:2] == (200, b"hello x=1")
    assert get(server, "/nothing", "HEAD")[:2] == (404, b"")
    assert get(server, "/hello", "PUT")[2]["Allow"] == "GET, HEAD"


def test_a_connection_stays_and_takes_requests_ahead(serving: Serving) -> None:
    server = serving()
    post = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n%05d"
    with connected(server) as client:
        client.sendall(
            b"".join(post % at for at in range(500)) + HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        answers = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert [answers.split(b"HTTP/1.1 200 OK")[at + 1][-5:] for at in range(500)] == [b"%05d" % at for at in range(500)]
    assert server.responses == {200: 501}


def test_a_handler_that_fails_is_told_of(serving: Serving) -> None:
    failures: list[Exception] = []
    unwritable = Route({"GET": lambda request: Response(200, headers=[("X", "\u2603")])})
    server = serving({**ROUTES, "/unwritable": unwritable}, failed=failures.append)
    assert get(server, "/broken")[:2] == (500, b"internal error\n")
    assert said(server, b"GET /unwritable HTTP/1.0\r\n\r\n") == b""
    assert get(server)[0] == 200
    assert [type(each) for each in failures] == [RuntimeError, UnicodeEncodeError]


def test_readiness(serving: Serving) -> None:
    reasons = ["no probes\x1b[0m yet"]
    server = serving(ready=lambda: reasons[0] if reasons else "")
    assert get(server, "/readyz")[:2] == (503, b"no probes\\x1b[0m yet\n")
    reasons.clear()
    assert get(server, "/readyz")[0] == 200


# --- Clients that are slow or greedy


def test_slow_clients_neither_stay_nor_keep_others_out(serving: Serving) -> None:
    server = serving(limits=Limits(connections=8, request_s=1.0))
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        slow = [stack.enter_context(connected(server)) for _ in range(8)]
        for each in slow:
            each.sendall(b"GET /hello HTTP/1.1\r\nHo")
        assert get(server)[0] == 200  # in the place of the first
        for each in slow:
            assert each.recv(100) == b""
        assert time.monotonic() - began >= 1.0
    with connected(server) as dripping:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in HELLO * 100:
                dripping.sendall(bytes((byte,)))
                time.sleep(0.05)
                dripping.settimeout(0)
                with contextlib.suppress(BlockingIOError):
                    if not dripping.recv(100):
                        break
                dripping.settimeout(1)
        assert time.monotonic() - began < 5


def test_who_does_not_read_does_not_hold_up_others(serving: Serving) -> None:
    server = serving(limits=Limits(response_s=1.0))
    with connected(server) as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        time.sleep(0.1)
        assert get(server)[0] == 200
        end = time.monotonic() + PATIENCE_S
        while server.connections and time.monotonic() < end:
            time.sleep(0.05)
        assert server.connections == 0
    assert len(get(server, "/big")[1]) == BIG


def test_who_sends_without_end_does_not_hold_up_others(serving: Serving) -> None:
    server = serving()
    with connected(server) as flood:
        flood.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while flood.send(HELLO * 1000):
                pass
        assert get(server)[0] == 200


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_are_too_odd(data: bytes, cut: int) -> None:
    for text in (data, HELLO[: cut % len(HELLO)] + data, HELLO.replace(b"x", data)):
        try:
            found = request_in(text, Bounds(60, 100, 5), lambda asked: 10)
        except RequestError as error:
            assert error.status in (400, 411, 413, 414, 431, 505)
        else:
            assert found is None or 0 < found[1] <= len(text)


@given(st.integers(0, 200))
def test_a_part_of_a_request_is_none_yet(cut: int) -> None:
    whole = b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789"
    found = request_in(whole[:cut] if cut < len(whole) else whole + b"GET", Bounds(), lambda asked: 10)
    if cut < len(whole):
        assert found is None
    else:
        assert found and found[1] == len(whole)
        assert (found[0].path, found[0].query, found[0].body, found[0].keep) == ("/a", "b", b"0123456789", True)


# --- Who may ask


def test_beyond_loopback_it_wants_tls_and_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    for security in (Security(), Security(token=str(token))):
        with pytest.raises(UsageError, match="refusing to serve without authentication"):
            Server(("0.0.0.0", 0), {}, security=security)
    Server(("0.0.0.0", 0), {}, security=Security(anyone=True)).close()
    with pytest.raises(UsageError, match="has no token"):
        token.write_text("\n")
        Server(("127.0.0.1", 0), {}, security=Security(token=str(token)))
    with pytest.raises(UsageError, match="cannot read the token"):
        Server(("127.0.0.1", 0), {}, security=Security(token="/nowhere"))
    with Server(("127.0.0.1", 0), {}) as server, pytest.raises(GotraceError, match="in use"):
        Server(server.address, {})


def test_a_token_is_asked_for_and_may_change(serving: Serving, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    failures: list[Exception] = []
    server = serving(security=Security(token=str(token)), failed=failures.append)
    status, _, headers = get(server)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert get(server, "/healthz")[0] == 200
    assert get(server, Authorization="Bearer first")[0] == 200
    assert get(server, Authorization="Basic first")[0] == get(server, Authorization="Bearer firs")[0] == 401
    assert get(server, "/echo", "POST", b"x" * 50, Authorization="Bearer \xff")[0] == 401
    token.write_text("second")
    os.utime(token, ns=(1, 1))
    assert get(server, Authorization="Bearer first")[0] == 401
    assert get(server, Authorization="Bearer second")[0] == 200
    token.unlink()
    assert [get(server, Authorization="Bearer second")[0] for _ in range(3)] == [401] * 3
    assert [str(each) for each in failures] == [
        f"cannot read the token in {token}: No such file or directory; every request is refused with 401"
    ]
    token.write_text("second")
    os.utime(token, ns=(1, 1))
    assert get(server, Authorization="Bearer second")[0] == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_tls(serving: Serving, tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    made += ["-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(made, check=True, capture_output=True)
    with pytest.raises(UsageError, match="cannot use the certificate"):
        serving(security=Security(certificate=key))
    server = serving(security=Security(certificate=certificate, key=key), limits=Limits(request_s=1.0))
    context = ssl.create_default_context(cafile=certificate)
    with connected(server):  # who does not begin the handshake holds up nobody
        connection = http.client.HTTPSConnection(*server.address, timeout=PATIENCE_S, context=context)
        for _ in range(2):
            connection.request("GET", "/big")
            assert len(connection.getresponse().read()) == BIG
        connection.close()
    assert said(server, HELLO)[:4] != b"HTTP"
    with connected(server) as client, context.wrap_socket(client, server_hostname="127.0.0.1") as inner:
        inner.sendall(HELLO * 3 + b"nonsense\r\n")
        assert b"".join(iter(lambda: inner.recv(1 << 16), b"")).count(b"HTTP/1.1 200") == 3


# --- The page of metrics


def test_a_page_is_made_once_for_all_who_ask_meanwhile() -> None:
    registry, clock = Registry([LOST]), [0.0]
    counter = registry.number(LOST, Resource.of({"service.name": "a"}))
    page = MetricsPage(registry, now=lambda: clock[0])

    def asked(accept: str = "", encoding: str = "") -> bytes:
        response = page.answer(Request("GET", "/metrics", "", {"accept": accept, "accept-encoding": encoding}, True))
        body = response.body
        if isinstance(body, bytes):
            assert ("Content-Encoding", "gzip") in response.headers
            return gzip.decompress(body)
        data = b"".join(body.parts)
        assert len(data) == body.length
        return data

    assert asked() == asked(encoding="gzip") and asked().endswith(b" 0\n")
    counter.add(1)
    assert asked().endswith(b" 0\n")
    assert asked("application/openmetrics-text").split(b"\n")[2].endswith(b" 1")
    clock[0] = 1.0
    assert asked().endswith(b" 1\n")


# In a process of its own: 100 services with 20 histograms each, and gauges up to the bound; every format is asked for.
FULL = """
import sys, time
import numpy as np
from gotrace.agent.http import Server
from gotrace.agent.metrics_page import MetricsPage
from gotrace.export.metrics.model import Exemplar, Family, Registry, Resource
pauses = Family("gotrace.stw.duration", "histogram", "s", "Pauses.", ("reason",))
memory = Family("go.memory.used", "gauge", "By", "Memory.", ("kind",))
registry = Registry([pauses, memory], 5000)
values = (1000 * 2.0 ** (np.arange(600) / 40)).astype(np.int64)
for at in range(100):
    service = Resource.of({"service.name": f"service-{at}", "k8s.pod.name": f"service-{at}-7f96d7c6c4-x2x4z"})
    for reason in range(20):
        series = registry.histogram(pauses, service, f"reason {reason}")
        series.observe(values[at:], Exemplar.of(int(values[-1]), {"cause": "run queue"}, time.time_ns()))
    for kind in range(24):
        registry.number(memory, service, f"kind {kind}").set(at)
with Server(("127.0.0.1", 0), {"/metrics": MetricsPage(registry).route}) as server:
    print(server.address[1], registry.series, flush=True)
    sys.stdin.readline()
    began = time.process_time()
    print(flush=True)
    sys.stdin.readline()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0], time.process_time() - began)
heavy = {"http.server", "http.client", "email", "ssl", "google.protobuf", "urllib.request", "prometheus_client"}
print(*heavy & set(sys.modules))
"""


def test_a_full_page_fits_into_the_memory_of_the_agent_and_a_hundred_scrapes_into_a_second() -> None:
    command = [sys.executable, "-c", FULL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        assert process.stdin and process.stdout
        port, series = process.stdout.readline().split()
        assert int(series) == 4400
        client = http.client.HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE_S)

        def scraped(accept: str, encoding: str) -> int:
            client.request("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": encoding})
            answer = client.getresponse()
            assert (answer.status, answer.headers["Content-Type"]) == (200, accept)
            return len(answer.read())

        for each in (TEXT, OPENMETRICS, PROTOBUF):
            assert 10_000 < scraped(each.content_type, "gzip") < scraped(each.content_type, "identity")
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        began = time.monotonic()
        for _ in range(200):
            scraped(PROTOBUF.content_type, "gzip")
        took_s = time.monotonic() - began
        process.stdin.write("\n")
        process.stdin.flush()
        rss_kib, cpu_s = process.stdout.readline().split()
        assert process.stdout.read().split() == []
        client.close()
    assert int(rss_kib) < 45_000
    assert float(cpu_s) < 1 + took_s / 2  # two seconds' worth of scrapes, and the pages made meanwhile
