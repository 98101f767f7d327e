"""What samples and counters of a scheduler come to."""

from __future__ import annotations

import pytest

from gotrace.analysis.scheduling import (
    P,
    Sample,
    Samples,
    Totals,
    advice,
    bounds,
    slices_between,
    waits_between,
)

MS = 1_000_000


def totals(waits, beyond=0, slices=()):
    return Totals(0, waits, beyond, None, 0, list(slices), 1, 0, 0, 0)


def test_bounds():
    """runtime/histogram.go: timeHistBucketsIdx of since Go 1.20, and of before."""
    new = bounds(160).tolist()
    assert new[:10] == [0, 64, 128, 192, 256, 320, 384, 448, 512, 640] and len(new) == 161
    assert new[-1] == 1 << 47 and all(below < above for below, above in zip(new, new[1:], strict=False))
    old = bounds(720).tolist()
    assert old[:20] == [*range(20)] and old[32:35] == [32, 34, 36] and len(old) == 721 and old[-1] == 1 << 48
    with pytest.raises(ValueError, match="161"):
        bounds(161)


def test_waits():
    before, after = [0] * 160, [0] * 160
    before[0], after[0] = 5, 105  # returns from system calls
    before[4], after[4] = 7, 106  # 256 ns to 320 ns
    after[40] = 1
    edges = bounds(160)
    found = waits_between(totals(before, 1), totals(after, 1), True)
    assert (found.samples, found.calls, found.beyond) == (100, 100, 0)
    assert found.percentiles((50, 99, 99.9, 100)) == [320, 320, edges[41], edges[41]]
    assert found.sum_ns() == 99 * 288 + (edges[40] + edges[41]) // 2
    assert found.buckets() == [(256, 320, 99), (edges[40], edges[41], 1)]
    found = waits_between(totals(before, 1), totals(after, 3), False)
    assert (found.samples, found.calls, found.beyond) == (202, 0, 2)
    assert found.percentiles((49,)) == [64] and found.buckets()[-1] == (1 << 47, None, 2)
    assert found.percentiles((100,)) == [1 << 47]


def test_slices_of_32_bits():
    before = totals([], slices=[(0, 0xFFFFFFFE), (1, 7)])
    after = totals([], slices=[[0, 3], [1, 7], [2, 4]])  # as JSON has it
    assert slices_between(before, after) == {0: 5, 1: 0, 2: 4}


def sample(at_ns, ps, *, shared=0, idle=0, stopping=False):
    return Sample(at_ns, tuple(P(*p) for p in ps), shared, idle, 1, 2, stopping)


def test_samples_stand_for_the_time_before_them():
    """They come late where the machine is busy."""
    samples = Samples({0: 0, 1: 0, 2: 1}, 1000)
    samples.add(sample(1100, [(0, 1, 3, 70, 0), (1, 0, 0, 0, -1)], shared=1, idle=1))
    samples.add(sample(1400, [(0, 1, 0, 70, 1), (1, 1, 1, 71, 2)]))
    samples.add(sample(1500, [(0, 3, 0, 72, 2), (1, 1, 0, 71, 2)], shared=2, stopping=True))
    assert (samples.count, samples.time_ns) == (3, 500)
    assert samples.local_queue_ns == 100 * 3 + 300 * 1 and samples.global_queue_ns == 100 * 1 + 100 * 2
    assert samples.most_queued == 4 and (samples.spinning_ns, samples.idle_ns) == (500, 1000)
    assert samples.statuses_ns == {"idle": 100, "running": 100 + 600 + 100, "syscall": 0, "stopped": 100}
    assert samples.while_queued() == {"p_idle": 400 / 900, "ps_taken": 300 / 900, "world_stopped": 200 / 900}
    first, second = samples.ps.values()
    assert first.moves == (1, 2, 1) and second.moves == (0, 0, 0) and samples.moves() == (1, 2, 1)
    assert first.cpus_ns == {0: 100, 1: 300, 2: 100} and second.cpus_ns == {2: 400}
    assert (first.running_ns, first.time_ns, first.queued_ns, first.most_queued) == (400, 500, 300, 3)
    # The next ones go on where these end, a P that was nowhere meanwhile too.
    later = samples.next()
    later.add(sample(1700, [(0, 1, 0, 72, 2), (1, 1, 0, 73, 1)]))
    assert later.time_ns == 200 and later.moves() == (1, 1, 1)


def test_a_sample_of_json():
    one = sample(5, [(0, 1, 3, 70, 0)], shared=1)
    assert Sample.of([5, [[0, 1, 3, 70, 0]], 1, 0, 1, 2, False]) == one and one.queued == 4


