"""What a service's own /debug/pprof/heap says that its live heap grew by, from one answer to a later one.

The address is asked before the load and after it, not within: to answer costs the service time and memory. No collection
is asked for, so that an answer is as of the GC cycle before the last, as with what is read from its memory.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

from gotrace.errors import UsageError
from gotrace.lab.grown import Code, Grown, grown_between, unknown
from gotrace.run.files import created
from gotrace.text import printable

_PATH = "/debug/pprof/heap"
_PATIENCE_S = 10.0
_MOST_BYTES = 256 << 20
_VALUE = "inuse_space"
# Who is asked is on this host, or near it: not by a proxy.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def url_of(text: str) -> str:
    """The address of a heap profile, of one that may end earlier: http://127.0.0.1:6060. Raises UsageError."""
    with contextlib.suppress(ValueError):
        found = urllib.parse.urlsplit(text)
        if found.scheme in ("http", "https") and found.hostname and found.port != 0:
            path = found.path.rstrip("/")
            if not path.endswith("/heap"):
                path = f"{path.removesuffix('/debug/pprof')}{_PATH}"
            return urllib.parse.urlunsplit(found._replace(path=path))
    raise UsageError(f"cannot read --pprof {printable(text)!r}", "write http://127.0.0.1:6060/debug/pprof/heap")


class Asked:
    """Asks when it is made, and at `end`; both answers are kept in files. Never raises but for files."""

    def __init__(self, url: str, begin: Path, end: Path) -> None:
        self._url, self._paths, self._answers, self._why = url, (begin, end), list[tuple[int, bytes]](), ""
        self._ask()

    def _ask(self) -> None:
        if self._why:
            return
        at_ns = time.monotonic_ns()
        try:
            with _DIRECTLY.open(self._url, timeout=_PATIENCE_S) as answer:
                data = answer.read(_MOST_BYTES)
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            status = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
            self._why = f"{self._url} does not respond: {status}{reason}"
            return
        with created(str(self._paths[len(self._answers)]), True) as file:
            file.write(data)
        self._answers.append((at_ns, data))

    def end(self) -> Grown:
        """What grew, most first."""
        self._ask()
        if self._why:
            return unknown(self._why, self._url)
        try:
            (begin_ns, first), (end_ns, last) = ((at_ns, heap_of(data)) for at_ns, data in self._answers)
        except ValueError as error:
            return unknown(f"{self._url} returns no heap profile: {error}", self._url)
        return grown_between(first[0], last[0], last[1], end_ns - begin_ns, self._url)


def heap_of(data: bytes) -> tuple[Mapping[Code, int], int]:
    """Bytes in use by code of a file of pprof's, and how many are allocated from one sample to the next.

    Raises ValueError for what is no heap profile.
    """
    from google.protobuf.message import DecodeError

    from gotrace.export.pprof import MESSAGES
    from gotrace.export.protobuf import messages

    try:
        with gzip.open(io.BytesIO(data)) as file:
            text = file.read(_MOST_BYTES)
        profile = messages("gotrace.pprof", MESSAGES)["Profile"].FromString(text)
        names = profile.string_table
        types = [names[each.type] for each in profile.sample_type]
        if _VALUE not in types:
            raise ValueError(f"it has no {_VALUE}")
        functions = {each.id: printable(names[each.name]) for each in profile.function}
        # The lines of a location begin with what was inlined innermost.
        codes = {each.id: tuple(functions[line.function_id] for line in each.line) for each in profile.location}
        found: dict[Code, int] = {}
        at = types.index(_VALUE)
        for sample in profile.sample:
            code = tuple(name for each in sample.location_id for name in codes[each])
            found[code] = found.get(code, 0) + sample.value[at]
    except (OSError, EOFError, zlib.error, DecodeError, LookupError) as error:
        raise ValueError(f"it cannot be read ({type(error).__name__})") from None
    return found, profile.period
