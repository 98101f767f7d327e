"""The spools of many agents into a fleet's folder, over HTTP: in bounded parts, several hosts at once, and where one
was cut off the next goes on, for what was fetched of each is in the folder itself."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import os
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import msgspec

from gotrace.agent.spool_pages import MORE, MOST_BYTES, MOST_RECORDING, OFFSET, SEGMENT
from gotrace.errors import GotraceError, HostError, UsageError
from gotrace.fleet import spools
from gotrace.fleet.add import put, source_row
from gotrace.fleet.store import Addition, Known, absent_in, adding, sources_in
from gotrace.run.kept import NAME
from gotrace.run.target import StopRequest
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.agent.remote import Answer, Remote
    from gotrace.fleet.machines import Told

_AT_ONCE = 16  # hosts whose rows become files together
_MOST_RECORDINGS = 1000  # of one host and time
_PATIENCE_S = 60  # with others who add to the folder
_LATE = "no time was left to fetch the causes of its long pauses"


@dataclass(frozen=True)
class Bounds:
    """``jobs`` hosts at once; of each at most ``most_bytes`` and ``patience_s`` seconds a time."""

    jobs: int = 8
    most_bytes: int = 32 << 20
    patience_s: float = 120


@dataclass
class Asked:
    """What came of a host. ``problem``: why it is absent, or not whole; ``more``: there is more than was fetched."""

    url: str
    problem: str = ""
    hint: str = ""
    host: str | None = None
    size: int = 0  # bytes
    minutes: int = 0
    damaged: int = 0  # lines that were left out
    recordings: int = 0
    more: bool = False
    skew_ns: int | None = None
    notes: list[str] = field(default_factory=list)
    # name, where the data begins, the data: compressed, as that of many hosts is held at once
    segments: list[tuple[str, int, bytes]] = field(default_factory=list)
    pauses: set[tuple[int, int]] = field(default_factory=set)  # of the longest, pid and length
    first_ns: int = 1 << 62  # when the first minute that has some began
    causes: dict[tuple[int, int], Mapping[str, object]] = field(default_factory=dict)


class _Pause(msgspec.Struct):
    pid: int
    length_ns: int


class _Minute(msgspec.Struct):
    """What has to be known of a line of a spool to ask for its recordings."""

    begin_ns: int
    worst: list[_Pause]


_MINUTE = msgspec.json.Decoder(_Minute)


def urls_in(path: str) -> list[str]:
    """Of a file with a URL a line; # begins a comment. Raises UsageError."""
    from gotrace.agent.remote import parts_of

    urls: dict[str, None] = {}
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if url := line.partition("#")[0].strip():
                    try:
                        parts_of(url)
                    except UsageError as error:
                        raise UsageError(f"{printable(path)}, line {number}: {error.message}", error.hint) from None
                    urls[url.rstrip("/")] = None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"cannot read {printable(path)}: {reason}", "give a file with one URL per line") from None
    if not urls:
        raise UsageError(f"{printable(path)} has no URLs", "write one URL per line: http://10.0.0.1:9464")
    return list(urls)


def collect(
    folder: str,
    urls: Sequence[str],
    told: Told,
    bounds: Bounds,
    token_file: str = "",
    ca_file: str = "",
    stop: StopRequest | None = None,
) -> Iterator[Asked]:
    """Each host as it is done; what is yielded is in the folder. After ``stop`` no more are: of those that are being asked
    nothing is taken, and the next time they go on where they were. Raises GotraceError."""
    from gotrace.agent.remote import Remote

    remotes = {url.rstrip("/"): Remote(url, token_file, ca_file) for url in urls}
    for remote in remotes.values():
        remote.token()  # a file that cannot be read makes no agent absent
    with adding(folder, _PATIENCE_S):
        known = sources_in(folder)
    stop = stop or StopRequest()
    with concurrent.futures.ThreadPoolExecutor(bounds.jobs) as pool:
        waiting = list(remotes)
        running: set[concurrent.futures.Future[Asked | None]] = set()
        done: list[Asked] = []
        try:
            while waiting or running:
                if stop.signal:
                    waiting = []
                while waiting and len(running) < bounds.jobs:
                    url = waiting.pop(0)
                    running.add(pool.submit(_ask, url, remotes[url], _place(url, known), bounds, stop))
                ended, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                done += [asked for each in ended if (asked := each.result())]
                if len(done) >= _AT_ONCE or not (waiting or running):
                    with adding(folder, _PATIENCE_S) as addition:
                        known = sources_in(folder)  # others may have added since
                        absent = absent_in(folder)
                        for asked in done:
                            _put(addition, asked, told, known, asked.url in absent)
                    yield from done
                    done = []
        finally:
            for each in running:
                each.cancel()


def _place(url: str, known: Mapping[str, Known]) -> str:
    """Where the next time goes on: "SEGMENT:OFFSET", or "" at the beginning."""
    prefix = f"{url}/spool/"
    places = [(each.path.removeprefix(prefix), each.upto_bytes) for each in known.values() if each.path.startswith(prefix)]
    return "{}:{}".format(*max(places)) if places else ""


