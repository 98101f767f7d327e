"""MAF of a fleet, against what the kernel and the program itself say of the processes that were measured."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import targets
from conftest import GOTRACE

pytestmark = pytest.mark.bpf  # which is to say that it needs root


def rss_of(pid: int) -> int:
    """Bytes, page by page: what /proc/PID/status says may be some pages behind."""
    sizes = re.findall(r"^Rss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps").read_text(), re.MULTILINE)
    return sum(map(int, sizes)) << 10


def test_amplification_is_rss_by_what_the_program_calls_its_heap(start: Any, tmp_path: Any) -> None:
    """Two processes with heaps of their own, said to be two hosts, of other GOGC: their MAFs and the median of them."""
    folder, true = str(tmp_path / "fleet"), {}
    for host, size, gogc in (("one", "40", "100"), ("two", "10", "off")):
        target = start(targets.build("shapes", targets.NEWEST, "stripped"), "fragments", size, env={"GOGC": gogc})
        truth = target.truth()
        recording = tmp_path / f"{host}.gotrace"
        command = [*GOTRACE, "mem", "--pid", str(target.pid), "--duration", "2s", "-o", str(recording)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        rss, heap = rss_of(target.pid), truth["HeapAlloc"]
        true[host] = (rss / heap, rss)
        command = [*GOTRACE, "fleet", "add", folder, "--host-name", host, "--service", "shapes", str(recording)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    command = [*GOTRACE, "fleet", "show", folder, "--by", "host", "--metric", "rss.peak", "--format", "json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert {each["group"]: each["maf"] for each in found["amplification"]} == {
        host: pytest.approx(maf, rel=0.05) for host, (maf, _) in true.items()
    }
    for each in found["resident"]:
        assert sum(each["parts_bytes"].values()) == pytest.approx(true[each["group"]][1], rel=0.05)
    command[command.index("host")] = "service"
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    (both,) = found["amplification"]
    assert both["hosts"] == 2 and both["maf"] == pytest.approx(np.median([maf for maf, _ in true.values()]), rel=0.05)
    assert both["rss_bytes"] == pytest.approx(np.median([rss for _, rss in true.values()]), rel=0.05)
