"""Go programs to look at, built by each release of the matrix and cached outside the tree."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "tests" / "testdata" / "src"
RELEASES = ("1.19.8", "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3")
NEWEST = RELEASES[-1]
HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
CROSS_CC = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}
EMULATED = os.environ.get("GOTRACE_EMULATED") == "1"  # in scripts/arm64-vm, where nothing can be built

# flavour -> (arguments of `go build`, needs cgo)
_LINK = ["-ldflags=-s -w"]
FLAVOURS: dict[str, tuple[list[str], bool]] = {
    "default": ([], False),
    "stripped": (_LINK, False),
    "pie": (["-buildmode=pie"], False),
    "pie-stripped": (["-buildmode=pie", *_LINK], False),
    "cgo-internal": (["-ldflags=-linkmode=internal"], True),
    "cgo-external": (["-ldflags=-linkmode=external"], True),
    "cgo-external-pie": (["-buildmode=pie", "-ldflags=-linkmode=external"], True),
    "noopt": (["-gcflags=all=-N -l"], False),
    "pgo": (["-pgo=PROFILE"], False),
    "nosections": (_LINK, False),
}
# Of these only some programs are built: with GOEXPERIMENT, and those that are no programs for gotrace.
OTHERS: dict[str, tuple[list[str], bool]] = {
    "experiment": ([], False),
    "c-shared": (["-buildmode=c-shared"], True),
    "plugin": (["-buildmode=plugin", *_LINK], True),
}
# what a release has another way by itself
EXPERIMENTS = {"1.25.5": "greenteagc", "1.27.3": "nogreenteagc"}
C = "c"  # no flavour of Go's: one file of C, by the C compiler
_C_FLAGS = ["-O2", "-pthread"]

# They reach into the runtime, which Go 1.23 and later link only when asked to.
_UNCHECKED = ("periodic",)


def cache() -> Path:
    return Path(os.environ.get("GOTRACE_CACHE") or Path.home() / ".cache" / "gotrace")


def _obtainable(version: str) -> bool:
    """Go 1.19 is had from Debian 12's packages only; PyPI has the others."""
    if not version.startswith("1.19.") or (cache() / "go" / version).exists():
        return True
    return "VERSION_CODENAME=bookworm" in Path("/etc/os-release").read_text()


# Of which the emulated machine runs programs, where each release takes minutes: `make test-arm64 ALL=1` is all of them.
# Where their instructions and numbers are is held against the toolchain's own words for every release on any machine.
MACHINE = RELEASES if os.environ.get("GOTRACE_ALL_RELEASES") == "1" else ("1.19.8", "1.22.10", NEWEST)
# the releases whose toolchain can be had on this system
MATRIX = tuple(version for version in (MACHINE if EMULATED else RELEASES) if _obtainable(version))
# Where releases differ in nothing but those, the oldest and the newest are enough in the machine.
_BETWEEN = {"1.22.10"} if EMULATED and len(MACHINE) < len(RELEASES) else set()
ENDS = tuple(version for version in MATRIX if version not in _BETWEEN)
SOME = tuple(version for version in ("1.19.8", "1.22.10", NEWEST) if version not in _BETWEEN)


@functools.cache
def go(version: str) -> Path:
    """The `go` command of a release, fetched on first use."""
    found = cache() / "go" / version / "bin" / "go"
    if not found.exists():
        subprocess.run([ROOT / "scripts" / "go-toolchain", version], check=True, stdout=subprocess.DEVNULL)
    return found


def environment(version: str, arch: str = HOST_ARCH, cgo: bool = False) -> dict[str, str]:
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO"))}
    own = {
        "GOROOT": str(go(version).parent.parent),
        "GOCACHE": str(cache() / "go-build"),
        "GOPATH": str(cache() / "go-path"),
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "GOARCH": arch,
        "CGO_ENABLED": "1" if cgo else "0",
        "CC": "gcc" if arch == HOST_ARCH else CROSS_CC.get(arch, ""),
        # one build cache entry for every machine
        "GOAMD64": "v1",
    }
    return {**keep, **own}


@functools.cache
def go_tool_path(name: str) -> str:
    """A tool of the newest Go, which `go tool` builds, or looks through all its sources for changes, at each call."""
    command = [go(NEWEST), "tool", "-n", name]
    return subprocess.run(command, capture_output=True, text=True, env=environment(NEWEST), check=True).stdout.strip()


def go_tool(name: str, *arguments: str | Path, text: str = "") -> list[str]:
    """What a tool of the newest Go prints: those of Go 1.19 cannot read position-independent files."""
    command = [go_tool_path(name), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment(NEWEST), check=True)
    return done.stdout.splitlines()


