"""bpf(2) and perf_event_open(2) through ctypes: maps, programs, uprobes.

The process that traces loads finished bytecode itself, so it needs no compiler library in its memory and is ready
in milliseconds. Everything here is held by file descriptors: when they are closed, or the process dies in any way,
the kernel removes the probes.

Numbers are those of include/uapi/linux/bpf.h and perf_event.h, the same on every architecture but the system call
numbers themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import functools
import mmap
import os
import re
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gotrace.arch import host_arch
from gotrace.errors import MORE_FILES, HostError, LoadError
from gotrace.kernel import privileges
from gotrace.kernel.privileges import kernel_version

_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_LOAD, _RAW_TRACEPOINT_OPEN, _LINK_CREATE = 0, 2, 5, 17, 28
_MAP_LOOKUP_ELEM, _MAP_DELETE_ELEM, _MAP_GET_NEXT_KEY = 1, 3, 4
_MAP_LOOKUP_AND_DELETE_BATCH = 25
_PROG_TYPE_KPROBE = 2
# What a program is attached to shows in the beginning of its name; any other is a uprobe's. `on_tracepoint__X` runs at the
# kernel's tracepoint X with its own arguments (BCC would attach `raw_tracepoint__X` by itself while it compiles),
# `on_trace_event__CATEGORY__X` at one with the fields that tracefs lists, `on_software_event__X` at the perf software
# event X, `on_sample` at whatever is sampled; `tracepoint__CATEGORY__X` is the name that BCC's
# TRACEPOINT_PROBE(CATEGORY, X) makes.
RAW_TRACEPOINT, TRACE_EVENT, SOFTWARE_EVENT = "on_tracepoint__", "on_trace_event__", "on_software_event__"
SAMPLE = "on_sample"
_PROG_TYPES = {"tracepoint__": 5, TRACE_EVENT: 5, SOFTWARE_EVENT: 7, SAMPLE: 7, RAW_TRACEPOINT: 17}
_ATTACH_UPROBE_MULTI = 48
MAP_TYPE_HASH, MAP_TYPE_ARRAY, MAP_TYPE_PERF_EVENT_ARRAY, MAP_TYPE_LRU_HASH, MAP_TYPE_RINGBUF = 1, 2, 4, 9, 27
_F_MMAPABLE = 1 << 10
_F_SLEEPABLE = 1 << 4
_LD_IMM64, _PSEUDO_MAP_FD = 0x18, 1

_PERF_FLAG_FD_CLOEXEC = 8
_PERF_TYPE_SOFTWARE, _PERF_TYPE_TRACEPOINT = 1, 2
# enum perf_sw_ids
_SOFTWARE_EVENTS = {"cpu_clock": 0, "page_faults": 2, "page_faults_min": 5, "page_faults_maj": 6}
_DISABLED, _FREQUENCY = 1, 1 << 10
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408
_UPROBE_PMU_TYPE = "/sys/bus/event_source/devices/uprobe/type"

_LOG_BYTES = 1 << 20
_MISSES = re.compile(rb"^recursion_misses:\s+(\d+)", re.MULTILINE)

RETURN_ZERO = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = 0; exit: the smallest program


@dataclass(frozen=True)
class MapSpec:
    """A map as the compiler laid it out. ``max_entries`` of a ring buffer is its size in bytes."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int


@dataclass(frozen=True)
class BpfObject:
    """Compiled programs and the maps they use, independent of any file descriptor.

    ``programs`` maps a name to (instructions, relocations): 8-byte instructions, and for each load of a map's
    descriptor its instruction index and the map's name.
    """

    maps: tuple[MapSpec, ...]
    programs: dict[str, tuple[bytes, tuple[tuple[int, str], ...]]]

    def to_json(self) -> dict[str, Any]:
        maps = [[spec.name, spec.type, spec.key_size, spec.value_size, spec.max_entries] for spec in self.maps]
        return {"maps": maps, "programs": {name: [code.hex(), where] for name, (code, where) in self.programs.items()}}

    def with_ring(self, size: int) -> BpfObject:
        """The same with ring buffers of ``size`` bytes (a power of two)."""
        maps = [
            dataclasses.replace(spec, max_entries=size) if spec.type == MAP_TYPE_RINGBUF else spec for spec in self.maps
        ]
        return BpfObject(tuple(maps), self.programs)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BpfObject:
        programs = {
            name: (bytes.fromhex(code), tuple((index, map_name) for index, map_name in where))
            for name, (code, where) in data["programs"].items()
        }
        return cls(tuple(MapSpec(*row) for row in data["maps"]), programs)


