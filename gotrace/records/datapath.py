"""The records of `gotrace.views.datapath`: calls on files, together and one by one."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from gotrace.records.schema import OneOf
from gotrace.records.times import Moment
from gotrace.records.watched import Statistics, Watched

BY = ("call", "file", "dir", "mount", "fs", "dataset")


class Cache(TypedDict):
    """What the page cache had of reads that returned something from a regular file."""

    warm: Annotated[int, "reads during which their thread read no page into the page cache"]
    cold: Annotated[int, "those during which it did, and page faults of mapped files that had to read"]
    direct: Annotated[int, "past the page cache (O_DIRECT)"]


class Sums(TypedDict):
    """Of some calls."""

    calls: int
    errors: int
    not_found: Annotated[int, "those of the errors that are ENOENT"]
    bytes: Annotated[int, "that were read and written; of page faults those of the pages that were read"]
    total_ns: Annotated[int, "how long all of them took; calls of several threads overlap"]
    metadata_calls: Annotated[int, "those on files that move no data: open, stat, close, …"]
    metadata_ns: int
    other_calls: Annotated[int, "those on what is no file: pipes, sockets, terminals, devices"]
    other_ns: int
    server_ns: Annotated[int, "of it in a FUSE server: from a request to its end"]
    requests: Annotated[int, "to a FUSE server"]


class Row(Sums):
    """Those of one call, file, folder, mount, type of file system or data set."""

    name: Annotated[str, "bytes that are not UTF-8 as surrogates (Python's surrogateescape)"]
    resolved: Annotated[
        bool | None, "of a file: false if it is the text that a call was given, in which links and .. are not resolved"
    ]
    latency: Statistics
    cache: Cache | None


class Error(TypedDict):
    error: Annotated[str, "as errno(3) names it"]
    count: int


class Mount(TypedDict):
    """A mount on which there was a call."""

    mount: Annotated[int, "its number in mountinfo"]
    point: Annotated[str | None, "null if no process had it in its mountinfo when it was looked up"]
    type: str
    source: str | None
    options: str | None


class Waiting(TypedDict):
    """A call that had not ended."""

    process: int
    tid: int
    call: str
    path: str | None
    lasted_ns: int


class DatapathCall(Moment):
    """A call that took at least ``--min``; its moment is the beginning."""

    type: Literal["datapath_call"]
    process: int
    tid: int
    call: str
    path: str | None
    metadata: bool
    duration_ns: int
    server_ns: int
    result: int
    error: str | None
    pages: Annotated[int, "that were read into the page cache meanwhile"]


class ThreadShare(TypedDict):
    """A thread, from the beginning of its first call to the end of its last."""

    process: int
    tid: int
    wall_ns: int
    metadata_ns: int
    data_ns: int


class Epoch(Moment):
    """The time between two marks; its moment is the beginning. A call counts for the epoch in which it begins."""

    length_ns: int
    threads: Annotated[int, "that made calls"]
    calls: int
    metadata_ns: int
    data_ns: int
    metadata_share: Annotated[float, "of the time of its threads"]


class Storm(TypedDict):
    """A folder in which many names were looked up that are not there."""

    path: str
    not_found: int
    names: Annotated[int, "different ones"]
    total_ns: int


class Explained(TypedDict):
    """Where the time went, and what to do about it."""

    threads: Annotated[list[ThreadShare], "those with most time in metadata first"]
    epochs: list[Epoch]
    storms: list[Storm]
    slowest: list[DatapathCall]
    advice: list[str]


class Missing(TypedDict):
    what: str
    why: str


class Datapath(Watched):
    """What a process and those that it forked did with files."""

    type: Literal["datapath"]
    processes: int
    threads: int
    all: Sums
    by: Annotated[str, OneOf(BY)]
    rows: Annotated[list[Row], "those that took longest first"]
    more_rows: int
    more: Annotated[Sums | None, "of the rows that are not shown"]
    errors: list[Error]
    mounts: list[Mount]
    in_progress: Annotated[list[Waiting] | None, "null if unknown"]
    not_covered: list[Missing]
    explained: Explained | None
