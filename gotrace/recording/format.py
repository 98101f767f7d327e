"""The form of a recording: one Arrow IPC stream of rows, one row an event, compressed with zstd.

Why Arrow's stream: it is the columnar format that can be appended to. Each record batch is a message of its own, so a file
that was cut off by a crash is readable up to its last whole batch; Parquet keeps its index at the end and is lost with it.
pyarrow, pandas, polars, DuckDB, R and JavaScript read it.

A row has the columns of ``struct event`` as they left the ring (``ebpf/include/event.h``), and ``data``, which is null but
in rows whose ``kind`` is below `FIRST_EVENT`: those are the recorder's own and say what events mean (`TEXT`, `FRAMES`).
What is known when recording begins is JSON in the schema's metadata under `METADATA_KEY`: the version, the target, the
host, the probes with their kinds and columns.

Version 1. A reader refuses newer versions; it reads every older one.
"""

from __future__ import annotations

VERSION = 1
METADATA_KEY = b"gotrace"

FIRST_EVENT = 0x100

END = 1  # data: JSON, how the run ended and what it cost; absent from a file that was cut off
LOSS = 2  # a: events and numbers lost since the beginning
TEXT = (
    3  # a: address | length << 48, data: the text that was there in the executable; or a: NUMBERED | number, data: a name
)
FRAMES = 4  # a: an address in the target; data: JSON, the functions there, innermost first, each as `analysis.stacks.Frame`
THREAD = 5  # a: a thread of the target, as its events name it; data: its name
# data: JSON, what was asked of the machine about the events since the last one; see `gotrace.run.sources`. a: how many
# events of its batch come before it, plus 1; 0: all of them, as version 0.1.0 has it
ANSWERS = 6

MAPPING = (
    7  # a: where it begins in the target; data: JSON, [its end, its offset in the file, the file or a name in brackets]
)

# In a column that refers to text: this text is in no executable, and known by a number of the recording's own.
NUMBERED = 1 << 63

COLUMNS = ("time_ns", "tid", "kind", "cpu", "a", "b", "c", "d", "e")
ROWS_PER_CHUNK = 1 << 16
