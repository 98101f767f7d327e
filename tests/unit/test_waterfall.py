"""Waterfalls of cold starts: their geometry, what is folded, hostile names, and many starts in one picture."""

from __future__ import annotations

import random
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conftest
from gotrace.analysis.timeline import BEFORE, BOOTSTRAP, EXEC, LINKER, MAIN, PROGRAM, STAGES, FirstGc, Row, Start, Starter
from gotrace.export.waterfall.draw import MOST_DRAWN, html, svg

NAMESPACE = "{http://www.w3.org/2000/svg}"
MS = 1_000_000
HOSTILE = [*conftest.HOSTILE, "\u6f22" * 300, "../" * 200]


def row(stage: str, name: str, depth: int, begin: float, duration: float, **more: Any) -> Row:
    """Times in milliseconds."""
    filled = dict.fromkeys(("runnable_ns", "blocked_ns", "minor_faults", "major_faults", "pages_read"), 0)
    return Row(stage, name, depth, round(begin * MS), round(duration * MS), **{**filled, **more})


def start(*rows: Row, total: float = 100, pid: int = 7, **more: Any) -> Start:
    return Start(pid, 10**12, round(total * MS), "ready", rows, **more)


def simple(**more: Any) -> Start:
    return start(
        row(BEFORE, "", 0, -10, 10),
        row(BEFORE, "fork to execve", 1, -10, 10),
        row(EXEC, "", 0, 0, 20, blocked_ns=15 * MS, major_faults=3, minor_faults=1234, pages_read=56),
        row(MAIN, "", 0, 20, 50, runnable_ns=10 * MS, blocked_ns=15 * MS, minor_faults=9),
        row(MAIN, "a/big", 1, 20, 30, heap_bytes=3 << 20, detail="reads a file"),
        row(MAIN, "big.init.0", 2, 20, 10),
        row(MAIN, "big.init.1", 2, 30, 20),
        row(MAIN, "between packages", 1, 50, 2),
        row(MAIN, "b/big", 1, 52, 14),
        row(MAIN, "between packages", 1, 66, 2),
        row(MAIN, "tiny", 1, 68, 0.4),
        row(MAIN, "small", 1, 68.4, 0.3),
        row(MAIN, "big/last", 1, 68.7, 1.3),
        row(PROGRAM, "", 0, 75, 25),
        unattributed_ns=5 * MS,
        **more,
    )


def programs(count: int, packages: int = 60) -> list[Start]:
    """Starts of one program, no two alike."""
    rng = random.Random(5)
    starts = []
    for number in range(count):
        rows: list[Row] = []
        at = 0.0
        for stage in STAGES[1:]:
            place, begin = len(rows), at
            for package in range(packages if stage == MAIN else 3):
                took = rng.uniform(0.5, 1.5) * (3 if package % 10 == 0 else 0.02)
                rows.append(row(stage, f"github.com/acme/part{package}", 1, at, took, blocked_ns=1000, minor_faults=5))
                if stage == MAIN:
                    rows += [
                        row(stage, f"part{package}.init.{each}", 2, at + each * took / 3, took / 3) for each in range(3)
                    ]
                    rows.append(row(stage, "between packages", 1, at + took, 0.01))
                at += took + (0.01 if stage == MAIN else 0)
            rows.insert(place, row(stage, "", 0, begin, at - begin))
        gc = FirstGc(round(at / 3 * MS), round(at / 3 * MS), round(at / 2 * MS), "heap", (40_000, 60_000))
        starts.append(start(*rows, total=at, pid=100 + number, gc=gc, ready_ns=round(at * MS)))
    return starts


