"""Files, pipes and live commands: which kinds of text are in them, and the facts of each.

A file may hold several kinds, one after the other or mixed with other output. A kind is known by its content.
"""

from __future__ import annotations

import codecs
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence

from gotrace.cluster.topo import fabric, matrix, nccl_log, nccl_xml, pci, ports
from gotrace.cluster.topo.model import (
    ENVIRONMENT,
    FABRIC,
    IBSTAT,
    IBSTATUS,
    IBV_DEVINFO,
    LSPCI,
    NETDEV,
    SMI,
    Facts,
    Source,
    TopologyError,
)
from gotrace.text import printable

MOST_BYTES = 64 << 20
_MOST_LINE = 1 << 20
KINDS = (
    "nvidia-smi topo -m, topo -p2p and nvlink -s; NCCL's log (NCCL_DEBUG=INFO) and XML (NCCL_TOPO_DUMP_FILE); ibstat,"
    " ibstatus, ibv_devinfo, ibdev2netdev, ibnetdiscover; lspci -vvv; NCCL_… variables"
)
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_VARIABLE = re.compile(r"\s*(?:export\s+|declare -x )?(NCCL_[A-Z0-9_]+)=[\"']?([^\"'\n]*?)[\"']?\s*$")
# How live text is asked for. Root sees more with lspci, and any user may ask the others.
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("nvidia-smi", "topo", "-m"),
    ("nvidia-smi", "topo", "-p2p", "r"),
    ("nvidia-smi", "nvlink", "-s"),
    ("ibstat",),
    ("ibdev2netdev",),
    ("lspci", "-D", "-vvv"),
)
_PATIENCE_S = 30


def read_file(path: str, name: str = "") -> list[Facts]:
    """The facts in a file, or in standard input for "-". Raises TopologyError, OSError."""
    from gotrace.run.files import input_of

    name = name or ("standard input" if path == "-" else os.path.basename(path))
    with input_of(path) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise TopologyError(
            f"{printable(path)} is larger than {MOST_BYTES >> 20} MiB",
            "from a long log, take the beginning: grep 'NCCL INFO'",
        )
    return parse_text(data.decode(_encoding(data), "replace"), name)


