"""Starts from events that nobody sent: every rule of the analysis by itself."""

from __future__ import annotations

import dataclasses
import re
import statistics
import sys

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.analysis.coldstart import Decoder, Until, package_of
from gotrace.analysis.columns import Kinds
from gotrace.analysis.start_summary import ENOUGH, changes, median_interval, summaries, summary
from gotrace.analysis.timeline import (
    Start,
    Starter,
    by_place,
    folded,
    merged,
    package_inits,
    places,
    starter_text,
    throttled_ns,
)
from gotrace.cli.text.coldstart import many_starts, one_start
from gotrace.cli.text.coldstart_compare import Side, write
from gotrace.cli.text.layout import Rows
from gotrace.export.waterfall.draw import html
from gotrace.kernel.ring import wire_dtype
from gotrace.probes.coldstart import PROBE
from gotrace.records.starts import summary_record
from gotrace.run.files import Sink
from gotrace.run.starts import Result
from gotrace.text import duration_text

KINDS = {kind.name: kind.number for kind in PROBE.kinds}
POINTS = {
    0x1000: ("entry", "the entry point"),
    0x2000: ("runtime.args", "runtime.rt0_go"),
    0x2008: ("runtime.schedinit", "runtime.rt0_go"),
    0x3000: ("runtime.mallocinit", "runtime.schedinit"),
    0x4000: ("runtime.main", "runtime.main"),
    0x4100: ("runtime.gcenable", "runtime.gcenable"),
    0x5000: ("main.main", "main.main"),
    0x6000: ("package inits", "runtime.doInit1"),
}
FUNCTIONS = {0xA0: "runtime.init.0", 0xB0: "example.com/shop/db.init", 0xB8: "example.com/shop/db.init.0"}
PID, T0 = 77, 1_000_000
TO_EXIT = Until()
U64 = 1 << 64


