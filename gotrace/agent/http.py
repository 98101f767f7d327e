"""A small HTTP/1.1 server for a process that has to stay small: one thread, a selector, and bounds on everything.

Handlers answer from memory, because theirs is the only thread. A client may be slow or hostile: lines, headers and bodies
have limits, every request a time by which it must be complete, and where connections run out, those go first that are
idle, and then those that have left a request unfinished for longest. Beyond loopback it listens only with TLS and a token.
The standard library's `http.server` takes 7 MB more, and a thread for each slow client.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gotrace.agent.requests import Bounds, Request, RequestError, request_in
from gotrace.errors import GotraceError, UsageError
from gotrace.text import printable

if TYPE_CHECKING:
    import ssl

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_TEXT = "text/plain; charset=utf-8"
_CHUNK = 16 << 10
# For the probes of an orchestrator, which have no token; they say no more than yes or no.
_FOR_ALL = ("/healthz", "/readyz")


@dataclass(frozen=True)
class Stream:
    """A body that is made while it is sent: its length in bytes, and its parts."""

    length: int
    parts: Iterable[bytes]


@dataclass(frozen=True)
class Response:
    """An answer; Content-Length, Connection and the like are added."""

    status: int
    body: bytes | Stream = b""
    content_type: str = _TEXT
    headers: Iterable[tuple[str, str]] = ()


@dataclass(frozen=True)
class Route:
    """What answers at a path: a handler for each method (HEAD is GET's), and the longest body it takes, in bytes."""

    handlers: Mapping[str, Callable[[Request], Response]]
    most_body: int = 0


@dataclass(frozen=True)
class Limits:
    """Of connections: their number, and seconds."""

    connections: int = 64
    request_s: float = 5  # from a request's beginning to its end
    response_s: float = 30  # until the client has taken it all
    idle_s: float = 120  # between two requests: longer than most scrape intervals
    last_s: float = 1  # for a client to read why it was refused, before the connection goes


@dataclass(frozen=True)
class Security:
    """Who may ask: paths of files with a bearer token, and with a TLS certificate and its key; "" is none.

    ``anyone`` allows to listen beyond loopback without them. The token's file is read anew when it changes.
    """

    token: str = ""
    certificate: str = ""
    key: str = ""
    anyone: bool = False


class Server:
    """Listens from its making on, and answers in a thread of its own between `start` and `close`.

    ``routes`` are paths and what answers there; ``ready`` gives the reason why it is not ready yet, or "". ``failed`` gets
    what a handler raised, and must not raise itself.

    Raises GotraceError where it cannot listen, UsageError where it should not.
    """

    def __init__(
        self,
        address: tuple[str, int],
        routes: Mapping[str, Route],
        *,
        ready: Callable[[], str] = str,
        security: Security | None = None,
        bounds: Bounds | None = None,
        limits: Limits | None = None,
        failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.responses: Counter[int] = Counter()  # by status
        self._routes = {
            "/healthz": Route({"GET": lambda request: Response(200, b"ok\n")}),
            "/readyz": Route({"GET": lambda request: _readiness(ready())}),
            **routes,
        }
        self._bounds, self._limits, self._failed = bounds or Bounds(), limits or Limits(), failed
        security = security or Security()
        self._token = _Token(security.token, failed) if security.token else None
        self._tls = _tls_context(security) if security.certificate else None
        self._socket = _listening(address, security)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._wake, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, _READ)
        self._selector.register(self._wake, _READ)
        self._clients: dict[int, _Client] = {}
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    @property
    def connections(self) -> int:
        """Those that are open."""
        return len(self._clients)

    def start(self) -> Server:
        """Begin to answer."""
        self._thread.start()
        return self

    def close(self) -> None:
        """End at once, and close every connection."""
        self._waker.close()
        if self._thread.is_alive():
            self._thread.join()
        for each in (*(client.socket for client in self._clients.values()), self._socket, self._wake):
            each.close()
        self._selector.close()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- The loop: every client is a generator that yields what it waits for

    def _serve(self) -> None:
        while True:
            now = time.monotonic()
            soonest = min((client.deadline for client in self._clients.values()), default=now + 60)
            for key, _ in self._selector.select(max(0.0, soonest - now)):
                if key.fileobj is self._wake:
                    return
                if key.fileobj is self._socket:
                    self._accept()
                elif client := self._clients.get(key.fd):
                    self._go_on(client)
            now = time.monotonic()
            for client in [each for each in self._clients.values() if each.deadline <= now]:
                self._end(client)

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except OSError:  # it went away; or there are no descriptors left, then some will be free soon
            time.sleep(0.01)
            return
        if len(self._clients) >= self._limits.connections:
            waiting = [client for client in self._clients.values() if not client.answering]
            if not waiting:
                accepted.close()
                return
            self._end(min(waiting, key=lambda client: (not client.idle, client.since)))
        accepted.setblocking(False)
        with contextlib.suppress(OSError):
            # Head and body are two writes: the second would wait for the client's acknowledgement of the first, 40 ms.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            try:
                accepted = self._tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            except OSError:
                accepted.close()
                return
        client = self._clients[accepted.fileno()] = _Client(accepted)
        client.set(self._limits.request_s)
        client.conversation = self._conversation(client)
        self._selector.register(accepted, _READ)
        self._go_on(client)

    def _go_on(self, client: _Client) -> None:
        try:
            event = next(client.conversation)
        except (StopIteration, OSError):
            self._end(client)
        except Exception as error:  # of a response that cannot be written; the others go on
            self._end(client)
            self._failed(error)
        else:
            self._selector.modify(client.socket, event)

    def _end(self, client: _Client) -> None:
        del self._clients[client.socket.fileno()]
        self._selector.unregister(client.socket)
        client.conversation.close()
        client.socket.close()

    def _conversation(self, client: _Client) -> Generator[int, None, None]:
        if self._tls:
            yield from client.do(client.socket.do_handshake)  # type: ignore[attr-defined]
        keep = True
        while keep:
            head = False
            try:
                request = yield from self._request(client)
                if not request:
                    return
                keep, head = request.keep, request.method == "HEAD"
                response = self._answer(request)
            except RequestError as error:
                keep, response = False, Response(error.status, f"{error}\n".encode(), headers=error.headers)
            client.set(self._limits.response_s, answering=True)
            self.responses[response.status] += 1
            yield from client.send(_head(response, keep))
            if not head:
                for part in [response.body] if isinstance(response.body, bytes) else response.body.parts:
                    yield from client.send(part)
            yield _WRITE  # others have their turn before the next request, even if that has come already
            client.set(self._limits.idle_s, idle=True)
        # Closed on bytes that were not read, the connection would be reset before the client has read the answer.
        client.set(self._limits.last_s)
        with contextlib.suppress(OSError):
            client.socket.shutdown(socket.SHUT_WR)
        while client.socket.fileno() >= 0:
            yield _READ
            if not (yield from client.do(client.socket.recv, _CHUNK)):
                return

    def _request(self, client: _Client) -> Generator[int, None, Request | None]:
        """The next request; None where there is none. Raises RequestError."""
        while True:
            if client.input:
                if client.idle:
                    client.set(self._limits.request_s)
                found = request_in(client.input, self._bounds, lambda asked: self._route(asked).most_body)
                if found:
                    request, length = found
                    del client.input[:length]
                    return request
            received = yield from client.do(client.socket.recv, _CHUNK)
            if not received:
                return None
            client.input += received

    # --- Answers

    def _route(self, request: Request) -> Route:
        """What answers at the path with the method. Raises RequestError."""
        token = None if request.path in _FOR_ALL else self._token
        if token and not token.matches(request.headers.get("authorization", "")):
            raise RequestError(401, "a bearer token is required", [("WWW-Authenticate", "Bearer")])
        route = self._routes.get(request.path)
        if not route:
            raise RequestError(404, "not found")
        if request.method not in (methods := [*route.handlers, *(["HEAD"] if "GET" in route.handlers else [])]):
            raise RequestError(405, "method not allowed", [("Allow", ", ".join(methods))])
        return route

    def _answer(self, request: Request) -> Response:
        handler = self._route(request).handlers["GET" if request.method == "HEAD" else request.method]
        try:
            return handler(request)
        except Exception as error:
            self._failed(error)
            return Response(500, b"internal error\n")


class _Client:
    """A connection, and how far its conversation is."""

    conversation: Generator[int, None, None]

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket
        self.input = bytearray()
        self.set(0)

    def set(self, seconds: float, *, idle: bool = False, answering: bool = False) -> None:
        """What it does now, and for how long it may."""
        self.since = time.monotonic()
        self.deadline = self.since + seconds
        self.idle, self.answering = idle, answering

    def send(self, data: bytes) -> Generator[int, None, None]:
        """All of ``data``."""
        view = memoryview(data)
        while view:
            sent = yield from self.do(self.socket.send, view[: 4 * _CHUNK])
            view = view[sent:]

    def do(self, operation: Callable[..., Any], *arguments: Any) -> Generator[int, None, Any]:
        """The result of an operation on the socket, when it can be done. Raises OSError."""
        while True:
            try:
                return operation(*arguments)
            except BlockingIOError:
                yield _WRITE if operation == self.socket.send else _READ
            except OSError as error:
                # By their names: `ssl` is imported only where it is used.
                event = {"SSLWantReadError": _READ, "SSLWantWriteError": _WRITE}.get(type(error).__name__)
                if not event:
                    raise
                yield event


class _Token:
    """The token in a file, read again when the file changes. Raises UsageError at first; later ``failed`` gets the error,
    once, and no token is accepted until the file can be read again."""

    def __init__(self, path: str, failed: Callable[[Exception], None] = lambda error: None) -> None:
        self._path, self._failed = path, failed
        self._read_at = -1
        self._token = b""
        try:
            self._read()
        except OSError as error:
            raise UsageError(f"{self._cannot_read(error)}", "check the path and its permissions") from None
        if not self._token:
            raise UsageError(f"{printable(path)} has no token", f"openssl rand -hex 32 > {printable(path)}")

    def matches(self, authorization: str) -> bool:
        """Whether a header has it; in a time that does not tell how much of it."""
        import hmac

        try:
            self._read()
        except OSError as error:
            if self._read_at:
                self._failed(GotraceError(f"{self._cannot_read(error)}; every request is refused with 401"))
            self._token, self._read_at = b"", 0
        kind, _, token = authorization.partition(" ")
        return bool(self._token) and kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token)

    def _cannot_read(self, error: OSError) -> str:
        return f"cannot read the token in {printable(self._path)}: {error.strerror}"

    def _read(self) -> None:
        changed = os.stat(self._path).st_mtime_ns
        if changed != self._read_at:
            with open(self._path, "rb") as file:
                self._token = file.read(64 << 10).strip()
            self._read_at = changed


