"""coldstart --containers: real containers, against strace, a registry's own clock, podman's and containerd's events."""

from __future__ import annotations

import collections
import contextlib
import http.client
import http.server
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

import targets
from conftest import GOTRACE, PATIENCE_S, until
from gotrace.probes.coldstart_containers import CALLS
from services import free_port, remove_podmans_groups

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(targets.EMULATED, reason="container tools' own functions are known on amd64"),
]

RUNC = Path("/usr/sbin/runc")
PODMAN = ["podman", *(["--runtime", str(RUNC)] if RUNC.exists() else [])]
LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]  # the defaults may be more than is allowed here
# Where systemd runs, their packages would start servers that nobody asked for.
REQUIRED = os.environ.get("GOTRACE_REQUIRE_BPF") and not Path("/run/systemd/system").exists()
LAYER_BYTES = 8 << 20
BYTES_PER_S = 8 << 20


def run(*words, **options):
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True, timeout=PATIENCE_S, **options)


class Registry:
    """docker-registry behind a proxy that lets the bytes of a layer through at a rate, and notes when they did."""

    def __init__(self, folder, image):
        self.port, inner = free_port(), free_port()
        self.limited = True
        self.blobs = []  # (began_ns, ended_ns, bytes) in CLOCK_MONOTONIC
        config = folder / "registry.yml"
        config.write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}\n"
            f"http: {{addr: 127.0.0.1:{inner}}}\n"
        )
        self.name = f"127.0.0.1:{self.port}/{image}"
        self._server = subprocess.Popen(
            ["docker-registry", "serve", config], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        until(lambda: self._answers(inner))
        run(*PODMAN, "push", "--tls-verify=false", image, f"127.0.0.1:{inner}/{image}")
        registry = self

        class Slow(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                began = time.monotonic_ns()
                behind = http.client.HTTPConnection("127.0.0.1", inner)
                behind.request(self.command, self.path, headers=dict(self.headers))
                answer = behind.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name != "Date":
                        self.send_header(name, value)
                self.end_headers()
                sent = 0
                while self.command == "GET" and (chunk := answer.read(256 << 10)):
                    self.wfile.write(chunk)
                    sent += len(chunk)
                    if registry.limited and "/blobs/" in self.path:
                        time.sleep(max(0, sent / BYTES_PER_S - (time.monotonic_ns() - began) / 1e9))
                if sent >= LAYER_BYTES:
                    registry.blobs.append((began, time.monotonic_ns(), sent))

            def do_HEAD(self):
                self.do_GET()

            def log_message(self, *_):
                pass

        self._proxy = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Slow)
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()

    @staticmethod
    def _answers(port):
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 200
        return False

    def close(self):
        self._proxy.shutdown()
        self._proxy.server_close()
        self._server.terminate()
        self._server.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """With an image of one layer that does not compress; the program comes from a mount, for it has to be there before."""
    if shutil.which("podman") is None or shutil.which("docker-registry") is None:
        assert not REQUIRED, "scripts/setup test installs podman and docker-registry"
        pytest.skip("no podman, or no docker-registry")
    folder, image = tmp_path_factory.mktemp("image"), f"gotrace-test-{os.getpid()}:1"
    (folder / "root").mkdir()
    (folder / "root" / "layer").write_bytes(os.urandom(LAYER_BYTES))
    run("tar", "-C", folder / "root", "-cf", folder / "image.tar", ".")
    run(*PODMAN, "import", folder / "image.tar", image)
    made = Registry(folder, image)
    run(*PODMAN, "rmi", "-f", image)
    yield made
    made.close()
    subprocess.run([*PODMAN, "rmi", "-f", made.name], capture_output=True)
    remove_podmans_groups()


def podman_run(registry, program, *options, before=()):
    name = f"gotrace-test-{os.getpid()}"
    words = [*before, *PODMAN, "run", "-d", "--name", name, "--network=host", "--tls-verify=false", *LIMITS, *options]
    try:
        return run(*words, "-v", f"{program}:/app:ro", registry.name, "/app").stdout.strip()
    finally:
        run(*PODMAN, "rm", "-f", "-t", "0", name)


def gone(registry):
    subprocess.run([*PODMAN, "rmi", "-f", registry.name], capture_output=True)


@contextlib.contextmanager
def watching(program, *options, runs=1, env=None):
    """A list, in which stands afterwards what `coldstart --containers` saw of the starts that are made inside."""
    command = [*GOTRACE, "coldstart", "--exe", program, "--containers", "-n", runs, "--until", "main", "--format", "json"]
    tracer = subprocess.Popen(
        list(map(str, [*command, *options])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        said = ""
        while "Waiting" not in said:
            said += (line := tracer.stderr.readline())
            assert line, said
        seen = []
        yield seen
        out, rest = tracer.communicate(timeout=PATIENCE_S)
        assert tracer.returncode == 0, said + rest
        *starts, summary = json.loads(out)
        assert summary["lost"] == 0
        for start in starts:
            whole_and_contiguous(start)
        seen += [*starts, said + rest]
    finally:
        tracer.kill()
        tracer.wait()


def stages(start):
    return [row for row in start["rows"] if row["stage"] == "container" and row["depth"] == 1]


def took(start, name):
    return sum(row["duration_ns"] for row in stages(start) if row["name"] == name)


def whole_and_contiguous(start):
    (top, *_) = (row for row in start["rows"] if row["depth"] == 0)
    parts = stages(start)
    assert top["stage"] == "container" and top["begin_ns"] == parts[0]["begin_ns"] == -top["duration_ns"]
    assert sum(part["duration_ns"] for part in parts) == top["duration_ns"]
    assert all(one["begin_ns"] + one["duration_ns"] == two["begin_ns"] for one, two in itertools.pairwise(parts))
    assert all(part["duration_ns"] > 0 for part in parts)


def test_a_slow_registry_is_the_hot_zone(registry, gotrace, tmp_path):
    """Against the registry's own clock; and `compare` with starts for which the image was there."""
    program = targets.build("gcload")
    for name, pulls in (("pulled", True), ("there", False)):
        with watching(program, "-o", tmp_path / f"{name}.gotrace", runs=2) as seen:
            registry.blobs.clear()
            for _ in range(2):
                if pulls:
                    gone(registry)
                began = time.monotonic_ns()
                identity = podman_run(registry, program)
                ended = time.monotonic_ns()
        *starts, _ = seen
        last = starts[-1]
        assert last["container"]["id"] == identity and last["container"]["tool"] == "podman"
        asked_ns = last["monotonic_ns"] + stages(last)[0]["begin_ns"]
        assert 0 < asked_ns - began < 100e6 and last["monotonic_ns"] < ended  # podman returns when it is started
        assert last["container"]["unseen"] == []
        if not pulls:
            assert all(start["container"]["layers"] == 0 for start in starts) and not registry.blobs
            assert all("unpack" in start["container"]["absent"] for start in starts)
            assert {row["detail"] for row in stages(last) if row["name"] == "image pull"} == {"no layer was missing"}
            continue
        assert len(registry.blobs) == 2
        for start, (first, end, sent) in zip(starts, registry.blobs, strict=True):
            assert start["container"]["layers"] == 1
            assert LAYER_BYTES <= start["container"]["unpacked_bytes"] <= sent * 1.01
            pulled = [row for row in stages(start) if row["name"] in ("image pull", "unpack")]
            begin = start["monotonic_ns"] + pulled[0]["begin_ns"]
            unpacked = start["monotonic_ns"] + next(row["begin_ns"] for row in pulled if row["name"] == "unpack")
            # All of it came while the image was pulled, and before it was unpacked.
            assert begin < first and end - 50e6 < unpacked
            assert end - first <= took(start, "image pull") < 1.5 * (end - first) + 300e6
            longest = max(stages(start), key=lambda row: took(start, row["name"]))
            assert longest["name"] == "image pull"
    table = gotrace("report", str(tmp_path / "pulled.gotrace")).stdout
    zones = table[table.index("hot zone ") :].splitlines()
    assert re.match(
        r"image pull +1\.\d+ s .* 2  pull it before, or make its layers smaller: 1 layer, 8\.0\d? MiB", zones[1]
    ), zones
    compared = gotrace(
        "coldstart", "compare", str(tmp_path / "there.gotrace"), str(tmp_path / "pulled.gotrace"), "--all"
    ).stdout
    assert re.search(r"^  unpack +- .*only in B$", compared, re.MULTILINE)
    assert re.search(r"^  image pull .* \+\S+ m?s +\? +too few starts$", compared, re.MULTILINE)
    for end in ("svg", "html", "perfetto", "hlog"):
        exported = tmp_path / f"out.{end}"
        assert gotrace("export", str(tmp_path / "pulled.gotrace"), "-o", str(exported)).returncode == 0
        assert b"image pull" in exported.read_bytes().replace(b"_", b" ")


def test_every_call_that_strace_saw_lies_in_its_stage(registry, gotrace, tmp_path):
    """Mounts, namespaces, the control group and the chain of execve, by strace's times of the same run."""
    program, log, recording = targets.build("gcload"), tmp_path / "strace", tmp_path / "run.gotrace"
    calls = "execve,mount,umount2,pivot_root,unshare,setns,mkdir,mkdirat"
    with watching(program, "-o", recording) as seen:
        podman_run(registry, program, before=("strace", "-f", "-ttt", "-e", f"trace={calls}", "-o", log))
    start, _ = seen
    wall_ns = time.time_ns() - time.monotonic_ns()
    execve = start["monotonic_ns"] + wall_ns
    asked = execve + stages(start)[0]["begin_ns"]

    def stages_in(begin, end):
        return {
            row["name"]
            for row in stages(start)
            if row["begin_ns"] <= end - execve and begin - execve <= row["begin_ns"] + row["duration_ns"]
        }

    found = re.findall(r"^(\d+) +(\d+)\.(\d+) (\w+)\((.*)$", log.read_text(), re.MULTILINE)
    lines = [(pid, int(s) * 10**9 + int(us) * 1000, name, rest) for pid, s, us, name, rest in found]
    within, following = [], {}
    # strace holds a thread before its call, for as long as it likes: the call is made before the thread's next line.
    for pid, at, name, rest in reversed(lines):
        if asked < at < execve:
            later = at + 50_000_000 if name == "execve" else following.get(pid, execve)
            within.insert(0, ((at - 1_000_000, later), name, rest))
        following[pid] = at
    inner = {"snapshot", "cgroup", "unpack", "image pull"}
    counted = 0
    for at, name, rest in within:
        if name in ("mount", "umount2", "pivot_root"):
            assert stages_in(*at) & {"mounts", *inner}, (name, rest)
        elif name in ("unshare", "setns"):
            assert stages_in(*at) & {"namespaces", *inner}, (name, rest)
        elif name.startswith("mkdir") and "/cgroup/" in rest and start["container"]["id"] in rest and rest.endswith("= 0"):
            assert "cgroup" in stages_in(*at), rest
        else:
            continue
        counted += 1
    assert counted > 20
    # And none is missing, or one too many.
    exported = gotrace("export", str(recording), "--format", "ndjson", "-o", "-").stdout.splitlines()
    called = [event for event in map(json.loads, exported) if event["type"] == "called"]
    ours = collections.Counter(CALLS[event["call"]] for event in called if asked < event["begin_ns"] + wall_ns < execve)
    names = (name.removesuffix("2") for _, name, _ in within if not name.startswith(("mkdir", "execve")))
    theirs = collections.Counter(names)
    assert {name: ours[name] for name in theirs} == theirs
    executed = [(at, rest) for at, name, rest in within if name == "execve"]
    (create,) = [at for at, rest in executed if re.search(r'runc".*"create"', rest)]
    (begin,) = [at for at, rest in executed if re.search(r'runc", "start"|runc".*"start"', rest)]
    assert "runtime (runc)" in stages_in(*create) and "runtime (runc)" in stages_in(*begin)
    conmons = [at for at, rest in executed if re.search(r'conmon", \["/usr/bin/conmon", "--api', rest)]
    assert conmons and "conmon" in stages_in(*conmons[0])


def test_an_unknown_version_is_refused(registry, tmp_path):
    """It is said why, the kernel's stages are there, and the tool's are unknown."""
    program = targets.build("gcload")
    fake = tmp_path / "podman"
    fake.write_text("#!/bin/sh\necho podman version 9.9.1\n")
    fake.chmod(0o755)
    with watching(program, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as seen:
        podman_run(registry, program)
    fake.chmod(0o777)
    with watching(program, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as writable:
        podman_run(registry, program)
    start, said = seen
    reason = "podman is 9.9.1, and which functions do what is known of 4.3.x"
    assert reason in said
    unseen = {each["stage"]: each["reason"] for each in start["container"]["unseen"]}
    assert unseen == dict.fromkeys(("image pull", "unpack", "snapshot", "sandbox (network)"), reason)
    assert start["container"]["layers"] is None and not took(start, "snapshot")
    assert took(start, "cgroup") and took(start, "mounts") and took(start, "runtime (runc)")
    assert "others than root may write it" in writable[-1]


def test_containerd(registry, tmp_path):
    """The snapshot by the container's name, against containerd's own events; pull and unpack are not known."""
    if shutil.which("containerd") is None:
        assert not REQUIRED, "scripts/setup test installs containerd"
        pytest.skip("no containerd")
    program, socket, name = targets.build("gcload"), tmp_path / "c.sock", f"gotrace-ctr-{os.getpid()}"
    config = tmp_path / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{tmp_path}/root"\nstate = "{tmp_path}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{tmp_path}/t.sock"\n'
    )
    ctr = ["ctr", "--address", str(socket), "--namespace", name]  # which is the folder of its control groups, too
    daemon = subprocess.Popen(["containerd", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: socket.exists() and subprocess.run([*ctr, "version"], capture_output=True).returncode == 0)
        registry.limited = False
        run(*ctr, "image", "pull", "--plain-http", registry.name)
        with open(tmp_path / "events", "w") as log:
            events = subprocess.Popen([*ctr, "events"], stdout=log, env={**os.environ, "TZ": "UTC"})
        try:
            with watching(program) as seen:
                mount = f"type=bind,src={program},dst=/app,options=rbind:ro"
                run(*ctr, "run", "-d", "--net-host", "--mount", mount, registry.name, name, "/app")
                run(*ctr, "task", "kill", "-s", "KILL", name)
            until(lambda: "/tasks/start" in (tmp_path / "events").read_text())
        finally:
            events.terminate()
            events.wait(PATIENCE_S)
            subprocess.run([*ctr, "task", "rm", "-f", name], capture_output=True)
            subprocess.run([*ctr, "container", "rm", name], capture_output=True)
    finally:
        registry.limited = True
        daemon.terminate()
        daemon.wait(PATIENCE_S)
        for folder in Path("/sys/fs/cgroup").glob(f"*/{name}"):
            until(lambda folder=folder: not (folder / "cgroup.procs").read_text())
            folder.rmdir()
    start, _ = seen
    assert start["container"]["tool"] == "containerd" and start["container"]["id"] == name
    assert {each["stage"] for each in start["container"]["unseen"]} == {"image pull", "unpack", "sandbox (network)"}
    execve = start["monotonic_ns"] + time.time_ns() - time.monotonic_ns()
    told = {}
    for line in (tmp_path / "events").read_text().splitlines():
        if match := re.match(r"\S+ (\d\d):(\d\d):(\d\d)\.(\d+) \S+ \S+ \S+ (/\S+)", line):
            hours, minutes, seconds = (int(match[number]) for number in (1, 2, 3))
            nanoseconds = int(match[4].ljust(9, "0")[:9])
            told.setdefault(match[5], ((hours * 60 + minutes) * 60 + seconds) * 10**9 + nanoseconds)
    day = 86_400 * 10**9
    prepared, created = ((told[topic] - execve % day) for topic in ("/snapshot/prepare", "/tasks/create"))
    (snapshot,) = [row for row in stages(start) if row["name"] == "snapshot"]
    assert snapshot["begin_ns"] == stages(start)[0]["begin_ns"]
    # Told when it is done, by the layer above.
    assert 0 <= prepared - snapshot["begin_ns"] - snapshot["duration_ns"] < 20e6
    runtimes = [row for row in stages(start) if row["name"] == "runtime (runc)"]
    assert runtimes[0]["begin_ns"] < created < runtimes[-1]["begin_ns"] + 20e6
