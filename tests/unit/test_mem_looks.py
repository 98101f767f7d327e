"""What `gotrace mem` says of a look, and of what changed between two, from records made up here."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from gotrace.analysis.heap_pages import PARTS
from gotrace.cli.text.layout import rendered
from gotrace.cli.text.memory import look_line, summary, table
from gotrace.kernel import huge_pages
from gotrace.kernel.memory import PAGE, _whole
from gotrace.records.times import moment
from gotrace.views.memory import Looks, scavenged
from gotrace.views.view import Source

MIB = 1 << 20
SETTING = {"enabled": "always", "defrag": "madvise", "size": 2 * MIB, "max_ptes_none": 511}


def look(time=0.0, huge=None, page=4096, rounding=0, large=0, setting=SETTING, missing=None, **counters):
    """A record of a heap of 30 MiB that lost half of it."""
    parts = {part: 0 for part in PARTS}
    parts |= {"live objects": 20 * MIB, "span waste": 4 * MIB, "free": 6 * MIB}
    known = {
        "heap_alloc": 20 * MIB,
        "heap_inuse": 24 * MIB,
        "heap_free": 6 * MIB,
        "heap_released": 30 * MIB,
        "stack_inuse": MIB,
        "workbufs": 0,
        "pointer_bits": 0,
        "mapped_ready": 40 * MIB,
        "gc_percent": 100,
        "memory_limit": (1 << 63) - 1,
        "num_gc": 3,
        "returned_background": 10 * MIB,
        "returned_eager": 0,
        "retained_goal": None,
        "mapped_goal": None,
    }
    assert set(counters) <= set(known)
    return {
        "type": "memory",
        **moment(round(time * 1e9), 0),
        "rss_bytes": sum(parts.values()),
        "amplification": 1.5,
        "parts": parts,
        "counters": known | counters,
        "size_classes": [],
        "page_rounding_bytes": rounding,
        "large_rounding_bytes": large,
        "huge_bytes": sum((huge or {}).values()),
        "huge_parts": huge or {},
        "huge_setting": setting,
        "swap_bytes": 0,
        "cgroup": None,
        "regions": [],
        "code": None,
        "drift": 0.0,
        "took_ns": 1_000_000,
        "page_bytes": page,
        "missing": missing or {},
        "scavenged": None,
    }


def text_of(record, change=()):
    return "\n".join(rendered(table(record, "pid 1", 5, dict(change))))


@pytest.mark.parametrize(
    ("after", "returned", "taken", "mapped", "uncounted"),
    [
        # 8 MiB of the free ones were returned
        ({"returned_background": 18, "heap_free": -2, "heap_released": 38}, 8, 0, 0, 0),
        # and 5 MiB were taken back for spans
        (
            {"returned_background": 14, "returned_eager": 4, "heap_inuse": 27, "heap_free": 0, "heap_released": 33},
            8,
            5,
            0,
            0,
        ),
        # 4 MiB are mapped anew: 3 are in use already
        ({"heap_inuse": 27, "heap_released": 31}, 0, 3, 4, 0),
        # debug.FreeOSMemory, which nobody counts
        ({"heap_free": 0, "heap_released": 36}, 6, 0, 0, 6),
        # with scavtrace=1 the count began anew
        ({"returned_background": 2, "heap_free": 4, "heap_released": 32}, 2, 0, 0, 0),
        # no release before Go 1.21 counts the eager
        ({"returned_background": 12, "returned_eager": None, "heap_free": 4, "heap_released": 32}, 2, 0, 0, 0),
        ({}, 0, 0, 0, 0),
    ],
)
def test_what_went_and_what_came_back(after, returned, taken, mapped, uncounted):
    counters = {name: value if value is None else value * MIB for name, value in after.items()}
    change = scavenged(look(), look(2.0, **counters))
    sizes = {"returned_bytes": returned, "uncounted_bytes": uncounted, "taken_bytes": taken, "mapped_bytes": mapped}
    assert change == {"seconds": 2.0, **{name: size * MIB for name, size in sizes.items()}}


def test_what_is_counted_later_is_not_returned_twice():
    """The scavenger has returned 6 MiB at the second look and counts them before the third."""
    first = look()
    second = look(1.0, heap_free=0, heap_released=36 * MIB)
    second["scavenged"] = scavenged(first, second)
    third = look(2.0, returned_background=17 * MIB, heap_free=-MIB, heap_released=37 * MIB)
    changes = [second["scavenged"], scavenged(second, third)]
    assert [each["returned_bytes"] for each in changes] == [6 * MIB, MIB]
    assert [each["uncounted_bytes"] for each in changes] == [6 * MIB, 0]
    assert [each["taken_bytes"] for each in changes] == [0, 0]


def test_no_change_is_known():
    assert scavenged(None, look()) is None
    assert scavenged(look(), look()) is None  # the same moment
    assert scavenged(look(returned_background=None), look(1.0, returned_background=None)) is None


def test_the_line_has_the_rate():
    assert look_line({**look(), "scavenged": None})[-1] == "-"
    assert look_line(look(returned_background=None))[-1] == "?"
    change = scavenged(look(), look(2.0, returned_background=18 * MIB))
    assert look_line({**look(2.0), "scavenged": change})[-1] == "4.00 MiB"


def test_sentences_about_the_scavenger():
    assert "returned 10.0 MiB in the background and 0 B during allocation; nothing left to return." in text_of(look())
    goal = text_of(look(retained_goal=28 * MIB, mapped_goal=39 * MIB))
    assert "2.00 MiB left to return" in goal
    old = text_of(look(returned_eager=None, missing={"scavenge": "why"}))
    assert "returned 10.0 MiB in the background.\n" in old and "Not available: scavenge (why)." in old
    assert "How much the scavenger has returned is unknown." in text_of(look(returned_background=None))
    change = {"seconds": 2.0, "returned_bytes": 8 * MIB, "taken_bytes": MIB, "mapped_bytes": 0}
    assert "Over 2.0 s the heap returned 4.00 MiB/s to the kernel and took 512 KiB/s back." in text_of(look(), change)


def test_sentences_about_pages():
    plain = text_of(look())
    assert "Nothing is in huge pages of 2.00 MiB; the kernel uses them wherever it can, " in plain
    assert "even if 511 of 512 pages are absent (enabled: always, defrag: madvise)." in plain
    assert "padding" not in plain and "cannot be returned" not in plain and "% huge" not in plain
    huge = text_of(look(huge={"live objects": 17 * MIB, "free": 6 * MIB}))
    assert re.search(r"^live objects .* 85% huge  objects reachable", huge, re.MULTILINE)
    assert re.search(r"^RSS +30\.0 MiB +100\.0% +77% huge$", huge, re.MULTILINE)
    assert re.search(r"^live objects +20\.0 MiB +66\.7%  objects reachable", plain, re.MULTILINE)
    assert re.search(r"^free .* 100% huge ", huge, re.MULTILINE) and re.search(
        r"^span waste .* 0% huge", huge, re.MULTILINE
    )
    assert "23.0 MiB of RSS is in huge pages" in huge
    large = text_of(look(page=64 << 10, rounding=3 * MIB, large=MIB))
    assert "3.00 MiB is free but cannot be returned: its 64.0 KiB kernel pages also hold" in large
    assert "1.00 MiB of the live heap is padding" in large
    assert "this kernel makes none by itself" in text_of(look(setting=None))
    for word, said in (("madvise", "only where memory asks for them"), ("never", "the kernel makes none (enabled: never")):
        assert said in text_of(look(setting={**SETTING, "enabled": word}))


GROUP = {
    "version": 2,
    "path": "/shop/web\x1b",
    "limited": True,
    "limit_bytes": 256 * MIB,
    "limited_by": "/shop",
    "usage_bytes": None,
    "working_set_bytes": 100 * MIB,
    "page_cache_bytes": 0,
}


def test_what_is_unknown_is_no_blank():
    """And names that are somebody else's are harmless."""
    known = text_of({**look(), "cgroup": GROUP})
    assert "cgroup /shop/web\\x1b: limit 256 MiB of /shop; usage ?, working set 100 MiB, page cache 0 B\n" in known, known
    free = text_of({**look(), "cgroup": {**GROUP, "limited": False, "limit_bytes": None, "limited_by": None}})
    assert "/shop/web\\x1b: no limit; " in free
    regions = [
        {"name": "/srv/index\x1b", "part": "files and libraries", "mappings": 2, "bytes": 3 * MIB},
        {"name": "/srv/small", "part": "files and libraries", "mappings": 1, "bytes": 1000},
    ]
    named = text_of({**look(), "regions": regions})
    assert re.search(r"^/srv/index\\x1b \(2\) +files and libraries +3\.00 MiB +10\.0%$", named, re.MULTILINE), named
    assert "/srv/small" not in named  # less than a hundredth of RSS
    unknown = text_of({**look(), "cgroup": None, "regions": None})
    assert "cgroup: ?" in unknown and "Largest mappings: ?" in unknown
    assert "amplification -\n" in text_of({**look(), "amplification": None})
    assert "amplification >999\n" in text_of({**look(), "amplification": 4321.0})