RECORD = {
    "length_ns": 1000 * MS,
    "limits": {
        "gomaxprocs": 2,
        "cpus": [0, 1],
        "cores": 2,
        "capacities": [1024],
        "quota_cpus": None,
        "throttled_ns": 0,
        "throttled_periods": 0,
        "periods": 0,
    },
    "threads": {"ran_ns": 1900 * MS, "waited_ns": 20 * MS},
    "cpus": {"others_ns": 50 * MS, "stolen_ns": 0, "idle_ns": 50 * MS},
    "queue": {"local": 0.1, "global": 0.0},
    "while_queued": {"ps_taken": 1.0},
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"limits": {"gomaxprocs": 8}}, ["GOMAXPROCS is 8, but its threads may run on only 2 CPUs."]),
        ({"limits": {"cores": 1}}, ["Its 2 Ps share 1 core (SMT)."]),
        (
            {"limits": {"capacities": [446, 1024]}},
            ["Its CPUs differ in capacity (446 and 1024): the same work takes longer on some."],
        ),
        ({"limits": {"quota_cpus": 1.5, "periods": 10}}, []),  # two Ps are what there is for it
        ({"limits": {"quota_cpus": 1.0, "periods": 10}}, ["GOMAXPROCS is 2, but the quota is 1 CPUs"]),
        ({"queue": {"local": 3.0, "global": 0.0}}, ["Goroutines wait because every P is taken"]),
        ({"queue": {"local": 3.0, "global": 0.0}, "while_queued": {"ps_taken": 0.5, "p_idle": 0.5}}, []),
        ({"threads": {"ran_ns": 10 * MS, "waited_ns": 40 * MS}}, []),  # little
        # Who had the CPUs, as far as the others are excluded.
        ({"threads": {"waited_ns": 1000 * MS}}, ["they competed with each other"]),
        (
            {"threads": {"ran_ns": 900 * MS, "waited_ns": 800 * MS}, "cpus": {"others_ns": 1050 * MS}},
            ["47% of the time when its threads needed a CPU, they had none: other processes and the kernel used 1.05 CPUs"],
        ),
        (
            {"threads": {"ran_ns": 900 * MS, "waited_ns": 800 * MS}, "cpus": {"stolen_ns": 900 * MS}},
            ["the hypervisor took 0.90 CPUs"],
        ),
        ({"threads": {"ran_ns": 900 * MS, "waited_ns": 800 * MS}, "cpus": {"idle_ns": 1000 * MS}}, ["--events shows"]),
        (
            {
                "limits": {"throttled_ns": None, "quota_cpus": None},
                "threads": {"ran_ns": 900 * MS, "waited_ns": 800 * MS},
                "cpus": {"others_ns": 1050 * MS},
            },
            ["the reason is unknown"],
        ),
        (
            {  # used up: what the kernel counts of one CPU stands for two threads
                "limits": {"quota_cpus": 0.5, "throttled_ns": 300 * MS, "throttled_periods": 10, "periods": 10},
                "threads": {"ran_ns": 500 * MS, "waited_ns": 1000 * MS},
                "cpus": {"others_ns": 100 * MS, "idle_ns": 1400 * MS},
            },
            ["GOMAXPROCS is 2, but the quota is 0.5 CPUs", "the quota throttled them for 300 ms"],
        ),
        (
            {  # others of the group have used it up
                "limits": {"quota_cpus": 2.0, "throttled_ns": 600 * MS, "throttled_periods": 9, "periods": 10},
                "threads": {"ran_ns": 300 * MS, "waited_ns": 1000 * MS},
                "cpus": {"others_ns": 1400 * MS},
            },
            ["the quota throttled them for 600 ms"],
        ),
        (
            {  # both
                "limits": {"quota_cpus": 2.0, "throttled_ns": 200 * MS, "throttled_periods": 3, "periods": 10},
                "threads": {"ran_ns": 500 * MS, "waited_ns": 1000 * MS},
                "cpus": {"others_ns": 1400 * MS},
            },
            [
                "a quota throttled them for part of it (200 ms, summed over CPUs), other processes and the kernel "
                "used 1.40 CPUs"
            ],
        ),
        (
            {  # a quota that is far away
                "limits": {"quota_cpus": 2.0, "throttled_ns": 10 * MS, "throttled_periods": 1, "periods": 10},
                "threads": {"ran_ns": 500 * MS, "waited_ns": 1000 * MS},
                "cpus": {"others_ns": 1400 * MS},
            },
            ["other processes and the kernel used 1.40 CPUs"],
        ),
    ],
)
def test_advice(changed, words):
    record = {name: {**part, **changed.get(name, {})} if isinstance(part, dict) else part for name, part in RECORD.items()}
    if "while_queued" in changed:
        record["while_queued"] = changed["while_queued"]
    found = advice(record)
    assert len(found) == len(words), found
    for sentence, part in zip(found, words, strict=True):
        assert part in sentence
