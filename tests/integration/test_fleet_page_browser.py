"""The page of a fleet in a real browser: what its filters show is what the values are, and their address shows it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from browsing import complaints, narrowed, opened, prefer
from gotrace.fleet.database import opened as database
from gotrace.fleet.prices import Price
from gotrace.fleet.show_page import looked_at, page
from gotrace.fleet.show_sections import Claim
from gotrace.text import duration_text

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'
TYPES = {**fleets.TYPES, **{f"{HOSTILE}{number}": (HOSTILE, HOSTILE) for number in range(2)}}


PRICES = {
    (of, name): Price(of, name, "", per_hour, "USD", "2026-11-01", HOSTILE)
    for of, name, per_hour in (("aws", "c7g.large", 0.0725), ("hetzner", "cax21", 0.0119), (HOSTILE, HOSTILE, 0.5))
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> fleets.Made:
    return fleets.made(tmp_path_factory.mktemp("fleet") / "shop", types=TYPES)


@pytest.fixture(scope="module")
def path(made: fleets.Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    claims = [Claim("c7g.large", HOSTILE, "latency.p99", "1 ms", HOSTILE)]
    found = tmp_path_factory.mktemp("page") / "page.html"
    found.write_text(page(looked_at(database(made.folder), "latency.p99", "type", False, claims, PRICES)), encoding="utf-8")
    return found


@pytest.fixture
def shown(browser: Any, path: Path) -> Iterator[Any]:
    """The page, in which nothing may have gone wrong, been fetched or been run at the end."""
    browser.get("about:blank")
    opened(browser, path)
    yield browser
    assert complaints(browser) == []
    assert browser.title != "taken" and browser.find_elements(By.TAG_NAME, "img") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def choose(browser: Any, name: str, value: str) -> None:
    Select(browser.find_element(By.NAME, name)).select_by_value(value)


def rows(browser: Any) -> dict[str, list[str]]:
    """The figure's own table."""
    found = browser.find_elements(By.CSS_SELECTOR, ".figure table tr")
    cells = [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in found]
    return {row[0]: row[1:] for row in cells}


def in_ns(text: str) -> float:
    number, unit = text.removeprefix("~").split()
    return float(number) * {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}[unit]


def check(row: list[str], values: fleets.IntArray, hosts: int) -> None:
    assert row[5:] == [str(hosts), f"{len(values):,}"]
    for text, percent in zip(row[:5], (50, 90, 99, 99.9, 99.99), strict=True):
        assert in_ns(text) == pytest.approx(np.percentile(values, percent, method="inverted_cdf"), rel=0.017)


def test_filters_have_percentiles_of_their_own_values(shown: Any, made: fleets.Made) -> None:
    found = rows(shown)
    assert set(found) == {"type", "c7g.large", "cax21", HOSTILE}
    for instance in ("c7g.large", "cax21"):
        hosts = [host for host, of in TYPES.items() if of[1] == instance]
        check(found[instance], np.concatenate([made.of_host(host) for host in hosts]), 5)
    choose(shown, "by", "service")  # all of them together, which no average of the above is
    check(rows(shown)["shop"], np.concatenate([made.of_host(host) for host in TYPES]), 12)
    choose(shown, "vendor", "aws")
    check(rows(shown)["shop"], np.concatenate([made.of_host(host) for host in fleets.HOSTS[:5]]), 5)
    choose(shown, "metric", "stw.total")
    assert rows(shown)["shop"][3:5] == ["-", "-"]  # too few values


def test_the_address_shows_it_again(shown: Any, path: Path) -> None:
    for name, value in (("metric", "stw.total"), ("by", "version"), ("vendor", "hetzner"), ("type", "cax21")):
        choose(shown, name, value)
    address, before = shown.current_url, rows(shown)
    assert address.endswith("#metric=stw.total&by=version&vendor=hetzner&type=cax21")
    shown.get("about:blank")
    shown.get(address)
    assert len(before) == 2
    drawn = WebDriverWait(shown, 10, ignored_exceptions=[StaleElementReferenceException])  # by a script, not as it loads
    drawn.until(lambda _: rows(shown) == before)
    shown.execute_script("location.hash = '#vendor=nobody&by=vendor'")
    drawn.until(lambda _: set(rows(shown)) == {"vendor", "aws", "hetzner", HOSTILE})  # what there is not, is no filter
    assert Select(shown.find_element(By.NAME, "vendor")).first_selected_option.text == "every vendor"
    shown.execute_script("history.replaceState(null, '', '#')")


