"""Rules of advice on facts made by hand: what they say, what they leave alone, and intervals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotrace.advice.finding import MOST, Advice, Finding, Gain, advice, lines, rules
from gotrace.advice.running import (
    ALLOCATION,
    BACKGROUND,
    FREED,
    UNKNOWN,
    Caller,
    Hints,
    HugePages,
    Payer,
    Quota,
    Refilled,
    Returned,
)
from gotrace.advice.running import Seen as Running
from gotrace.advice.starts import Seen, exact, sampled
from gotrace.analysis import assists as analysed
from gotrace.analysis.assists import PAYER, Payers
from gotrace.analysis.columns import Kinds
from gotrace.analysis.gc_slices import CYCLES, HINTING, MARKING, REFAULTS, SLICE_NS, STOPPED, Slices
from gotrace.analysis.pacing import Pacing, Room
from gotrace.analysis.pauses import CYCLE, NO_LIMIT, PAUSE, SWEEP, Batch
from gotrace.analysis.pools import Pools
from gotrace.analysis.refaults import MEASURING_NS, Refaults, Taken
from gotrace.analysis.stacks import KERNEL, USER, Frame
from gotrace.analysis.start_code import (
    COLLECTOR,
    DATA,
    MEMORY,
    OWN,
    REGEXPS,
    Collector,
    Fault,
    StartCode,
    Touched,
    Work,
    beside,
    nearest,
    owner_of,
)
from gotrace.analysis.timeline import EXEC, LINKER, MAIN, PROGRAM, FirstGc, Row, Start
from gotrace.kernel.ring import wire_dtype
from gotrace.probes import coldstart, startcode
from gotrace.records.advice import advice_record

MS, MIB = 1_000_000, 1 << 20


def row(stage, name, depth, begin_ms, ms, **more):
    return dataclasses.replace(Row(stage, name, depth, begin_ms * MS, ms * MS, 0, 0, 0, 0, 0, throttled_ns=0), **more)


def start(*rows, total_ms=100, gc=None):
    return Start(pid=7, exec_ns=10**9, total_ns=total_ms * MS, ended="listen", rows=rows, listen_ns=total_ms * MS, gc=gc)


def code(owner, **samples):
    work = {(owner, kind.replace("_", " ")): Work(count) for kind, count in samples.items()}
    for each in work.values():
        each.places["/src/x/y/tables.go", 31] += each.samples
        each.callees["regexp.MustCompile"] += each.samples
    found = StartCode(work=work)
    found.samples[owner] = sum(samples.values())
    return found


def found_in(starts, codes=None, **facts):
    seen = Seen(starts, codes or [StartCode() for _ in starts], **facts)
    return {finding.rule: finding for finding in advice("coldstart", seen, ()).findings}


def test_every_rule_has_its_facts():
    for package in ("coldstart", "gc"):
        modules = list(rules(package))
        assert len(modules) >= 6
        for module in modules:
            claim, _, facts = module.__doc__.partition("\n\n")
            assert claim and "Needs" in facts and "gain" in facts, module.__name__


def test_what_an_init_does():
    one = start(row(MAIN, "x/y.init", 2, 10, 40))
    only = found_in([one], [code("x/y.init", regexps=30, own_code=10)])
    assert set(only) == {"regexps"}
    gain = only["regexps"].gain
    assert gain.value == pytest.approx(30 * MS) and gain.share == pytest.approx(0.3)
    assert "y/tables.go:31" in only["regexps"].title and "30.0 ms of 100 ms before listen" in only["regexps"].title
    # A wait is no part of it, unless a collection was under way.
    waited = start(row(MAIN, "x/y.init", 2, 10, 40, blocked_ns=20 * MS))
    assert found_in([waited], [code("x/y.init", regexps=40)])["regexps"].gain.value == pytest.approx(20 * MS)
    collected = dataclasses.replace(waited, gc=FirstGc(20 * MS, 20 * MS, 30 * MS, "heap"))
    assert found_in([collected], [code("x/y.init", regexps=40)])["regexps"].gain.value == pytest.approx(40 * MS)
    assert not found_in([one], [code("x/y.init", regexps=9)])  # too few samples


def test_main_main_pays_for_its_own_goroutine_only():
    """The time of main.main is the process's: what others do in it while it waits is not what it would save."""
    one = start(row(PROGRAM, "", 0, 50, 40))
    busy = code("main.main", own_code=8)
    assert found_in([one], [busy])["before listen"].gain.value == pytest.approx(40 * MS)
    busy.beside_main = 24
    found = found_in([one], [busy])["before listen"]
    assert found.gain.value == pytest.approx(10 * MS)
    assert found.evidence == ("8 of 32 samples in 1 start taken while main.main ran were below this line",)
    busy.beside_main = 192
    assert not found_in([one], [busy])


