"""What is counted of every process and file below a command, whatever those are: against /proc and the processes' own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import GOTRACE, PATIENCE_S

pytestmark = [pytest.mark.bpf, pytest.mark.everywhere]

# Threads that compete for one CPU, and sleep in between; all are there until the kernel's sums are read.
COMPETES = """
import os, threading, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
def sums():
    read = [open(f"/proc/self/task/{tid}/schedstat").read().split() for tid in os.listdir("/proc/self/task")]
    return [sum(int(each[which]) for each in read) for which in (0, 1)]
first, done, leave = sums(), [], threading.Event()
def work():
    while time.thread_time() < 0.1:
        sum(range(2000))
        time.sleep(0.0002)
    done.append(1)
    leave.wait()
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
while len(done) < 2:
    time.sleep(0.005)
last = sums()
print("WAITED", os.path.basename(os.environ["NAME"]), *first, *last, flush=True)
os._exit(3)
"""

# Another thread than the first calls execve, and gets the number of the first, which had the CPU for longer.
REPLACED = """
import os, threading, time
while time.thread_time() < 0.3:
    pass
def replace():
    print("USED", time.process_time_ns(), flush=True)
    os.execv("/bin/sleep", ["sleep", "0.1"])
threading.Thread(target=replace).start()
time.sleep(60)
"""

FILES = """
import os, sys
def made(name):
    os.close(os.open(os.path.join(sys.argv[1], name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC))
entry = "ab/ab" + "0" * 62
for folder in ("ab", "cache/download/example.org/!two/@v"):
    os.makedirs(os.path.join(sys.argv[1], folder))
here = os.open(sys.argv[1], os.O_RDONLY)
made(entry + "-a")
try:
    open(os.path.join(sys.argv[1], entry[:-1] + "1-a"))
except FileNotFoundError:
    pass
os.chdir(sys.argv[1] + "/cache/download/example.org/!two/@v")
base = os.getcwd()
made(base + "/v1.0.0.zip1.tmp")
os.rename(base + "/v1.0.0.zip1.tmp", base + "/v1.0.0.zip", src_dir_fd=here, dst_dir_fd=here)
made(base + "/v1.0.0.partial")
os.unlink(base + "/v1.0.0.partial", dir_fd=here)
made(base + "/v2.0.0.zip2.tmp")
os.unlink(base + "/v2.0.0.zip2.tmp", dir_fd=here)
"""


def traced(tmp_path, script, *arguments):
    result = tmp_path / "tree.json"
    done = subprocess.run(
        [*GOTRACE, "coldstart", "--tree", "-o", str(result), "--", "sh", "-c", script, "sh", *arguments],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    build, summary = json.loads(result.read_text())
    assert summary["lost"] == build["cut"] == 0
    return build, done.stdout


def test_time_on_a_cpu_and_waits_for_one_are_what_the_kernel_counts(tmp_path):
    program = tmp_path / "competes.py"
    program.write_text(COMPETES)
    script = f'NAME=a "$1" {program} & NAME=b "$1" {program} & wait'
    # a name of its own, whatever this interpreter is called
    interpreter = shutil.copy(os.path.realpath(sys.executable), tmp_path / "competitor")
    build, printed = traced(tmp_path, script, str(interpreter))
    told = [[int(word) for word in line.split()[2:]] for line in printed.splitlines() if line.startswith("WAITED")]
    steps = [step for step in build["steps"] if step["name"] == "competitor"]
    assert len(told) == len(steps) == 2 and {step["exit_code"] for step in steps} == {3}
    # Since the fork, and until the sums are read; what comes after that is the end of a process with three threads.
    for mine, used in zip(sorted(step["cpu_ns"] for step in steps), sorted(each[2] for each in told), strict=True):
        assert 0.98 * used - 5_000_000 <= mine <= 1.02 * used + 50_000_000, (told, mine)
    bounds = sorted((last - first, last) for _, first, _, last in told)
    for mine, (least, most) in zip(sorted(step["runnable_ns"] for step in steps), bounds, strict=True):
        # from execve, which is before they are read first, to the exit, which is after they are read last
        assert 0.9 * least <= mine <= 1.1 * most + 100_000_000, (told, mine)
    assert all(step["runnable_ns"] > 100_000_000 for step in steps)


def test_a_thread_that_executes_a_program(tmp_path):
    program = tmp_path / "replaced.py"
    program.write_text(REPLACED)
    build, printed = traced(tmp_path, '"$1" "$2"; true', sys.executable, str(program))
    (used,) = (int(line.split()[1]) for line in printed.splitlines() if line.startswith("USED"))
    (replaced, cpu_ns), (sleep, after_ns) = ((step["name"], step["cpu_ns"]) for step in build["steps"][-2:])
    assert sleep == "sleep" != replaced
    assert 0.98 * used - 5_000_000 <= cpu_ns <= 1.02 * used + 50_000_000 and after_ns < 100_000_000


def test_files_of_caches_are_seen(tmp_path):
    program = tmp_path / "files.py"
    program.write_text(FILES)
    build, _ = traced(tmp_path, '"$1" "$2" "$3"', sys.executable, str(program), str(tmp_path / "made"))
    assert (build["cache_stored"], build["cache_not_found"], build["cache_found"]) == (1, 1, 0)
    steps = {(step["stage"], step["name"]): step["ended"] for step in build["steps"] if "@" in step["name"]}
    assert steps == {
        ("download", "example.org/Two@v1.0.0"): True,
        ("unzip", "example.org/Two@v1.0.0"): True,
        ("download", "example.org/Two@v2.0.0"): False,
    }
