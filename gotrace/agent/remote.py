"""What an agent answers about each Go process, and who asks it."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from gotrace.agent.states import TRACED
from gotrace.errors import HostError, UsageError
from gotrace.find.selection import NOT_SELECTED
from gotrace.text import printable

if TYPE_CHECKING:
    import ssl

_PATIENCE_S = 5
_MOST_BYTES = 16 << 20

Kind = TypeVar("Kind")


class Interval(msgspec.Struct):
    """Since the observation before; ``cpu_s`` is CPU time, None if unknown, as the others without a pause."""

    seconds: float
    cycles: int
    pauses: int
    paused_ns: int
    marking_ns: int
    p50_ns: int | None = None
    p99_ns: int | None = None
    max_ns: int | None = None
    cpu_s: float | None = None


class Row(msgspec.Struct):
    """A process as /processes has it; what is behind ``reason`` is of traced ones. ``rss_bytes`` is 0 if unknown."""

    pid: int
    exe: str
    go_version: str
    state: str
    reason: str
    name: str = ""
    traced_s: float = 0
    cycles: int = 0
    longest_pause_ns: int = 0
    rss_bytes: int = 0
    heap_live_bytes: int | None = None
    heap_goal_bytes: int | None = None
    lost: int = 0
    cost_ns: int = 0
    cpu_s: float = 0
    gomaxprocs: int | None = None
    pauses: int = 0
    paused_ns: int = 0
    pause_p50_ns: int | None = None
    pause_p99_ns: int | None = None
    interval: Interval | None = None

    @property
    def is_traced(self) -> bool:
        return self.state == TRACED

    @property
    def amplification(self) -> float | None:
        """RSS / live heap."""
        return self.rss_bytes / self.heap_live_bytes if self.rss_bytes and self.heap_live_bytes else None


class Statistics(msgspec.Struct):
    """Of pauses of a ``reason``, by part, or of a ``phase``."""

    count: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int
    sum_ns: int
    reason: str = ""
    part: str = ""
    phase: str = ""


class Pause(msgspec.Struct):
    """``time_ns`` is since 1970."""

    total_ns: int
    time_ns: int
    reason: str


class Heap(msgspec.Struct):
    """Bytes of one cycle."""

    start: int | None
    end: int | None
    live: int | None
    goal: int | None


class Details(Row, kw_only=True):
    """What is known of one process, from ``details_s`` seconds ago on; None: the agent does not say."""

    details_s: float | None = None
    reasons: list[Statistics]
    phases: list[Statistics]
    longest: list[Pause]
    heap: list[Heap]


class Answer(NamedTuple):
    """Of an HTTP server; ``headers`` by their names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Source(Protocol):
    """Both raise GotraceError."""

    title: str

    def rows(self) -> list[Row]:
        """All Go processes, but for those that were not selected."""
        ...

    def details(self, pid: int) -> Details | None:
        """Of a traced one; None if it is not."""
        ...


def parts_of(url: str) -> SplitResult:
    """Of an agent's URL. Raises UsageError for what is none."""
    with contextlib.suppress(ValueError):  # for brackets that do not match, or a port that is no number
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        if host and parts.scheme in ("http", "https") and url.isprintable() and " " not in url:
            return parts
    raise UsageError(f"invalid URL {printable(url)!r}", "write http://127.0.0.1:9464")


class Remote:
    """An agent at ``url`` (http://127.0.0.1:9464); ``token_file`` has the token to send, ``ca_file`` the CA to trust (PEM).

    Raises UsageError.
    """

    def __init__(self, url: str, token_file: str = "", ca_file: str = "") -> None:
        parts = parts_of(url)
        self._trusting = _trusting(ca_file) if parts.scheme == "https" else None
        self._address = parts.hostname or "", parts.port or 9464
        self._path = parts.path.rstrip("/")
        self._token_file = token_file
        self.title = f"{parts.scheme}://{printable(parts.netloc.rpartition('@')[2])}"

    def rows(self) -> list[Row]:
        return [each for each in self._asked("/processes", list[Row]) or [] if each.state != NOT_SELECTED]

    def details(self, pid: int) -> Details | None:
        return self._asked(f"/processes?pid={pid}", Details)

    def _asked(self, path: str, kind: type[Kind]) -> Kind | None:
        """None where there is no such thing."""
        answer = self.asked(path)
        if answer.status == 404 and "?" in path:
            return None
        self.require(answer)
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except msgspec.MsgspecError as error:
            raise HostError(
                f"cannot parse the response from {self.title}: {printable(str(error))}", "is it `gotrace serve`?"
            ) from None

    def require(self, answer: Answer) -> None:
        """Raises HostError for an answer that is none."""
        if answer.status != 200:
            hint = "check that this is the address of `gotrace serve`"
            if answer.status == 401:
                hint = (
                    "the token in --token-file is not the agent's"
                    if self._token_file
                    else "pass its token with --token-file"
                )
            raise HostError(f"{self.title} responded with status {answer.status}", hint)

    def token(self) -> str:
        """The token to send, as its file has it now; "" without one. Raises UsageError."""
        if not self._token_file:
            return ""
        try:
            with open(self._token_file) as file:
                return file.read().strip()
        except (OSError, ValueError) as error:
            raise _cannot_read("token", self._token_file, error) from None

    def asked(
        self,
        path: str,
        most_bytes: int = _MOST_BYTES,
        patience_s: float = 2 * _PATIENCE_S,
        given_up: Callable[[], object] = lambda: False,
    ) -> Answer:
        """What is at a path. Raises HostError, for more than ``most_bytes``, after ``patience_s``, if ``given_up`` too."""
        import http.client  # which an agent, which has these kinds too, has no use for

        make: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
        if self._trusting is not None:
            make = functools.partial(http.client.HTTPSConnection, context=self._trusting)
        headers = {"Accept": "application/json"}
        if token := self.token():
            headers["Authorization"] = f"Bearer {token}"
        until_s = time.monotonic() + patience_s
        with contextlib.closing(make(*self._address, timeout=min(_PATIENCE_S, patience_s))) as connection:
            try:
                connection.request("GET", self._path + path, headers=headers)
                answer = connection.getresponse()
                body = bytearray()
                while part := answer.read1(1 << 16):
                    body += part
                    if len(body) > most_bytes:
                        raise HostError(f"{self.title} sent more than {most_bytes} bytes", "is it `gotrace serve`?")
                    if time.monotonic() > until_s or given_up():
                        raise TimeoutError("timed out")
                if answer.length:
                    raise http.client.IncompleteRead(bytes(body), answer.length)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = printable(str(getattr(error, "strerror", None) or error or type(error).__name__))
                hint = "check that `gotrace serve` is running there"
                if type(error).__name__ == "SSLCertVerificationError":
                    hint = "pass the CA of its certificate with --ca-file, and use the host name in the certificate"
                raise HostError(f"cannot connect to {self.title}: {reason}", hint) from None
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, bytes(body))


def _trusting(ca_file: str) -> ssl.SSLContext:
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        raise _cannot_read("CA", ca_file, error) from None


def _cannot_read(what: str, path: str, error: Exception) -> UsageError:
    reason = printable(str(getattr(error, "strerror", None) or error))
    return UsageError(f"cannot read the {what} in {printable(path)}: {reason}", "check the path and its permissions")
