"""The page about a process's memory: what it shows of which records, escaping, and that it loads nothing."""

from __future__ import annotations

import hashlib
import html
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import conftest
from gotrace.analysis.heap_pages import FREE, LIVE, PARTS, WASTE
from gotrace.analysis.phases import PHASES
from gotrace.analysis.placement import SPANS
from gotrace.export import charts
from gotrace.export.memory_page.draw import page
from memory_records import BEGIN, MIB, Record, at, checked, counter, cycle, faults, look, numa, second, tlb
from pages import MOST, Parsed, strings

HOSTILE = [*conftest.HOSTILE, "\u6f22" * 300, "$title $x^2$", "ink", "<a href='javascript:alert(1)'>"]
VENDORED = Path(charts.__path__[0]) / "uPlot"
RECORDINGS = Path(__file__).parents[1] / "testdata" / "recordings"


def parsed(records: Sequence[Record], title: str = "a service", notes: Sequence[str] = ()) -> Parsed:
    return Parsed(page(title, records, notes))


def everything(name: str = "a name") -> list[Record]:
    """All types, the name wherever the target may have one in."""
    return [
        look(1, {LIVE: 20 * MIB}),
        look(2, {LIVE: 21 * MIB}),
        cycle(1, 1),
        cycle(2, 2),
        faults(counts={name: {"mutator": 1}}, series=[second(1, {"mutator": 1})]),
        numa(memory={name: {"0": MIB}}, policies={name: MIB}, series=[{**at(1), "ps": {"0": 1}}], advice=name),
        tlb(
            counters=[counter(name, {"mutator": 5}, 5)],
            flushes={name: {"flushes": 3, "pages": 1, "whole": 0}},
            missing=[[name, name]],
        ),
    ]


def values(series: Sequence[Record]) -> dict[str, list[Any]]:
    return {each["name"]: each["values"] for each in series}


def heat(text: str) -> list[tuple[str, str, str]]:
    """The coloured cells of the page: their colour, count and share."""
    return re.findall(r'<td class="heat(\d)">([\d,]+)(?:<small>(.*?)</small>)?</td>', text)


def test_fixtures_are_records() -> None:
    with pytest.raises(jsonschema.ValidationError):
        checked({**tlb(), "per_1000_instructions": {}})
    with pytest.raises(jsonschema.ValidationError):
        look(1, {"new": MIB})


def test_without_records_it_says_so() -> None:
    found = parsed([], notes=["It has exited."])
    assert "There is nothing to draw." in found.words and "It has exited." in found.words
    assert found.figures == [] and found.scripts == []
    assert len(page("", [])) < 10_000
    # A table is something, though it needs no script.
    found = parsed([faults()])
    assert "There is nothing to draw." not in found.words and found.scripts == []


def test_a_chart_is_there_if_its_records_are() -> None:
    assert parsed([look(1, {LIVE: 1}), look(2, {LIVE: 1})]).heads == ["Resident memory by part"]
    assert parsed([cycle(1, 1)]).heads == ["At the end of each GC cycle"]
    by_phase = "Page faults by part and GC phase"
    assert parsed([faults()]).heads == [by_phase]
    assert parsed([faults(series=[second(1, {"mutator": 4})])]).heads == ["Page faults per second", by_phase]
    by_node = "Page faults by node of the CPU and of the page"
    assert parsed([numa()]).heads == [by_node, "Resident memory by node"]
    over_time = parsed([numa(memory={}, series=[{**at(1), "bytes": {"0": 1}}])])
    assert over_time.heads == [by_node, "Ps, threads and memory by node"]
    assert parsed([tlb()]).heads == ["TLB and caches: events by GC phase"]
    assert parsed([tlb(counters=[])]).heads == []
    whole = parsed(everything())
    assert len(whole.heads) == 8
    # Each but the two tables is drawn by the script, in this order.
    named = [of["aria-label"] for _, of in whole.tags if of.get("class") == "figure"]
    assert named == [head for head in whole.heads if head not in (by_phase, by_node)] and len(whole.figures) == len(named)