def test_time_on_several_cpus_counts_once():
    main = [(time, "main.main") for time in range(0, 1000, 100)]
    assert beside([], "main.main", 100) == beside(main, "main.main", 100) == 0
    workers = [(time + 40, "") for time in range(0, 2000, 100)]  # at first while main.main runs too, then alone
    assert beside(sorted(main + workers), "main.main", 100) == 10
    assert beside(sorted(workers + [(time + 7, "") for time, _ in workers]), "main.main", 100) == 20


def test_data_that_a_start_goes_through():
    one = start(row(MAIN, "x/y.init", 2, 10, 40))
    codes = [code("x/y.init", **{DATA: 30, OWN: 10}) for _ in range(2)]
    for each in codes:
        each.touched["x/y.init", ".noptrdata"] = Touched(8192, 3, 20 * MS)
        each.touched["x/y.init", ".rodata"] = Touched(10, 0, MS)
        each.touched["x/y.init", ""] = Touched(20_000, 0, 9 * MS)  # new memory
        each.touched[LINKER, ".data"] = Touched(9000, 0, MS)
    found = found_in([one, one], codes)
    assert set(found) == {"data"}
    assert found["data"].gain.value == pytest.approx(30 * MS)
    assert found["data"].title.startswith("x/y.init goes through the program's own data (y/tables.go:31): ")
    assert found["data"].evidence[1] == (
        "8,192 page faults in .noptrdata in one start, which took 20.0 ms from the beginning of each to its end; "
        "3 of the program's pages came from a disk"
    )
    memory = [code("x/y.init", memory=30, own_code=10)]
    memory[0].touched = codes[0].touched
    (only,) = found_in([one], memory).values()
    assert only.evidence[2].startswith("20,000 page faults in new memory in one start, which took 9.0")


def test_the_page_fault_that_a_sample_is_of():
    faults = [Fault(100, 200, ".data", 0), Fault(300, 400, "", 0), Fault(500, 600, ".rodata", 0)]
    expected = {50: ".data", 150: ".data", 240: ".data", 260: "", 400: "", 460: ".rodata", 900: ".rodata"}
    assert {at: nearest(faults, at) for at in expected} == expected
    assert nearest([], 5) == ""


def test_what_a_sample_did_with_memory():
    """In a page fault, what it faults on; in the allocator without one, new memory, whatever was touched before."""
    kinds = startcode.PROBE.header_kinds()
    number = {name: kind["number"] for name, kind in kinds.items()}
    probes = {
        "startcode": {"kinds": kinds, "points": [], "facts": {"sections": [[".data", 1000, 2000]]}},
        "coldstart": {"kinds": coldstart.PROBE.header_kinds(), "points": []},
    }
    user = {10: "runtime.mallocgc", 19: "x/y.init", 29: "runtime.doInit1", 40: "x/y.init"}
    collector = Collector(
        {"probes": probes},
        lambda at: [Frame(user[at], "/src/x/y/tables.go", 31, "", USER)],
        lambda addresses: [Frame("asm_exc_page_fault", "", 0, "", KERNEL) for _ in addresses],
        startcode.SAMPLE_NS,
    )
    stacks = {1: [10, 20, 30], 2: [40, 30, 0], 3: [5, 0, 0]}  # in the allocator, in the init, in the kernel's handler
    rows = [(0, 7, number["stack"], 0, at, sum(map(bool, of)) << 32, *of) for at, of in stacks.items()]
    rows += [(2 * 10**9, 7, number["start_fault"], 0, 7, 2 * 10**9 - 100, 1500, 0, 0)]
    samples = {(1, 0): MEMORY, (1, 3): DATA, (2, 3): DATA, (2, 0): OWN}
    for place, (stack, kernel) in enumerate(samples):
        rows.append((2 * 10**9 + place, 7, number["start_sample"], 0, 7, stack, kernel, 0, 0))
    collector.feed(np.array(rows, wire_dtype()))
    found = collector.of(start(row(MAIN, "x/y.init", 2, 10, 40), total_ms=2000))
    assert {kind: work.samples for (_, kind), work in found.work.items()} == {MEMORY: 1, DATA: 2, OWN: 1}
    assert found.touched["", ".data"].faults == 1 and found.faults == 1


