"""A collector that takes metrics by OTLP over HTTP, and does as it is told."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from conftest import PATIENCE_S


class Collector(ThreadingHTTPServer):
    """Answers with what is in ``answers``, then with success; keeps what it gets, and when."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.requests: list[tuple[float, str, Any, ExportMetricsServiceRequest]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def wait(self, count: int) -> None:
        end = time.monotonic() + PATIENCE_S
        while len(self.requests) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.requests) >= count


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        message = ExportMetricsServiceRequest.FromString(body)
        status, headers, answer = self.server.answers.pop(0) if self.server.answers else (200, {}, b"")
        self.server.requests.append((time.monotonic(), self.path, self.headers, message))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    with Collector(port) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


def rejecting(points: int, why: str) -> bytes:
    """The answer of one that takes all but some points."""
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points, answer.partial_success.error_message = points, why
    return answer.SerializeToString()
