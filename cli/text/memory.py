"""`gotrace mem` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.analysis.heap_pages import FREE, GO_PAGE, LIVE, METADATA, OTHER, PARTS, RELEASED, STACKS, WASTE, WHY
from gotrace.analysis.pacing import limit_text, percent_text
from gotrace.cli.text.clock import clock, width
from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.cli.text.stacks import in_a_line
from gotrace.text import bytes_text, count_text, printable
from gotrace.views.memory import Looks
from gotrace.views.view import Record

_SHOWN_FROM = 0.01  # of RSS: smaller mappings are in JSON only
_COLUMNS = (
    Column("RSS", 9, gap=2),
    Column("HeapAlloc", 9),
    Column("MAF", 5),
    Column("live", 9, gap=2),
    Column("waste", 9, rank=2),
    Column("free", 9),
    Column("released", 9, rank=3),
    Column("stacks", 9, rank=5),
    Column("metadata", 9, rank=4),
    Column("other", 9, rank=4),
    Column("GCs", 6, gap=2),
    Column("returned/s", 10, rank=1),
)
_MOST_CODE = 10
_CODE = (Column("live", 10), Column("share", 7, rank=1), Column("code", left=True, elastic=24, gap=2))
_SHOWN = (LIVE, WASTE, FREE, RELEASED, STACKS, METADATA)


def columns(view: Looks) -> Sequence[Column]:
    return (Column("time", width(view.interval_ns)), *_COLUMNS)


def line(view: Looks, record: Record) -> Row | None:
    return look_line(record, view.interval_ns) if view.interval_ns else None


def summary(view: Looks) -> Iterator[str | Rows]:
    if view.last is not None:
        yield from table(view.last, view.source.name, view.classes, view.scavenged)


_PARTS = (
    Column("", 26, left=True),
    Column("", 10),
    Column("", 7),
    Column("", rank=1),
    Column("", left=True, elastic=16, gap=2),
)
_REGIONS = (
    Column("mapping", 26, left=True, elastic=16, keep_end=True),
    Column("of", 19, rank=1, left=True, gap=2),
    Column("resident", 10),
    Column("share", 7, rank=1),
)
_CLASSES = (
    Column("size class", 12),
    Column("spans", 8),
    Column("in spans", 10),
    Column("objects", 10),
    Column("waste", 10),
)


def look_line(look: Record, interval_ns: int = 0) -> Row:
    """A snapshot in one line."""
    parts, counters = look["parts"], look["counters"]
    rest = look["rss_bytes"] - sum(parts[name] for name in _SHOWN)
    sizes = [bytes_text(size) for size in (look["rss_bytes"], counters["heap_alloc"])]
    shares = [bytes_text(size) for size in (*(parts[name] for name in _SHOWN), rest)]
    change = look["scavenged"]
    returned = "-" if counters["returned_background"] is not None else "?"  # there is no snapshot before the first
    if change is not None:
        returned = bytes_text(change["returned_bytes"] / change["seconds"])
    return (clock(look, interval_ns), *sizes, _amplification(look), *shares, counters["num_gc"], returned)


def _amplification(look: Record) -> str:
    factor = look["amplification"]
    if factor is None:
        return "-"  # there is no heap
    return f"{factor:.2f}" if factor < 1000 else ">999"


def table(look: Record, name: str, classes: int, change: Record) -> Iterator[str | Rows]:
    """The parts of a snapshot, what they are, and what stands out, one line each.

    ``change`` sums up the ``scavenged`` of this snapshot and those before; empty for a single snapshot.
    """
    rss, parts, counters = look["rss_bytes"], look["parts"], look["counters"]
    yield ""
    heap = f"HeapAlloc {bytes_text(counters['heap_alloc'])}, amplification {_amplification(look)}"
    yield f"{name}: RSS {bytes_text(rss)}, {heap}"
    yield _cgroup(look["cgroup"])
    yield ""
    huge = look["huge_parts"]
    rows: list[Row] = []
    for part in PARTS:
        size = parts[part]
        if size or part in (LIVE, OTHER):
            rows.append(_part(part, size, rss, huge.get(part, 0), WHY[part]))
    rows.append(_part("RSS", rss, rss, sum(huge.values()), ""))
    # Where nothing is in huge pages a sentence says so.
    yield Rows(_PARTS, rows) if huge else Rows([*_PARTS[:3], _PARTS[4]], [(*row[:3], row[4]) for row in rows])
    yield ""
    yield _sentence(look)
    yield _settings(counters)
    yield from _scavenger(counters, look["missing"], change)
    yield from _rounding(look)
    yield _huge_pages(look)
    swap = f"; {bytes_text(look['swap_bytes'])} swapped out" if look["swap_bytes"] else ""
    took = f"Snapshot took {look['took_ns'] / 1e6:.1f} ms; RSS drifted {look['drift']:.2%}."
    yield f"Kernel page size {bytes_text(look['page_bytes'])}{swap}. {took}"
    yield from _regions(look["regions"], rss)
    wasteful = [each for each in look["size_classes"] if each["waste"] > 0][:classes]
    if wasteful and parts[WASTE] > 0.01 * rss:
        yield ""
        rows = []
        for each in wasteful:
            sizes = [bytes_text(each[key]) for key in ("bytes", "live", "waste")]
            rows.append((f"{each['size']:,} B" if each["size"] else "large", f"{each['spans']:,}", *sizes))
        yield Rows(_CLASSES, rows)
    yield from _code(look["code"])
    for what, reason in look["missing"].items():
        yield f"Not available: {what} ({reason})."


def _code(live: Record | None) -> Iterator[str | Rows]:
    """Who has allocated the live objects."""
    if live is None:
        return
    yield ""
    if live["unknown"] is not None or not live["by"]:
        why = live["unknown"] or "no GC cycle has seen a sample of it yet"
        yield f"Which code allocated the live heap is unknown: {why}."
        return
    profile = f"the program's own heap profile ({bytes_text(live['bytes'])}, as of the GC cycle before the last)"
    yield f"Which code allocated the live heap, by {profile}:"
    rows = [
        (bytes_text(each["bytes"]), f"{each['bytes'] / max(1, live['bytes']):.1%}", in_a_line(each["code"]))
        for each in live["by"][:_MOST_CODE]
    ]
    yield Rows(_CODE, rows)


def _part(name: str, size: int, rss: int, huge: int, why: str) -> tuple[str, ...]:
    return (name, bytes_text(size), f"{size / max(rss, 1):.1%}", f"{huge / max(size, 1):.0%} huge", why)


def _cgroup(group: Record | None) -> str:
    if group is None:
        return "cgroup: ?"
    usage, working, cache = (
        "?" if group[f"{name}_bytes"] is None else bytes_text(group[f"{name}_bytes"])
        for name in ("usage", "working_set", "page_cache")
    )
    limit = "no limit"
    if group["limited"]:
        whose = f" of {printable(group['limited_by'])}" if group["limited_by"] != group["path"] else ""
        limit = f"limit {bytes_text(group['limit_bytes'])}{whose}"
    return f"cgroup {printable(group['path'])}: {limit}; usage {usage}, working set {working}, page cache {cache}"


def _regions(regions: list[Record] | None, rss: int) -> Iterator[str | Rows]:
    """The largest mappings outside Go."""
    if regions is None:
        yield "Largest mappings: ?"
        return
    rows = []
    for each in regions:
        if each["bytes"] >= _SHOWN_FROM * rss:
            name = f"{each['name']} ({each['mappings']})" if each["mappings"] > 1 else each["name"]
            rows.append((printable(name), each["part"], bytes_text(each["bytes"]), f"{each['bytes'] / max(rss, 1):.1%}"))
    if rows:
        yield ""
        yield Rows(_REGIONS, rows)


def _settings(counters: Record) -> str:
    percent, limit = percent_text(counters["gc_percent"]), limit_text(counters["memory_limit"])
    return (
        f"GOGC {percent}, GOMEMLIMIT {limit} (memory counted towards it: {bytes_text(counters['mapped_ready'])}); "
        f"{count_text(counters['num_gc'], 'GC')}; HeapReleased {bytes_text(counters['heap_released'])}."
    )


def _scavenger(counters: Record, missing: Record, change: Record) -> Iterator[str]:
    """What was returned to the kernel, and what is still to be returned."""
    if counters["returned_background"] is None:
        yield "How much the scavenger has returned is unknown."
        return
    returned = f"{bytes_text(counters['returned_background'])} in the background"
    if counters["returned_eager"] is not None:
        returned += f" and {bytes_text(counters['returned_eager'])} during allocation"
    now = {"retained_goal": counters["heap_inuse"] + counters["heap_free"], "mapped_goal": counters["mapped_ready"]}
    left = max(size - counters[goal] if counters[goal] is not None else 0 for goal, size in now.items())
    more = f"; {bytes_text(left)} left to return" if left > 0 else "; nothing left to return"
    yield f"The scavenger has returned {returned}{more if 'scavenge' not in missing else ''}."
    if change:
        rates = [bytes_text(change[f"{name}_bytes"] / change["seconds"]) for name in ("returned", "taken")]
        yield f"Over {change['seconds']:.1f} s the heap returned {rates[0]}/s to the kernel and took {rates[1]}/s back."


def _rounding(look: Record) -> Iterator[str]:
    """What is lost to rounding up to pages."""
    if look["page_rounding_bytes"]:
        yield (
            f"{bytes_text(look['page_rounding_bytes'])} is free but cannot be returned: its "
            f"{bytes_text(look['page_bytes'])} kernel pages also hold memory in use."
        )
    if (look["large_rounding_bytes"] or 0) > 0.01 * look["rss_bytes"]:
        yield (
            f"{bytes_text(look['large_rounding_bytes'])} of the live heap is padding: the runtime rounds large objects up "
            f"to {bytes_text(GO_PAGE)}."
        )


def _huge_pages(look: Record) -> str:
    """How much of RSS is in huge pages, and what the kernel is set to do."""
    share = f"{bytes_text(sum(look['huge_parts'].values()))} of RSS is" if look["huge_parts"] else "Nothing is"
    setting = look["huge_setting"]
    if setting is None:
        return f"{share} in huge pages; this kernel makes none by itself."
    pages = setting["size"] // look["page_bytes"]
    filled = f"and khugepaged makes one even if {setting['max_ptes_none']} of {pages} pages are absent"
    what = {
        "always": f"uses them wherever it can, {filled}",
        "madvise": "uses them only where memory asks for them",
    }
    return (
        f"{share} in huge pages of {bytes_text(setting['size'])}; the kernel {what.get(setting['enabled'], 'makes none')} "
        f"(enabled: {setting['enabled']}, defrag: {setting['defrag']})."
    )


def _sentence(look: Record) -> str:
    """Which part makes RSS larger than the heap."""
    parts = look["parts"]
    others = {name: size for name, size in parts.items() if name != LIVE}
    name = max(others, key=lambda each: others[each])
    return (
        f"{parts[LIVE] / max(look['rss_bytes'], 1):.0%} of RSS is live objects; the largest other part is {name}: "
        f"{bytes_text(others[name])} ({WHY[name]})."
    )
