"""Waterfalls in a real browser: folding, one start of several alone, sorting, and the two colour schemes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from gotrace.analysis.timeline import EXEC, MAIN, PROGRAM, FirstGc, Row, Start
from gotrace.export.waterfall.draw import html, svg

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'
MS = 1_000_000

Show = Callable[[Sequence[Start]], None]


@pytest.fixture(params=["svg", "html"])
def show(request: pytest.FixtureRequest, browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Show]:
    """show(starts) opens their picture, as a file of its own or within a page; at the end nothing may have gone wrong."""

    def open_(starts: Sequence[Start]) -> None:
        path = tmp_path / f"waterfall.{request.param}"
        path.write_text((svg if request.param == "svg" else html)(starts, HOSTILE), encoding="utf-8")
        browser.get(path.as_uri())

    yield open_
    assert complaints(browser) == []
    assert browser.title != "taken"


def row(stage: str, name: str, depth: int, begin: float, duration: float, blocked: float = 0, major: int = 0) -> Row:
    begin_ns, duration_ns, blocked_ns = (round(each * MS) for each in (begin, duration, blocked))
    return Row(stage, name, depth, begin_ns, duration_ns, 0, blocked_ns, 5, major, 0)


def start(number: int = 0) -> Start:
    late = 10 * number
    rows = [
        row(EXEC, "", 0, 0, 20, 15, major=2),
        row(MAIN, "", 0, 20, 50 + late, 10),
        row(MAIN, "example.com/big", 1, 20, 30),
        row(MAIN, "big.init.0", 2, 20, 10),
        row(MAIN, "big.init.1", 2, 30, 20),
        row(MAIN, HOSTILE, 1, 50, 19 + late, 10),
        row(MAIN, "tiny", 1, 69 + late, 0.4),
        *([row(MAIN, "small", 1, 69.4, 0.3)] if number == 0 else []),
        row(MAIN, "least", 1, 69.7 + late, 0.3),
        row(PROGRAM, "", 0, 70 + late, 30),
    ]
    gc = FirstGc((40 + late) * MS, (40 + late) * MS, (60 + late) * MS, "heap", (40_000, 50_000))
    total = (100 + late) * MS
    return Start(100 + number, 0, total, "ready", tuple(rows), ready_ns=total, gc=gc, notes=(HOSTILE,))


def line(browser: webdriver.Chrome, name: str) -> WebElement:
    for group in browser.find_elements(By.CSS_SELECTOR, ".lines > .line"):
        label = group.find_element(By.CLASS_NAME, "name")
        title = label.find_elements(By.TAG_NAME, "title") or [label]
        if title[0].get_attribute("textContent") == name:
            return group
    raise AssertionError(f"no line {name}")


def shown(browser: webdriver.Chrome) -> list[str]:
    lines = browser.find_elements(By.CSS_SELECTOR, ".lines > .line:not(.hidden)")
    assert all(each.is_displayed() for each in lines)
    tops = [each.find_element(By.CLASS_NAME, "hit").rect["y"] for each in lines]
    assert tops == sorted(set(tops))
    return [each.find_element(By.CLASS_NAME, "name").text.split("/")[-1] for each in lines]


def label(browser: webdriver.Chrome, name: str) -> WebElement:
    return line(browser, name).find_element(By.CLASS_NAME, "name")


def height(browser: webdriver.Chrome) -> float:
    return float(browser.find_element(By.CSS_SELECTOR, "svg.waterfall").get_attribute("height") or "nan")


def chip(browser: webdriver.Chrome, run: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f'.chip[data-run="{run}"]')


def texts(line_: WebElement) -> list[str]:
    return [line_.find_element(By.CLASS_NAME, each).text for each in ("took", "share")]


def ready(browser: webdriver.Chrome) -> list[str]:
    """The labels without their titles."""
    labels = browser.find_elements(By.CSS_SELECTOR, ".marks:not(.hidden) text.ready")
    return [str(browser.execute_script("return arguments[0].firstChild.data", each)) for each in labels]


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]


def test_a_click_shows_and_hides_what_is_below(show: Show, browser: webdriver.Chrome) -> None:
    show([start()])
    before, begin = shown(browser), height(browser)
    assert before[:3] == [EXEC, MAIN, "big"] and before[4:] == ["3 shorter", PROGRAM]
    assert line(browser, "example.com/big").get_attribute("aria-expanded") == "false"
    label(browser, "example.com/big").click()
    assert shown(browser) == [*before[:3], "big.init.0", "big.init.1", *before[3:]]
    assert height(browser) == begin + 40
    assert line(browser, "example.com/big").get_attribute("aria-expanded") == "true"
    label(browser, "3 shorter").click()
    assert shown(browser)[-4:] == ["tiny", "small", "least", PROGRAM]
    # The picture is as high as what it shows, and so is what lies over it.
    band = browser.find_element(By.CSS_SELECTOR, ".marks rect")
    last = line(browser, PROGRAM).find_element(By.CLASS_NAME, "hit").rect
    assert band.rect["y"] + band.rect["height"] == pytest.approx(last["y"] + last["height"], abs=2)

    # What is below a closed stage is closed with it, and as open as before when it comes back.
    label(browser, MAIN).click()
    assert shown(browser) == [EXEC, MAIN, PROGRAM]
    label(browser, MAIN).click()
    assert "big.init.1" in shown(browser)
    label(browser, "example.com/big").click()
    label(browser, "3 shorter").click()
    assert shown(browser) == before and height(browser) == begin

    unfold = browser.find_element(By.CLASS_NAME, "unfold")
    unfold.click()
    assert len(shown(browser)) == 11 and unfold.text == "Fold"
    unfold.click()
    assert shown(browser) == before


def test_the_keyboard_does_too(show: Show, browser: webdriver.Chrome) -> None:
    show([start()])
    before = len(shown(browser))
    wanted = line(browser, "example.com/big")
    for _ in range(12):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.switch_to.active_element == wanted:
            break
    assert browser.switch_to.active_element == wanted
    assert wanted.aria_role == "button" and wanted.accessible_name == "example.com/big, 30.0 ms, 30.0 %"
    for key, more in ((Keys.ENTER, 2), (Keys.SPACE, 0), (Keys.ARROW_RIGHT, 2), (Keys.ARROW_LEFT, 0)):
        ActionChains(browser).send_keys(key).perform()
        assert len(shown(browser)) == before + more


def test_one_start_is_shown_alone(show: Show, browser: webdriver.Chrome) -> None:
    show([start(0), start(1), start(2)])
    both = shown(browser)
    exec_ = line(browser, EXEC)
    assert texts(exec_) == ["20.0 ms", "18.2 %"] and "3 shorter" in both
    together = {each.rect["y"] for each in exec_.find_elements(By.CSS_SELECTOR, "rect.cpu")}
    assert len(together) == 3
    # The median's marks.
    assert ready(browser) == ["ready 110 ms"]

    chip(browser, "2").click()
    assert chip(browser, "2").get_attribute("aria-pressed") == "true"
    assert [each.is_displayed() for each in exec_.find_elements(By.CLASS_NAME, "run")] == [False, False, True]
    assert texts(exec_) == ["20.0 ms", "16.7 %"]
    bar = next(each for each in exec_.find_elements(By.CSS_SELECTOR, "rect.cpu") if each.is_displayed())
    assert bar.rect["height"] > 9
    about = [each.text for each in browser.find_elements(By.CSS_SELECTOR, ".about:not(.hidden) text")]
    assert about[0] == "Start 3: total 120 ms, from execve's entry to ready (pid 102)."
    assert ready(browser) == ["ready 120 ms"]
    # The row "small" is not in this start.
    label(browser, "2 shorter").click()
    assert shown(browser)[-3:] == ["tiny", "least", PROGRAM]
    label(browser, "2 shorter").click()

    chip(browser, "").click()
    assert shown(browser) == both and texts(exec_) == ["20.0 ms", "18.2 %"]
    assert {each.rect["y"] for each in exec_.find_elements(By.CSS_SELECTOR, "rect.cpu")} == together


def test_the_table_is_sorted(browser: webdriver.Chrome, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html([start()], "A service"), encoding="utf-8")
    browser.get((tmp_path / "page.html").as_uri())

    def names() -> list[str]:
        return [each.text for each in browser.find_elements(By.CSS_SELECTOR, "tbody th")]

    in_time = names()
    assert in_time[:4] == [EXEC, MAIN, "example.com/big", "big.init.0"]
    assert HOSTILE in in_time
    head = next(each for each in browser.find_elements(By.CSS_SELECTOR, "thead th") if each.text == "Duration")
    button = head.find_element(By.TAG_NAME, "button")
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert names()[:4] == [MAIN, "example.com/big", PROGRAM, EXEC]
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "ascending"
    assert names()[-1] == MAIN and set(names()[:2]) == {"small", "least"}
    button.click()
    assert head.get_attribute("aria-sort") is None and names() == in_time
    assert complaints(browser) == []


def test_dark_where_that_is_preferred(show: Show, browser: webdriver.Chrome) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        show([start()])
        grounds[scheme] = browser.find_element(By.CLASS_NAME, "ground").value_of_css_property("fill")
        top = browser.find_element(By.CSS_SELECTOR, "body, svg.waterfall")
        assert top.value_of_css_property("background-color").replace("rgba", "rgb").startswith(grounds[scheme][:-1])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert grounds == {"light": "rgb(252, 252, 250)", "dark": "rgb(23, 24, 28)"}


def test_it_is_seen(show: Show, browser: webdriver.Chrome, tmp_path: Path) -> None:
    show([start(), start(1)])
    picture = tmp_path / "screen.png"
    assert browser.save_screenshot(str(picture))
    # Compressed: an empty page of this size takes 5 kB.
    assert picture.stat().st_size > 15_000
    bar = line(browser, EXEC).find_element(By.CSS_SELECTOR, "rect.blocked")
    assert bar.value_of_css_property("fill") != line(browser, EXEC).find_element(
        By.CSS_SELECTOR, "rect.cpu"
    ).value_of_css_property("fill")


def test_a_picture_without_scripts(browser: webdriver.Chrome, tmp_path: Path) -> None:
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    (tmp_path / "page.html").write_text(html([start(), start(1)], "A service").replace("<head>", f"<head>{policy}"))
    browser.get((tmp_path / "page.html").as_uri())
    assert len(shown(browser)) == 6
    assert not browser.find_element(By.CLASS_NAME, "picker").is_displayed()
    assert not browser.find_elements(By.CSS_SELECTOR, "thead button")
    (complaint,) = complaints(browser)
    assert "Content Security Policy" in complaint


def test_pictures_below_one_another_make_room(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """The second starts of a run have a picture of their own, which moves when the first one grows."""
    starts = [replace(start(number), run_ns=5 + number // 2, exec_ns=number) for number in range(4)]
    path = tmp_path / "stack.svg"
    path.write_text(svg(starts, "A program"), encoding="utf-8")
    browser.get(path.as_uri())
    first, second = browser.find_elements(By.CSS_SELECTOR, "svg.waterfall")
    before = second.get_attribute("y")
    assert before == first.get_attribute("height")
    first.find_element(By.CLASS_NAME, "unfold").click()
    assert second.get_attribute("y") == first.get_attribute("height") and float(second.get_attribute("y")) > float(before)
    (stack,) = browser.find_elements(By.CSS_SELECTOR, "svg.stack")
    heights = [float(each.get_attribute("height")) for each in (first, second)]
    assert float(stack.get_attribute("height")) == sum(heights)
    assert complaints(browser) == []