class Picture:
    """What is in a picture, by the names of its lines."""

    def __init__(self, text: str) -> None:
        self.root = ElementTree.fromstring(text)
        self.lines = self.root.findall(f"{NAMESPACE}g[@class='lines']/{NAMESPACE}g")

    def name(self, line: ElementTree.Element) -> str:
        label = line.find(f"{NAMESPACE}g/{NAMESPACE}text[@class='name']")
        assert label is not None
        title = label.find(f"{NAMESPACE}title")
        return str(label.text if title is None else title.text)

    def line(self, name: str) -> ElementTree.Element:
        return next(line for line in self.lines if self.name(line) == name)

    def names(self, hidden: bool) -> list[str]:
        return [self.name(line) for line in self.lines if ("hidden" in line.attrib["class"].split()) is hidden]

    def bars(self, name: str, run: int = 0) -> list[ElementTree.Element]:
        return self.line(name).findall(f"{NAMESPACE}g[@data-run='{run}']/{NAMESPACE}g[@class='bar']")

    def spans(self, name: str, run: int = 0) -> list[tuple[float, float]]:
        found = []
        for bar in self.bars(name, run):
            parts = list(self.parts(bar).values())
            found.append((parts[0][0], sum(width for _, width in parts)))
        return found

    def parts(self, bar: ElementTree.Element) -> dict[str, tuple[float, float]]:
        rects = [rect.attrib for rect in bar.findall(f"{NAMESPACE}rect") if rect.attrib["class"] != "fault"]
        return {rect["class"]: (float(rect["x"]), float(rect["width"])) for rect in rects}

    def title(self, name: str, which: int = 0, run: int = 0) -> list[str]:
        return str(self.bars(name, run)[which].findtext(f"{NAMESPACE}title")).split("\n")

    def texts(self) -> list[str]:
        return ["".join(text.itertext()) for text in self.root.iter(f"{NAMESPACE}text")]

    def words(self, name: str) -> list[str]:
        return [str(text.text or "") for text in self.line(name).findall(f"{NAMESPACE}g[@class='words']/{NAMESPACE}text")]


def test_bars_are_as_wide_as_their_rows_are_long() -> None:
    picture = Picture(svg([simple()], "t"))
    (zero,) = (float(line.attrib["x1"]) for line in picture.root.iter(f"{NAMESPACE}line") if line.get("class") == "zero")
    ((begin, width),) = picture.spans(EXEC)
    per_ms = width / 20
    assert begin == pytest.approx(zero, abs=0.01)
    for each in simple().rows:
        spans = picture.spans(each.name or each.stage)
        assert (
            pytest.approx((zero + each.begin_ns / MS * per_ms, max(each.duration_ns / MS * per_ms, 0.75)), abs=0.01)
            in spans
        )
    # What is before execve lies left of its entry.
    assert picture.spans("fork to execve") == [pytest.approx((zero - 10 * per_ms, 10 * per_ms), abs=0.01)]
    assert zero + 100 * per_ms == pytest.approx(1148, abs=0.01)


def test_rows_that_follow_one_another_touch() -> None:
    picture = Picture(svg([simple()], "t"))
    names = ("a/big", "between packages", "b/big", "tiny", "small", "big/last")
    spans = sorted(span for name in names for span in picture.spans(name))
    assert len(spans) == 7
    for (begin, width), (following, _) in zip(spans, spans[1:], strict=False):
        assert begin + width == pytest.approx(following, abs=0.002)


def test_a_bar_is_divided_by_what_its_time_was() -> None:
    picture = Picture(svg([simple()], "t"))
    (bar,) = picture.bars(MAIN)
    parts = picture.parts(bar)
    assert list(parts) == ["cpu", "runnable", "blocked"]
    whole = sum(width for _, width in parts.values())
    assert [width / whole for _, width in parts.values()] == pytest.approx([0.5, 0.2, 0.3], abs=1e-4)
    assert parts["cpu"][0] + parts["cpu"][1] == pytest.approx(parts["runnable"][0], abs=0.002)
    # Nobody knows it of what is before exec.
    assert list(picture.parts(picture.bars(BEFORE)[0])) == ["plain"]
    assert not [line for line in picture.title(BEFORE) if "on-CPU" in line or "faults" in line]


