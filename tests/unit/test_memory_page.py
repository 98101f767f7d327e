"""The page about a process's memory: what it shows of which records, escaping, and that it loads nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import plotly.graph_objects
import plotly.offline
import pytest

import conftest
from gotrace.analysis.heap_pages import FREE, LIVE, PARTS, WASTE
from gotrace.analysis.phases import PHASES
from gotrace.analysis.placement import SPANS
from gotrace.export.memory_page import page

HOSTILE = [*conftest.HOSTILE, "\u6f22" * 300, "%{x}<b>$x^2$", "ink", "<a href='javascript:alert(1)'>"]
MIB = 1 << 20

Record = dict[str, Any]


class Parsed(HTMLParser):
    """The page's elements and its words, without those of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._in = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.words.append(data)

    @property
    def figures(self) -> list[Record]:
        found: list[Record] = json.loads(self.scripts[0])
        return found


def parsed(records: Sequence[Record], title: str = "a service", notes: Sequence[str] = ()) -> Parsed:
    return Parsed(page(title, records, notes))


def look(time: float, parts: dict[str, int], heap: int = 10 * MIB, **more: Any) -> Record:
    rss = sum(parts.values())
    amplification = rss / heap if heap else None
    record = {"type": "memory", "time": time, "rss_bytes": rss, "amplification": amplification, "parts": parts}
    return {**record, "counters": {"heap_alloc": heap}, "huge_bytes": 0, "swap_bytes": 0, **more}


def cycle(number: int, **more: Any) -> Record:
    record = {"type": "cycle", "time": f"2026-05-28T20:26:{number:02}.000000001Z", "cycle": number, "rss_bytes": 30 * MIB}
    return {**record, "heap_live_bytes": 10 * MIB, "heap_goal_bytes": 20 * MIB, "amplification": 3.0, **more}


def faults(**more: Any) -> Record:
    counts = {"heap objects": {phase: 10 * number for number, phase in enumerate(PHASES)}}
    times = {phase: {"count": 0} for phase in PHASES} | {PHASES[1]: {"count": 7, "p50_ns": 812, "p99_ns": 15_300}}
    lengths = dict.fromkeys(PHASES, 2_000_000_000)
    return {"type": "faults", "counts": counts, "phases_ns": lengths, "minor": times, "major": times, "lost": 0, **more}


def numa(**more: Any) -> Record:
    nodes = [{"node": node, "cpus": [node], "distance": {"0": 10, "1": 20}, "ran_ns": 1, "bytes": MIB} for node in (0, 1)]
    faults_ = {"rows": [0, 1], "columns": [0, 1, "unknown"], "counts": [[6, 2, 0], [1, 0, 1]]}
    memory = {FREE: {"0": MIB}, SPANS: {"-1": 3 * MIB, "1": MIB}}
    return {"type": "numa", "nodes": nodes, "memory": memory, "faults": faults_, "remote_share": 1 / 3, "lost": 0, **more}


def tlb(**more: Any) -> Record:
    phases = {"mutator": 4_000, "mark worker": 500, "assist": None, "sweep": 0, "STW": 1}
    counters = [{"event": "dtlb_misses", "total": 4_501, "running_share": 0.5, "phases": phases}]
    lengths = {**dict.fromkeys(phases, 2_000_000_000), "STW": 0}
    return {
        "type": "tlb",
        "counters": counters,
        "phases_ns": lengths,
        "flushes": None,
        "missing": [],
        "reach": None,
        **more,
    }


def everything(name: str = "a name") -> list[Record]:
    """All types, the name wherever the target may have one in."""
    counter = {"event": name, "total": 5, "running_share": None, "phases": {"mutator": 5, name: 1}}
    return [
        look(1, {LIVE: 20 * MIB, name: MIB}),
        look(2, {LIVE: 21 * MIB, name: MIB}),
        cycle(1),
        cycle(2),
        faults(
            counts={name: {name: 3, "mutator": 1}},
            series=[{"time": 1, "counts": {"mutator": 1, name: 3}}],
            phases_ns={"mutator": 10**9, name: 1},
        ),
        numa(memory={name: {"0": MIB}}, policies={name: MIB}, series=[{"time": 1, "ps": {"0": 1}}], advice=name),
        tlb(
            counters=[counter],
            phases_ns={"mutator": 10**9, name: 10**9},
            flushes={name: 3},
            missing=[[name, name]],
            per_1000_instructions={name: {name: 2.5}},
        ),
    ]