_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *args: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *args))


def _bpf(command: int, attr: bytes) -> int:
    """The result of bpf(2), or minus errno."""
    buffer = ctypes.create_string_buffer(attr.ljust(128, b"\0"), 128)
    result = _syscall(host_arch().syscall_bpf, ctypes.c_int(command), buffer, ctypes.c_uint(128))
    return result if result >= 0 else -ctypes.get_errno()


def refused(action: str, number: int, is_perf_event: bool = False) -> HostError:
    """What a failed bpf or perf system call means to the person who ran it."""
    message = f"the kernel refused to {action}: {os.strerror(number)}"
    if number in (errno.EPERM, errno.EACCES):
        forbidden = (is_perf_event and privileges.beyond_perfmon()) or (
            "privileges are sufficient: kernel lockdown, seccomp or a security policy forbids it; "
            "`gotrace doctor` shows more"
        )
        return privileges.refused(message, forbidden)
    hint = {
        errno.ENOSYS: "this kernel was built without BPF; use one with CONFIG_BPF_SYSCALL",
        errno.ENOMEM: "raise the locked-memory limit (ulimit -l unlimited) or the cgroup's memory limit",
        errno.ESRCH: "the process has exited; choose one that runs longer",
        errno.EMFILE: MORE_FILES,
    }.get(number, "`gotrace doctor` shows what this host allows")
    return HostError(message, hint)


class Map:
    """A BPF map held by its descriptor.

    Arrays are mapped into memory: reading a counter or writing a setting is then no system call, so it needs no
    privilege on kernels that deny bpf(2) to ordinary users altogether.
    """

    def __init__(self, spec: MapSpec, fd: int) -> None:
        self.spec = spec
        self.fd = fd
        self.memory: mmap.mmap | None = None
        if spec.type == MAP_TYPE_ARRAY:
            size = spec.max_entries * _aligned(spec.value_size, 8)
            self.memory = mmap.mmap(fd, _aligned(size, mmap.PAGESIZE))

    def words(self) -> tuple[int, ...]:
        """The values of an array map as unsigned 64-bit words."""
        assert self.memory is not None
        count = self.spec.max_entries * _aligned(self.spec.value_size, 8) // 8
        return struct.unpack_from(f"={count}Q", self.memory)

    def write_words(self, words: Sequence[int], first: int = 0) -> None:
        """Overwrite ``len(words)`` words of an array map, from word ``first`` on."""
        assert self.memory is not None
        struct.pack_into(f"={len(words)}Q", self.memory, 8 * first, *words)

    def put(self, key: bytes, value: bytes) -> None:
        """Set an entry of a hash table. Raises HostError."""
        places = [ctypes.create_string_buffer(each, len(each)) for each in (key, value)]
        result = _bpf(_MAP_UPDATE_ELEM, struct.pack("<IIQQQ", self.fd, 0, *map(ctypes.addressof, places), 0))
        if result < 0:
            raise refused(f"add an entry to the map {self.spec.name}", -result)

    def get(self, key: bytes) -> bytes | None:
        """An entry of a hash table; None if it is not there."""
        place, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(self.spec.value_size)
        places = map(ctypes.addressof, (place, value))
        return value.raw if _bpf(_MAP_LOOKUP_ELEM, struct.pack("<IIQQQ", self.fd, 0, *places, 0)) == 0 else None

    def delete(self, key: bytes) -> None:
        """Take an entry out of a hash table, if it is there."""
        place = ctypes.create_string_buffer(key, len(key))
        _bpf(_MAP_DELETE_ELEM, struct.pack("<IIQ", self.fd, 0, ctypes.addressof(place)))

    def put_event(self, index: int, event_fd: int) -> None:
        """Give a place of a map of perf events its event; the map holds it from then on. Raises HostError."""
        key, value = ctypes.c_uint32(index), ctypes.c_uint32(event_fd)
        places = (ctypes.addressof(key), ctypes.addressof(value))
        result = _bpf(_MAP_UPDATE_ELEM, struct.pack("<IIQQQ", self.fd, 0, *places, 0))
        if result < 0:
            raise refused(f"add a perf event to the map {self.spec.name}", -result)

    def items(self) -> list[tuple[bytes, bytes]]:
        """What is in a hash table now, one by one: for tables of a few. It may change meanwhile."""
        spec, found = self.spec, []
        key = ctypes.create_string_buffer(spec.key_size)
        at = 0  # no key: the first one
        for _ in range(spec.max_entries):
            if _bpf(_MAP_GET_NEXT_KEY, struct.pack("<IIQQQ", self.fd, 0, at, ctypes.addressof(key), 0)) < 0:
                break
            at = ctypes.addressof(key)
            if (there := self.get(key.raw)) is not None:
                found.append((key.raw, there))
        return found

    def clear(self) -> None:
        """Make an array all zeros, or a hash table empty; other kinds stay as they are."""
        if self.memory is not None:
            self.memory[:] = bytes(len(self.memory))
        elif self.spec.type in (MAP_TYPE_HASH, MAP_TYPE_LRU_HASH):
            most = self.spec.max_entries
            keys = ctypes.create_string_buffer(most * self.spec.key_size)
            values = ctypes.create_string_buffer(most * self.spec.value_size)
            place = ctypes.create_string_buffer(max(8, self.spec.key_size))
            where = [ctypes.addressof(buffer) for buffer in (place, keys, values)]
            _bpf(_MAP_LOOKUP_AND_DELETE_BATCH, struct.pack("<QQQQIIQQ", 0, *where, most, self.fd, 0, 0))

    def close(self) -> None:
        if self.memory is not None:
            self.memory.close()
        os.close(self.fd)