def test_looks_are_stacked_in_the_order_of_the_parts() -> None:
    # Out of order, as they may be in a file; a part is never there, another one once.
    later, earlier = look(2, {WASTE: 2 * MIB, LIVE: MIB}, heap=0), look(1, {LIVE: 3 * MIB, PARTS[-1]: MIB})
    (figure,) = parsed([later, earlier]).figures
    memory, factor = figure["charts"]
    areas = values([each for each in memory["series"] if each["style"] == "area"])
    assert areas == {LIVE: [3, 1], WASTE: [0, 2], PARTS[-1]: [1, 0]} and list(areas) == [LIVE, WASTE, PARTS[-1]]
    assert values(memory["series"][3:]) == {"RSS": [4, 3], "HeapAlloc": [10, 0]}
    assert figure["times"] == [BEGIN * 1000 + 1000, BEGIN * 1000 + 2000]
    assert values(factor["series"]) == {"MAF": [0.4, None]}
    assert memory["unit"] == " MiB" and memory["axis"] == "MiB" and factor["unit"] == ""
    # If the factor is known of no look, there is no chart of it.
    (figure,) = parsed([look(1, {LIVE: 1}, heap=0), look(2, {LIVE: 1}, heap=0)]).figures
    assert [[each["name"] for each in chart["series"]] for chart in figure["charts"]] == [[LIVE, "RSS", "HeapAlloc"]]


def test_times_are_those_of_the_records() -> None:
    (figure,) = parsed([cycle(1, 0.25), cycle(2, 86_400.000_123)]).figures
    # Three decimals of milliseconds: what is lost is less than a microsecond.
    assert figure["times"] == [BEGIN * 1000 + 250, BEGIN * 1000 + 86_400_000.123]
    assert figure["names"] == ["cycle 1", "cycle 2"]


def test_a_single_look_is_a_bar() -> None:
    text = page("a service", [look(1, {LIVE: 2 << 30, FREE: 1 << 30}, heap=1 << 30, huge_bytes=2 * MIB)])
    found = Parsed(text)
    (figure,) = found.figures
    assert [(each["style"], each["name"], each["values"]) for each in figure["series"]] == [
        ("bar", LIVE, [2]),
        ("bar", FREE, [1]),
        ("mark", "HeapAlloc", [1]),
    ]
    assert figure["unit"] == " GiB" and figure["stacked"]
    assert any("RSS 3.00 GiB, of which in huge pages 2.00 MiB" in text and "3.00 times" in text for text in found.words)


def test_the_control_group_is_drawn_and_what_is_unknown_is_no_blank() -> None:
    group = {
        "version": 2,
        "path": "/shop",
        "limited": True,
        "limit_bytes": 64 * MIB,
        "limited_by": "/",
        "usage_bytes": 40 * MIB,
        "working_set_bytes": 30 * MIB,
        "page_cache_bytes": None,
    }
    regions = [{"name": "/srv/index", "part": "files and libraries", "mappings": 2, "bytes": MIB}]
    found = parsed([look(1, {LIVE: MIB}), look(2, {LIVE: 4 * MIB}, cgroup=group, regions=regions)])
    _, _, chart = found.figures[0]["charts"]
    assert values(chart["series"]) == {"usage": [None, 40], "working set": [None, 30], "limit": [None, 64]}
    said = "Cgroup /shop: limit 64.0 MiB (of /); usage 40.0 MiB, working set 30.0 MiB, page cache ?."
    assert said in found.words and {"/srv/index", "2", "25.0%"} <= set(found.words)
    unknown = parsed([look(1, {LIVE: MIB}, cgroup=None, regions=None)]).words
    assert {"Cgroup: ?", "Largest mappings: ?"} <= set(unknown)
    nodes = [{"node": 0, "cpus": [0], "distance": {"0": 10}, "ran_ns": 1, "bytes": None}]
    assert "?" in parsed([numa(nodes=nodes, memory={}, memory_age_ns=None)]).words
    words = parsed([tlb(counters=[counter("x", {"mutator": None}, 5)])]).words
    assert "?" in words  # share of the time it was counted
    over_time = parsed([numa(series=[{**at(1), "bytes": {"0": MIB}}, {**at(2), "ps": {"0": 1}}])])
    (_, memory) = over_time.figures[-1]["charts"]
    assert values(memory["series"]) == {"memory, node 0": [1, None]}
    open_fault = {"tid": 7, "lasted_ns": 2_000_000_000, "address": 4096, "part": "stacks"}
    told = parsed([faults(in_progress=[open_fault])]).words
    assert "Not ended: thread 7 has been in a page fault for 2.00 s (stacks, 0x1000)." in told
    assert "Page faults still in progress: ?" in parsed([faults(in_progress=None)]).words


