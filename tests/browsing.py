"""Pages in a real browser, in ways that tests of several pages need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


def opened(browser: webdriver.Chrome, path: Path) -> None:
    """Open the page; the driver may come back from that while so much script is still being read."""
    browser.get(path.as_uri())
    WebDriverWait(browser, 30).until(lambda _: browser.execute_script("return document.readyState") == "complete")


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]


def prefer(browser: webdriver.Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@contextlib.contextmanager
def narrowed(browser: webdriver.Chrome, width: int) -> Iterator[None]:
    """As on a telephone: a window is not made that narrow. The charts have followed."""

    def followed(_: object) -> bool:
        drawn = browser.find_elements(
            By.CSS_SELECTOR, ".uplot, .u-wrap"
        )  # the style has the first follow, a script the second
        return all(each.rect["width"] < width for each in drawn)

    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        WebDriverWait(browser, 30).until(followed)
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
