"""Work in a child process, which is over when whoever wanted it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from gotrace.errors import GotraceError
from gotrace.kernel.child import Child
from gotrace.kernel.process import is_there

CODE = """
import time
from gotrace.kernel.child import Child
print(Child(time.sleep, 60)._pid, flush=True)
time.sleep(60)
"""


def test_it_ends_with_whoever_is_killed() -> None:
    """It has all that its parent had: an agent's port, and its probes."""
    with subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_there(child)
        parent.kill()
    until_s = time.monotonic() + 20
    while is_there(child):
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_file_that_is_missing_is_told_as_such() -> None:
    with pytest.raises(GotraceError, match=r"^/nowhere/at/all: No such file or directory$"):
        Child(os.stat, "/nowhere/at/all").result()
