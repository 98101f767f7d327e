"""Explanations from hand-made and from arbitrary events; real ones are in tests/integration/test_explain.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotrace.analysis import causes
from gotrace.analysis.pauses import PAUSE
from gotrace.analysis.stacks import USER, Frame
from gotrace.kernel.ring import wire_dtype
from gotrace.probes import tail

HEADER = {"probes": {"tail": {"kinds": tail.PROBE.header_kinds()}}}
NUMBERS = {kind.name: kind.number for kind in tail.PROBE.kinds}
STACKS = {1: ["runtime.memmove", "main.work"], 2: ["runtime.futex", "runtime.semasleep", "runtime.lock2"], 3: ["main.spin"]}
STOPPER, LATE, OTHER = 100, 101, 102
US, MS = 1_000, 1_000_000
BEGIN = 50 * MS


def event(time_ns, tid, kind, a=0, b=0, c=0, d=0, e=0, cpu=0):
    return (time_ns, tid, NUMBERS[kind], cpu, a, b, c, d, e)


def stack(number):
    """The events that carry a stack: its only address stands for the functions in STACKS."""
    return event(0, 0, "stack", number, 1 << 32, number)


def off(tid, begin, end, state=0, flags=0, wake=0, waker=0, at_stack=0):
    return event(end, tid, "off_cpu", begin, wake, state | flags << 16 | waker << 32, at_stack)


def explained(*events, stopping, total, lag=0, restart=None):
    """The one stop of ``events``, asked for at BEGIN by STOPPER; ``restart``: when it is asked to run again."""
    everything = [
        *(stack(number) for number in STACKS),
        event(BEGIN, STOPPER, "stop_asked", 7),
        *events,
        event(BEGIN + total + lag, STOPPER, "restart_done", BEGIN + (total if restart is None else restart), 1),
    ]
    pause = np.zeros(1, PAUSE)
    pause["start_ns"], pause["stopping_ns"], pause["stopped_ns"] = BEGIN, stopping, total - stopping
    pause["total_ns"], pause["restart_lag_ns"], pause["tid"] = total, lag, STOPPER
    frames = lambda addresses: [Frame(name, "", 0, "", USER) for address in addresses for name in STACKS[address]]  # noqa: E731
    explainer = tail.explainer(HEADER, frames, lambda address: "/data/index+0x1000" if address == 0x7000 else "", 10)
    explainer.feed(np.array(everything, wire_dtype()), pause)
    (told,) = explainer.longest()
    at = BEGIN
    for piece in told.pieces:
        assert piece.begin == at <= piece.end
        at = piece.end
    assert at == BEGIN + total + lag
    assert sum(told.classes().values()) == total + lag
    lengths = [sum(piece.length for piece in part) for part in (told.stopping, told.stopped, told.restart)]
    assert lengths == [stopping, total - stopping, lag]  # the same parts as the table's
    return told, causes.sentence(told, explainer)


def p_stopped(time_ns, tid, p=0, how=tail.STOPPED, sent=0, deliveries=0):
    return event(time_ns, tid, "p_stopped", p, how, sent, deliveries)


def test_a_healthy_stop():
    told, sentence = explained(
        event(BEGIN + 18 * US, LATE, "preempt_signal", BEGIN + 13 * US, 3),
        p_stopped(BEGIN + 60 * US, LATE),
        stopping=70 * US,
        total=90 * US,
    )
    assert told.cause == causes.HANDSHAKE and "nothing unusual" in sentence
    assert told.classes() == {causes.HANDSHAKE: 70 * US, causes.WORK: 20 * US}
    assert told.late == [(0, LATE, 60 * US)]


def test_code_that_cannot_be_preempted():
    told, sentence = explained(
        event(BEGIN + 18 * US, LATE, "preempt_signal", BEGIN + 13 * US, 1),
        p_stopped(BEGIN + 8 * MS, LATE, deliveries=40),
        stopping=8 * MS + 10 * US,
        total=9 * MS,
    )
    assert told.cause == causes.NO_PREEMPT
    assert sentence == f"thread {LATE} ran non-preemptible code for 7.98 ms: runtime.memmove < main.work"


def test_later_signals_tell_what_followed():
    told, sentence = explained(
        event(BEGIN + 18 * US, LATE, "preempt_signal", BEGIN + 13 * US, 3, 1),
        event(BEGIN + 200 * US, LATE, "preempt_signal", BEGIN + 190 * US, 1),
        # the copy's end, and then a system call
        event(BEGIN + 9 * MS, LATE, "preempt_signal", BEGIN + 5 * MS, 3, 1),
        p_stopped(BEGIN + 9 * MS + 10 * US, LATE, deliveries=40),
        stopping=9 * MS + 20 * US,
        total=9 * MS + 30 * US,
    )
    parts = [(piece.length // US, piece.kind, piece.about.stack) for piece in told.stopping[1:5]]
    assert parts == [
        *[(5, causes.HANDSHAKE, 3), (182, causes.NO_PREEMPT, 3)],
        *[(4800, causes.NO_PREEMPT, 1), (4000, causes.KERNEL, 3)],
    ]
    assert sentence == f"thread {LATE} ran non-preemptible code for 4.99 ms: runtime.memmove < main.work"


def test_user_code_that_the_signal_did_not_stop_is_not_accused():
    told, _ = explained(
        event(BEGIN + 18 * US, LATE, "preempt_signal", BEGIN + 13 * US, 3),
        p_stopped(BEGIN + 8 * MS, LATE, deliveries=1),
        stopping=8 * MS,
        total=8 * MS,
    )
    assert told.cause == causes.UNKNOWN


@pytest.mark.parametrize(
    ("in_syscall", "cause", "says"),
    [
        (1, causes.KERNEL, "was in the kernel for 6.99 ms, called by main.spin"),
        (0, causes.INTERRUPTED, "lost its CPU for 6.99 ms while running main.spin"),
    ],
)
def test_a_signal_that_waits_for_the_kernel(in_syscall, cause, says):
    told, sentence = explained(
        event(BEGIN + 7 * MS, LATE, "preempt_signal", BEGIN + 13 * US, 3, in_syscall),
        p_stopped(BEGIN + 7 * MS + 30 * US, LATE, deliveries=1),
        stopping=7 * MS + 50 * US,
        total=7 * MS + 60 * US,
    )
    assert told.cause == cause and says in sentence


@pytest.mark.parametrize(
    ("state", "flags", "cause"),
    [
        (0, 0, causes.CPU),
        (0x100, 0, causes.CPU),
        (0x100, tail.OFF_THROTTLED, causes.QUOTA),
        (4, 0, causes.STOPPED),
        (8, 0, causes.TRACED),
        (0x8000, 0, causes.FROZEN),
        (0x102, tail.OFF_IN_FAULT, causes.FAULT),
        (1, 0, causes.BLOCKED),
    ],
)
def test_off_the_cpu(state, flags, cause):
    told, _ = explained(
        off(LATE, BEGIN - 2 * MS, BEGIN + 9 * MS, state, flags),
        p_stopped(BEGIN + 9 * MS + 20 * US, LATE),
        stopping=9 * MS + 30 * US,
        total=9 * MS + 40 * US,
    )
    assert told.cause == cause
    assert told.classes()[cause] == 9 * MS


def test_a_p_is_followed_from_thread_to_thread():
    """LockOSThread: the locked thread leaves its P to a sleeping one, which waits for a CPU then."""
    told, _ = explained(
        p_stopped(BEGIN + 50 * US, LATE, 1, tail.HANDED_OFF),
        off(OTHER, BEGIN - 9 * MS, BEGIN + 6 * MS, 1, wake=BEGIN + 55 * US, waker=LATE),
        p_stopped(BEGIN + 6 * MS + 10 * US, OTHER, 1),
        stopping=6 * MS + 20 * US,
        total=6 * MS + 30 * US,
    )
    assert told.cause == causes.CPU
    assert {piece.tid for piece in told.stopping} == {LATE, OTHER, STOPPER}


def test_who_had_the_cpu():
    name = int.from_bytes(b"hog\0\0\0\0\0", "little")
    _, sentence = explained(
        event(BEGIN, 900, "task", name, 0, 899),
        event(BEGIN + 4 * MS, 900, "ran", BEGIN + MS),
        event(BEGIN + 5 * MS, OTHER, "ran", BEGIN + 4 * MS),
        off(LATE, BEGIN, BEGIN + 5 * MS),
        p_stopped(BEGIN + 5 * MS + 10 * US, LATE),
        stopping=5 * MS + 20 * US,
        total=5 * MS + 30 * US,
    )
    assert sentence == f"thread {LATE} was runnable and waited 5.00 ms for a CPU held by `hog` (pid 899)"


@pytest.mark.parametrize(("address", "place"), [(0x7F0000001000, "0x7f0000001000"), (0x7000, "/data/index+0x1000")])
def test_page_faults_one_after_the_other(address, place):
    told, sentence = explained(
        event(BEGIN + 18 * US, LATE, "preempt_signal", BEGIN + 13 * US, 1),
        event(BEGIN + 6 * MS, LATE, "faults", BEGIN + MS, BEGIN + 6 * MS, 2000, address),
        p_stopped(BEGIN + 6 * MS + 20 * US, LATE, deliveries=30),
        stopping=6 * MS + 30 * US,
        total=6 * MS + 40 * US,
    )
    assert told.cause == causes.FAULT and told.classes()[causes.FAULT] == 5 * MS
    assert (
        sentence == f"thread {LATE} spent 5.00 ms in page faults (2,000 faults) at {place}, in runtime.memmove < main.work"
    )


def test_a_restart_that_takes_long():
    told, _ = explained(off(STOPPER, BEGIN + 45 * US, BEGIN + 20 * MS), stopping=10 * US, total=40 * US, lag=21 * MS)
    assert told.cause == causes.CPU and told.stopping[0].kind != causes.CPU
    assert sum(piece.length for piece in told.restart) == 21 * MS


def test_waking_the_ps_is_part_of_a_total_that_includes_it():
    """The runtime's total of any stop but a mark termination ends after it."""
    told, _ = explained(
        off(STOPPER, BEGIN + 45 * US, BEGIN + 20 * MS, flags=tail.OFF_THROTTLED),
        off(OTHER, BEGIN - MS, BEGIN + 22 * MS, state=1, wake=BEGIN + 42 * US),
        stopping=10 * US,
        total=21 * MS,
        lag=8 * US,
        restart=40 * US,
    )
    assert told.cause == causes.QUOTA
    assert causes.class_sums(told.restart) == {causes.WORK: 8 * US}
    assert [tid for tid, _ in told.run_again] == [OTHER]  # it was woken before that end


