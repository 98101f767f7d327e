"""The page about pauses: that its numbers are the table's and the records', what it draws of many, hostile names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conftest
import gc_runs
from gc_runs import BEGIN_NS, MIB, STATISTICS, WALL_NS, collections, going_on, run, stops
from gotrace.analysis.causes import CLASSES
from gotrace.analysis.gc_course import BINS_PER_DECADE, MOST_CYCLES, MOST_PAUSES, SHORTEST_NS
from gotrace.export import gc_words
from gotrace.export.gc_page import Run, page
from gotrace.text import bytes_text, duration_text
from pages import MOST, Parsed, strings

RECORDINGS = Path(__file__).parents[1] / "testdata" / "recordings"
HOSTILE = [*conftest.HOSTILE, "\u6f22" * 300, "$title $x^2$", "ink", "<a href='javascript:alert(1)'>"]
PARTS = ("total", "stopping", "stopped", "restart")
OVER_TIME, HOW_LONG, PHASES, HEAP = "Pauses over time", "How long each took", "Phases of the collector", "Heap"
Figure = dict[str, Any]


def figure(found: Parsed, head: str) -> Figure:
    named = [of["aria-label"] for _, of in found.tags if of.get("class") == "figure"]
    return found.figures[named.index(head)]


def values(chart: Figure) -> dict[str, list[Any]]:
    return {each["name"]: each["values"] for each in chart["series"]}


def lowest_ns(length_bin: int) -> float:
    """Where a bin of lengths begins; the next one begins where it ends."""
    return float(SHORTEST_NS * 10 ** (length_bin / BINS_PER_DECADE))


def shades(figure: Figure, part: str) -> list[tuple[int, int, int, int]]:
    """(reason, bin of time, bin of length, count)."""
    (chart,) = (each for each in figure["charts"] if each["axis"] == part)
    return [(reason, *flat[at : at + 3]) for reason, flat in chart["cells"] for at in range(0, len(flat), 3)]


@pytest.mark.parametrize("command", ["gc", "gc --explain --top 7", "gc-1.19", "all --explain"])
def test_the_numbers_are_those_of_the_table_and_the_records(command: str, tmp_path: Path) -> None:
    name, *options = command.split()
    made, table = tmp_path / "page.html", tmp_path / "table.txt"
    arguments = ["report", f"{name}.gotrace", *options, "-o", str(made), "-o", str(table), "--format", "ndjson"]
    done = subprocess.run(
        [sys.executable, "-m", "gotrace.cli", *arguments],
        cwd=RECORDINGS,
        env={**os.environ, "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=True,
    )
    records = [gc_runs.checked(json.loads(line)) for line in done.stdout.splitlines()]
    assert made.stat().st_size < MOST / 2
    found = Parsed(made.read_text())
    text = table.read_text()

    def of(kind: str) -> list[dict[str, Any]]:
        return [record for record in records if record["type"] == kind]

    # Of the table every cell of every row, and the lines below it.
    (summary,) = of("summary")
    shown = [re.split(r" {2,}", line) for line in text.splitlines() if re.search(r"\d\.\d{3}%$", line)]
    reason = ""
    for row, cells in zip(found.tables["Pauses and GC phases"][1:], shown, strict=True):
        reason = cells[0] or reason
        is_phase = reason in summary["phases"]
        assert row == [reason, *(["-"] if is_phase and reason != "mark assist" else []), *cells[1:]]
    for what, part, *cells in found.tables["Pauses and GC phases"][1:]:
        numbers = summary["phases"][what] if what in summary["phases"] else summary["pauses"][what][part]
        expected = [duration_text(numbers[head]) for head in ("min", "p50", "p90", "p99", "p99.9", "max", "sum")]
        assert cells[:-1] == [str(numbers["count"]), *expected]
    words = " ".join(found.words)
    for line in re.findall("^(?:trust|cost|missing|unknown): .*$", text, re.M):
        assert line in words
    (cycles,) = re.findall(r"^GC cycles: (.*)   last heap: (.*)$", text, re.M)
    assert f"GC cycles: {cycles[0]}; last heap: {cycles[1]}." in found.words

    # Every pause is a dot, with the numbers of its record.
    drawn, pauses = figure(found, OVER_TIME), sorted(of("stw"), key=lambda each: each["monotonic_ns"])
    begin = of("start")[0]["monotonic_ns"]
    assert drawn["at"] == [(each["monotonic_ns"] - begin) // 1000 for each in pauses]
    assert [drawn["reasons"][at]["name"] for at in drawn["reason"]] == [each["reason"] for each in pauses]
    assert drawn["cycle"] == [each["cycle"] for each in pauses] and drawn["goid"] == [each["goid"] for each in pauses]
    charts = {each["axis"]: each["values"] for each in drawn["charts"]}
    assert list(charts) == [
        part for part in PARTS if part in summary["pauses"]["GC mark termination"] and of_part(summary, part)
    ]
    for part, lengths in charts.items():
        key = "restart_lag_ns" if part == "restart" else f"{part}_ns"
        assert lengths == [max(0, each[key]) for each in pauses]
        for stop, parts in summary["pauses"].items():
            own = [length for each, length in zip(pauses, lengths, strict=True) if each["reason"] == stop]
            assert (len(own), sum(own), max(own)) == tuple(parts[part][name] for name in ("count", "sum", "max"))
    assert not any(shades(drawn, part) for part in charts)

    # Percentiles and phases.
    ranges = {(each["name"], each["part"]): each["values"] for each in figure(found, HOW_LONG)["rows"]}
    heads = figure(found, HOW_LONG)["heads"]
    all_of = {(stop, part): each for stop, parts in summary["pauses"].items() for part, each in parts.items()}
    all_of |= {(phase, ""): each for phase, each in summary["phases"].items()}
    assert ranges == {key: [each[head] for head in heads] for key, each in all_of.items() if each["count"]}
    swept = {each["cycle"]: each["sweep_ns"] for each in of("sweep")}
    phases, heap = (figure(found, head)["charts"][0] for head in (PHASES, HEAP))
    assert values(phases) == {
        "sweep termination": [each["sweep_termination_ns"] for each in of("cycle")],
        "concurrent mark": [each["mark_ns"] for each in of("cycle")],
        "mark termination": [each["mark_termination_ns"] for each in of("cycle")],
        "sweep": [swept.get(each["cycle"]) for each in of("cycle")],
    }
    for name, key in (("when marking began", "start"), ("when marking ended", "end"), ("live", "live"), ("goal", "goal")):
        sizes = [each[f"heap_{key}_bytes"] / MIB for each in of("cycle")]
        assert values(heap)[name] == pytest.approx(sizes, abs=0.0001)

    # What was explained, or the longest without that.
    told = of("explained")
    assert bool(told) == ("--explain" in options)
    if told:
        bars = figure(found, f"What the {len(told)} longest pauses waited for")
        sums = {kind: [sum(of.get(kind, 0) for of in each["parts"].values()) for each in told] for kind in CLASSES}
        assert values(bars) == {kind: each for kind, each in sums.items() if any(each)}
        rows = found.tables["Each of them"][1:]
        for number, (row, each) in enumerate(zip(rows, told, strict=True), 1):
            assert row[:2] == [f"{number}. {duration_text(each['length_ns'])}", each["time"][11:23]]
            assert row[-2] == f"{each['cause']}: {each['sentence']}" and row[-3] == each["reason"]
            assert (row[-1] == "?") == (not each["asked_by"])
        classes = found.tables["All pauses by class"][1:]
        assert {row[0]: row[1] for row in classes} == {
            kind: duration_text(sum(each)) for kind, each in sums.items() if any(each)
        }
        assert "--explain" not in words
    else:
        rows = found.tables["Until the world ran again, and by part"][1:]
        longest = sorted((each["total_ns"] + max(0, each["restart_lag_ns"]) for each in pauses), reverse=True)[:10]
        assert [row[0] for row in rows] == [f"{number}. {duration_text(ns)}" for number, ns in enumerate(longest, 1)]
        assert "use --explain" in words
    by_time = next(rows for caption, rows in found.tables.items() if caption.startswith("The charts as numbers"))[1:]
    assert sum(int(row[1]) for row in by_time) == len(pauses) and sum(int(row[3]) for row in by_time) == len(of("cycle"))
    assert duration_text(max(each["total_ns"] for each in pauses)) in [row[2] for row in by_time]


def of_part(summary: dict[str, Any], part: str) -> int:
    return sum(parts[part]["count"] for parts in summary["pauses"].values())


def test_of_many_the_longest_are_dots_and_the_others_shades() -> None:
    """Together they are all of them, in bins that hold them; the page is bounded."""
    everything = np.concatenate([collections(100_000, 1_000_000), stops(STATISTICS, [7 * 10**9], [10**9], [50])])
    everything = everything[np.argsort(everything["time_ns"], kind="stable")]
    many = run(everything, 100 * 10**9)
    text = page("a service", many)
    assert len(text.encode()) < MOST
    found = Parsed(text)
    drawn = figure(found, OVER_TIME)
    assert len(drawn["at"]) == MOST_PAUSES
    assert any(
        "Of 200,001 pauses the 2,000 longest are dots" in words and "other 198,001" in words for words in found.words
    )
    for chart in drawn["charts"]:
        assert sum(count for *_, count in shades(drawn, chart["axis"])) == 198_001
        by_reason = [sum(count for reason, *_, count in shades(drawn, chart["axis"]) if reason == at) for at in range(3)]
        assert [by + drawn["reason"].count(at) for at, by in enumerate(by_reason)] == [
            each["count"] for each in drawn["reasons"]
        ]
    # The sum of what the shades stand for is as far from the truth as their edges are.
    for part in ("total", "restart"):
        summed = sum(parts[part].sum for parts in many.total.pauses.values())
        dots = sum(next(each["values"] for each in drawn["charts"] if each["axis"] == part))
        found_shades = shades(drawn, part)
        assert sum(count * lowest_ns(length) for _, _, length, count in found_shades) <= summed - dots
        assert sum(count * lowest_ns(length + 1) for _, _, length, count in found_shades) >= summed - dots
    last = max(time for _, time, _, _ in shades(drawn, "total"))
    assert last * drawn["width"] < 100_000 <= (last + 1) * drawn["width"]
    # The longest is a dot, whatever its reason.
    at = drawn["at"].index(7_000_000)
    assert drawn["charts"][0]["values"][at] == 10**9 + 50 and found.words.count("1.00 s") >= 2
    assert any(f"more than {MOST_CYCLES:,}" in words for words in found.words)
    assert len(figure(found, HEAP)["times"]) <= 256
    assert max(values(figure(found, HEAP)["charts"][0])["live"]) == pytest.approx(25, abs=0.1)


def test_the_portions_that_events_come_in_make_no_difference() -> None:
    everything = collections(3_000, 3_000_000)
    assert page("", run(everything, rows=777)) == page("", run(everything)) == page("", run(everything, rows=100_000))


def test_what_is_counted_by_time_is_what_was_there() -> None:
    many = run(collections(2_000, 7_000_000), 14 * 10**9)
    width_ns, bins = many.course.bins(32)
    assert len(bins) <= 32 < 2 * len(bins) and many.course.each_cycle() is None
    expected = [0] * len(bins)
    for number in range(2_000):
        expected[number * 7_000_000 // width_ns] += 1
    assert bins["pauses"].sum() == 4_000 and bins["cycles"].sum() == 2_000
    assert np.abs(bins["cycles"] - expected).max() <= 1  # one that began in a bin may end in the next
    assert bins["mark_ns"].tolist() == [7_000_000 // 4] * len(bins)
    assert bins["longest_ns"].max() == many.total.all_pauses().max


def test_a_run_in_which_nothing_happened() -> None:
    found = Parsed(page("a service", run()))
    assert "No stop-the-world pause and no GC cycle was observed." in found.words
    assert found.heads == ["How far to trust these numbers"] and found.scripts == [] and not found.tables
    assert any(words.startswith("trust: ") for words in found.words)
    assert "nan" not in page("", run(duration_ns=0))


def test_a_stop_that_goes_on() -> None:
    stuck = run(collections(20), 3 * 10**9, going_on=[going_on(10**9, 3 * 10**9)])
    found = Parsed(page("a service", stuck))
    said = [
        words
        for words in found.words
        if words.startswith("NOT ENDED: a stop-the-world pause (read mem stats) requested 2.00 s")
    ]
    assert len(said) == 1 and "12181" in said[0] and "--explain shows what it is running." in found.words
    drawn = figure(found, OVER_TIME)
    begin_ms = (BEGIN_NS + WALL_NS) / 1e6
    assert drawn["open"] == [{"from": begin_ms + 1000, "to": begin_ms + 3000}] and drawn["end"] == begin_ms + 3000
    # One of which there is nothing else, and that had begun before.
    alone = Parsed(page("a service", run(going_on=[going_on(-(10**9), 10 * 10**9)])))
    assert "No stop-the-world pause and no GC cycle has ended." in alone.words
    drawn = figure(alone, OVER_TIME)
    assert drawn["at"] == [] and drawn["open"] == [{"from": begin_ms, "to": begin_ms + 10_000}]


def test_what_is_lost_or_unknown_is_told() -> None:
    told = [
        gc_runs.explained(10**9, {"unknown": 600_000, "handshake": 400_000}),
        gc_runs.explained(2 * 10**9, {"work": 10**6}),
    ]
    found = Parsed(page("a service", run(collections(9), lost=1_234, told=told)))
    assert "1,234 events lost: there may be more pauses and evidence than shown." in found.words
    assert "unknown: 30.00% of these 2.00 ms." in found.words
    assert found.tables["All pauses by class"][1] == ["work", "1.00 ms", "50.00%", "1.00 ms", "-", "-", "1"]
    assert found.tables["Who requested the pauses"][1:] == [
        ["read mem stats", "3", "read mem stats < main.main"],
        ["read mem stats", "2", "?"],
    ]
    assert not any("lost:" in words for words in Parsed(page("a service", run(collections(9)))).words)
    # Without a collector there is no goal, and the old runtime's word for that is a huge number.
    off = collections(9)
    off["e"][off["kind"] == gc_runs.events("cycle_heap", [0])["kind"][0]] = (1 << 63) - 1
    assert "goal" not in values(figure(Parsed(page("", run(off))), HEAP)["charts"][0])


def test_a_thousand_explanations_are_no_large_page() -> None:
    told = [
        gc_runs.explained(number * 10**6, {"page fault": 10**6, "work": 10}, "main." + "x" * 300) for number in range(1000)
    ]
    text = page("a service", run(collections(50), told=told))
    found = Parsed(text)
    assert len(text.encode()) < MOST
    (caption,) = (each for each in found.tables if each.startswith("Each of them"))
    assert caption == "Each of them (the first 100 of 1000)" and len(found.tables[caption]) == 101
    assert any("Of 1000 pauses the first 30 have a bar" in words for words in found.words)


def hostile(name: str) -> Run:
    everything = np.concatenate([collections(20), stops(STATISTICS, [10**9, 2 * 10**9], [10**6] * 2, [10] * 2)])
    told = [gc_runs.explained(10**9, {"page fault": 10**6}, name), gc_runs.explained(2 * 10**9, {"work": 10**6}, name)]
    return run(everything, name=name, going_on=[going_on(5 * 10**9, 10**10, name)], told=told)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(name: str) -> None:
    plain, found = (Parsed(page(each, hostile(each))) for each in ("a name", name))
    # As many elements, with the same attributes, whatever the name is.
    assert [(tag, sorted(of)) for tag, of in found.tags] == [(tag, sorted(of)) for tag, of in plain.tags]
    assert len(found.scripts) == 3 and found.scripts[1:] == plain.scripts[1:]
    assert "<" not in found.scripts[0] and "&" not in found.scripts[0]
    assert all(text.isprintable() and len(text) < 60 for text in strings(found.figures))
    assert not any(re.search("[\0-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text) for text in found.words)


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = page("a service", hostile("a name"))
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text.replace(Parsed(text).scripts[1], ""))
    tags = Parsed(text).tags
    assert not [tag for tag, of in tags if tag in ("link", "img", "iframe", "object") or "src" in of or "href" in of]
    assert not [tag for tag, of in tags if "style" in of or any(name.startswith("on") for name in of)]
    (policy,) = [of["content"] for tag, of in tags if of.get("http-equiv") == "Content-Security-Policy"]
    assert policy and re.fullmatch("default-src 'none'; style-src 'sha256-.{44}'; script-src( 'sha256-.{44}'){2}", policy)


def test_sizes_are_as_the_table_has_them() -> None:
    found = Parsed(page("a service", run(collections(30))))
    by_time = next(rows for caption, rows in found.tables.items() if caption.startswith("The charts as numbers"))
    assert bytes_text(max(values(figure(found, HEAP)["charts"][0])["live"]) * MIB) in [row[-2] for row in by_time]


def test_a_slice_around_one_pause_has_no_rates() -> None:
    """How long it is was chosen, and a phase in it may be longer."""
    whole = run(collections(3), 30_000_000)
    sliced = replace(whole, header={**whole.header, "kept": {}})
    for each, is_slice in ((whole, False), (sliced, True)):
        shares = [cells[-1] for cells in gc_words.rows(each.total, each.over_ns)]
        assert len(shares) > 8 and all((share == "-") == is_slice for share in shares)
        assert ("/s" in gc_words.cycles(each.total, each.over_ns)) != is_slice
        made = page("slice", each)
        assert ("No rates or shares: these are 30.0 ms" in made) == is_slice
        assert ("of the time stopped" in made) != is_slice
