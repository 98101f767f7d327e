"""The records of `gotrace.views.datapath`: calls on files, together and one by one."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from gotrace.records.schema import OneOf
from gotrace.records.times import Moment
from gotrace.records.watched import Statistics, Watched

BY = ("call", "file", "dir", "mount", "fs", "dataset")


class Cache(TypedDict):
    """How reads that returned data from a regular file met the page cache."""

    warm: Annotated[int, "reads during which the thread read no page into the page cache"]
    cold: Annotated[int, "reads during which it did, and page faults on mapped files that had to read"]
    direct: Annotated[int, "reads that bypassed the page cache (O_DIRECT)"]


class Sums(TypedDict):
    """Sums over some calls."""

    calls: int
    errors: int
    not_found: Annotated[int, "errors that are ENOENT"]
    bytes: Annotated[int, "read and written; for page faults, those of the pages that were read"]
    total_ns: Annotated[
        int, "how long all of them took (calls of several threads overlap); in all, without page faults within calls"
    ]
    metadata_calls: Annotated[int, "calls on files that move no data: open, stat, close, …"]
    metadata_ns: int
    other_calls: Annotated[int, "calls on anything but files: pipes, sockets, terminals, devices, io_uring timers"]
    other_ns: int
    server_ns: Annotated[int, "of that, in a FUSE server: from a request to its end"]
    requests: Annotated[int, "to a FUSE server"]


class Row(Sums):
    """Sums for one call, file, folder, mount, file system type or data set."""

    name: Annotated[str, "bytes that are not UTF-8 are surrogates (Python's surrogateescape)"]
    resolved: Annotated[
        bool | None, "of a file: false if it is the path as passed to a call, with links and .. not resolved"
    ]
    latency: Statistics
    cache: Cache | None


class Error(TypedDict):
    error: Annotated[str, "as errno(3) names it"]
    count: int
    other: Annotated[int, "of these, on anything but files: a socket with nothing to read returns EAGAIN"]


class Mount(TypedDict):
    """A mount on which there was a call."""

    mount: Annotated[int, "its number in mountinfo"]
    point: Annotated[str | None, "null: it was in no process's mountinfo when it was looked up"]
    type: str
    source: str | None
    options: str | None


class NfsOperation(TypedDict):
    """Requests of one operation on an NFS mount, by all users of the mount; times are sums, in whole milliseconds."""

    point: str
    operation: str
    calls: int
    retransmits: int
    timeouts: int
    queue_ns: Annotated[int, "until they were sent"]
    server_ns: Annotated[int, "from then to the response: round trips"]
    total_ns: int


class Waiting(TypedDict):
    """A call that had not ended."""

    process: int
    tid: int
    call: str
    path: str | None
    lasted_ns: int


class Unseen(TypedDict):
    """What is known to be missing from the counts."""

    compatible: Annotated[int, "calls of 32-bit programs, at least: those whose number is a file call's elsewhere"]
    running: Annotated[int, "processes started by the first one that were still running when it had ended"]
    in_calls: Annotated[int, "threads of the first process in calls that began before tracing, with no call seen"]


class DatapathCall(Moment):
    """A call that took at least ``--min``; its time is the beginning."""

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
    pages: Annotated[int, "read into the page cache during the call"]
    stack: Annotated[
        list[str],
        "the stack, innermost first, as far as frame pointers lead; empty: unknown, or the call took less than 1 ms",
    ]


class ThreadShare(TypedDict):
    """A thread, from the beginning of its first call to the end of its last."""

    process: int
    tid: int
    wall_ns: int
    metadata_ns: int
    data_ns: int


class Epoch(Moment):
    """The time between two marks; its time is the beginning. A call counts for the epoch in which it begins."""

    length_ns: int
    threads: Annotated[int, "that made calls"]
    calls: int
    metadata_ns: int
    data_ns: int
    metadata_share: Annotated[float, "of the time of its threads"]
    most_share: Annotated[float, "of the epoch, for the thread that lost most to metadata"]


class Storm(TypedDict):
    """A folder in which many names that do not exist were looked up."""

    path: str
    not_found: int
    names: Annotated[int, "different ones"]
    total_ns: int


class Explained(TypedDict):
    """Where the time went, and what to do about it."""

    threads: Annotated[list[ThreadShare], "most time in metadata first"]
    epochs: list[Epoch]
    storms: list[Storm]
    slowest: list[DatapathCall]
    advice: list[str]


class Missing(TypedDict):
    what: str
    why: str


class Datapath(Watched):
    """What a process and its descendants did with files."""

    type: Literal["datapath"]
    processes: int
    threads: int
    all: Sums
    by: Annotated[str, OneOf(BY)]
    rows: Annotated[list[Row], "longest total first; data sets without a call included"]
    more_rows: int
    more: Annotated[Sums | None, "of the rows that are not shown"]
    errors: Annotated[list[Error], "except calls interrupted by a signal"]
    interrupted: Annotated[int, "calls interrupted by a signal: the kernel restarted them, or they returned EINTR"]
    mounts: list[Mount]
    nfs: Annotated[list[NfsOperation] | None, "on the NFS mounts, longest first; null: unknown"]
    in_progress: Annotated[list[Waiting] | None, "null if unknown"]
    unseen: Annotated[Unseen | None, "null if unknown"]
    not_covered: list[Missing]
    explained: Explained | None


class LoadInterval(Moment):
    """An interval of a recording; its time is the beginning. A call counts for the one in which it begins."""

    length_ns: int
    reads: Annotated[int, "reads, and page faults on mapped files that had to read"]
    writes: Annotated[int, "writes and copies"]
    syncs: Annotated[int, "fsync and the like, which wait for a disk"]
    metadata: Annotated[int, "calls that move no data"]
    read_bytes: int
    written_bytes: int
    in_flight: Annotated[float, "calls that had begun and not ended: the mean over the interval"]
    most_in_flight: Annotated[int, "the most at once"]
    p50_ns: Annotated[int | None, "how long calls took; null if there were none"]
    p99_ns: int | None


class DatapathLoad(Watched):
    """The load of a recording's calls on files, over time."""

    type: Literal["datapath_load"]
    width_ns: Annotated[int, "of an interval; the last one may be shorter"]
    calls: int
    other_calls: Annotated[int, "calls on anything but files, which are left out"]
    threads: Annotated[int, "that made calls on files"]
    reads_ns: Annotated[int, "how long all of them took"]
    writes_ns: int
    syncs_ns: int
    metadata_ns: int
    intervals: list[LoadInterval]


