"""What `gotrace datapath` adds to each read of 64 bytes: against strace, and bpftrace and BCC at its two tracepoints; and
its memory, with a million files."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import targets
from conftest import GOTRACE

ROUNDS, CALLS, STRACED = 5, 500_000, 20_000
FILES, MOST_BYTES = 1_000_000, 300e6
# The same evidence but for names: how long each call took, on which descriptor, as an event.
SCRIPT = """
tracepoint:syscalls:sys_enter_pread64 /comm == "iocaller"/ { @begin[tid] = nsecs; @fd[tid] = args->fd; }
tracepoint:syscalls:sys_exit_pread64 /@begin[tid]/ {
    @took[@fd[tid]] = hist(nsecs - @begin[tid]); @calls[@fd[tid]] = count(); @bytes[@fd[tid]] = sum(args->ret);
    delete(@begin[tid]);
}
"""


def _ns_per_call(command: list[str], calls: int) -> float:
    """Of the hundred calls that took least: where CPUs are shared all together tell more of those who had them, too."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = {each["call"]: each for line in done.stdout.splitlines() for each in [json.loads(line)]}
    assert told["pread64"]["count"] == calls
    return float(told["at best"]["ns"]) / told["at best"]["count"]


@contextlib.contextmanager
def _bpftrace() -> Iterator[None]:
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(["bpftrace", "-e", SCRIPT], stdout=output, stderr=subprocess.STDOUT)
        try:
            while b"Attaching" not in os.pread(output.fileno(), 4096, 0) and process.poll() is None:
                time.sleep(0.1)
            time.sleep(1)
            yield
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def _bcc(comm: str) -> Iterator[None]:
    command = [sys.executable, str(Path(__file__).with_name("datapath_bcc.py")), comm]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.terminate()
            seen, lost = map(int, process.stdout.read().split())
    assert seen >= CALLS and not lost


def _gotrace(program: Path, folder: str) -> tuple[float, dict[str, Any]]:
    out = f"{folder}/records.json"
    options = ["datapath", "--by", "file", "-o", out, "--force"]
    took = _ns_per_call([*GOTRACE, *options, "--", str(program), "reads", folder, str(CALLS)], CALLS)
    (record,) = json.loads(Path(out).read_text())
    assert record["all"]["calls"] >= CALLS or record["lost"]
    return took, record


def run() -> list[dict[str, Any]]:
    """Nanoseconds that are added to a call: the least of rounds in which each has its turn."""
    program = targets.build("iocaller", flavour=targets.C)
    took: dict[str, list[float]] = {"plain": [], "gotrace": [], "bpftrace": [], "bcc": [], "strace": []}
    lost, rates = 0, []
    with tempfile.TemporaryDirectory() as folder:
        plain = [str(program), "reads", folder, str(CALLS)]
        strace = ["strace", "-f", "-y", "-T", "-o", "/dev/null", str(program), "reads", folder, str(STRACED)]
        for _ in range(ROUNDS):
            took["plain"].append(_ns_per_call(plain, CALLS))
            ns, record = _gotrace(program, folder)
            took["gotrace"].append(ns)
            rates.append(record["all"]["calls"] / record["watched_ns"] * 1e9)
            lost += record["lost"]
            with _bpftrace():
                took["bpftrace"].append(_ns_per_call(plain, CALLS))
            with _bcc(program.name):
                took["bcc"].append(_ns_per_call(plain, CALLS))
            took["strace"].append(_ns_per_call(strace, STRACED))
    least = {name: min(each) for name, each in took.items()}
    ours = least["gotrace"] - least["plain"]
    about = {"lost": lost, "calls_per_s": statistics.median(rates), "ns_per_call": least}
    return [
        {
            "name": f"datapath_{peer}",
            "ratio": ours / (least[peer] - least["plain"]),
            "ours": ours,
            "theirs": least[peer] - least["plain"],
            "unit": f"ns added to a read, against {peer}",
            "detail": about,
        }
        for peer in ("strace", "bpftrace", "bcc")
    ]


def million() -> dict[str, Any]:
    """The peak of resident memory, to the end of the report, of a run over files in memory that are opened, looked at, read
    and closed; those of other options are told with it."""
    program = targets.build("iocaller", flavour=targets.C)
    peaks, lost = {}, {}
    with tempfile.TemporaryDirectory() as folder, _in_memory(folder):
        subprocess.run([program, "make", folder, str(FILES)], check=True)
        with tempfile.TemporaryDirectory() as outputs:
            for options in ((), ("--by", "file", "--explain")):
                out = f"{outputs}/records.json"
                command = [*GOTRACE, "datapath", *options, "-o", out, "--force", "--", str(program), "visit", folder]
                peak = _peak_bytes([*command, str(FILES)])
                (record,) = json.loads(Path(out).read_text())
                assert record["lost"] or record["all"]["bytes"] >= FILES * 1000
                peaks[" ".join(options)], lost[" ".join(options)] = peak, record["lost"]
    return {
        "name": "datapath_million",
        "ratio": peaks[""] / MOST_BYTES,
        "ours": peaks[""] / 1e6,
        "theirs": MOST_BYTES / 1e6,
        "unit": f"MB; {FILES:,} files opened, looked at, read and closed",
        "detail": {"peaks": peaks, "lost": lost},
    }


@contextlib.contextmanager
def _in_memory(folder: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=2g,nr_inodes={FILES * 11 // 10}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _peak_bytes(command: list[str]) -> int:
    """Of a command, its children not counted."""
    # Started by a small process: until its execve it has what its parent had, and that counts.
    code = (
        "import os, subprocess, sys; process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "_, status, usage = os.wait4(process.pid, 0); print(status, usage.ru_maxrss)"
    )
    told = subprocess.run([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True, check=True).stdout
    status, peak_kib = map(int, told.split())
    assert status == 0
    return peak_kib * 1024


if __name__ == "__main__":
    print(json.dumps([*run(), million()], indent=1))
