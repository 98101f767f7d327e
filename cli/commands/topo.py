"""`gotrace topo`: what is connected to what in a GPU machine, what NCCL will make of it, and what to change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gotrace.cli.options import Command, output_options, say, schema_option, schema_option_of, two_recordings
from gotrace.errors import UsageError
from gotrace.export.formats import SETTINGS, TABLES, TOPOLOGIES

if TYPE_CHECKING:
    from gotrace.cluster.topo.model import Facts
    from gotrace.records.topo import Topology

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _schema(_: str) -> dict[str, Any]:
    from gotrace.records.all import schema_of_command

    return schema_of_command("topo")


_inner_schema = schema_option_of("records", _schema)
_files = click.argument("files", nargs=-1, type=click.Path(), metavar="[FILE]...")
_root = click.option("--root", type=click.Path(), default="/", hidden=True)  # stands in for / in tests
_nodes = click.option("--nodes", is_flag=True, help="Treat each FILE as a separate node, and find the odd one out.")
_limit = click.option(
    "--max-crossings",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="Maximum NUMA crossings of a ring.  [default: 2; more is a warning if the ring is not NCCL's own]",
)


def _of_machines(function: Decorated) -> Decorated:
    """The options and files of show and check."""
    asked = (_nodes, _limit, _root, output_options(TOPOLOGIES, screen=("table", "json")), _inner_schema, _files)
    for decorate in reversed(asked):
        function = decorate(function)
    return function


def _read(files: Sequence[str], nodes: bool, root: str) -> list[Facts]:
    """The machines of the files, or this one. Raises GotraceError."""
    from gotrace.cluster.topo.files import read_machines
    from gotrace.cluster.topo.merge import machines
    from gotrace.cluster.topo.sources import read_live

    if files:
        return read_machines(files, nodes)
    if nodes:
        raise UsageError("--nodes has no effect without files", "gotrace topo check --nodes a.txt b.txt c.txt")
    found, lacking = read_live(root)
    for text in lacking:
        say(f"not inspected: {text}")
    return machines(found, "this machine")


def _records(files: Sequence[str], nodes: bool, root: str, limit: int | None) -> list[Topology]:
    from gotrace.cluster.topo.report import topology

    return [topology(each, limit) for each in _read(files, nodes, root)]


def _written(
    files: tuple[str, ...],
    nodes: bool,
    max_crossings: int | None,
    root: str,
    outputs: tuple[str, ...],
    format_: str | None,
    force: bool,
    checked: bool,
) -> int:
    """Everything about these machines, or with ``checked`` what is wrong with them."""
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import topo as text
    from gotrace.cluster.topo.differences import odd_nodes, wrong

    results = wanted(outputs, format_, TOPOLOGIES, force, screen="table", inputs=files)
    found = _records(files, nodes, root, max_crossings)
    compared = odd_nodes(found) if nodes else None
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, found, compared, checked)
    return int(checked and wrong(found, compared))


@click.command(
    "show",
    cls=Command,
    topic="cluster",
    examples=[
        ("gotrace topo show topo.txt", "shows the output of `nvidia-smi topo -m`, and what NCCL makes of it"),
        ("gotrace topo show topo.txt ibstat.txt -o node.html", "writes a page to paste into a ticket"),
    ],
)
@_of_machines
def show(**asked: Any) -> int:
    """Show what is connected to what: levels, NUMA nodes, NICs, rings, and where NCCL goes directly.

    FILEs hold the output of tools, in any order: nvidia-smi topo -m, ibstat, NCCL's log or XML, and more; - is standard
    input. Without FILE, this machine is inspected.
    """
    return _written(checked=False, **asked)


@click.command(
    "check",
    cls=Command,
    topic="cluster",
    examples=[
        (
            "gotrace topo check topo.txt ibstat.txt nccl.log",
            "shows what is wrong, what to change, and which source says so",
        ),
        ("gotrace topo check --nodes a.txt b.txt c.txt", "shows which node differs from the others"),
    ],
    epilog="Exit status: 0 if nothing is wrong, 1 if something is (warnings and notes do not count).",
)
@_of_machines
def check(**asked: Any) -> int:
    """Show what is wrong with a machine for NCCL, worst first: what to change, the evidence, and its source.

    FILEs are as for `gotrace topo show`. They describe one machine, or with --nodes one machine each.
    """
    return _written(checked=True, **asked)


@click.command(
    "recommend",
    cls=Command,
    topic="cluster",
    examples=[
        ("gotrace topo recommend topo.txt ibstat.txt", "prints `export` lines, each with its reason"),
        ("gotrace topo recommend topo.txt ibstat.txt -o env.yaml", "writes the env of a pod's container"),
    ],
)
@_root
@output_options(SETTINGS, screen=("env", "json", "yaml"))
@_inner_schema
@_files
def recommend(files: tuple[str, ...], root: str, outputs: tuple[str, ...], format_: str | None, force: bool) -> int:
    """Recommend NCCL's environment: each line with its reason and what it changes.

    Settings that may help or harm are comments: measure them first. FILEs are as for `gotrace topo show`.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import topo as text
    from gotrace.cluster.topo.recommend import settings

    results = wanted(outputs, format_, SETTINGS, force, screen="env", inputs=files)
    found = [settings(each) for each in _read(files, False, root)]
    with results.streams() as streams:
        for stream, kind in streams:
            text.write_settings(stream, kind, found)
    return 0


