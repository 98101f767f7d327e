"""The page /metrics: in the format a client asks for, made at most once a second however many ask."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from gotrace.agent.http import Response, Route, Stream
from gotrace.agent.requests import Request
from gotrace.export.metrics.model import Registry
from gotrace.export.metrics.negotiate import Format, negotiated, takes_gzip

FRESH_S = 1.0
_MOST_KEPT = 2  # pages; one for each server that asks in its own format
_GZIP = zlib.MAX_WBITS | 16
_LEVEL = 1  # the same names over and over: what is beyond costs time and gains little
_PART = 1 << 16


class MetricsPage:
    """A registry's page. It is kept compressed, even for who does not take that: as text it can be 40 times as large."""

    def __init__(self, registry: Registry, *, fresh_s: float = FRESH_S, now: Callable[[], float] = time.monotonic) -> None:
        self._registry, self._fresh_s, self._now = registry, fresh_s, now
        self._kept: dict[Format, _Page] = {}
        self.route = Route({"GET": self.answer})

    def answer(self, request: Request) -> Response:
        """The answer to a scrape."""
        chosen = negotiated(request.headers.get("accept", ""))
        now = self._now()
        page = self._kept.get(chosen)
        if not page or now - page.made_at >= self._fresh_s:
            self._kept.pop(chosen, None)
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            page = self._kept[chosen] = _page(chosen.page(self._registry.collect()), now)
        headers = [("Vary", "Accept, Accept-Encoding")]
        if takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(200, page.compressed, chosen.content_type, [*headers, ("Content-Encoding", "gzip")])
        return Response(200, Stream(page.length, _expanded(page.compressed)), chosen.content_type, headers)


class _Page(NamedTuple):
    made_at: float
    length: int
    compressed: bytes


def _page(parts: Iterable[bytes], now: float) -> _Page:
    squeeze = zlib.compressobj(_LEVEL, wbits=_GZIP)
    out, length = bytearray(), 0
    for part in parts:
        out += squeeze.compress(part)
        length += len(part)
    return _Page(now, length, bytes(out + squeeze.flush()))


def _expanded(compressed: bytes) -> Iterator[bytes]:
    expand = zlib.decompressobj(wbits=_GZIP)
    while compressed:
        yield expand.decompress(compressed, _PART)
        compressed = expand.unconsumed_tail
    yield expand.flush()
