"""Sends metrics by OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp), with the settings of any SDK.

Everything is cumulative: what could not be sent is in what is sent next, so there is no queue. What fails in a way that
passes is tried again after 1 s, 2 s, 4 s and so on, at most an interval, or when the collector says. No proxy is used.
"""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from gotrace.errors import UsageError
from gotrace.export.metrics.model import Registry
from gotrace.export.metrics.otlp import CONTENT_TYPE, rejected, request
from gotrace.text import printable

_RETRYABLE = (429, 502, 503, 504)
_MOST_ANSWER = 64 << 10  # bytes
_LONGEST_WAIT_S = 3600  # whatever a collector says
_LAST_S = 2  # for the last state, when the agent ends


@dataclass(frozen=True)
class Destination:
    """A collector: where it takes metrics, and how it is to be asked."""

    url: str
    headers: Mapping[str, str]
    interval_s: float = 60
    timeout_s: float = 10
    gzip: bool = True
    certificate: str = ""  # a file of whom to trust, if not the system's

    @classmethod
    def of(cls, environment: Mapping[str, str], endpoint: str = "") -> Destination | None:
        """From OTEL_EXPORTER_OTLP_* and OTEL_METRIC_EXPORT_INTERVAL; None without an endpoint there or here.

        ``endpoint`` goes before OTEL_EXPORTER_OTLP_ENDPOINT: ``/v1/metrics`` is added to both, and not to
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT. Raises UsageError.
        """

        def setting(name: str, default: str = "") -> str:
            return (
                environment.get(f"OTEL_EXPORTER_OTLP_METRICS_{name}")
                or environment.get(f"OTEL_EXPORTER_OTLP_{name}")
                or default
            )

        base = endpoint or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        whole = "" if endpoint else environment.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "")
        url = whole or (base and f"{base.rstrip('/')}/v1/metrics")
        if not url:
            return None
        _parts(url)
        if (protocol := setting("PROTOCOL", "http/protobuf")) != "http/protobuf":
            raise UsageError(
                f"OTLP protocol {printable(protocol)} is not supported",
                "use http/protobuf and the collector's HTTP port, 4318",
            )
        if (compression := setting("COMPRESSION", "gzip")) not in ("gzip", "none"):
            raise UsageError(f"OTLP compression {printable(compression)} is not supported", "use gzip or none")
        return cls(
            url,
            _headers(setting("HEADERS")),
            _milliseconds("OTEL_METRIC_EXPORT_INTERVAL", environment.get("OTEL_METRIC_EXPORT_INTERVAL", ""), 60),
            _milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT", setting("TIMEOUT"), 10),
            compression == "gzip",
            setting("CERTIFICATE"),
        )


class _SendError(Exception):
    """Not taken; to be tried again after so many seconds, after the usual time (0), or not before the next interval."""

    def __init__(self, text: str, after_s: float | None) -> None:
        super().__init__(text)
        self.after_s = after_s


class Push:
    """Sends a registry every interval, in a thread of its own between `start` and `close`. ``version`` is gotrace's."""

    def __init__(self, registry: Registry, destination: Destination, version: str) -> None:
        self._registry, self._to, self._version = registry, destination, version
        _, host, port, _ = _parts(destination.url)
        self.collector = printable(f"{host}:{port}")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self.sent = 0  # requests that were taken
        self.failed = 0  # requests that were not
        self.rejected = 0  # points that a collector refused of what it took
        self.problem = ""  # of the last request, harmless for a terminal; "" if there was none

    def start(self) -> Push:
        """Begin to send: for the first time after an interval."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Send the last state, once and shortly, and end."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(self._to.timeout_s + 1)
        self._try(min(self._to.timeout_s, _LAST_S))

    def _run(self) -> None:
        wait_s, failures = self._to.interval_s, 0
        while not self._end.wait(wait_s):
            after_s = self._try(self._to.timeout_s)
            failures = 0 if after_s is None else failures + 1
            wait_s = self._to.interval_s
            if after_s:
                wait_s = min(after_s, _LONGEST_WAIT_S)
            elif failures:  # not at the same time as every other agent
                wait_s = min(wait_s, 2.0 ** min(failures - 1, 20) * random.uniform(0.8, 1.2))

    def _try(self, timeout_s: float) -> float | None:
        """Send once; seconds after which to try again, 0 for the usual, None for an interval."""
        try:
            problem = self._send(timeout_s)
        except _SendError as error:
            self.failed += 1
            self.problem = printable(str(error))[:200]
            return error.after_s
        self.sent += 1
        self.problem = printable(problem)[:200]
        return None

    def _send(self, timeout_s: float) -> str:
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        body = request(self._registry.collect(), time.time_ns(), self._version)
        headers = {**self._to.headers, "Content-Type": CONTENT_TYPE, "User-Agent": f"gotrace/{self._version}"}
        if self._to.gzip:
            squeeze = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16)
            body = squeeze.compress(body) + squeeze.flush()
            headers["Content-Encoding"] = "gzip"
        secure, host, port, path = _parts(self._to.url)
        try:
            if secure:
                import ssl

                context = ssl.create_default_context(cafile=self._to.certificate or None)
                connection: HTTPConnection = HTTPSConnection(host, port, timeout=timeout_s, context=context)
            else:
                connection = HTTPConnection(host, port, timeout=timeout_s)
            try:
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                status, answer = response.status, response.read(_MOST_ANSWER)
                retry_after = response.getheader("Retry-After", "")
            finally:
                connection.close()
        except (OSError, HTTPException, ValueError) as error:
            raise _SendError(f"{type(error).__name__}: {error}", 0) from None
        if status in _RETRYABLE:
            raise _SendError(
                f"status {status}", float(retry_after) if retry_after.isascii() and retry_after.isdecimal() else 0
            )
        if not 200 <= status < 300:
            raise _SendError(f"status {status}", None)
        try:
            count, why = rejected(answer)
        except ValueError:
            raise _SendError("the response is not OTLP", None) from None
        self.rejected += count
        return f"{count} points rejected: {why}" if count else ""


def _parts(url: str) -> tuple[bool, str, int, str]:
    """TLS or not, host, port, and path. Raises UsageError."""
    from urllib.parse import urlsplit

    try:
        found = urlsplit(url)
        host, port = found.hostname, found.port
    except ValueError:
        host = port = None
    if not host or found.scheme not in ("http", "https") or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"invalid collector URL {printable(url)!r}", "write http://HOST:4318")
    path = (found.path or "/") + (f"?{found.query}" if found.query else "")
    return found.scheme == "https", host, port or (443 if found.scheme == "https" else 80), path


def _headers(text: str) -> dict[str, str]:
    """``name=value,name=value``, percent-encoded. Raises UsageError, which does not repeat what may be a secret."""
    from urllib.parse import unquote

    headers = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        name, equals, value = pair.partition("=")
        name, value = unquote(name.strip()), unquote(value.strip())
        if (
            not equals
            or not name.isascii()
            or not name.replace("-", "").replace("_", "").isalnum()
            or not value.isprintable()
        ):
            raise UsageError(
                "OTEL_EXPORTER_OTLP_HEADERS is not NAME=VALUE,NAME=VALUE", "percent-encode special characters in the value"
            )
        headers[name] = value
    return headers


def _milliseconds(name: str, text: str, default_s: float) -> float:
    if not text:
        return default_s
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:12]) < 10**9:
        raise UsageError(f"{name} is not a number of milliseconds: {printable(text)}", "write 60000 for one minute")
    return int(text) / 1000
