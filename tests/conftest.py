"""What tests share: which features this host has, targets that always end, and the command under test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import forked
import targets
from gotrace.kernel import bpf, pmu

GOTRACE = forked.COMMAND
# How long a command may take. In the emulated machine the first to use a probe compiles it, for a minute and more.
PATIENCE_S = 400 if targets.EMULATED else 120
# not a name of a target's: Go has cgoTraceback
TRACEBACK = "Traceback (most recent call last)"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file that has none of the tests asked for: all together take minutes in the emulated machine."""
    asked = set(re.sub(r"\bnot \w+", "", config.option.markexpr or "").split()) - {"and"}
    if not asked or not asked <= {"alone", "everywhere"} or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text()
    return None if all(f"mark.{name}" in text for name in asked) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    out = set() if os.path.exists("/sys/devices/system/node/node1") else {"numa"}
    out.add("no_pmu" if pmu.pmus() else "pmu")
    if os.environ.get("GOTRACE_ARM64_VM") != "1":
        out.add("arm64_vm")
    items[:] = [item for item in items if not out & {mark.name for mark in item.iter_markers()}]


def lacking() -> str:
    """Why this host cannot trace at all, or an empty text."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/sys/bus/event_source/devices/uprobe"):
        return "the kernel has no uprobes for perf"
    return ""


@pytest.fixture(autouse=True)
def _bpf_feature(request: pytest.FixtureRequest) -> None:
    """Skip a test marked ``bpf`` only where the host truly cannot; GOTRACE_REQUIRE_BPF=1 makes that a failure."""
    reason = lacking() if request.node.get_closest_marker("bpf") else ""
    if reason and os.environ.get("GOTRACE_REQUIRE_BPF") == "1":
        pytest.fail(f"GOTRACE_REQUIRE_BPF is set, but this host {reason}")
    if reason:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _commands_fork(request: pytest.FixtureRequest) -> Iterator[None]:
    """See `forked`: where several tests run at once. Alone, or marked ``started``, a test starts gotrace as users do."""
    forks = targets.EMULATED or "PYTEST_XDIST_WORKER" in os.environ
    starts = request.node.get_closest_marker("started") is not None and not targets.EMULATED
    with forked.commands() if forks and not starts else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session", autouse=True)
def _hooks_stay_on() -> Iterator[None]:
    """Under QEMU, keep whatever our programs are attached to switched on: the first attachment may miss everything.

    The kernel switches these on by writing over its own instructions. QEMU drops its translation of them and then writes;
    another CPU that runs there in between translates, and keeps, the old ones, until they are written over again. With
    two processes at system calls one in six attachments saw none of them (QEMU 7.2; of 10.0 one in 25).
    """
    if not targets.EMULATED:
        yield
        return
    text = "".join(path.read_text() for path in Path(bpf.__file__).parents[2].glob("ebpf/*.bpf.c"))
    names = set(re.findall(r"\bon_(?:tracepoint|trace_event__[a-z]+)__(\w+)\(", text))
    ids = [int(path.read_text()) for name in names for path in Path("/sys/kernel/tracing/events").glob(f"*/{name}/id")]
    assert len(ids) > 20
    page_faults = [(1, number) for number in (2, 5, 6)]  # PERF_TYPE_SOFTWARE
    events = [*((2, number) for number in ids), *page_faults]  # PERF_TYPE_TRACEPOINT
    # Opened, but never enabled: nothing is counted.
    fds = [bpf.perf_event_open(kind, (number, 0, 0), 1, 0, -1, "keep an event on") for kind, number in events]
    fds.append(bpf.perf_event_open(1, (1, 0, 0), 1, 0, 0, "keep switches between threads' events on"))
    yield
    for fd in fds:
        os.close(fd)


@pytest.fixture
def open_path(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tmp_path``, which other users may pass through to: pytest makes it, and some of those above, for its user alone."""
    tops = (folder for folder in tmp_path.parents if folder.name.startswith("pytest-of-"))
    top = next(tops, tmp_path_factory.getbasetemp())
    for folder in (tmp_path, *tmp_path.parents):
        mode = folder.stat().st_mode
        if mode & 0o011 != 0o011:
            folder.chmod(mode | 0o011)
        if folder == top:
            break
    return tmp_path


