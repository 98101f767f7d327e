"""Whether a probe that is set on one file is hit in another: they may be one file to the kernel alone.

Each container has an overlay of its image, with a device number of its own; the kernel puts a probe into the file beneath,
which all of them share. No call tells which file that is: inode numbers differ with the layers or repeat on another file
system, and a handle (name_to_handle_at) stays what it was when the file is copied up. So the kernel is asked to show it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable

from gotrace.arch import host_arch
from gotrace.errors import HostError
from gotrace.kernel import bpf


def is_same_to_probes(first: int, second: int, probed: int, offsets: Iterable[int]) -> bool:
    """Whether a probe set by the descriptor ``first`` is set in ``second``; False, too, where that cannot be shown.

    ``first`` has a probe for every process at the offset ``probed``: if ``second`` has none there, that is all. One that
    it has may be somebody else's, so another is set for us alone, and looked for in what we have mapped of ``second``: at
    one of ``offsets``, where there are instructions and no probes. No other process sees anything of it.
    """
    trap = host_arch().uprobe_breakpoint
    with contextlib.ExitStack() as stack:
        try:
            # Not writable, else there are no breakpoints in it.
            seen = stack.enter_context(mmap.mmap(second, 0, mmap.MAP_PRIVATE, mmap.PROT_READ))
            if seen[probed : probed + len(trap)] != trap:
                return False
            program = bpf.load_program("same_file", bpf.RETURN_ZERO)
            stack.callback(os.close, program)
        except (OSError, ValueError, HostError):
            return False
        for offset in offsets:
            here = slice(offset, offset + len(trap))
            if seen[here] != os.pread(second, len(trap), offset):
                continue  # somebody's probe, which proves nothing
            try:
                probe = bpf.attach_uprobe(program, f"/proc/self/fd/{first}", offset, os.getpid())
            except HostError:
                continue  # not every instruction can have one
            try:
                return seen[here] == trap
            finally:
                os.close(probe)
    return False