def test_rows_that_contradict_themselves_are_still_drawn() -> None:
    odd = row(EXEC, "", 0, 0, 10, blocked_ns=90 * MS, runnable_ns=30 * MS)
    picture = Picture(svg([start(odd, row(EXEC, "nothing", 1, 5, 0), total=10)], "t"))
    assert picture.spans(EXEC) == [pytest.approx((452, 696), abs=0.01)]
    assert picture.spans("nothing")[0][1] == pytest.approx(0.75)


def test_what_a_bar_tells() -> None:
    picture = Picture(svg([simple()], "t"))
    assert picture.title(EXEC) == [
        "exec",
        "0 ns after execve's entry; took 20.0 ms, 20.0 % of the total",
        "on-CPU 5.00 ms, runnable 0 ns, CPU quota ?, blocked 15.0 ms",
        "1,234 minor and 3 major page faults, 56 pages read",
    ]
    assert picture.title("a/big")[1] == "20.0 ms after execve's entry; took 30.0 ms, 30.0 % of the total"
    assert picture.title("a/big")[-2:] == ["live heap +3.00 MiB", "reads a file"]
    assert picture.title("fork to execve")[1] == "10.0 ms before execve's entry; took 10.0 ms"
    assert picture.words(EXEC) == ["exec", "20.0 ms", "20.0 %"]
    assert picture.words(BEFORE) == ["before exec", "10.0 ms", ""]
    assert picture.words("between packages") == ["between packages", "4.00 ms", "4.0 %"]
    # Major faults are seen without the mouse.
    (bar,) = picture.bars(EXEC)
    assert bar.findtext(f"{NAMESPACE}text") == "3"
    assert [rect.attrib["class"] for rect in bar.findall(f"{NAMESPACE}rect")] == ["cpu", "blocked", "fault"]


def test_what_is_shown_without_a_script() -> None:
    picture = Picture(svg([simple()], "t"))
    assert picture.names(hidden=False) == [
        BEFORE, "fork to execve", EXEC, MAIN, "a/big", "between packages", "b/big", "big/last", "2 shorter", PROGRAM,
        "unattributed",
    ]  # fmt: skip
    assert picture.names(hidden=True) == ["big.init.0", "big.init.1", "tiny", "small"]
    # Lines of one name share one line, and the places of the others follow one another.
    assert len(picture.bars("between packages")) == 2
    shown = [line for line in picture.lines if "hidden" not in line.attrib["class"].split()]
    tops = [float(line.attrib["transform"].split()[1].rstrip(")")) for line in shown]
    assert {after - before for before, after in zip(tops, tops[1:], strict=False)} == {20}
    assert float(picture.root.attrib["height"]) >= tops[-1] + 20
    # The controls would do nothing.
    hidden = [each for each in picture.root.iter() if "hidden" in each.attrib.get("class", "").split()]
    assert {each.attrib["class"] for each in hidden if "control" in each.attrib["class"]} == {"control unfold hidden"}
    assert all("hidden" in each.attrib["class"] for each in picture.root.iter() if "twisty" in each.get("class", ""))


def test_a_single_short_row_is_not_folded() -> None:
    rows = [row(MAIN, "", 0, 0, 100), row(MAIN, "big", 1, 0, 99.9), row(MAIN, "tiny", 1, 99.9, 0.1)]
    assert Picture(svg([start(*rows)], "t")).names(hidden=False) == [MAIN, "big", "tiny"]


def test_what_lies_in_no_stage_has_a_line() -> None:
    picture = Picture(svg([simple()], "t"))
    ((begin, width),) = picture.spans("unattributed")
    assert begin == pytest.approx(sum(picture.spans(MAIN)[0]), abs=0.01)
    assert begin + width == pytest.approx(picture.spans(PROGRAM)[0][0], abs=0.01)
    assert "Total 100 ms, from execve's entry to ready (pid 7); 5.00 ms of it unattributed." in picture.texts()
    assert "unattributed" not in Picture(svg([replace(simple(), unattributed_ns=0)], "t")).names(hidden=False)


