"""The page of `gotrace datapath` in a real browser: it is drawn and its bars compare, whatever names say."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from browsing import complaints, narrowed, opened
from datapath_runs import drawing
from gotrace.export.datapath_page import page

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'


def test_page(browser: webdriver.Chrome, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    path.write_text(page(HOSTILE, drawing(HOSTILE)), encoding="utf-8")
    opened(browser, path)
    assert complaints(browser) == [] and browser.title == browser.find_element(By.TAG_NAME, "h1").text == HOSTILE
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert len(browser.find_elements(By.CSS_SELECTOR, ".bars .track")) == 12
    metadata, data, other, half, *_ = (each.rect["width"] for each in browser.find_elements(By.CSS_SELECTOR, "td rect"))
    assert metadata > 50 and (data, other, half) == pytest.approx((metadata * 4 / 15, metadata / 15, metadata / 2), abs=1)
    tables = browser.find_elements(By.CSS_SELECTOR, "table")
    assert len(tables) == 7 and HOSTILE in tables[2].text
    with narrowed(browser, 400):
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400  # tables scroll by themselves