def test_it_can_be_read_with_little_room_in_both_schemes_and_by_keyboard(shown: Any) -> None:
    try:
        for scheme, ground in (("light", "rgba(252, 252, 250, 1)"), ("dark", "rgba(23, 24, 28, 1)")):
            prefer(shown, scheme)
            assert shown.find_element(By.TAG_NAME, "body").value_of_css_property("background-color") == ground
            with narrowed(shown, 375):
                assert shown.execute_script("const e = document.documentElement; return e.scrollWidth <= e.clientWidth")
    finally:
        prefer(shown, "")
    reached = set()
    for _ in range(30):
        shown.switch_to.active_element.send_keys(Keys.TAB)
        active = shown.switch_to.active_element
        reached.add(active.get_attribute("name") or active.get_attribute("aria-label") or active.tag_name)
    assert {"metric", "by", "vendor", "type", "service", "version", "Percentiles of what was chosen"} <= reached
    assert "Longest pauses" in reached
    shown.find_element(By.NAME, "by").send_keys("vend")
    assert "aws" in rows(shown)


def test_a_curve_can_be_hidden_and_is_drawn_where_there_are_values(shown: Any) -> None:
    first_colour = (  # on a copy: Chromium complains of a canvas that is read twice
        "const c = document.querySelector('.figure canvas');"
        "const o = new OffscreenCanvas(c.width, c.height).getContext('2d');"
        "o.drawImage(c, 0, 0); const d = o.getImageData(0, 0, c.width, c.height).data; let n = 0;"
        "for (let i = 0; i < d.length; i += 4) n += d[i] === 0x3b && d[i + 1] === 0x7d && d[i + 2] === 0xbd; return n"
    )
    settled = "return new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))"
    choose(shown, "type", "cax21")
    shown.execute_script(settled)
    assert shown.execute_script(first_colour) > 200
    shown.find_element(By.CSS_SELECTOR, ".figure .legend button").click()
    shown.execute_script(settled)
    assert shown.execute_script(first_colour) == 0


def of_type(made: fleets.Made, instance: str, metric: str) -> float:
    """The median of its hosts, of each the median of its two days."""
    values = [
        np.median([np.median([made.metrics[host, quarter][metric] for quarter in day]) for day in ((0, 2), (1, 3))])
        for host, of in TYPES.items()
        if of[1] == instance
    ]
    return float(np.median(values))


def test_a_dot_says_what_a_type_costs(shown: Any, made: fleets.Made) -> None:
    """Where its price / rate and its p99 are, by hand; the pointer is told so, and the colour is that of the front."""
    (place,) = (each for each in shown.find_elements(By.CSS_SELECTOR, ".figure") if "Cost" in each.accessible_name)
    legend = [each.text.split("\n") for each in place.find_elements(By.CSS_SELECTOR, ".legend li")]
    assert legend == [["none is cheaper and faster", "2"], ["left out", "1"]]  # of the third there are too few hosts
    pointed = (
        "const [place, cost, value] = arguments, [plot] = place.plots, r = plot.over.getBoundingClientRect();"
        "const x = plot.valToPos(cost, 'x'), y = plot.valToPos(value, 'y');"
        "const at = {clientX: r.left + x + 3, clientY: r.top + y - 3, bubbles: true};"
        "plot.over.dispatchEvent(new MouseEvent('mousemove', at));"
        "const c = new OffscreenCanvas(1, 1).getContext('2d'), d = devicePixelRatio;"
        "c.drawImage(plot.ctx.canvas, -Math.round(plot.bbox.left + x * d) + 2, -Math.round(plot.bbox.top + y * d) + 2);"
        "return [place.querySelector('.moment').textContent, [...c.getImageData(0, 0, 1, 1).data]]"
    )
    for (vendor, instance), price in PRICES.items():
        cost = price.per_hour / (of_type(made, instance, "throughput") * 3600) * 1e6
        p99 = of_type(made, instance, "latency.p99")
        text, colour = shown.execute_script(pointed, place, cost, p99)
        few = vendor == HOSTILE
        assert text.startswith("</script>" if few else f"{vendor} {instance}: ") and f": {cost:.3g} USD" in text
        assert f"latency.p99 {duration_text(p99)}" in text and (" to " in text) == (not few)
        assert colour == ([0x5A, 0x65, 0x77, 255] if few else [0x3B, 0x7D, 0xBD, 255])


def test_claims_and_the_way_to_add_a_host_are_there(shown: Any) -> None:
    text = shown.find_element(By.TAG_NAME, "body").text
    assert "Not measured by gotrace" in text and "gotrace fleet add DIR out" in text
    assert "waiting for a CPU" in shown.find_element(By.CSS_SELECTOR, "svg.flame").text
