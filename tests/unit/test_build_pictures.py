"""Builds as pictures: lines that nothing overlaps in, bars where the steps are, names that do no harm."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import HOSTILE
from gotrace.analysis.builds.build import Build, Item
from gotrace.analysis.builds.overlaps import lanes
from gotrace.analysis.builds.steps import COMPILE, DOWNLOAD, GO, LINK, Step
from gotrace.export.build_page.bands import CHAIN, MODULES, PROCESSES, bands
from gotrace.export.build_page.draw import html, svg
from gotrace.export.build_perfetto import write_trace
from groundtruth import Timeline

SVG = "{http://www.w3.org/2000/svg}"
MS = 1_000_000
SPANS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 12), st.sampled_from("ab")).map(lambda of: (of[0], of[0] + of[1], of[2])),
    max_size=14,
)


@given(SPANS)
def test_nothing_overlaps_in_a_line_and_there_are_as_many_as_are_needed(spans):
    spans.sort(key=lambda each: (each[0], -each[1]))
    found = lanes([each[:2] for each in spans], [each[2] for each in spans])
    for number, ((begin, end, key), (lane, depth)) in enumerate(zip(spans, found, strict=True)):
        for (first, last, other), (its, deep) in zip(spans[:number], found[:number], strict=True):
            if its == lane and deep == depth:
                assert last <= begin
            if its == lane and last > begin:  # then it lies within
                assert deep < depth and other == key and end <= last and first <= begin
    outermost = [span for span, (_, depth) in zip(spans, found, strict=True) if depth == 0]
    most = max((sum(begin <= at < end for begin, end, _ in outermost) for at in range(60)), default=0)
    assert 1 + max((lane for lane, _ in found), default=-1) == most


def build(name: str = "example.com/app", status: int = 0) -> Build:
    """Two packages, one beside the other, that a link waits for; one module; 200 ms."""
    first = Step(COMPILE, name, 20 * MS, 80 * MS, 50 * MS, 1, 0, work="/w/b002")
    within = Step(COMPILE, name, 30 * MS, 40 * MS, 5 * MS, 1, 0, work="/w/b002")
    beside = Step(COMPILE, f"{name}/b", 30 * MS, 130 * MS, 90 * MS, 1, 0, work="/w/b003")
    link = Step(LINK, name, 140 * MS, 180 * MS, 20 * MS, 1, status, work="/w/b001")
    module = Step(DOWNLOAD, f"{name}@v1", 0, 10 * MS, ended=False)
    items = [Item(stage, "", 0, 1, 0, 0, 0, 1) for stage in (DOWNLOAD, COMPILE, LINK, GO)]
    steps, chain = (module, first, within, beside, link), (beside, link)
    lists = {"compiled": (name,), "cached": (f"{name}/c",), "prebuilt": (name,)}
    return Build(
        7, 5 * MS, 200 * MS, status, steps, tuple(items), **lists, found=(MS, 2 * MS), stored=(9 * MS,), chain=chain
    )


def test_bars_are_where_the_steps_are():
    (name, chain), modules, (_, processes) = bands(build())
    assert (name, modules[0]) == (CHAIN, MODULES) and [bar.line for bar in chain] == [0, 0]
    assert [(bar.line, bar.depth) for bar in processes] == [(0, 0), (1, 0), (0, 1), (0, 0)]
    root = ElementTree.fromstring(svg([build()], "go build", [["Told."]]))
    bars = {
        bar.find(f"{SVG}title").text: [float(bar.attrib[each]) for each in ("x", "width", "y")]
        for bar in root.iter(f"{SVG}rect")
        if "bar" in bar.attrib["class"].split() and "waited" in bar.attrib["class"].split()
    }
    (beside, link) = bars
    assert beside.startswith("compile example.com/app/b: 100 ms from 30.0 ms on") and link.startswith(
        "link example.com/app"
    )
    scale = bars[beside][1] / 100
    assert bars[link][1] == pytest.approx(40 * scale, abs=0.02)
    assert bars[link][0] - bars[beside][0] == pytest.approx(110 * scale, abs=0.02)
    assert bars[link][2] < bars[beside][2] and "Told." in [text.text for text in root.iter(f"{SVG}text")]


def test_perfetto_has_every_step(tmp_path):
    made, path = build(), tmp_path / "build.perfetto"
    file = io.BytesIO()
    write_trace(file, [made], "go build", {"begin_ns": 0, "wall_offset_ns": 0})
    path.write_bytes(file.getvalue())
    timeline = Timeline(path)
    found = {
        (about["stage"], begin - made.begin_ns, end - made.begin_ns)
        for track, those in timeline.slices.items()
        if track.startswith((PROCESSES, MODULES))
        for _, begin, end, _, about in those
    }
    assert found == {(step.stage, step.begin_ns, step.end_ns) for step in made.steps}
    assert len(timeline.slices[CHAIN]) == len(made.chain)
    assert [at for _, at in timeline.instants["build cache: found"]] == [made.begin_ns + ns for ns in made.found]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name):
    builds = [build(name, 1)] * 4
    picture, page = svg(builds, name, [[name]] * 4), html(builds, name, [[name]] * 4)
    root = ElementTree.fromstring(picture)
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == {"svg", "style", "rect", "text", "title", "line", "path"}
    assert "Run 2 of 4, pid 7: 200 ms from fork to exit 1 (the median)" in picture
    for text in (picture, page):
        assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}
        assert not {char for char in text if not char.isprintable()} - {"\n"}
        assert not re.search(r"<(script|img|b)\b|@import|url\(", text)
