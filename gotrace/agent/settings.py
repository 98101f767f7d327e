"""agent.yaml: what an agent traces, where it listens, and what it may take (schema gotrace.agent/1)."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import msgspec

from gotrace.addresses import address_of
from gotrace.agent.agent import Bounds
from gotrace.agent.http import Security
from gotrace.agent.spool import MOST_BYTES
from gotrace.errors import UsageError
from gotrace.export.metrics.model import MOST_SERIES
from gotrace.find.selection import Selection, parsed
from gotrace.text import duration_ns, printable

SCHEMA = "gotrace.agent/1"

A_MINUTE = 6

_Duration = Annotated[str, msgspec.Meta(examples=["30s"])]


class Settings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The keys of the file; docs/commands/serve.md has them from here."""

    schema: Annotated[str, msgspec.Meta(description="version of this file's format")] = SCHEMA
    listen: Annotated[str, msgspec.Meta(description="HOST:PORT to listen on")] = "127.0.0.1:9464"
    otlp: Annotated[str, msgspec.Meta(description="URL of a collector to push metrics to, by OTLP over HTTP")] = ""
    select: Annotated[
        list[str],
        msgspec.Meta(
            description="trace only matching processes, such as exe=*/api,namespace=shop; empty: all",
            examples=[["name=etcd"]],
        ),
    ] = []
    exclude: Annotated[list[str], msgspec.Meta(description="never trace matching processes", examples=[["name=etcd"]])] = []
    default_excludes: Annotated[
        bool, msgspec.Meta(description="skip observability agents, container runtimes and Kubernetes itself")
    ] = True
    min_age: Annotated[_Duration, msgspec.Meta(description="skip processes younger than this: 30s, 1m30s")] = "30s"
    processes: Annotated[int, msgspec.Meta(description="maximum number of processes traced at once", ge=1, le=1000)] = 200
    series: Annotated[int, msgspec.Meta(description="most time series exported", ge=100)] = MOST_SERIES
    cost_percent: Annotated[
        float,
        msgspec.Meta(description="detach where tracing costs more than this share of a process's CPU time", gt=0, le=100),
    ] = 0.1
    spool: Annotated[str, msgspec.Meta(description="directory for per-minute data; empty: none")] = ""
    spool_bytes: Annotated[int, msgspec.Meta(description="maximum size of the spool, in bytes", ge=1 << 20)] = MOST_BYTES
    explain_above: Annotated[
        str,
        msgspec.Meta(description="keep the causes of pauses longer than this in the spool; empty: off", examples=["5ms"]),
    ] = ""
    explanations: Annotated[int, msgspec.Meta(description="most explanations per minute", ge=1, le=1000)] = A_MINUTE
    token_file: Annotated[str, msgspec.Meta(description="file with the bearer token that clients must send")] = ""
    tls_certificate: Annotated[str, msgspec.Meta(description="TLS certificate (chain), a PEM file")] = ""
    tls_key: Annotated[str, msgspec.Meta(description="private key of tls_certificate, a PEM file without a passphrase")] = (
        ""
    )
    anyone: Annotated[bool, msgspec.Meta(description="allow a non-loopback address without TLS and a token")] = False

    def address(self) -> tuple[str, int]:
        """Raises UsageError."""
        return address_of(self.listen)

    def explain_above_ns(self) -> int:
        """0: no pause is explained. Raises UsageError."""
        if not self.explain_above:
            return 0
        if not self.spool:
            raise UsageError("explanations of pauses are kept in the spool", "add --spool DIR, or spool: DIR")
        return _nanoseconds("explain_above", self.explain_above)

    def selection(self) -> Selection:
        """Raises UsageError."""
        age_ns = _nanoseconds("min_age", self.min_age)
        select, exclude = (tuple(map(parsed, each)) for each in (self.select, self.exclude))
        return Selection(select, exclude, self.default_excludes, age_ns / 1e9)

    def for_spool(self) -> tuple[int, int]:
        """Bytes for its minutes, and for recordings of long pauses."""
        half = self.spool_bytes // 2
        return (half, half) if self.explain_above_ns() else (self.spool_bytes, 0)

    def bounds(self) -> Bounds:
        return Bounds(self.processes, self.series, self.cost_percent / 100)

    def security(self) -> Security:
        return Security(self.token_file, self.tls_certificate, self.tls_key, self.anyone)


def _nanoseconds(key: str, text: str) -> int:
    try:
        return duration_ns(text)
    except ValueError:
        raise UsageError(f"{key}: invalid duration {printable(text)!r}", "write 30s or 5ms") from None


@functools.cache
def schema() -> dict[str, Any]:
    """JSON Schema of the file."""
    return msgspec.json.schema(Settings)
