"""Stop-the-world pauses and GC cycles, by the Go runtime's own clock.

Where the probes sit, and why there:

* ``startTheWorldWithSema``, entry (Go 1.22 and later). Its argument is the runtime's worldStop record: the reason, when
  stopping began and (1.23) when every P had stopped. One probe near the end gives ``now``, the time the runtime subtracts
  from: ``now - start`` is bit for bit what it adds to MemStats.PauseNs.
* ``timeHistogram.record`` calls in ``stopTheWorldWithSema`` (Go 1.22 only): their argument is the stopping time.
* ``stopTheWorldWithSema``, entry (up to Go 1.21, which hands no record over): the reason, and our own clock for stops
  that are no collections; a collection's start is ``work.pauseStart``.
* ``prepareFreeWorkbufs``, entry: called once per cycle right after the world runs again, when ``work`` holds exactly
  what GODEBUG=gctrace=1 prints.
* the last call of ``gopark`` in ``bgsweep``, by ``goparkunlock`` where nothing is inlined: the cycle's sweeping is done.

Every probe sits on an instruction the kernel emulates where there is one; see `gotrace.binary.code`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gotrace.probe import Kind, Plan, PlanBuilder, Probe, is_inlined

if TYPE_CHECKING:
    from collections.abc import Callable

    from gotrace.analysis.pauses import GcDecoder
    from gotrace.binary.code import Site
    from gotrace.binary.globals import Globals
    from gotrace.binary.layout import Layout
    from gotrace.binary.program import GoProgram
    from gotrace.probe import Traceable

FLAG_WORLDSTOP, FLAG_FORCEGC_GOROUTINE, FLAG_ASKED, FLAG_USER_FORCED = 1, 2, 4, 8

# The programs at the end of a restart: each stop ends in one of them.
RESTARTS = ("restart_end_slot", "restart_end_ret")

# Settings: offsets in gcController, in the order of `gotrace.binary.globals.PACING`, and addresses by their names there.
_PACING = ("gc_percent", "gc_memory_limit", "gc_heap_minimum", "gc_percent_goal", "gc_mapped_ready")
_COUNTED = ("returned_eager", "scavenge_assist", "limiter_cycle")

PROBE = Probe(
    stem="gc",
    summary="every stop-the-world pause and GC cycle",
    kinds=(
        # word: reason (8 bits), flags (8 bits), work.cycles (upper 32 bits); times are CLOCK_MONOTONIC ns
        Kind("stw", 0x101, ("word", "goid", "start_ns", "finish_ns", "now_ns")),
        # before an stw event of the same thread and time, up to Go 1.21; reason: string address | length << 48
        Kind("stw_work", 0x102, ("reason", "pause_start", "sweep_term", "mark_term", "end"), text="reason"),
        Kind("cycle_clock", 0x103, ("cycle", "sweep_term", "mark", "mark_term", "end")),
        Kind("cycle_heap", 0x104, ("cycle", "start_bytes", "end_bytes", "live_bytes", "goal_bytes")),
        Kind("cycle_work", 0x105, ("cycle", "pause_ns", "assist_ns", "maxprocs")),
        Kind("sweep_end", 0x106, ("cycle",)),
        # gcController's when the cycle has ended: the percentage has 32 bits, and the goal is what it gives the next cycle
        Kind("cycle_pacing", 0x107, ("cycle", "gc_percent", "memory_limit", "heap_minimum", "percent_goal")),
        # what counts towards the limit; of the process so far: what allocations returned to the kernel, how long that took
        # them, and the last cycle in which the limiter of the collector's CPU time came on
        Kind("cycle_limit", 0x108, ("cycle", "counted", "returned", "scavenge_assist_ns", "limiter_cycle")),
    ),
    config=(
        "work_cycles",
        "work_heaps",
        "work_user_forced",
        "gc_controller",
        "gc_last_heap_goal",
        "gc_assist_time",
        "has_pacing",
        *_PACING,
        *_COUNTED,
        "has_goid",
        "g_m",
        "m_curg",
        "m_preemptoff",
        "g_goid",
        "g_startpc",
        "forcegc_pc",
        "has_finish",
        "reason_is_string",
        "now_slot",
    ),
    hits=(
        *("stop_begin", "stop_recorded", "restart_begin", "restart_end_slot"),
        *("restart_end_ret", "cycle_end", "sweep_end"),
    ),
    books=True,
    constants={
        "FLAG_WORLDSTOP": FLAG_WORLDSTOP,
        "FLAG_FORCEGC_GOROUTINE": FLAG_FORCEGC_GOROUTINE,
        "FLAG_ASKED": FLAG_ASKED,
        "FLAG_USER_FORCED": FLAG_USER_FORCED,
        # offsets from &work.cycles, the same in every release and on both architectures (the heap sizes moved)
        "WORK_MAXPROCS": 8,
        "WORK_T_SWEEP_TERM": 16,
        "WORK_T_MARK": 24,
        "WORK_T_MARK_TERM": 32,
        "WORK_T_END": 40,
        "WORK_PAUSE_NS": 48,
        "WORK_PAUSE_START": 56,
        "WORK_HEAPS": 56,
    },
)


def _add_goroutine(build: PlanBuilder[GoProgram], layout: Layout) -> None:
    """Who stopped the world: offsets in g and m, and the goroutine that only ever starts periodic collections."""
    fields = {"g_m": ("g", "m"), "m_curg": ("m", "curg"), "g_goid": ("g", "goid"), "g_startpc": ("g", "startpc")}
    unknown = [name for struct, name in fields.values() if not layout.has(f"runtime.{struct}", name)]
    if unknown:
        build.lacks("goid", f"the offset of {', '.join(unknown)} in {build.program.go_version} is unknown")
        return
    for setting, (struct, name) in fields.items():
        build.config[setting] = layout.offset(f"runtime.{struct}", name)
    build.config["has_goid"] = 1
    helper = build.program.pclntab.function("runtime.forcegchelper")
    if helper is not None:
        build.config["forcegc_pc"] = helper.entry


def _add_cycle(build: PlanBuilder[GoProgram], found: Globals) -> None:
    """The summary of each cycle, from the runtime's globals."""
    from gotrace.binary import code

    for name, reason in found.missing.items():
        build.lacks(name, reason)
    if found.work_cycles is not None:
        build.config["work_cycles"] = found.work_cycles
        build.config["work_heaps"] = found.work_heaps
        if found.work_user_forced is not None:
            build.config["work_user_forced"] = found.work_user_forced
        if found.gc_controller is not None:
            build.config["gc_controller"] = found.gc_controller
            build.config["gc_last_heap_goal"] = found.gc_last_heap_goal
            build.config["gc_assist_time"] = found.gc_assist_time
            if found.gc_pacing:
                build.config |= dict(zip(_PACING, found.gc_pacing, strict=True)) | {"has_pacing": 1}
        for name in _COUNTED:
            if (address := getattr(found, name)) is not None:
                build.config[name] = address
        build.add("cycle", "cycle_end", lambda: [code.entry_site(build.program, "runtime.prepareFreeWorkbufs")])
        build.add("sweep", "sweep_end", lambda: _parks(build.program)[-1:])