moments = st.integers(BEGIN - 3 * MS, BEGIN + 12 * MS)
threads = st.sampled_from([STOPPER, LATE, OTHER])


@st.composite
def arbitrary(draw):
    time_ns, tid, number = draw(moments), draw(threads), draw(st.sampled_from([0, 1, 2, 3, 99]))
    kind = draw(st.sampled_from(["p_stopped", "off_cpu", "preempt_signal", "faults", "ran"]))
    early = draw(moments)
    if kind == "p_stopped":
        return p_stopped(time_ns, tid, draw(st.sampled_from([0, 1, causes.NO_P])), draw(st.integers(0, 1)), early, 3)
    if kind == "off_cpu":
        state = draw(st.sampled_from([0, 1, 2, 4, 8, 0x100, 0x102, 0x8000]))
        return off(tid, min(early, time_ns), time_ns, state, draw(st.integers(0, 15)), draw(moments), draw(threads), number)
    if kind == "preempt_signal":
        return event(time_ns, tid, kind, early, number, draw(st.integers(0, 1)))
    if kind == "faults":
        return event(time_ns, tid, kind, early, draw(moments), 3 | draw(st.integers(0, 3)) << 32, 1)
    return event(time_ns, tid, kind, early)


@given(st.lists(arbitrary(), max_size=30), st.integers(0, 5 * MS), st.integers(0, 5 * MS), st.integers(0, MS))
def test_whatever_is_seen_the_classes_add_up(events, stopping, stopped, lag):
    explained(*events, stopping=stopping, total=stopping + stopped, lag=lag)