def test_what_lies_over_the_lines() -> None:
    gc = FirstGc(40 * MS, 40 * MS, 60 * MS, "heap", (40_000, 61_000), 4 << 20)
    full = simple(gc=gc, listen_ns=80 * MS, ready_ns=100 * MS, notes=("Mind the gap.",), exit_code=3)
    picture = Picture(svg([full], "t"))
    ((zero, width),) = picture.spans(EXEC)
    (marks,) = picture.root.findall(f"{NAMESPACE}g[@class='marks']")
    (band,) = marks.findall(f"{NAMESPACE}rect")
    assert float(band.attrib["x"]) == pytest.approx(zero + 2 * width, abs=0.01)
    assert float(band.attrib["width"]) == pytest.approx(width, abs=0.01)
    at = {line.attrib["class"]: float(line.attrib["x1"]) for line in marks.findall(f"{NAMESPACE}line")}
    expected = {"gc": zero + 2 * width, "listen": zero + 4 * width, "ready": zero + 5 * width}
    assert at == {kind: pytest.approx(x, abs=0.01) for kind, x in expected.items()}
    words = [text.text for text in marks.findall(f"{NAMESPACE}text")]
    assert set(words) == {"first GC (heap), pauses 40.0 us + 61.0 us", "listen 80.0 ms", "ready 100 ms"}
    assert "Mind the gap." in picture.texts()
    assert "exit code 3" in " ".join(picture.texts())

    unended = Picture(svg([simple(gc=FirstGc(40 * MS, 40 * MS, None, "time"))], "t"))
    assert any(text.startswith("first GC (time), not ended") for text in unended.texts())


def test_labels_over_the_lines_do_not_overlap() -> None:
    for at in range(0, 100, 3):
        gc = FirstGc(at * MS, at * MS, None, "heap", (40_000, 61_000))
        picture = Picture(svg([simple(gc=gc, listen_ns=(at + 1) * MS, ready_ns=100 * MS)], "t"))
        taken = []
        for text in picture.root.findall(f"{NAMESPACE}g[@class='marks']/{NAMESPACE}text"):
            x, width = float(text.attrib["x"]), 6.63 * len(str(text.text))
            begin = x - width if text.get("text-anchor") == "end" else x
            assert begin >= 0 and begin + width <= 1200
            taken.append((text.attrib["y"], begin, begin + width))
        taken.sort()
        assert all(one[0] != other[0] or one[2] < other[1] for one, other in zip(taken, taken[1:], strict=False))


def test_labels_fit_their_column() -> None:
    long = "github.com/acme/shop/internal/orders/templates/" + "deep/" * 20 + "leaf"
    wide = "\u6f22" * 100
    rows = [row(MAIN, "", 0, 0, 100), *(row(MAIN, name, 1, 0, 30) for name in (long, wide, "x" * 200))]
    picture = Picture(svg([start(*rows)], "t" * 500))
    for line in picture.lines:
        label = line.find(f"{NAMESPACE}g/{NAMESPACE}text")
        assert label is not None
        cells = sum(2 if char > "\u10ff" else 1 for char in str(label.text))
        assert float(label.attrib["x"]) + 6.63 * cells <= 300
    label = picture.line(long).find(f"{NAMESPACE}g/{NAMESPACE}text")
    assert label is not None and str(label.text).startswith("../") and str(label.text).endswith("/deep/leaf")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.attributes.update(name for name, _ in attrs)


def hostile(title: str) -> Start:
    rows = [row(title, "", 0, 0, 50), *(row(MAIN, name, 1, 50, 3, detail=name) for name in HOSTILE)]
    rows += [row(MAIN, name, 2, 50, 1) for name in HOSTILE]
    gc = FirstGc(1, 1, None, title)
    return replace(start(*rows, gc=gc, notes=(title, *HOSTILE)), ended=title)