def titles(found: Parsed) -> list[str | None]:
    return [of["aria-label"] for tag, of in found.tags if tag == "div" and of.get("role") == "figure"]


def test_without_records_it_says_so() -> None:
    found = parsed([], notes=["It has exited."])
    assert "There is nothing to draw." in found.words and "It has exited." in found.words
    assert found.figures == []
    assert len(page("", [])) < 5_000


def test_a_chart_is_there_if_its_records_are() -> None:
    assert titles(parsed([look(1, {LIVE: 1}), look(2, {LIVE: 1})])) == ["Resident memory by part"]
    assert titles(parsed([cycle(1)])) == ["At the end of each GC cycle"]
    assert titles(parsed([faults()])) == ["Page faults by part and phase of the collector"]
    series = [{"time": 1, "counts": {"mutator": 4}}]
    assert titles(parsed([faults(series=series)])) == ["Page faults per second", *titles(parsed([faults()]))]
    by_node = ["Page faults by node of the CPU and of the page", "Resident memory by node"]
    assert titles(parsed([numa()])) == by_node
    assert titles(parsed([numa(series=[])])) == by_node
    assert titles(parsed([numa(memory={}, series=[{"time": 1, "bytes": {"0": 1}}])])) == [
        by_node[0],
        "Ps, threads and memory by node",
    ]
    assert titles(parsed([tlb()])) == ["TLB and caches: events by phase of the collector"]
    assert titles(parsed([tlb(counters=[])])) == []
    assert len(titles(parsed(everything()))) == 8


def test_looks_are_stacked_in_the_order_of_the_parts() -> None:
    # Out of order, as they may be in a file; a part is never there, another one once.
    later, earlier = look(2, {WASTE: 2 * MIB, LIVE: MIB, FREE: 0}, heap=0), look(1, {LIVE: 3 * MIB, "new": MIB, FREE: 0})
    (figure,) = parsed([later, earlier]).figures
    areas = {trace["name"]: trace["y"] for trace in figure["data"] if "stackgroup" in trace}
    assert areas == {LIVE: [3, 1], WASTE: [0, 2], "new": [1, 0]} and list(areas)[:2] == [LIVE, WASTE]
    assert [trace["name"] for trace in figure["data"]][3:] == ["RSS", "HeapAlloc", "MAF"]
    assert figure["data"][0]["x"] == [1000, 2000]
    assert figure["data"][-1]["y"] == [0.4, None] and figure["data"][-1]["yaxis"] == "y2"
    assert figure["layout"]["yaxis"]["ticksuffix"] == " MiB"
    # If the factor is known of no look, there is no chart of it.
    (figure,) = parsed([look(1, {LIVE: 1}, heap=0), look(2, {LIVE: 1}, heap=0)]).figures
    assert [trace["name"] for trace in figure["data"]] == [LIVE, "RSS", "HeapAlloc"] and "yaxis2" not in figure["layout"]


def test_a_single_look_is_a_bar() -> None:
    found = parsed([look(1, {LIVE: 2 << 30, FREE: 1 << 30, WASTE: 0}, heap=1 << 30, huge_bytes=2 * MIB)])
    (figure,) = found.figures
    assert [(each["type"], each["name"], each["x"]) for each in figure["data"]] == [
        ("bar", LIVE, [2]),
        ("bar", FREE, [1]),
        ("scatter", "HeapAlloc", [1]),
    ]
    assert figure["layout"]["xaxis"]["ticksuffix"] == " GiB"
    assert any("RSS 3.00 GiB, of it in huge pages 2.00 MiB" in text and "3.00 times" in text for text in found.words)


def test_a_part_has_its_colour_everywhere() -> None:
    def colours(record: Record) -> dict[str, str]:
        found = [each for each in parsed([record]).figures if each["data"][0]["type"] == "bar"]
        return {trace["name"]: trace["marker"]["color"] for trace in found[0]["data"] if trace["type"] == "bar"}

    parts = colours(look(1, dict.fromkeys([*PARTS, "new"], MIB)))
    assert len(set(parts.values())) == len(PARTS) + 1
    nodes = colours(numa(memory={name: {"0": MIB} for name in ("new", FREE, SPANS)}))
    assert nodes == {SPANS: parts[LIVE], FREE: parts[FREE], "new": parts["new"]}


