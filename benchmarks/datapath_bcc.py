"""How one writes it with BCC: the call's two tracepoints, a hash by thread, an event with the file. Until SIGTERM.

An event has how long the call took, what it returned, and of the file device, inode and its own name (no path): what
BCC's fileslower has. The processes that it follows are those of one name.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

from gotrace.kernel.btf import task_settings
from gotrace.kernel.compiler import ebpf_folder, import_bcc
from gotrace.probes.datapath import _FIELDS

TEXT = """
#include <linux/types.h>

struct start { u64 ns; u64 file; };
struct event { u64 begin_ns, end_ns; s64 result; u64 inode; u32 device, pid, tid; char name[32]; };

BPF_HASH(starts, u32, struct start, 10240);
BPF_RINGBUF_OUTPUT(events, 16384);
BPF_ARRAY(lost, u64, 1);

static inline u64 word(u64 at) { u64 value = 0; bpf_probe_read_kernel(&value, 8, (void *)at); return value; }
static inline bool is_wanted(void)
{
	char name[16];

	bpf_get_current_comm(name, sizeof(name));
	return *(u64 *)name == COMM;
}

int on_enter(struct { u64 common; u64 number; u64 fd; } *ctx)
{
	struct start start = {};
	u32 tid = bpf_get_current_pid_tgid();
	u64 task = bpf_get_current_task(), table;

	if (!is_wanted())
		return 0;
	table = word(word(task + TASK_FILES) + FILES_FDT);
	start.file = word(word(table + FDT_FD) + 8 * (u32)ctx->fd);
	start.ns = bpf_ktime_get_ns();
	starts.update(&tid, &start);
	return 0;
}

int on_exit(struct { u64 common; u64 number; s64 result; } *ctx)
{
	u64 end_ns = bpf_ktime_get_ns(), id = bpf_get_current_pid_tgid(), inode, dentry, *count;
	struct start *start;
	struct event *event;
	u32 tid = id;
	int zero = 0;

	start = starts.lookup(&tid);
	if (!start)
		return 0;
	event = events.ringbuf_reserve(sizeof(*event));
	if (event) {
		dentry = word(start->file + FILE_DENTRY);
		inode = word(start->file + FILE_INODE);
		event->begin_ns = start->ns;
		event->end_ns = end_ns;
		event->result = ctx->result;
		event->pid = id >> 32;
		event->tid = id;
		event->inode = word(inode + INODE_INO);
		event->device = word(word(inode + INODE_SB) + SB_DEV);
		bpf_probe_read_kernel_str(event->name, sizeof(event->name), (void *)word(dentry + DENTRY_NAME));
		events.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	} else if ((count = lost.lookup(&zero))) {
		__sync_fetch_and_add(count, 1);
	}
	starts.delete(&tid);
	return 0;
}
"""


def main(comm: str) -> None:
    os.environ["BCC_KERNEL_SOURCE"] = ebpf_folder()
    flags = [f"-D{name.upper()}={offset}" for name, offset in task_settings(_FIELDS).items() if name in _FIELDS]
    flags += [f"-DCOMM={int.from_bytes(comm.encode()[:8], 'little')}ULL", "-Wno-everything"]
    bpf: Any = import_bcc().BPF(text=TEXT, cflags=flags)
    for which in ("enter", "exit"):
        bpf.attach_tracepoint(f"syscalls:sys_{which}_pread64", fn_name=f"on_{which}")
    print("ready", flush=True)
    signal.sigwait([signal.SIGTERM])
    seen = []
    bpf["events"].open_ring_buffer(lambda _, data, size: seen.append(size))  # it has room for all
    bpf.ring_buffer_consume()
    print(len(seen), bpf["lost"][ctypes.c_int(0)].value, flush=True)


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
main(sys.argv[1])
