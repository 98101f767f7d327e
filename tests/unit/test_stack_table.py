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


def test_a_frame_pointer_that_was_none_is_no_caller():
    """C has something else in that register: where there is no code the walk had ended before."""
    frames = {10: [("grind", USER)], 19: [("outer", USER)], 29: [("[unknown]", USER)], 39: [("[unknown]", USER)]}
    stacks = table(frames)
    stacks.feed(events(1, [10, 20, 30, 40]))
    stacks.feed(events(2, [30]))
    stacks.feed(events(3, [30, 20]))
    assert stacks.names(1) == ["grind", "outer"]
    frames[30] = [("[unknown]", USER)]  # all that is known of a stack stays
    assert stacks.names(2) == ["[unknown]"] and stacks.names(3) == ["[unknown]", "outer"]
    # what perf had no name for is for perf to tell
    stacks.feed(events(4, [10, 29], EXACT))
    assert stacks.names(4) == ["grind", "[unknown]"]


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


def test_a_goroutine_that_was_left_for_another_where_its_stack_was_to_grow():
    """Only if the thread has looked for another: otherwise it works on that one's behalf."""
    names = ((9, "runtime.findRunnable"), (19, "runtime.schedule"), (29, "runtime.morestack"), (39, "main.f"), (8, "copy"))
    stacks = table({address: [(name, USER)] for address, name in names})
    stacks.feed(events(1, [9, 20, 30, 40]))
    assert stacks.names(1) == ["runtime.findRunnable", "runtime.schedule", "runtime.morestack"]
    stacks.feed(events(2, [8, 30, 40]))
    assert stacks.names(2) == ["copy", "runtime.morestack", "main.f"]


def test_what_is_no_code_on_a_way_through_c_is_left_out():
    names = ((9, "main.called"), (19, "crosscall2"), (29, "[unknown]"), (39, "goCalled"), (49, "runtime.cgocall"))
    frames = {address: [(name, USER)] for address, name in names}
    stacks = table({**frames, 59: [("main.caller", USER)]})
    canary = 0xD1AB_5D3A_9F00_0000  # looks like the kernel's, which user code does not return to
    stacks.feed(events(1, [0, 9, 20, 30, canary, 40, 50, 60], HAS_CALLER))
    assert stacks.names(1) == ["main.called", "crosscall2", "goCalled", "runtime.cgocall", "main.caller"]
    assert canary - 1 not in stacks.addresses(1)
    stacks.feed(events(2, [0, 39, 30, 50], HAS_CALLER))  # it begins in C
    assert stacks.names(2) == ["goCalled", "runtime.cgocall"]
    in_go = lambda addresses: [Frame(frames[each][0][0], "main.go", 1, "", USER) for each in addresses]  # noqa: E731
    stacks = StackTable([KIND], in_go)
    stacks.feed(events(3, [0, 9, 30, 40], HAS_CALLER))
    assert stacks.names(3) == ["main.called", "[unknown]", "goCalled"]


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