def _parks(program: GoProgram) -> list[Site]:
    """Where bgsweep goes to sleep: at its begin, and when every span has been swept."""
    from gotrace.binary import code

    found = [code.call_sites(program, "runtime.bgsweep", callee) for callee in ("runtime.gopark", "runtime.goparkunlock")]
    return next((sites for sites in found if sites), [])


def decoder(header: dict[str, Any], text: Callable[[int, int], str]) -> GcDecoder:
    """What turns the events of a session, live or recorded, into pauses and cycles.

    ``header`` is `Session.header`'s; ``text(address, length)`` gives what stands in the executable at a run-time address.
    """
    from gotrace.analysis.columns import Kinds
    from gotrace.analysis.pauses import GcDecoder, WireFormat

    facts = header["probes"]["gc"]["facts"]
    wire = WireFormat(
        Kinds.of_probe(header, "gc"),
        worldstop=FLAG_WORLDSTOP,
        forcegc_goroutine=FLAG_FORCEGC_GOROUTINE,
        asked=FLAG_ASKED,
        user_forced=FLAG_USER_FORCED,
    )
    return GcDecoder(
        wire,
        {int(number): words for number, words in facts["reasons"].items()},
        text,
        knows_forced=facts["knows_forced"],
        knows_goid=facts["knows_goid"],
        has_worldstop=facts["has_worldstop"],
        clock_offset_ns=header["clock"]["target_offset_ns"],
    )