@contextlib.contextmanager
def cpu_quota(quota_us: int, period_us: int) -> Iterator[tuple[Path, Path]]:
    """A cgroup with a quota; yields the file that a process joins it by, and its cpu.stat.

    Of version 2 or 1, whichever has the controller.
    """
    name = f"gotrace-test-{os.getpid()}"
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        (root / "cgroup.subtree_control").write_text("+cpu")
        folder = root / name
        folder.mkdir()
        (folder / "cpu.max").write_text(f"{quota_us} {period_us}")
    else:
        folder = root / "cpu" / name
        folder.mkdir()
        (folder / "cpu.cfs_period_us").write_text(str(period_us))
        (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
    try:
        yield folder / "cgroup.procs", folder / "cpu.stat"
    finally:
        (folder.parent / "cgroup.procs").write_text(str(os.getpid()))
        for _ in range(100):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.05)


@dataclass(frozen=True)
class Load:
    """How much a test asks of its target. In the emulated machine less: there all that runs is many times slower."""

    collections: int = 550
    growth: int = 100  # GOGC
    rounds: int = 25
    floods: int = 3
    events: int = 2_000_000
    ring_bytes: int = 64 << 20

    def collect(self) -> list[str]:
        """What makes the program gcload do it."""
        return ["-cycles", str(self.collections), "-percent", str(self.growth)]


@pytest.fixture(scope="session")
def load() -> Load:
    # 256 pauses are all that MemStats remembers
    return (
        Load(collections=300, growth=40, rounds=6, floods=2, events=250_000, ring_bytes=8 << 20)
        if targets.EMULATED
        else Load()
    )


@dataclass
class Target:
    """A Go program under test. Its standard input stays open until `finish`."""

    process: subprocess.Popen[str]
    stderr: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def go(self) -> None:
        """Send the line it waits for."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def truth(self) -> dict[str, Any]:
        """The line of JSON it prints when its work is done."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def finish(self) -> int:
        """Let it exit; its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)


class Others:
    """What others than this process and its children have used of the CPUs, by the kernel's own accounts.

    Others are processes, and whoever the hypervisor gave the CPUs to. A test about who had the CPUs carries it as its
    control: what they took may look like what it planted.
    """

    def __init__(self) -> None:
        self._busy, self._own, self._at = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float]:
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, softirq, stolen, *_ = map(int, file.readline().split()[1:])
        own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        busy = (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")
        return busy, own, time.monotonic()

    def share(self) -> float:
        """Of all CPU time since this was made, 0 to 1. Only children that were waited for count as ours."""
        busy, own, at = self._read()
        used = (busy - self._busy) - (own - self._own)
        return max(0.0, used / ((at - self._at) * (os.cpu_count() or 1)))

    @classmethod
    def wait_quiet(cls, seconds: float = 60) -> None:
        """Until others leave nine tenths of the CPUs alone for a second, or it is late."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            others = cls()
            time.sleep(1)
            if others.share() < 0.1:
                return


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Target]]:
    """start(executable, *arguments, env={...}) -> a running Target, killed at the end of the test whatever happens."""
    running: list[subprocess.Popen[str]] = []

    def run(program: Path, *arguments: str, env: dict[str, str] | None = None) -> Target:
        stderr = tmp_path / f"stderr-{len(running)}"
        with open(stderr, "w") as file:
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, **(env or {})},
            )
        running.append(process)
        return Target(process, stderr)

    yield run
    for process in running:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