class Events:
    """Builds events of one process; times in ns since execve's entry."""

    def __init__(self, pid=PID):
        self.pid, self.rows = pid, []

    def add(self, kind, at, c=0, d=0, e=0, tid=None, sums=(0, 0, 0)):
        minor, major, pages = sums
        a, b = self.pid | pages << 32, minor | major << 32
        self.rows.append((T0 + at, tid or self.pid, KINDS[kind], 0, a, b, c % U64, d % U64, e % U64))
        return self

    def raw(self, kind, at, *words):
        self.rows.append((T0 + at, self.pid, KINDS[kind], 0, *(list(words) + [0] * 5)[:5]))
        return self

    def array(self):
        return np.array(self.rows, wire_dtype())

    def begin(self, linker=False):
        self.add("exec", 100, T0, T0 - 40, sums=(1, 0, 0)).add("exec_wait", 100, 10, 5)
        if linker:
            return self
        return self.add("entry", 150, 0x1000, sums=(3, 0, 0))

    def to_main(self):
        self.begin()
        for at, address in ((170, 0x2000), (180, 0x2008), (200, 0x3000), (300, 0x4000)):
            self.add("step", at, address, sums=(at // 10, 0, 0))
        self.add("init", 310, 0 | 1 << 32, 0xA0).add("init", 330, 1 | 1 << 32)
        self.add("step", 340, 0x4100)
        self.add("init", 400, 0 | 2 << 32, 0xB0, 1 << 20).add("init", 450, 1 | 2 << 32, 0xB8, 1 << 20)
        self.add("init", 600, 2 | 2 << 32, 0, (1 << 20) + (128 << 10), sums=(90, 2, 7))
        return self.add("step", 640, 0x5000, sums=(95, 2, 7))


def decoded(events, until=TO_EXIT, now=0, points=POINTS):
    decoder = Decoder(Kinds(PROBE.header_kinds()), points, FUNCTIONS, until)
    return decoder.feed(events.array(), now) + decoder.feed(events.array()[:0], now) + decoder.close(T0 + 10_000)


def one(events, **how):
    (start,) = decoded(events, **how)
    return start


def names(start, depth=1):
    return [row.name for row in start.rows if row.depth == depth and row.stage != "before exec"]


def row(start, name):
    (found,) = [each for each in start.rows if each.name == name]
    return found


def test_a_whole_start():
    start = one(Events().to_main().add("exited", 1000, 3 << 8, sums=(99, 2, 7)))
    assert names(start) == [
        *("loading the program", "to its first instruction", "entry", "args", "schedinit", "mallocinit"),
        *(
            "to its first init",
            "runtime",
            "between packages",
            "gcenable",
            "example.com/shop/db",
            "to main.main",
            "to its end",
        ),
    ]
    assert names(start, 2) == ["runtime.init.0", "example.com/shop/db.init", "example.com/shop/db.init.0"]
    assert (start.total_ns, start.ended, start.exit_code, start.unattributed_ns) == (1000, "exit 3", 3, 0)
    db = row(start, "example.com/shop/db")
    assert (db.begin_ns, db.duration_ns, db.major_faults, db.pages_read, db.heap_bytes) == (400, 200, 2, 7, 128 << 10)
    assert row(start, "example.com/shop/db.init").heap_bytes == 0
    loading = row(start, "loading the program")
    assert (loading.runnable_ns, loading.blocked_ns, loading.minor_faults) == (10, 5, 1)
    assert [(each.name, each.begin_ns, each.duration_ns) for each in start.rows if each.stage == "before exec"] == [
        *(("", -40, 40), ("fork to execve", -40, 40)),
    ]
    assert [each.name for each in package_inits(start)] == ["runtime", "example.com/shop/db"]


@pytest.mark.parametrize(
    ("until", "total", "ended"),
    [
        (Until("main"), 640, "main.main"),
        (Until("listen"), 700, "listen"),
        (Until(), 1000, "killed by signal 9"),
        (Until("", 500), 500, "the requested time"),
        (Until("first-gc"), 550, "the first GC"),
    ],
)
def test_ends(until, total, ended):
    events = Events().to_main().add("listen", 700).add("accept", 800).add("exited", 1000, 9)
    events.add("gc_begin", 420, 0, 1 << 20).raw("gc_clock", 550, PID, T0 + 430, T0 + 440, T0 + 500, T0 + 520)
    events.add("gc_end", 550, 30, 1 << 19)
    start = one(events, until=until)
    assert (start.total_ns, start.ended) == (total, ended)
    assert sum(each.duration_ns for each in start.rows if each.depth == 0 and each.stage != "before exec") == total
    if total >= 550:
        assert (start.gc.asked_ns, start.gc.begin_ns, start.gc.end_ns) == (420, 430, 550)
        assert (start.gc.trigger, start.gc.pauses_ns) == ("heap", (10, 20))
    # the live heap says nothing of a function, and its package, in which a collection ended
    assert all(each.heap_bytes is None for each in start.rows if each.name != "example.com/shop/db.init")


def test_replaced_and_executed_again():
    events = Events().to_main().add("replaced", 700)
    second = Events().to_main()
    for at, tid, kind, cpu, a, b, c, d, e in second.rows:
        events.rows.append((at + 5000, tid, kind, cpu, a, b, c + 5000 * (kind == KINDS["exec"]), d, e))
    first, again = decoded(events)
    assert first.ended == "another execve" and again.ended == "still starting" and again.exec_ns == T0 + 5000


def again(events, at=5000):
    """The same once more, later: the process executed its file again."""
    rows = []
    for time_ns, tid, kind, cpu, a, b, c, d, e in events.rows:
        rows.append((time_ns + at, tid, kind, cpu, a, b, c + at * (kind == KINDS["exec"]), d, e))
    return rows


def test_a_program_that_executes_itself():
    """Its second start goes on after the first was handed out, and is over by itself."""
    events = Events().to_main().add("replaced", 5100)
    events.rows += again(Events().to_main().add("listen", 900))
    decoder = Decoder(Kinds(PROBE.header_kinds()), POINTS, FUNCTIONS, Until("listen"))
    array = events.array()
    found = []
    for part in np.split(array, [5, 20, len(array) - 4, len(array) - 2]):
        found += decoder.feed(part, T0 + 6000)
    found += decoder.feed(array[:0], T0 + 7000)
    assert [(start.ended, start.total_ns) for start in found] == [("executed itself", 5100), ("listen", 900)]
    assert decoder.close(T0 + 10_000) == []


def test_who_started_it_and_its_place_in_a_run():
    def started(pid, at, run_ns, by, name):
        events = Events(pid).begin()
        low, high = (int.from_bytes(name.ljust(16, b"\0")[i : i + 8], "little") for i in (0, 8))
        events.raw("starter", 100, pid | by << 32, run_ns, low, high)
        events.rows = again(events.add("exited", 500), at)
        return one(events)

    first = started(7, 0, 50, 1, b"sh")
    copy = started(8, 1000, 50, 7, b"a-rather-long-n")
    third = started(9, 2000, 60, 0, b"")
    assert [start.starter for start in (first, copy, third)] == [Starter(1, "sh"), Starter(7, "a-rather-long-n"), None]
    assert places([first, copy, third]) == [(0, 0), (0, 1), (1, 0)]
    assert by_place([first, copy, third]) == [[0, 2], [1]]
    assert starter_text(copy) == "by a-rather-long-n (pid 7)"
    # Of what older recordings hold each start is a run of its own, as it was counted then.
    assert by_place([dataclasses.replace(each, run_ns=0) for each in (first, copy, third)]) == [[0, 1, 2]]


def test_libraries():
    events = Events().begin(linker=True)
    events.add("linker_entry", 150, 0x7000).add("linker_state", 200, 0x7100)

    def opens(begin, end, path, result):
        events.add("open", end, T0 + begin, result)
        text = path.encode()
        for part, at in enumerate(range(0, len(text), 31)):
            chunk = text[at : at + 31].ljust(32, b"\0")
            events.raw("name", end, PID | part << 32, *(int.from_bytes(chunk[i : i + 8], "little") for i in (0, 8, 16, 24)))

    opens(210, 215, "/nowhere/libc.so.6", -2)
    opens(216, 220, "/etc/ld.so.cache", 3)
    events.add("map", 222, 3, 5000).add("close", 225, 3)
    opens(230, 232, "/first/tried/libc.so.6", -2)
    opens(233, 240, "/a/very/long/path/to/the/library/that/is/meant/libc.so.6", 3)
    events.add("map", 250, 3, 2 << 20).add("map", 255, 3, 1 << 20).add("close", 260, 3)
    events.add("linker_state", 300, 0x7104).add("entry", 330, 0x1000).add("step", 340, 0x5000)
    start = one(events, until=Until("main"))
    linker = [each for each in start.rows if each.stage == "dynamic linker" and each.depth == 1]
    assert [(each.name, each.begin_ns, each.detail) for each in linker] == [
        ("start-up", 150, ""),
        ("between libraries", 200, ""),
        ("libc.so.6, not found", 210, "1 failed attempt"),
        ("/etc/ld.so.cache", 216, "4.88 KiB mapped"),
        ("between libraries", 225, ""),
        ("/a/very/long/path/to/the/library/that/is/meant/libc.so.6", 230, "1 failed attempt, 2.00 MiB mapped"),
        ("relocation", 260, ""),
        ("constructors", 300, ""),
    ]
    assert row(start, "entry").begin_ns == 330
    points = {**POINTS, 0x1000: ("entry", "C start-up")}
    assert row(one(events, until=Until("main"), points=points), "C start-up").begin_ns == 330


def test_off_the_cpu():
    """The main thread until main.main, the whole process from then on."""
    events = Events().to_main()
    events.add("cpu_off", 410, 1).add("cpu_on", 440, T0 + 410, T0 + 430)
    events.add("cpu_on", 412, 0, T0 + 412, tid=78).add("cpu_off", 700, 1, tid=78)  # another thread: does not count yet
    events.add("cpu_off", 650, 0).add("cpu_on", 720, T0 + 650, T0 + 650)
    events.add("cpu_off", 730, 2).add("cpu_on", 760, T0 + 730, T0 + 750, tid=78)
    events.add("exited", 800, 0)
    start = one(events)
    first = row(start, "example.com/shop/db.init")
    assert (first.on_cpu_ns, first.runnable_ns, first.blocked_ns) == (20, 10, 20)
    # 700..720 the main thread waits for a CPU while the other sleeps, 730..760 nobody has one
    last = row(start, "to its end")
    assert (last.runnable_ns, last.blocked_ns) == (20, 30)


def test_throttled():
    """A CPU quota keeps it from going on, and then it waits for a CPU."""
    events = Events().to_main()
    events.add("cpu_off", 410, 0, 0, 1).add("cpu_on", 440, T0 + 410, T0 + 410, 25)
    events.add("cpu_off", 460, 1).add("cpu_on", 480, T0 + 460, T0 + 470, 4)
    events.add("cpu_off", 700, 0, 0, 1).add("exited", 800, 0)
    start = one(events)
    first, second = row(start, "example.com/shop/db.init"), row(start, "example.com/shop/db.init.0")
    assert (first.on_cpu_ns, first.throttled_ns, first.runnable_ns, first.blocked_ns) == (20, 25, 5, 0)
    assert (second.on_cpu_ns, second.throttled_ns, second.runnable_ns, second.blocked_ns) == (130, 4, 6, 10)
    assert row(start, "example.com/shop/db").throttled_ns == 29
    assert throttled_ns(start) == 129 and row(start, "to its end").throttled_ns == 100
    # of a process one thread that waits for a CPU says more than one that is throttled
    events.add("cpu_on", 690, 0, T0 + 690, tid=78).add("cpu_off", 720, 0, tid=78)
    assert row(one(events), "to its end").throttled_ns == 0


def test_recordings_from_before_0_2_do_not_know_of_quotas():
    told = PROBE.header_kinds()
    for name, columns in (("cpu_on", 4), ("cpu_off", 4), ("exec_wait", 4)):
        told[name] = {**told[name], "columns": told[name]["columns"][:columns]}
    del told["starter"]
    events = Events().to_main().add("cpu_off", 410, 0).add("cpu_on", 440, T0 + 410, T0 + 410).add("exited", 800, 0)
    decoder = Decoder(Kinds(told), POINTS, FUNCTIONS, TO_EXIT)
    (start,) = decoder.feed(events.array()) + decoder.close(T0 + 10_000)
    assert all(each.throttled_ns is None for each in start.rows) and throttled_ns(start) is None
    assert row(start, "example.com/shop/db.init").runnable_ns == 30


def test_heap_of_a_row_with_a_later_collection():
    """Every collection takes from the live heap, not only the first."""
    events = Events().to_main().add("exited", 1000, 0)
    events.add("gc_begin", 315, 0, 1 << 20).raw("gc_clock", 320, PID).add("gc_end", 320, 30, 1 << 19)
    assert row(one(events), "example.com/shop/db").heap_bytes == 128 << 10
    events.add("gc_end", 500, 0, 1 << 19)
    assert row(one(events), "example.com/shop/db.init.0").heap_bytes is None
    assert row(one(events), "example.com/shop/db").heap_bytes is None  # a part of it is not known
    assert one(events).gc.end_ns == 320


def test_absence_without_an_end():
    events = Events().to_main().add("cpu_off", 410, 0).add("exited", 800, 0)
    start = one(events)
    assert row(start, "example.com/shop/db.init").runnable_ns == 40  # until the next function begins
    assert "the end of 1 off-CPU period:" in start.notes[0]


def test_thread_that_leaves_at_a_breakpoint():
    """It was at the boundary when it left, though the boundary's own time is later."""
    events = Events().to_main()
    events.add("cpu_off", 380, 0, 0x6001).add("cpu_on", 399, T0 + 380, T0 + 380).add("exited", 800, 0)
    start = one(events)
    assert row(start, "example.com/shop/db").begin_ns == 380
    assert row(start, "example.com/shop/db").runnable_ns == 19 and row(start, "gcenable").runnable_ns == 0
    events = Events().to_main()
    events.add("cpu_off", 380, 0, 0x9999).add("cpu_on", 399, T0 + 380, T0 + 380).add("exited", 800, 0)
    assert row(one(events), "example.com/shop/db").begin_ns == 400


def test_low_detail():
    points = {at: point for at, point in POINTS.items() if point[1] not in ("runtime.rt0_go", "runtime.schedinit")}
    start = one(Events().to_main().add("exited", 800, 0), points=points)
    assert "not broken down (low detail)" in names(start) and "mallocinit" not in names(start)


def test_packages():
    assert package_of("example.com/a.b/c.init.0") == "example.com/a.b/c"
    assert package_of("gopkg.in/yaml%2ev3.init") == "gopkg.in/yaml%2ev3"
    assert package_of("runtime.init.5") == "runtime"


times = st.lists(st.integers(101, 2000), max_size=30)
kinds = st.sampled_from(
    ["step", "init", "cpu_off", "cpu_on", "listen", "accept", "gc_begin", "gc_end", "open", "close", "entry"]
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            kinds,
            st.integers(101, 2000),
            st.sampled_from([*POINTS, 0, 1, 1 << 32, (1 << 32) + 1]),
            st.sampled_from([0, 0xA0, 0x6001, 5]),
            st.sampled_from([PID, 78, 79]),
        ),
        max_size=40,
    )
)
def test_rows_add_up_whatever_comes(rows):
    events = Events().begin()
    for kind, at, c, d, tid in rows:
        events.add(kind, at, c, T0 + at if kind == "cpu_on" else d, tid=tid)
    start = one(events.add("exited", 2100, 0))
    whole = [each for each in start.rows if each.depth == 0 and each.stage != "before exec"]
    assert start.total_ns == 2100 and sum(each.duration_ns for each in whole) + start.unattributed_ns == 2100
    assert start.unattributed_ns == 0
    assert all(min(each.duration_ns, each.on_cpu_ns, each.runnable_ns, each.blocked_ns) >= 0 for each in start.rows)
    for stage in whole:
        for rows_ in (merged(start), folded(start)):
            parts = [each for each in rows_ if each.stage == stage.stage and each.depth == 1]
            of_stage = [each for each in rows_ if each.stage == stage.stage and each.depth == 0]
            assert sum(each.duration_ns for each in parts) == sum(each.duration_ns for each in of_stage)


