"""The pages of `gotrace baseline` and `compare` in a real browser: nothing is fetched or run, and all can be read."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import report
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browsing import complaints, narrowed, opened, prefer
from gotrace.lab import baseline_page, compare_page
from gotrace.lab.compare import sides_of
from gotrace.lab.pairs import compared

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'
WAITS = {HOSTILE: {"work": 100_000}, "B": {"work": 90_000, "waiting for a CPU": 2_000_000}}
FOUND: Any = report({HOSTILE: {}, "B": {"latency.p99": 1.5, "stw.total.p99": 3}}, 10, waits=WAITS, command=("x", HOSTILE))

Show = Callable[[str], None]


@pytest.fixture
def show(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Show]:
    """show(page) opens it; at the end nothing may have gone wrong, been fetched or been run."""

    def open_(page: str) -> None:
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        opened(browser, tmp_path / "page.html")

    yield open_
    assert complaints(browser) == []
    assert browser.title != "taken" and HOSTILE in browser.find_element(By.TAG_NAME, "h1").text
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.find_elements(By.CSS_SELECTOR, "script, img") == []


def baseline() -> str:
    return baseline_page.page(FOUND, HOSTILE)


def comparison() -> str:
    return compare_page.page(compared(sides_of([("out", FOUND)]), 0.05))


def fits(browser: webdriver.Chrome) -> bool:
    found = browser.execute_script("const e = document.documentElement; return e.scrollWidth <= e.clientWidth")
    return bool(found)


@pytest.mark.parametrize("made", (baseline, comparison))
def test_it_is_drawn_in_both_schemes_and_with_little_room(made: Callable[[], str], show: Show, browser: Any) -> None:
    try:
        for scheme, ground in (("light", "rgba(252, 252, 250, 1)"), ("dark", "rgba(23, 24, 28, 1)")):
            prefer(browser, scheme)
            show(made())
            assert browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color") == ground
            widths = browser.execute_script(
                """return [...document.querySelectorAll("svg.dots circle")].filter((each) => each.checkVisibility())
                .map((each) => each.getBoundingClientRect().width)"""
            )
            assert len(widths) > 100 and all(2 < width < 12 for width in widths)
            dot = browser.find_element(By.CSS_SELECTOR, "svg.dots circle")
            assert dot.value_of_css_property("fill") == "rgb(59, 125, 189)"
            text = browser.find_element(By.CSS_SELECTOR, "svg.curves text, svg.forest text")
            assert text.value_of_css_property("fill") == ("rgb(91, 91, 102)" if scheme == "light" else "rgb(163, 163, 174)")
        assert fits(browser)
        with narrowed(browser, 360):
            assert fits(browser)
    finally:
        prefer(browser, "")


def test_a_forest_is_where_the_numbers_are(show: Show, browser: webdriver.Chrome) -> None:
    """What got worse is right of the band, in red, by as much as the table says."""
    show(comparison())
    rows = {
        row.find_element(By.TAG_NAME, "th").text: row
        for row in browser.find_elements(By.CSS_SELECTOR, "table tr")[1:]
        if row.find_elements(By.CSS_SELECTOR, "svg.forest .band")
    }
    pair = compared(sides_of([("out", FOUND)]), 0.05)[0]
    for name, row in rows.items():
        change = pair.row(name).change
        assert change is not None
        square, band = (
            row.find_element(By.CSS_SELECTOR, f"svg.forest rect{kind}").rect for kind in (":not(.band)", ".band")
        )
        middle, edge = square["x"] + square["width"] / 2, band["x"] + band["width"]
        assert (middle > edge + 0.5) == (change[0] > 1.06) or abs(change[0] - 1.05) < 0.02
    worse = rows["latency.p99"].find_element(By.CSS_SELECTOR, "rect.worse")
    assert worse.value_of_css_property("fill") == "rgb(200, 68, 58)"
    assert rows["latency.p99"].find_element(By.CSS_SELECTOR, ".verdict").text == "worse"


def test_by_keyboard_and_in_print(show: Show, browser: webdriver.Chrome) -> None:
    show(baseline())
    folded = browser.find_element(By.CSS_SELECTOR, "details")
    assert folded.get_attribute("open") is None
    reached = []
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(
            browser.switch_to.active_element.get_attribute("aria-label") or browser.switch_to.active_element.text
        )
    assert "Summary of the runs" in reached and "All other metrics" in reached
    folded.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert folded.get_attribute("open") is not None
    folded.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.execute_script("return document.querySelector('details table').getBoundingClientRect().height") > 100
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
