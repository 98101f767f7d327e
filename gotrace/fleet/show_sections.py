"""A fleet in words and tables, which the screen, Markdown and the page have in common."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gotrace.analysis.stats.percentiles import values_needed
from gotrace.analysis.stats.values import Estimate
from gotrace.fleet.choose_types import estimate_text
from gotrace.fleet.choose_words import cost_text, evidence
from gotrace.fleet.costs import Costs
from gotrace.fleet.show import PERCENTS, SETTINGS, Asked, Fleet, Key
from gotrace.fleet.show_hosts import LEAST_CORRECTED, LEAST_DAYS, LEAST_HOSTS, LEAST_SLOTS
from gotrace.fleet.show_memory import Along, Amplification, Resident, Stage
from gotrace.text import bytes_text, count_text, duration_text, percent_text, printable

ALL_VALUES = "All values of"
_HEADS = {
    "go_version": "Go",
    "gogc": "GOGC",
    "page_bytes": "page",
    "huge_pages": "THP",
    "numa_nodes": "nodes",
}
_WORDS = {
    "go_version": "Go version",
    "gogc": "GOGC",
    "page_bytes": "page size",
    "huge_pages": "huge pages (THP)",
    "numa_nodes": "number of memory nodes",
}
_PERCENTILE_HEADS = tuple(f"p{percent:g}" for percent in PERCENTS)
_REASON = (
    f"Percentiles are shown only if there are enough values (for {', '.join(_PERCENTILE_HEADS)}:"
    f" {', '.join(f'{values_needed(percent):,}' for percent in PERCENTS)}), otherwise -."
    " Those marked ~ are within 1.1%, the others exact."
)


@dataclass
class Section:
    """A table under its title; columns in ``names`` hold words. ``notes`` stand before it."""

    title: str
    heads: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)
    names: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Claim:
    """What somebody published; it is never put together with what was measured."""

    group: str
    service: str
    metric: str
    value: str
    source: str


def warnings(fleet: Fleet) -> Iterator[str]:
    """What a reader has to know before any number."""
    yield from fleet.notes
    for file, problem in fleet.broken:
        yield f"LEFT OUT: {file}: {problem}"
    lost = [each for each in fleet.series if each.lost]
    if lost:
        names = ", ".join(f"{_group(each.key)} ({each.lost:,})" for each in lost)
        yield f"Events were LOST: {names}. Counts and longest pauses there are lower bounds."
    if fleet.skewed:
        skews = ", ".join(f"{host} ({'+' if skew > 0 else '-'}{duration_text(abs(skew))})" for host, skew in fleet.skewed)
        yield f"Clocks off by more than 5 min: {skews}. Their times and quarters of the day are unreliable."
    if fleet.left_out:
        yield f"Emulated: counted, not timed: {', '.join(fleet.left_out)}."
    elif any(each.key[2] for each in fleet.series):
        yield "Times of emulated machines say nothing about real ones; they form their own groups, and are not compared."
    if fleet.invalid:
        yield (
            f"{count_text(fleet.invalid, 'run does', 'runs do')} not count; for the reasons: gotrace fleet sql DIR "
            '"select host, run, reasons from run where not valid"'
        )


def title(fleet: Fleet) -> str:
    """What it is about."""
    hosts = {host for each in fleet.series for host in each.per_host}
    most = max([len(hosts), *(each.hosts for each in fleet.series)])
    return f"{fleet.asked.metric} by {fleet.by}: {count_text(most, 'host')}, {count_text(len(fleet.series), 'group')}"


def sections(
    fleet: Fleet,
    memory: tuple[Sequence[Amplification], Mapping[str, Sequence[Along]]],
    parts: Sequence[Resident],
    stages: Sequence[Stage],
    claims: Sequence[Claim] = (),
    costs: Sequence[Costs] = (),
) -> Iterator[Section]:
    """All that have something to say, in the order in which one reads."""
    for section in (
        _hosts(fleet),
        _not_enough(fleet),
        _pairs(fleet),
        _percentiles(fleet),
        _reasons(fleet),
        _amplification(fleet, memory[0]),
        *(_along(service, of) for service, of in memory[1].items()),
        _resident(fleet, parts),
        _starts(fleet, stages),
        *map(_costs, costs),
        _longest(fleet),
        _emulated(fleet),
        _absent(fleet),
        _claims(fleet, claims),
    ):
        if section.rows:
            yield _once(section)


def _once(section: Section) -> Section:
    """By service that stands in one column."""
    if tuple(section.heads[:2]) != ("service", "service"):
        return section
    rows: list[Sequence[str]] = [[row[0], *row[2:]] for row in section.rows]
    return replace(section, heads=section.heads[1:], rows=rows)


def _group(key: Key) -> str:
    return f"{key[0]} (emulated)" if key[2] else key[0]


def _start(key: Key) -> tuple[str, str]:
    return _group(key), key[1]


def _interval(asked: Asked, of: Estimate) -> str:
    return f"{asked.text(of.low)} to {asked.text(of.high)}" if math.isfinite(of.low) else "-"


def _spread(share: float | None) -> str:
    return "-" if share is None else percent_text(share)


def _settings(settings: Mapping[str, Sequence[str]]) -> list[str]:
    return [", ".join(setting_text(name, value) for value in settings.get(name, ())) or "?" for name in SETTINGS]


def setting_text(name: str, value: str) -> str:
    """Of one of `SETTINGS`."""
    return bytes_text(int(value)) if name == "page_bytes" and value.isdecimal() else value


def _hosts(fleet: Fleet) -> Section:
    asked = fleet.asked
    found = Section(
        f"{asked.metric} of each host",
        (fleet.by, "service", "hosts", "median", "interval", "between", "within", "letters", *_HEADS.values()),
        names=(fleet.by, "service", "letters", *_HEADS.values()),
        notes=[
            "The median over hosts, of one value for all that a host did, with its 95% interval (bootstrap over hosts, from"
            f" {LEAST_HOSTS} on; BCa from {LEAST_CORRECTED} on). Between: the spread from host to host; within: that of one"
            " host from one quarter of a day to the next (standard deviations of logarithms).",
            "Groups of a service that share a letter cannot be told apart (Mann-Whitney on hosts, Holm over all pairs, 5%);"
            " a letter is not a rank. Groups with different settings may differ because of them.",
        ],
    )
    for each in fleet.series:
        if each.median is None:
            cells = ["-", "-", "-", "-", "-"]
        else:
            spreads = [_spread(share) for share in each.stability]
            cells = [asked.text(each.median.value), _interval(asked, each.median), *spreads, each.letters or "-"]
        hosts = f"{each.counted}" if each.counted == each.hosts else f"{each.counted} of {each.hosts}"
        found.rows.append([*_start(each.key), hosts, *cells, *_settings(each.settings)])
    return found


def _not_enough(fleet: Fleet) -> Section:
    found = Section("Not enough", (fleet.by, "service", "measured"), names=(fleet.by, "service", "measured"))
    if fleet.by == "host":
        return found
    found.notes = [
        f"Groups are compared if they have at least {LEAST_HOSTS} hosts, measured in {LEAST_SLOTS} quarters of the day"
        f" (UTC) and on {LEAST_DAYS} days; these do not."
    ]
    for each in fleet.series:
        if each.measured.lacking:
            found.rows.append([*_start(each.key), each.measured.lacking])
    return found


def _pairs(fleet: Fleet) -> Section:
    found = Section("Pairs that differ", ("service", "of", "and", "p"), names=("service", "of", "and"))
    for service, of in fleet.tests.items():
        found.rows += [[service, a, b, f"{p:.4f}"] for (a, b), p in of.p.items() if p <= 0.05]
    return found


def _cells(percentiles: Sequence[tuple[float, bool] | None]) -> list[str]:
    return ["-" if each is None else f"{'' if each[1] else '~'}{duration_text(each[0])}" for each in percentiles]


def _percentiles(fleet: Fleet) -> Section:
    found = Section(
        f"{ALL_VALUES} {fleet.asked.of}",
        (fleet.by, "service", *_PERCENTILE_HEADS, "hosts", "values"),
        names=(fleet.by, "service"),
        notes=[f"All values of a group, pooled: a host with more values weighs more. {_REASON}"],
    )
    if fleet.asked.percent is not None:
        for each in fleet.series:
            found.rows.append([*_start(each.key), *_cells(each.percentiles), str(each.hosts), f"{each.values:,}"])
    return found


def _reasons(fleet: Fleet) -> Section:
    found = Section(
        "Stop-the-world pauses by reason",
        (fleet.by, "service", "reason", *_PERCENTILE_HEADS, "longest", "pauses"),
        names=(fleet.by, "service", "reason"),
        notes=[_REASON],
    )
    for each in fleet.reasons:
        more = [duration_text(each.longest), f"{each.values:,}"]
        found.rows.append([*_start(each.key), each.reason, *_cells(each.percentiles), *more])
    return found


def _amplification(fleet: Fleet, memory: Sequence[Amplification]) -> Section:
    found = Section(
        "Memory amplification (MAF, RSS / HeapAlloc)",
        (fleet.by, "service", "hosts", "MAF", "interval", "RSS", "HeapAlloc", "live", "goal", *_HEADS.values()),
        names=(fleet.by, "service", *_HEADS.values()),
        notes=[
            "Medians over hosts. live: the reachable part of HeapAlloc; goal: the size at which a collection is to end."
        ],
    )
    for each in memory:
        interval = f"{each.maf.low:.3g} to {each.maf.high:.3g}" if math.isfinite(each.maf.low) else "-"
        sizes = ["?" if size is None else bytes_text(size) for size in each.parts.values()]
        settings = _settings(each.settings)
        found.rows.append([*_start(each.key), str(each.hosts), f"{each.maf.value:.3g}", interval, *sizes, *settings])
    return found


def _along(service: str, along: Sequence[Along]) -> Section:
    found = Section(
        f"MAF of {service} by setting",
        ("setting", "value", "hosts", "MAF", "differs together with"),
        names=("setting", "value", "differs together with"),
        notes=[
            "Hosts with other settings have a different MAF; that does not make the setting the cause. If settings differ"
            " together, nothing here tells which one matters."
        ],
    )
    for each in along:
        together = ", ".join(_WORDS[name] for name in each.together) or "-"
        for value, hosts, maf in each.values:
            row = [_WORDS[each.setting], setting_text(each.setting, value), str(hosts), f"{maf:.3g}", together]
            found.rows.append(row)
    return found


def _resident(fleet: Fleet, parts: Sequence[Resident]) -> Section:
    found = Section(
        "What RSS consists of",
        (fleet.by, "service", "part", "size", "share", "hosts"),
        names=(fleet.by, "service", "part"),
        notes=["Medians over hosts, from recorded memory snapshots; gotrace mem explains the parts."],
    )
    for each in parts:
        whole = sum(each.parts.values()) or 1.0
        for name, size in each.parts.items():
            if size:
                more = [bytes_text(size), percent_text(size / whole), str(each.hosts)]
                found.rows.append([*_start(each.key), name, *more])
    return found


def _starts(fleet: Fleet, stages: Sequence[Stage]) -> Section:
    found = Section(
        "Starts",
        (fleet.by, "service", "stage", "median", "interval", "hosts", "starts"),
        names=(fleet.by, "service", "stage"),
        notes=["From execve; main, listen and ready end when the service does what it was started for."],
    )
    asked = Asked("start.ready", "start.ready", None)
    for each in stages:
        cells = [duration_text(each.median.value), _interval(asked, each.median), str(each.hosts), str(each.runs)]
        found.rows.append([*_start(each.key), each.stage, *cells])
    return found


def _costs(costs: Costs) -> Section:
    found = Section(
        f"Cost of a million requests of {costs.service}",
        ("type", "cost", costs.metric, "front", "CPU", "price", "measured on"),
        names=("type", "front", "CPU", "price", "measured on"),
        notes=[
            "Price / rate, for the load with the highest rate; medians over hosts with their 95% intervals. On the front"
            " are types that no other beats in both price and speed. Burstable types beat none, unless measured beyond"
            " their credits.",
            *(f"No cost of {name}: {why}." for name, why in costs.without),
        ],
    )
    for each in costs.types:
        front = each.cut or ("yes" if each.name in costs.front else "no")
        burst = "-" if not each.burst else "burstable" if each.is_lent else "burstable, past its credits"
        metric = estimate_text(each, costs.metric).removeprefix(f"{costs.metric} ")
        found.rows.append([each.name, cost_text(each), metric, front, burst, str(each.price), evidence(each)])
    return found


def _longest(fleet: Fleet) -> Section:
    found = Section(
        "Longest pauses",
        ("pause", "time (UTC)", "host", "service", "version", "reason", "cause", "recording"),
        names=("time (UTC)", "host", "service", "version", "reason", "cause", "recording"),
    )
    for each in fleet.longest:
        host = f"{each.host} (emulated)" if each.emulated else each.host
        more = [each.version or "?", each.reason, each.cause or "?", each.recording or "-"]
        found.rows.append([duration_text(each.length_ns), _time(each.time_ns), host, each.service, *more])
    return found


def _emulated(fleet: Fleet) -> Section:
    heads = ("host", "service", "runs", "pauses", "by reason", "those explained, by cause")
    section = Section("Emulated: counted, not timed", heads, names=("host", "service", *heads[4:]))
    for each in fleet.emulated_counts:
        of = [", ".join(f"{count:,} {name}" for name, count in of.items()) or "-" for of in (each.pauses, each.causes)]
        section.rows.append([each.host, each.service, f"{each.runs:,}", f"{sum(each.pauses.values()):,}", *of])
    return section


def _absent(fleet: Fleet) -> Section:
    found = Section("Missing", ("host", "times", "last (UTC)", "problem"), names=("host", "last (UTC)", "problem"))
    for host, url, times, last, problem in fleet.absent:
        found.rows.append([host or url, f"{times:,}", _time(last), problem])
    return found


def _claims(fleet: Fleet, claims: Sequence[Claim]) -> Section:
    heads = (fleet.by, "service", "metric", "value", "claimed by")
    rows: list[Sequence[str]] = [[each.group, each.service, each.metric, each.value, each.source] for each in claims]
    return Section(
        "Claimed by others", heads, rows, heads, ["Not measured by gotrace, and not included in any number or curve above."]
    )


def _time(ns: int | None) -> str:
    if ns is None:
        return "?"
    try:
        moment = datetime.datetime.fromtimestamp(ns // 10**9, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "?"
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def printable_section(section: Section) -> Section:
    """With everything that others chose made harmless for a terminal."""
    rows: list[Sequence[str]] = [[printable(cell) for cell in row] for row in section.rows]
    return Section(
        printable(section.title), section.heads, rows, section.names, [printable(note) for note in section.notes]
    )
