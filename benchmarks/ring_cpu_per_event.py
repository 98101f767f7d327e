"""CPU per event of our ring reader against BCC's Python callback, on the same flood of system calls.

Each side reads with a process of its own; its processor time (user + system) from the flood's start to its end is divided
by the events it received. Both use a 16 MiB ring and records of 64 bytes.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gotrace.kernel import bpf
from gotrace.kernel.child import Child
from gotrace.kernel.compiler import compile_object, ebpf_folder, import_bcc
from gotrace.probe import Kind, Probe

RING_BYTES = 16 << 20
EVENTS = 4_000_000
FLOOD = Probe("flood", "", (Kind("flood", 1, ("number", "b", "c", "d", "e")),), ("tgid",), ("unused",))


def source() -> str:
    text = Path(ebpf_folder(), "ring.bpf.h").read_text()
    return text + (Path(__file__).parent / "flood.bpf.c").read_text()


def start_flood(events: int, threads: int = 1) -> subprocess.Popen[bytes]:
    """The flooding program, waiting for its line on standard input."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from targets import build

    program = build("flood", "1.27.3", "stripped")
    return subprocess.Popen([program, str(events), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def go(flood: subprocess.Popen[bytes]) -> None:
    assert flood.stdin is not None
    flood.stdin.write(b"\n")
    flood.stdin.flush()


def flood_ns(flood: subprocess.Popen[bytes]) -> int:
    assert flood.stdout is not None
    return int(flood.stdout.read().split()[-2])


def sized(obj: bpf.BpfObject, ring_bytes: int) -> bpf.BpfObject:
    """The same object with a ring of another size."""
    maps = [
        bpf.MapSpec(spec.name, spec.type, spec.key_size, spec.value_size, ring_bytes)
        if spec.type == bpf.MAP_TYPE_RINGBUF
        else spec
        for spec in obj.maps
    ]
    return bpf.BpfObject(tuple(maps), obj.programs)


def ours() -> dict[str, Any]:
    from gotrace.kernel.ring import RingReader

    obj = sized(Child(compile_object, source(), FLOOD.cflags()).result(), RING_BYTES)
    flood = start_flood(EVENTS)
    fds: list[int] = []
    with bpf.load(obj) as loaded, bpf.closing_all(fds):
        loaded.maps["config"].write_words([flood.pid])
        fds.append(bpf.attach_tracepoint(next(iter(loaded.programs.values())), "syscalls", "sys_enter_getppid"))
        ring = RingReader(loaded.maps["events"].fd, RING_BYTES)
        checksum = 0
        begin = time.process_time()
        go(flood)
        while flood.poll() is None:
            checksum += int(ring.read()["a"].sum())
            time.sleep(0.02)
        checksum += int(ring.read()["a"].sum())
        cpu = time.process_time() - begin
        lost = loaded.maps["lost"].words()[0]
    ns = flood_ns(flood)
    return {
        "received": ring.received,
        "lost": lost,
        "cpu_ns_per_event": cpu * 1e9 / max(1, ring.received),
        "events_per_s": EVENTS * 1e9 / ns,
        "whole": lost == 0 and checksum == EVENTS * (EVENTS - 1) // 2,
    }


def theirs() -> dict[str, Any]:
    os.environ["BCC_KERNEL_SOURCE"] = str(ebpf_folder())
    bcc = import_bcc()
    pages = RING_BYTES // os.sysconf("SC_PAGE_SIZE")
    text = source().replace("BPF_RINGBUF_OUTPUT(events, 256)", f"BPF_RINGBUF_OUTPUT(events, {pages})")
    flood = start_flood(EVENTS)
    program = bcc.BPF(text=text, cflags=[f"-I{ebpf_folder()}/include", *FLOOD.cflags()])
    settings = program["config"]
    settings[ctypes.c_int(0)] = settings.Leaf((ctypes.c_ulonglong * 1)(flood.pid))
    received = checksum = 0

    def callback(_context: Any, data: Any, _size: int) -> None:
        nonlocal received, checksum
        event = program["events"].event(data)
        received += 1
        checksum += event.a

    program["events"].open_ring_buffer(callback)
    begin = time.process_time()
    go(flood)
    while flood.poll() is None:
        program.ring_buffer_consume()
    program.ring_buffer_consume()
    cpu = time.process_time() - begin
    lost = sum(leaf.value for leaf in program["lost"].values())
    return {"received": received, "lost": lost, "cpu_ns_per_event": cpu * 1e9 / max(1, received)}


def run() -> dict[str, Any]:
    """Our nanoseconds per event against theirs, each measured in a process of its own."""
    mine = min((Child(ours).result() for _ in range(3)), key=lambda result: float(result["cpu_ns_per_event"]))
    other = Child(theirs, cpu_seconds=300).result()
    ratio = mine["cpu_ns_per_event"] / other["cpu_ns_per_event"]
    return {
        "name": "ring_cpu_per_event",
        "ratio": ratio,
        "ours": mine["cpu_ns_per_event"],
        "theirs": other["cpu_ns_per_event"],
        "unit": "ns CPU per event",
        "detail": {"ours": mine, "theirs": other},
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
