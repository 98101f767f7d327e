"""Damaged topologies: samples with words, bytes and lines changed, and what may come of them."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

from gotrace.cluster.topo.merge import machines
from gotrace.cluster.topo.model import TopologyError
from gotrace.cluster.topo.report import topology
from gotrace.cluster.topo.sources import parse_text

SAMPLES = Path(__file__).parent / "testdata" / "topo"
TEXTS = [path.read_text() for path in sorted(SAMPLES.iterdir()) if path.suffix in (".txt", ".log", ".xml")]
_WORDS = [
    *("X", "SYS", "NODE", "PHB", "PXB", "PIX", "NV1", "NV12", "NV18", "NV99", "N/A", "0-23", "0,3-9", "GPU0", "GPU7"),
    *(
        "GPU999",
        "NIC0",
        "NIC3",
        "mlx5_0",
        "OK",
        "GNS",
        "CPU/0",
        "NET/3",
        "9" * 20,
        "-1",
        "\x00",
        "\x1b[4m",
        "\t",
        "\n",
        "\r\n",
    ),
    *("<pci", "<system>", "</system>", "&amp;", "&x;", "0x", "0000:ff:1f.7", "[1]", "\u202e", "é"),
]


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to five faults."""
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(text) + 1)
        length = rng.choice((1, 1, 2, 5, 20, 80))
        kind = rng.randrange(8)
        if kind == 0:
            text = text[:at] + text[at + length :]
        elif kind == 1:
            text = text[:at] + rng.choice(_WORDS) + text[at:]
        elif kind == 2:
            text = text[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) + text[at + 1 :]
        elif kind == 3:
            text = text[:at]  # cut off
        elif kind == 4:
            lines = text.split("\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            text = "\n".join(lines)
        elif kind == 5:
            lines = text.split("\n")
            lines.pop(rng.randrange(len(lines)))
            text = "\n".join(lines)
        elif kind == 6:
            text = text[:at] + text[at:].replace(rng.choice((" ", "\t", "\n", '"', "NV", "SYS")), rng.choice(_WORDS), 1)
        else:
            other = rng.choice(TEXTS)
            begin = rng.randrange(len(other))
            text = text[:at] + other[begin : begin + 10 * length] + text[at:]
    return text


def outcome(text: str, whole: bool) -> str:
    """What became of it; anything but a result or a TopologyError is raised. ``whole``: up to the record."""
    try:
        found = machines(parse_text(text, "mutated"), "node")
    except TopologyError as error:
        assert error.message and "\n" not in error.message and len(error.message) < 2000
        return "refused"
    for each in found if whole else ():
        topology(each)
    return "read"


def run(count: int, seed: int, whole_every: int = 50) -> Counter[str]:
    """So many mutations, by what became of them."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    for number in range(count):
        text = mutated(rng.choice(TEXTS), rng)
        try:
            counts[outcome(text, number % whole_every == 0)] += 1
        except Exception:
            Path(f"/tmp/topo-mutated-{seed}-{number}.txt").write_text(text, errors="surrogatepass")
            raise
    return counts


if __name__ == "__main__":
    print(run(int(sys.argv[1]), int(sys.argv[2])))
