"""Completion in a shell: what `--pid <TAB>` offers, by click's own protocol."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

import targets
from conftest import GOTRACE


def completed(words: str, beginning: str = "") -> dict[str, str]:
    """What is offered for a word after ``words``, and the text beside it. In zsh's form, which has both."""
    environment = {**os.environ, "_GOTRACE_COMPLETE": "zsh_complete", "COMP_WORDS": f"gotrace {words} {beginning}"}
    environment["COMP_CWORD"] = str(len(words.split()) + 1)
    done = subprocess.run([*GOTRACE], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    return dict(zip(lines[1::3], lines[2::3], strict=True))


@pytest.mark.parametrize("command", ["gc", "record", "flame", "mem", "doctor", "faults"])
def test_go_processes_are_offered(command, start):
    pid = str(start(targets.build("gcload")).pid)
    with subprocess.Popen(["sleep", "60"]) as other:
        offered = completed(f"{command} --pid")
        other.kill()
    assert offered[pid] == "gcload"
    assert not {str(other.pid), str(os.getpid()), "1"} & offered.keys()


def test_what_was_typed_is_the_beginning(start):
    first, second = (str(start(targets.build("gcload")).pid) for _ in range(2))
    offered = completed("gc --pid", first)
    assert first in offered and second not in offered and all(pid.startswith(first) for pid in offered)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_processes_of_others_are_passed_over(start):
    from click.shell_completion import CompletionItem  # noqa: F401  # where it lies may be closed to others

    import gotrace.binary.elf
    from gotrace.cli.options import go_processes

    assert gotrace.binary.elf
    pid = str(start(targets.build("gcload")).pid)
    child = os.fork()
    if child == 0:
        status = 2
        try:
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            status = int(pid in {item.value for item in go_processes(None, None, "")})
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_it_is_quick(start):
    """By the CPUs' clock, so that it is gotrace that is measured, and not what else the machine has to do."""
    start(targets.build("gcload"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    completed("gc --pid")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