def starts_of(*totals):
    base = one(Events().to_main(), until=Until("main"))
    scaled = []
    for total in totals:
        rows = [dataclasses.replace(each, duration_ns=round(each.duration_ns * total / 640)) for each in base.rows]
        scaled.append(Start(PID, T0, total, "main.main", tuple(rows)))
    return scaled


@pytest.mark.parametrize("count", [1, 2, 5, 8, 20])
def test_medians_and_percentiles_are_those_of_others(count):
    """In the table, the page and JSON; percentiles as everywhere in gotrace."""
    rng = np.random.default_rng(count)
    totals = rng.integers(10_000_000, 90_000_000, count).tolist()
    starts = starts_of(*totals)
    took = {name: [row(start, name).duration_ns for start in starts] for name in ("args", "gcenable")}
    (found,) = summaries(starts)
    parts = {part.name: part for part in found.parts}
    assert parts["total"].median == statistics.median(totals) == np.median(totals)
    record = {part["name"]: part for part in summary_record([found], {})["parts"]}
    for name, durations in took.items():
        median = statistics.median(durations)
        assert parts[name].median == median and record[name]["median_ns"] == round(median)
        hdr = HdrHistogram(1, 3_600_000_000_000, 3)
        for duration in durations:
            hdr.record_value(duration)
        for wanted in (90, 99):
            expected = min(hdr.get_value_at_percentile(wanted), max(durations))
            assert record[name][f"p{wanted}_ns"] == expected
        lines = [line for part in many_starts(starts, found, True) if isinstance(part, Rows) for line in part.lines(None)]
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert re.split(r"  +", line.strip())[1] == duration_text(median)
        p90 = min(hdr.get_value_at_percentile(90), max(durations))
        high = f"… {duration_text(parts[name].high)}" if count >= ENOUGH else " ?"
        assert f"{high} {duration_text(p90):>9} " in line
        cell = re.search(rf">{name}</th>(?:<td.*?</td>){{3}}", html(starts, "t"))
        assert duration_text(median) in re.findall(r">([^<]*)</td>", cell[0])[-1]


