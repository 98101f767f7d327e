"""Requests of HTTP/1.1 (RFC 9112), read from bytes that anybody may have sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

# RFC 9110, 5.6.2.
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True)
class Request:
    """What a client asks for. Header names are in lower case; of a header that came twice the values are joined."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    keep: bool  # the connection may stay
    body: bytes = b""


class RequestError(Exception):
    """A request that cannot be answered as it is meant; the connection then ends. The text is for the client."""

    def __init__(self, status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


@dataclass(frozen=True)
class Bounds:
    """Of a request: bytes of its first line, bytes of that and the headers together, and the number of headers."""

    line: int = 8 << 10
    head: int = 16 << 10
    headers: int = 100


def request_in(data: bytes | bytearray, bounds: Bounds, most_body: Callable[[Request], int]) -> tuple[Request, int] | None:
    """The request that ``data`` begins with, and its length; None if it is not complete yet. Raises RequestError.

    ``most_body`` says how long a body this request may have, before it has come; it may raise RequestError too.
    """
    end = data.find(b"\r\n\r\n", 0, bounds.head)
    line_end = data.find(b"\r\n", 0, bounds.line)
    if line_end < 0 and len(data) >= bounds.line:
        raise RequestError(414, f"the request line exceeds {bounds.line} bytes")
    if end < 0:
        if len(data) >= bounds.head:
            raise RequestError(431, f"the headers exceed {bounds.head} bytes")
        if line_end >= 0:
            _first_line(bytes(data[:line_end]))  # garbage is refused without waiting for more of it
        return None
    first, *lines = bytes(data[:end]).split(b"\r\n")
    method, path, query, minor = _first_line(first)
    if len(lines) > bounds.headers:
        raise RequestError(431, f"more than {bounds.headers} headers")
    headers = _headers(lines)
    if minor and headers.get("host") is None:
        raise RequestError(400, "the request has no Host header")
    connection = {each.strip().lower() for each in headers.get("connection", "").split(",")}
    keep = "close" not in connection and (minor > 0 or "keep-alive" in connection)
    request = Request(method, path, query, headers, keep)
    if "transfer-encoding" in headers:
        raise RequestError(411, "a request body requires a Content-Length")
    length = _length(headers)
    if length and length > (most := most_body(request)):
        raise RequestError(413, f"the request body exceeds {most} bytes")
    start = end + 4
    if len(data) < start + length:
        return None
    return Request(method, path, query, headers, keep, bytes(data[start : start + length])), start + length


def _first_line(line: bytes) -> tuple[str, str, str, int]:
    """Method, path, query, and the minor version of HTTP 1."""
    try:
        method, target, version = line.decode("ascii").split(" ")
    except ValueError:
        raise RequestError(400, "not an HTTP request") from None
    if not method or not _TOKEN.issuperset(method) or not target.isprintable() or not version.startswith("HTTP/"):
        raise RequestError(400, "not an HTTP request")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise RequestError(505, "HTTP/1.1 is spoken here")
    if target.startswith(("http://", "https://")):  # as to a proxy; servers have to take it
        target = "/" + target.partition("//")[2].partition("/")[2]
    path, _, query = target.partition("?")
    return method, path, query, int(version[-1])


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        value = value.strip(" \t")
        if not colon or not name or not _TOKEN.issuperset(name) or any(each in value for each in "\0\r\n"):
            raise RequestError(400, "a header is damaged")
        name = name.lower()
        if name == "host" and name in headers:
            raise RequestError(400, "more than one Host")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    if not text.isascii() or not text.isdecimal():
        raise RequestError(400, "Content-Length is not a number")
    return int(text) if len(text) < 16 else 1 << 62