@pytest.mark.parametrize("title", HOSTILE)
@pytest.mark.parametrize("count", [1, 2])
def test_hostile_names_are_text(title: str, count: int) -> None:
    starts = [hostile(title)] * count
    picture, page = svg(starts, title), html(starts, title)
    root = ElementTree.fromstring(picture)
    used = {element.tag.removeprefix(NAMESPACE) for element in root.iter()}
    assert used <= {"svg", "style", "rect", "text", "g", "title", "script", "path", "line"}
    assert len(root.findall(f".//{NAMESPACE}script")) == 1
    for text in (picture, page):
        assert text.isprintable() or set(filter(lambda char: not char.isprintable(), text)) == {"\n"}
        text.encode()
        tags = Tags()
        tags.feed(text.replace("<![CDATA[", "").replace("]]>", ""))
        assert tags.found.count("script") == 1
        assert not {"img", "b"} & set(tags.found)
        assert not {name for name in tags.attributes if name.startswith("on")} and "style" not in tags.attributes


def test_nothing_comes_from_elsewhere() -> None:
    for text in (svg([simple()] * 3, "t"), html([simple()] * 3, "t")):
        assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}
        assert not re.search(r"@import|url\(|<link|xlink|eval|innerHTML", text)


def test_several_starts_share_their_lines() -> None:
    other = replace(simple(), pid=8, total_ns=120 * MS, notes=("Slow.",))
    extra = row(MAIN, "only here", 1, 66, 2)
    third = start(*[each for each in simple().rows if each.name != "b/big"], extra, total=110, pid=9)
    picture = Picture(svg([simple(), other, third], "t"))
    told = " ".join(picture.texts())
    assert "3 starts, from execve's entry to ready: 100 ms to 120 ms in total, median 110 ms." in told
    assert "The slowest is start 2 (pid 8)." in told and "start 2: Slow." in told
    assert picture.spans("a/big", 0) == picture.spans("a/big", 1) == picture.spans("a/big", 2)
    assert picture.spans("b/big", 0) and not picture.bars("b/big", 2)
    assert picture.bars("only here", 2) and not picture.bars("only here", 0)
    tops = [
        float(run.attrib["transform"].split()[1].rstrip(")"))
        for run in picture.line(EXEC).findall(f"{NAMESPACE}g[@data-run]")
    ]
    assert tops == sorted(set(tops)) and len(tops) == 3
    heights = {
        rect.attrib["height"] for rect in picture.line(EXEC).findall(f".//{NAMESPACE}g[@class='bar']/{NAMESPACE}rect")
    }
    assert all(float(height) < 20 / 3 for height in heights)
    assert picture.words("a/big")[1] == "30.0 ms"
    assert picture.title("a/big", 0, 1)[0] == "a/big: start 2 (pid 8)"


def test_the_order_of_lines_is_that_of_time() -> None:
    one = start(*(row(MAIN, name, 1, at, 10) for at, name in enumerate(["a", "gap", "b", "d"])), total=20)
    two = start(
        *(row(MAIN, name, 1, at, 10) for at, name in enumerate(["a", "gap", "b", "gap", "c", "gap", "d"])), total=30
    )
    for starts in ([one, two], [two, one], [one, two, one]):
        assert Picture(svg(starts, "t")).names(hidden=False) == [MAIN, "a", "gap", "b", "c", "d"]


