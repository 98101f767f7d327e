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

import contextlib
import os
import re
import struct
from typing import TYPE_CHECKING

from gotrace.errors import HostError
from gotrace.kernel.btf import TASK_FIELDS, field_offsets, task_settings
from gotrace.kernel.process import is_there
from gotrace.probe import Kind, PlanBuilder, Probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gotrace.binary.program import GoProgram
    from gotrace.kernel.bpf import LoadedObject
    from gotrace.probe import Plan, Traceable

# How a call names its file. By a descriptor: the first argument; the second, sendfile's source; the fifth, of a mapping;
# the first of fcntl for locks, of ioctl for copies. By a path: the first argument, or after a folder's descriptor; the
# second, or the third after a folder's. What executes it has replaced its arguments at the end. What opens a file has it
# by the descriptor that it returns, and before that by a path, or not at all. NOTHING: it is counted, and has no file.
FD, SOURCE, MAP, LOCK, CLONE, PATH, AT, SECOND, SECOND_AT, EXEC, EXEC_AT, OPEN, OPEN_AT, RETURNS, NOTHING = range(1, 16)

# call -> how it names its file. Where two files are named, it is the first: a copy's source, the old name.
CALLS = {
    **dict.fromkeys(("read", "pread64", "readv", "preadv", "preadv2", "write", "pwrite64", "writev", "pwritev"), FD),
    **dict.fromkeys(("pwritev2", "copy_file_range", "splice", "fsync", "fdatasync", "sync_file_range", "syncfs"), FD),
    **dict.fromkeys(("close", "fstat", "fstatfs", "lseek", "getdents", "getdents64", "ftruncate", "fallocate"), FD),
    **dict.fromkeys(("flock", "fadvise64", "readahead", "fchmod", "fchown", "fgetxattr", "fsetxattr", "flistxattr"), FD),
    **dict.fromkeys(("fremovexattr", "fchdir", "tee", "vmsplice"), FD),
    "sendfile": SOURCE,
    "mmap": MAP,
    "fcntl": LOCK,
    "ioctl": CLONE,
    **dict.fromkeys(("stat", "lstat", "access", "readlink", "statfs", "truncate", "unlink", "rmdir", "mkdir"), PATH),
    **dict.fromkeys(("rename", "chmod", "chown", "lchown", "link", "mknod", "utimes", "getxattr", "lgetxattr"), PATH),
    **dict.fromkeys(("setxattr", "lsetxattr", "listxattr", "llistxattr", "removexattr", "lremovexattr"), PATH),
    **dict.fromkeys(("chdir", "chroot"), PATH),
    **dict.fromkeys(("newfstatat", "statx", "faccessat", "faccessat2", "readlinkat", "unlinkat", "mkdirat"), AT),
    **dict.fromkeys(("renameat", "renameat2", "fchmodat", "fchmodat2", "fchownat", "linkat", "mknodat", "utimensat"), AT),
    "name_to_handle_at": AT,
    **dict.fromkeys(("symlink", "inotify_add_watch"), SECOND),
    "symlinkat": SECOND_AT,
    "execve": EXEC,
    "execveat": EXEC_AT,
    **dict.fromkeys(("open", "creat"), OPEN),
    **dict.fromkeys(("openat", "openat2"), OPEN_AT),
    **dict.fromkeys(("open_by_handle_at", "memfd_create"), RETURNS),
    **dict.fromkeys(("io_submit", "msync", "sync", "close_range"), NOTHING),
}

# Numbers of what is no system call. IO_URING: and its operation. A page fault in a call took a part of the call's time.
IO_URING, PAGE_FAULT, FAULT_IN_CALL = 0x400, 0x800, 0x801
# enum io_uring_op of linux/io_uring.h, from 0 on. Those with a + are on files (or on whatever their descriptor is), and
# have their class by their name; the others wait for something else: sockets, timers, other requests.
_OPERATIONS = re.findall(
    r"\S+",
    "nop +readv +writev +fsync +read_fixed +write_fixed poll_add poll_remove +sync_file_range sendmsg recvmsg timeout "
    "timeout_remove accept async_cancel link_timeout connect +fallocate +openat +close files_update +statx +read +write "
    "+fadvise madvise send recv +openat2 epoll_ctl +splice provide_buffers remove_buffers +tee shutdown +renameat "
    "+unlinkat +mkdirat +symlinkat +linkat msg_ring +fsetxattr +setxattr +fgetxattr +getxattr socket uring_cmd send_zc "
    "sendmsg_zc +read_multishot waitid futex_wait futex_wake futex_waitv fixed_fd_install +ftruncate bind listen recv_zc "
    "epoll_wait +readv_fixed +writev_fixed pipe nop128 uring_cmd128",
)
IO_URING_OPERATIONS = {number: name.lstrip("+") for number, name in enumerate(_OPERATIONS)}
IO_URING_ON_FILES = {number for number, name in enumerate(_OPERATIONS) if name[0] == "+"}

