"""What is in the page cache and what leaves it, on a real disk, against fincore, lsblk and blockdev of util-linux."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import targets
from gotrace.errors import GotraceError
from gotrace.kernel.page_cache import Dropped, drop, read_ahead_kb, resident

PAGES = 542
IN_MEMORY = ("tmpfs", "ramfs")

_MAPPER = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    memory = mmap.mmap(file.fileno(), int(sys.argv[2]) * mmap.PAGESIZE, prot=mmap.PROT_READ)
sum(memory[:: mmap.PAGESIZE])
print("mapped", flush=True)
sys.stdin.read()
"""


def file_system(path: str | Path) -> str:
    return subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files are on a disk: that of tests often is in memory."""
    targets.cache().mkdir(parents=True, exist_ok=True)
    places = [place for place in (targets.cache(), targets.ROOT, tmp_path) if file_system(place) not in IN_MEMORY]
    reason = "has no file system on a disk that tests may write"
    if not places and os.environ.get("GOTRACE_REQUIRE_BPF") == "1":
        pytest.fail(f"GOTRACE_REQUIRE_BPF is set, but this host {reason}")
    if not places:
        pytest.skip(f"this host {reason}")
    with tempfile.TemporaryDirectory(dir=places[0], prefix="page-cache-") as folder:
        yield Path(folder)


@pytest.fixture
def written(disk: Path) -> Path:
    """A file that is on the disk and in memory; its last page is not full."""
    path = disk / "file"
    with open(path, "wb") as file:
        file.write(os.urandom(PAGES * mmap.PAGESIZE - 100))
        file.flush()
        os.fsync(file.fileno())
    return path


@contextlib.contextmanager
def mapped_by_another(path: Path, pages: int) -> Iterator[None]:
    command = [sys.executable, "-c", _MAPPER, path, str(pages)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mapped\n"
        yield
        process.communicate()


def fincore(path: Path) -> int:
    """Pages of a file in memory, as another program sees them."""
    if shutil.which("fincore") is None:
        pytest.skip("this host has no fincore (util-linux)")
    command = ["fincore", "--noheadings", "--output", "PAGES", path]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_resident_is_what_fincore_says(written):
    assert resident(written) == (PAGES, PAGES)
    assert fincore(written) == PAGES
    drop(written)
    assert resident(written) == (0, PAGES)
    assert fincore(written) == 0
    with open(written, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for page in (0, 1, 200, PAGES - 1):
            os.pread(file.fileno(), 1, page * mmap.PAGESIZE)
        assert resident(written) == (fincore(written), PAGES)
    assert 0 < resident(written)[0] < PAGES


def test_looking_reads_nothing_and_leaves_no_mapping(written):
    drop(written)
    assert [resident(written) for _ in range(3)] == [(0, PAGES)] * 3
    assert str(written) not in Path("/proc/self/maps").read_text()
    assert str(written) not in {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}


def test_a_dropped_file_is_read_from_the_disk_again(written):
    content = written.read_bytes()
    assert drop(written) == Dropped(str(written), PAGES, 0, PAGES)
    assert drop(written) == Dropped(str(written), 0, 0, PAGES)

    def read() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))

    before = read()
    assert written.read_bytes() == content
    assert read() - before >= len(content) // mmap.PAGESIZE * mmap.PAGESIZE
    assert resident(written) == (PAGES, PAGES)


def test_a_file_just_written_is_dropped_too(disk):
    path = disk / "fresh"
    content = os.urandom(256 * mmap.PAGESIZE)
    path.write_bytes(content)
    assert drop(path) == Dropped(str(path), 256, 0, 256)
    assert path.read_bytes() == content


def test_pages_mapped_by_another_process_stay(written):
    with mapped_by_another(written, 400):
        dropped = drop(written)
        assert dropped.before == PAGES
        # a page goes only with all others that the file system keeps together with it
        assert 400 <= dropped.after < PAGES
        assert resident(written) == (dropped.after, PAGES)
    assert drop(written) == Dropped(str(written), dropped.after, 0, PAGES)


def test_a_running_program_stays_in_part(disk):
    program = disk / "program"
    shutil.copy(targets.build("lifecycle"), program)
    with subprocess.Popen([program, "forever"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begin\n"
        running = drop(program)
        process.kill()
    assert 0 < running.after < running.before <= running.pages
    assert drop(program).after == 0


def test_a_file_in_memory_stays():
    if file_system("/dev/shm") not in IN_MEMORY:
        pytest.skip("/dev/shm is no tmpfs here")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(bytes(10 * mmap.PAGESIZE))
        file.flush()
        assert drop(file.name) == Dropped(file.name, 10, 10, 10)
        assert read_ahead_kb(file.name) is None


def test_an_empty_file_has_no_pages(disk):
    (disk / "empty").touch()
    assert resident(disk / "empty") == (0, 0)
    assert drop(disk / "empty") == Dropped(str(disk / "empty"), 0, 0, 0)


@pytest.mark.parametrize("ask", [resident, drop, read_ahead_kb])
def test_a_missing_file_is_an_error_of_one_line(ask, tmp_path):
    with pytest.raises(GotraceError) as raised:
        ask(tmp_path / "missing")
    assert raised.value.message == f"cannot read {tmp_path}/missing: No such file or directory"
    assert raised.value.hint


@pytest.mark.parametrize("ask", [resident, drop])
def test_what_is_no_file_is_not_opened(ask, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(GotraceError, match="is not a regular file") as raised:
            ask(path)
        assert raised.value.hint


def test_a_file_that_cannot_be_mapped_is_an_error():
    with pytest.raises(GotraceError, match="^cannot read /sys/kernel/mm/transparent_hugepage/enabled: "):
        resident("/sys/kernel/mm/transparent_hugepage/enabled")


def test_read_ahead_is_what_util_linux_says(disk):
    device = os.stat(disk).st_dev
    if os.major(device) == 0:
        pytest.skip("the file system here does not tell its device")
    name = f"{os.major(device)}:{os.minor(device)}"
    done = subprocess.run(["lsblk", "-l", "-n", "-o", "MAJ:MIN,RA,PATH"], capture_output=True, text=True)
    listed = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    if name not in listed:
        pytest.skip("lsblk does not know the device here")
    kilobytes, path = listed[name]
    assert read_ahead_kb(disk) == int(kilobytes)
    # a container's root may not open the device
    sectors = subprocess.run(["blockdev", "--getra", path], capture_output=True, text=True)
    assert sectors.returncode or read_ahead_kb(disk) == int(sectors.stdout) // 2


@pytest.mark.parametrize("kind", ["disk", "partition", "network", "none"])
def test_read_ahead_is_that_of_the_disk_of_a_partition(kind, tmp_path):
    device = os.stat(tmp_path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    disk = tmp_path / "sys" / "devices" / "block" / "sda"
    link = tmp_path / "sys" / "dev" / "block" / name
    bdi = tmp_path / "sys" / "class" / "bdi" / (name if kind == "network" else "0:999")
    for folder in (disk / "queue", disk / "sda1", link.parent, bdi):
        folder.mkdir(parents=True)
    (disk / "queue" / "read_ahead_kb").write_text("128\n")
    (bdi / "read_ahead_kb").write_text("15360\n")
    if kind in ("disk", "partition"):
        link.symlink_to(disk if kind == "disk" else disk / "sda1")
    expected = {"disk": 128, "partition": 128, "network": 15360, "none": None}
    assert read_ahead_kb(tmp_path, root=str(tmp_path)) == expected[kind]


def test_read_ahead_of_what_is_on_no_disk():
    assert read_ahead_kb("/proc/self/status") is None
