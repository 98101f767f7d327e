"""`nvidia-smi topo -m` as it is written, pasted and damaged."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
import topo_mutations
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.cluster.topo.matrix import HEADINGS, parse
from gotrace.cluster.topo.model import SMI, Facts, Gpu, Nic, Source, TopologyError, cpu_set, list_text, mask_set
from gotrace.cluster.topo.sources import KINDS, parse_text, read_file

SAMPLES = Path(__file__).parents[1] / "testdata" / "topo"
LEVELS = ["PIX", "PXB", "PHB", "NODE", "SYS", "NV1", "NV4", "NV12", "NV18"]


def levels_of(facts: Facts) -> dict[tuple[str, str], str]:
    return {pair: seen[0].level for pair, seen in facts.seen.items()}


def rendered(facts: Facts, *, tabs: bool = True, underlined: bool = False) -> str:
    """The matrix as nvidia-smi prints it: the inverse of `parse`."""
    labels = [gpu.name for gpu in facts.gpus] + [nic.label or nic.name for nic in facts.nics]
    names = [gpu.name for gpu in facts.gpus] + [nic.name for nic in facts.nics]
    heading = ["", *labels, *HEADINGS]
    table = [heading]
    for at, name in enumerate(names):
        cells = [" X " if other == name else facts.level(name, other) for other in names]
        gpu = facts.gpus[at] if at < len(facts.gpus) else None
        more = [gpu.cpus or "N/A", gpu.numa_text or "N/A"] if gpu else []
        more += [str(gpu.memory_node) if gpu and gpu.memory_node is not None else "N/A"] if gpu else []
        table.append([labels[at], *cells, *more])
    lines = ["\t".join(row) for row in table]
    if underlined:
        lines[0] = f"\x1b[4m{lines[0]}\x1b[0m"
    if not tabs:
        lines = [line.expandtabs(8) for line in lines]
    legend = [f"  {nic.label}: {nic.name}" for nic in facts.nics if nic.label and nic.label != nic.name]
    return "\n".join([*lines, "", *(["NIC Legend:", "", *legend, ""] if legend else [])]) + "\n"


@st.composite
def machines(draw: st.DrawFn) -> Facts:
    facts = Facts(Source(SMI, "made", 1))
    for at in range(draw(st.integers(1, 10))):
        numa = draw(st.none() | st.integers(0, 7))
        cpus = draw(st.sampled_from(["", "0-23", "0-55,112-167", "5", "24-47"]))
        memory = draw(st.none() | st.integers(2, 30))
        facts.gpus.append(Gpu(f"GPU{at}", at, "", numa, "" if numa is None else str(numa), memory, cpus))
    called = draw(st.permutations(range(12)))
    for at in range(draw(st.integers(0, 9))):
        name = f"mlx5_{called[at]}" if draw(st.booleans()) else f"NIC{at}"
        facts.nics.append(Nic(name, f"NIC{at}", at))
    names = [*(gpu.name for gpu in facts.gpus), *(nic.name for nic in facts.nics)]
    for one, other in combinations(names, 2):
        facts.see(one, other, draw(st.sampled_from(LEVELS)))
    return facts


@settings(deadline=None, max_examples=150)
@given(machines(), st.booleans(), st.booleans())
def test_what_is_printed_is_read_again(facts: Facts, tabs: bool, underlined: bool) -> None:
    (again,) = parse_text(rendered(facts, tabs=tabs, underlined=underlined), "made")
    assert again.gpus == facts.gpus
    assert again.nics == facts.nics
    assert levels_of(again) == levels_of(facts)
    assert again.cut is None


@settings(deadline=None, max_examples=100)
@given(machines(), st.data())
def test_lines_that_wrapped_are_joined(facts: Facts, data: st.DataObject) -> None:
    """At any blank, or within a word; what cannot be told apart is refused, never read as something else."""
    lines = []
    for line in rendered(facts, tabs=False).split("\n"):
        at = data.draw(st.integers(24, 200))  # no legend is as long as that
        lines += [line[:at], line[at:]] if len(line) > at and line.startswith(("GPU", " ")) else [line]
    try:
        found = parse_text("\n".join(lines), "made")
    except TopologyError:
        return
    assert levels_of(found[0]) == levels_of(facts)


def test_glued_cells_are_split_where_the_matrix_is_symmetric_then() -> None:
    text = (SAMPLES / "h100-8gpu-8nic-paired-shifted.txt").read_text()
    plain = levels_of(parse_text(text, "plain")[0])
    glued = text.replace("NODE    NODE  SYS      SYS     SYS     SYS     0-47", "NODENODE  SYSSYS     SYSSYS     0-47", 1)
    assert glued != text and levels_of(parse_text(glued, "glued")[0]) == plain
    header = text.replace("NIC3  NIC4", "NIC3NIC4", 1)
    assert header != text and levels_of(parse_text(header, "glued")[0]) == plain


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("NV18     X      NV18", "NV18     X      SYS ", "4:17", "GPU2 to GPU1 is NV18, and GPU1 to GPU2 in line 3 is SYS"),
        ("NV18     X      NV18", "NV18     X      XYZ ", "3:25", "'XYZ' is not a matrix cell"),
        ("\nGPU2    NV18    NV18", "\nGPU2    NV18        ", "4:26", "the row of GPU2 has 15 cells, but the heading"),
        ("\nGPU2    NV18", "\nGPU3    NV18", "4:1", "the row of GPU2 is missing, GPU3 stands here"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_line_and_column(old: str, new: str, place: str, what: str) -> None:
    text = (SAMPLES / "h100-8gpu-8nic-paired-shifted.txt").read_text()
    assert old in text
    with pytest.raises(TopologyError, match=re.escape(f"node.txt:{place}")) as caught:
        parse_text(text.replace(old, new, 1), "node.txt")
    assert what in caught.value.message and caught.value.hint


def test_a_cell_that_can_be_split_in_two_ways_is_refused() -> None:
    heading = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV180-9\n"
    with pytest.raises(TopologyError, match="'NV180-9' can be split in several ways"):
        parse_text(heading, "node.txt")
    with pytest.raises(TopologyError, match="cannot be split so that the matrix is symmetric"):
        parse_text(f"{heading}GPU1\tNV12\t X \t0-9\n", "node.txt")
    (found,) = parse_text(f"{heading}GPU1\tNV18\t X \t0-9\n", "node.txt")
    assert levels_of(found) == {("GPU0", "GPU1"): "NV18"} and found.gpus[0].cpus == "0-9"


def test_rows_after_which_the_text_ends_are_cut_off_and_known_by_the_others() -> None:
    text = (SAMPLES / "h800-8gpu-9nic-bond.txt").read_text()
    whole = levels_of(parse_text(text, "x")[0])
    lines = text.splitlines()
    for count in range(2, 17):
        cut = parse_text("\n".join(lines[:count]), "x")[0]
        assert cut.cut is not None and cut.cut.line == count
        renamed = {nic.label: nic.name for nic in parse_text(text, "x")[0].nics}
        told = {tuple(sorted(renamed.get(name, name) for name in pair)): level for pair, level in levels_of(cut).items()}
        assert told.items() <= {tuple(sorted(pair)): level for pair, level in whole.items()}.items()
    assert parse_text(text, "x")[0].cut is None


def test_headings_may_be_underlined_in_both_ways() -> None:
    plain = "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID"
    rows = "\nGPU0\t X \tPIX\t0-9\t0\t\tN/A\nGPU1\tPIX\t X \t0-9\t0\t\tN/A\n"
    for heading in (plain, f"\x1b[4m{plain}\x1b[0m", f"\t\x1b[4m{plain[1:]}\x1b[0m"):
        (found,) = parse_text(heading + rows, "x")
        assert [gpu.numa for gpu in found.gpus] == [0, 0] and levels_of(found) == {("GPU0", "GPU1"): "PIX"}


def test_damaged_files_end_in_a_result_or_an_error_for_people() -> None:
    counts = topo_mutations.run(4000, seed=20)
    assert counts.total() == 4000 and min(counts["read"], counts["refused"]) > 1000


@pytest.mark.parametrize("text", ["", " \n\t\n", "hello\nworld\n", "GPU0", "\x00\x01\x02", "<system", "a" * 2_000_000])
def test_what_is_nothing_known_is_refused_with_what_is_known(text: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse_text(text, "x.txt")
    assert caught.value.hint in (
        f"known are {KINDS}",
        "paste the matrix again, unwrapped: nvidia-smi topo -m > topo.txt",
    ) or ("not XML" in caught.value.message)


def test_files_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.log"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(TopologyError, match="larger than 64 MiB"):
        read_file(str(path))


def test_cpus_as_lists_and_as_masks() -> None:
    assert cpu_set("0-2,7") == {0, 1, 2, 7} and list_text(cpu_set("0-2,7")) == "0-2,7"
    assert mask_set("02,00000000,00000000,00000002") == {1, 97}
    assert mask_set("ff,000000ff") == cpu_set("0-7,32-39")
    with pytest.raises(ValueError):
        cpu_set("0-99999999999")


def test_a_matrix_alone_needs_its_heading() -> None:
    with pytest.raises(TopologyError, match="a heading without rows"):
        parse(["\tGPU0\tGPU1"], 1, "x")