def pprof_top(path: Path, index: str, unit: str) -> dict[str, tuple[float, float]]:
    """(flat, cumulative) of each function in a profile, by `go tool pprof`."""
    found = {}
    arguments = (
        "-top",
        f"-sample_index={index}",
        f"-unit={unit}",
        "-nodefraction=0",
        "-edgefraction=0",
        "-nodecount=10000",
    )
    for line in go_tool("pprof", *arguments, path):
        if row := re.match(rf" *(-?[\d.]+)(?:{unit})? +[\d.]+% +[\d.]+% +(-?[\d.]+)(?:{unit})? +[\d.]+% +(\S.*)", line):
            found[re.sub(r"\[.*\]", "[...]", row[3]).replace(" (inline)", "")] = float(row[1]), float(row[2])
    return found


def pprof_traces(path: Path, index: str, unit: str, *options: str | Path) -> Counter[tuple[str, ...]]:
    """What each stack of a profile comes to, innermost function first, by `go tool pprof`."""
    found: Counter[tuple[str, ...]] = Counter()
    text = "\n".join(go_tool("pprof", "-traces", f"-sample_index={index}", f"-unit={unit}", *options, path))
    for block in re.split(r"^-+\+-+$\n?", text, flags=re.M)[1:]:
        if lines := re.sub(r"^ +bytes: .*\n", "", block.replace(" (inline)", ""), flags=re.M).splitlines():
            value, first = lines[0].split(None, 1)
            found[(first, *(line.strip() for line in lines[1:]))] += int(value.removesuffix(unit))
    return found


