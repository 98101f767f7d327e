"""`gotrace mem`: what RSS consists of, look by look."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gotrace.analysis.heap_pages import FREE, GO_PAGE, LIVE, METADATA, OTHER, PARTS, RELEASED, STACKS, WASTE, WHY
from gotrace.cli._looker import record
from gotrace.cli._watch import Live, Record, View
from gotrace.text import bytes_text

if TYPE_CHECKING:
    from gotrace.analysis.pauses import Batch
    from gotrace.kernel.ring import Events

_UNLIMITED = (1 << 63) - 1
_LINE = "{:>8}  {:>9} {:>9} {:>5}  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  {:>6} {:>10}"
_NAMES = (
    *("time", "RSS", "HeapAlloc", "MAF", "live", "waste", "free", "released", "stacks", "metadata", "other"),
    *("GCs", "returned/s"),
)
_SHOWN = (LIVE, WASTE, FREE, RELEASED, STACKS, METADATA)
_MAPPED = ("heap_inuse", "stack_inuse", "workbufs", "pointer_bits", "heap_free", "heap_released")


class Looks(View):
    """A look at once, and at every ``interval_ns`` (0: no other). ``classes`` is how many size classes are named."""

    name = "memory"

    def __init__(self, interval_ns: int = 0, classes: int = 5) -> None:
        self._interval_ns = interval_ns
        self._classes = classes
        self._due_ns = 0
        self._last: Record | None = None
        self._scavenged: Record = {}

    @property
    def options(self) -> Record:
        return {"interval_ns": self._interval_ns, "classes": self._classes}

    def feed(self, events: Events, batch: Batch | None) -> Iterator[Record]:
        source = self.source
        now = source.now_ns
        due = now >= self._due_ns
        if due:
            late = (now - source.begin_ns) % self._interval_ns if self._interval_ns else 0
            self._due_ns = now - late + self._interval_ns if self._interval_ns else 1 << 63

        def look() -> Record:
            assert isinstance(source, Live)
            return {**record(source.looker.look()), "missing": source.looker.places.missing}

        found = source.ask(self.name, look, due)
        if found is not None:
            found = {**found, "scavenged": scavenged(self._last, found)}
            self._scavenged = _added(self._scavenged, found["scavenged"] or {})
            self._last = found
            yield found

    def heading(self) -> str:
        return _LINE.format(*_NAMES) if self._interval_ns else ""

    def line(self, record: Record) -> str:
        return line(record) if self._interval_ns else ""

    def summary(self) -> Iterator[str]:
        if self._last is not None:
            yield from table(self._last, self.source.name, self._classes, self._scavenged)


def _added(totals: Record, more: Record) -> Record:
    return {name: totals.get(name, 0) + more.get(name, 0) for name in {**totals, **more}}


def scavenged(before: Record | None, after: Record) -> Record | None:
    """What the heap returned to the kernel and what it took from it between two looks, in bytes.

    None for the first look, and where the runtime's counters are not known. HeapReleased grows by what is returned and by
    what is newly mapped, and shrinks by what is taken, whether it was returned before or never used. So two of them tell
    the third, and the least of what was returned where it is not counted: by debug.FreeOSMemory, whose part that was taken
    back before the next look is not seen, and by the scavenger since its last pause, which it counts at the next.
    """
    if before is None or before["time"] == after["time"] or after["counters"]["returned_background"] is None:
        return None
    old, new = before["counters"], after["counters"]
    counted = -before["scavenged"]["uncounted_bytes"] if before["scavenged"] is not None else 0
    for name in ("returned_background", "returned_eager"):
        if new[name] is not None:
            counted += new[name] - old[name] if new[name] >= old[name] else new[name]  # scavtrace=1: it began anew
    mapped = max(0, sum(new[name] - old[name] for name in _MAPPED))
    more = new["heap_released"] - old["heap_released"] - mapped
    returned = max(0, counted, more)
    return {
        "seconds": round(after["time"] - before["time"], 6),
        "returned_bytes": returned,
        "uncounted_bytes": returned - max(0, counted),
        "taken_bytes": returned - more,
        "mapped_bytes": mapped,
    }


def line(look: Record) -> str:
    """A look in a line."""
    parts, counters = look["parts"], look["counters"]
    rest = look["rss_bytes"] - sum(parts[name] for name in _SHOWN)
    clock = time.strftime("%H:%M:%S", time.localtime(look["time"]))
    sizes = [bytes_text(size) for size in (look["rss_bytes"], counters["heap_alloc"])]
    shares = [bytes_text(size) for size in (*(parts[name] for name in _SHOWN), rest)]
    change = look["scavenged"]
    returned = bytes_text(change["returned_bytes"] / change["seconds"]) if change is not None else "-"
    return _LINE.format(clock, *sizes, _amplification(look) or "-", *shares, counters["num_gc"], returned)


def _amplification(look: Record) -> str:
    factor = look["amplification"]
    return f"{factor:.2f}" if factor is not None and factor < 1000 else ""


def table(look: Record, name: str, classes: int, change: Record) -> Iterator[str]:
    """The parts of a look, what is behind them, and what stands out, a line each.

    ``change`` is the sum of what `scavenged` tells of this look and those before; empty for one look.
    """
    rss, parts, counters = look["rss_bytes"], look["parts"], look["counters"]
    factor = _amplification(look)
    yield ""
    yield f"{name}: RSS {bytes_text(rss)}, HeapAlloc {bytes_text(counters['heap_alloc'])}" + (
        f", amplification {factor}" if factor else ""
    )
    yield ""
    huge = look["huge_parts"]
    for part in PARTS:
        size = parts[part]
        if size or part in (LIVE, OTHER):
            in_huge = f"{huge.get(part, 0) / max(size, 1):>5.0%} huge" if huge else ""
            yield f"{part:<26} {bytes_text(size):>10} {size / max(rss, 1):>7.1%} {in_huge} {WHY[part]}"
    yield f"{'RSS':<26} {bytes_text(rss):>10}"
    yield ""
    yield _sentence(look)
    yield _settings(counters)
    yield from _scavenger(counters, look["missing"], change)
    yield from _rounding(look)
    yield _huge_pages(look)
    swap = f"; {bytes_text(look['swap_bytes'])} swapped out" if look["swap_bytes"] else ""
    took = f"Looked for {look['took_ns'] / 1e6:.1f} ms, meanwhile RSS changed by {look['drift']:.2%}."
    yield f"Kernel pages of {bytes_text(look['page_bytes'])}{swap}. {took}"
    wasteful = [each for each in look["size_classes"] if each["waste"] > 0][:classes]
    if wasteful and parts[WASTE] > 0.01 * rss:
        yield ""
        yield f"{'size class':>12} {'spans':>8} {'in spans':>10} {'objects':>10} {'waste':>10}"
        for each in wasteful:
            label = f"{each['size']:,} B" if each["size"] else "large"
            sizes = [bytes_text(each[key]) for key in ("bytes", "live", "waste")]
            yield f"{label:>12} {each['spans']:>8,} {sizes[0]:>10} {sizes[1]:>10} {sizes[2]:>10}"
    for what, reason in look["missing"].items():
        yield f"{what} was not found: {reason}"


def _settings(counters: Record) -> str:
    limit = "off" if counters["memory_limit"] == _UNLIMITED else bytes_text(counters["memory_limit"])
    percent = "off" if counters["gc_percent"] < 0 else str(counters["gc_percent"])
    return (
        f"GOGC {percent}, GOMEMLIMIT {limit} (what it counts: {bytes_text(counters['mapped_ready'])}); "
        f"{counters['num_gc']} GCs; HeapReleased {bytes_text(counters['heap_released'])}."
    )


def _scavenger(counters: Record, missing: Record, change: Record) -> Iterator[str]:
    """What was returned to the kernel, and what is to be."""
    if counters["returned_background"] is None:
        return
    returned = f"{bytes_text(counters['returned_background'])} in the background"
    if counters["returned_eager"] is not None:
        returned += f" and {bytes_text(counters['returned_eager'])} while memory was allocated"
    now = {"retained_goal": counters["heap_inuse"] + counters["heap_free"], "mapped_goal": counters["mapped_ready"]}
    left = max(size - counters[goal] if counters[goal] is not None else 0 for goal, size in now.items())
    more = f"; it is to return {bytes_text(left)} more" if left > 0 else "; it has nothing to do"
    yield f"The scavenger has returned {returned}{more if 'scavenge' not in missing else ''}."
    if change:
        rates = [bytes_text(change[f"{name}_bytes"] / change["seconds"]) for name in ("returned", "taken")]
        yield f"In {change['seconds']:.1f} s {rates[0]}/s were returned to the kernel, {rates[1]}/s taken from it."


def _rounding(look: Record) -> Iterator[str]:
    """What is lost because memory comes in pages."""
    if look["page_rounding_bytes"]:
        yield (
            f"{bytes_text(look['page_rounding_bytes'])} are free and cannot be returned: the kernel's pages of "
            f"{bytes_text(look['page_bytes'])} hold something in use too."
        )
    if look["large_rounding_bytes"] > 0.01 * look["rss_bytes"]:
        yield (
            f"{bytes_text(look['large_rounding_bytes'])} of the live objects lie behind the end of large ones, which are "
            f"rounded up to {bytes_text(GO_PAGE)}."
        )


def _huge_pages(look: Record) -> str:
    """How much of RSS is in huge pages, and what the kernel is set to do."""
    share = f"{bytes_text(sum(look['huge_parts'].values()))} of RSS are" if look["huge_parts"] else "Nothing is"
    setting = look["huge_setting"]
    if setting is None:
        return f"{share} in huge pages; this kernel makes none by itself."
    pages = setting["size"] // look["page_bytes"]
    filled = f"khugepaged makes one where up to {setting['max_ptes_none']} of {pages} pages are absent"
    what = {"always": f"makes them wherever it can, {filled}", "madvise": "makes them only for memory that asks for it"}
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
        f"{parts[LIVE] / max(look['rss_bytes'], 1):.0%} of RSS are live objects; the largest other part is {name}: "
        f"{bytes_text(others[name])} ({WHY[name]})."
    )