def test_many_starts_are_the_median_the_slowest_and_ticks() -> None:
    starts = programs(MOST_DRAWN + 5)
    order = sorted(range(len(starts)), key=lambda number: starts[number].total_ns)
    median, slowest = order[(len(starts) - 1) // 2], order[-1]
    picture = Picture(svg(starts, "t"))
    for line in picture.lines:
        runs = [run.attrib["data-run"] for run in line.findall(f"{NAMESPACE}g[@data-run]")]
        assert runs == [str(median), str(slowest)]
    (ticks,) = picture.line(PROGRAM).findall(f"{NAMESPACE}path[@class='others']")
    assert 20 < ticks.attrib["d"].count("M") <= 2 * (len(starts) - 2)
    told = " ".join(picture.texts())
    assert f"Bars: start {median + 1} (pid {100 + median}), the median, and below it the slowest." in told
    assert f"the other {len(starts) - 2} begin (above) and end (below)" in told
    few = Picture(svg(starts[:MOST_DRAWN], "t"))
    assert len(few.line(PROGRAM).findall(f"{NAMESPACE}g[@data-run]")) == MOST_DRAWN
    assert not few.root.findall(f".//{NAMESPACE}path[@class='others']")


def test_a_hundred_starts_are_a_small_file_soon() -> None:
    starts = programs(100, packages=150)
    assert sum(len(each.rows) for each in starts) > 70_000
    begin = time.process_time()
    texts = svg(starts, "t"), html(starts, "t")
    assert time.process_time() - begin < 20
    assert max(len(text.encode()) for text in texts) < 3_000_000


def test_the_same_starts_make_the_same_file() -> None:
    starts = programs(4)
    assert svg(starts, "t") == svg(programs(4), "t")
    assert html(starts, "t") == html(tuple(programs(4)), "t")


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        ([], "No starts."),
        ([start()], "No rows."),
        ([start(total=0, gc=FirstGc(0, 0, None, "heap"), notes=("It is lost.",))], "It is lost."),
        ([start(), start()], "No rows."),
    ],
)
def test_without_rows(starts: Sequence[Start], words: str) -> None:
    picture = svg(starts, "Title")
    ElementTree.fromstring(picture)
    assert words in picture and words in html(starts, "Title")
    assert "<table" not in html(starts, "Title") and "<script" not in picture


def cells(page: str, name: str) -> list[str]:
    found = re.search(rf'<th scope="row"[^>]*>{re.escape(name)}</th>(.*)</tr>', page)
    assert found is not None
    return re.findall("<td[^>]*>([^<]*)</td>", found.group(1))


def test_the_table() -> None:
    page = html([simple()], "t")
    assert page.count("<tr>") == 1 + 14
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)', page)
    assert dict(zip(heads[1:], cells(page, "a/big"), strict=True)) == {
        "In": MAIN, "Begin": "20.0 ms", "Duration": "30.0 ms", "Share": "30.0 %", "On-CPU": "30.0 ms", "Runnable": "0 ns",
        "CPU quota": "?", "Blocked": "0 ns", "Minor faults": "0", "Major faults": "0", "Pages read": "0",
        "Heap": "+3.00 MiB", "Detail": "reads a file",
    }  # fmt: skip
    assert cells(page, "big.init.1")[:3] == ["a/big", "30.0 ms", "20.0 ms"]
    assert cells(page, "tiny")[0] == MAIN
    assert cells(page, "between packages")[2] == "4.00 ms"
    assert cells(page, "unattributed")[4:] == [*["?"] * 8, ""]
    # What is unknown differs from what is little.
    assert cells(page, "fork to execve") == [BEFORE, "-10.0 ms", "10.0 ms", "-", *["?"] * 8, ""]
    small = start(row(MAIN, "", 0, 0, 100), row(MAIN, "a", 1, 0, 100, heap_bytes=-8192, throttled_ns=0))
    assert cells(html([small], "t"), "a")[4:] == ["100 ms", "0 ns", "0 ns", "0 ns", "0", "0", "0", "&lt;64.0 KiB", ""]

    page = html([simple(), replace(simple(), rows=(row(EXEC, "", 0, 0, 40),)), replace(simple(), rows=())], "t")
    assert cells(page, EXEC)[:5] == ["", "2", "30.0 ms", "20.0 ms", "40.0 ms"]


