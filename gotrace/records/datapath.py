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
    total_ns: Annotated[
        int, "how long all of them took; calls of several threads overlap; of all without page faults in calls"
    ]
    metadata_calls: Annotated[int, "those on files that move no data: open, stat, close, …"]
    metadata_ns: int
    other_calls: Annotated[int, "those on what is no file: pipes, sockets, terminals, devices, timers of io_uring"]
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
    other: Annotated[int, "of them on what is no file: a socket that has nothing to read is EAGAIN"]


class Mount(TypedDict):
    """A mount on which there was a call."""

    mount: Annotated[int, "its number in mountinfo"]
    point: Annotated[str | None, "null if no process had it in its mountinfo when it was looked up"]
    type: str
    source: str | None
    options: str | None


class NfsOperation(TypedDict):
    """Requests of an operation on a mount of NFS, of everybody who uses the mount; times are sums, to milliseconds."""

    point: str
    operation: str
    calls: int
    retransmits: int
    timeouts: int
    queue_ns: Annotated[int, "until they were sent"]
    server_ns: Annotated[int, "from then to the answer: round trips"]
    total_ns: int


class Waiting(TypedDict):
    """A call that had not ended."""

    process: int
    tid: int
    call: str
    path: str | None
    lasted_ns: int


class Unseen(TypedDict):
    """What was there and is in no count."""

    compatible: Annotated[
        int, "calls of 32-bit programs, at least: those whose number is that of a call on files elsewhere"
    ]
    running: Annotated[int, "processes that the first one started, and that still ran when it had ended"]
    in_calls: Annotated[int, "threads of the first process that were in calls which began before, where no call was seen"]


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
    stack: Annotated[
        list[str],
        "functions that it came from, innermost first, as far as frame pointers lead; empty: unknown, or shorter than 1 ms",
    ]


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
    most_share: Annotated[float, "of the epoch, what the thread that lost most to metadata lost"]


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
    rows: Annotated[list[Row], "those that took longest first, and data sets without a call"]
    more_rows: int
    more: Annotated[Sums | None, "of the rows that are not shown"]
    errors: Annotated[list[Error], "without calls that a signal interrupted"]
    interrupted: Annotated[int, "calls that a signal interrupted: the kernel began them again, or they returned EINTR"]
    mounts: list[Mount]
    nfs: Annotated[
        list[NfsOperation] | None, "meanwhile, on those of the mounts that are NFS, longest first; null: unknown"
    ]
    in_progress: Annotated[list[Waiting] | None, "null if unknown"]
    unseen: Annotated[Unseen | None, "null if unknown"]
    not_covered: list[Missing]
    explained: Explained | None


class LoadInterval(Moment):
    """A stretch of a recording; its moment is the beginning. A call counts for the one in which it begins."""

    length_ns: int
    reads: Annotated[int, "reads, and page faults of mapped files that had to read"]
    writes: Annotated[int, "writes and copies"]
    syncs: Annotated[int, "fsync and its like, which wait for a disk"]
    metadata: Annotated[int, "calls that move no data"]
    read_bytes: int
    written_bytes: int
    in_flight: Annotated[float, "calls that had begun and not ended: the mean over the interval"]
    most_in_flight: Annotated[int, "and the most at once"]
    p50_ns: Annotated[int | None, "how long calls took; null if there were none"]
    p99_ns: int | None


class DatapathLoad(Watched):
    """The load of a recording's calls on files, over time."""

    type: Literal["datapath_load"]
    width_ns: Annotated[int, "of an interval; the last one may be shorter"]
    calls: int
    other_calls: Annotated[int, "those on what is no file, which are left out"]
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
    replayed: Annotated[int, "that were made again and did what they had done"]
    failed: Annotated[int, "that were made again and failed or moved another number of bytes"]
    not_reached: Annotated[int, "that would have come after the end"]
    then: Annotated[Statistics, "how long the replayed ones took when they were recorded"]
    now: Statistics


class LeftOut(TypedDict):
    """Calls that cannot be made again."""

    call: str
    why: str
    calls: int


class DatapathReplay(TypedDict):
    """A recording's calls, made again."""

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
    other_calls: Annotated[int, "those on what is no file, which are left out"]
    files: int
    written_bytes: Annotated[int, "to make the files"]
    cold_reads: Annotated[list[int], "of the reads that are replayed: those that had missed the page cache, and all"]
    resident: Annotated[float | None, "the share of the files' pages in the page cache when the replay began"]
    overhead_ns: Annotated[int, "what making a call itself takes here; it is in every length of now"]
    late: Annotated[Statistics, "how long after its time each call was made"]
    calls: list[ReplayedCall]
    left_out: list[LeftOut]
