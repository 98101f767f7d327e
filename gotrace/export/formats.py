"""What files of each format end in."""

from __future__ import annotations

Formats = dict[str, tuple[str, ...]]

_TABLE: Formats = {"table": (".txt",)}
_LINES: Formats = {"ndjson": (".ndjson", ".jsonl")}
_ARRAY: Formats = {"json": (".json",)}
_HISTOGRAMS: Formats = {"hlog": (".hlog",), "hgrm": (".hgrm",)}
_PERFETTO: Formats = {"perfetto": (".perfetto", ".pftrace", ".perfetto-trace")}
_PAGES: Formats = {"html": (".html", ".htm")}
_PICTURES: Formats = {"svg": (".svg",), **_PAGES}
_COLUMNS: Formats = {"csv": (".csv",), "parquet": (".parquet",)}
RECORDING: Formats = {"gotrace": (".gotrace",)}

FLAMES: Formats = {
    **_PICTURES,
    "folded": (".folded", ".txt"),
    "pprof": (".pb.gz", ".pprof"),
    "speedscope": (".speedscope.json",),
}
FORMATS: Formats = {**_LINES, **_COLUMNS, **_HISTOGRAMS, **_PERFETTO, **FLAMES}
PAUSES: Formats = {**_TABLE, **_LINES, **_ARRAY, **_HISTOGRAMS, **_PAGES, **RECORDING}
STARTS: Formats = {**_TABLE, **_PICTURES, **_PERFETTO, **_ARRAY, **_LINES, "hlog": (".hlog",), **RECORDING}
BUILDS: Formats = {**_TABLE, **_PICTURES, **_PERFETTO, **_ARRAY, **_LINES, **RECORDING}
PROFILES: Formats = {**_TABLE, **_LINES, **_ARRAY, **FLAMES, "folded": (".folded",), **RECORDING}
GOROUTINES: Formats = {**PROFILES, "text": (".goroutines",)}
SCHEDULES: Formats = {**_TABLE, **_LINES, **_ARRAY, **_HISTOGRAMS, **_PAGES, **RECORDING}
CALLS: Formats = {**_TABLE, **_LINES, **_ARRAY, **_HISTOGRAMS, **_PAGES, **_COLUMNS, **RECORDING}
LOADS: Formats = {**_TABLE, **_LINES, **_ARRAY, **_PAGES}
GPU_MEMORY: Formats = {**_TABLE, **_LINES, **_ARRAY, **_PICTURES, "parquet": (".parquet",), **RECORDING}
TABLES: Formats = {**_TABLE, **_ARRAY}
PROCESSES: Formats = {**_TABLE, **_LINES, **_ARRAY}
QUERIES: Formats = {**_TABLE, **_ARRAY, "csv": (".csv",)}
GATES: Formats = {**_TABLE, **_ARRAY, "md": (".md",), "junit": (".xml",)}
COMPARED: Formats = {**_TABLE, **_ARRAY, **_PAGES, "md": (".md",), "benchfmt": (".bench",)}
FLEETS: Formats = {**_TABLE, **_ARRAY, "md": (".md",), **_PICTURES}
TOPOLOGIES: Formats = {**_TABLE, **_ARRAY, **_PICTURES}
SETTINGS: Formats = {"env": (".sh", ".env"), **_ARRAY, "yaml": (".yaml", ".yml")}
LINES: Formats = {**_LINES}
WATCHED: Formats = {**_TABLE, **_LINES, **_PAGES, **RECORDING}
REPORTS: Formats = {
    name: endings
    for name, endings in {**PAUSES, **STARTS, **WATCHED, **GOROUTINES, **CALLS, **GPU_MEMORY}.items()
    if name != "gotrace"
}


def ending_of(path: str, formats: Formats) -> str | None:
    """The format that a file's name asks for: the one whose ending is longest. None if there is none."""
    fitting = [(len(end), name) for name, endings in formats.items() for end in endings if path.lower().endswith(end)]
    return max(fitting)[1] if fitting else None