def test_a_part_has_its_colour_everywhere() -> None:
    def colours(record: Record) -> dict[str, str]:
        bars = next(figure for figure in parsed([record]).figures if "rows" in figure)
        return {each["name"]: each["colour"] for each in bars["series"] if each["style"] == "bar"}

    parts = colours(look(1, dict.fromkeys(PARTS, MIB)))
    assert len(set(parts.values())) == len(PARTS)
    nodes = colours(numa(memory={name: {"0": MIB} for name in ("new", FREE, SPANS)}))
    assert nodes[SPANS] == parts[LIVE] and nodes[FREE] == parts[FREE] and nodes["new"] not in parts.values()
    assert nodes == colours(numa(memory={name: {"1": MIB} for name in (FREE, "new", SPANS)}))


def test_the_matrix_of_nodes_has_counts_and_shares() -> None:
    text = page("a service", [numa()])
    assert [cell[1:] for cell in heat(text)] == [
        *(("6", "60.0%"), ("2", "20.0%"), ("0", "0.0%")),
        *(("1", "10.0%"), ("0", "0.0%"), ("1", "10.0%")),
    ]
    heads = re.findall("<th>(.*?)</th>", text)
    assert heads[:6] == ["", "page, node 0", "page, node 1", "page, unknown", "CPU, node 0", "CPU, node 1"]
    (figure,) = Parsed(text).figures
    assert values(figure["series"]) == {SPANS: [0, 1, 3], FREE: [1, 0, 0]}
    assert figure["rows"] == ["node 0", "node 1", "unknown"]


def test_more_faults_are_of_a_stronger_colour() -> None:
    counts = dict(zip(PHASES, (0, 10, 1_000, 100_000), strict=True))
    cells = heat(page("a service", [faults(counts={"stacks": counts})]))
    assert [(count, share) for _, count, share in cells] == [("0", ""), ("10", ""), ("1,000", ""), ("100,000", "")]
    shades = [int(shade) for shade, _, _ in cells]
    assert shades == sorted(set(shades)) and shades[0] == 0
    # The style has all of them, and no more.
    styled = re.findall(r"^\.heat(\d) \{background", page("", []), re.MULTILINE)
    assert [*map(int, styled)] == list(range(shades[-1] + 1))


def test_events_are_rates_of_their_phase() -> None:
    found = parsed([tlb(flushes={"remote shootdown": {"flushes": 1_234, "pages": 5, "whole": 1}})])
    (figure,) = found.figures
    assert figure["rows"] == ["dtlb_misses"]
    assert values(figure["series"]) == {"mutator": [2000], "mark worker": [250], "assist": [None], "sweep": [0]}
    assert not figure["log"] and "logarithmic" not in figure["axis"]
    assert {"4,501", "50.0%", "1,234"} <= set(found.words)
    wide = tlb(counters=[counter("x", {"mutator": 4_000, "mark worker": 4, "assist": 1, "sweep": 0}, 1)])
    (figure,) = parsed([wide]).figures
    assert figure["log"] and "logarithmic" in figure["axis"]


