"""What the agent exports: the families of its metrics, whose names and meanings are documented in docs/metrics.md.

Those under ``go.`` and ``process.`` are OpenTelemetry's semantic conventions, with exactly their meanings
(https://opentelemetry.io/docs/specs/semconv/runtime/go-metrics/); ours are under ``gotrace.``.
"""

from __future__ import annotations

from gotrace.export.metrics.model import Family

MEMORY_USED = Family(
    "go.memory.used",
    "gauge",
    "By",
    "Memory that the runtime has from the kernel, but for what it has returned: for stacks, and other.",
    ("go.memory.type",),
)
MEMORY_ALLOCATED = Family("go.memory.allocated", "counter", "By", "What was allocated on the heap.")
MEMORY_ALLOCATIONS = Family(
    "go.memory.allocations", "counter", "{allocation}", "Objects that were allocated on the heap, but for tiny ones."
)
GOROUTINES = Family("go.goroutine.count", "gauge", "{goroutine}", "Goroutines.")
SCHEDULE = Family(
    "go.schedule.duration",
    "histogram",
    "s",
    "How long goroutines were runnable before they ran: every eighth time, each as the longest that its bucket of the"
    " runtime's holds.",
)
GC_PAUSE = Family("go.memory.gc.pause.duration", "histogram", "s", "Stop-the-world pauses of the collector, in full.")
GC_CYCLES = Family("go.memory.gc.cycles", "counter", "{gc_cycle}", "Collections that have ended.")
GC_GOAL = Family("go.memory.gc.goal", "gauge", "By", "The heap's size at which the collection that ended last was to end.")
MEMORY_LIMIT = Family("go.memory.limit", "gauge", "By", "GOMEMLIMIT, where one is set.")
GOGC = Family("go.config.gogc", "gauge", "%", "GOGC; absent where it is off.")
PROCESSORS = Family("go.processor.limit", "gauge", "{thread}", "GOMAXPROCS.")
CPU_TIME = Family("process.cpu.time", "counter", "s", "CPU time of the process.", ("cpu.mode",))
MEMORY_USAGE = Family("process.memory.usage", "gauge", "By", "Resident memory (RSS).")
PAGING_FAULTS = Family("process.paging.faults", "counter", "{fault}", "Page faults.", ("system.paging.fault.type",))
UPTIME = Family("process.uptime", "gauge", "s", "How long the oldest process of the service has run.")

STW = Family(
    "gotrace.stw.duration",
    "histogram",
    "s",
    "Stops of the world, whatever for, by part: stopping and stopped, total, and "
    "restart, which is what comes after that until the world runs.",
    ("reason", "part"),
)
PHASE = Family("gotrace.gc.phase.duration", "histogram", "s", "Concurrent phases of a collection.", ("phase",))
ASSIST = Family("gotrace.gc.assist.time", "counter", "s", "CPU time of goroutines that assisted with marking.")
TRIGGERS = Family("gotrace.gc.triggers", "counter", "{gc_cycle}", "Collections, by what began them.", ("trigger",))
HEAP_LIVE = Family("gotrace.heap.live", "gauge", "By", "What was live at the end of the last collection.")
ALLOCATED = Family("gotrace.heap.allocated", "counter", "By", "What was allocated between collections, up to the last.")
AMPLIFICATION = Family(
    "gotrace.memory.amplification", "gauge", "1", "Resident memory over what was live at the end of the last collection."
)
PROCESSES = Family("gotrace.processes", "gauge", "{process}", "Traced processes of the service.")
TARGET = Family("gotrace.target", "info", "", "A traced process.", ("exe", "build.id", "go.version", "container.id"))
LOST = Family("gotrace.events.lost", "counter", "{event}", "Events that did not fit into the ring, or could not be read.")
OVERHEAD = Family("gotrace.target.overhead", "counter", "s", "What tracing cost the service: hits times what a hit costs.")

SCANNED = Family(
    "gotrace.agent.processes", "gauge", "{process}", "Go processes of the host, by why they are traced or not.", ("state",)
)
ATTACHES = Family("gotrace.agent.attaches", "counter", "{process}", "Processes that tracing began for.")
DETACHES = Family("gotrace.agent.detaches", "counter", "{process}", "Processes that tracing ended for.", ("reason",))
FAILURES = Family("gotrace.agent.attach.failures", "counter", "{process}", "Processes that could not be traced.")
LEFT_OUT = Family("gotrace.agent.hits.left_out", "counter", "{hit}", "Hits whose program the kernel did not run.")
RING_FILL = Family("gotrace.agent.ring.fill", "gauge", "1", "How full the ring of events was when it was read last.")
AGENT_CPU = Family("gotrace.agent.cpu.time", "counter", "s", "The agent's own CPU time.")
AGENT_RSS = Family("gotrace.agent.memory.usage", "gauge", "By", "The agent's own resident memory.")
SERIES = Family("gotrace.agent.series", "gauge", "{series}", "Series that are exported.")
BEYOND = Family("gotrace.agent.series.beyond", "counter", "{series}", "Requests for series there was no room for.")
SPOOL_FAILURES = Family("gotrace.agent.spool.failures", "counter", "{record}", "What the spool had no room for.")
EXPLANATIONS = Family(
    "gotrace.agent.explanations", "counter", "{pause}", "Long pauses, by what became of their evidence.", ("outcome",)
)
OTLP_SENT = Family("gotrace.agent.otlp.sent", "counter", "{request}", "Requests that the collector took.")
OTLP_FAILED = Family("gotrace.agent.otlp.failed", "counter", "{request}", "Requests that it did not; the next has it all.")
OTLP_REJECTED = Family("gotrace.agent.otlp.rejected", "counter", "{point}", "Points that the collector refused.")
KUBELET_UP = Family("gotrace.agent.kubelet.up", "gauge", "", "Whether the last question for the node's pods was answered.")
KUBELET_ERRORS = Family(
    "gotrace.agent.kubelet.errors", "counter", "{request}", "Questions for the node's pods without an answer.", ("reason",)
)
# Named as Prometheus names its own.
RELOADED = Family(
    "gotrace.agent.config.last_reload_successful", "gauge", "", "Whether the last attempt to read the settings succeeded."
)
RELOADED_AT = Family(
    "gotrace.agent.config.last_reload_success_timestamp", "gauge", "s", "When the settings were last read, since 1970."
)
BUILD = Family("gotrace.build", "info", "", "The agent itself.", ("version", "kernel"))

ALL = [each for each in list(globals().values()) if isinstance(each, Family)]