def seen(time_ns, tid, at_stack, in_syscall):
    return event(time_ns, tid, "in_stop", at_stack, in_syscall)


@pytest.mark.parametrize(
    ("samples", "cause", "says"),
    [
        ((), causes.UNKNOWN, "is not explained by the evidence"),
        ((1, 1), causes.KERNEL, "was in the kernel for 39.9 ms, called by runtime.memmove < main.work"),
        ((0, 0), causes.NO_PREEMPT, "ran with its signals blocked for 39.9 ms: runtime.memmove < main.work"),
        ((1, 0), causes.UNKNOWN, "is not explained by the evidence"),
    ],
)
def test_a_signal_that_the_thread_has_blocked(samples, cause, says):
    """Then that it is pending proves nothing; where the thread was when it came is where the signals were unblocked."""
    told, sentence = explained(
        *(seen(BEGIN + (10 + number) * MS, LATE, 1, in_syscall) for number, in_syscall in enumerate(samples)),
        event(BEGIN + 40 * MS, LATE, "preempt_signal", BEGIN + 130 * US, 3, 1 | tail.SIGNAL_BLOCKED),
        p_stopped(BEGIN + 40 * MS + 30 * US, LATE, deliveries=1),
        stopping=40 * MS + 50 * US,
        total=40 * MS + 60 * US,
    )
    assert told.cause == cause and says in sentence


def test_where_a_long_system_call_was_made():
    """A thread seen in the kernel is named by where it was seen, not by where the signal reached it later."""
    _, sentence = explained(
        seen(BEGIN + 4 * MS, LATE, 1, 1),
        event(BEGIN + 7 * MS, LATE, "preempt_signal", BEGIN + 13 * US, 3, 1),
        p_stopped(BEGIN + 7 * MS + 30 * US, LATE, deliveries=1),
        stopping=7 * MS + 50 * US,
        total=7 * MS + 60 * US,
    )
    assert "called by runtime.memmove < main.work" in sentence


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("schedule", "rwsem_down_read_slowpath", "down_read", "lock_mm_and_find_vma", "do_user_addr_fault"), "mmap_lock"),
        (("io_schedule", "folio_wait_bit_common", "filemap_fault", "__do_fault", "handle_mm_fault"), "read from a file"),
        (("io_schedule", "folio_wait_bit_common", "do_swap_page", "handle_mm_fault"), "read from swap"),
        (("schedule_timeout", "shrink_node", "try_to_free_pages", "__alloc_pages_slowpath.constprop.0"), "reclaim"),
        (("schedule", "handle_userfault", "do_anonymous_page"), "userfaultfd"),
        (("schedule", "something_new", "handle_mm_fault"), "slept in something_new"),
        ((), "slept"),
    ],
)
def test_what_a_page_fault_slept_for(names, words):
    assert words in causes.fault_slept(names)
