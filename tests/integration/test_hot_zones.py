"""coldstart --containers: real containers, against strace, a registry's own clock, podman's and containerd's events."""

from __future__ import annotations

import collections
import contextlib
import http.client
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import cri
import debian
import targets
from conftest import PATIENCE_S, until
from containers import REQUIRED, TRY, mine, path_of, stages, told_by, took, tried, wall_ns, watching
from gotrace.kernel.container_tools import version_refusal
from gotrace.probes.coldstart_containers import CALLS
from services import free_port, image_of, remove_podmans_groups

pytestmark = pytest.mark.bpf

RUNC = Path("/usr/sbin/runc")
PODMAN = ["podman", *(["--runtime", str(RUNC)] if RUNC.exists() else [])]
LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]  # the defaults may be more than is allowed here
LAYER_BYTES = 8 << 20
BYTES_PER_S = 8 << 20


def run(*words, **options):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=PATIENCE_S, **options)
    assert not done.returncode, done.stdout + done.stderr
    return done


class Registry:
    """docker-registry behind a proxy that lets the bytes of a layer through at a rate, and notes when they did."""

    def __init__(self, folder, image):
        self.port, inner = free_port(), free_port()
        self.limited = True
        self.blobs = []  # (asked for it, before its last bytes were sent, its bytes); ns of CLOCK_MONOTONIC
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
        self.chunked = (f"{self.name}-chunked", f"127.0.0.1:{inner}/{image}-chunked")  # to pull, to push
        registry = self

        class Slow(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                began = time.monotonic_ns()
                behind = http.client.HTTPConnection("127.0.0.1", inner)
                headers = {name: ", ".join(self.headers.get_all(name)) for name in self.headers}
                behind.request(self.command, self.path, headers=headers)
                answer = behind.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name != "Date":
                        self.send_header(name, value)
                self.end_headers()
                sent = 0
                while self.command == "GET" and (chunk := answer.read(256 << 10)):
                    last = time.monotonic_ns()
                    self.wfile.write(chunk)
                    sent += len(chunk)
                    if registry.limited and "/blobs/" in self.path:
                        time.sleep(max(0, sent / BYTES_PER_S - (time.monotonic_ns() - began) / 1e9))
                if sent >= LAYER_BYTES:
                    registry.blobs.append((began, last, sent))

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
    """With an image of one layer that hardly compresses; a program is in it."""
    if shutil.which("podman") is None or shutil.which("docker-registry") is None:
        assert not REQUIRED, "scripts/setup test installs podman and docker-registry"
        pytest.skip("no podman, or no docker-registry")
    folder, image = tmp_path_factory.mktemp("image"), f"gotrace-test-{os.getpid()}:1"
    (folder / "root").mkdir()
    (folder / "root" / "layer").write_bytes(os.urandom(LAYER_BYTES))
    shutil.copy(targets.build("gcload"), folder / "root" / "pulled")
    run("tar", "-C", folder / "root", "-cf", folder / "image.tar", ".")
    run(*PODMAN, "import", folder / "image.tar", image)
    made = Registry(folder, image)
    made.unpacked_bytes = (folder / "image.tar").stat().st_size
    run(*PODMAN, "rmi", "-f", image)
    yield made
    made.close()
    subprocess.run([*PODMAN, "rmi", "-f", made.name], capture_output=True)
    remove_podmans_groups()


def podman_run(registry, program, *options, before=(), podman=PODMAN, network="host", env=None, image=""):
    name = f"gotrace-test-{os.getpid()}"
    words = [*before, *podman, "run", "-d", "--name", name, f"--network={network}", "--tls-verify=false", *LIMITS, *options]
    words += ["-v", f"{program}:/app:ro"] if program else []
    try:
        command = ["/app"] if program else ["/pulled", "-cycles", "5"]
        return run(*words, image or registry.name, *command, env=env).stdout.strip()
    finally:
        run(*podman, "rm", "-f", "-t", "0", name, env=env)


def gone(registry):
    subprocess.run([*PODMAN, "rmi", "-f", registry.name], capture_output=True)


def refused(start, said, tool, path):
    """Whether that tool's version is none whose functions are known; it is said then, and what it does is unknown.

    Debian's unstable release goes on.
    """
    told = run(shutil.which(tool, path=path), "--version").stdout
    reason = version_refusal(tool, re.search(r"\d+\.\d+\.\d+", told)[0])
    if reason:
        assert not TRY, reason
        assert reason in said and start["container"]["layers"] is None
        assert {"image pull", "unpack", "snapshot"} <= {each["stage"] for each in start["container"]["unseen"]}
    return bool(reason)


def pulled_while(start, registry, blob):
    """All of it came while the image was pulled, and before it was unpacked; that was before anything was made of it."""
    first, last, _ = blob
    assert start["container"]["layers"] == 1
    assert abs(start["container"]["unpacked_bytes"] - registry.unpacked_bytes) < 0.02 * registry.unpacked_bytes
    pulled = [row for row in stages(start) if row["name"] in ("image pull", "unpack")]
    assert start["monotonic_ns"] + pulled[0]["begin_ns"] < first
    assert last < start["monotonic_ns"] + next(row["begin_ns"] for row in pulled if row["name"] == "unpack")
    assert last - first <= took(start, "image pull")
    assert max(row["begin_ns"] for row in pulled) < next(r["begin_ns"] for r in stages(start) if r["name"] == "snapshot")


def test_a_slow_registry_is_the_hot_zone(registry, gotrace, tmp_path):
    """Against the registry's own clock; and `compare` with starts for which the image was there."""
    program = mine(tmp_path)
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
        until(lambda: len(registry.blobs) == 2)
        for start, blob in zip(starts, registry.blobs, strict=True):
            pulled_while(start, registry, blob)
            longest = max(stages(start), key=lambda row: took(start, row["name"]))
            assert longest["name"] == "image pull"
    table = gotrace("report", str(tmp_path / "pulled.gotrace")).stdout
    zones = table[table.index("hot zone ") :].splitlines()
    assert re.match(
        r"image pull +\d+\.\d+ s .* 2  pull it ahead of time, or make its layers smaller: 1 layer, 1\d\.\d+ MiB", zones[1]
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


@pytest.fixture(params=["trixie", "sid", *tried("podman")])
def podman_5(request, tmp_path):
    """(its words, the environment): podman of that release, which would start with that release's libraries alone.

    What is tried has been built for the libraries of this machine.
    """
    if shutil.which("conmon") is None:
        assert not REQUIRED, "scripts/setup test installs podman"
        pytest.skip("no conmon")
    suite = "sid" if request.param == "tried" else request.param
    tree = debian.unpacked(suite, "amd64", "podman", "netavark", libraries=True)
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    patch = next(debian.unpacked("bookworm", "amd64", "patchelf").rglob("bin/patchelf"))
    (tmp_path / "bin").mkdir()
    for program in (tree / "usr/bin/podman", tree / "usr/lib/podman/netavark"):
        copy = shutil.copy(program, tmp_path / "bin")
        run(patch, "--set-interpreter", libraries / "ld-linux-x86-64.so.2", "--force-rpath", "--set-rpath", libraries, copy)
    if request.param == "tried":
        shutil.copy(f"{TRY}/podman", tmp_path / "bin")
    (tmp_path / "containers.conf").write_text(
        f'[engine]\nhelper_binaries_dir = ["{tmp_path}/bin"]\n'
        '[network]\nfirewall_driver = "none"\ndefault_subnet = "10.211.0.0/16"\n'
    )
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{tmp_path}/root"\nrunroot = "{tmp_path}/runroot"\n'
        '[storage.options.pull_options]\nenable_partial_images = "true"\n'
    )
    env = {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": f"{tmp_path}/storage.conf",
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "CONTAINERS_CONF_OVERRIDE": f"{tmp_path}/containers.conf",
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
    }
    places = [word for name in ("root", "runroot", "tmpdir") for word in (f"--{name}", f"{tmp_path}/{name}")]
    yield [f"{tmp_path}/bin/podman", *PODMAN[1:], *places, f"--network-config-dir={tmp_path}/networks"], env
    remove_podmans_groups()


def may_make_bridges():
    make = ["ip", "link", "add", "gotrace-test", "type", "bridge"]
    return not subprocess.run(make, capture_output=True).returncode and bool(run("ip", "link", "del", "gotrace-test"))


def test_podman_5(registry, podman_5, tmp_path):
    """Its pull against the registry's clock, and its network against when strace saw that netavark was executed.

    The program is in the image that is pulled: it is known by its copy here.
    """
    (podman, env), log, program = podman_5, tmp_path / "strace", mine(tmp_path).rename(tmp_path / "pulled")
    network = "bridge" if may_make_bridges() else "host"
    chunked = ["--tls-verify=false", "--compression-format=zstd:chunked", "--force-compression", "--format=oci"]
    with watching(program, "--copies", runs=2, until="exit", env=env) as seen:
        registry.blobs.clear()
        before = ("strace", "-f", "-ttt", "--seccomp-bpf", "-e", "trace=execve", "-o", log)
        identity = podman_run(registry, None, before=before, podman=podman, network=network, env=env)
        run(*podman, "push", *chunked, registry.name, registry.chunked[1], env=env)
        run(*podman, "rmi", "-f", registry.name, env=env)
        podman_run(registry, None, podman=podman, env=env, image=registry.chunked[0])
    start, in_parts, said = seen
    assert start["container"]["id"] == identity and start["container"]["tool"] == "podman"
    if refused(start, said, "podman", env["PATH"]):
        return
    assert start["container"]["unseen"] == [] and took(start, "snapshot")
    until(lambda: len(registry.blobs) == 2)
    pulled_while(start, registry, registry.blobs[0])
    assert in_parts["container"]["layers"] == 1 and in_parts["container"]["unpacked_bytes"] == registry.unpacked_bytes
    (unpack,) = [row for row in stages(in_parts) if row["name"] == "unpack"]  # its chunks came meanwhile
    first, last = (at - in_parts["monotonic_ns"] - unpack["begin_ns"] for at in registry.blobs[1][:2])
    assert 0 < first < last < unpack["duration_ns"]
    whole = [(row["stage"], row["begin_ns"] + row["duration_ns"]) for row in start["rows"] if row["depth"] == 0]
    assert [stage for stage, _ in whole] == ["container", "exec", "program, not divided"]
    assert whole[-1][1] == start["total_ns"] and start["ended"] in ("exit 0", "killed by signal 9")
    assert any("a copy of it" in note for note in start["notes"])
    executed = re.search(r"^\d+ +(\d+)\.(\d+) execve\(\S+/netavark.*\"setup\"", log.read_text(), re.MULTILINE)
    sandbox = [row for row in stages(start) if row["name"] == "sandbox (network)"]
    assert bool(executed) == (network == "bridge") == bool(sandbox)
    if executed:  # strace holds it meanwhile
        at = int(executed[1]) * 10**9 + int(executed[2]) * 1000 - wall_ns() - start["monotonic_ns"]
        assert sandbox[0]["begin_ns"] < at < sandbox[-1]["begin_ns"] + sandbox[-1]["duration_ns"]


@pytest.mark.everywhere
def test_podmans_own_events(tmp_path):
    """Of an image that is there: made when its snapshot is, and before the runtime is started."""
    program = mine(tmp_path)
    (tmp_path / "image").mkdir()
    with image_of(program, tmp_path / "image") as (_, image), watching(program) as seen:
        began = time.monotonic_ns()
        identity = podman_run(None, program, image=f"{image}:1")
        ended = time.monotonic_ns()
    start, _ = seen
    container, rows = start["container"], stages(start)
    assert (container["id"], container["tool"], container["unseen"]) == (identity, "podman", [])
    assert container["layers"] == 0 and {"unpack", "sandbox (network)"} <= set(container["absent"])
    assert began < start["monotonic_ns"] + rows[0]["begin_ns"] < start["monotonic_ns"] < ended
    assert {"cgroup", "conmon", "mounts", "namespaces", "runtime (runc)", "snapshot"} <= {row["name"] for row in rows}
    words = ["podman", "events", "--stream=false", "--since=1h", f"--filter=container={identity}", "--format=json"]
    execve = start["monotonic_ns"] + wall_ns()
    told = {
        event["Status"]: np.datetime64(event["Time"].removesuffix("Z"), "ns").astype(int) - execve
        for event in map(json.loads, run(*words, env={**os.environ, "TZ": "UTC"}).stdout.splitlines())
    }
    made = next(row for row in rows if row["name"] == "snapshot")
    runtime = next(row for row in rows if row["name"] == "runtime (runc)")
    assert made["begin_ns"] + made["duration_ns"] < told["create"] < runtime["begin_ns"] < told["init"]


def test_every_call_that_strace_saw_lies_in_its_stage(registry, gotrace, tmp_path):
    """Mounts, namespaces, the control group and the chain of execve, by strace's times of the same run."""
    program, log, recording = mine(tmp_path), tmp_path / "strace", tmp_path / "run.gotrace"
    calls = "execve,mount,umount2,pivot_root,unshare,setns,mkdir,mkdirat"
    with watching(program, "-o", recording) as seen:
        podman_run(registry, program, before=("strace", "-f", "-ttt", "-e", f"trace={calls}", "-o", log))
    start, _ = seen
    wall = wall_ns()
    execve = start["monotonic_ns"] + wall
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
    called = [event for event in called if str(event["process"]) in following]  # other containers may start meanwhile
    ours = collections.Counter(CALLS[event["call"]] for event in called if asked < event["begin_ns"] + wall < execve)
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
    program = mine(tmp_path)
    fake = tmp_path / "podman"
    fake.write_text("#!/bin/sh\necho podman version 9.9.1\n")
    fake.chmod(0o755)
    with watching(program, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as seen:
        podman_run(registry, program)
    fake.chmod(0o777)
    with watching(program, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as writable:
        podman_run(registry, program)
    start, said = seen
    reason = "podman is 9.9.1, and its functions are known only for 4.3.x, 5.4.x, 5.7.x and 5.8.x"
    assert reason in said
    unseen = {each["stage"]: each["reason"] for each in start["container"]["unseen"]}
    assert unseen == dict.fromkeys(("image pull", "unpack", "snapshot", "sandbox (network)"), reason)
    assert start["container"]["layers"] is None and not took(start, "snapshot")
    assert took(start, "cgroup") and took(start, "mounts") and took(start, "runtime (runc)")
    assert "users other than root may write to it" in writable[-1]


@contextlib.contextmanager
def containerd(folder, path):
    """(ctr's words, its namespace, which is the folder of its control groups too): a daemon of its own, from ``path``."""
    name = f"gotrace-ctr-{os.getpid()}"
    try:
        with cri.containerd(folder, path, 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n') as (words, socket):
            ctr = [*words, "--namespace", name]
            until(lambda: socket.exists() and subprocess.run([*ctr, "version"], capture_output=True).returncode == 0)
            yield ctr, name
    finally:
        for group in Path("/sys/fs/cgroup").glob(f"*/{name}"):
            until(lambda group=group: not (group / "cgroup.procs").read_text())
            group.rmdir()


@pytest.mark.parametrize("suite", ["", "trixie", "sid", *tried("containerd")], ids=lambda suite: suite or "here")
def test_containerd(suite, registry, tmp_path):
    """What was pulled for a container, by the layers below it: against the registry's clock and containerd's events."""
    path = path_of(suite, "containerd")
    if shutil.which("containerd", path=path) is None:
        assert not REQUIRED, "scripts/setup test installs containerd"
        pytest.skip("no containerd")
    program = mine(tmp_path)
    mount = f"type=bind,src={program},dst=/app,options=rbind:ro"
    with containerd(tmp_path, path) as (ctr, name):
        with open(tmp_path / "events", "w") as log:
            events = subprocess.Popen([*ctr, "events"], stdout=log, env={**os.environ, "TZ": "UTC"})
        try:
            with watching(program, runs=2, env={"PATH": path}) as seen:
                registry.blobs.clear()
                run(*ctr, "image", "pull", "--plain-http", registry.name)
                for _ in range(2):
                    run(*ctr, "run", "-d", "--net-host", "--mount", mount, registry.name, name, "/app")
                    run(*ctr, "task", "rm", "-f", name)
                    run(*ctr, "container", "rm", name)
            until(lambda: (tmp_path / "events").read_text().count("/tasks/start") == 2)
        finally:
            events.terminate()
            events.wait(PATIENCE_S)
            subprocess.run([*ctr, "task", "rm", "-f", name], capture_output=True)
            subprocess.run([*ctr, "container", "rm", name], capture_output=True)
    first, second, said = seen
    if refused(first, said, "containerd", path):
        return
    for start in (first, second):
        assert start["container"]["tool"] == "containerd" and start["container"]["id"] == name
        assert [each["stage"] for each in start["container"]["unseen"]] == ["sandbox (network)"]
    # The image was pulled for the first.
    assert second["container"]["layers"] == 0 and {"image pull", "unpack"} <= set(second["container"]["absent"])
    assert first["container"]["layers"] == 1 and not {"image pull", "unpack"} & set(first["container"]["absent"])
    until(lambda: registry.blobs)
    ((asked, last, _),) = registry.blobs
    pull, *_ = stages(first)
    begin = first["monotonic_ns"] + pull["begin_ns"]
    assert pull["name"] == "image pull" and begin < asked < last < begin + pull["duration_ns"]
    told, day = told_by(tmp_path / "events"), 86_400 * 10**9
    for number, start in enumerate((first, second)):
        execve = (start["monotonic_ns"] + wall_ns()) % day
        snapshots = [row for row in stages(start) if row["name"] == "snapshot"]
        # Told when it is done, by the layer above.
        prepared = [at for at in told["/snapshot/prepare"] if at < execve][-1] - execve
        runtimes = [row["begin_ns"] for row in stages(start) if row["name"] == "runtime (runc)"]
        assert snapshots[-1]["begin_ns"] + snapshots[-1]["duration_ns"] < prepared < runtimes[0]
        assert runtimes[0] < told["/tasks/create"][number] - execve
    unpacks = [row for row in stages(first) if row["name"] == "unpack"]
    committed = told["/snapshot/commit"][0] - (first["monotonic_ns"] + wall_ns()) % day
    snapshot = next(row["begin_ns"] for row in stages(first) if row["name"] == "snapshot")
    assert unpacks[-1]["begin_ns"] + unpacks[-1]["duration_ns"] < committed < snapshot


@contextlib.contextmanager
def docker(folder, path):
    """(the words of a client of a dockerd of its own, which starts a containerd of its own, the name of its network)."""
    words = ["--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
    words += ["-H", f"unix://{folder}/socket", "--iptables=false", "--ip6tables=false", "--bridge=none"]
    words += ["--cgroup-parent", f"/gotrace-docker-{os.getpid()}", "--config-file", folder / "daemon.json"]
    (folder / "daemon.json").write_text('{"features": {"containerd-snapshotter": false}}')  # the default until 29
    with open(folder / "log", "w") as log:
        daemon = subprocess.Popen(
            [shutil.which("dockerd", path=path), *words], stdout=log, stderr=log, env={**os.environ, "PATH": path}
        )
    client, network = [shutil.which("docker", path=path), "-H", f"unix://{folder}/socket"], "none"
    try:
        until(lambda: subprocess.run([*client, "version"], capture_output=True).returncode == 0)
        if may_make_bridges():
            network = f"gotrace-{os.getpid()}"
            run(*client, "network", "create", network)
        yield client, network
    finally:
        subprocess.run([*client, "network", "rm", network], capture_output=True)
        daemon.terminate()
        daemon.wait(PATIENCE_S)
        for name in (f"gotrace-docker-{os.getpid()}", "system.slice/docker"):
            for group in Path("/sys/fs/cgroup").glob(f"*/{name}"):
                with contextlib.suppress(OSError):
                    group.rmdir()


@pytest.mark.parametrize("suite", ["bookworm", "trixie", "sid", *tried("dockerd")])
def test_dockerd(suite, registry, tmp_path):
    """The first container has the pull of its image, by its layers; against the registry's clock and docker's events."""
    path, program = path_of(suite, "dockerd"), mine(tmp_path)
    with docker(tmp_path, path) as (client, network):
        with watching(program, runs=2, env={"PATH": path}) as seen:
            registry.blobs.clear()
            began = time.time_ns()
            names = []
            for _ in range(2):
                words = ["run", "-d", f"--network={network}", *LIMITS, "-v", f"{program}:/app:ro", registry.name, "/app"]
                names.append(run(*client, *words).stdout.strip())
                run(*client, "rm", "-f", names[-1])
        window = ["--since", str(began // 10**9), "--until", str(time.time_ns() // 10**9 + 1)]
        form = "{{.TimeNano}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.container}}"
        told = run(*client, "events", *window, "--format", form).stdout
    first, second, said = seen
    if refused(first, said, "dockerd", path):
        return
    until(lambda: registry.blobs)
    (blob,) = registry.blobs
    for start, identity in zip((first, second), names, strict=True):
        container = start["container"]
        assert container["tool"] == "dockerd" and container["id"] == identity and container["unseen"] == []
        made = int(re.search(rf"^(\d+) create {identity}", told, re.MULTILINE)[1]) - wall_ns() - start["monotonic_ns"]
        (snapshot,) = [row for row in stages(start) if row["name"] == "snapshot"]
        assert (
            snapshot["begin_ns"] + snapshot["duration_ns"]
            < made
            < min(row["begin_ns"] for row in stages(start) if row["name"] == "sandbox (network)")
        )
        connected = int(re.search(rf"^(\d+) connect \w+ {identity}", told, re.MULTILINE)[1])
        at = connected - wall_ns() - start["monotonic_ns"]
        (there,) = [row["name"] for row in stages(start) if row["begin_ns"] <= at < row["begin_ns"] + row["duration_ns"]]
        assert there == "sandbox (network)"
        if start is first:
            pulled_while(first, registry, blob)
        else:
            assert container["layers"] == 0 and {"image pull", "unpack"} <= set(container["absent"])
