"""GPU memory's picture: each cell has the colour of what was live there, and names do no harm."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as parquet

from conftest import HOSTILE
from gotrace.analysis.gpumem import calls
from gotrace.analysis.gpumem.bins import by_address, by_size
from gotrace.analysis.gpumem.layers import CALL
from gotrace.export.gpumem_page import draw
from gpulibs import MIB, MS, POOL, STREAM, drawing, rows


def painted(picture, prefix, shape, height, first):
    """The steps of colour of a heat map, cell by cell, from the picture's paths."""
    rows_, columns = shape
    step = draw.INNER / columns
    levels = np.zeros(shape, int)
    paths = [
        each for each in picture.iter("{http://www.w3.org/2000/svg}path") if re.fullmatch(rf"{prefix}\d", each.get("class"))
    ]
    top = float(
        next(
            each for each in picture.iter("{http://www.w3.org/2000/svg}rect") if float(each.get("height")) == rows_ * height
        ).get("y")
    )
    for path in paths:
        level = int(path.get("class")[1:]) - first + 1
        for x, y, width in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v", path.get("d")):
            begin, run = round((float(x) - draw.LEFT) / step), round(float(width) / step)
            at = round((float(y) - top) / height)
            assert not levels[at, begin : begin + run].any()
            levels[at, begin : begin + run] = level
    return levels


def test_each_cell():
    shown = drawing(rows())
    picture = ElementTree.fromstring(draw.svg([shown], HOSTILE[0], "svg {}"))
    columns = draw.columns_of(shown)
    assert columns.count == 100 and columns.bin_ns == 10 * MS
    (course,) = shown.courses.values()
    cells, _ = by_address(course, columns, draw.ROWS, shown.end_ns)
    assert np.array_equal(painted(picture, "h", cells.shape, draw.CELL, 1), draw.level_of(cells)) and cells.max() == 1
    failed, asked, classes = by_size(course, columns)
    found = painted(picture, "f", failed.shape, draw.CLASS, 0)[::-1]
    assert np.array_equal(found > 0, asked > 0) and np.array_equal(found > 1, failed > 0) and failed.sum() > 0
    assert [size // MIB for size in classes] == [0, 1, 2, 4]
    (oom,) = [each for each in picture.iter("{http://www.w3.org/2000/svg}path") if each.get("class") == "oom"]
    assert oom.get("d") == f"M{draw.LEFT + 96.5 * draw.INNER / 100:.5g} 80v120"
    texts = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == HOSTILE[0] and "100 columns of 10.0 ms" in texts and f"pool {POOL:#x}" in texts


def test_columns_that_do_not_fit():
    shown = drawing(rows(), bin_ns=MS // 10)
    columns = draw.columns_of(shown)
    assert columns.bin_ns == MS and columns.count == 1000
    assert "1,000 columns of 1.00 ms (100 us would be too many)" in draw.svg([shown], "it")


def test_page_and_nothing_to_draw():
    page = draw.page("".join(HOSTILE[:4]), [drawing(rows(), names=HOSTILE)])
    assert "<script>alert" not in page and "onerror" not in re.sub("&[^;]+;", "", page).replace("img src=x onerror", "")
    assert "3 events lost" in page and "OOM by fragmentation" not in page and "oom by fragmentation" in page
    empty = draw.page("it", [drawing(np.zeros(0, CALL))])
    assert "There is nothing to draw." in empty


def test_parquet():
    events = rows()
    file = io.BytesIO()
    draw.write([drawing(events)], "it", "parquet", file)
    table = parquet.read_table(io.BytesIO(file.getvalue())).to_pylist()
    assert [(each["time_ns"], each["operation"], each["address"], each["size"], each["result"]) for each in table] == [
        (
            int(each["time_ns"]),
            calls.NAMES[int(each["call"]) & 0xFF],
            int(each["address"]),
            int(each["size"]),
            int(each["call"]) >> 16,
        )
        for each in events
    ]
    assert {(each["layer"], each["pool"], each["stream"], each["tid"]) for each in table} == {
        ("runtime", POOL, STREAM, 7),
        ("runtime", 0, STREAM, 7),
    }
