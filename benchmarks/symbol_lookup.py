"""Opening a 50 MB Go binary and resolving 40 functions, against `go tool nm` on the same file."""

from __future__ import annotations

import hashlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import targets
from gotrace.binary.program import GoProgram

NAMES = 40
FILES, FUNCTIONS = 42, 1600
FUNCTION = """//go:noinline
func f{number}_{i}(a, b int, s string) string {{
	if a > {i} {{
		return fmt.Sprintf("%d %s", a*b, s)
	}}
	return fmt.Sprint(s, len(s)+{i}, map[string]int{{s: b}})
}}
"""
IMPORTS = ("net/http", "go/types", "crypto/tls", "database/sql", "encoding/xml", "html/template", "image/png")


def large_program() -> Path:
    """A generated program of about 50 MB, the size of a large service, that allocates until it is killed."""
    stamp = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    out = targets.cache() / "targets" / f"large-{stamp}"
    if out.exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "go.mod").write_text("module large\n\ngo 1.21\n")
        for number in range(FILES):
            functions = "".join(FUNCTION.format(number=number, i=i) for i in range(FUNCTIONS))
            table = ", ".join(f"f{number}_{i}" for i in range(FUNCTIONS))
            table = f"var t{number} = []func(int, int, string) string{{{table}}}"
            (folder / f"part{number}.go").write_text(f'package main\n\nimport "fmt"\n\n{functions}\n{table}\n')
        imports = "\n".join(f'\t_ "{path}"' for path in IMPORTS)
        calls = "\n".join(f"\tfor _, f := range t{number} {{ sink = f(1, 2, sink[:1]) }}" for number in range(FILES))
        main = f'var sink = "x"\n\nfunc main() {{\n\tfor {{\n{calls}\n\t}}\n}}\n'
        (folder / "main.go").write_text(f"package main\n\nimport (\n{imports}\n)\n\n{main}")
        command = [str(targets.go(targets.NEWEST)), "build", "-o", str(folder / "large"), "."]
        subprocess.run(command, cwd=folder, env=targets.environment(targets.NEWEST), check=True)
        shutil.move(folder / "large", out)
    return out


def run() -> dict[str, Any]:
    """Seconds for ours (within one Python process, imports done) and for the command, caches warm for both."""
    path = large_program()
    with GoProgram.open(path) as program:
        names = program.pclntab.names()
    wanted = names[:: len(names) // NAMES][:NAMES]
    ours = []
    for _ in range(9):
        begin = time.perf_counter()
        with GoProgram.open(path) as program:
            found = [program.pclntab.function(name) for name in wanted]
        ours.append(time.perf_counter() - begin)
        assert all(found)
    theirs = []
    command = [str(targets.go(targets.NEWEST)), "tool", "nm", str(path)]
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, env=targets.environment(targets.NEWEST), check=True)
        theirs.append(time.perf_counter() - begin)
    mine, other = statistics.median(ours), statistics.median(theirs)
    return {
        "name": "symbol_lookup",
        "ratio": mine / other,
        "ours": mine * 1000,
        "theirs": other * 1000,
        "unit": f"ms, {path.stat().st_size / 1e6:.0f} MB, {len(names)} functions",
    }


if __name__ == "__main__":
    print(run())