DIRECT = 1  # flag of a call: past the page cache (O_DIRECT)
# flags of a file, above its mode: it had no name any more; it is a text, not a file; it is known by a mapping alone; it is
# a text that is longer than the kernel takes, and cut off
DELETED, TEXT, MAPPED, CUT = 1 << 16, 1 << 17, 1 << 18, 1 << 19
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

# What has to be where it was, and is no setting.
_CHECKED = {"fdt_fd": ("fdtable", "fd"), "file_dentry": ("file", "f_path.dentry")}
# setting -> (the kernel's struct, its field)
_FIELDS = {
    **{name: TASK_FIELDS[name] for name in ("task_pid", "task_tgid")},
    "task_files": ("task_struct", "files"),
    "task_fs": ("task_struct", "fs"),
    "files_fdt": ("files_struct", "fdt"),
    "fdt_max": ("fdtable", "max_fds"),
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
_OPTIONAL_FIELDS = {
    "task_status": ("task_struct", "thread_info.status"),
    "request_file": ("io_kiocb", "file"),
    "task_mm": ("task_struct", "mm"),
    "mm_exe": ("mm_struct", "exe_file"),
    "filename_name": ("filename", "name"),
    "binprm_filename": ("linux_binprm", "filename"),
}
# io_uring's operations whose names the kernel has copied when they are submitted: what they keep in a request (which begins
# with it), the folder's descriptor and the name there. They begin where a request does. Of two names it is the first.
_NAMED = {
    "openat": ("io_open", "dfd", "filename"),
    "openat2": ("io_open", "dfd", "filename"),
    "statx": ("io_statx", "dfd", "filename"),
    "unlinkat": ("io_unlink", "dfd", "filename"),
    "mkdirat": ("io_mkdir", "dfd", "filename"),
    "renameat": ("io_rename", "old_dfd", "oldpath"),
    "linkat": ("io_link", "old_dfd", "oldpath"),
    "symlinkat": ("io_link", "new_dfd", "newpath"),
}

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
        *("tgid", "cgroup", "cgroup_level", "o_direct", "page_order", "dentry_ordered", "close_fd"),
        *(f"named{number}" for number in range(len(_NAMED))),
        *(f"shapes{word}" for word in range(_SLOTS)),
        *_FIELDS,
        *_OPTIONAL_FIELDS,
    ),
    hits=(
        *("on_tracepoint__sys_enter", "on_tracepoint__sys_exit"),
        *("on_tracepoint__sched_process_exec", "on_tracepoint__sched_process_fork", "on_tracepoint__sched_process_free"),
        *("on_software_event__page_faults", "on_software_event__page_faults_maj"),
        *_OPTIONAL,
    ),
    constants={
        "SHAPE_FD": FD,
        "SHAPE_SOURCE": SOURCE,
        "SHAPE_MAP": MAP,
        "SHAPE_LOCK": LOCK,
        "SHAPE_CLONE": CLONE,
        "SHAPE_PATH": PATH,
        "SHAPE_AT": AT,
        "SHAPE_SECOND": SECOND,
        "SHAPE_SECOND_AT": SECOND_AT,
        "SHAPE_EXEC": EXEC,
        "SHAPE_EXEC_AT": EXEC_AT,
        "SHAPE_OPEN": OPEN,
        "SHAPE_OPEN_AT": OPEN_AT,
        "SHAPE_RETURNS": RETURNS,
        "SHAPE_SLOTS": _SLOTS,
        "IO_URING": IO_URING,
        "URING_CLOSE": _OPERATIONS.index("+close"),
        "NAMED": len(_NAMED),
        "PAGE_FAULT": PAGE_FAULT,
        "FAULT_IN_CALL": FAULT_IN_CALL,
        "DIRECT": DIRECT,
        "LONG_NS": LONG_NS,
        "DELETED": DELETED,
        "TEXT": TEXT,
        "MAPPED": MAPPED,
        "CUT": CUT,
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

    fields = {**_FIELDS, **_OPTIONAL_FIELDS, **_CHECKED}
    found = {name: offset for name, offset in task_settings(fields).items() if name in fields}
    lacking = sorted((_FIELDS.keys() | _CHECKED.keys()) - found.keys())
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
    about = {"close_fd": _offset("io_close", "fd"), **_named()}
    about |= {"o_direct": os.O_DIRECT, "page_order": page_order(), "dentry_ordered": int(_is_ordered(found, _DENTRY))}
    return {**{name: found[name] for name in found.keys() - _CHECKED.keys()}, **shapes, **whose, **about}


def _offset(struct_name: str, field: str) -> int:
    """0 where there is none."""
    return field_offsets(((struct_name, field),))[0] or 0


def _named() -> dict[str, int]:
    """Of each of `_NAMED` its number + 1, from bit 16 on where its folder is, from bit 32 on its name; 0: not known."""
    found = {}
    for slot, (name, (struct_name, *fields)) in enumerate(_NAMED.items()):
        folder, path = (_offset(struct_name, field) for field in fields)
        number = _OPERATIONS.index(f"+{name}") + 1
        found[f"named{slot}"] = number | folder << 16 | path << 32 if folder and path else 0
    return found


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


def in_progress(loaded: LoadedObject) -> list[tuple[int, int, int, int, int, str | None]]:
    """(process, thread, begin, number, file, path) of each call whose end was not seen. The file of one that names it by a
    path is known at its end: until then it is the path that it was given, if that can be read."""
    found = []
    for key, value in loaded.maps["calls"].items():
        tid, tgid = struct.unpack("=II", key)
        begin_ns, file = struct.unpack_from("=QQ", value)
        if begin_ns:
            number = struct.unpack_from("=I", value, 32)[0]
            found.append((tgid, tid, begin_ns, number, file, None if file else _given(tgid, tid, number)))
    return found


# Which argument is the path, and which the folder's descriptor.
_ARGUMENTS = {
    **dict.fromkeys((PATH, OPEN, EXEC), (0, None)),
    **dict.fromkeys((AT, OPEN_AT, EXEC_AT), (1, 0)),
    SECOND: (1, None),
    SECOND_AT: (2, 1),
}


_FROM_HERE = (1 << 32) - 100  # AT_FDCWD


def _given(pid: int, tid: int, number: int) -> str | None:
    """The path that the call was given in which a thread is now: /proc/PID/syscall has its arguments (proc(5))."""
    places = _ARGUMENTS.get(CALLS.get(_numbers().get(number, ""), NOTHING))
    try:
        with open(f"/proc/{pid}/task/{tid}/syscall") as file:
            now, *words = file.read().split()
        if places is None or now != str(number):
            return None
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            text = os.pread(memory.fileno(), 4096, int(words[places[0]], 16)).split(b"\0", 1)[0]
        folder = _FROM_HERE if places[1] is None else int(words[places[1]], 16) & 0xFFFFFFFF
        below = "cwd" if folder == _FROM_HERE else f"fd/{folder}"
        base = "" if text[:1] == b"/" else os.readlink(f"/proc/{pid}/{below}")
    except (OSError, ValueError):
        return None
    return (base.rstrip("/") + "/" if base else "") + text.decode("utf-8", "surrogateescape")


def unseen(loaded: LoadedObject, pid: int, any_seen: bool) -> dict[str, int]:
    """What was left out: ``compatible`` calls of 32-bit programs; ``running``, processes that are there still though the
    first one is gone; ``in_calls``, its threads that are in a call that began before anything was seen."""
    running = [tgid for (tgid,) in (struct.unpack("=I", key) for key, _ in loaded.maps["followed"].items()) if tgid != pid]
    inside = 0
    if not any_seen:
        for tid in _tasks(pid):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{tid}/syscall") as file:
                inside += file.read().split()[0].isdigit()
    return {
        "compatible": struct.unpack("=Q", next(value for _, value in loaded.maps["compatible"].items()))[0],
        "running": 0 if is_there(pid) else sum(map(is_there, running)),
        "in_calls": inside,
    }


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def plan(program: GoProgram) -> Plan:
    """In the program itself nothing is probed. ``facts["calls"]`` has the names of calls by their numbers, as JSON."""
    return PlanBuilder(program).plan({"calls": {str(number): name for number, name in _numbers().items()}})