def settings(_: Traceable) -> dict[str, int]:
    """None: all that the C text has to know is in the executable."""
    return {}


START, STOP = "runtime.startTheWorldWithSema", "runtime.stopTheWorldWithSema"


def _add_stops(build: PlanBuilder[GoProgram], layout: Layout) -> None:
    """Stops and restarts: what a stop leaves for its restart comes first, so that it is never missed by itself."""
    from gotrace.binary import code

    program = build.program
    inlined = program.version < (1, 23) and is_inlined(program, STOP)
    if program.version >= (1, 22):
        if program.version >= (1, 23):
            build.config["has_finish"] = 1
        else:
            recorded = "runtime.(*timeHistogram).record"
            build.add("stopping", "stop_recorded", lambda: code.call_sites(program, STOP, recorded))
            if inlined:
                build.lacks("stopping of some stops", f"{STOP} may have been inlined by the compiler (PGO)")
        build.add("restart begin", "restart_begin", lambda: [code.entry_site(program, START)])
    else:
        build.lacks("stopping", "Go 1.21 and older do not record when the world had stopped: pauses have only a total")
        if program.version < (1, 21):
            if layout.has("runtime.m", "preemptoff"):
                build.config["reason_is_string"] = 1
                build.config["m_preemptoff"] = layout.offset("runtime.m", "preemptoff")
            else:
                build.lacks("reason", "the offset of the reason is unknown in this Go version")
        if build.config.get("g_m") or program.version >= (1, 21):
            build.add("stop begin", "stop_begin", lambda: [code.entry_site(program, STOP)])
        if inlined:
            build.lacks("stops other than collections", f"{STOP} may have been inlined by the compiler (PGO)")
    slot, sites = restart_end(program)
    if slot is not None:
        build.config["now_slot"] = slot
        build.add("restart end", "restart_end_slot", lambda: sites)
    else:
        build.add("restart end", "restart_end_ret", lambda: sites)


def restart_end(program: GoProgram) -> tuple[int | None, list[Site]]:
    """Where startTheWorldWithSema has handed out every P: (the stack slot that holds its result there, the sites).

    amd64: the call of wakep, for a probe on RET is dear there. Otherwise every RET, without a slot.
    """
    from gotrace.binary import code

    slot = code.result_slot(program, START)
    wakep = code.call_sites(program, START, "runtime.wakep") if slot is not None else []
    return (slot, wakep) if len(wakep) == 1 else (None, code.ret_sites(program, START))


def plan(program: GoProgram) -> Plan:
    """Which instructions of ``program`` to probe and what the C text has to know about it. Raises BinaryError."""
    from gotrace.binary.globals import find_globals
    from gotrace.binary.layout import layout_of, stw_reasons
    from gotrace.binary.moduledata import NEWEST_KNOWN
    from gotrace.binary.scheduler import find_scheduler
    from gotrace.errors import BinaryError

    build = PlanBuilder(program)
    version = program.version
    layout = layout_of(program)
    _add_goroutine(build, layout)
    # In this order they are attached: a cycle is never seen without its pauses.
    _add_stops(build, layout)
    if version <= NEWEST_KNOWN:
        _add_cycle(build, find_globals(program, pacing=True))
    else:
        # A stop's numbers prove themselves (times that fit together), the fields of a cycle's summary do not.
        build.lacks("cycle", f"{program.go_version} is newer than this gotrace, which does not know its struct offsets")
    reasons = {str(number): words for number, words in stw_reasons(program).items()}
    addresses = ("work_cycles", "work_user_forced", "gc_controller", "forcegc_pc", *_COUNTED)
    facts = {
        "reasons": reasons,
        "knows_forced": "work_user_forced" in build.config,
        "knows_goid": "has_goid" in build.config,
        "has_worldstop": version >= (1, 22),
        "clock": "the runtime's own" if version >= (1, 22) else "the runtime's own for collections, the probe's for others",
    }
    try:
        facts["books"] = find_scheduler(program).to_json()
    except BinaryError as error:
        build.lacks("what has not ended", error.message)
    return build.plan(facts, addresses)
