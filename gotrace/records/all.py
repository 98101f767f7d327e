"""The JSON Schema of what each command prints with ``--format ndjson``, or of a fleet ``--format json``."""

from __future__ import annotations

from gotrace.records import (
    builds,
    contention,
    datapath,
    faults,
    fleet,
    gc,
    goroutines,
    gpumem,
    heap,
    heap_spans,
    memory,
    numa,
    ps,
    sched,
    starts,
    tlb,
    topo,
)
from gotrace.records.schema import Schema, json_schema

_WATCHED = (memory.Memory, memory.Cycle, faults.Faults, numa.Numa, numa.NumaInterval, tlb.Tlb, tlb.TlbInterval)
# command -> the records that it prints
RECORDS: dict[str, tuple[type, ...]] = {
    "gc": (gc.Start, gc.Stw, gc.Cycle, gc.Sweep, gc.Assist, gc.Explained, gc.InProgress, gc.Summary),
    "coldstart": (starts.ColdStart, starts.Summary, builds.GoBuild, builds.BuildSummary),
    "goroutines": (goroutines.Goroutines,),
    "gpumem": (gpumem.GpuMemoryInterval, gpumem.GpuMemory),
    "heap": (heap.Heap, heap_spans.HeapSpans),
    "contention": (contention.Contention,),
    "datapath": (datapath.DatapathCall, datapath.Datapath, datapath.DatapathLoad, datapath.DatapathReplay),
    "ps": (ps.PsProcess, ps.Ps),
    "sched": (sched.SchedInterval, sched.Sched, sched.SchedEvents, sched.SchedWakeups),
    "topo": (topo.Topology, topo.TopologyNodes, topo.TopologyDiff, topo.TopologySettings),
    "fleet show": (fleet.FleetShow,),
    "fleet choose": (fleet.FleetChoice,),
    "fleet trend": (fleet.FleetTrend,),
    **dict.fromkeys(("mem", "tlb", "numa"), _WATCHED),
}


def schema_of_command(name: str) -> Schema:
    """JSON Schema (2020-12) of one line; `--format json` is an array of the same objects (of a fleet, the only one)."""
    form = "one object" if name.startswith("fleet ") else "one object a line"
    return json_schema(f"gotrace {name}, {form}", RECORDS[name])