def _encoding(data: bytes) -> str:
    """What its byte order mark says: PowerShell's `>` writes UTF-16."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def parse_text(text: str, name: str) -> list[Facts]:
    """The facts of each section of a text. Raises TopologyError if there are none."""
    if not text.strip():
        raise TopologyError(f"{printable(name)} is empty", f"known are {KINDS}")
    found: list[Facts] = []
    text = text.replace("\0", "\n")  # as in /proc/PID/environ
    kept = text
    for match in re.finditer(r"<system\b.*?(?:</system\s*>|\Z)", text, re.DOTALL):
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise TopologyError(
                f"{printable(name)}: it declares a document type, which NCCL's files never do", "remove <!DOCTYPE …>"
            )
        found.append(nccl_xml.parse_xml(match[0], text.count("\n", 0, match.start()) + 1, name))
        kept = kept.replace(match[0], "\n" * match[0].count("\n"), 1)
    lines = [_ESCAPES.sub("", line) for line in kept.replace("\r\n", "\n").split("\n")]
    if any(len(line) > _MOST_LINE for line in lines):
        raise TopologyError(f"{printable(name)}: a line has more than a million characters", f"known are {KINDS}")
    log = [(number, line) for number, line in enumerate(lines, 1) if "NCCL " in line and nccl_log.LINE.search(line)]
    found += nccl_log.parse_log(log, name)
    logged = {number for number, _ in log}
    for kind, first, part in _sections([("" if n in logged else line) for n, line in enumerate(lines, 1)]):
        found.append(_PARSERS[kind](part, first, name))
    if not found:
        raise TopologyError(f"{printable(name)}: contains nothing that gotrace knows", f"known are {KINDS}")
    return found


def _kind_of(line: str) -> str | None:
    """The kind of section that begins with this line."""
    text = line.strip()
    if not text:
        return None
    if matrix.is_header(line):
        return SMI
    if text.startswith("CA '"):
        return IBSTAT
    if text.startswith("Infiniband device '"):
        return IBSTATUS
    if text.startswith("hca_id:"):
        return IBV_DEVINFO
    if ports.NETDEV_LINE.match(text):
        return NETDEV
    if fabric.OWNER.match(text):
        return FABRIC
    if ports.NVLINK_GPU.match(text):
        return "nvlink"
    if pci.DEVICE.match(line):
        return LSPCI
    return ENVIRONMENT if _VARIABLE.match(line) else None


def _sections(lines: Sequence[str]) -> list[tuple[str, int, list[str]]]:
    """Kind, first line and lines of each section; one that goes on with the same marker is one section, a matrix is not."""
    found: list[tuple[str, int, list[str]]] = []
    for number, line in enumerate(lines, 1):
        kind = _kind_of(line)
        if kind is not None and (not found or kind != found[-1][0] or kind == SMI):
            found.append((kind, number, []))
        if found:
            found[-1][2].append(line)
    return found


def _variables(lines: Sequence[str], first: int, file: str) -> Facts:
    facts = Facts(Source(ENVIRONMENT, file, first))
    for number, line in enumerate(lines, first):
        if match := _VARIABLE.match(line):
            facts.environment[match[1]] = match[2], Source(ENVIRONMENT, file, number)
    return facts


_PARSERS: Mapping[str, Callable[[Sequence[str], int, str], Facts]] = {
    SMI: matrix.parse,
    "nvlink": ports.parse_nvlinks,
    IBSTAT: ports.parse_ibstat,
    IBSTATUS: ports.parse_ibstatus,
    IBV_DEVINFO: ports.parse_devinfo,
    NETDEV: ports.parse_netdevs,
    FABRIC: fabric.parse_fabric,
    LSPCI: pci.parse_lspci,
    ENVIRONMENT: _variables,
}


def read_live(root: str = "/", environment: Mapping[str, str] | None = None) -> tuple[list[Facts], list[str]]:
    """What this machine says: its commands, as far as PATH has them, sysfs below ``root``, and NCCL's settings.

    With it comes what could not be asked, in words. Raises TopologyError if nothing is there to look at.
    """
    found: list[Facts] = []
    lacking: list[str] = []
    for words in COMMANDS:
        command = " ".join(words)
        if shutil.which(words[0]) is None:
            lacking.append(f"{words[0]}: not found")
            continue
        text, failure = _output(words)
        try:
            found += parse_text(text, command) if text.strip() else []
            if not text.strip():
                lacking.append(f"{command}: {failure or 'prints nothing'}")
        except TopologyError as error:
            lacking.append(f"{command}: {failure or error.message}")
    facts = pci.read_sysfs(root)
    if facts is not None:
        found.append(facts)
    found.append(_settings(root, os.environ if environment is None else environment))
    if not any(each.gpus or each.ports for each in found):
        raise TopologyError(
            "this machine has neither a GPU nor an RDMA device to inspect",
            "give the saved output of the commands: nvidia-smi topo -m > topo.txt; gotrace topo show topo.txt",
            detail="\n".join(lacking),
        )
    return found, list(dict.fromkeys(lacking))


def _output(words: Sequence[str]) -> tuple[str, str]:
    """Standard output of a command, and why it failed if it did. ibstat may end with 255 after it has said everything."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return "", f"did not respond within {_PATIENCE_S} s"
    except OSError as error:
        return "", error.strerror or "cannot be run"
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    failure = printable(said[0][:200]) if said else f"status {done.returncode}"
    return done.stdout[:MOST_BYTES].decode("utf-8", "replace"), failure if done.returncode else ""


def _settings(root: str, environment: Mapping[str, str]) -> Facts:
    """NCCL's variables, and those of its file for which no variable is set."""
    facts = Facts(Source(ENVIRONMENT))
    for name, value in sorted(environment.items()):
        if name.startswith("NCCL_"):
            facts.environment[name] = value, Source(ENVIRONMENT)
    path = environment.get("NCCL_CONF_FILE") or os.path.join(root, "etc/nccl.conf")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)
    except OSError:
        return facts
    for number, line in enumerate(text.splitlines(), 1):
        if match := _VARIABLE.match(line.split("#")[0]):
            facts.environment.setdefault(match[1], (match[2], Source(ENVIRONMENT, path, number)))
    return facts
