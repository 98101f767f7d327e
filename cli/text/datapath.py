"""`gotrace datapath` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.analysis.datapath_explain import MOST_EPOCHS
from gotrace.cli.text.clock import clock
from gotrace.cli.text.layout import Column, Row, Rows, more_rows
from gotrace.run.target import EXITED
from gotrace.text import bytes_text, cost_text, count_text, duration_text, overlap_text, percent_text, printable
from gotrace.views.datapath import DataPath
from gotrace.views.view import Record

HEADING_EVERY = 40
TELLS_LOST = True

_SINGLE = (
    *(Column("time", 12), Column("process", 7, rank=3), Column("thread", 7, rank=2), Column("call", 11, left=True, gap=2)),
    *(Column("took", 8), Column("server", 8, rank=3), Column("result", 9, left=True, rank=1, gap=2)),
    Column("file", 5000, left=True, elastic=24, keep_end=True, gap=2),  # as long as there is room
)
_NUMBERS = (
    *(Column("calls", 9), Column("errors", 7, rank=4), Column("bytes", 9, rank=3), Column("total", 8)),
    *(Column("metadata", 8, rank=2), Column("no file", 7, rank=8), Column("p50", 8, rank=1)),
    *(Column("p99", 8, rank=5), Column("max", 8)),
    *(Column("cold reads", 10, rank=6), Column("server", 7, rank=7)),
)
_WHAT = {
    "call": "call",
    "file": "file",
    "dir": "directory",
    "mount": "mounted at",
    "fs": "file system",
    "dataset": "data set",
}


def columns(_: DataPath) -> Sequence[Column]:
    return _SINGLE


def line(view: DataPath, record: Record) -> Row | None:
    if record["type"] != "datapath_call":
        return None
    return (
        clock(record, 1_000_000),
        record["process"],
        record["tid"],
        record["call"],
        duration_text(record["duration_ns"]),
        duration_text(record["server_ns"]) if record["server_ns"] else "-",
        record["error"] or f"{record['result']:,}",
        printable(record["path"] or "-"),
    )


def summary(view: DataPath) -> Iterator[str | Rows]:
    result = view.result
    total, watched = result["all"], result["watched_ns"]
    yield ""
    who = f"{count_text(result['processes'], 'process', 'processes')}, {count_text(result['threads'], 'thread')}"
    yield (
        f"{result['target']}: {count_text(total['calls'], 'call')} in {duration_text(watched)} ({who}), "
        f"{bytes_text(total['bytes'])}; ended by: {view.source.end['ended']}"
    )
    if total["calls"]:
        on_files = total["total_ns"] - total["other_ns"]
        yield (
            f"{duration_text(on_files)} in calls on files: metadata {duration_text(total['metadata_ns'])} "
            f"({percent_text(total['metadata_ns'] / max(1, on_files))}, {count_text(total['metadata_calls'], 'call')}), "
            f"data {duration_text(on_files - total['metadata_ns'])}; not on files (pipes, sockets, devices, timers) "
            f"{duration_text(total['other_ns'])} ({count_text(total['other_calls'], 'call')})"
        )
    yield from _unseen(result, view.source.end["ended"])
    for each in result["not_covered"]:
        yield f"Not covered: {printable(each['what'])} ({printable(each['why'])})."
    yield ""
    if result["rows"]:
        what = Column(_WHAT[result["by"]], 14, left=True, elastic=24, keep_end=result["by"] not in ("call", "fs"))
        rows = [_row(row) for row in result["rows"]]
        yield Rows((what, *_NUMBERS), rows)
        if any(row["name"] == "page fault in a call" for row in result["rows"]) and result["by"] == "call":
            yield "The time of page faults within a call is part of that call; it is counted only once elsewhere."
        if result["more_rows"]:
            shown = len(result["rows"])
            taken = duration_text(result["more"]["total_ns"])
            yield f"{taken} in {more_rows(shown + result['more_rows'], shown, '`-o FILE.parquet`')}"
    if result["nfs"]:
        yield ""
        yield Rows(_NFS, [_nfs_row(each) for each in result["nfs"]])
        yield "Requests by all users of these mounts; times are means per request, from sums in milliseconds."
    if result["nfs"] is None:
        yield "NFS statistics: ?"
    yield from _explained(result)
    if result["errors"]:
        yield "Errors: " + ", ".join(map(_error, result["errors"])) + "."
    if result["interrupted"]:
        calls = count_text(result["interrupted"], "call")
        yield f"{calls} interrupted by a signal: restarted after it (and counted again), or EINTR. No errors."
    for each in result["in_progress"] or ():
        where = printable(each["path"] or "?")
        yield f"NOT ENDED: thread {each['tid']} in {each['call']} for {duration_text(each['lasted_ns'])} ({where})."
    if result["in_progress"] is None:
        yield "Calls still in progress: ?"
    if result["lost"]:
        yield f"{count_text(result['lost'], 'event')} LOST: counts are too low, and names may be missing."
    cost = cost_text(view.source.end["cost"], watched)
    yield f"Cost: {cost}. Tracing also made each system call of other processes about 0.1 us slower."


def _error(each: Record) -> str:
    aside = f" ({each['other']:,} of them not on files)" if each["other"] else ""
    return f"{each['error']} {each['count']:,}{aside}"


def _unseen(result: Record, ended: str) -> Iterator[str]:
    found = result["unseen"] or {"compatible": 0, "in_calls": 0, "running": 0}
    if found["in_calls"]:
        threads = found["in_calls"]
        yield f"{count_text(threads, 'thread')} {'was' if threads == 1 else 'were'} in calls that began before tracing."
    if found["compatible"]:
        yield f"NOT SEEN: calls of 32-bit programs (at least {found['compatible']:,})."
    if found["running"] and ended == EXITED:
        running = found["running"]
        processes, verb = count_text(running, "process", "processes"), "runs" if running == 1 else "run"
        yield f"{processes} that it started still {verb}: no longer traced."


def _row(row: Record) -> Row:
    latency, cache = row["latency"], row["cache"]
    reads = sum(cache.values()) if cache else 0
    return (
        printable(row["name"]),
        f"{row['calls']:,}",
        f"{row['errors']:,}",
        bytes_text(row["bytes"]) if row["bytes"] else "-",
        duration_text(row["total_ns"]),
        percent_text(row["metadata_ns"] / row["total_ns"]) if row["total_ns"] else "-",
        percent_text(row["other_ns"] / row["total_ns"]) if row["other_ns"] else "-",
        *(duration_text(latency[name]) if row["calls"] else "-" for name in ("p50_ns", "p99_ns", "max_ns")),
        percent_text(cache["cold"] / reads) if cache and reads else "-",
        percent_text(row["server_ns"] / row["total_ns"]) if row["requests"] and row["total_ns"] else "-",
    )


def _stack(functions: Sequence[str]) -> str:
    more = len(functions) - _FRAMES
    return " < ".join(map(printable, functions[:_FRAMES])) + (f" < {more} more" if more > 0 else "")


_NFS = (
    *(Column("NFS mounted at", 14, left=True, elastic=24, keep_end=True), Column("operation", 12, left=True, gap=2)),
    *(Column("calls", 9), Column("sent again", 10, rank=2), Column("queue", 8, rank=1), Column("server", 8)),
    Column("total", 8),
)


def _nfs_row(each: Record) -> Row:
    return (
        printable(each["point"]),
        each["operation"],
        f"{each['calls']:,}",
        f"{each['retransmits']:,}",
        *(duration_text(each[name] / each["calls"]) for name in ("queue_ns", "server_ns", "total_ns")),
    )


_FRAMES = 24
_THREADS = (
    *(Column("process", 7), Column("thread", 7), Column("seen for", 8, rank=2), Column("metadata", 8), Column("share", 6)),
    *(Column("data", 8, rank=1), Column("share", 6, rank=1)),
)
_EPOCHS = (
    *(Column("epoch", 5), Column("began", 12, rank=2), Column("lasted", 8), Column("threads", 7, rank=3)),
    *(
        Column("calls", 9, rank=1),
        Column("metadata", 8),
        Column("share", 6),
        Column("worst", 6, rank=2),
        Column("data", 8, rank=1),
    ),
)
_MOST = 10  # threads, and storms
_MOST_EPOCHS = 50


def _explained(result: Record) -> Iterator[str | Rows]:
    found = result["explained"]
    if found is None or not result["all"]["calls"]:
        return
    yield ""
    rows = []
    for each in found["threads"][:_MOST]:
        shares = [overlap_text(each[what] / max(1, each["wall_ns"])) for what in ("metadata_ns", "data_ns")]
        seen, metadata, data = (duration_text(each[what]) for what in ("wall_ns", "metadata_ns", "data_ns"))
        rows.append((each["process"], each["tid"], seen, metadata, shares[0], data, shares[1]))
    yield Rows(_THREADS, rows)
    if (more := len(found["threads"]) - _MOST) > 0:
        yield f"{count_text(more, 'more thread')} spent less time in metadata."
    yield ""
    epochs = found["epochs"]
    yield Rows(
        _EPOCHS,
        [
            (
                number,
                clock(each, 1_000_000),
                duration_text(each["length_ns"]),
                each["threads"],
                f"{each['calls']:,}",
                duration_text(each["metadata_ns"]),
                overlap_text(each["metadata_share"]),
                overlap_text(each["most_share"]),
                duration_text(each["data_ns"]),
            )
            for number, each in enumerate(epochs[:_MOST_EPOCHS])
        ],
    )
    if (more := len(epochs) - _MOST_EPOCHS) > 0:
        yield f"{count_text(more, 'more epoch')}: -o FILE.json has all of them."
    if len(epochs) >= MOST_EPOCHS:
        yield f"After {MOST_EPOCHS:,} epochs no more were begun: the last one is all the rest."
    yield "Epoch 0 is everything before the first mark; shares are of the time of its threads, without pipes and sockets;"
    yield "worst: the thread that lost most."
    yield "Where requests overlap (io_uring), a share is the number of concurrent requests."
    yield ""
    yield "Slowest calls:"
    for each in found["slowest"]:
        server = f", {duration_text(each['server_ns'])} in the server" if each["server_ns"] else ""
        yield (
            f"  {duration_text(each['duration_ns'])}  {each['call']} {printable(each['path'] or '-')}"
            f" (thread {each['tid']}{server}{', ' + each['error'] if each['error'] else ''})"
        )
        if each["stack"]:
            yield f"    from {_stack(each['stack'])}"
    for each in found["storms"][:_MOST]:
        yield (
            f"Not found: {count_text(each['not_found'], 'look-up')} of {count_text(each['names'], 'name')} in "
            f"{printable(each['path'])}, {duration_text(each['total_ns'])}."
        )
    yield ""
    for sentence in found["advice"] or ("Advice: none; nothing stands out.",):
        yield f"Advice: {sentence}" if found["advice"] else sentence
