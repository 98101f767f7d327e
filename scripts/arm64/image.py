"""The ARM64 machine's kernel and disk: Debian's packages, unpacked; nothing of ARM64 is run to build them."""

from __future__ import annotations

import compileall
import configparser
import fcntl
import hashlib
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import debian_packages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("GOTRACE_CACHE") or Path.home() / ".cache" / "gotrace")

# The user land is Debian 12's; a kernel is had from the release that has it.
SUITE, PYTHON = "bookworm", (3, 11)
KERNELS = {"6.1": "bookworm", "6.12": "trixie"}
MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "virtio_console", "9pnet_virtio", "9p", "overlay")
PACKAGES = (
    *("base-files", "base-passwd", "bash", "bsdutils", "busybox-static", "coreutils", "findutils", "grep", "less"),
    *("libc-bin", "libpython3.11-dev", "mount", "ncurses-base", "numactl", "podman", "procps", "python3"),
    *("python3-bpfcc", "runc", "sed", "tar", "tmux", "util-linux"),
)
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/perl", "usr/include")
COMPILED = "hdrhistogram"  # has no wheel for ARM64, and one C file
HOST_PACKAGES = {
    "qemu-system-aarch64": "qemu-system-arm",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "mke2fs": "e2fsprogs",
}


def say(text: str) -> None:
    print(f"arm64-vm: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    raise SystemExit(f"arm64-vm: {text}")


def run(*command: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """The output of a command that has to succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, cwd=cwd)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        fail("\n".join([f"`{shlex.join(words[:4])} …` failed ({done.returncode})", *lines[-15:]]))
    return done.stdout


def require_host() -> None:
    """Install what this machine lacks, or say how."""
    missing = " ".join(package for program, package in HOST_PACKAGES.items() if shutil.which(program) is None).split()
    if not os.path.exists(debian_packages.KEYRING):
        missing.append("debian-archive-keyring")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        fail(f"needs apt-get; install these by hand (named as in Debian): {' '.join(missing)}")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        fail(f"packages are missing; run: sudo {shlex.join(install)}")
    say(f"installing {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install[1:1] = ["-qq", "-o", "DPkg::Lock::Timeout=300"]
    if subprocess.run(install, env=env, capture_output=True).returncode:
        subprocess.run(["apt-get", "-qq", "update"], stdout=subprocess.DEVNULL)  # the lists are absent or old
        run(*install, env=env)


def disk() -> Path:
    """root.ext4, in a folder of the cache."""
    return _kept("root", repr(_requirements()), _build_disk) / "root.ext4"


def kernel(version: str) -> Path:
    """The folder of the cache with vmlinuz and initramfs."""
    init = (HERE / "initramfs-init").read_text()
    return _kept(f"kernel-{version}", init, lambda folder: _build_kernel(KERNELS[version], init, folder))


def _kept(name: str, made_of: str, build: Callable[[Path], None]) -> Path:
    """The cache's folder NAME, built on first use, aside, and renamed when whole; and anew when what builds it changes."""
    cache = CACHE / "arm64"
    code = "".join(Path(module).read_text() for module in (__file__, debian_packages.__file__))
    key = hashlib.sha256((made_of + code).encode()).hexdigest()[:12]
    folder = cache / f"{name}-{key}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in cache.glob("building-*"):  # who held the lock was killed
            shutil.rmtree(leftover)
        if not folder.exists():
            begin = time.monotonic()
            say(f"building {folder}")
            new = cache / f"building-{folder.name}"
            new.mkdir()
            build(new)
            for old in cache.glob(f"{name}-{'?' * 12}"):
                shutil.rmtree(old)
            new.rename(folder)
            say(f"built it in {time.monotonic() - begin:.0f} s")
    return folder


def _fetch(suite: str, packages: tuple[str, ...], folder: Path, only: tuple[str, ...] = ("",)) -> list[Path]:
    """The .deb files for ARM64 of ``packages`` and what they depend on, of them those whose name starts with ``only``.

    What was fetched before for another version of ``folder`` is not fetched again.
    """
    state = folder / "apt"
    archives = folder.parent / "archives" / folder.name.removeprefix("building-")[:-13]
    archives.mkdir(parents=True, exist_ok=True)
    env = debian_packages.apt_environment(suite, "arm64", state)
    run("apt-get", "-qq", "update", env=env)
    listed = run("apt-get", "-qq", "-y", "install", "--print-uris", *packages, env=env)  # 'URI' FILE SIZE HASH
    files = [line.split()[1] for line in listed.splitlines() if line.startswith("'")]
    files = [name for name in files if name.startswith(only)]
    for stale in set(archives.iterdir()) - {archives / name for name in files}:
        stale.unlink()
    say(f"fetching {len(files)} packages for ARM64")
    run("apt-get", "-qq", "download", *(name.split("_")[0] for name in files), env=env, cwd=archives)
    return [archives / name for name in files]


def _unpack(packages: list[Path], folder: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda package: run("dpkg-deb", "-x", package, folder), packages))


def _requirements() -> list[str]:
    """What gotrace and its tests need from PyPI, by setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    return [line.strip() for line in lines.splitlines() if line.strip()]


def _pip(*arguments: object) -> None:
    run(sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments)


def _build_disk(folder: Path) -> None:
    root = folder / "root"
    root.mkdir()
    _unpack(_fetch(SUITE, PACKAGES, folder), root)
    for name in ("bin", "sbin", "lib"):  # Debian 12 has one of each; its packages still have two
        shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(root / name)
        (root / name).symlink_to(f"usr/{name}")
    if not (root / "usr/bin/sh").exists():  # made when a package is configured, which none is here
        (root / "usr/bin/sh").symlink_to("bash")
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / f"etc/{name}")
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "host", "control", "var/cache", "var/lib/containers"):
        (root / name).mkdir(parents=True, exist_ok=True)
    # podman without systemd, and by the runtime that is here.
    containers = '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
    (root / "etc/containers/containers.conf").write_text(containers)
    site = root / "usr/lib/python3/dist-packages"
    # Those up to Debian 12's that wheels are made for: pip does not go down from one to the next.
    platforms = ("manylinux_2_28_aarch64", "manylinux_2_24_aarch64", "manylinux2014_aarch64")
    platform = ["--only-binary=:all:", *(f"--platform={name}" for name in platforms)]
    wanted = [line for line in _requirements() if not line.startswith(COMPILED)]
    _pip("install", "--target", site, "--upgrade", "--python-version", "3.11", *platform, *wanted)
    _cross_compile(next(line for line in _requirements() if line.startswith(COMPILED)), folder, site)
    command = root / "usr/bin/gotrace"
    command.write_text("#!/usr/bin/python3\nfrom gotrace.cli.__main__ import main\n\nmain()\n")
    command.chmod(0o755)
    for name in UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    if sys.version_info[:2] == PYTHON:  # which writes the same bytecode; without, every start in the machine is slow
        for libraries in ("usr/lib/python3", "usr/lib/python3.11"):
            compileall.compile_dir(root / libraries, quiet=2, workers=2, stripdir=str(root), prependdir="/")
    run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", root, folder / "root.ext4", "1500M")
    for rest in ("root", "apt", "source"):
        shutil.rmtree(folder / rest)


def _cross_compile(requirement: str, folder: Path, site: Path) -> None:
    source = folder / "source"
    _pip("download", "--no-deps", "--no-binary", COMPILED, "-d", source, requirement)
    shutil.unpack_archive(next(source.glob("*.tar.gz")), source)
    tree = next(path for path in source.iterdir() if path.is_dir())
    shutil.copytree(tree / "hdrh", site / "hdrh")
    headers = [f"-I{folder}/root/usr/include/python3.11", f"-I{folder}/root/usr/include"]
    out = site / "pyhdrh.cpython-311-aarch64-linux-gnu.so"
    run("aarch64-linux-gnu-gcc", "-O2", "-shared", "-fPIC", *headers, "-o", out, tree / "src/python-codec.c")


def _build_kernel(suite: str, init: str, folder: Path) -> None:
    unpacked = folder / "unpacked"
    packages = ("linux-image-arm64", "busybox-static")
    _unpack(_fetch(suite, packages, folder, only=("linux-image-", "busybox-static")), unpacked)
    shutil.copy(next((unpacked / "boot").glob("vmlinuz-*")), folder / "vmlinuz")
    files = {"init": init.encode(), "bin/busybox": next(unpacked.glob("**/bin/busybox")).read_bytes()}
    order = []
    for name, content in _modules(unpacked):
        files[f"modules/{name}.ko"] = content
        order.append(name)
    files["modules/order"] = "\n".join(order).encode()
    (folder / "initramfs").write_bytes(_cpio(files))
    for rest in ("unpacked", "apt"):
        shutil.rmtree(folder / rest)


def _modules(unpacked: Path) -> Iterator[tuple[str, bytes]]:
    """MODULES, each behind those it depends on (which its .modinfo names)."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in unpacked.glob("**/*.ko*")}
    seen: set[str] = set()

    def visit(name: str) -> Iterator[tuple[str, bytes]]:
        path = files.get(name.replace("-", "_"))
        if path is None or name in seen:  # None: built into the kernel
            return
        seen.add(name)
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in depends[1].decode().split(",") if depends else ():
            yield from visit(other)
        yield name, content

    for name in MODULES:
        yield from visit(name)


def _cpio(files: dict[str, bytes]) -> bytes:
    """An archive in the "newc" format of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst."""
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    entries = [(name, 0o40755, b"") for name in sorted(folders)]
    entries += [(name, 0o100755, content) for name, content in files.items()]
    out = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)
