"""The page of `gotrace datapath`: its numbers are the record's, bars are as long as they say, and names do no harm."""

from __future__ import annotations

import csv
import io
import re

import pyarrow.parquet as parquet

from conftest import HOSTILE
from datapath_runs import drawing
from gotrace.export.datapath_page import PARTS, Drawing, page, write
from gotrace.export.picture.frame import escaped
from gotrace.text import printable
from pages import Parsed, strings


def test_numbers_are_the_records() -> None:
    shown = drawing()
    markup = page("it", shown)
    found = Parsed(markup)
    words = " ".join(found.words)
    assert "Not covered: io_uring (no such tracepoint)." in words and "7 events lost" in words
    assert "NOT ENDED: thread 12 in read for 2.00 s (/slow)." in words and "Errors: ENOENT 3." in words
    assert "Advice: Do less." in words and "2 more rows, which took less" in words
    assert list(found.tables) == ["Calls", "Directories", "Files", "The slowest calls", "Threads", "Epochs"] + [
        "Names not found"
    ]
    # Of 40 ms 30 are metadata, 8 data, and 2 of something that is no file.
    row = ["/data", "", "40.0 ms", "30.0 ms", "8.00 ms", "1,234", "3", "1.00 MiB", "1.00 us", "2.00 us", "3.00 us"]
    assert found.tables["Directories"][1] == [*row, "25%", "50%"]
    assert found.tables["The slowest calls"][1][:4] == ["9.00 ms", "-", "openat", "/data/a"]
    assert found.tables["Threads"][1] == ["11", "10", "1.00 s", "30.0 ms", "3%", "8.00 ms", "0.8%"]
    assert found.tables["Epochs"][1][2:] == ["1.00 s", "2", "1,234", "30.0 ms", "1.5%", "3%", "8.00 ms"]
    assert found.tables["Names not found"][1] == ["/data/lib", "3", "2", "1.00 ms"]
    widths = [float(each) for each in re.findall(r'<rect x="[\d.]+" width="([\d.]+)"', markup)]
    assert widths[:6] == [105.0, 28.0, 7.0, 52.5, 14.0, 3.5]  # of 140, and the next row's half of it
    assert 'aria-label="metadata 30.0 ms, data 8.00 ms, pipes, sockets, devices 2.00 ms"' in markup
    (figure,) = found.figures
    assert figure["rows"][0] == "below 1.02 us" and figure["rows"][-1] == "below 2.10 ms" and len(figure["rows"]) == 12
    assert [(each["name"], sum(each["values"])) for each in figure["series"]] == [(PARTS[0], 5), (PARTS[1], 2)]
    assert figure["series"][0]["values"] == [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]  # 1000 ns, and 1.5 ms


def test_names_do_no_harm() -> None:
    plain, title = page("it", drawing()), "".join(HOSTILE[:4])
    for name in HOSTILE:
        markup = page(title, drawing(name))
        found = Parsed(markup)
        assert len(found.tags) == len(Parsed(plain).tags) and {tag for tag, _ in found.tags} == {
            tag for tag, _ in Parsed(plain).tags
        }
        assert not any(key.startswith("on") or key in ("src", "href") for _, each in found.tags for key in each)
        assert escaped(name) in markup and not any(HOSTILE[0] in each for each in strings(found.figures))
        assert found.tables["Files"][1][0] == printable(name)
        assert markup.encode()


def test_nothing_to_draw() -> None:
    shown = drawing()
    nothing = {**shown.result, "rows": [], "more_rows": 0, "lost": 0, "explained": None, "in_progress": None}
    found = Parsed(page("it", Drawing(nothing, {"dir": ([], 0)}, {}, [], list)))
    assert not found.tables and not found.figures and "There is nothing to draw." in found.words
    assert "Calls still in progress: ?" in found.words


def test_every_row_as_columns() -> None:
    """Those too that the result leaves out; of both formats the same."""
    files = {format_: io.BytesIO() for format_ in ("csv", "parquet")}
    for format_, file in files.items():
        write(drawing("/data/\udcff,\n"), "it", format_, file)
    table = parquet.read_table(io.BytesIO(files["parquet"].getvalue())).to_pylist()
    assert [each["name"] for each in table] == ["openat", "read", "/data/\\xff,\n"]
    assert table[0]["total_ns"] == 40_000_000 and table[2]["cold"] == 1 and table[0]["resolved"] is None
    lines = list(csv.DictReader(io.StringIO(files["csv"].getvalue().decode(), newline="")))
    assert lines == [{name: "" if value is None else str(value) for name, value in each.items()} for each in table]