@click.command(
    "diff",
    cls=Command,
    topic="cluster",
    examples=[
        ("gotrace topo diff good.txt bad.txt", "shows how two machines differ"),
        ("gotrace topo diff before.txt after.txt --format json", "the same as JSON"),
    ],
    epilog="Exit status: 0 if they do not differ, 1 if they do.",
)
@output_options(TABLES, screen=("table", "json"))
@_inner_schema
@two_recordings
def diff(before: str, after: str, outputs: tuple[str, ...], format_: str | None, force: bool) -> int:
    """Compare two machines, or one before and after: levels, NUMA nodes, ports, and findings."""
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import topo as text
    from gotrace.cluster.topo.differences import differences
    from gotrace.cluster.topo.files import name_of

    results = wanted(outputs, format_, TABLES, force, screen="table", inputs=(before, after))
    sides = []
    for path in (before, after):
        found = _records([path], False, "/", None)
        if len(found) > 1:
            raise UsageError(
                f"{name_of(path)} describes {len(found)} nodes", "compare them with: gotrace topo check --nodes"
            )
        sides.append({**found[0], "name": name_of(path) if name_of(before) != name_of(after) else path})
    compared = differences(*sides)  # type: ignore[arg-type]
    with results.streams() as streams:
        for stream, kind in streams:
            text.write_diff(stream, kind, compared)
    return int(bool(compared["differences"]))


@click.command(
    "topo",
    cls=Command,
    topic="cluster",
    short_help="Show what NCCL makes of a machine's topology.",
    examples=[
        ("gotrace topo check topo.txt ibstat.txt", "shows what is wrong for NCCL, and what to change"),
        ("gotrace topo show topo.txt -o node.html", "draws GPUs, NICs and NUMA nodes"),
    ],
    inner=[show, check, recommend, diff],
    epilog="`gotrace topo check --help` explains a subcommand; the others are show, recommend and diff.",
)
@schema_option
@click.argument("words", nargs=-1, metavar="show|check|recommend|diff ...")
def command(words: tuple[str, ...]) -> int:
    """Read what nvidia-smi, ibstat, NCCL and others say about a machine, and predict what NCCL will do with it.

    `show` prints the matrix, `check` what is wrong, `recommend` the environment to set, `diff` what differs.
    """
    what = f"there is no gotrace topo {words[0]}" if words else "no subcommand given"
    raise UsageError(what, "gotrace topo show, check, recommend or diff")
