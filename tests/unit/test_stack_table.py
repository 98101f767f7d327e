"""Stacks put together from events: the caller that has no frame record, the goroutine that was left, lost parts."""

from __future__ import annotations

import numpy as np
import pytest

from gotrace.analysis.samples import NOT_KNOWN, Collector
from gotrace.analysis.stacks import (
    ENTERING,
    EXACT,
    FRAMELESS,
    HAS_CALLER,
    INLINED,
    KERNEL,
    NO_RECORD,
    USER,
    Frame,
    StackTable,
)
from gotrace.kernel.ring import wire_dtype

KIND = 7


def events(number, addresses, flags=0):
    padded = [*addresses, 0, 0]
    place = len(addresses) << 32 | flags
    rows = [(1, 1, KIND, 0, number, at | place, *padded[at : at + 3]) for at in range(0, len(addresses), 3)]
    return np.array(rows, wire_dtype())


def table(frames):
    """``frames``: address -> (name, kind) pairs, innermost first"""
    look_up = lambda addresses: [Frame(name, "", 0, "", kind) for each in addresses for name, kind in frames.get(each, [])]  # noqa: E731
    return StackTable([KIND], look_up)


def test_return_addresses_are_looked_up_one_byte_before():
    stacks = table({10: [("inner", USER)], 19: [("small", INLINED), ("middle", USER)], 29: [("main", USER)]})
    assert stacks.feed(events(1, [10, 20, 30])) == [1]
    assert stacks.names(1) == ["inner", "small", "middle", "main"]
    assert stacks.addresses(1) == (10, 19, 29)
    assert stacks.names(2) == [] and stacks.addresses(2) == ()


def test_exact_addresses():
    stacks = table({10: [("inner", USER)], 20: [("outer", USER)]})
    stacks.feed(events(1, [10, 20], EXACT))
    assert stacks.names(1) == ["inner", "outer"]


@pytest.mark.parametrize(
    ("kind", "certain", "put_in"),
    [
        (USER, False, False),
        (USER, True, False),
        (FRAMELESS, False, True),
        (FRAMELESS, True, True),
        (ENTERING, False, False),
        (ENTERING, True, True),
    ],
)
def test_the_caller_without_a_record(kind, certain, put_in):
    stacks = table({10: [("leaf", kind)], 49: [("caller", USER)], 19: [("main", USER)]})
    stacks.feed(events(1, [50 | (NO_RECORD if certain else 0), 10, 20], HAS_CALLER))
    assert stacks.names(1) == ["leaf", *(["caller"] if put_in else []), "main"]
    assert set(stacks.addresses(1)) == {10, 19, 49}


def test_a_caller_that_the_kernel_has_put_in_is_not_put_in_twice():
    stacks = table({10: [("f", FRAMELESS)], 19: [("caller", USER)], 29: [("main", USER)]})
    stacks.feed(events(1, [20, 10, 20, 30], HAS_CALLER))
    assert stacks.names(1) == ["f", "caller", "main"]
    stacks.feed(events(2, [0, 10, 30], HAS_CALLER))  # none
    assert stacks.names(2) == ["f", "main"]


def test_a_goroutine_that_was_left():
    frames = {address: [(name, USER)] for address, name in ((10, "futex"), (19, "runtime.mcall"), (29, "runtime.gopark"))}
    stacks = table(frames)
    stacks.feed(events(1, [10, 20, 30]))
    assert stacks.names(1) == ["futex", "runtime.mcall"]


def test_parts_in_any_order_and_parts_that_are_lost():
    addresses = list(range(100, 170, 10))
    stacks = table({address - (n > 0): [(str(n), USER)] for n, address in enumerate(addresses)})
    parts = events(1, addresses)
    assert stacks.feed(parts[1:]) == [] and stacks.names(1) == []
    assert stacks.feed(parts[:1]) == [1]
    assert stacks.names(1) == [str(n) for n in range(7)]


def test_weights_of_equal_stacks_are_added_up():
    frames = {
        1: [("work", USER)],
        (1 << 63) + 9: [("__traceiter_sched_switch", KERNEL)],
        (1 << 63) + 20: [("schedule", KERNEL)],
    }
    stacks = table(frames)
    stacks.feed(np.concatenate([events(5, [1]), events(6, [(1 << 63) + 9, (1 << 63) + 21])]))
    collector = Collector(stacks)
    none = np.zeros(0, np.uint64)
    collector.add(none, none, none.astype(np.int64))
    for user, kernel, weights in (([5, 5, 8], [6, 0, 0], [10, 1, 7]), ([5, 5], [6, 6], [20, 30])):
        collector.add(*(np.array(each, np.uint64) for each in (user, kernel)), np.array(weights, np.int64))
    profile = collector.profile("nanoseconds")
    stacks_told = [tuple(frame.function for frame in profile.stack(number)) for number in range(len(profile))]
    told = dict(zip(stacks_told, zip(profile.weights, profile.counts, strict=True), strict=True))
    # what the kernel does to look at a thread is not part of it
    assert told == {("work", "schedule"): (60, 3), ("work",): (1, 1), (NOT_KNOWN,): (7, 1)}
    within = collector.profile("nanoseconds", "schedule")
    assert len(within) == 1 and int(within.weights[0]) == 60