def test_what_a_quota_took() -> None:
    throttled = row(MAIN, "", 0, 0, 100, runnable_ns=10 * MS, throttled_ns=60 * MS, blocked_ns=10 * MS)
    picture = Picture(svg([start(throttled)], "t"))
    (bar,) = picture.bars(MAIN)
    parts = picture.parts(bar)
    assert list(parts) == ["cpu", "runnable", "throttled", "blocked"]
    whole = sum(width for _, width in parts.values())
    assert [width / whole for _, width in parts.values()] == pytest.approx([0.2, 0.1, 0.6, 0.1], abs=1e-4)
    assert "CPU quota" in picture.texts() and any("60.0 % CPU quota" in text for text in picture.texts())
    assert "CPU quota" not in Picture(svg([simple()], "t")).texts()


def test_starts_of_one_run_have_pictures_of_their_own() -> None:
    """And tables in the page: only like is compared with like."""
    starts = []
    for run in range(2):
        first = start(row(EXEC, "", 0, 0, 90 + 10 * run), total=90 + 10 * run, run_ns=5 + run, starter=Starter(3, "sh"))
        starts += [first, start(row(EXEC, "", 0, 0, 10), total=10, pid=8, run_ns=5 + run, starter=Starter(7, "<me>"))]
    root = ElementTree.fromstring(svg(starts, "t", ("The end.",)))
    pictures = [Picture(ElementTree.tostring(each, encoding="unicode")) for each in root.findall(f"{NAMESPACE}svg")]
    assert [each.root.attrib["y"] for each in pictures] == ["0", pictures[0].root.attrib["height"]]
    assert int(root.attrib["height"]) == sum(int(each.root.attrib["height"]) for each in pictures)
    assert [each.words(EXEC)[1] for each in pictures] == ["95.0 ms", "10.0 ms"]
    assert "t: start 2 of a run" in pictures[1].texts() and "Started by <me> (pid 7)." in pictures[1].texts()
    assert [each.texts().count("The end.") for each in pictures] == [0, 1]
    page = html(starts, "t", ("<The end.>",))
    assert page.count("&lt;The end.&gt;") == 1
    assert [cells(each, EXEC)[2] for each in page.split("<h2>Start ")[1:]] == ["95.0 ms", "10.0 ms"]


names = st.sampled_from(["", "a", "b/c", "between packages", "<x>"])
rows_ = st.builds(
    Row, st.sampled_from([*STAGES, "other"]), names, st.integers(0, 3), st.integers(-(10**9), 10**10),
    st.integers(0, 10**10), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 3),
    st.integers(0, 10**6), st.none() | st.integers(-(10**9), 10**9), names,
)  # fmt: skip
moments = st.none() | st.integers(0, 10**10)
starts_ = st.builds(
    Start, st.integers(1, 99), st.just(0), st.integers(0, 10**10), names, st.lists(rows_, max_size=8).map(tuple),
    unattributed_ns=st.integers(0, 10**9), listen_ns=moments, ready_ns=moments, exit_code=st.none() | st.integers(0, 255),
    gc=st.none() | st.builds(FirstGc, st.integers(0, 10**10), st.integers(0, 10**10), moments, names),
    notes=st.lists(names, max_size=2).map(tuple),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(starts_, max_size=4) | st.lists(starts_, min_size=MOST_DRAWN + 1, max_size=MOST_DRAWN + 3))
def test_whatever_the_rows_are_it_is_a_picture(starts: list[Start]) -> None:
    picture = Picture(svg(starts, "t"))
    html(starts, "t")
    for rect in picture.root.iter(f"{NAMESPACE}rect"):
        x, width = float(rect.attrib["x"]), float(rect.attrib["width"])
        assert width >= 0 and x >= 0 and x + width <= 1200.001


def test_every_stage_is_drawn_in_its_order() -> None:
    rows = [row(stage, "", 0, 10 * at, 10) for at, stage in enumerate((EXEC, LINKER, BOOTSTRAP, MAIN, PROGRAM))]
    assert Picture(svg([start(*rows, total=50)], "t")).names(hidden=False) == [EXEC, LINKER, BOOTSTRAP, MAIN, PROGRAM]
