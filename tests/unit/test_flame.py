"""Flame graphs: boxes against a naive reference, folded text there and back, differences, and hostile names."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conftest
from gotrace.analysis import flame
from gotrace.analysis.flame import (
    Boxes,
    Profile,
    diff,
    diff_folded,
    folded,
    frame_of,
    label,
    layout,
    parse_folded,
    profile_of,
)
from gotrace.analysis.stacks import INLINED, KERNEL, USER, Frame
from gotrace.errors import GotraceError
from gotrace.export.flame.draw import html, kind_of, svg

NAMESPACE = "{http://www.w3.org/2000/svg}"
HOSTILE = [*conftest.HOSTILE, "a (b (c"]

frames = st.builds(
    Frame, st.sampled_from(["a", "b", "all", "aa", "x;y"]), st.sampled_from(["", "f.go"]), st.integers(0, 2), st.just(""),
    st.sampled_from([USER, INLINED, KERNEL]),
)  # fmt: skip
stacks = st.dictionaries(
    st.lists(frames, max_size=6).map(tuple), st.tuples(st.integers(0, 10**12), st.integers(0, 100)), max_size=15
)


def read(text: str | bytes) -> tuple[Profile, int]:
    return parse_folded(io.BytesIO(text.encode() if isinstance(text, str) else text))


def by_label(profile: Profile) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for number, weight in enumerate(profile.weights.tolist()):
        sums[folded(profile.stack(number))] += weight
    return dict(sums)


def path_of(boxes: Boxes, place: int) -> tuple[str, ...]:
    path: list[str] = []
    while place:
        path.append(boxes.names[boxes.name[place]])
        place = int(boxes.parent[place])
    return tuple(reversed(path))


def naive(profile: Profile) -> dict[tuple[str, ...], tuple[int, int, int, int]]:
    """Each path's begin, weight, own weight and count."""
    weight: dict[tuple[str, ...], int] = defaultdict(int)
    own, count = weight.copy(), weight.copy()
    weight[()] = 0
    for number, (heavy, times) in enumerate(zip(profile.weights.tolist(), profile.counts.tolist(), strict=True)):
        names = tuple(label(frame) for frame in profile.stack(number))
        own[names] += heavy
        for depth in range(len(names) + 1):
            weight[names[:depth]] += heavy
            count[names[:depth]] += times
    begin: dict[tuple[str, ...], int] = {(): 0}
    taken = {path: own[path] for path in weight}
    for path in sorted(weight)[1:]:
        parent = path[:-1]
        begin[path] = begin[parent] + taken[parent]
        taken[parent] += weight[path]
    return {path: (begin[path], weight[path], own[path], count[path]) for path in weight}


@given(stacks)
def test_boxes_are_what_a_naive_layout_says(given_stacks: dict[tuple[Frame, ...], tuple[int, int]]) -> None:
    profile = profile_of(given_stacks)
    boxes = layout(profile)
    columns = zip(boxes.begin.tolist(), boxes.weight.tolist(), boxes.own.tolist(), boxes.count.tolist(), strict=True)
    found = {path_of(boxes, place): numbers for place, numbers in enumerate(columns)}
    assert len(found) == len(boxes)
    assert found == naive(profile)
    assert [len(path) for path in found] == boxes.depth.tolist()


@given(stacks)
def test_weights_are_conserved_and_children_within_their_parents(
    given_stacks: dict[tuple[Frame, ...], tuple[int, int]],
) -> None:
    profile = profile_of(given_stacks)
    boxes = layout(profile)
    assert boxes.weight[0] == boxes.own.sum() == profile.weights.sum()
    children = np.arange(1, len(boxes))
    parents = boxes.parent[children]
    assert (boxes.depth[children] == boxes.depth[parents] + 1).all()
    assert (boxes.begin[children] >= boxes.begin[parents]).all()
    assert ((boxes.begin + boxes.weight)[children] <= (boxes.begin + boxes.weight)[parents]).all()
    same = boxes.depth[1:] == boxes.depth[:-1]
    assert ((boxes.begin + boxes.weight)[:-1] <= boxes.begin[1:])[same].all()