def test_what_is_lost_or_missing_is_told() -> None:
    reach = [{"page": 4096, "pages": 12_288, "share": 0.125}, {"page": 2 * MIB, "pages": 32, "share": None}]
    words = parsed([faults(lost=1_234), tlb(lost=5, missing=[["walks", "no such event"]], reach=reach)]).words
    (lost,) = [number for number, text in enumerate(words) if text.startswith("1,234 page fault events lost")]
    assert lost < words.index("Page faults by part and GC phase")
    assert any(text.startswith("5 counter events lost") for text in words)
    assert "Not counted: walks (no such event)." in words
    assert "The TLB covers at most 12.5% of the memory in 4.00 KiB pages at once." in words
    assert sum(text.startswith("The TLB covers") for text in words) == 1
    assert not any("lost" in text for text in parsed(everything()).words)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(name: str) -> None:
    plain, found = parsed(everything(), "a name", ["a name"]), parsed(everything(name), name, [name])
    # As many elements, with the same attributes, whatever the name is.
    assert [(tag, sorted(of)) for tag, of in found.tags] == [(tag, sorted(of)) for tag, of in plain.tags]
    assert len(found.scripts) == 3 and found.scripts[1:] == plain.scripts[1:]
    assert "<" not in found.scripts[0] and "&" not in found.scripts[0]
    assert len(found.figures) == 6
    assert all(text.isprintable() and len(text) < 60 for text in strings(found.figures))
    assert not any(re.search("[\0-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text) for text in found.words)


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = page("a service", everything())
    own = text.replace(Parsed(text).scripts[1], "")
    assert len(own) < 40_000 and "http" not in own.replace("http-equiv", "")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", own)
    tags = Parsed(text).tags
    assert not [tag for tag, of in tags if tag in ("link", "img", "iframe", "object") or "src" in of or "href" in of]
    assert not [tag for tag, of in tags if "style" in of or any(name.startswith("on") for name in of)]
    (policy,) = [of["content"] for tag, of in tags if of.get("http-equiv") == "Content-Security-Policy"]
    assert policy and re.fullmatch("default-src 'none'; style-src 'sha256-.{44}'; script-src( 'sha256-.{44}'){2}", policy)
    assert text == page("a service", everything())


def test_a_page_is_small() -> None:
    """Of ten minutes, second by second, with everything that there can be."""
    count = 600
    parts = {part: (1_234_567 + number) * 4096 for number, part in enumerate(PARTS)}
    by_node = {"ps": {"0": 4, "1": 4}, "threads": {"0": 7, "1": 3}, "bytes": {"0": 700 * MIB + 4096, "1": 300 * MIB}}
    records = [
        *(look(number + 0.123456789, parts, heap=1_234_567_890) for number in range(count)),
        *(cycle(number, number + 0.987654321, 3_456_789_012, 1_234_567_890) for number in range(count)),
        faults(series=[second(number, dict.fromkeys(PHASES, 123_456)) for number in range(count)]),
        numa(series=[{**at(number), **by_node} for number in range(count)]),
        tlb(),
    ]
    assert len(page("a service", records).encode()) < MOST


@pytest.mark.parametrize("name", ["mem", "cycles", "faults", "numa", "tlb"])
def test_a_recording_s_page_shows_what_its_report_says(name: str) -> None:
    def made(*arguments: str) -> str:
        command = [sys.executable, "-m", "gotrace.cli", *arguments]
        return subprocess.run(command, cwd=RECORDINGS, capture_output=True, text=True, check=True).stdout

    records = [checked(json.loads(line)) for line in made("report", f"{name}.gotrace", "--format", "ndjson").splitlines()]
    text = made("export", f"{name}.gotrace", "--format", "html", "-o", "-")
    assert len(text.encode()) < MOST / 4
    (title,) = re.findall("<title>(.*)</title>", text)
    assert text == page(html.unescape(title), records)
    looks = [each for each in records if each["type"] == "memory"]
    drawn = values(Parsed(text).figures[0]["charts"][0]["series"]) if looks else {}
    for number, each in enumerate(looks):
        sizes = {part: of[number] * MIB for part, of in drawn.items() if part in PARTS}
        assert sizes == pytest.approx({part: each["parts"][part] for part in sizes}, abs=1)
        assert sum(sizes.values()) == pytest.approx(each["rss_bytes"], abs=len(PARTS))


def test_the_library_is_what_was_released() -> None:
    sums = [line.split() for line in (VENDORED / "SHA256SUMS").read_text().splitlines() if not line.startswith("#")]
    assert {name for _, name in sums} == {path.name for path in VENDORED.iterdir()} - {"SHA256SUMS"}
    for digest, name in sums:
        assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == digest, name


def test_the_library_comes_with_its_licence() -> None:
    """Which wants that in every copy; a page is one."""
    assert (VENDORED / "LICENSE").read_text() in Parsed(page("a service", everything())).scripts[1]