class ReplayedCall(TypedDict):
    """One kind of call, then and now."""

    call: str
    recorded: Annotated[int, "calls on files in the recording"]
    replayed: Annotated[int, "calls replayed with the same result"]
    failed: Annotated[int, "calls replayed that failed, or moved a different number of bytes"]
    not_reached: Annotated[int, "calls due after the end"]
    then: Annotated[Statistics, "how long the replayed ones took when they were recorded"]
    now: Statistics


class LeftOut(TypedDict):
    """Calls that cannot be replayed."""

    call: str
    why: str
    calls: int


class DatapathReplay(TypedDict):
    """A replay of a recording's calls."""

    type: Literal["datapath_replay"]
    target: str
    speed: Annotated[float | None, "null: without waiting"]
    ended: str
    took_ns: int
    workers: Annotated[int, "processes that made the calls"]
    recorded: Annotated[int, "calls on files in the recording"]
    replayed: int
    failed: int
    not_reached: int
    other_calls: Annotated[int, "calls on anything but files, which are left out"]
    files: int
    written_bytes: Annotated[int, "to make the files"]
    cold_reads: Annotated[list[int], "of the reads replayed: those that had missed the page cache, and all"]
    resident: Annotated[float | None, "the share of the files' pages in the page cache when the replay began"]
    overhead_ns: Annotated[int, "what making a call takes here; included in every length of now"]
    late: Annotated[Statistics, "how long after its time each call was made"]
    calls: list[ReplayedCall]
    left_out: list[LeftOut]
