"""Flame graphs in a real browser: what a click, a search and the mouse do to them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from gotrace.analysis.flame import Profile, diff, frame_of, profile_of
from gotrace.export.flame.draw import html, svg

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'
LONG = "github.com/acme/shop/internal/orders.Map[" + ",".join(["go.shape.struct { A int }"] * 12) + "]"


@pytest.fixture(params=["svg", "html"])
def show(request: pytest.FixtureRequest, browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Callable[[Profile], None]]:
    """show(profile) opens its picture, as a file of its own or within a page; at the end nothing may have gone wrong."""

    def open_(profile: Profile) -> None:
        path = tmp_path / f"flame.{request.param}"
        path.write_text((svg if request.param == "svg" else html)(profile, "A service", "on-CPU"), encoding="utf-8")
        browser.get(path.as_uri())

    yield open_
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    assert browser.title != "taken"


def profile() -> Profile:
    weights = {
        "main.main;main.serve;net/http.Serve": 300,
        "main.main;main.serve;runtime.mallocgc": 100,
        "main.main;main.serve": 100,
        "main.main;github.com/acme/work.Loop;runtime.mallocgc;runtime.gcAssistAlloc": 100,
        f"main.main;{LONG}": 150,
        "runtime.gcBgMarkWorker;runtime.gcDrain": 150,
        "write_[k]": 50,
        HOSTILE.replace(";", ""): 50,
    }
    return profile_of({tuple(map(frame_of, path.split(";"))): (10**6 * each, each) for path, each in weights.items()})


def box(browser: webdriver.Chrome, name: str, which: int = 0) -> WebElement:
    for group in browser.find_elements(By.CSS_SELECTOR, ".boxes > g"):
        if str(group.find_element(By.TAG_NAME, "title").get_attribute("textContent")).startswith(f"{name} ("):
            if which == 0:
                return group
            which -= 1
    raise AssertionError(f"no box of {name}")


def span(group: WebElement) -> tuple[float, float]:
    """Where a box begins and how wide it is, as if the picture were 1200 pixels wide."""
    rect = group.find_element(By.TAG_NAME, "rect")
    whole = float(group.parent.find_element(By.CSS_SELECTOR, "svg.flame").rect["width"])
    x, width = (float(rect.get_attribute(name) or "nan") for name in ("x", "width"))
    return 10 + (x - 10) * 1180 / (whole - 20), width * 1180 / (whole - 20)


def classes(group: WebElement) -> set[str]:
    return set(str(group.get_attribute("class")).split())


def control(browser: webdriver.Chrome, name: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f"svg .{name}")


def search(browser: webdriver.Chrome, text: str) -> None:
    field = browser.find_element(By.CSS_SELECTOR, "svg input")
    field.click()
    field.send_keys(Keys.END + Keys.BACKSPACE * len(field.get_property("value")) + text)


Show = Callable[[Profile], None]


def test_a_click_zooms(show: Show, browser: webdriver.Chrome) -> None:
    show(profile())
    before = {name: span(box(browser, name)) for name in ("main.main", "main.serve", "net/http.Serve", "write_[k]")}
    assert before["main.serve"][1] == pytest.approx(590)
    assert not control(browser, "reset").is_displayed()

    box(browser, "main.serve").find_element(By.TAG_NAME, "rect").click()
    assert span(box(browser, "main.serve")) == pytest.approx((10, 1180))
    assert span(box(browser, "main.main")) == pytest.approx((10, 1180))
    assert span(box(browser, "net/http.Serve")) == pytest.approx((10 + 0.2 * 1180, 0.6 * 1180), abs=0.01)
    assert "faded" in classes(box(browser, "main.main")) & classes(box(browser, "all"))
    assert "faded" not in classes(box(browser, "main.serve"))
    assert not box(browser, "write_[k]").is_displayed()
    assert "hidden" in classes(box(browser, "runtime.mallocgc", 0)) ^ classes(box(browser, "runtime.mallocgc", 1))

    # From there to an ancestor, and back by the control.
    box(browser, "main.main").find_element(By.TAG_NAME, "rect").click()
    assert span(box(browser, "main.main")) == pytest.approx((10, 1180))
    assert span(box(browser, "main.serve"))[1] == pytest.approx(1180 * 500 / 750, abs=0.01)
    control(browser, "reset").click()
    assert {name: span(box(browser, name)) for name in before} == {
        name: pytest.approx(each) for name, each in before.items()
    }
    assert not browser.find_elements(By.CSS_SELECTOR, ".boxes .faded, .boxes .hidden")
    assert not control(browser, "reset").is_displayed()

    # And by the root.
    box(browser, "write_[k]").find_element(By.TAG_NAME, "rect").click()
    assert box(browser, "write_[k]").find_element(By.TAG_NAME, "text").text == "write_[k]"
    box(browser, "all").find_element(By.TAG_NAME, "rect").click()
    assert span(box(browser, "main.serve")) == pytest.approx(before["main.serve"])


def test_a_search_highlights(show: Show, browser: webdriver.Chrome) -> None:
    show(profile())
    search(browser, r"^runtime\.(malloc|gc)")
    matches = browser.find_elements(By.CSS_SELECTOR, ".boxes > .match")
    assert len(matches) == 5
    # gcAssistAlloc stands on a box that matches: it does not count again.
    assert control(browser, "matched").text == "matched: 35.00 %"
    colours = {each.find_element(By.TAG_NAME, "rect").value_of_css_property("fill") for each in matches}
    assert colours == {"rgb(230, 55, 191)"}

    search(browser, "")
    assert not browser.find_elements(By.CSS_SELECTOR, ".boxes > .match")
    assert control(browser, "matched").text.strip() == ""

    browser.find_element(By.CSS_SELECTOR, "svg .details").click()
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("f").key_up(Keys.CONTROL).send_keys("Serve$").perform()
    assert control(browser, "matched").text == "matched: 30.00 %"
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not browser.find_elements(By.CSS_SELECTOR, ".boxes > .match")

    search(browser, "(")
    assert "invalid expression" in control(browser, "matched").text


def test_the_mouse_tells_all_about_a_box(show: Show, browser: webdriver.Chrome) -> None:
    show(profile())
    for name, told in (
        ("github.com/acme/work.Loop", "(100 samples, 100 ms, 10.00 %)"),
        (LONG, "(150 samples, 150 ms, 15.00 %)"),
        (HOSTILE.replace(";", ""), "(50 samples, 50.0 ms, 5.00 %)"),
    ):
        ActionChains(browser).move_to_element(box(browser, name).find_element(By.TAG_NAME, "rect")).perform()
        details = control(browser, "details")
        assert details.get_attribute("textContent") == f"{name} {told}"
        picture = browser.find_element(By.CSS_SELECTOR, "svg.flame").rect
        assert details.rect["x"] + details.rect["width"] <= picture["x"] + picture["width"]
    work = box(browser, "github.com/acme/work.Loop").find_element(By.TAG_NAME, "text")
    assert work.text == "work.Loop"


def test_a_difference_is_seen(browser: webdriver.Chrome, tmp_path: Path) -> None:
    other = profile_of({tuple(map(frame_of, ("main.main", "main.serve"))): (10**9, 5)})
    (tmp_path / "diff.svg").write_text(svg(diff(other, profile()), "difference"))
    browser.get((tmp_path / "diff.svg").as_uri())
    colour = box(browser, "net/http.Serve").find_element(By.TAG_NAME, "rect").value_of_css_property("fill")
    red, green, blue = map(int, re.findall(r"\d+", colour))
    assert red > blue and red > green
    assert browser.get_log("browser") == []


def test_colours_are_on_the_screen(show: Show, browser: webdriver.Chrome, tmp_path: Path) -> None:
    show(profile())
    picture = tmp_path / "screen.png"
    assert browser.save_screenshot(str(picture))
    # Compressed: an empty page of this size takes 5 kB.
    assert picture.stat().st_size > 15_000


def test_twenty_thousand_boxes_are_drawn_soon(show: Show, browser: webdriver.Chrome) -> None:
    begin = time.monotonic()
    show(profile_of({tuple(frame_of(f"f{each}.{depth}") for depth in range(20)): (1, 1) for each in range(1000)}))
    box_ = browser.find_element(By.CSS_SELECTOR, ".boxes > g:nth-child(500)")
    browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", box_)
    assert span(box_) == pytest.approx((10, 1180))
    assert time.monotonic() - begin < 30


def test_a_deep_picture_opens_at_its_root_and_keeps_its_line(show: Show, browser: webdriver.Chrome) -> None:
    """Deeper than the window: what one sees first is the outermost functions, and whatever is scrolled to is told."""
    show(profile_of({tuple(frame_of(f"f{depth}") for depth in range(150)): (10**9, 7)}))
    seen = browser.execute_script("return window.innerHeight")
    assert box(browser, "f0").rect["y"] < seen and box(browser, "f149").rect["y"] > 2 * seen
    browser.execute_script("window.scrollTo(0, 1500)")
    WebDriverWait(browser, 10).until(lambda _: control(browser, "bar").rect["y"] == pytest.approx(1500, abs=1))
    deep = box(browser, "f95").find_element(By.TAG_NAME, "rect")
    ActionChains(browser).move_to_element(deep).perform()
    assert control(browser, "details").get_attribute("textContent") == "f95 (7 samples, 1.00 s, 100.00 %)"


@pytest.mark.parametrize("width", [800, 1700])
def test_it_is_as_wide_as_the_window(width: int, show: Show, browser: webdriver.Chrome) -> None:
    before = browser.get_window_size()
    try:
        show(profile())
        browser.set_window_size(width, before["height"])
        room = browser.execute_script("return document.documentElement.clientWidth")

        def wide(_: object) -> bool:
            return 0.9 * room < box(browser, "all").find_element(By.TAG_NAME, "rect").rect["width"] <= room

        WebDriverWait(browser, 10).until(wide)
        assert span(box(browser, "main.serve"))[1] == pytest.approx(590, abs=0.1)
        assert control(browser, "bar input").rect["x"] + control(browser, "bar input").rect["width"] <= room
    finally:
        browser.set_window_size(before["width"], before["height"])
