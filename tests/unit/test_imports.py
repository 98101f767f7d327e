"""The house rules about imports: which room may use which, who may touch BCC, and what start-up may cost."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Room -> the rooms it may import. A room is a module or package right below gotrace. Effects are at the edge: analysis
# and export turn arrays into arrays and text, and know neither files under test nor the kernel.
BASE = {"errors", "text", "cache", "arch", "late"}
TABLE: dict[str, set[str]] = {
    "errors": set(),
    "text": set(),
    "addresses": {"errors", "text"},
    "arch": {"errors"},
    "late": set(),
    "cache": {"errors"},
    "binary": BASE,
    "kernel": BASE,
    "recording": BASE | {"analysis"},
    "analysis": BASE - {"cache"},
    "advice": BASE - {"cache"} | {"analysis"},
    "records": BASE - {"cache"} | {"analysis", "advice"},
    "export": BASE - {"cache"} | {"analysis", "advice", "records"},
    "probe": BASE | {"binary", "kernel"},
    "probes": BASE | {"binary", "kernel", "recording", "analysis", "probe"},
    "made": BASE | {"binary", "kernel", "probe", "probes"},
    "runtime": BASE | {"binary", "kernel", "analysis", "made"},
    "session": BASE | {"binary", "kernel", "recording", "analysis", "probe", "probes", "made"},
    "shared": BASE | {"analysis", "kernel", "made", "probe", "runtime", "session"},
    "views": BASE
    | {"binary", "kernel", "recording", "analysis", "probe", "probes", "runtime", "export", "records"}
    | {"advice"},
    "run": BASE
    | {"binary", "kernel", "recording", "analysis", "records", "export", "probe", "probes", "made"}
    | {"session", "shared", "runtime", "views", "advice"},
    "find": BASE | {"binary", "kernel", "made", "run", "runtime"},
    "api": BASE | {"kernel", "recording", "run", "views"},
    "lab": BASE
    | {
        "addresses",
        "binary",
        "kernel",
        "recording",
        "analysis",
        "records",
        "export",
        "runtime",
        "views",
        "run",
        "api",
        "cluster",
    },
    "cluster": BASE | {"records", "run"},
    "agent": BASE
    | {
        "addresses",
        "analysis",
        "binary",
        "export",
        "find",
        "kernel",
        "lab",
        "made",
        "probe",
        "probes",
        "run",
        "runtime",
        "shared",
    },
    "fleet": BASE
    | {"analysis", "export", "find", "kernel", "probes", "recording", "records", "run", "views", "lab", "agent", "api"},
    "ebpf": set(),
}
TABLE["cli"] = set(TABLE)

PACKAGES = {"gotrace": "gotrace", "cli": "gotrace.cli", "probes": "gotrace.probes", "ebpf": "gotrace.ebpf"}


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the installed package, by name."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imported(tree: ast.AST) -> Iterator[str]:
    """The names that are imported at run time, at the top or within functions; relative imports as dots."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield prefix
            yield from (f"{prefix}.{alias.name}" for alias in node.names)
        elif is_type_checking(node):
            assert isinstance(node, ast.If)
            yield from imported(ast.Module(node.orelse, []))
        else:
            yield from imported(node)


@functools.cache
def imports_of(path: Path) -> frozenset[str]:
    return frozenset(imported(ast.parse(path.read_text())))


def room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "gotrace" else ""


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_run_one_way(name: str) -> None:
    here = room(name)
    rooms = {room(module) for module in modules()}
    used = {room(each) for each in imports_of(modules()[name])} & rooms - {here, ""}
    # the package itself holds nothing but the version
    allowed = TABLE[here] if here else set()
    assert used <= allowed, f"{name} may not import {sorted(used - allowed)}"


def test_the_table_has_no_circle() -> None:
    done: set[str] = set()
    left = dict(TABLE)
    while left:
        free = {each for each, uses in left.items() if uses <= done | {each}}
        assert free, f"a circle among {sorted(left)}"
        done |= free
        left = {each: uses for each, uses in left.items() if each not in free}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even late, within functions; an `import` for types alone does not count."""
    known = modules()
    left = {name: {each for each in imports_of(path) if each in known and each != name} for name, path in known.items()}
    while left:
        free = {name for name, uses in left.items() if not uses & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {name: uses for name, uses in left.items() if name not in free}


def test_only_the_compiler_imports_bcc() -> None:
    users = {name for name, path in modules().items() if any(each.split(".")[0] == "bcc" for each in imports_of(path))}
    assert users == {"gotrace.kernel.compiler"}


def test_columns_go_by_their_names() -> None:
    """The letters that events travel under are known to those who carry them, and to who gives columns their names."""
    carriers = {"gotrace.analysis.columns", "gotrace.kernel.ring", "gotrace.recording.reader", "gotrace.recording.writer"}
    letters = re.compile(r"""\[["'][a-e]["']\]|["'](?:abcde|bcde|cde)["']""")
    users = {name for name, path in modules().items() if letters.search(path.read_text())}
    assert users <= carriers


def test_packages_import_nothing_by_themselves() -> None:
    for path in modules().values():
        if path.name == "__init__.py":
            assert imports_of(path) <= {"__future__", "__future__.annotations"}, path


def test_mapped_folders_go_by_their_full_names() -> None:
    sources = [
        path for folder in ("gotrace", "cli", "probes", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    for path in sources:
        tops = {each.split(".")[0] for each in imports_of(path)}
        assert not tops & {"cli", "probes", "ebpf", ""}, f"{path}: write gotrace.cli, gotrace.probes, gotrace.ebpf in full"


def test_the_command_starts_without_the_heavy_libraries() -> None:
    heavy = ("numpy", "capstone", "elftools", "rich", "hdrh", "bcc", "asyncio", "logging")
    code = f"import sys, gotrace.cli.main; print(*(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == []


def test_a_probe_is_two_files_of_one_stem() -> None:
    stems = {path.stem for path in (ROOT / "probes").glob("*.py")} - {"__init__"}
    assert stems == {path.name.removesuffix(".bpf.c") for path in (ROOT / "ebpf").glob("*.bpf.c")}
