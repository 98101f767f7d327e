"""The page about a process's memory in a real browser: what is drawn, hostile names, two colour schemes, little room."""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from gotrace.analysis.heap_pages import C_HEAP, LIVE, OTHER, PADDING, PARTS, WASTE
from gotrace.analysis.phases import PHASES
from gotrace.analysis.placement import SPANS
from gotrace.export.memory_page import page

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'
HOSTILE_LABEL = "<b>%{x}</b><a href=\"javascript:document.title='taken'\">"
MIB = 1 << 20
BEGIN = 1_780_000_000

Record = dict[str, Any]
Show = Callable[[list[Record]], None]


@pytest.fixture
def show(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Show]:
    """show(records) opens their page; at the end nothing may have gone wrong."""

    def open_(records: list[Record]) -> None:
        path = tmp_path / "memory.html"
        path.write_text(page(HOSTILE, records, [f"A note. {HOSTILE}"]), encoding="utf-8")
        opened(browser, path)

    yield open_
    assert complaints(browser) == []
    assert browser.title != "taken" and browser.find_element(By.TAG_NAME, "h1").text == HOSTILE
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def opened(browser: webdriver.Chrome, path: Path) -> None:
    """Open the page; the driver may come back from that while so much script is still being read."""
    browser.get(path.as_uri())
    WebDriverWait(browser, 30).until(lambda _: browser.execute_script("return document.readyState") == "complete")


