"""The names of system calls against the kernel's headers on this machine, and calls as /proc tells them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from gotrace.arch import AMD64, ARM64, host_arch
from gotrace.kernel import system_calls
from gotrace.kernel.system_calls import system_call_of

COMPILERS = {AMD64.goarch: "x86_64-linux-gnu-gcc", ARM64.goarch: "aarch64-linux-gnu-gcc"}


@pytest.mark.parametrize("goarch", COMPILERS)
def test_names_are_the_kernels(goarch: str) -> None:
    """Every call that these headers have; the table may be of a newer kernel."""
    compiler = "gcc" if goarch == host_arch().goarch else COMPILERS[goarch]
    command = [compiler, "-E", "-dM", "-x", "c", "-include", "asm/unistd.h", "/dev/null"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    defined = dict(re.findall(r"^#define (__NR\w*_\w+) (\w+)$", text, re.M))
    theirs = {}
    for name, value in defined.items():
        while not value.isdigit() and value in defined:  # __NR_read is __NR3264_read is 63
            value = defined[value]
        if value.isdigit() and not name.startswith("__NR3264_"):
            theirs[name.removeprefix("__NR_")] = int(value)
    ours = json.loads(system_calls._TABLE.read_text())[goarch]
    for name in ("syscalls", "arch_specific_syscall"):  # a number of them, and where an architecture's own begin
        theirs.pop(name, None)
    assert len(theirs) > 250 and theirs.items() <= ours.items(), {*theirs.items()} - {*ours.items()}


def test_a_call_on_a_file() -> None:
    there, here = os.pipe()
    with subprocess.Popen([sys.executable, "-c", f"import os; os.read({there}, 1)"], pass_fds=[there]) as child:
        try:
            while (call := system_call_of(child.pid, child.pid)) is None or call.name != "read" or call.fd != there:
                assert child.poll() is None
            assert call.file == os.readlink(f"/proc/self/fd/{there}")
        finally:
            os.close(here)
            os.close(there)
            child.kill()


def test_none() -> None:
    """Of a thread that runs, and of one that is not there."""
    with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            assert system_call_of(child.pid, child.pid) is None
        finally:
            child.kill()
    assert system_call_of(os.getpid(), 1) is None