def _aligned(size: int, unit: int) -> int:
    return (size + unit - 1) // unit * unit


def _create_map(spec: MapSpec) -> Map:
    flags = _F_MMAPABLE if spec.type == MAP_TYPE_ARRAY else 0
    name = spec.name[:15].encode()
    attr = struct.pack("<IIIIIIi15s", spec.type, spec.key_size, spec.value_size, spec.max_entries, flags, 0, 0, name)
    fd = _bpf(_MAP_CREATE, attr)
    if fd < 0:
        raise refused(f"create the map {spec.name}", -fd)
    return Map(spec, fd)


def is_uprobe(name: str) -> bool:
    """Whether the program of this name runs at an instruction of the target, rather than in the kernel."""
    return not name.startswith(tuple(_PROG_TYPES))


def _program_type(name: str) -> int:
    return next((number for prefix, number in _PROG_TYPES.items() if name.startswith(prefix)), _PROG_TYPE_KPROBE)


def _load_program(
    name: str, instructions: bytes, attach_type: int, flags: int, log: ctypes.Array[ctypes.c_char] | None = None
) -> int:
    """The program's descriptor, or minus errno; the verifier's words go to ``log``."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_text = ctypes.create_string_buffer(b"GPL")
    log_level, log_size, log_address = (1, len(log), ctypes.addressof(log)) if log is not None else (0, 0, 0)
    attr = struct.pack(
        "<IIQQIIQII15sxII",
        _program_type(name),
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(license_text),
        log_level,
        log_size,
        log_address,
        0,
        flags,
        name[:15].encode(),
        0,
        attach_type,
    )
    for _ in range(5):
        if (found := _bpf(_PROG_LOAD, attr)) != -errno.EAGAIN:  # a signal (Ctrl-C) has interrupted the verifier
            break
    return found


@dataclass
class LoadedObject:
    """Maps and programs in the kernel. Close it to give the descriptors back; attached probes stay attached."""

    maps: dict[str, Map]
    programs: dict[str, int]
    _about: dict[str, int]  # /proc/self/fdinfo of each program, opened: as another user we could not any more
    _stack: contextlib.ExitStack = field(repr=False)

    def left_out(self) -> int:
        """How often the kernel did not run one of the programs, for it was at work on that CPU already.

        0 before Linux 5.12, which does not record it.
        """
        return sum(int(misses[1]) for fd in self._about.values() if (misses := _MISSES.search(os.pread(fd, 4096, 0))))

    def add(self, obj: BpfObject, wanted: set[str]) -> None:
        """Load those of its programs too that are ``wanted``. Raises HostError or LoadError."""
        more = load(obj, wanted - set(self.programs), self.maps)
        self._stack.callback(more.close)
        self.programs |= more.programs
        self._about |= more._about

    def forget(self, kept: Sequence[str]) -> None:
        """Make its maps empty, as they were when they were loaded, but those named in ``kept``."""
        for name, each in self.maps.items():
            if name not in kept:
                each.clear()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> LoadedObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(obj: BpfObject, wanted: set[str] | None = None, shared: dict[str, Map] | None = None) -> LoadedObject:
    """Create the maps of ``obj`` but those that are ``shared``, and load its programs (all, or the ``wanted`` ones).

    Raises HostError when the kernel refuses BPF, LoadError with the verifier's log when it refuses a program.
    """
    with contextlib.ExitStack() as stack:
        maps = dict(shared or {})
        for spec in obj.maps:
            if spec.name not in maps:
                maps[spec.name] = _create_map(spec)
                stack.callback(maps[spec.name].close)
        programs: dict[str, int] = {}
        about: dict[str, int] = {}
        for name, (instructions, relocations) in obj.programs.items():
            if wanted is not None and name not in wanted:
                continue
            code = bytearray(instructions)
            for index, map_name in relocations:
                struct.pack_into("<i", code, index * 8 + 4, maps[map_name].fd)
            # The verifier lets no program sleep that reads perf events.
            may_sleep = all(maps[used].spec.type != MAP_TYPE_PERF_EVENT_ARRAY for _, used in relocations)
            programs[name] = load_program(name, bytes(code), may_sleep)
            stack.callback(os.close, programs[name])
            about[name] = os.open(f"/proc/self/fdinfo/{programs[name]}", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, about[name])
        return LoadedObject(maps, programs, about, stack.pop_all())


def load_program(name: str, code: bytes, may_sleep: bool = True) -> int:
    """Load finished instructions; returns the program's descriptor. Raises HostError or LoadError.

    A uprobe's program may take page faults where the kernel lets it, unless ``may_sleep`` is False.
    """
    attach_type = _ATTACH_UPROBE_MULTI if is_uprobe(name) and has_uprobe_multi() else 0
    flags = _F_SLEEPABLE if may_sleep and is_uprobe(name) and has_sleepable_uprobes() else 0
    fd = _load_program(name, code, attach_type, flags)
    if fd >= 0:
        return fd
    if -fd in (errno.EPERM, errno.ENOSYS, errno.ENOMEM):
        raise refused(f"load the program {name}", -fd)
    log = ctypes.create_string_buffer(_LOG_BYTES)
    _load_program(name, code, attach_type, flags, log)
    text = log.value.decode(errors="replace").strip()
    last = text.splitlines()[-1] if text else "no log"
    raise LoadError(
        f"the kernel's verifier refused the program {name}: {os.strerror(-fd)} ({last})",
        "run again with -v for the full log, and report it with `uname -r`",
        detail=text,
    )


def map_relocations(instructions: bytes, names_by_fd: dict[int, str]) -> tuple[tuple[int, str], ...]:
    """Where ``instructions`` load a map's descriptor, and which map it is."""
    found = []
    index = 0
    while index * 8 < len(instructions):
        code, registers, _, immediate = struct.unpack_from("<BBhi", instructions, index * 8)
        if code == _LD_IMM64:
            if registers >> 4 == _PSEUDO_MAP_FD:
                found.append((index, names_by_fd[immediate]))
            index += 1  # the second half of the 16-byte instruction
        index += 1
    return tuple(found)


