"""The page about pauses in a real browser: what is drawn where, what a pointer is told, little room, two schemes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from browsing import complaints, narrowed, opened, prefer
from gc_runs import BEGIN_NS, STATISTICS, WALL_NS, collections, explained, going_on, run, stops
from gotrace.export.gc_page import Run, page

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'
BEGIN_MS = (BEGIN_NS + WALL_NS) / 1e6
GREEN = "#3fa08f"

Show = Callable[[Run], None]


@pytest.fixture
def show(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Show]:
    """show(run) opens its page; at the end nothing may have gone wrong."""

    def open_(shown: Run) -> None:
        (tmp_path / "pauses.html").write_text(page(HOSTILE, shown), encoding="utf-8")
        opened(browser, tmp_path / "pauses.html")

    yield open_
    assert complaints(browser) == []
    assert browser.title != "taken" and browser.find_element(By.TAG_NAME, "h1").text == HOSTILE
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def stuck() -> Run:
    """Collections, one long stop of another kind, and one that goes on."""
    everything = np.concatenate(
        [collections(40, 10_000_000), stops(STATISTICS, [500_000_000], [6 * 10**6], [30_000], 9_000)]
    )
    told = [explained(500_000_000, {"not preemptible": 6 * 10**6, "work": 30_000})]
    return run(everything, 10**9, going_on=[going_on(700_000_000, 10**9)], told=told)


def plots(browser: webdriver.Chrome) -> list[dict[str, Any]]:
    """Of the pauses' charts: how many points of each series, and the axes."""
    found: list[dict[str, Any]] = browser.execute_script(
        """return document.querySelector(".figure").plots.map(({data, scales: {x, y}}) => ({
            points: data.slice(1).map((values) => values.filter((value) => value !== null).length),
            x: [x.min, x.max], y: [y.min, y.max]}))"""
    )
    return found


def colour_at(browser: webdriver.Chrome, time: float, length: float) -> list[int]:
    """Red, green and blue, in the chart of totals."""
    found: list[int] = browser.execute_script(
        """const [time, length] = arguments, [plot] = document.querySelector(".figure").plots;
        const {width, height} = plot.ctx.canvas;
        // Of a copy: reading often is complained of.
        const canvas = Object.assign(document.createElement("canvas"), {width, height});
        const copy = canvas.getContext("2d", {willReadFrequently: true});
        copy.drawImage(plot.ctx.canvas, 0, 0);
        const place = [plot.valToPos(time, "x", true), plot.valToPos(length, "y", true)].map(Math.round);
        return [...copy.getImageData(...place, 1, 1).data].slice(0, 3)""",
        time,
        length,
    )
    return found


def point_at(browser: webdriver.Chrome, time: float, length: float) -> str:
    """Move the pointer there in the chart of totals; what is told."""
    over = browser.find_element(By.CSS_SELECTOR, ".figure .u-over")
    left, top = browser.execute_script(
        """const [plot] = document.querySelector(".figure").plots;
        return [plot.valToPos(arguments[0], "x"), plot.valToPos(arguments[1], "y")]""",
        time,
        length,
    )
    room = over.rect
    offset = round(left - room["width"] / 2), round(top - room["height"] / 2)
    ActionChains(browser).move_to_element_with_offset(over, *offset).pause(0.2).perform()
    return browser.find_element(By.CLASS_NAME, "moment").text


def test_every_pause_is_where_it_was_and_is_told(show: Show, browser: webdriver.Chrome) -> None:
    show(stuck())
    legend = [each.text for each in browser.find_elements(By.CSS_SELECTOR, ".figure:first-of-type .legend li")]
    assert sorted(legend[:3]) == ["GC mark termination\n40", "GC sweep termination\n40", "read mem stats\n1"]
    total, *parts = plots(browser)
    assert [sorted(each["points"]) for each in (total, *parts)] == [[1, 40, 40]] * 4
    assert total["x"] == [BEGIN_MS, BEGIN_MS + 1000] and total["y"][1] == 10**7
    assert all(each["x"] == total["x"] and each["y"] == parts[0]["y"] for each in parts)
    long = BEGIN_MS + 500, 6_030_000
    assert colour_at(browser, *long) == [int(GREEN[at : at + 2], 16) for at in (1, 3, 5)]
    red, *others = colour_at(browser, BEGIN_MS + 850, 10**6)
    assert all(red > other + 20 for other in others)  # the stop that goes on
    assert point_at(browser, *long) == (
        "2026-05-28 20:26:40.500 UTC: read mem stats, total 6.03 ms, of which stopping 6.00 ms, stopped 30.0 us;"
        " restart 9.00 us, goroutine 17"
    )
    rings = browser.find_elements(By.CSS_SELECTOR, ".ring")
    assert len(rings) == 4 and all(each.is_displayed() for each in rings)
    statistics = next(
        each for each in browser.find_elements(By.CSS_SELECTOR, ".legend button") if each.text == "read mem stats"
    )
    statistics.click()
    assert [sorted(each["points"]) for each in plots(browser)] == [[0, 40, 40]] * 4
    assert point_at(browser, *long) == "Point at a dot or a shade."
    bars = [each.get_attribute("title") for each in browser.find_elements(By.CSS_SELECTOR, ".stacked .bar")]
    assert bars == ["1. 6.03 ms, not preemptible: 6.00 ms", "1. 6.03 ms, work: 30.0 us"]


def test_shades_tell_how_many(show: Show, browser: webdriver.Chrome) -> None:
    """Of pauses of one length there is one shade in a bin of time; the sum of what is told is what there was."""
    begins = np.arange(3_000) * 1_000_000
    show(run(stops(STATISTICS, begins, [1000] * 3_000, [20_000] * 3_000, 100), 3 * 10**9))
    # Equally long ones are kept in the order of time: the last thousand are shades.
    assert plots(browser)[0]["points"] == [2_000]
    width_ms = (1 << 24) / 1e6
    at = int(2_500 // width_ms)
    inside = (at + 0.5) * width_ms
    number = sum(at * width_ms <= begin / 1e6 < (at + 1) * width_ms for begin in begins)
    told = point_at(browser, BEGIN_MS + inside, 21_000)
    assert f" and 16.8 ms from then on: {number} read mem stats, total 17.8 us to 23.7 us" in told
    red, green, blue = colour_at(browser, BEGIN_MS + inside, 19_000)  # beside the line of p50
    assert green > red + 40 and green > blue


def test_little_room_and_darkness(show: Show, browser: webdriver.Chrome) -> None:
    try:
        prefer(browser, "dark")
        show(stuck())
        assert browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color") == "rgba(23, 24, 28, 1)"
        assert max(colour_at(browser, BEGIN_MS + 600, 3 * 10**6)) < 60
        with narrowed(browser, 360):
            width, room = browser.execute_script(
                "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
            )
            assert width <= room <= 360
            for each in browser.find_elements(By.CSS_SELECTOR, ".tiles div, .legend li, .uplot, .track, .axis, .ticks"):
                assert each.rect["x"] >= 0 and each.rect["x"] + each.rect["width"] <= room
    finally:
        prefer(browser, "")