def test_work_for_the_collector():
    one = start(row(MAIN, "x.init", 2, 10, 40), gc=FirstGc(20 * MS, 20 * MS, 30 * MS, "heap", heap_bytes=4 << 20))
    found = found_in([one], [code("x.init", **{COLLECTOR: 20, REGEXPS: 20})])
    assert found["collection"].gain.value == pytest.approx(20 * MS) and "4.00 MiB live" in found["collection"].evidence[1]
    without = dataclasses.replace(one, gc=None)
    assert "collection" not in found_in([without], [code("x.init", **{COLLECTOR: 20, REGEXPS: 20})])


def test_waits():
    waits = start(row(MAIN, "x.init.0", 2, 10, 40, blocked_ns=39 * MS))
    assert found_in([waits])["sleeps"].gain.value == 39 * MS
    works = start(row(MAIN, "x.init.0", 2, 10, 40, blocked_ns=25 * MS))
    assert not found_in([waits, works])  # of all starts
    reads = start(row(MAIN, "x.init.0", 2, 10, 40, blocked_ns=39 * MS, pages_read=3))
    assert not found_in([reads])


def test_a_quota_and_a_disk_in_a_start():
    throttled = start(row(EXEC, "", 0, 0, 100, throttled_ns=60 * MS))
    assert found_in([throttled])["quota"].gain.value == 60 * MS
    for procs, cpus, wanted in ((4, 1.5, "GOMAXPROCS=2"), (2, 1.5, ""), (4, None, ""), (None, 1.5, "")):
        mend = found_in([throttled], [StartCode(maxprocs=procs)], quotas=[cpus])["quota"].mend
        assert wanted in mend and ("GOMAXPROCS" in mend) == bool(wanted)
    unknown = start(row(EXEC, "", 0, 0, 100, throttled_ns=None))
    assert not found_in([unknown])
    disk = start(row(EXEC, "loading the program", 1, 0, 100, pages_read=40, blocked_ns=50 * MS))
    assert found_in([disk])["disk"].gain.value == 50 * MS


def test_a_linker_that_is_needed_is_left_alone():
    linked = start(row(LINKER, "", 0, 0, 20), row(LINKER, "/lib/libc.so.6", 1, 0, 20, detail="2.0 MiB mapped"))
    assert "libc.so.6" in found_in([linked], cgo=("net", "runtime/cgo"))["linker"].evidence[0]
    assert not found_in([linked], cgo=("github.com/mattn/go-sqlite3",))


@given(st.lists(st.integers(10**6, 10**8), min_size=2, max_size=12), st.integers(1, 400), st.integers(0, 400))
def test_intervals_hold_their_value(times, part, others):
    whole = part + others
    for gain in (exact(times, 1e9), sampled(times, part, whole, 1e9)):
        assert gain.low <= gain.high
        assert min(times) * (part / whole if "sample" in gain.basis else 1) * 0.3 - 1 <= gain.value <= max(times)
    assert exact(times, 1e9).low <= exact(times, 1e9).value <= exact(times, 1e9).high


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_intervals_hold_the_truth_as_often_as_they_say(share):
    rng, held = np.random.default_rng(3), 0
    for _ in range(200):
        times = rng.normal(20e6, 1e6, 10)
        whole = 1000
        gain = sampled(times, int(rng.binomial(whole, share)), whole, 1e8)
        held += gain.low <= share * 20e6 <= gain.high
    assert held >= 180


def test_who_a_stack_belongs_to():
    def frames(*names):
        return [Frame(name, f"/src/{name}.go", 5, "", "user") for name in names]

    init = frames("regexp.compile", "regexp.MustCompile", "x/y.init", "runtime.doInit1", "runtime.doInit", "runtime.main")
    owner, place, inner = owner_of(init)
    assert (owner, place) == ("x/y.init", ("/src/x/y.init.go", 5)) and inner[-1].function == "regexp.MustCompile"
    assert owner_of(frames("x.f", "main.main", "runtime.main"))[0] == "main.main"
    assert owner_of(frames("runtime.gcBgMarkWorker", "runtime.goexit"))[0] == ""