@functools.cache
def has_uprobe_multi() -> bool:
    """Whether uprobes can be attached by BPF links (6.6), and are filtered by process rightly (6.10).

    A perf event that belongs to a process makes every context switch of the machine look at it; a link costs nobody
    anything, and goes in half the time.
    """
    if kernel_version() < (6, 10):
        return False
    program = _load_program("probe", RETURN_ZERO, _ATTACH_UPROBE_MULTI, 0)
    if program < 0:
        return False
    try:
        # A directory cannot be probed, and the kernel says so (EBADF) only after it has understood the request.
        return _link_uprobe(program, "/", 0, -1) == -errno.EBADF
    finally:
        os.close(program)


@functools.cache
def has_sleepable_uprobes() -> bool:
    """Whether a uprobe's program may take page faults (6.0), so that it can read all memory the target can.

    Others fail on a page that is not mapped at the moment: swapped out, being migrated, or made inaccessible for a
    while by NUMA balancing, as happens to every page of a process on a machine with several nodes.
    """
    program = _load_program("probe", RETURN_ZERO, 0, _F_SLEEPABLE)
    if program >= 0:
        os.close(program)
    return program >= 0


def _link_uprobe(program_fd: int, path: str, file_offset: int, pid: int, at_return: bool = False) -> int:
    """The link's descriptor, or minus errno."""
    path_buffer = ctypes.create_string_buffer(os.fsencode(path))
    offset = ctypes.c_uint64(file_offset)
    places = (ctypes.addressof(path_buffer), ctypes.addressof(offset), 0, 0, 1, int(at_return), max(pid, 0))
    return _bpf(_LINK_CREATE, struct.pack("<IIIIQQQQIII", program_fd, 0, _ATTACH_UPROBE_MULTI, 0, *places))


