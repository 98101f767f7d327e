"""Addresses to listen at, as they are written on a command line."""

from __future__ import annotations

from gotrace.errors import UsageError
from gotrace.text import printable


def address_of(text: str) -> tuple[str, int]:
    """HOST:PORT, [IPV6]:PORT, or a port of 127.0.0.1. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host = "127.0.0.1"
    elif host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"invalid address {printable(text)!r}", "write 127.0.0.1:8080 or [::1]:8080")
    return host, int(port)
