"""The spool over HTTP, for `gotrace fleet collect`: read-only, and in bounded parts.

/spool?after=SEGMENT:OFFSET has the whole lines of one segment behind that place, up to `MOST_BYTES`, and says in headers
where they begin and whether there is more; without a query it begins with the oldest. /spool/recordings?after=NAME lists
recordings of long pauses, /spool/recording?name=NAME is one.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping

from gotrace.agent.http import Response, Route
from gotrace.agent.requests import Request
from gotrace.agent.spool import segments_of
from gotrace.run.kept import recordings_in

MOST_BYTES = 1 << 20
MOST_LISTED = 1000
MOST_RECORDING = 16 << 20
SEGMENT, OFFSET, MORE = "Gotrace-Segment", "Gotrace-Offset", "Gotrace-More"
_AFTER = re.compile(r"after=([0-9]{19}\.ndjson):([0-9]{1,18})", re.ASCII)
_NAMED = re.compile(r"(?:after|name)=([0-9]{19}\.[0-9]{1,10}\.gotrace)", re.ASCII)


def routes(folder: str) -> Mapping[str, Route]:
    """Of a spool that is there."""
    return {
        "/spool": Route({"GET": lambda request: _lines(folder, request)}),
        "/spool/recordings": Route({"GET": lambda request: _names(folder, request)}),
        "/spool/recording": Route({"GET": lambda request: _recording(folder, request)}),
    }


def _lines(folder: str, request: Request) -> Response:
    match = _AFTER.fullmatch(request.query)
    if request.query and match is None:
        return _refused()
    after, offset = (match[1], int(match[2])) if match is not None else ("", 0)
    segments = segments_of(folder)
    for number, path in enumerate(segments):
        name = os.path.basename(path)
        if name < after:
            continue
        begin = offset if name == after else 0
        try:
            with open(path, "rb") as file:
                file.seek(begin)
                data = file.read(MOST_BYTES)
                if b"\n" not in data and len(data) == MOST_BYTES:  # a line that is longer is sent whole
                    data += file.readline()
        except FileNotFoundError:  # the oldest go
            continue
        data = data[: data.rfind(b"\n") + 1]
        if data:
            more = number + 1 < len(segments) or os.path.getsize(path) > begin + len(data)
            headers = (*_date(), (SEGMENT, name), (OFFSET, str(begin)), (MORE, str(int(more))))
            return Response(200, data, "application/x-ndjson", headers)
    return Response(200, b"", "application/x-ndjson", (*_date(), (MORE, "0")))


def _names(folder: str, request: Request) -> Response:
    match = _NAMED.fullmatch(request.query)
    if request.query and (match is None or not request.query.startswith("after=")):
        return _refused()
    names = [os.path.basename(path) for path in recordings_in(folder)]
    found = [name for name in names if match is None or name > match[1]]
    return Response(200, json.dumps(found[:MOST_LISTED]).encode(), "application/json", _date())


def _recording(folder: str, request: Request) -> Response:
    match = _NAMED.fullmatch(request.query)
    if match is None or not request.query.startswith("name="):
        return _refused()
    try:
        with open(os.path.join(folder, match[1]), "rb") as file:
            if os.fstat(file.fileno()).st_size > MOST_RECORDING:
                return Response(413, b"it is too large\n")
            return Response(200, file.read(), "application/octet-stream", _date())
    except FileNotFoundError:
        return Response(404, b"there is no such recording\n")


def _refused() -> Response:
    return Response(400, b"the query is not understood\n")


def _date() -> tuple[tuple[str, str], ...]:
    """So that who asks knows how far this clock is off."""
    return (("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())),)
