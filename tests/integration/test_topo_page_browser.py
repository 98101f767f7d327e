"""The page of `gotrace topo` in a real browser: nothing is fetched or run, and all of it can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from browsing import complaints, narrowed, opened, prefer
from gotrace.cluster.topo.files import read_machines
from gotrace.cluster.topo.report import topology
from gotrace.export.topology import draw

SAMPLES = Path(__file__).parents[1] / "testdata" / "topo"
HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=document.title="taken">'


@pytest.mark.parametrize("name", ["h100-8gpu-8nic-paired-shifted.txt", "oci-bm-h100-dump.xml"])
def test_it_is_drawn_in_both_schemes_and_with_little_room(name: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    (facts,) = read_machines([str(SAMPLES / name)], False)
    facts.host = HOSTILE
    found = json.loads(json.dumps(topology(facts)).replace('"mlx5_0"', json.dumps(HOSTILE)))
    (tmp_path / "page.html").write_text(draw.page([found]), encoding="utf-8")
    opened(browser, tmp_path / "page.html")
    try:
        for scheme, fill in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(36, 38, 44)")):
            prefer(browser, scheme)
            boxes = browser.find_elements(By.CSS_SELECTOR, "svg.topology rect.yes")
            assert boxes and boxes[0].value_of_css_property("fill") == fill
    finally:
        prefer(browser, "")
    drawn = browser.find_elements(By.CSS_SELECTOR, "svg.topology text.name")
    assert [text.text for text in drawn[1:]] == [f"GPU{at}" for at in range(8)]
    with narrowed(browser, 380):
        fits = "const e = document.documentElement; return e.scrollWidth <= e.clientWidth"
        assert browser.execute_script(fits)
    assert complaints(browser) == [] and browser.title != "taken"
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.find_elements(By.CSS_SELECTOR, "script, img") == []
