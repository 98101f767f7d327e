"""The spool: exact buckets of each window, within a bound, whatever happens to the disk or the process."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from gotrace.agent.families import STW
from gotrace.agent.spool import MOST_BYTES, SCHEMA, WORST, Spool, Window, check, records_in, segments_of
from gotrace.errors import GotraceError

BEGIN_NS, MINUTE_NS = 1_780_000_000_000_000_000, 60_000_000_000


def test_a_window_has_its_own_values_and_the_longest() -> None:
    rng = np.random.default_rng(3)
    window = Window(BEGIN_NS)
    for minute in range(2):
        parts = [rng.lognormal(11, 3, 5_000).astype(np.int64) for _ in range(3)]
        for part in parts:
            window.add(STW, ("GC mark termination", "total"), part)
            for number, length in enumerate(part.tolist()):
                window.note(length, BEGIN_NS + number, "GC mark termination", 7)
        told = window.ended(BEGIN_NS + (minute + 1) * MINUTE_NS)
        every = np.concatenate(parts)
        (histogram,) = told["histograms"]
        assert (told["begin_ns"], told["length_ns"]) == (BEGIN_NS + minute * MINUTE_NS, MINUTE_NS)
        assert histogram["labels"] == {"reason": "GC mark termination", "part": "total"}
        assert (histogram["count"], histogram["sum_ns"]) == (len(every), int(every.sum()))
        assert (histogram["min_ns"], histogram["max_ns"]) == (every.min(), every.max())
        assert (histogram["schema"], histogram["zeros"]) == (5, (every == 0).sum())
        indexes, counts = histogram["buckets"]
        assert len(indexes) > 160  # not joined, as those of a scrape are
        upper = 2.0 ** (np.array(indexes) / 32) * 1e9
        ours = np.cumsum(counts) + histogram["zeros"]
        theirs = np.searchsorted(np.sort(every), upper * (1 + 1e-12), side="right")
        assert (ours == theirs).all()
        assert [each["length_ns"] for each in told["worst"]] == sorted(every.tolist(), reverse=True)[:WORST]
    assert window.ended(BEGIN_NS)["histograms"] == []


def test_a_clock_that_is_set_changes_no_length() -> None:
    window, hour_ns = Window(5), 3600 * 10**9
    for minute, set_by_ns in enumerate((0, hour_ns, -hour_ns)):
        told = window.ended(5 + (minute + 1) * MINUTE_NS, BEGIN_NS + set_by_ns)
        assert (told["begin_ns"], told["length_ns"]) == (BEGIN_NS + set_by_ns + 5 + minute * MINUTE_NS, MINUTE_NS)


def test_it_stays_within_its_bound_and_loses_the_oldest(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), most_bytes=1 << 20)
    for number in range(3_000):
        spool.write([{"number": number, "text": "x" * 1_000}])
    spool.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 20
    numbers = [record["number"] for record in records_in(str(tmp_path))]
    assert numbers == list(range(numbers[0], 3_000)) and len(numbers) > 900
    assert spool.failures == 0


def test_what_was_cut_off_is_left_out_and_the_next_begins_anew(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    spool.write([{"number": 1}, {"number": 2}])
    spool.close()
    (segment,) = segments_of(str(tmp_path))
    Path(segment).write_bytes(Path(segment).read_bytes()[:-5])
    (tmp_path / "other.ndjson").write_text("not ours")
    again = Spool(str(tmp_path))
    again.write([{"number": 3}])
    again.close()
    assert list(records_in(str(tmp_path))) == [{"schema": SCHEMA, "number": number} for number in (1, 3)]
    assert MOST_BYTES == 100 << 20 and (tmp_path / "other.ndjson").exists()


def test_a_full_disk_is_counted_and_passes(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    spool.write([{"number": 1}])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        spool.write([{"text": "x" * 1_000}, {"number": 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert spool.failures == 2
    spool.write([{"number": 3}])
    spool.close()
    assert [json.dumps(record) for record in records_in(str(tmp_path))] == [
        json.dumps({"schema": SCHEMA, "number": number}) for number in (1, 3)
    ]
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(GotraceError, match="cannot write the spool"):
        Spool(str(file))


def test_a_clock_that_is_put_back_keeps_the_order(tmp_path: Path) -> None:
    """Who collects goes on behind the last segment that it knows, and the oldest are those that go."""
    later = tmp_path / "2500000000000000000.ndjson"
    later.write_bytes(b"")
    spool = Spool(str(tmp_path))
    spool.write([{"first": True}])
    assert [Path(each).name for each in segments_of(str(tmp_path))][0] == later.name
    assert [each["first"] for each in records_in(str(tmp_path))] == [True]


def test_two_agents_do_not_share_one(tmp_path: Path) -> None:
    """Each would remove what the other has begun."""
    first = Spool(str(tmp_path))
    with pytest.raises(GotraceError, match="another agent writes the spool"):
        Spool(str(tmp_path))
    check(str(tmp_path))  # as for a reload
    first.close()
    Spool(str(tmp_path)).close()