@dataclass
class Tracer:
    """A running `gotrace` command."""

    process: subprocess.Popen[str]
    records_path: Path | None = None
    head: str = ""
    stdout: str = ""
    stderr: str = ""
    records: list[dict[str, Any]] = field(default_factory=list)

    def wait_ready(self) -> None:
        """Until its probes are in place (or it has ended)."""
        assert self.process.stderr is not None
        self.head = self.process.stderr.readline()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def finish(self, timeout: float = 60) -> int:
        """Wait for its end and collect what it wrote; no traceback may have reached the user."""
        self.stdout, rest = self.process.communicate(timeout=timeout)
        self.stderr = self.head + rest
        assert TRACEBACK not in self.stderr + self.stdout, self.stderr
        if self.records_path is not None and self.records_path.exists():
            self.records = [json.loads(line) for line in self.records_path.read_text().splitlines()]
        return self.process.returncode

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["type"] == kind]


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Callable[..., Tracer]]:
    """trace(*arguments) -> a running `gotrace gc` that writes ndjson to a file, ready to see everything."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str, command: tuple[str, ...] = ()) -> Tracer:
        records = tmp_path / f"records-{len(running)}.ndjson"
        options = ["gc", *arguments, "-o", str(records), *(("--", *command) if command else ())]
        process = subprocess.Popen([*GOTRACE, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        tracer = Tracer(process, records)
        tracer.wait_ready()
        return tracer

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def gotrace() -> Callable[..., subprocess.CompletedProcess[str]]:
    """gotrace(*arguments) -> the finished command; no traceback may have reached the user."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*GOTRACE, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, **options)
        assert TRACEBACK not in done.stderr + done.stdout, done.stderr
        return done

    return run


@pytest.fixture
def agent() -> Iterator[Callable[..., Any]]:
    """agent(*options) -> a running `gotrace serve` (`agents.Agent`), killed at the end of the test whatever happens."""
    from agents import Agent

    running: list[Agent] = []

    def run(*options: str, **more: Any) -> Agent:
        running.append(Agent(*options, **more))
        return running[-1]

    yield run
    for each in running:
        with each.process:
            each.process.kill()


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """program(name) -> gcload (or another program) of a release, under a name that nobody else has."""

    def named(name: str, version: str = targets.NEWEST, program: str = "gcload") -> Path:
        return Path(shutil.copy(targets.build(program, version), tmp_path / name))

    return named


# Another user may not be able to read this checkout or its interpreter: import first, become nobody then.
_AS_NOBODY = """
import os, sys
from gotrace.cli import main
from gotrace.cli.text import gc
from gotrace.late import keep_the_rest
main.group.get_command(None, sys.argv[1])
keep_the_rest("gotrace")
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
main.main(sys.argv[1:])
"""


@pytest.fixture
def gotrace_as_nobody() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same as `gotrace`, without any privilege."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _AS_NOBODY, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert TRACEBACK not in done.stderr + done.stdout, done.stderr
        return done

    return run


def records_of(command: str, pid: int, *options: str) -> list[dict[str, Any]]:
    """What `gotrace COMMAND` tells of a process as lines of JSON."""
    arguments = [*GOTRACE, command, "--pid", str(pid), "--format", "ndjson", *options]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def until(condition: Callable[[], Any], seconds: float = 60 if targets.EMULATED else 10) -> None:
    """Wait for ``condition``; fail when it stays false."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def matrix() -> tuple[str, ...]:
    """The Go releases of the support matrix, built for this machine once."""
    targets.prebuild(
        (program, version, "stripped", targets.HOST_ARCH) for version in targets.MATRIX for program in ("gcload", "nongc")
    )
    return targets.MATRIX


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium."""
    from selenium import webdriver

    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium and driver_path, "no Chromium: scripts/setup test installs it where apt is there"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    home = tmp_path_factory.mktemp("browser")
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--window-size=1280,900", f"--user-data-dir={home}"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # without it Chromium refuses to be root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
    yield driver
    driver.quit()


# Names that would do harm in a picture, a page or a terminal.
HOSTILE = [
    "</script><script>alert(1)</script>",
    "]]><b>",
    "<![CDATA[x]]>",
    '"><img src=x onerror=alert(1)>',
    "'&amp;&#0;&bogus;",
    "nul\0bell\x07esc\x1b[31m",
    "\u202egnp.exe\u2066",
    "\ud800\udcff\ufffe\uffff",
    "{title}{0}%s%n",
    "-->",
    "</title></svg></body>",
    "",
]