def test_only_the_largest_are_said_and_names_are_escaped():
    starts = [start(*(row(MAIN, f"x\x1b[{each}.init", 2, each, 10) for each in range(8)))]
    found = code("x\x1b[0.init", regexps=20)
    for each in range(1, 8):
        more = code(f"x\x1b[{each}.init", regexps=20)
        found.work |= more.work
        found.samples |= more.samples
    told = advice("coldstart", Seen(starts, [found]), ("a\x1b",))
    assert len(told.findings) == MOST and told.left_out == 3
    text = "\n".join(lines(told))
    assert "\x1b" not in text and "3 smaller findings left out" in text
    record = advice_record(told)
    assert len(record["advice"]["findings"]) == MOST and "cost" not in record["advice"]
    assert advice_record(None) == {}
    assert "nothing found. Checked: regexps" in next(lines(Advice((), 0, ("regexps",), ())))


# --- Processes at work

SECONDS = 8


def batch(pauses=0, pause_ns=0, trigger=0, cycles=0, mark_ns=0, maxprocs=4):
    """Of each slice so many of both."""
    times = np.arange(SECONDS * 4) * SLICE_NS + 1000
    made_pauses = np.zeros(len(times) * pauses, PAUSE)
    made_pauses["start_ns"], made_pauses["total_ns"], made_pauses["reason"] = np.repeat(times, pauses), pause_ns, 3
    made = np.zeros(len(times) * cycles, CYCLE)
    made["end_ns"], made["mark_ns"], made["trigger"], made["maxprocs"] = (
        np.repeat(times, cycles),
        mark_ns,
        trigger,
        maxprocs,
    )
    numbers = tuple(np.arange(len(each)) for each in (made_pauses, made, ()))
    return Batch(made_pauses, made, np.zeros(0, SWEEP), numbers)


def running(of, callers=(), quota=None, pacing=None):
    slices = Slices(0)
    slices.add(of, {3: "read mem stats"})
    return Running(SECONDS * 10**9, slices, pacing or Pacing(), callers, quota, "go1.24.1")


def of_running(seen):
    return {finding.rule: finding for finding in advice("gc", seen, ()).findings}