def test_changes_from_look_to_look():
    """The first has none; the table tells of the whole time."""

    class Fake(Source):
        header = {"target": {"pid": 1, "exe": "x", "go_version": "go1.27.3"}, "clock": {"begin_ns": 0, "wall_offset_ns": 0}}
        waiting = [
            look(float(number), returned_background=number * 4 * MIB, heap_released=number * MIB) for number in range(4)
        ]

        def ask(self, what, answer, due=True):
            return self.waiting.pop(0)

    view = Looks(1_000_000_000)
    view.source = Fake()
    found = [next(view.feed(None, None)) for _ in range(4)]
    assert [each["scavenged"] and each["scavenged"]["returned_bytes"] for each in found] == [None, *[4 * MIB] * 3]
    assert "Over 3.0 s the heap returned 4.00 MiB/s to the kernel " in "\n".join(rendered(summary(view)))


def test_settings_of_huge_pages(tmp_path):
    assert huge_pages.setting(str(tmp_path)) is None
    folder = tmp_path / "sys/kernel/mm/transparent_hugepage"
    (folder / "khugepaged").mkdir(parents=True)
    for name, text in {
        "enabled": "always [madvise] never",
        "defrag": "always defer defer+madvise [madvise] never",
        "hpage_pmd_size": "2097152",
        "khugepaged/max_ptes_none": "511",
    }.items():
        (folder / name).write_text(text + "\n")
    assert huge_pages.setting(str(tmp_path)) == huge_pages.Setting("madvise", "madvise", 2 * MIB, 511)
    assert os.path.exists("/sys/kernel/mm/transparent_hugepage") == (huge_pages.setting() is not None)


def test_huge_pages_that_are_mapped_as_such():
    """With the flag of a huge page: a whole one at its place, one that lacks a page, and a beginning."""
    count = PAGE // 8
    flags = np.ones(4 * count, bool)
    flags[2 * count + 7] = False
    begin = 5 * count * PAGE
    assert np.flatnonzero(_whole(begin, flags)).tolist() == [*range(2 * count), *range(3 * count, 4 * count)]
    shifted = _whole(begin + 3 * PAGE, flags)  # it begins within one
    assert np.flatnonzero(shifted).tolist() == [*range(count - 3, 2 * count - 3), *range(3 * count - 3, 4 * count - 3)]
    assert not _whole(begin + PAGE, flags[: count - 1]).any() and len(_whole(begin, flags[:0])) == 0
