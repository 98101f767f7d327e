"""What the go command's own files say: lists of packages, entries of the build cache, modules.

The go command writes the lists for its compiler and linker (importcfg): a package's file lies in ``$WORK`` if it was just
built, or in GOCACHE. A module's download is from when its ``.zip`` is begun until it has its name, unzipping from when the
mark ``.partial`` is made until it is removed (cmd/go/internal/modfetch/fetch.go).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from gotrace.analysis.builds.processes import ENTRY, OPENED, REMOVED, RENAMED, WORK, Tree
from gotrace.analysis.builds.steps import DOWNLOAD, UNZIP, Step

_MODULE = re.compile(r"/cache/download/(.+)/@v/(.+?)\.(zip\d*\.tmp|zip|partial|mod)$")
_O_ACCESS, _O_CREAT, _ENOENT = 3, 0o100, -2


Packages = list[tuple[str, str]]


def packages_in(text: str) -> Packages:
    """(import path, file) of all in an importcfg or a vet.cfg; of this first itself, with the folder it is vetted in."""
    if not text.startswith("{"):
        lines = (line.removeprefix("packagefile ") for line in text.splitlines() if line.startswith("packagefile "))
        return [(path, file) for path, equals, file in (line.partition("=") for line in lines) if equals]
    try:
        config = json.loads(text)
        vetted = [(path, file) for path, file in (config.get("PackageVetx") or {}).items() if WORK.search(file)]
        return [(config["ImportPath"], config["VetxOutput"]), *(config.get("PackageFile") or {}).items(), *vetted]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []  # it is not the go command's


def modules(tree: Tree, until_ns: int) -> Iterator[Step]:
    """Downloads and unzippings; one that failed is until its file was removed, or ``until_ns``."""
    begun: dict[tuple[str, str], int] = {}
    for file in sorted(tree.files, key=lambda each: each.end_ns):
        match = _MODULE.search(file.text.data.decode("utf-8", "replace"))
        if match is None or file.result < 0:
            continue
        name = re.sub("!(.)", lambda found: found[1].upper(), f"{match[1]}@{match[2]}")
        ending = match[3]
        if file.call == OPENED and file.flags & _O_CREAT and ending not in ("zip", "mod"):
            begun.setdefault((UNZIP if ending == "partial" else DOWNLOAD, name), file.begin_ns)
        given_up = file.call == REMOVED and ending.endswith("tmp")
        done = DOWNLOAD if given_up else {(RENAMED, "zip"): DOWNLOAD, (REMOVED, "partial"): UNZIP}.get((file.call, ending))
        if done is not None and (begin_ns := begun.pop((done, name), None)) is not None:
            yield Step(done, name, begin_ns - tree.begin_ns, file.end_ns - tree.begin_ns, ended=not given_up)
    for (stage, name), begin_ns in begun.items():
        yield Step(stage, name, begin_ns - tree.begin_ns, until_ns - tree.begin_ns, ended=False)


def entries(tree: Tree) -> dict[str, tuple[int, ...]]:
    """When entries of the build cache were found, not found and stored, and go.mod files fetched; each path counts once."""
    seen: dict[str, dict[str, int]] = {"found": {}, "not_found": {}, "stored": {}, "mod_files": {}}
    for file in tree.files:
        path = file.text.data.decode("utf-8", "replace")
        entry, module = ENTRY.search(path), _MODULE.search(path)
        what = ""
        if entry is not None and path.endswith("-a") and file.call == OPENED:
            if file.flags & _O_CREAT and file.result >= 0:
                what = "stored"
            elif not file.flags & _O_ACCESS and file.result >= 0 and path not in seen["stored"]:
                what = "found"
            elif file.result == _ENOENT:
                what = "not_found"
        elif module is not None and module[3] == "mod" and file.call == RENAMED and file.result >= 0:
            what = "mod_files"
        if what:
            seen[what].setdefault(path, file.end_ns - tree.begin_ns)
    return {name: tuple(times.values()) for name, times in seen.items()}