def uprobe_pmu_type() -> int:
    """The perf event type of uprobes on this kernel (4.17 and later)."""
    try:
        with open(_UPROBE_PMU_TYPE) as file:
            return int(file.read())
    except OSError:
        raise HostError(
            "this kernel does not support uprobes through perf", "use a kernel with CONFIG_UPROBE_EVENTS (4.17 or later)"
        ) from None


def attach_uprobe(program_fd: int, path: str, file_offset: int, pid: int = -1, at_return: bool = False) -> int:
    """Run ``program_fd`` when the instruction at ``file_offset`` of ``path`` executes; returns the event's descriptor.

    With a ``pid`` only that process is probed: the kernel puts no breakpoint into other processes of the file.
    ``at_return``: it runs when the function returns of which that is the first instruction.
    The probe lives as long as the descriptor. Raises HostError.
    """
    if has_uprobe_multi():
        link = _link_uprobe(program_fd, path, file_offset, pid, at_return)
        if link < 0:
            raise refused(f"set a probe on the instruction at {file_offset:#x} of {path}", -link)
        return link
    path_buffer = ctypes.create_string_buffer(os.fsencode(path))
    config = (ctypes.addressof(path_buffer), file_offset)
    kind = int(at_return)  # the format file "retprobe" of this event source: bit 0 of config
    return _attach(program_fd, uprobe_pmu_type(), kind, config, pid, f"the instruction at {file_offset:#x} of {path}")


def attach_tracepoint(program_fd: int, category: str, name: str) -> int:
    """Run ``program_fd`` at a tracepoint, in any process; returns the event's descriptor. Raises HostError."""
    try:
        with open(f"/sys/kernel/tracing/events/{category}/{name}/id") as file:
            number = int(file.read())
    except OSError as error:
        hint = "mount tracefs: mount -t tracefs tracefs /sys/kernel/tracing"
        raise HostError(f"cannot find the tracepoint {category}:{name}: {error.strerror}", hint) from None
    return _attach(program_fd, _PERF_TYPE_TRACEPOINT, number, (0, 0), -1, f"the tracepoint {category}:{name}")


def attach_raw_tracepoint(program_fd: int, name: str) -> int:
    """Run ``program_fd`` at a tracepoint with the kernel's own arguments; returns a descriptor. Raises HostError."""
    buffer = ctypes.create_string_buffer(name.encode())
    fd = _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", ctypes.addressof(buffer), program_fd))
    if fd < 0:
        raise refused(f"attach to the tracepoint {name}", -fd)
    return fd


