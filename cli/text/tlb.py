"""`gotrace tlb` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gotrace.analysis.counted import PLACES
from gotrace.analysis.phases import MARK, MUTATOR
from gotrace.cli.text.clock import clock, width
from gotrace.cli.text.layout import Column, Row, Rows
from gotrace.text import bytes_text, count_text, duration_text, printable
from gotrace.views.tlb import Translation
from gotrace.views.view import Record

_INSTRUCTIONS = ("instructions", "inst_retired")
_RANKS = {MUTATOR: 0, MARK: 1}  # of the phases, which columns stay longest


def columns(view: Translation) -> Sequence[Column]:
    events = [f"{printable(each)}/s" for each in view.source.header["counters"]]
    when = Column("time", width(view.interval_ns))
    return [when, Column("on CPU", 10), Column("flushes", 10), *(Column(each, 14, rank=1) for each in events)]


def line(view: Translation, record: Record) -> Row | None:
    if record["type"] != "tlb_interval":
        return None
    ran = record["ran_ns"]
    rates = (_rate(count, ran) for count in record["counts"].values())
    return (clock(record, view.interval_ns), duration_text(ran), f"{record['flushes']:,}", *rates)


def summary(view: Translation) -> Iterator[str | Rows]:
    yield from table(view.result)


def table(result: Record) -> Iterator[str | Rows]:
    """The result as lines of text."""
    ran = result["phases_ns"]
    total_ns = sum(ran.values())
    yield ""
    on_cpu = f"{duration_text(total_ns)} on CPU"
    yield f"{result['target']}, observed for {duration_text(result['watched_ns'])}: {on_cpu}"
    yield ""
    shown = [place for place in PLACES if ran[place]]
    rows = [["on CPU", *(duration_text(ran[place]) for place in shown), duration_text(total_ns)]]
    instructions = next((each for each in result["counters"] if each["event"] in _INSTRUCTIONS and each["total"]), None)
    for each in result["counters"]:
        phases = each["phases"]
        rows.append([printable(each["event"]), *(_count(phases[place]) for place in shown), _count(each["total"])])
        if instructions is not None and each is not instructions:
            per = [_per(phases[place], instructions["phases"][place]) for place in shown]
            rows.append(["  per 1,000 instructions", *per, _per(each["total"], instructions["total"])])
        else:
            rates = [_rate(phases[place], ran[place]) for place in shown]
            rows.append(["  per second on CPU", *rates, _rate(each["total"], total_ns)])
    places = [Column(place, 16, rank=_RANKS.get(place, 2)) for place in shown]
    yield Rows([Column("", 24, left=True), *places, Column("all", 16)], rows, parts=True)
    partly = [each for each in result["counters"] if each["running_share"] is not None and each["running_share"] < 0.999]
    if partly:
        words = ", ".join(f"{printable(each['event'])} {each['running_share']:.0%}" for each in partly)
        yield f"Fewer counters than events: some were counted for part of the time and scaled up: {words}."
        yield "For phases of a few milliseconds these are estimates; count fewer events at once (-e)."
    unseen = result["unseen"]
    if unseen["times"]:
        most = duration_text(unseen["at_most_ns"])
        switches = count_text(unseen["times"], "context switch", "context switches")
        yield f"The kernel did not report {switches}: up to {most} on CPU is missing."
    if result["divided_share"] >= 0.001:
        yield f"{result['divided_share']:.1%} of the time was divided between phases by length alone."
    for what, why in result["missing"]:
        yield f"Not counted: {printable(what)} ({printable(why)})."
    yield from _rest(result)


def _rest(result: Record) -> Iterator[str]:
    """What is known without counters."""
    yield ""
    if result["flushes"]:
        for reason, sums in sorted(result["flushes"].items(), key=lambda item: -item[1]["flushes"]):
            whole = f", {sums['whole']:,} of the whole TLB" if sums["whole"] else ""
            yield f"TLB flushes, {printable(reason)}: {sums['flushes']:,} ({count_text(sums['pages'], 'page')}{whole})"
    else:
        yield "TLB flushes: none reported (ARM64 flushes by broadcast, which the kernel does not report)."
    collapses, splits = result["collapses"], result["splits_of_the_machine"]
    split = ", ".join(f"{name} {count:,}" for name, count in splits.items()) or "?"
    yield (
        f"Huge pages: {collapses['succeeded']:,} collapsed from small ones"
        f" ({count_text(collapses['failed'], 'attempt')} failed)"
        f"; splits on the whole machine: {split}."
    )
    sizes = ", ".join(f"{bytes_text(size)} in pages of {bytes_text(page)}" for page, size in result["pages"] if size)
    age = result["pages_age_ns"]
    yield f"Resident{f', {duration_text(age)} before its end' if age else ''}: {sizes or '?'}."
    processor = result["processor"]
    if processor is None and age is None:
        yield "The reach of the processor's TLB: ?"
        return
    if processor is None:
        yield "The reach of this processor's TLB is not in gotrace's table."
        return
    for each in result["reach"]:
        if each["share"] is not None:
            yield (
                f"{processor['name']}: its second-level TLB covers at most {each['share']:.1%} of the memory in "
                f"{bytes_text(each['page'])} pages at once."
            )


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _per(value: int | None, instructions: int | None) -> str:
    if value is None or instructions is None:
        return "?"
    return f"{value * 1000 / instructions:.3g}" if instructions else "-"


def _rate(value: int | None, ran_ns: int) -> str:
    if value is None:
        return "?"
    return f"{value * 1e9 / ran_ns:,.0f}" if ran_ns else "-"