def test_many_starts():
    found = summary(starts_of(640, 650, 630, 645, 655, 6400))
    total = found.parts[0]
    assert (total.name, total.count, total.median) == ("total", 6, 647.5)
    assert total.low <= total.median <= total.high
    (outlier,) = found.outliers
    assert outlier.number == 5 and outlier.name == "example.com/shop/db"
    assert found.slow_first == 0
    assert summary(starts_of(2000, 640, 650)).slow_first == pytest.approx(2000 / 645)
    assert median_interval(np.array([5])) == (5.0, 5.0)


@pytest.mark.parametrize(("share", "throttled", "says"), [(0.9, 0, True), (0.1, 0, False), (0.9, None, False)])
def test_much_waiting_for_a_cpu_is_told(share, throttled, says):
    """Of a start whose quota is not told apart from that, nothing."""
    starts = [
        dataclasses.replace(
            start,
            rows=tuple(
                dataclasses.replace(each, runnable_ns=round(each.duration_ns * share), throttled_ns=throttled)
                for each in start.rows
            ),
        )
        for start in starts_of(*[64_000_000] * 3)
    ]
    (found,) = summaries(starts)
    told = [line for line in many_starts(starts, found, False) if "runnable" in str(line)]
    told += [line for line in one_start(starts[0], False, False) if isinstance(line, str) and "runnable" in line]
    expected = [
        f"{who} was runnable for 57.6 ms (90%): the CPUs were busy with other threads."
        for who in ("The median start", "It")
    ]
    assert told == expected * says


