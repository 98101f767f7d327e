"""Where fields lie in the running kernel's own structs, from its BTF (/sys/kernel/btf/vmlinux).

The format: Documentation/bpf/btf.rst of the kernel. Only structs, unions and what is between them are read.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import NamedTuple

from gotrace import cache
from gotrace.arch import host_arch
from gotrace.errors import HostError

VMLINUX = "/sys/kernel/btf/vmlinux"
SIZE = "sizeof"  # in place of a field: how large the struct is

_STRUCT, _UNION = 4, 5
# BTF kind -> bytes that follow its 12-byte head, and bytes for each of its members
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


class _Type(NamedTuple):
    kind: int
    name: int
    size_or_type: int
    members: int  # where they begin, 12 bytes each
    length: int
    bitfields: bool


class Btf:
    """The types of a BTF blob. Raises ValueError when it is none."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, header, types_at, types_size, text_at, text_size = struct.unpack_from("<HBBIIIII", data)
        if magic != 0xEB9F:
            raise ValueError("no BTF")
        self._data = data
        self._text = data[header + text_at : header + text_at + text_size]
        self._types = [_Type(0, 0, 0, 0, 0, False)]
        at, end = header + types_at, header + types_at + types_size
        while at < end:
            name, info, size_or_type = struct.unpack_from("<III", data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            self._types.append(_Type(kind, name, size_or_type, at + 12, count, bool(info >> 31)))
            at += 12 + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * count

    def _name(self, at: int) -> str:
        return self._text[at : self._text.index(b"\0", at)].decode(errors="replace")

    @functools.cached_property
    def _structs(self) -> dict[str, _Type]:
        return {self._name(each.name): each for each in self._types if each.kind == _STRUCT and each.name and each.length}

    def offset(self, struct_name: str, path: str) -> int | None:
        """The offset in bytes of a field (``se.cfs_rq``), or None where there is none or it is a bit field."""
        found: _Type | None = self._structs.get(struct_name)
        if path == SIZE:
            return found.size_or_type if found is not None else None
        offset = 0
        for part in path.split("."):
            member = self._member(found, part) if found is not None else None
            if member is None:
                return None
            offset += member[0]
            found = self._struct_of(member[1])
        return offset

    def _member(self, parent: _Type, wanted: str) -> tuple[int, int] | None:
        """(offset, type) of a member, also within anonymous structs and unions."""
        for number in range(parent.length):
            name, type_, bits = struct.unpack_from("<III", self._data, parent.members + 12 * number)
            if parent.bitfields:
                size, bits = bits >> 24, bits & 0xFFFFFF
                if size:
                    continue
            if name == 0:
                inner = self._struct_of(type_)
                deeper = self._member(inner, wanted) if inner is not None else None
                if deeper is not None:
                    return bits // 8 + deeper[0], deeper[1]
            elif self._name(name) == wanted:
                return bits // 8, type_
        return None

    def _struct_of(self, number: int) -> _Type | None:
        """The struct or union behind typedefs, const and volatile."""
        found = self._types[number]
        while found.kind in (8, 9, 10, 11):
            found = self._types[found.size_or_type]
        return found if found.kind in (_STRUCT, _UNION) else None


def field_offsets(fields: tuple[tuple[str, str], ...]) -> list[int | None]:
    """The offsets of (struct, field) pairs in the running kernel; None where one, or the kernel's BTF, does not exist.

    Reading a kernel's 150,000 types takes 0.1 s, so the answer is cached for this build of the kernel.
    """
    key = cache.key("btf", *os.uname(), *fields)
    found: list[int | None] | None = cache.get(key)
    if found is None:
        try:
            with open(VMLINUX, "rb") as file:
                kernel = Btf(file.read())
            found = [kernel.offset(*field) for field in fields]
        except (OSError, ValueError, struct.error):
            return [None] * len(fields)
        cache.put(key, found)
    return found


# setting of a probe -> (struct, field): what nearly every probe at the scheduler's tracepoints reads
TASK_FIELDS = {
    "task_pid": ("task_struct", "pid"),
    "task_tgid": ("task_struct", "tgid"),
    "task_state": ("task_struct", "__state"),
}
# and what ``ebpf/quota.bpf.h`` reads: of a task (since 6.18), or of the queue it is in, whether it is throttled; and for
# how long the queue was (since 6.6)
QUOTA_FIELDS = {
    "task_throttled": ("task_struct", "throttled"),
    "task_queue": ("task_struct", "se.cfs_rq"),
    "queue_throttle_count": ("cfs_rq", "throttle_count"),
    "queue_throttled_time": ("cfs_rq", "throttled_clock_self_time"),
}
# and what ``ebpf/hints.bpf.h`` reads, of kernels with automatic NUMA balancing: what that keeps of a task
BALANCING_FIELDS = {
    "task_numa_faults": ("task_struct", "numa_faults"),
    "task_numa_locality": ("task_struct", "numa_faults_locality"),
    "task_numa_scan": ("task_struct", "numa_scan_seq"),
}
_STATE_BEFORE_5_14 = ("task_struct", "state")


def stack_settings() -> dict[str, int]:
    """Where the kernel has the pointer to a thread's own memory, for ``ebpf/stack.bpf.h``; {} if that is unknown."""
    field = host_arch().task_tls
    found = field_offsets((("task_struct", field),))[0] if field else None
    return {} if found is None else {"stack_task_tls": found}


def hint_settings() -> dict[str, int]:
    """The offsets of `BALANCING_FIELDS`; {} where balancing is switched off by now: reading them costs a fault 0.2 us."""
    from gotrace.kernel import numa

    found = field_offsets(tuple(BALANCING_FIELDS.values())) if numa.balancing() else [None]
    known = [offset for offset in found if offset is not None]
    return dict(zip(BALANCING_FIELDS, known, strict=True)) if len(known) == len(BALANCING_FIELDS) else {}


def task_settings(fields: dict[str, tuple[str, str]]) -> dict[str, int]:
    """The offsets of ``fields``, `TASK_FIELDS` among them; without those that this kernel does not have.

    Raises HostError if it lacks the offsets of pid and tgid, because nothing works without them.
    """
    *found, before = field_offsets((*fields.values(), _STATE_BEFORE_5_14))
    known = {name: offset for name, offset in zip(fields, found, strict=True) if offset is not None}
    if before is not None:
        known.setdefault("task_state", before)
    if "queue_throttle_count" not in known:
        known.pop("task_queue", None)
    if "task_pid" not in known or "task_tgid" not in known:
        raise HostError("this kernel has no type information (BTF)", "use one with CONFIG_DEBUG_INFO_BTF")
    return known