names = st.text(st.characters(codec="utf-8"), min_size=1)


@given(st.lists(st.tuples(st.lists(names, min_size=1, max_size=5), st.integers(0, 10**15)), max_size=20))
def test_folded_text_comes_back(lines: list[tuple[list[str], int]]) -> None:
    profile = profile_of({tuple(map(frame_of, names)): (weight, 1) for names, weight in lines})
    text = "".join(f"{folded(profile.stack(place))} {weight}\n" for place, weight in enumerate(profile.weights.tolist()))
    again, skipped = read(text)
    assert skipped == 0
    assert by_label(again) == by_label(profile)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(1, 40))
def test_any_bytes_are_read_alike_in_any_blocks(data: bytes, block: int) -> None:
    whole, skipped = read(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flame, "_BLOCK", block)
        parted, skipped_again = read(data)
    assert skipped == skipped_again
    assert by_label(whole) == by_label(parted)
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    assert skipped == sum(bool(line) and not re.fullmatch(rb"[^\n]+[ \t][0-9]{1,18}", line, re.DOTALL) for line in lines)


def test_malformed_lines_are_counted() -> None:
    profile, skipped = read(
        b"main;a b 3\r\n\nmain;a b 4\nno number\n 5\nx -3\nx 1.5\n12\nx 1234567890123456789\nq\xff\t7\nr_[k] 1"
    )
    assert skipped == 6
    assert by_label(profile) == {"main;a b": 7, "q\\xff": 7, "r_[k]": 1}
    assert profile.stack(2) == [Frame("r", "", 0, "", KERNEL)]
    assert (profile.unit, profile.counts.tolist()) == ("samples", profile.weights.tolist())


def test_numbers_that_add_up_to_too_much_are_an_error() -> None:
    with pytest.raises(GotraceError, match="add up"):
        read("".join(f"f{each} {10**18 - 1}\n" for each in range(10)))


def test_a_difference() -> None:
    before, _ = read("main;a 4\nmain;c 2\nmain;c;a 2\n")
    after, _ = read("main;a;b 4\nmain;a 12\n")
    found = diff(before, after)
    boxes = found.boxes
    numbers = zip(boxes.weight.tolist(), boxes.own.tolist(), found.before.tolist(), found.before_own.tolist(), strict=True)
    assert {path_of(boxes, place): each for place, each in enumerate(numbers)} == {
        (): (16, 0, 8, 0),
        ("main",): (16, 0, 8, 0),
        ("main", "a"): (16, 12, 4, 4),
        ("main", "a", "b"): (4, 4, 0, 0),
        ("main", "c"): (0, 0, 4, 2),
        ("main", "c", "a"): (0, 0, 2, 2),
    }
    assert (found.gone_paths, found.gone_functions) == (0.5, 0.5)
    assert sorted(diff_folded(before, after)) == ["main;a 4 12", "main;a;b 0 4", "main;c 2 0", "main;c;a 2 0"]
    picture = svg(found, "difference")
    assert "50.00 % of A is in call paths absent from B" in picture
    # Both by themselves: a went from 4 of 8 to 12 of 16, b from nothing to 4 of 16. Drawn are four boxes and no c.
    assert re.findall(r'<g class="(d\d+)"><title>(\w+)', picture) == [
        ("d10", "all"),
        ("d10", "main"),
        ("d20", "a"),
        ("d20", "b"),
    ]
    assert "a (16 samples, 100.00 %, in A 50.00 %; self 75.00 %, in A 50.00 %)" in picture
    assert "<td>+25.00 points</td>" in html(found, "difference")