def test_the_matrix_of_nodes_has_counts_and_shares() -> None:
    found = parsed([numa()])
    (trace,) = found.figures[0]["data"]
    assert trace["x"] == ["page, node 0", "page, node 1", "page, unknown"] and trace["y"] == ["CPU, node 0", "CPU, node 1"]
    assert trace["text"] == [["6<br>60.0%", "2<br>20.0%", "0<br>0.0%"], ["1<br>10.0%", "0<br>0.0%", "1<br>10.0%"]]
    bars = {each["name"]: each["x"] for each in found.figures[1]["data"]}
    assert bars == {SPANS: [0, 1, 3], FREE: [1, 0, 0]} and found.figures[1]["data"][0]["y"] == [
        "node 0",
        "node 1",
        "unknown",
    ]
    # Nodes may be numbers as well.
    again = parsed([numa(memory={FREE: {0: MIB}, SPANS: {-1: 3 * MIB, 1: MIB}})])
    assert again.figures == found.figures


def test_events_are_rates_of_their_phase() -> None:
    found = parsed([tlb(flushes={"task switch": 3, "shootdown": {"flushes": 1_234, "pages": 5, "whole": 1}})])
    figure = found.figures[0]
    assert [(each["name"], each["x"]) for each in figure["data"]] == [
        ("mutator", [2000]),
        ("mark worker", [250]),
        ("assist", [None]),
        ("sweep", [None]),
    ]
    assert figure["layout"]["xaxis"]["type"] == "linear"
    assert {"4,501", "50.0%", "1,234"} <= set(found.words)
    phases = {"mutator": 4_000, "mark worker": 4, "assist": 1, "sweep": 0}
    wide = tlb(counters=[{"event": "x", "total": 1, "running_share": None, "phases": phases}])
    assert parsed([wide]).figures[0]["layout"]["xaxis"]["type"] == "log"


def test_what_is_lost_or_missing_is_told() -> None:
    records = [
        faults(lost=1_234),
        tlb(lost=5, missing=[["walks", "no such event"]], reach=[{"page": 4096, "share": 0.125}]),
    ]
    words = parsed(records).words
    (lost,) = [number for number, text in enumerate(words) if text.startswith("1,234 events about page faults were lost")]
    assert lost < words.index("Page faults by part and phase of the collector")
    assert any(text.startswith("5 events about counts were lost") for text in words)
    assert "Not counted: walks (no such event)." in words
    assert "The TLB can map 12.5% of what is in pages of 4.00 KiB at once, at most." in words
    assert not any("lost" in text for text in parsed(everything()).words)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(name: str) -> None:
    plain, found = parsed(everything(), "a name", ["a name"]), parsed(everything(name), name, [name])
    # As many elements, with the same attributes, whatever the name is.
    assert [(tag, sorted(of)) for tag, of in found.tags] == [(tag, sorted(of)) for tag, of in plain.tags]
    assert len(found.scripts) == 3 and found.scripts[1:] == plain.scripts[1:]
    assert len(found.figures) == 8
    for text in strings(found.figures):
        # Plotly takes "<" for a tag and "&" for an entity; the one tag here is ours.
        assert "<" not in text.replace("<br>", "") and re.fullmatch(r"([^&]|&(amp|lt|gt);)*", text)
        assert text.isprintable()
    assert not any(re.search("[\0-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text) for text in found.words)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = page("a service", everything())
    own = text.replace(plotly.offline.get_plotlyjs(), "")
    assert len(own) < 40_000 and "http" not in own.replace("http-equiv", "")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", own)
    tags = Parsed(text).tags
    assert not [tag for tag, of in tags if tag in ("link", "img", "iframe", "object") or "src" in of or "href" in of]
    (policy,) = [of["content"] for tag, of in tags if of.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none';") and policy.count("sha256-") == 2
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert text == page("a service", everything())


def test_plotly_knows_all_that_is_asked_for() -> None:
    for figure in parsed(everything()).figures:
        # Raises for names and values it does not know; what colour "ink" is the script says.
        plotly.graph_objects.Figure(json.loads(json.dumps(figure).replace('"ink"', '"#000000"')))


def test_plotly_is_imported_when_it_is_needed() -> None:
    code = "import sys, gotrace.export.memory_page; print('plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "False\n"
