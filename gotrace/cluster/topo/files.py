"""Files as machines: all of one machine, or each of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gotrace.cluster.topo.merge import machines
from gotrace.cluster.topo.model import Facts
from gotrace.cluster.topo.sources import read_file
from gotrace.errors import UsageError


def name_of(path: str) -> str:
    """What a machine is called for which its file has no name."""
    return "standard input" if path == "-" else os.path.splitext(os.path.basename(path))[0]


def read_machines(files: Sequence[str], nodes: bool) -> list[Facts]:
    """The machine that the files are about, each host of a log by itself; with ``nodes`` each file is of its own.

    Raises UsageError for a file that is given twice, TopologyError and OSError for one that cannot be read.
    """
    if len(set(files)) < len(files):
        raise UsageError("a file was given twice", "give each once")
    parts = [(name_of(path), read_file(path)) for path in files]
    if not nodes:
        return machines([each for _, part in parts for each in part], parts[0][0])
    found = [machine for name, part in parts for machine in machines(part, name)]
    names = [each.host for each in found]
    if len(set(names)) < len(names):
        for number, each in enumerate(found):
            each.host = files[number] if len(files) == len(found) else f"{each.host} ({number + 1})"
    return found