def looks(count: int) -> list[Record]:
    """A heap that grows and is collected, over ``count`` seconds."""
    found = []
    for second in range(count):
        phase = second % 20 / 20
        sizes = {part: 2.5 + 4 * number for number, part in enumerate(PARTS)}
        sizes |= {LIVE: 120 + 140 * phase, WASTE: 30 + 5 * phase, PADDING: 0.0, OTHER: 0.25, C_HEAP: 14.0}
        parts = {part: round(size * 256) * 4096 for part, size in sizes.items()} | {
            HOSTILE: 3 * MIB,
            HOSTILE_LABEL: 2 * MIB,
        }
        rss, heap = sum(parts.values()), round((118 + 140 * phase) * MIB)
        amplification = round(rss / heap, 4) if second != 3 else None
        found.append(
            {
                "type": "memory",
                "time": BEGIN + second + 0.25,
                "rss_bytes": rss,
                "amplification": amplification,
                "parts": parts,
                "counters": {"heap_alloc": heap, "num_gc": second // 20},
                "huge_bytes": 64 * MIB,
                "swap_bytes": 0,
            }
        )
    return found


def cycles(count: int) -> list[Record]:
    rng = random.Random(2)
    found = []
    for number in range(count):
        live, rss = round(rng.uniform(110, 150) * MIB), round(rng.uniform(330, 350) * MIB)
        second = 2.5 * number
        found.append(
            {
                "type": "cycle",
                "time": f"2026-05-28T20:{26 + int(second) // 60:02}:{second % 60:012.9f}Z",
                "cycle": 100 + number,
                "rss_bytes": rss,
                "heap_live_bytes": live,
                "heap_goal_bytes": 2 * live,
                "amplification": round(rss / live, 4),
            }
        )
    return found


def faults(count: int = 60) -> Record:
    rng = random.Random(3)
    parts = ["heap objects", "free", "stacks", "runtime metadata", HOSTILE]
    weights = (1, 0.4, 0.05, 0)
    counts = {
        part: {phase: round(123_457 * weight / 7**row) for phase, weight in zip(PHASES, weights, strict=True)}
        for row, part in enumerate(parts)
    }
    times = {"count": 140_000, "p50_ns": 812, "p99_ns": 15_300, "max_ns": 1_234_567}
    return {
        "type": "faults",
        "counts": counts,
        "phases_ns": dict(zip(PHASES, (48_000_000_000, 11_000_000_000, 900_000_000, 2_000_000), strict=True)),
        "minor": {phase: times if phase != "STW" else {"count": 0} for phase in PHASES},
        "major": {phase: {"count": 0} for phase in PHASES},
        "series": [
            {"time": BEGIN + second, "counts": {phase: rng.randrange(1, 4000) for phase in PHASES[:3]}}
            for second in range(count)
        ],
        "lost": 1_234,
    }


def numa() -> Record:
    rng = random.Random(4)
    counts = [[70_001, 9_002, 3], [21_004, 30_005, 0]]
    nodes = [
        {"node": node, "cpus": list(range(8 * node, 8 * node + 8)), "distance": {"0": 10 + 11 * node, "1": 21 - 11 * node}}
        | {"ran_ns": 40_000_000_000 * (2 - node), "bytes": 900 * MIB}
        for node in (0, 1)
    ]
    memory = {part: {"0": (13 - row) * 60 * MIB, "1": row * 30 * MIB} for row, part in enumerate((SPANS, *PARTS[1:9]))}
    memory[HOSTILE] = {"-1": 40 * MIB, "0": MIB}
    series = [
        {"time": BEGIN + second, "ps": {"0": 4 + (ps := rng.randrange(4)), "1": 4 - ps}}
        | {"threads": {"0": 7, "1": 3}, "bytes": {"0": (700 + second) * MIB, "1": 300 * MIB}}
        for second in range(30)
    ]
    return {
        "type": "numa",
        "nodes": nodes,
        "memory": memory,
        "faults": {"rows": [0, 1], "columns": [0, 1, "unknown"], "counts": counts},
        "remote_share": 0.2307,
        "policies": {"prefer (many)": 40 * MIB, HOSTILE: 4096},
        "series": series,
        "lost": 0,
    }


def tlb() -> Record:
    names = ("instructions", "dTLB-loads", "dTLB-load-misses", "iTLB-load-misses", "page-faults", HOSTILE)
    phases = (*PHASES, "assist")
    counters = []
    for row, name in enumerate(names):
        of_phases = {phase: round(9e12 / 12**row / 5**column) for column, phase in enumerate(phases)}
        counters.append(
            {"event": name, "total": sum(of_phases.values()), "running_share": 1 - row / 10, "phases": of_phases}
        )
    return {
        "type": "tlb",
        "counters": counters,
        "phases_ns": {phase: 50_000_000_000 // 4**column for column, phase in enumerate(phases)},
        "per_1000_instructions": {
            name: {phase: 3.25 / (1 + row) for phase in phases} for row, name in enumerate(names[1:])
        },
        "flushes": {"remote shootdown": {"flushes": 5_432, "pages": 70_000, "whole": 3}, HOSTILE: 1},
        "missing": [["cycles in page walks", f"this CPU has no such event {HOSTILE}"]],
        "reach": [{"page": 4096, "pages": 12_288, "share": 0.125}, {"page": 2 * MIB, "pages": 32, "share": None}],
    }


def everything() -> list[Record]:
    return [*looks(90), *cycles(36), faults(), numa(), tlb()]


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]


def headings(browser: webdriver.Chrome) -> list[str]:
    return [each.text for each in browser.find_elements(By.TAG_NAME, "h2")]


def charts(browser: webdriver.Chrome) -> list[Record]:
    """What plotly made of each chart: its traces, and the texts one sees."""
    found: list[Record] = browser.execute_script(
        """return [...document.querySelectorAll(".js-plotly-plot")].map((chart) => ({
            names: chart._fullData.filter((trace) => trace.visible === true).map((trace) => trace.name),
            types: chart._fullData.map((trace) => trace.type),
            data: chart.data, layout: chart.layout,
            legend: [...chart.parentElement.querySelectorAll(".legend button")].map((each) => each.textContent),
            texts: [...chart.querySelectorAll("svg text")].map((each) => each.textContent),
            links: chart.querySelectorAll("svg a, svg img").length,
            wrong: Plotly.validate(chart.data, chart.layout) ?? [],
        }))"""
    )
    return found


def prefer(browser: webdriver.Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_every_record_is_drawn(show: Show, browser: webdriver.Chrome) -> None:
    show(everything())
    assert headings(browser) == [
        "Resident memory by part",
        "At the end of each GC cycle",
        "Page faults per second",
        "Page faults by part and phase of the collector",
        "Page faults by node of the CPU and of the page",
        "Resident memory by node",
        "Ps, threads and memory by node",
        "TLB and caches: events by phase of the collector",
    ]
    drawn = charts(browser)
    # In the first: 12 parts that are not always 0, two hostile ones, RSS, HeapAlloc, and MAF.
    assert [len(each["types"]) for each in drawn] == [17, 4, 3, 1, 1, 10, 6, 5]
    assert [len(each["legend"]) for each in drawn] == [17, 4, 3, 0, 0, 10, 6, 5]
    first = [each["types"][0] for each in drawn]
    assert first == ["scatter", "scatter", "bar", "heatmap", "heatmap", "bar", "scatter", "bar"]
    assert [each["wrong"] for each in drawn] == [[]] * len(drawn)
    assert PADDING not in drawn[0]["legend"] and drawn[0]["legend"][:2] == [LIVE, WASTE]
    # Text beginning with these two is what a name is, not a link or a bold letter.
    assert sum(text.startswith(("</script><script>", "<b>%{x}</b><a hr")) for text in drawn[0]["legend"]) == 2
    assert [each["links"] for each in drawn] == [0] * len(drawn)
    assert browser.find_element(By.CLASS_NAME, "lost").text.startswith("1,234 events about page faults were lost")
    words = browser.find_element(By.TAG_NAME, "body").text
    for text in (
        "23.1% of the faults",
        "prefer (many)",
        "5,432",
        "Not counted: cycles in page walks",
        "12.5% of what",
        "15.3 us",
    ):
        assert text in words


def test_the_numbers_are_those_of_the_records(show: Show, browser: webdriver.Chrome) -> None:
    show(everything())
    memory, _, per_second, by_phase, by_node, _, _, tlb_ = charts(browser)
    stacked = [trace["y"] for trace in memory["data"] if trace.get("stackgroup")]
    for number, look in enumerate(looks(90)):
        assert sum(sizes[number] for sizes in stacked) == pytest.approx(look["rss_bytes"] / MIB, abs=0.001)
    lines = {trace["name"]: trace["y"] for trace in memory["data"] if not trace.get("stackgroup")}
    assert lines["RSS"][7] == pytest.approx(looks(90)[7]["rss_bytes"] / MIB, abs=0.001)
    assert lines["HeapAlloc"][7] == pytest.approx(looks(90)[7]["counters"]["heap_alloc"] / MIB, abs=0.001)
    assert lines["MAF"][2:5] == [looks(90)[2]["amplification"], None, looks(90)[4]["amplification"]]
    assert sum(sum(trace["y"]) for trace in per_second["data"]) == sum(
        sum(each["counts"].values()) for each in faults()["series"]
    )
    assert {"123,457", "49,383", "6,173", "mutator", "heap objects"} <= set(by_phase["texts"])
    assert {"70,00153.8%", "9,0026.9%", "30,00523.1%", "CPU, node 1", "page, unknown"} <= set(by_node["texts"])
    assert tlb_["layout"]["xaxis"]["type"] == "log"
    assert tlb_["data"][0]["x"][0] == pytest.approx(9e12 / 50)


def test_a_single_look_lies(show: Show, browser: webdriver.Chrome) -> None:
    show(looks(1))
    (chart,) = charts(browser)
    assert set(chart["types"]) == {"bar", "scatter"} and len(chart["legend"]) == 15
    sizes = [trace["x"][0] for trace in chart["data"] if trace["type"] == "bar"]
    assert math.fsum(sizes) == pytest.approx(looks(1)[0]["rss_bytes"] / MIB, abs=0.001)
    bars = browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .bars .point path")
    edges = sorted((bar.rect["x"], bar.rect["x"] + bar.rect["width"]) for bar in bars)
    assert len(edges) == 14
    assert all(begin == pytest.approx(end, abs=1) for (_, end), (begin, _) in zip(edges[:-1], edges[1:], strict=True))


def test_a_pointer_is_told_all_values_of_a_time(show: Show, browser: webdriver.Chrome) -> None:
    show([*looks(90)])
    plot = browser.find_element(By.CSS_SELECTOR, ".js-plotly-plot .nsewdrag")
    ActionChains(browser).move_to_element(plot).pause(0.3).move_by_offset(3, 2).pause(0.5).perform()
    texts = [each.text for each in browser.find_elements(By.CSS_SELECTOR, ".hoverlayer .legendtext")]
    assert len(texts) in (16, 17)  # MAF, in the chart below, only since plotly 5.23
    assert "free : 10.5 MiB" in texts and "unexplained : 0.25 MiB" in texts
    assert browser.find_elements(By.CSS_SELECTOR, ".hoverlayer a") == []


def test_an_entry_of_the_legend_hides_and_shows(show: Show, browser: webdriver.Chrome) -> None:
    show([*looks(90), *cycles(9)])
    entries = browser.find_elements(By.CSS_SELECTOR, ".legend button")
    free = next(each for each in entries if each.text == "free")

    def shown() -> list[str]:
        return [name for chart in charts(browser) for name in chart["names"]]

    before = shown()
    assert "free" in before and len(before) == len(entries) == 21
    free.click()
    assert free.get_attribute("aria-pressed") == "false"
    assert shown() == [name for name in before if name != "free"]
    try:
        prefer(browser, "dark")
        assert shown() == [name for name in before if name != "free"]
        free.send_keys(Keys.ENTER)
        assert shown() == before
    finally:
        prefer(browser, "")


def test_dark_where_that_is_preferred(show: Show, browser: webdriver.Chrome, tmp_path: Path) -> None:
    grounds = {}
    inks = {}
    try:
        prefer(browser, "light")
        show(everything())
        for scheme in ("light", "dark"):
            prefer(browser, scheme)
            body = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
            charts_ = browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .main-svg:first-child")
            grounds[scheme] = {body.replace("rgba", "rgb").replace(", 1)", ")")} | {
                each.value_of_css_property("background").partition(")")[0] + ")" for each in charts_
            }
            inks[scheme] = charts(browser)[1]["data"][0]["line"]["color"]
            picture = browser.execute_cdp_cmd(
                "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": whole(browser)}
            )
            (tmp_path / f"{scheme}.png").write_bytes(base64.b64decode(picture["data"]))
            # Compressed: an empty page of this size takes 20 kB.
            assert (tmp_path / f"{scheme}.png").stat().st_size > 100_000
    finally:
        prefer(browser, "")
    # The page's and all charts' at once, without that it was loaded again.
    assert grounds == {"light": {"rgb(252, 252, 250)"}, "dark": {"rgb(23, 24, 28)"}}
    assert inks == {"light": "#1c1c22", "dark": "#e4e4ea"}


def whole(browser: webdriver.Chrome) -> Record:
    width, height = browser.execute_script("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]")
    return {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}


def test_little_room_is_enough(show: Show, browser: webdriver.Chrome) -> None:
    show(everything())
    wide = browser.find_element(By.CLASS_NAME, "js-plotly-plot").rect["width"]
    try:
        browser.set_window_size(500, 900)
        wait = WebDriverWait(browser, 10)
        wait.until(lambda _: browser.find_element(By.CSS_SELECTOR, ".js-plotly-plot .main-svg").rect["width"] < 500)
        width, room = browser.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
        assert width <= room <= 500
        for each in browser.find_elements(By.CSS_SELECTOR, ".legend li"):
            assert each.rect["x"] + each.rect["width"] <= room
        for chart in browser.find_elements(By.CLASS_NAME, "js-plotly-plot"):
            assert chart.rect["width"] < min(wide, 500)
            svg = chart.find_element(By.CLASS_NAME, "main-svg").rect
            assert svg["height"] == chart.rect["height"] and svg["width"] <= chart.rect["width"]
    finally:
        browser.set_window_size(1280, 900)


def test_a_policy_forbids_what_is_not_the_page_s_own(browser: webdriver.Chrome, tmp_path: Path) -> None:
    text = page("A service", looks(2)).replace("<h1>", '<script>document.title = "taken"</script><h1>')
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    opened(browser, tmp_path / "page.html")
    (complaint,) = complaints(browser)
    assert "Content Security Policy" in complaint and browser.title == "A service"
    assert len(charts(browser)) == 1
