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

from browsing import complaints, narrowed, opened, prefer
from gotrace.analysis.heap_pages import C_HEAP, LIVE, OTHER, PADDING, PARTS, WASTE
from gotrace.analysis.phases import PHASES
from gotrace.analysis.placement import SPANS
from gotrace.export.memory_page.draw import page
from memory_records import BEGIN, MIB, Record, at, counter, cycle, faults, look, numa, second, tlb

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'
MEMORY = "Resident memory by part"
CYCLES = "At the end of each GC cycle"
PER_SECOND = "Page faults per second"
BY_NODE = "Resident memory by node"
TLB = "TLB and caches: events by GC phase"
_OF_PARTS = "#3b7dbd #e5a02d #93c6e6 #3fa08f #cf7690 #9a62b8 #dccb7c #6b6fb5 #a3a05a #d8a98a #8c6a4f #878d9a #c3c7d0"
COLOURS = dict(zip((*PARTS, *PHASES), [*_OF_PARTS.split(), "#3b7dbd", "#e5a02d", "#3fa08f", "#c8443a"], strict=True))

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


def looks(count: int) -> list[Record]:
    """A heap that grows and is collected, over ``count`` seconds."""
    found = []
    for number in range(count):
        phase = number % 20 / 20
        sizes = {part: 2.5 + 4 * place for place, part in enumerate(PARTS)}
        sizes |= {LIVE: 120 + 140 * phase, WASTE: 30 + 5 * phase, PADDING: 0.0, OTHER: 0.25, C_HEAP: 14.0}
        parts = {part: round(size * 256) * 4096 for part, size in sizes.items()}
        heap = round((118 + 140 * phase) * MIB) if number != 3 else 0
        found.append(look(number + 0.25, parts, heap, huge_bytes=64 * MIB))
    return found


def cycles(count: int) -> list[Record]:
    rng = random.Random(2)
    sizes = [(round(rng.uniform(110, 150) * MIB), round(rng.uniform(330, 350) * MIB)) for _ in range(count)]
    return [cycle(100 + number, 2.5 * number, rss, live) for number, (live, rss) in enumerate(sizes)]


def many_faults(count: int = 60) -> Record:
    rng = random.Random(3)
    parts = ["heap objects", "free", "stacks", "runtime metadata", HOSTILE]
    weights = (1, 0.4, 0.05, 0)
    counts = {
        part: {phase: round(123_457 * weight / 7**row) for phase, weight in zip(PHASES, weights, strict=True)}
        for row, part in enumerate(parts)
    }
    series = [second(number, {phase: rng.randrange(1, 4000) for phase in PHASES[:3]}) for number in range(count)]
    lengths = dict(zip(PHASES, (48_000_000_000, 11_000_000_000, 900_000_000, 2_000_000), strict=True))
    return faults(counts=counts, phases_ns=lengths, series=series, lost=1_234)


def placement() -> Record:
    rng = random.Random(4)
    nodes = [
        {"node": node, "cpus": list(range(8 * node, 8 * node + 8)), "distance": {"0": 10 + 11 * node, "1": 21 - 11 * node}}
        | {"ran_ns": 40_000_000_000 * (2 - node), "bytes": 900 * MIB}
        for node in (0, 1)
    ]
    memory = {part: {"0": (13 - row) * 60 * MIB, "1": row * 30 * MIB} for row, part in enumerate((SPANS, *PARTS[1:9]))}
    memory[HOSTILE] = {"-1": 40 * MIB, "0": MIB}
    series = [
        {**at(number), "ps": {"0": 4 + (ps := rng.randrange(4)), "1": 4 - ps}}
        | {"threads": {"0": 7, "1": 3}, "bytes": {"0": (700 + number) * MIB, "1": 300 * MIB}}
        for number in range(30)
    ]
    return numa(
        nodes=nodes,
        memory=memory,
        faults={"rows": [0, 1], "columns": [0, 1, "unknown"], "counts": [[70_001, 9_002, 3], [21_004, 30_005, 0]]},
        remote_share=0.2307,
        policies={"prefer (many)": 40 * MIB, HOSTILE: 4096},
        series=series,
    )