def attach_software_event(program_fd: int, name: str, cpu: int, period: int = 1) -> int:
    """Run ``program_fd`` at every ``period``-th perf software event (nanoseconds for cpu_clock) of one CPU.

    Returns the event's descriptor. Raises HostError.
    """
    number = _SOFTWARE_EVENTS[name]
    where = f"the software event {name} of CPU {cpu}"
    return _attach(program_fd, _PERF_TYPE_SOFTWARE, number, (0, 0), -1, where, cpu, period)


def attach_samples(program_fd: int, kind: int, config: tuple[int, int, int], name: str, cpu: int, hz: int) -> int:
    """Run ``program_fd`` about ``hz`` times a second of a perf event of one CPU that keeps happening.

    The kernel finds the period that this takes. Returns the event's descriptor. Raises HostError.
    """
    where = f"samples of {name} on CPU {cpu}"
    return _attach(program_fd, kind, config[0], config[1:], -1, where, cpu, hz, _FREQUENCY)


def attach_every(program_fd: int, kind: int, config: tuple[int, int, int], name: str, cpu: int) -> int:
    """Run ``program_fd`` at every single perf event of a kind on one CPU: the event's descriptor. Raises HostError."""
    return _attach(program_fd, kind, config[0], config[1:], -1, f"the event {name} on CPU {cpu}", cpu)


def _attach(
    program_fd: int,
    kind: int,
    config: int,
    more: tuple[int, int],
    pid: int,
    where: str,
    cpu: int | None = None,
    period: int = 1,
    flags: int = 0,
) -> int:
    action = f"set a probe on {where}"
    fd = perf_event_open(kind, (config, *more), _DISABLED | flags, 0, pid, action, sample_period=period, cpu=cpu)
    try:
        fcntl.ioctl(fd, _IOC_SET_BPF, program_fd)
        fcntl.ioctl(fd, _IOC_ENABLE, 0)
    except OSError as error:
        os.close(fd)
        raise refused(f"attach to {where}", error.errno or 0) from None
    return fd


def perf_event_open(
    kind: int,
    config: tuple[int, int, int],
    flags: int,
    read_format: int,
    tid: int,
    action: str,
    sample_period: int = 0,
    cpu: int | None = None,
    sampled: tuple[int, int, int] = (0, 0, 0),
) -> int:
    """The descriptor of a perf event on a thread (any CPU), or for ``tid`` -1 on one CPU (0). Raises HostError.

    ``flags`` are the bits of perf_event_attr behind read_format; ``action`` says in a message what was refused.
    ``sampled``: what a sample has (sample_type), which user registers, and how many bytes of the stack.
    """
    # struct perf_event_attr, PERF_ATTR_SIZE_VER5: type, size, config, sample_period, sample_type, read_format, flags,
    # wakeup, bp_type, config1, config2, branch_sample_type, sample_regs_user, sample_stack_user.
    what, registers, stack_bytes = sampled
    numbers = (kind, 112, config[0], sample_period, what, read_format, flags, 0, 0, *config[1:], 0, registers, stack_bytes)
    attr = struct.pack("<IIQQQQQIIQQQQI", *numbers)
    buffer = ctypes.create_string_buffer(attr.ljust(112, b"\0"), 112)
    if cpu is None:
        cpu = 0 if tid == -1 else -1
    where = (ctypes.c_int(tid), ctypes.c_int(cpu), ctypes.c_int(-1), ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC))
    fd = _syscall(host_arch().syscall_perf_event_open, buffer, *where)
    if fd < 0:
        raise refused(action, ctypes.get_errno(), is_perf_event=True)
    return fd


@contextlib.contextmanager
def closing_all(fds: list[int]) -> Iterator[None]:
    """Close every descriptor in ``fds`` (including those added later) on the way out.

    Detaching a probe waits until no CPU can be in its program, 60 ms or so, for all at once as well as for one.
    """
    try:
        yield
    finally:
        threads = [threading.Thread(target=os.close, args=(fds.pop(),)) for _ in range(len(fds))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