def _ask(url: str, remote: Remote, place: str, bounds: Bounds, stop: StopRequest) -> Asked | None:
    """What it has; None if it did not come to the end of that before ``stop``."""
    asked, until_s = Asked(url), time.monotonic() + bounds.patience_s
    try:
        while True:
            left_s = until_s - time.monotonic()
            if stop.signal:
                break
            if asked.size >= bounds.most_bytes or left_s <= 0:
                asked.more = True
                break
            path = f"/spool?after={place}" if place else "/spool"
            answer = remote.asked(path, 2 * MOST_BYTES, left_s, lambda: stop.signal)
            if answer.status == 404:
                raise _without_spool(remote, until_s, stop)
            remote.require(answer)
            asked.skew_ns = _skew_ns(answer)
            if not answer.body and MORE.lower() in answer.headers:
                break
            name, begin = answer.headers.get(SEGMENT.lower(), ""), answer.headers.get(OFFSET.lower(), "")
            if (
                not begin.isdecimal()
                or not name.endswith(".ndjson")
                or os.path.basename(name) != name
                or answer.body[-1:] != b"\n"
            ):
                raise _invalid()
            _note(asked, answer.body)
            asked.segments.append((name, int(begin), zlib.compress(answer.body, 1)))
            asked.size += len(answer.body)
            place = f"{name}:{int(begin) + len(answer.body)}"
            if answer.headers.get(MORE.lower()) != "1":
                break
        if asked.segments:
            _recordings(asked, remote, until_s, stop)
    except GotraceError as error:
        asked.problem, asked.hint = error.message, error.hint
    return None if stop.signal else asked


def _without_spool(remote: Remote, until_s: float, stop: StopRequest) -> HostError:
    """Every agent lists its processes. Raises HostError if there is no answer, or a proxy's."""
    from gotrace.agent.remote import Row

    left_s = max(0.1, until_s - time.monotonic())  # a socket takes no time-out of 0 or less
    answer = remote.asked("/processes", patience_s=left_s, given_up=lambda: stop.signal)
    if answer.status != 404:
        remote.require(answer)
        with contextlib.suppress(msgspec.MsgspecError):
            msgspec.json.decode(answer.body, type=list[Row])
            return HostError("it keeps no spool", "start it with --spool")
    return HostError("no gotrace agent answers there", "give the URL of `gotrace serve`, without a path")


def _invalid() -> HostError:
    return HostError("its response is invalid", "is it `gotrace serve`?")


def _note(asked: Asked, data: bytes) -> None:
    """What the longest pauses are, whose recordings have to be asked for."""
    for line in data.splitlines():
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):  # a damaged line, of which `_put` tells
            minute = _MINUTE.decode(line)
            if minute.worst:
                asked.pauses |= {(each.pid, each.length_ns) for each in minute.worst}
                asked.first_ns = min(asked.first_ns, minute.begin_ns)


def _skew_ns(answer: Answer) -> int | None:
    try:
        date = parsedate_to_datetime(answer.headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.timezone.utc)
    return round(date.timestamp() - time.time()) * 10**9


def _recordings(asked: Asked, remote: Remote, until_s: float, stop: StopRequest) -> None:
    """What the longest pauses of the new minutes waited for: without it they have no cause."""
    if not asked.pauses:
        return
    if (left_s := until_s - time.monotonic()) <= 0:
        asked.notes.append(_LATE)
        return
    after = f"{asked.first_ns:019}.0.gotrace"
    answer = remote.asked(f"/spool/recordings?after={after}", patience_s=left_s, given_up=lambda: stop.signal)
    remote.require(answer)
    try:
        names = msgspec.json.decode(answer.body, type=list[str])[:_MOST_RECORDINGS]
    except msgspec.MsgspecError:
        raise _invalid() from None
    with tempfile.TemporaryDirectory(prefix="gotrace-fleet-") as folder:
        for name in names:
            if (left_s := until_s - time.monotonic()) <= 0:
                asked.notes.append(_LATE)
                break
            if stop.signal or not NAME.fullmatch(name):
                break
            found = remote.asked(f"/spool/recording?name={name}", MOST_RECORDING, left_s, lambda: stop.signal)
            if found.status == 200:
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(found.body)
                asked.recordings += 1
        causes, broken = spools.causes_in(folder, 0, 1 << 63)
        asked.notes += [f"the recording {name} cannot be read" for name in broken]
        asked.causes = {key: cause for key, cause in causes.items() if key in asked.pauses}


def _put(addition: Addition, asked: Asked, told: Told, known: dict[str, Known], was_absent: bool) -> None:
    """Its rows; of a segment that is damaged, that it is; and whether it answered."""
    for name, begin, compressed in asked.segments:
        path, data, notes = f"{asked.url}/spool/{name}", zlib.decompress(compressed), list(asked.notes)
        try:
            if begin:
                source = next((key for key, each in known.items() if each.path == path), None)
                if source is None:
                    raise GotraceError(f"the beginning of {name} is unknown", "collect again")
            else:
                source = spools.name_of(data)
            upto = known[source].upto_bytes if source in known else 0
            fresh = data[max(0, upto - begin) :]  # somebody may have added the same spool from its files
            about, parts, used, damaged = spools.parts_of(
                spools.records_of(fresh), told, source, asked.causes, asked.skew_ns
            )
        except GotraceError as error:
            asked.problem, asked.hint = error.message, error.hint
            break
        if damaged:
            notes.append(spools.damage_of(damaged))
            asked.damaged += damaged
        if used or damaged:
            put(addition, [*parts, source_row(source, path, about, begin + len(data), notes)])
        known[source] = Known(max(upto, begin + len(data)), path)
        asked.host = about["host"] or asked.host
        asked.minutes += used
    if asked.damaged:
        asked.notes.append(spools.damage_of(asked.damaged))
    if asked.problem or was_absent:
        problem = asked.problem or None
        absent = {"host": asked.host, "url": asked.url, "time_ns": time.time_ns(), "problem": problem, "source": None}
        addition.add("absent", [absent])
    asked.segments.clear()
    asked.causes.clear()