def translation() -> Record:
    names = ("instructions", "dTLB-loads", "dTLB-load-misses", "iTLB-load-misses", "page-faults", HOSTILE)
    phases = (*PHASES, "assist")
    counters = []
    for row, name in enumerate(names):
        of_phases: dict[str, int | None] = {phase: round(9e12 / 12**row / 5**at) for at, phase in enumerate(phases)}
        counters.append(counter(name, of_phases, sum(of_phases.values()), 1 - row / 10))  # type: ignore[arg-type]
    return tlb(
        counters=counters,
        phases_ns={phase: 50_000_000_000 // 4**column for column, phase in enumerate(phases)},
        flushes={
            "remote shootdown": {"flushes": 5_432, "pages": 70_000, "whole": 3},
            HOSTILE: {"flushes": 1, "pages": 0, "whole": 0},
        },
        missing=[["cycles in page walks", f"this CPU has no such event {HOSTILE}"]],
        reach=[{"page": 4096, "pages": 12_288, "share": 0.125}, {"page": 2 * MIB, "pages": 32, "share": None}],
    )


def everything() -> list[Record]:
    return [*looks(90), *cycles(36), many_faults(), placement(), translation()]


def headings(browser: webdriver.Chrome) -> list[str]:
    return [each.text for each in browser.find_elements(By.TAG_NAME, "h2")]


def figures(browser: webdriver.Chrome) -> list[Record]:
    """What the script made of each figure: what uPlot was given, the bars, and the texts one sees."""
    found: list[Record] = browser.execute_script(
        """return [...document.querySelectorAll(".figure")].map((figure) => ({
            head: figure.getAttribute("aria-label"),
            legend: [...figure.querySelectorAll(".legend button")].map((each) => each.textContent),
            values: [...figure.querySelectorAll(".legend output")].map((each) => each.textContent),
            moment: figure.querySelector(".moment")?.textContent,
            axes: [...figure.querySelectorAll(".axis")].map((each) => each.textContent),
            data: (figure.plots ?? []).map((plot) => plot.data),
            ranges: (figure.plots ?? []).map(({scales: {x, y}}) => [x.min, x.max, y.min, y.max]),
            bars: [...figure.querySelectorAll(".track > div")].map((bar) => bar.title),
        }))"""
    )
    return found


def figure(browser: webdriver.Chrome, head: str) -> Record:
    (found,) = (each for each in figures(browser) if each["head"] == head)
    return found


def sized(mebibytes: float) -> str:
    """As the page writes a size of up to a GiB."""
    return f"{mebibytes:.4g} MiB" if mebibytes >= 1 else f"{1024 * mebibytes:.4g} KiB"


def colours_at(browser: webdriver.Chrome, head: str, points: list[tuple[float, float]]) -> list[str]:
    """The colours of a figure's first chart at points given by their time and value."""
    found: list[str] = browser.execute_script(
        """const [head, points] = arguments;
        const [plot] = document.querySelector(`.figure[aria-label="${head}"]`).plots;
        const {width, height} = plot.ctx.canvas;
        // Of a copy: reading often is complained of.
        const canvas = Object.assign(document.createElement("canvas"), {width, height});
        const copy = canvas.getContext("2d", {willReadFrequently: true});
        copy.drawImage(plot.ctx.canvas, 0, 0);
        return points.map(([x, y]) => {
            const place = [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)].map(Math.round);
            const [red, green, blue] = copy.getImageData(...place, 1, 1).data;
            return "#" + [red, green, blue].map((each) => each.toString(16).padStart(2, "0")).join("");
        })""",
        head,
        points,
    )
    return found


def point_at(browser: webdriver.Chrome, head: str, time: float, chart: int = 0) -> None:
    """Move the pointer to a time in a chart of the figure."""
    (element,) = browser.find_elements(By.CSS_SELECTOR, f'.figure[aria-label="{head}"]')
    over = element.find_elements(By.CSS_SELECTOR, ".u-over")[chart]
    ActionChains(browser).move_to_element(over).perform()
    left = browser.execute_script(
        "return arguments[0].plots[arguments[1]].valToPos(arguments[2], 'x')", element, chart, time
    )
    offset = round(left - over.rect["width"] / 2)
    ActionChains(browser).move_to_element_with_offset(over, offset, 5).pause(0.2).perform()


def test_every_record_is_drawn(show: Show, browser: webdriver.Chrome) -> None:
    show(everything())
    assert headings(browser) == [
        MEMORY,
        CYCLES,
        PER_SECOND,
        "Page faults by part and GC phase",
        "Page faults by node of the CPU and of the page",
        BY_NODE,
        "Ps, threads and memory by node",
        TLB,
    ]
    drawn = figures(browser)
    # In the first: 12 parts that are not always 0, RSS, HeapAlloc, and MAF.
    assert [len(each["legend"]) for each in drawn] == [15, 4, 3, 10, 6, 5]
    assert [[len(data) for data in each["data"]] for each in drawn] == [[15, 2], [4, 2], [4], [], [5, 3], []]
    assert [len(each["bars"]) for each in drawn] == [0, 0, 0, 19, 0, 30]
    assert drawn[0]["axes"] == ["MiB", "MAF, RSS / HeapAlloc"]
    assert PADDING not in drawn[0]["legend"] and drawn[0]["legend"][:2] == [LIVE, WASTE]
    # Text beginning with this is what a name is.
    assert drawn[3]["legend"][-1].startswith("</script><script>")
    assert browser.find_elements(By.CSS_SELECTOR, ".figure a, .figure img, .figure script") == []
    assert browser.find_element(By.CLASS_NAME, "lost").text.startswith("1,234 page fault events lost")
    words = browser.find_element(By.TAG_NAME, "body").text
    for text in (
        "23.1% of the faults",
        "prefer (many)",
        "5,432",
        "Not counted: cycles in page walks",
        "12.5% of the memory",
        "15.3 us",
    ):
        assert text in words


def test_the_numbers_are_those_of_the_records(show: Show, browser: webdriver.Chrome) -> None:
    show(everything())
    memory, _, per_second, *_ = figures(browser)
    times, *stacked = memory["data"][0]
    assert times == [(BEGIN + number + 0.25) * 1000 for number in range(90)]
    rss, heap = stacked[-2:]
    for number, record in enumerate(looks(90)):
        # The first of what is stacked is the sum.
        assert stacked[0][number] == pytest.approx(record["rss_bytes"] / MIB, abs=0.001)
        assert stacked[-3][number] == pytest.approx(record["parts"][LIVE] / MIB, abs=0.001)
        assert rss[number] == pytest.approx(record["rss_bytes"] / MIB, abs=0.001)
        assert heap[number] == pytest.approx(record["counters"]["heap_alloc"] / MIB, abs=0.001)
    assert memory["data"][1][1] == [record["amplification"] for record in looks(90)]
    assert memory["data"][1][1][3] is None
    assert per_second["data"][0][1] == [sum(each["counts"].values()) for each in many_faults()["series"]]
    cells = [each.text for each in browser.find_elements(By.CSS_SELECTOR, ".heat td")]
    assert cells[:3] == ["123,457", "49,383", "6,173"]
    assert cells[-6:-3] == ["70,001\n53.8%", "9,002\n6.9%", "3\n0.0%"] and cells[-2] == "30,005\n23.1%"


def test_a_part_s_area_is_as_high_as_the_part(show: Show, browser: webdriver.Chrome) -> None:
    show(looks(90))
    for number in (5, 43, 84):
        points, colours, below = [], [], 0.0
        for part, size in looks(90)[number]["parts"].items():
            if size > 10 * MIB:  # else its edges are much of it
                points.append(((BEGIN + number + 0.25) * 1000, (below + size / 2) / MIB))
                colours.append(COLOURS[part])
            below += size
        assert len(colours) == 11
        assert colours_at(browser, MEMORY, points) == colours


def test_a_second_s_column_is_as_high_as_its_faults(show: Show, browser: webdriver.Chrome) -> None:
    show([many_faults()])
    for each in (0, 17, 59):
        counts = many_faults()["series"][each]["counts"]
        points, colours, below = [], [], 0
        for phase, count in counts.items():
            if count > 300:
                points.append(((BEGIN + each + 0.5) * 1000, below + count / 2))
                colours.append(COLOURS[phase])
            below += count
        assert len(colours) >= 2
        assert colours_at(browser, PER_SECOND, points) == colours
        (over,) = colours_at(browser, PER_SECOND, [((BEGIN + each + 0.5) * 1000, below + 150)])
        assert over not in COLOURS.values()


def test_a_single_look_is_a_horizontal_bar(show: Show, browser: webdriver.Chrome) -> None:
    show(looks(1))
    (chart,) = figures(browser)
    assert len(chart["legend"]) == 13 and len(chart["bars"]) == 13
    (record,) = looks(1)
    parts = {part: size / MIB for part, size in record["parts"].items() if size}
    track = browser.find_element(By.CLASS_NAME, "track").rect
    ticks = browser.find_elements(By.CSS_SELECTOR, ".ticks span")
    assert [ticks[0].text, ticks[-1].text] == ["0 MiB", "400 MiB"]
    scale = track["width"] / 400
    begin = track["x"]
    for bar, (part, size) in zip(browser.find_elements(By.CSS_SELECTOR, ".track .bar"), parts.items(), strict=True):
        assert bar.get_attribute("title") == f"{part}: {sized(size)}"
        assert bar.rect["x"] == pytest.approx(begin, abs=1) and bar.rect["width"] == pytest.approx(size * scale, abs=1)
        begin += size * scale
    heap = browser.find_element(By.CSS_SELECTOR, ".track .mark").rect
    assert heap["x"] + heap["width"] / 2 == pytest.approx(track["x"] + 118 * scale, abs=1)
    assert chart["values"] == [*map(sized, parts.values()), "118 MiB"]


def test_memory_by_node_is_stacked(show: Show, browser: webdriver.Chrome) -> None:
    show([placement()])
    memory = placement()["memory"]
    for node, track in zip(("0", "1", "-1"), browser.find_elements(By.CLASS_NAME, "track"), strict=True):
        width = track.rect["width"] / 5  # of a GiB: all is in 4.8
        sizes = {part: of.get(node, 0) / 2**30 for part, of in memory.items() if of.get(node)}
        bars = track.find_elements(By.CLASS_NAME, "bar")
        assert [bar.rect["width"] for bar in bars] == pytest.approx([size * width for size in sizes.values()], abs=1)
    told = figure(browser, BY_NODE)["bars"][0]
    assert told == "node 0, spans in use: 780 MiB"
    assert set(figure(browser, BY_NODE)["values"]) == {""}
    ActionChains(browser).move_to_element(browser.find_elements(By.CLASS_NAME, "track")[1]).perform()
    assert figure(browser, BY_NODE)["values"][:2] == ["0 B", "30 MiB"]


def test_rates_are_on_a_logarithmic_axis(show: Show, browser: webdriver.Chrome) -> None:
    show([translation()])
    centres = {}
    for tick in browser.find_elements(By.CSS_SELECTOR, ".ticks span"):
        centres[tick.text] = tick.rect["x"] + tick.rect["width"] / 2
    assert [*centres] == ["100k", "1M", "10M", "100M", "1G", "10G", "100G", "1T"]
    bars = iter(browser.find_elements(By.CSS_SELECTOR, ".track .bar"))
    for event in translation()["counters"]:
        for phase, count in event["phases"].items():
            rate = count * 1e9 / translation()["phases_ns"][phase]
            share = (math.log10(rate) - 5) / 7
            bar = next(bars)
            end = centres["100k"] + share * (centres["1T"] - centres["100k"])
            assert bar.rect["x"] + bar.rect["width"] == pytest.approx(end, abs=2)
            told = bar.get_attribute("title")
            assert told and float(told.rpartition(": ")[2].replace(",", "")) == pytest.approx(rate, rel=0.001)
    first = browser.find_element(By.CSS_SELECTOR, ".track .bar")
    assert first.text == "180G"


def test_a_pointer_is_told_all_values_of_a_time(show: Show, browser: webdriver.Chrome) -> None:
    show([*looks(90), *cycles(9), many_faults()])
    before = figure(browser, MEMORY)
    assert before["moment"] == "Values at the end, 2026-05-28 20:28:09.250 UTC"
    for chart in (0, 1):  # wherever the pointer is
        point_at(browser, MEMORY, (BEGIN + 43.25) * 1000, chart)
        now, record = figure(browser, MEMORY), looks(90)[43]
        told = dict(zip(now["legend"], now["values"], strict=True))
        assert now["moment"] == "Values at 2026-05-28 20:27:23.250 UTC"
        assert told.pop("MAF") == f"{record['amplification']:.4g}"
        assert told.pop("HeapAlloc") == f"{record['counters']['heap_alloc'] / MIB:.4g} MiB"
        assert told.pop("RSS") == f"{record['rss_bytes'] / MIB:.4g} MiB"
        assert told == {part: sized(size / MIB) for part, size in record["parts"].items() if size}
        assert told["free"] == "10.5 MiB" and told["unexplained"] == "256 KiB"
    point_at(browser, MEMORY, (BEGIN + 3.25) * 1000)
    assert figure(browser, MEMORY)["values"][-1] == "?"
    point_at(browser, CYCLES, (BEGIN + 5) * 1000)
    assert figure(browser, CYCLES)["moment"] == "Values at cycle 102, 2026-05-28 20:26:45.000 UTC"
    assert figure(browser, MEMORY) == before
    # A column is of the second that begins at its time.
    for of_second in (0.1, 0.9):
        point_at(browser, PER_SECOND, (BEGIN + 17 + of_second) * 1000)
        now = figure(browser, PER_SECOND)
        assert now["moment"] == "Values at 2026-05-28 20:26:57.000 UTC"
        assert now["values"] == [f"{each:,}" for each in many_faults()["series"][17]["counts"].values()]


def test_an_entry_of_the_legend_hides_and_shows(show: Show, browser: webdriver.Chrome) -> None:
    show([*looks(90), *cycles(9)])
    entries = browser.find_elements(By.CSS_SELECTOR, ".legend button")
    free = next(each for each in entries if each.text == "free")

    def data() -> list[Any]:
        return [each["data"] for each in figures(browser)]

    before = data()
    assert len(entries) == 19
    free.click()
    assert free.get_attribute("aria-pressed") == "false"
    hidden = data()
    # From the top: what is above it is lower by it, itself is gone, what is below is as before.
    place = len(before[0][0]) - 2 - 3
    assert hidden[0][0][1] == pytest.approx([sum_ - 10.5 for sum_ in before[0][0][1]], abs=0.001)
    assert hidden[0][0][place] == [None] * 90 and hidden[0][0][place + 1 :] == before[0][0][place + 1 :]
    assert hidden[1] == before[1]
    try:
        prefer(browser, "dark")
        assert data() == hidden
        free.send_keys(Keys.ENTER)
        assert data() == before
    finally:
        prefer(browser, "")


def test_bars_go_with_the_legend_too(show: Show, browser: webdriver.Chrome) -> None:
    show(looks(1))
    live = browser.find_element(By.CSS_SELECTOR, ".legend button")
    live.click()
    (now,) = figures(browser)
    assert len(now["bars"]) == 12 and live.text not in [told.partition(":")[0] for told in now["bars"]]
    first = browser.find_element(By.CSS_SELECTOR, ".track .bar").rect
    assert first["x"] == pytest.approx(browser.find_element(By.CLASS_NAME, "track").rect["x"], abs=1)
    live.click()
    assert len(figures(browser)[0]["bars"]) == 13


def test_a_stretch_of_time_is_chosen_with_the_pointer(show: Show, browser: webdriver.Chrome) -> None:
    show(looks(90))
    before = figure(browser, MEMORY)["ranges"]
    over = browser.find_element(By.CLASS_NAME, "u-over")
    ActionChains(browser).move_to_element(over).click_and_hold().move_by_offset(200, 0).pause(0.1).release().perform()
    upper, lower = figure(browser, MEMORY)["ranges"]
    width = over.rect["width"]
    begin, end = before[0][:2]
    assert upper[:2] == pytest.approx([begin + (end - begin) * share for share in (0.5, 0.5 + 200 / width)], abs=300)
    assert lower[:2] == upper[:2]
    entries = browser.find_elements(By.CSS_SELECTOR, ".legend button")
    largest = [each for each in entries if each.text in (LIVE, "RSS")]
    for each in largest:  # which leaves that as it is, but not the axis of sizes
        each.click()
    now = figure(browser, MEMORY)["ranges"]
    assert now[0][:2] == upper[:2] and now[0][3] < upper[3] / 1.5 and now[1] == lower
    for each in largest:
        each.click()
    ActionChains(browser).move_to_element(over).double_click().perform()
    assert figure(browser, MEMORY)["ranges"] == before


def test_one_of_each_is_drawn_as_well(show: Show, browser: webdriver.Chrome) -> None:
    show([*cycles(1), many_faults(1)])
    for head in (CYCLES, PER_SECOND):
        for from_, to, *_ in figure(browser, head)["ranges"]:
            assert from_ <= BEGIN * 1000 < to and to - from_ == 1000
    assert figure(browser, PER_SECOND)["values"] == [f"{each:,}" for each in many_faults(1)["series"][0]["counts"].values()]
    (record,) = cycles(1)
    assert colours_at(browser, CYCLES, [(BEGIN * 1000, record["heap_live_bytes"] / MIB)]) == ["#3b7dbd"]
    show([faults(series=[second(0, {"mutator": 4})])])
    assert figure(browser, PER_SECOND)["values"] == ["4"]


def test_dark_where_that_is_preferred(show: Show, browser: webdriver.Chrome, tmp_path: Path) -> None:
    grounds = {}
    inks = {}
    try:
        prefer(browser, "light")
        show(everything())
        for scheme in ("light", "dark"):
            prefer(browser, scheme)
            grounds[scheme] = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
            # Of the canvas, RSS is drawn in ink.
            rss = [(each["monotonic_ns"] / 1e6 + BEGIN * 1000, each["rss_bytes"] / MIB) for each in cycles(36)]
            inks[scheme] = set(colours_at(browser, CYCLES, rss))
            picture = browser.execute_cdp_cmd(
                "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": whole(browser)}
            )
            (tmp_path / f"{scheme}.png").write_bytes(base64.b64decode(picture["data"]))
            # Compressed: an empty page of this size takes 20 kB.
            assert (tmp_path / f"{scheme}.png").stat().st_size > 100_000
    finally:
        prefer(browser, "")
    # The page's and all charts' at once, without that it was loaded again.
    assert grounds == {"light": "rgba(252, 252, 250, 1)", "dark": "rgba(23, 24, 28, 1)"}
    assert inks == {"light": {"#1c1c22"}, "dark": {"#e4e4ea"}}


def whole(browser: webdriver.Chrome) -> Record:
    width, height = browser.execute_script("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]")
    return {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}


def test_little_room_is_enough(show: Show, browser: webdriver.Chrome) -> None:
    show(everything())
    wide = browser.find_element(By.CLASS_NAME, "uplot").rect["width"]
    with narrowed(browser, 400):
        width, room = browser.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
        assert width <= room <= 400 < wide
        for each in browser.find_elements(By.CSS_SELECTOR, ".legend li, .uplot, .uplot canvas, .bars, .track, .axis"):
            assert each.rect["x"] >= 0 and each.rect["x"] + each.rect["width"] <= room


def test_a_policy_forbids_what_is_not_the_page_s_own(browser: webdriver.Chrome, tmp_path: Path) -> None:
    foreign = '<script>document.title = "taken"</script><style>h1 {display: none}</style>'
    text = page("A service", looks(2)).replace("<h1>", f"{foreign}<h1>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    opened(browser, tmp_path / "page.html")
    script, style = complaints(browser)
    assert "Content Security Policy" in script and browser.title == "A service"
    assert "Content Security Policy" in style and browser.find_element(By.TAG_NAME, "h1").is_displayed()
    assert len(figures(browser)) == 1