def test_changes():
    found = {(each.stage, each.name): each for each in changes(starts_of(*range(640, 660)), starts_of(*range(1280, 1300)))}
    total = found["", "total"]
    assert total.difference == 640 and total.certain and total.low > 600
    same = changes(starts_of(*range(640, 660)), starts_of(*range(640, 660)))
    assert not any(each.certain for each in same)
    few = changes(starts_of(*range(640, 644)), starts_of(*range(1280, 1300)))
    assert all(each.few and not each.certain for each in few)
    before = starts_of(640)
    gone = [dataclasses.replace(before[0], rows=tuple(each for each in before[0].rows if each.name != "args"))]
    (args,) = [each for each in changes(before, gone) if each.name == "args"]
    assert args.after is None and args.before == 10
    assert [each.name for each in changes(before, gone)].index("args") == [
        each.name for each in changes(before, before)
    ].index("args")


def test_few_starts_show_no_interval_and_no_change(capsys):
    """A start that took twice as long as one before it says nothing."""
    header = {"target": {"exe": "/shop", "exe_name": "/shop", "go_version": "go1.27.3"}, "coldstart": {"command": []}}
    for count, told in ((1, False), (4, False), (5, True)):
        sides = [starts_of(*range(total, total + count)) for total in (640_000, 1_280_000)]
        before, after = (Side(name, Result(header, starts, {})) for name, starts in zip("ab", sides, strict=True))
        write(Sink.screen(sys.stdout), "table", before, after, True)
        out = capsys.readouterr().out
        assert ("Fewer than 5 starts" in out, "too few starts" in out, "slower (+100%)" in out) == (
            not told,
            not told,
            told,
        )
        (found,) = summaries(sides[0])
        lines = [part for part in many_starts(sides[0], found, True) if isinstance(part, str)]
        assert any("needs 5 starts" in line for line in lines) != told


def test_thread_that_leaves_at_the_end_of_a_package():
    """By the runtime's own clock, which is read behind it, the package takes that long."""
    events = Events().to_main()
    events.add("cpu_off", 570, 2, 0x6001).add("cpu_on", 599, T0 + 570, T0 + 580).add("exited", 800, 0)
    assert row(one(events), "example.com/shop/db").duration_ns == 200