@given(stacks, stacks)
def test_a_difference_is_both_layouts(
    before: dict[tuple[Frame, ...], tuple[int, int]], after: dict[tuple[Frame, ...], tuple[int, int]]
) -> None:
    a, b = profile_of(before), profile_of(after)
    found = diff(a, b)
    paths = [path_of(found.boxes, place) for place in range(len(found.boxes))]
    for weights, profile in ((found.boxes.weight, b), (found.before, a)):
        expected = {path: numbers[1] for path, numbers in naive(profile).items() if numbers[1]}
        assert {path: weight for path, weight in zip(paths, weights.tolist(), strict=True) if weight} == expected
    lines = [line.rsplit(" ", 2) for line in diff_folded(a, b)]
    for column, profile in ((1, a), (2, b)):
        expected_text = {stack: weight for stack, weight in by_label(profile).items() if weight and stack}
        assert {line[0]: int(line[column]) for line in lines if int(line[column])} == expected_text
    ElementTree.fromstring(svg(found, "difference"))


def hostile_profile() -> Profile:
    stacks = {
        tuple(Frame(name, name, 0, name, USER) for name in HOSTILE[: place + 1]): (1000, 1) for place in range(len(HOSTILE))
    }
    return profile_of({**stacks, **{(Frame(name, "", 0, "", KERNEL),): (10**6, 1) for name in HOSTILE}})


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name.startswith("on") or "href" in name or name == "src" for name, _ in attrs)
        self.found.append(tag)


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_names_are_text(title: str) -> None:
    profile = hostile_profile()
    picture = svg(profile, title, title, counted=title or "samples")
    root = ElementTree.fromstring(picture)
    assert picture.isprintable() or set(filter(lambda char: not char.isprintable(), picture)) == {"\n"}
    used = {element.tag.removeprefix(NAMESPACE) for element in root.iter()}
    assert used == {"svg", "style", "rect", "text", "g", "title", "script"}
    assert len(root.findall(f".//{NAMESPACE}script")) == 1
    page = html(profile, title, title)
    assert "\x1b" not in page and "\u202e" not in page
    for text in (picture, page):
        tags = Tags()
        tags.feed(text.replace("<![CDATA[", "").replace("]]>", ""))
        assert tags.found.count("script") == 1
        assert not {"img", "b"} & set(tags.found)


def test_nothing_comes_from_elsewhere() -> None:
    for text in (svg(hostile_profile(), "t"), html(hostile_profile(), "t")):
        # names of namespaces
        known = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
        assert set(re.findall(r"https?://[^\"'\s]+", text)) == known
        assert not re.search(r"@import|url\(|<link|xlink", text)


def test_what_the_boxes_tell() -> None:
    profile = profile_of({(frame_of("main.f"), frame_of("g_[k]")): (1_240_000, 1234), (frame_of("h<"),): (3_720_000, 2)})
    root = ElementTree.fromstring(svg(profile, "Title", "sub", counted="times"))
    titles = [title.text for title in root.iter(f"{NAMESPACE}title")]
    assert "main.f (1,234 times, 1.24 ms, 25.00 %)" in titles
    assert "h< (2 times, 3.72 ms, 75.00 %)" in titles
    assert "g_[k]" in [text.text for text in root.iter(f"{NAMESPACE}text")]
    # Everything is in the file before any script runs.
    assert len(root.findall(f"{NAMESPACE}g[@class='boxes']/{NAMESPACE}g/{NAMESPACE}rect")) == 4


def test_the_outermost_function_is_on_top() -> None:
    """Where a page opens, whatever the depth."""
    profile = profile_of({tuple(map(frame_of, [*"abcdefgh"])): (1, 1)})
    root = ElementTree.fromstring(svg(profile, "Title", "sub"))
    tops = [float(rect.attrib["y"]) for rect in root.iterfind(f"{NAMESPACE}g[@class='boxes']/{NAMESPACE}g/{NAMESPACE}rect")]
    assert tops == sorted(tops) and tops[0] < 120 and len(tops) == 9
    bar = root.find(f"{NAMESPACE}g[@class='bar']/{NAMESPACE}rect")
    assert bar is not None and float(bar.attrib["y"]) + float(bar.attrib["height"]) == tops[0]


