"""The calls that processes make on files: one event each, with the file, its mount and what the cache had of it.

The tracepoints ``sys_enter`` and ``sys_exit`` see every call of a process and of those that it forks from then on. Which
calls, and which argument of each names the file, `CALLS` says. The file is walked to from the descriptor table at the time
of the call (task_struct, files_struct, fdtable, file, dentry, mount: offsets from BTF), so that dup, fork and descriptors
that came over a socket need no bookkeeping; a failed open or a stat has its text alone. Pages that a thread reads into the
page cache meanwhile (``mm_filemap_add_to_page_cache``) tell a read that missed it from one that hit.

io_uring passes by every system call: ``io_uring_submit_req`` and ``io_uring_complete`` see its requests. Mapped files are
read in page faults: the software events ``page_faults`` and ``page_faults_maj``, and ``mm_filemap_fault`` for which file it
was. Requests to a FUSE server (``fuse_request_send``, ``fuse_request_end``) tell its share of a call.
"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING

from gotrace.errors import HostError
from gotrace.kernel.btf import TASK_FIELDS, task_settings
from gotrace.probe import Kind, PlanBuilder, Probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gotrace.binary.program import GoProgram
    from gotrace.kernel.bpf import LoadedObject
    from gotrace.probe import Plan, Traceable

# How a call names its file: by a descriptor (the first argument; the second, sendfile's source; the fifth, of a mapping),
# by a path, or by a folder's descriptor and a path. What opens a file has it by the descriptor that it returns. NOTHING:
# it is counted, and has no file.
FD, SOURCE, MAP, PATH, AT, OPEN, OPEN_AT, NOTHING = range(1, 9)

# call -> how it names its file. Where two files are named, it is the first: a copy's source, the old name.
CALLS = {
    **dict.fromkeys(("read", "pread64", "readv", "preadv", "preadv2", "write", "pwrite64", "writev", "pwritev"), FD),
    **dict.fromkeys(("pwritev2", "copy_file_range", "splice", "fsync", "fdatasync", "sync_file_range", "syncfs"), FD),
    **dict.fromkeys(("close", "fstat", "fstatfs", "lseek", "getdents", "getdents64", "ftruncate", "fallocate"), FD),
    **dict.fromkeys(("flock", "fadvise64", "readahead", "fchmod", "fchown", "fgetxattr", "fsetxattr", "flistxattr"), FD),
    "sendfile": SOURCE,
    "mmap": MAP,
    **dict.fromkeys(("stat", "lstat", "access", "readlink", "statfs", "truncate", "unlink", "rmdir", "mkdir"), PATH),
    **dict.fromkeys(("rename", "chmod", "chown", "lchown", "link", "mknod", "utimes", "getxattr", "lgetxattr"), PATH),
    **dict.fromkeys(("setxattr", "listxattr", "chdir"), PATH),
    **dict.fromkeys(("newfstatat", "statx", "faccessat", "faccessat2", "readlinkat", "unlinkat", "mkdirat"), AT),
    **dict.fromkeys(("renameat", "renameat2", "fchmodat", "fchownat", "linkat", "mknodat", "utimensat"), AT),
    **dict.fromkeys(("open", "creat"), OPEN),
    **dict.fromkeys(("openat", "openat2"), OPEN_AT),
    **dict.fromkeys(("io_submit", "msync", "sync"), NOTHING),
}

# Numbers of what is no system call. IO_URING: and its operation.
IO_URING, PAGE_FAULT = 0x400, 0x800
# enum io_uring_op of linux/io_uring.h: those on files
_OPERATIONS = (
    "1 readv 2 writev 3 fsync 4 read_fixed 5 write_fixed 8 sync_file_range 17 fallocate 18 openat 19 close 21 statx "
    "22 read 23 write 24 fadvise 28 openat2 30 splice 35 renameat 36 unlinkat 37 mkdirat 55 ftruncate 58 readv_fixed "
    "59 writev_fixed"
)
IO_URING_OPERATIONS = {int(number): name for number, name in re.findall(r"(\d+) (\w+)", _OPERATIONS)}

DIRECT = 1  # flag of a call: past the page cache (O_DIRECT)
# flags of a file, above its mode: it had no name any more; it is a text, not a file; it is known by a mapping alone
DELETED, TEXT, MAPPED = 1 << 16, 1 << 17, 1 << 18
LONG_NS = 1_000_000  # calls that take so long have a stack
_SLOTS = 32  # words of 16 calls each

_OPTIONAL = (
    "on_trace_event__filemap__mm_filemap_add_to_page_cache",
    "on_trace_event__filemap__mm_filemap_fault",
    "on_trace_event__io_uring__io_uring_submit_req",
    "on_trace_event__io_uring__io_uring_complete",
    "on_trace_event__fuse__fuse_request_send",
    "on_trace_event__fuse__fuse_request_end",
)

# setting -> (the kernel's struct, its field)
_FIELDS = {
    **{name: TASK_FIELDS[name] for name in ("task_pid", "task_tgid")},
    "task_files": ("task_struct", "files"),
    "task_fs": ("task_struct", "fs"),
    "files_fdt": ("files_struct", "fdt"),
    "fdt_max": ("fdtable", "max_fds"),
    "fdt_fd": ("fdtable", "fd"),
    "file_dentry": ("file", "f_path.dentry"),
    "file_mnt": ("file", "f_path.mnt"),
    "file_inode": ("file", "f_inode"),
    "file_flags": ("file", "f_flags"),
    "inode_ino": ("inode", "i_ino"),
    "inode_sb": ("inode", "i_sb"),
    "inode_mode": ("inode", "i_mode"),
    "sb_dev": ("super_block", "s_dev"),
    "sb_magic": ("super_block", "s_magic"),
    "sb_type": ("super_block", "s_type"),
    "type_name": ("file_system_type", "name"),
    "dentry_parent": ("dentry", "d_parent"),
    "dentry_inode": ("dentry", "d_inode"),
    "dentry_hash": ("dentry", "d_name.hash_len"),
    "dentry_name": ("dentry", "d_name.name"),
    "dentry_pprev": ("dentry", "d_hash.pprev"),
    "dentry_sb": ("dentry", "d_sb"),
    "vfsmount_root": ("vfsmount", "mnt_root"),
    "mount_mnt": ("mount", "mnt"),
    "mount_id": ("mount", "mnt_id"),
    "mount_parent": ("mount", "mnt_parent"),
    "mount_mountpoint": ("mount", "mnt_mountpoint"),
    "fs_pwd_dentry": ("fs_struct", "pwd.dentry"),
    "fs_pwd_mnt": ("fs_struct", "pwd.mnt"),
    "fs_root_dentry": ("fs_struct", "root.dentry"),
    "fs_root_mnt": ("fs_struct", "root.mnt"),
}
_DENTRY = ("dentry_pprev", "dentry_parent", "dentry_hash", "dentry_name", "dentry_inode")
# What a kernel can do without: of 32-bit programs on x86-64, and of io_uring.
_OPTIONAL_FIELDS = {"task_status": ("task_struct", "thread_info.status"), "request_file": ("io_kiocb", "file")}

PROBE = Probe(
    stem="datapath",
    summary="calls on files, of any process and of those it forks",
    kinds=(
        # at its end. what: its number, from bit 16 on flags, from bit 32 on pages read into the cache meanwhile; file: a
        # node, 0 for none; result: as the call returned it
        Kind("call", 0xE01, ("begin_ns", "what", "file", "result", "process")),
        # 24 bytes of a node's name, and where they begin in it
        Kind("name", 0xE02, ("node", "at", "name0", "name1", "name2"), once=True),
        # parent: the directory, 0 for none; place: its device (major << 20 | minor) | mount << 32; mode: with flags above
        Kind("file", 0xE03, ("node", "parent", "inode", "place", "mode"), once=True),
        # mount: as mountinfo numbers it; the type's name are 16 bytes in two words
        Kind("mount", 0xE04, ("mount", "device", "magic", "type_low", "type_high"), once=True),
        # a request to a FUSE server has ended; call_ns: when the call that it was for had begun
        Kind("served", 0xE05, ("begin_ns", "operation", "call_ns", "connection", "process")),
        # three addresses of a stack, as `gotrace.analysis.stacks.COLUMNS` has them, and of which stack a long call came
        Kind("call_stack", 0xE06, ("stack", "place", "pc0", "pc1", "pc2"), once=True),
        Kind("called_from", 0xE07, ("begin_ns", "stack", "process")),
    ),
    config=(
        *("tgid", "cgroup", "cgroup_level", "o_direct", "page_order", "dentry_ordered"),
        *(f"shapes{word}" for word in range(_SLOTS)),
        *_FIELDS,
        *_OPTIONAL_FIELDS,
    ),
    hits=(
        *("on_tracepoint__sys_enter", "on_tracepoint__sys_exit"),
        *("on_tracepoint__sched_process_fork", "on_tracepoint__sched_process_free"),
        *("on_software_event__page_faults", "on_software_event__page_faults_maj"),
        *_OPTIONAL,
    ),
    constants={
        "SHAPE_FD": FD,
        "SHAPE_SOURCE": SOURCE,
        "SHAPE_MAP": MAP,
        "SHAPE_PATH": PATH,
        "SHAPE_AT": AT,
        "SHAPE_OPEN": OPEN,
        "SHAPE_OPEN_AT": OPEN_AT,
        "SHAPE_SLOTS": _SLOTS,
        "IO_URING": IO_URING,
        "PAGE_FAULT": PAGE_FAULT,
        "DIRECT": DIRECT,
        "LONG_NS": LONG_NS,
        "DELETED": DELETED,
        "TEXT": TEXT,
        "MAPPED": MAPPED,
    },
    optional=_OPTIONAL,
    kernel_hit_ns=500.0,
    ring_bytes=32 << 20,
    go=False,
    tree=True,
)


def settings(target: Traceable) -> dict[str, int]:
    """Which processes are followed, and where the kernel keeps their files. Raises HostError without BTF."""

    from gotrace.kernel.executable import Executable, Filter
    from gotrace.kernel.host import kernel_pid

    fields = {**_FIELDS, **_OPTIONAL_FIELDS}
    found = {name: offset for name, offset in task_settings(fields).items() if name in fields}
    lacking = sorted(_FIELDS.keys() - found.keys())
    if not lacking and not (_is_ordered(found, ("file_mnt", "file_dentry")) and _is_ordered(found, ("fdt_max", "fdt_fd"))):
        lacking = ["struct path and fdtable as they were"]
    if lacking:
        raise HostError(
            f"this kernel keeps files in a way that is not known (no {lacking[0]})", "report it with `uname -r`"
        )
    which = target.which if isinstance(target, Executable) else Filter()
    tgid = 0 if which.cgroup else kernel_pid(target.pid)
    if not tgid and not which.cgroup:
        raise HostError("processes cannot be followed from within a PID namespace", "run gotrace outside of containers")
    shapes = dict.fromkeys((f"shapes{word}" for word in range(_SLOTS)), 0)
    for number, name in _numbers().items():
        shapes[f"shapes{number >> 4}"] |= CALLS[name] << (number & 15) * 4
    whose = {"tgid": tgid, "cgroup": which.cgroup, "cgroup_level": which.cgroup_level}
    about = {"o_direct": os.O_DIRECT, "page_order": page_order(), "dentry_ordered": int(_is_ordered(found, _DENTRY))}
    return {**found, **shapes, **whose, **about}


def _is_ordered(offsets: dict[str, int], fields: Sequence[str]) -> bool:
    """Whether the kernel keeps these pointers one after the other, as the structs of the C text have them."""
    return [offsets[name] for name in fields] == [offsets[fields[0]] + 8 * place for place in range(len(fields))]


def page_order() -> int:
    """Where the tracepoint keeps how many pages came at once; 0 on a kernel where it is always one, or that has none."""
    try:
        with open("/sys/kernel/tracing/events/filemap/mm_filemap_add_to_page_cache/format") as file:
            match = re.search(r" order;\s*offset:(\d+);\s*size:1;", file.read())
    except OSError:
        return 0
    return int(match[1]) if match else 0


def _numbers() -> dict[int, str]:
    """The calls by their numbers on this machine."""
    from gotrace.kernel.system_calls import names

    return {number: name for number, name in names().items() if name in CALLS}


def in_progress(loaded: LoadedObject) -> list[tuple[int, int, int, int, int]]:
    """(process, thread, begin, number, file) of each call whose end was not seen; what opens has no file yet."""
    found = []
    for key, value in loaded.maps["calls"].items():
        tid, tgid = struct.unpack("=II", key)
        begin_ns, file = struct.unpack_from("=QQ", value)
        if begin_ns:
            found.append((tgid, tid, begin_ns, struct.unpack_from("=I", value, 32)[0], file))
    return found


def plan(program: GoProgram) -> Plan:
    """In the program itself nothing is probed. ``facts["calls"]`` has the names of calls by their numbers, as JSON."""
    return PlanBuilder(program).plan({"calls": {str(number): name for number, name in _numbers().items()}})
