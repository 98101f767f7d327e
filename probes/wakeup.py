"""How long single goroutines were runnable before they ran, and for how long they stay on a P.

Which probe sits where, and why there; both are instructions that the kernel emulates:

* the call of ``timeHistogram.record`` in ``casgstatus``: of every eighth change of a goroutine from waiting to run to
  running, with the time that the runtime is about to put into a bucket of /sched/latencies. The goroutine is the one that
  its thread has by then (m.curg). Up to Go 1.20 the function is inlined.
* the entry of ``execute``: a goroutine gets a P. Only those that come from another P than the last time are events.
* the entries of ``pidleput``, ``handoffp`` and ``startlockedm``, where a P is left without a goroutine, and of ``acquirep``
  (since Go 1.26 ``acquirepNoTrace``), where a thread takes one, perhaps to go on with a goroutine behind its system call.
  With ``execute`` they say who had the P that a goroutine had to wait for; of long waits it is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.analysis.who_had_p import ACQUIRED, HANDED_OVER, IDLE, LOCKED
from gotrace.probe import Kind, Plan, PlanBuilder, Probe, is_inlined

if TYPE_CHECKING:
    from gotrace.binary.code import Site
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

PROBE = Probe(
    stem="wakeup",
    summary="how long single goroutines wait for a P and stay on it",
    kinds=(
        # a goroutine runs, on that P, and had been runnable for so long; up to Go 1.25 0 as it returns from a system call
        Kind("ran", 0xB01, ("goid", "waited_ns", "p")),
        # a goroutine gets another P than before; it had run on that for so many turns, the first of them since_ns
        Kind("moved", 0xB02, ("goid", "since_ns", "turns", "from_p", "to_p")),
        # one of the last turns on the P that a goroutine got which had waited for long: of goroutine goid, which began in
        # the function at startpc, by thread tid; of none, if goid is 0: startpc is then ACQUIRED, and thread tid looks for
        # one, or why tid has left the P: IDLE, HANDED_OVER, LOCKED
        Kind("had_p", 0xB03, ("waiter", "goid", "startpc", "begin_ns", "end_ns")),
    ),
    config=("g_goid", "g_m", "g_startpc", "m_curg", "m_p", "p_id"),
    hits=(
        *("wakeup_kept", "wakeup_executes"),
        *("wakeup_p_idle", "wakeup_p_handed_over", "wakeup_p_for_locked", "wakeup_p_acquired"),
    ),
    constants={"IDLE": IDLE, "HANDED_OVER": HANDED_OVER, "LOCKED": LOCKED, "ACQUIRED": ACQUIRED},
    ring_bytes=8 << 20,
)

CHANGES, KEEPS, EXECUTE = "runtime.casgstatus", "runtime.(*timeHistogram).record", "runtime.execute"
WHO_HAD_A_P = "who had a P"
_LEFT = {
    "wakeup_p_idle": "runtime.pidleput",
    "wakeup_p_handed_over": "runtime.handoffp",
    "wakeup_p_for_locked": "runtime.startlockedm",
}
_FIELDS = ("g.goid", "g.m", "g.startpc", "m.curg", "m.p", "p.id")


def settings(_: Traceable) -> dict[str, int]:
    """None: all that the C text has to know is in the executable."""
    return {}


def kept_site(program: GoProgram) -> Site:
    """Where a wait goes into the runtime's histogram. Raises BinaryError."""
    from gotrace.binary import code
    from gotrace.errors import BinaryError

    calls = code.call_sites(program, CHANGES, KEEPS)
    if len(calls) != 1:
        raise BinaryError(f"{CHANGES} calls {KEEPS} {len(calls)} times: up to Go 1.20 it is inlined")
    return calls[0]


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe. Raises BinaryError where goroutines and Ps cannot be told apart."""
    from gotrace.binary import code
    from gotrace.binary.layout import layout_of

    build = PlanBuilder(program)
    layout = layout_of(program)
    for name in _FIELDS:
        struct, field = name.split(".")
        build.config[f"{struct}_{field}"] = layout.offset(f"runtime.{struct}", field)
    build.add("single waits", "wakeup_kept", lambda: [kept_site(program)])
    build.add("moves", "wakeup_executes", lambda: [code.entry_site(program, EXECUTE)])
    acquire = "runtime.acquirepNoTrace" if program.version >= (1, 26) else "runtime.acquirep"
    for c_program, symbol in {**_LEFT, "wakeup_p_acquired": acquire}.items():
        build.add(WHO_HAD_A_P, c_program, lambda symbol=symbol: [code.entry_site(program, symbol)])  # type: ignore[misc]
        if is_inlined(program, symbol) and program.pclntab.function(symbol) is not None:
            build.lacks(WHO_HAD_A_P, f"{symbol} may have been inlined by the compiler (PGO)")
    return build.plan({})
