"""A gate over HTTP, for what rolls out a version step by step: Argo Rollouts asks, Flagger posts.

`GET /gate` answers ``{"verdict": ..., "result": ...}``, always with status 200 where there is a verdict, as Argo takes
another status for an error of the measurement. `POST /` answers 200 for a pass and 409 for anything else, with the reason
as the body, which Flagger writes into its events. Nothing is ever written; bodies and connections are bounded, and
verdicts are made one after the other.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, SHUT_WR, socket
from typing import Any

from gotrace.analysis.stats.verdicts import Outcome
from gotrace.errors import GotraceError
from gotrace.lab import gate_answers as answers
from gotrace.lab.gate import Gated
from gotrace.text import printable

_MOST_AT_ONCE = 16  # connections
_PATIENCE_S = 10  # for a client that says nothing
_MOST_LAST_BYTES, _LAST_BYTES_S = 1 << 20, 1  # that a client still sends when it has its answer


def serve(address: tuple[str, int], gate: Callable[[], Gated], inconclusive: Outcome, say: Callable[[str], None]) -> None:
    """Answer until KeyboardInterrupt. Raises GotraceError for an address where it cannot listen.

    ``gate`` is asked anew for each request; ``inconclusive`` as in `Gated.counted`.
    """
    try:
        server = _Server(address, gate, inconclusive, say)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        where = f"{address[0]}:{address[1]}"
        raise GotraceError(
            f"cannot listen on {printable(where)}: {reason}", "choose another address with --listen"
        ) from None
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    say(f"Listening at http://{printable(host)}:{server.server_address[1]}/gate; Ctrl-C ends it.")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int],
        gate: Callable[[], Gated],
        inconclusive: Outcome,
        say: Callable[[str], None],
    ) -> None:
        self.address_family = AF_INET6 if ":" in address[0] else AF_INET
        self.gate, self.inconclusive, self.say = gate, inconclusive, say
        self.one_at_a_time = threading.Lock()
        self._free = threading.Semaphore(_MOST_AT_ONCE)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: socket | Any, client_address: Any) -> None:
        """A client that went away."""

    def judged(self) -> Gated | str:
        """A verdict, or why there is none."""
        with self.one_at_a_time:
            try:
                return self.gate()
            except GotraceError as error:
                return error.message
            except Exception as error:
                return f"internal error: {type(error).__name__}: {error}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_S
    error_message_format, error_content_type = "%(code)d %(message)s\n", "text/plain; charset=utf-8"

    def version_string(self) -> str:
        """No version of Python's."""
        return "gotrace"

    def finish(self) -> None:
        """Take what the client still sends, up to a point: closed on unread bytes, it would be reset before it has read."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(SHUT_WR)
            self.connection.settimeout(_LAST_BYTES_S)
            left = _MOST_LAST_BYTES
            while left > 0 and (taken := len(self.connection.recv(1 << 16))):
                left -= taken
        super().finish()

    def do_GET(self) -> None:  # noqa: N802
        if self.path.partition("?")[0] != "/gate":
            self._answer(404, "only GET /gate and POST / are served\n")
            return
        self._answer(*answers.asked(self.server.judged(), self.server.inconclusive))

    def do_POST(self) -> None:  # noqa: N802
        if self.path.partition("?")[0] not in ("/", "/gate"):
            self._answer(404, "only GET /gate and POST / are served\n")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal():
            self._answer(411, "a request body requires a Content-Length\n")
        elif len(length) > 9 or int(length) > answers.MOST_BODY:
            self._answer(413, f"the request body exceeds {answers.MOST_BODY} bytes\n")
        elif (canary := answers.canary_of(self.rfile.read(int(length)))) is None:
            self._answer(*answers.NO_CANARY)
        else:
            gated = self.server.judged()
            if not isinstance(gated, str):
                self.server.say(f"{canary}: {printable(gated.sentence)}")
            self._answer(*answers.posted(gated, self.server.inconclusive))

    def _answer(self, status: int, text: str, kind: str = answers.TEXT) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        self.server.say(f"{self.client_address[0]}: {printable(format % args)}")