def build(program: str, version: str = NEWEST, flavour: str = "stripped", arch: str = HOST_ARCH) -> Path:
    """The executable of tests/testdata/src/PROGRAM, built once per content, release, flavour and architecture."""
    arguments, cgo = {**FLAVOURS, **OTHERS}[flavour] if flavour != C else (_C_FLAGS, True)
    if program in _UNCHECKED and int(version.split(".")[1]) >= 23:
        linker = [word.removeprefix("-ldflags=") for word in arguments if word.startswith("-ldflags=")]
        arguments = [word for word in arguments if not word.startswith("-ldflags=")]
        arguments = [*arguments, " ".join(["-ldflags=-checklinkname=0", *linker])]
    texts = [path.read_bytes() for path in sorted((SOURCES / program).rglob("*")) if path.is_file()]
    stamp = hashlib.sha256(b"\0".join([*texts, repr((version, flavour, arguments, arch)).encode()])).hexdigest()[:16]
    folder = cache() / "targets" / stamp
    out = folder / program
    if out.exists():
        return out
    if EMULATED:
        raise RuntimeError(f"{program} ({version}, {flavour}) was not built in advance: `everywhere` has to name it")
    if flavour == "pgo":
        arguments = [f"-pgo={profile(version)}"]
    folder.mkdir(parents=True, exist_ok=True)
    # One at a time of a release: else each compiles the packages that they share.
    with open(cache() / "targets" / f".lock-{C if flavour == C else version}-{arch}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if out.exists():
            return out
        unfinished = folder / "unfinished"
        env = environment(version, arch, cgo)
        if flavour == "experiment":
            env["GOEXPERIMENT"] = EXPERIMENTS[version]
        command = [str(go(version)), "build", "-o", str(unfinished), *arguments, "."]
        if flavour == C:
            command = [env["CC"], "-o", str(unfinished), *arguments, f"{program}.c", "-ldl"]
        done = subprocess.run(command, cwd=SOURCES / program, env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} for Go {version}:\n{done.stderr}")
        if flavour == "nosections":
            _forget_sections(unfinished)
        unfinished.rename(out)
    return out


def esbuild(version: str, arch: str = HOST_ARCH) -> Path:
    """esbuild of npm, which is stripped; since 0.27 without build information, too."""
    package = f"@esbuild/linux-{'x64' if arch == 'amd64' else arch}@{version}"
    command = [ROOT / "scripts" / "npm-package", package]
    folder = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return Path(folder) / "bin" / "esbuild"


def prebuild(wanted: Iterable[tuple[str, str, str, str]]) -> None:
    """Build many (program, version, flavour, architecture), two at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: build(*one), wanted))


def profile(version: str) -> Path:
    """A CPU profile of gcload under ``version``, for profile-guided builds (Go 1.21 and later)."""
    out = cache() / "profiles" / f"{version}.pprof"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        program = build("gcload", version, "default", HOST_ARCH)
        unfinished = out.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        subprocess.run(
            [program, "-seconds", "5", "-cpuprofile", unfinished], input=b"\n", stdout=subprocess.DEVNULL, check=True
        )
        unfinished.rename(out)
    return out


def _forget_sections(path: Path) -> None:
    """Take the section headers away: the loader does not need them."""
    with open(path, "r+b") as file:
        file.seek(0x28)
        file.write(bytes(8))  # e_shoff
        file.seek(0x3C)
        file.write(bytes(4))  # e_shnum, e_shstrndx


def flavours_of(version: str, arch: str) -> list[str]:
    """The flavours that can be built here."""
    skipped = set()
    if version.startswith(("1.19.", "1.20.")):
        skipped.add("pgo")
    if not EMULATED and shutil.which("gcc" if arch == HOST_ARCH else CROSS_CC[arch]) is None:
        skipped |= {name for name, (_, cgo) in FLAVOURS.items() if cgo}
    return [name for name in FLAVOURS if name not in skipped]


CUDA_SOURCES = ROOT / "tests" / "testdata" / "gpumem"
# So that functions begin with a push, as the real ones do.
_CUDA_FLAGS = {
    "amd64": ["-fcf-protection=none"],
    "arm64": [],
}


def cuda_standins(arch: str = HOST_ARCH) -> Path:
    """The folder with libcuda.so.1, libcudart.so.12, libc10_cuda.so and the programs linked, static and unlinked."""
    flags = ["-O1", "-g0", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-Wall", "-Werror", "-Wno-unused"]
    flags += _CUDA_FLAGS[arch]
    compiler = "gcc" if arch == HOST_ARCH else CROSS_CC[arch]
    texts = [path.read_bytes() for path in sorted(CUDA_SOURCES.iterdir())]
    stamp = hashlib.sha256(b"\0".join([*texts, *map(str.encode, (*flags, arch))])).hexdigest()[:16]
    folder = cache() / "targets" / f"gpumem-{stamp}"
    if (folder / "done").exists():
        return folder
    if EMULATED:
        raise RuntimeError("the stand-ins for CUDA were not built in advance")
    folder.mkdir(parents=True, exist_ok=True)
    versions = folder / "versions"
    versions.write_text("libcudart.so.12 { global: cuda*; local: *; };\n")

    def cc(out: str, *arguments: str) -> None:
        command = [compiler, *flags, "-o", str(folder / out), *arguments, "-pthread", "-ldl"]
        subprocess.run(command, cwd=CUDA_SOURCES, check=True)

    def library(name: str, *arguments: str) -> None:
        cc(name, "-shared", "-fPIC", f"-Wl,-soname,{name}", *arguments)

    here = ["-L", str(folder), "-Wl,-rpath,$ORIGIN"]
    driver, runtime = [*here, "-l:libcuda.so.1"], "-l:libcudart.so.12"
    library("libcuda.so.1", "cuda.c")
    library("libcudart.so.12", "-s", f"-Wl,--version-script={versions}", "cudart.c", *driver)
    library("libc10_cuda.so", "c10_cuda.c", *here, runtime, "-l:libcuda.so.1")
    cc("linked", "program.c", "-Wl,--no-as-needed", *here, runtime, "-l:libcuda.so.1", "-l:libc10_cuda.so")
    cc("static", "-DSTATIC", "program.c", *driver)
    cc("unlinked", "program.c")
    cc("launcher", "launcher.c")
    (folder / "done").touch()
    return folder


def truth(line: str) -> dict[str, object]:
    """The JSON line a target ends with."""
    return dict(json.loads(line))


# of the builds that are run, those that are in the emulated machine too
EVERYWHERE_FLAVOURS = (("1.19.8", "noopt"), ("1.22.10", "pgo"), ("1.27.3", "pie-stripped"), ("1.27.3", "cgo-external-pie"))
EVERYWHERE_STARTS = (*((version, "stripped") for version in ENDS), (NEWEST, "pie-stripped"), (NEWEST, "cgo-external"))


def everywhere(arch: str) -> list[tuple[str, str, str, str]]:
    """What the tests marked `everywhere` run in the emulated machine, as (program, version, flavour, architecture)."""
    programs = ("gcload", "nongc", "periodic", "stacks", "burner", "shapes", "starter")
    releases = [version for version in MATRIX if version in MACHINE]
    wanted = [(program, version, "stripped") for version in releases for program in programs]
    wanted += [(program, NEWEST, "stripped") for program in ("lifecycle", "flood", "crasher", "unserved")]
    wanted += [
        (program, version, "stripped")
        for program in ("planted", "execer", "wedge", "waiters", "hoarder", "contender", "scheduled", "lister")
        for version in (MATRIX[0], "1.22.10", NEWEST)
    ]
    wanted += [("gcload", version, flavour) for version, flavour in EVERYWHERE_FLAVOURS if version in MATRIX]
    wanted += [("calls", NEWEST, C), ("iocaller", NEWEST, C)]
    wanted += [("callback", version, "cgo-external") for version in ("1.22.10", NEWEST) if version in MATRIX]
    wanted.append(("spender", NEWEST, "stripped"))
    wanted += [("starter", NEWEST, "pie-stripped"), ("starter", NEWEST, "cgo-external"), ("execer", NEWEST, "pie-stripped")]
    return [(*one, arch) for one in wanted]


if __name__ == "__main__":
    prebuild(everywhere(sys.argv[1]))
    cuda_standins(sys.argv[1])