def _head(response: Response, keep: bool) -> bytes:
    length = len(response.body) if isinstance(response.body, bytes) else response.body.length
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {length}",
        f"Connection: {'keep-alive' if keep else 'close'}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in response.headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _readiness(reason: str) -> Response:
    return Response(503, f"{printable(reason)}\n".encode()) if reason else Response(200, b"ready\n")


def _tls_context(security: Security) -> ssl.SSLContext:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(security.certificate, security.key or None, password="")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot use the certificate in {printable(security.certificate)}: {printable(str(error))}",
            "give a certificate and its key, both in PEM without a passphrase",
        ) from None
    return context


def check(address: tuple[str, int], security: Security) -> None:
    """Raises what a `Server` would before it listens."""
    if security.token:
        _Token(security.token)
    if security.certificate:
        _tls_context(security)
    _allowed(address, security)


def _where(address: tuple[str, int]) -> str:
    host, port = address
    return printable(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _allowed(address: tuple[str, int], security: Security) -> tuple[int, Any]:
    """Where to listen, as a socket's family and address. Raises GotraceError, and UsageError where it should not."""
    host, port = address
    try:
        family, _, _, _, resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise _not_listening(address, error) from None
    if not (_is_loopback(str(resolved[0])) or security.anyone or (security.token and security.certificate)):
        raise UsageError(
            f"refusing to serve without authentication on {_where(address)}: not a loopback address",
            "set tls_certificate, tls_key and token_file, or `anyone: true`",
        )
    return family, resolved


def _not_listening(address: tuple[str, int], error: Exception) -> GotraceError:
    reason = getattr(error, "strerror", None) or str(error)
    return GotraceError(f"cannot listen on {_where(address)}: {printable(reason)}", "choose another address with --listen")


def _listening(address: tuple[str, int], security: Security) -> socket.socket:
    listening = None
    family, resolved = _allowed(address, security)
    try:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(resolved)
        listening.listen()
        listening.setblocking(False)
    except (OSError, OverflowError, UnicodeError) as error:
        if listening:
            listening.close()
        raise _not_listening(address, error) from None
    return listening


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")