def test_stops_are_added_up_by_who_asked():
    callers = [Caller("read mem stats", "main.scrape", "/src/main.go", 12, 64, False)]
    found = of_running(running(batch(pauses=2, pause_ns=MS), callers))
    assert set(found) == {"memory statistics"}
    gain = found["memory statistics"].gain
    assert gain.value == pytest.approx(8 * MS) and gain.low == pytest.approx(gain.high)
    assert found["memory statistics"].title.startswith("main.scrape (src/main.go:12) calls runtime.ReadMemStats")
    assert not of_running(running(batch(pauses=1, pause_ns=MS // 20)))


def test_forced_collections_leave_room_for_those_that_would_come_anyway():
    seen = running(batch(cycles=1, trigger=2, mark_ns=10 * MS), [Caller("GC", "main.tidy", "main.go", 3, 32, True)])
    gain = of_running(seen)["forced collections"].gain
    assert gain.value == pytest.approx(40 * MS) and gain.low == 0  # how fast it allocates is not known
    assert not of_running(running(batch(cycles=1, trigger=0, mark_ns=10 * MS)))


def test_a_goal_that_the_runtime_moved_up_does_not_grow_with_gogc():
    """Of 1 MiB of room GOGC leaves a fifth: twice as much of it is no room more, twice the room takes ten times GOGC."""
    settings = {"gc_percent": 10, "memory_limit": NO_LIMIT, "heap_minimum": 4 * MIB // 10, "counted": 20 * MIB}
    pacing = Pacing(**settings, goals={"GOGC": Room(100, 100 * MIB, 800 * MIB)})
    seen = running(batch(cycles=1, mark_ns=200 * MS), pacing=pacing)
    assert "GOGC=20 raises that to 2.00 MiB" in of_running(seen)["goal"].mend  # as far as is known
    pacing.percent_cycles, pacing.percent_rooms = 100, 100 * MIB // 5
    assert "GOGC=100 raises that to 2.00 MiB, for 1.00 MiB more" in of_running(seen)["goal"].mend
    pacing.percent_rooms = 0
    assert "goal" not in of_running(seen)
    pacing.goals = {"minimum heap": Room(100, 100 * MIB, 25 * MIB)}
    assert "GOGC=60 raises that to 2.15 MiB, for 1.15 MiB more" in of_running(seen)["goal"].mend


def test_a_quota_that_gomaxprocs_exceeds():
    busy = batch(cycles=1, mark_ns=MS)
    found = of_running(running(busy, quota=Quota(1.5, 4 * 10**9)))["quota"]
    assert found.gain.value == pytest.approx(0.5e9) and found.gain.low == 0 and "GOMAXPROCS=2" in found.mend
    assert not of_running(running(batch(cycles=1, mark_ns=MS, maxprocs=2), quota=Quota(1.5, 4 * 10**9)))
    assert not of_running(running(busy, quota=Quota(None, 0)))
    assert not of_running(running(busy, quota=Quota(1.5, MS)))


def test_who_pays_for_assists():
    paid = {7: 4 * 10**8, 8: 8 * 10**8}
    payer = Payer("main.work", "/src/main.go", 9, ("5",), 40, 12 * 10**8, 6 * 10**8, paid)
    seen = dataclasses.replace(running(batch()), payers=[payer])
    assists = np.zeros(2, PAYER)
    assists["stack"], assists["begin_ns"], assists["end_ns"] = 5, 1000, [1000 + each for each in paid.values()]
    seen.slices.add_held(assists)
    found = of_running(seen)["assists"]
    assert found.gain.value == pytest.approx(1.5e8) and found.gain.share == pytest.approx(0.075)
    assert "hold up 2 goroutines, 7.5% of the time of each, on average" in found.title
    assert "for 50% of that time they were parked" in found.evidence[0] and found.evidence[1].startswith("goroutine 8 was")
    for changed in ({"count": 19}, {"held_ns": 7 * 10**8}, {"function": ""}, {"by_goroutine": {0: 1}}):
        assert not of_running(dataclasses.replace(seen, payers=[dataclasses.replace(payer, **changed)]))


def test_pools_that_collections_empty():
    columns = {
        "pool_dropped": {"number": 7, "columns": ["pool", "shared", "private"]},
        "pool_refill": {"number": 8, "columns": ["pool", "stack", "object_bytes", "private", "kept"]},
    }
    events = np.zeros(4, [("kind", "<u2"), ("time_ns", "<u8"), *((name, "<u8") for name in "abcde")])
    events["kind"], events["a"] = [7, 7, 8, 8], [5, 0, 5, 5]
    events["b"], events["c"], events["d"], events["e"] = [3, 0, 9, 9], [1, 0, 4096, 4096], [0, 0, 0, 1], [0, 0, 3, 2]
    pools = Pools(Kinds(columns))
    refills = pools.add(events)
    assert (pools.dropped, pools.collections, pools.most_kept, pools.unfinished) == ({5: 4}, {5: 1}, {5: 4}, 1)
    seen = running(batch(cycles=1, mark_ns=5 * MS), pacing=Pacing(allocated=10 * 4096, allocated_ns=10**9))
    seen.slices.add_refills(np.tile(refills, 20))  # of 4096 bytes each, half of them in reach of one P only
    pool = Refilled("x.get", "/src/x.go", 9, ("9",), 40, 40 * 4096, 44, 3, 4)
    found = of_running(dataclasses.replace(seen, pools=[pool]))["pools"]
    gain = found.gain
    assert (gain.unit, gain.value) == ("bytes/s", 40 * 4096 / SECONDS) and gain.low <= gain.value / 2
    assert gain.share == pytest.approx(0.5 * 0.02) and "50% of what is allocated" in found.title
    assert "40 of 4.0 KiB on average" in found.evidence[0] and "keep 4 objects (16.0 KiB)" in found.mend
    assert not of_running(dataclasses.replace(seen, pools=[dataclasses.replace(pool, count=19)]))
    seldom = dataclasses.replace(seen, pacing=Pacing(allocated=60 * 4096, allocated_ns=10**9))
    assert not of_running(dataclasses.replace(seldom, pools=[pool]))


REFAULTS_KINDS = {
    "returned": {"number": 7, "columns": ["stack", "bytes", "unfollowed"]},
    "refaults": {"number": 8, "columns": ["counts", "kept_ns", "lost_ns", "address", "stack"]},
    "hinting": {"number": 9, "columns": ["counts", "kept_ns", "lost_ns", "address", "moved"]},
}


def refaulted():
    """(what was added up, faults of returned memory, hinting faults) of events that tell of both, twice."""
    events = np.zeros(6, [("kind", "<u2"), ("cpu", "<u2"), ("time_ns", "<u8"), *((name, "<u8") for name in "abcde")])
    events["kind"], events["a"] = [7, 8, 9, 7, 8, 9], [5, 100, 200, 5, 100 | 2 << 32, 200]
    took = [4096, 40 * MS + 100 * MEASURING_NS, 50 * MS + 200 * MEASURING_NS]
    events["b"], events["c"], events["e"] = took * 2, [0, 0, 0, 4096, 3 * MS, 0], [0, 5, 3] * 2
    events["d"], events["cpu"], events["time_ns"] = 1 << 30, 1, 10**9
    seen = Refaults(Kinds(REFAULTS_KINDS))
    return seen, *(evenly(each) for each in seen.add(events))


def evenly(told):
    """The same faults, as if they had come over the whole time."""
    out = np.repeat(told[:1], SECONDS * 4)
    out["time_ns"], out["kept_ns"] = np.arange(len(out)) * SLICE_NS + 1000, told["kept_ns"].sum() / len(out)
    return out


def test_returned_memory_that_is_taken_again():
    added, refaults, _ = refaulted()
    taken = added.of[5]
    assert (added.returned, added.unfollowed, taken) == ({5: 8192}, 4096, Taken(200, 80 * MS, 2, 3 * MS))
    pages = HugePages(12, 3, 4, "madvise", "defer", "hg")
    returned = Returned(FREED, "main.free", "/src/main.go", 9, ("5",), 8192, taken)
    seen = dataclasses.replace(running(batch()), cpu_rate=0.1e9, returned=[returned], huge_pages=pages)
    seen.slices.add_faults(REFAULTS, refaults)
    found = of_running(seen)["returned memory"]
    assert found.gain.value == pytest.approx(10 * MS) and found.gain.share == pytest.approx(0.1)
    assert found.title.startswith("main.free (src/main.go:9) calls debug.FreeOSMemory, which returns memory")
    assert found.evidence[0].startswith("8.00 KiB returned in 8.0 s; 200 page faults took its pages again, in 400 us")
    assert found.evidence[1] == (
        "of 12 pages looked up soon after their fault, 3 lay in huge pages, and 4 where there may be some (MADV_HUGEPAGE); "
        "transparent huge pages: madvise, defrag: defer"
    )
    assert found.evidence[2] == "not counted: 3.00 ms in 2 more, in which the thread lost its CPU"
    for changed in ({"cpu_rate": 1e9}, {"cpu_rate": None}):
        assert not of_running(dataclasses.replace(seen, **changed))
    whose = {BACKGROUND: ("The background scavenger", ()), ALLOCATION: ("An allocation", ("memory limit",))}
    for who, (words, by) in {**whose, UNKNOWN: ("The runtime", ())}.items():
        other = dataclasses.replace(seen, returned=[dataclasses.replace(returned, who=who)], huge_pages=HugePages())
        told = of_running(other)["returned memory"]
        assert told.title.startswith(words) and told.by == by and len(told.evidence) == 2


def test_hinting_faults_on_one_node_and_on_several():
    added, _, hinting = refaulted()
    assert added.hinting == Taken(400, 100 * MS, moved=6)
    seen = dataclasses.replace(running(batch()), cpu_rate=0.1e9, hints=Hints(added.hinting, [0], np.array([[7, 0]])))
    seen.slices.add_faults(HINTING, hinting)
    one = of_running(seen)["hinting faults"]
    assert one.gain.value == pytest.approx(12.5 * MS) == one.gain.low and one.gain.share == pytest.approx(0.125)
    assert "one memory node" in one.evidence[1] and "numa_balancing=0" in one.mend
    two = dataclasses.replace(seen, hints=Hints(added.hinting, [0, 1], np.array([[5, 2, 1], [1, 4, 0]])))
    found = of_running(two)["hinting faults"]
    assert found.gain.low == 0 < found.gain.value and "numactl" in found.mend
    assert found.evidence[1:] == (
        "of 12 pages looked up, on another node than the thread: 1 on node 0, 2 on node 1",
        "balancing moved 6 pages in them",
    )
    still = dataclasses.replace(
        two, hints=Hints(dataclasses.replace(added.hinting, moved=0), [0, 1], np.zeros((2, 3), int))
    )
    assert of_running(still)["hinting faults"].gain.low > 0
    assert not of_running(dataclasses.replace(seen, cpu_rate=1e9))
    assert not of_running(dataclasses.replace(seen, hints=None))


def test_assists_are_part_of_what_makes_them(monkeypatch):
    """One cause is one finding, which does not push others out."""
    gain = Gain(1.0, 1.0, 1.0, "ns/s", 0.5, "")

    def finding(rule, share, by=()):
        return Finding(rule, f"{rule} {share}", ("seen",), dataclasses.replace(gain, share=share), "m", "c", "e", by)

    def told(*findings):
        monkeypatch.setattr("gotrace.advice.finding.rules", lambda _: [Rule(findings)])
        return advice("gc", None, ())

    class Rule:
        __name__ = "x.rule"

        def __init__(self, findings):
            self.find = lambda _: findings

    assists, goal = finding("assists", 0.5, ("memory limit", "goal")), finding("goal", 0.2)
    both = told(assists, goal, *(finding("quota", 0.1) for _ in range(MOST)))
    assert [(each.rule, each.part_of) for each in both.findings[:3]] == [("goal", ""), ("assists", "goal"), ("quota", "")]
    assert len(both.findings) == MOST + 1 and both.left_out == 1
    text = list(lines(both))
    assert text[1] == "  1. goal 0.2" and "     Because of it: assists 0.5. seen." in text and "  2. quota 0.1" in text
    assert [each["part_of"] for each in advice_record(both)["advice"]["findings"]][:2] == ["", "goal"]
    assert [each.part_of for each in told(assists).findings] == [""]


def test_goroutines_are_told_apart_up_to_a_number(monkeypatch):
    monkeypatch.setattr(analysed, "_MOST_PAYERS", 2)
    events = np.zeros(5, [("kind", "<u2"), *((name, "<u8") for name in "abcde")])
    events["kind"], events["a"], events["c"] = 7, [1, 2, 3, 1, 4], 10
    columns = ["goid", "begin_ns", "end_ns", "parked_ns", "stack"]
    payers = Payers(Kinds({"assist_by": {"number": 7, "columns": columns}}))
    assert len(payers.add(events)) == 5
    assert {key: paid.held_ns for key, paid in payers.paid.items()} == {(0, 1): 20, (0, 2): 10, (0, 0): 20}
    assert not len(Payers(Kinds({"assist": {"number": 7, "columns": columns}})).add(events))


def test_slices_have_what_was_added():
    slices = Slices(0)
    slices.add(batch(pauses=2, pause_ns=MS, cycles=1, trigger=2, mark_ns=5 * MS), {3: "x"})
    duration = SECONDS * 10**9
    assert slices.series(STOPPED, duration, "x").mean() == pytest.approx(8 * MS)
    assert slices.series(MARKING, duration).mean() == pytest.approx(20 * MS)
    assert slices.series(CYCLES, duration, "forced").mean() == pytest.approx(4)
    assert not slices.series(STOPPED, duration, "y").any()


def test_of_few_seconds_no_gain_has_an_interval():
    for seconds, known in ((4, False), (6, True)):
        slices = Slices(-2 * 10**9)  # quiet for two seconds
        slices.add(batch(pauses=2, pause_ns=MS), {3: "x"})
        gain = Running(seconds * 10**9, slices, Pacing(), (), None, "go1.24.1").rate(STOPPED)
        assert gain.low < gain.value < gain.high if known else gain.low == gain.value == gain.high > 0


def test_a_finding_is_data():
    gain = Gain(1.0, 1.0, 1.0, "ns", 0.5, "")
    assert dataclasses.asdict(Finding("r", "t", (), gain, "m", "c", "e"))["gain"]["unit"] == "ns"