def test_texts_fit_their_boxes() -> None:
    long = "github.com/acme/shop/internal/orders.(*Handler).ServeHTTP[" + "go.shape.int," * 30 + "]"
    wide = "\u6f22" * 300
    profile = profile_of({(frame_of(name),): (weight, 1) for name, weight in ((long, 600), (wide, 390), ("narrow", 10))})
    root = ElementTree.fromstring(svg(profile, "t" * 500, "s" * 500))
    shown = []
    for group in root.findall(f"{NAMESPACE}g[@class='boxes']/{NAMESPACE}g"):
        rect, text = group.find(f"{NAMESPACE}rect"), group.find(f"{NAMESPACE}text")
        assert rect is not None
        if text is not None:
            shown.append(str(text.text))
            cells = sum(2 if char > "\u10ff" else 1 for char in shown[-1])
            assert 3 + 6.62 * cells <= float(rect.attrib["width"])
    assert len(shown) == 3 and shown[1].startswith("orders.(*Handler).ServeHTTP[") and shown[1].endswith("..")


def test_narrow_boxes_are_left_out_and_said_to_be() -> None:
    profile = profile_of({(frame_of(f"f{each}"), frame_of("leaf")): (1 if each else 10**6, 1) for each in range(1001)})
    picture = svg(profile, "t")
    assert "2,000 boxes narrower than 0.1 pixels not drawn: 0.10 % of the total." in picture
    assert len(re.findall("<g class=.*<title>", picture)) == 3


def test_a_large_graph_is_a_small_file() -> None:
    rng = np.random.default_rng(5)
    names = [f"github.com/acme/shop/internal/part{each % 50}.(*Type).Method{each}" for each in range(2000)]
    picks = rng.integers(0, len(names), (1500, 14)).tolist()
    profile = profile_of({tuple(frame_of(names[each]) for each in pick): (10**6, 1) for pick in picks})
    picture = svg(profile, "large")
    assert picture.count("<title>") > 20_000
    assert len(picture.encode()) < 4_000_000


def test_colours_by_kind() -> None:
    kinds = {
        "main.main": "user",
        "encoding/json.Marshal_[i]": "inlined",
        "runtime.mallocgc": "runtime",
        "runtime.add_[i]": "runtime",
        "internal/runtime/maps.(*Map).Get": "runtime",
        "runtime.gcDrain": "gc",
        "runtime.(*gcWork).tryGet": "gc",
        "runtime.scanobject": "gc",
        "runtime.bgsweep": "gc",
        "runtime.(*sweepLocked).sweep": "gc",
        "runtime.wbBufFlush": "gc",
        "runtime.makeslice": "runtime",
        "main.gcRuntime": "user",
        "[waiting for a CPU]": "waiting",
        "[not preemptible]": "waiting",
        "[libc.so.6]": "user",
        "[unknown]": "user",
        "do_syscall_64_[k]": "kernel",
    }
    assert {name: kind_of(name) for name in kinds} == kinds

    def colours(*names: str) -> dict[str, str]:
        profile = profile_of({tuple(map(frame_of, names)): (1, 1)})
        return {name: colour for colour, name in re.findall(r'<g class="(\w+)"><title>([^ ]+) ', svg(profile, ""))}

    few, more = colours("main.main", "main.f"), colours("a", "main.f", "b", "main.main")
    assert few.items() <= more.items()


def test_without_samples() -> None:
    for graph in (profile_of({}), profile_of({(frame_of("f"),): (0, 0)}), diff(profile_of({}), profile_of({}))):
        picture = svg(graph, "Title")
        assert "No samples." in picture and ElementTree.fromstring(picture) is not None
        assert "No times." in html(graph, "Title", counted="times")
    gone = diff(read("f 1\n")[0], profile_of({}))
    assert "100.00 % of A is in call paths absent from B" in svg(gone, "")


def test_recursion_counts_once_in_the_table() -> None:
    profile, _ = read("f;f;g;f 3\nf 1\nmain;f 4\nmain 2\n")
    row = re.search(r"<td>f</td>(.*)</tr>", html(profile, "t"))
    assert row is not None
    assert re.findall("<td>([^<]*)", row.group(1)) == ["8 samples", "80.00 %", "8 samples", "80.00 %"]
