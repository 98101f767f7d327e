"""Weighted stacks for `go tool pprof`.

The format is profile.proto (https://github.com/google/pprof/blob/main/proto/profile.proto), compressed with gzip as it is
on disk. The fields below are those that are used here, with their numbers; a test reads the result with Go's own pprof.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gotrace.analysis.flame import Numbers, Profile
from gotrace.analysis.stacks import INLINED, KERNEL
from gotrace.export.protobuf import messages
from gotrace.text import printable

MESSAGES = {
    "Profile": {
        "sample_type": (1, "repeated ValueType"),
        "sample": (2, "repeated Sample"),
        "mapping": (3, "repeated Mapping"),
        "location": (4, "repeated Location"),
        "function": (5, "repeated Function"),
        "string_table": (6, "repeated string"),
        "time_nanos": (9, "int64"),
        "duration_nanos": (10, "int64"),
        "period_type": (11, "ValueType"),
        "period": (12, "int64"),
    },
    "ValueType": {"type": (1, "int64"), "unit": (2, "int64")},
    "Sample": {"location_id": (1, "repeated uint64"), "value": (2, "repeated int64")},
    "Mapping": {
        "id": (1, "uint64"),
        "filename": (5, "int64"),
        "has_functions": (7, "bool"),
        "has_filenames": (8, "bool"),
        "has_line_numbers": (9, "bool"),
        "has_inline_frames": (10, "bool"),
    },
    "Location": {"id": (1, "uint64"), "mapping_id": (2, "uint64"), "line": (4, "repeated Line")},
    "Line": {"function_id": (1, "uint64"), "line": (2, "int64")},
    "Function": {"id": (1, "uint64"), "name": (2, "int64"), "filename": (4, "int64")},
}

_UNITS = {"goroutines": "count"}
# What perf and pprof call the kernel.
_KERNEL_MODULE = "[kernel.kallsyms]"
# pprof would ask the file itself for what a mapping does not say it has.
_HAS_ALL = dict.fromkeys(("has_functions", "has_filenames", "has_line_numbers", "has_inline_frames"), True)


def pprof(
    profile: Profile,
    kind: str,
    *,
    time_ns: int,
    duration_ns: int,
    period_ns: int,
    columns: Sequence[tuple[str, str, Numbers]] = (),
) -> bytes:
    """``profile`` as a file: "samples" in "count", which are its counts, and ``kind`` ("cpu", "delay") in its unit.

    ``columns`` take the place of these two: type, unit, and the number of each stack; the last is shown by default.
    ``time_ns`` is when it began, in nanoseconds of the wall clock since 1970; ``duration_ns`` how long it took;
    ``period_ns`` the time from one sample to the next, 0 if nothing was sampled. Stacks keep their order. An inlined
    function has no location of its own, but a line in that of the function into which it was compiled. Names are made
    harmless for a terminal (`gotrace.text.printable`), because pprof prints them as they are.
    """
    types = messages("gotrace.pprof", MESSAGES)
    texts: dict[str, int] = {"": 0}  # the format asks for an empty string to be the first

    def text(words: str) -> int:
        return texts.setdefault(printable(words), len(texts))

    out = types["Profile"](time_nanos=time_ns, duration_nanos=duration_ns, period=period_ns)
    measured = types["ValueType"](type=text(kind), unit=text(_UNITS.get(profile.unit, profile.unit)))
    columns = columns or (("samples", "count", profile.counts), (kind, profile.unit, profile.weights))
    for type_, unit, _ in columns:
        out.sample_type.add(type=text(type_), unit=text(_UNITS.get(unit, unit)))
    out.period_type.CopyFrom(measured)

    functions: dict[tuple[int, int], int] = {}
    mappings: dict[str, int] = {"": 0}  # 0: not known
    lines = []
    modules = []
    for frame in profile.frames:
        # No system_name: pprof takes what equals it for mangled C++ and shortens it, F[int] of Go too.
        lines.append((functions.setdefault((text(frame.function), text(frame.file)), len(functions) + 1), frame.line))
        module = _KERNEL_MODULE if frame.kind == KERNEL else frame.module
        modules.append(mappings.setdefault(module, len(mappings)))
    for (name, file), number in functions.items():
        out.function.add(id=number, name=name, filename=file)
    for module, number in mappings.items():
        if number:
            out.mapping.add(id=number, filename=text(module), **_HAS_ALL)

    chains, locations, ends = _locations(profile)
    for number, chain in enumerate(chains, 1):
        location = out.location.add(id=number, mapping_id=modules[chain[0]])
        for frame_number in reversed(chain):
            function, line = lines[frame_number]
            location.line.add(function_id=function, line=line)

    begin = 0
    for end, *values in zip(ends.tolist(), *(numbers.tolist() for _, _, numbers in columns), strict=True):
        out.sample.add(location_id=locations[begin:end][::-1].tolist(), value=values)
        begin = end
    out.string_table.extend(texts)
    # No time stamp of its own: the same profile is the same file.
    return gzip.compress(out.SerializeToString(), compresslevel=6, mtime=0)


def _locations(profile: Profile) -> tuple[list[tuple[int, ...]], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each function together with those inlined into it: (the distinct ones, the stacks, their ends).

    A distinct one is a chain of indexes into ``profile.frames``, outermost first. The stacks are numbers of chains, from
    1 on, one stack after the other as in ``profile.path``.
    """
    path, count = profile.path, len(profile.frames)
    begins = np.concatenate([np.zeros(1, np.int64), profile.ends])[:-1]
    heads = ~np.array([frame.kind == INLINED for frame in profile.frames], bool)[path]
    heads[begins[begins < profile.ends]] = True  # what it was inlined into may be missing
    at = np.flatnonzero(heads)
    sizes = np.diff(at, append=len(path))
    chains: list[tuple[int, ...]] = [(number,) for number in range(count)]
    numbers = path[at].astype(np.int64)
    for depth in range(1, int(sizes.max(initial=1))):
        longer = np.flatnonzero(sizes > depth)
        distinct, which = np.unique(numbers[longer] * count + path[at[longer] + depth], return_inverse=True)
        numbers[longer] = which + len(chains)
        chains += [(*chains[pair // count], pair % count) for pair in distinct.tolist()]
    used, which = np.unique(numbers, return_inverse=True)
    return [chains[number] for number in used.tolist()], which + 1, np.searchsorted(at, profile.ends)
