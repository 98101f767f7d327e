"""GPU memory's page in a real browser: it is drawn, in two colour schemes, whatever names say."""

from __future__ import annotations

import numpy as np
import pytest
from selenium.webdriver.common.by import By

import gpulibs
from browsing import complaints, opened, prefer
from gotrace.analysis.gpumem.layers import CALL
from gotrace.export.gpumem_page import draw

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'


def ground(browser, kind):
    found = browser.find_elements(By.CSS_SELECTOR, f"svg.gpumem .{kind}")[0]
    return found.value_of_css_property("fill")


@pytest.mark.parametrize("rows", [gpulibs.rows, lambda: np.zeros(0, CALL)], ids=["requests", "nothing"])
def test_page(rows, browser, tmp_path):
    path = tmp_path / "gpu.html"
    path.write_text(draw.page(HOSTILE, [gpulibs.drawing(rows(), names=[HOSTILE])]), encoding="utf-8")
    opened(browser, path)
    assert complaints(browser) == [] and browser.title == browser.find_element(By.TAG_NAME, "h1").text == HOSTILE
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    shades = []
    for scheme in ("light", "dark"):
        prefer(browser, scheme)
        shades.append(ground(browser, "ground"))
    prefer(browser, "")
    assert shades == ["rgb(252, 252, 250)", "rgb(23, 24, 28)"]  # the style is in the page, and its policy lets it be
    picture = browser.find_element(By.CSS_SELECTOR, "svg.gpumem")
    width = browser.find_element(By.TAG_NAME, "body").rect["width"]
    assert 0.9 * width < picture.rect["width"] <= width
    texts = [each.text for each in picture.find_elements(By.TAG_NAME, "text")]
    assert ("There is nothing to draw." in texts) is (len(rows()) == 0)
    for each in picture.find_elements(By.TAG_NAME, "text"):
        box = each.rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= picture.rect["x"] + picture.rect["width"] + 1, each.text
