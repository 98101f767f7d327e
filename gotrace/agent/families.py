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
    "Memory obtained from the operating system and not returned to it: goroutine stacks, and everything else.",
    ("go.memory.type",),
)
# What the runtime's own books have of a process, as of their last reading (`books.EVERY_S`).
MEMORY_ALLOCATED = Family(
    "go.memory.allocated",
    "counter",
    "By",
    "Bytes allocated on the heap. Read every 10 s: what a process allocated after that, until it exited, is missing.",
)
MEMORY_ALLOCATIONS = Family(
    "go.memory.allocations",
    "counter",
    "{allocation}",
    "Heap objects allocated, excluding tiny ones. Read every 10 s: those after that, until a process exited, are missing.",
)
GOROUTINES = Family("go.goroutine.count", "gauge", "{goroutine}", "Live goroutines. Read every 10 s.")
SCHEDULE = Family(
    "go.schedule.duration",
    "histogram",
    "s",
    "Time goroutines were runnable before they ran: one wait in eight, at the upper bound of the runtime's bucket. "
    "Read every 10 s: waits after that, until a process exited, are missing.",
)
GC_PAUSE = Family(
    "go.memory.gc.pause.duration",
    "histogram",
    "s",
    "Stop-the-world pauses of the garbage collector, from the request to the restart.",
)
GC_CYCLES = Family("go.memory.gc.cycles", "counter", "{gc_cycle}", "Completed GC cycles.")
GC_GOAL = Family(
    "go.memory.gc.goal",
    "gauge",
    "By",
    "Heap goal of the last completed cycle; absent if there was none.",
)
MEMORY_LIMIT = Family(
    "go.memory.limit", "gauge", "By", "Current GOMEMLIMIT, the largest in the service; absent if none is set."
)
GOGC = Family("go.config.gogc", "gauge", "%", "Current GOGC, the largest in the service; absent if it is off.")
PROCESSORS = Family("go.processor.limit", "gauge", "{thread}", "GOMAXPROCS.")
CPU_TIME = Family("process.cpu.time", "counter", "s", "CPU time used by the process.", ("cpu.mode",))
MEMORY_USAGE = Family("process.memory.usage", "gauge", "By", "Resident memory (RSS).")
PAGING_FAULTS = Family("process.paging.faults", "counter", "{fault}", "Page faults.", ("system.paging.fault.type",))
UPTIME = Family("process.uptime", "gauge", "s", "Time since the oldest process of the service started.")

STW = Family(
    "gotrace.stw.duration",
    "histogram",
    "s",
    "Stop-the-world pauses of any kind, by part: stopping, stopped, total (the sum of both), and restart, until the "
    "world runs again.",
    ("reason", "part"),
)
PHASE = Family("gotrace.gc.phase.duration", "histogram", "s", "Concurrent phases of a GC cycle.", ("phase",))
ASSIST = Family("gotrace.gc.assist.time", "counter", "s", "CPU time that goroutines spent in mark assists.")
TRIGGERS = Family("gotrace.gc.triggers", "counter", "{gc_cycle}", "GC cycles, by what triggered them.", ("trigger",))
HEAP_LIVE = Family("gotrace.heap.live", "gauge", "By", "Heap memory found live by the last completed cycle.")
ALLOCATED = Family(
    "gotrace.heap.allocated",
    "counter",
    "By",
    "Bytes allocated up to the last completed GC cycle, by the pacer's count: partly used spans count in full.",
)
AMPLIFICATION = Family("gotrace.memory.amplification", "gauge", "1", "Resident memory divided by the live heap.")
PROCESSES = Family("gotrace.processes", "gauge", "{process}", "Processes of the service that are being traced.")
TARGET = Family("gotrace.target", "info", "", "A traced process.", ("exe", "build.id", "go.version", "container.id"))
LOST = Family(
    "gotrace.events.lost",
    "counter",
    "{event}",
    "Events lost because the ring was full, or because they could not be decoded.",
)
OVERHEAD = Family(
    "gotrace.target.overhead", "counter", "s", "CPU time that tracing cost the service: probe hits times the cost per hit."
)

SCANNED = Family(
    "gotrace.agent.processes",
    "gauge",
    "{process}",
    "Go processes on the host, by whether they are traced, or the reason why not.",
    ("state",),
)
ATTACHES = Family("gotrace.agent.attaches", "counter", "{process}", "Processes that the agent attached to.")
DETACHES = Family("gotrace.agent.detaches", "counter", "{process}", "Processes that the agent detached from.", ("reason",))
FAILURES = Family("gotrace.agent.attach.failures", "counter", "{process}", "Processes that the agent could not attach to.")
LEFT_OUT = Family("gotrace.agent.hits.left_out", "counter", "{hit}", "Probe hits whose BPF program the kernel did not run.")
RING_FILL = Family("gotrace.agent.ring.fill", "gauge", "1", "Fill level of the event ring when it was last read.")
AGENT_CPU = Family("gotrace.agent.cpu.time", "counter", "s", "CPU time used by the agent.")
AGENT_RSS = Family("gotrace.agent.memory.usage", "gauge", "By", "Resident memory of the agent.")
SERIES = Family("gotrace.agent.series", "gauge", "{series}", "Exported series.")
BEYOND = Family(
    "gotrace.agent.series.beyond", "counter", "{series}", "Requests for new series refused because of the series limit."
)
SPOOL_FAILURES = Family(
    "gotrace.agent.spool.failures", "counter", "{record}", "Records that could not be written to the spool."
)
EXPLANATIONS = Family(
    "gotrace.agent.explanations", "counter", "{pause}", "Pauses above the threshold, by outcome.", ("outcome",)
)
OTLP_SENT = Family("gotrace.agent.otlp.sent", "counter", "{request}", "Requests accepted by the collector.")
OTLP_FAILED = Family(
    "gotrace.agent.otlp.failed", "counter", "{request}", "Failed requests; the next one includes their data."
)
OTLP_REJECTED = Family("gotrace.agent.otlp.rejected", "counter", "{point}", "Data points rejected by the collector.")
KUBELET_UP = Family("gotrace.agent.kubelet.up", "gauge", "", "Whether the last request for the node's pods succeeded.")
KUBELET_ERRORS = Family(
    "gotrace.agent.kubelet.errors", "counter", "{request}", "Failed requests for the node's pods.", ("reason",)
)
# Named as Prometheus names its own.
RELOADED = Family(
    "gotrace.agent.config.last_reload_successful", "gauge", "", "Whether the last attempt to load the settings succeeded."
)
RELOADED_AT = Family(
    "gotrace.agent.config.last_reload_success_timestamp", "gauge", "s", "Unix time at which the settings were last loaded."
)
BUILD = Family("gotrace.build", "info", "", "The version of the agent, and the kernel.", ("version", "kernel"))

ALL = [each for each in list(globals().values()) if isinstance(each, Family)]
