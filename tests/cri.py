"""A containerd of its own with its CRI plugin, a client that asks it as a kubelet does, and what both need around them.

The client is gRPC's own; the messages are few, and written field by field with the numbers of cri-api's api.proto.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import targets
from conftest import PATIENCE_S, until
from containers import path_of

_NODE = 2  # NamespaceMode
_CNI = "0.4.0"
# As a network that takes its time, with its own clock: the time of day, ns.
_PLUGIN = f"""#!/bin/sh
[ "$CNI_COMMAND" = VERSION ] && echo '{{"cniVersion":"{_CNI}","supportedVersions":["{_CNI}"]}}' && exit
[ "$CNI_COMMAND" = ADD ] || exit 0
date +%s%N >>"$0.log"
sleep 0.1
date +%s%N >>"$0.log"
echo '{{"cniVersion":"{_CNI}","interfaces":[{{"name":"eth0","sandbox":"'$CNI_NETNS'"}}],
"ips":[{{"version":"4","address":"10.99.0.2/24","interface":0}}]}}'
"""


# A process of its own, for gRPC's threads and files do not outlive the forks of one that runs tests.
_CLIENT = """
import sys, time, grpc
channel = grpc.insecure_channel(sys.argv[1])
for line in sys.stdin:
    path, data = line.split()
    begin_ns = time.monotonic_ns()
    answer = channel.unary_unary(path)(bytes.fromhex(data[1:]), timeout=float(sys.argv[2]), wait_for_ready=True)
    print(begin_ns, time.monotonic_ns(), "x" + answer.hex(), flush=True)
"""


class Called(NamedTuple):
    """A call of the client, by its clock: CLOCK_MONOTONIC, ns. ``answer`` is an id, or how an image is called."""

    name: str
    begin_ns: int
    end_ns: int
    answer: str


def message(fields: dict[int, Any]) -> bytes:
    """The wire form of protocol buffers: numbers, strings, messages, and lists of these."""
    out = b""
    for number, value in fields.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, int):
                out += _varint(number << 3) + _varint(each)
            else:
                data = each.encode() if isinstance(each, str) else message(each)
                out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return out


def _varint(value: int) -> bytes:
    out = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class Registry:
    """Images of one layer each, which comes in two halves: /NAME:1. When it came is noted, CLOCK_MONOTONIC, ns."""

    def __init__(self) -> None:
        self.layers: list[tuple[int, int]] = []
        blobs: dict[str, bytes] = {}
        layers: set[str] = set()
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                began, name = time.monotonic_ns(), self.path.rpartition("/")[2]
                body = blobs.get(name if "/v2/" in self.path else "", b"{}" if self.path == "/v2/" else b"")
                self.send_response(200 if body else 404)
                manifest = "/manifests/" in self.path
                kind = "application/vnd.oci.image.manifest.v1+json" if manifest else "application/octet-stream"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    half = len(body) // 2
                    self.wfile.write(body[:half])
                    if name in layers:
                        time.sleep(0.1)
                        registry.layers.append((began, time.monotonic_ns()))
                    self.wfile.write(body[half:])

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._blobs, self._large = blobs, layers
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, name: str, *command: str, files: dict[str, Path | bytes]) -> str:
        """The name of an image of these, by which it is pulled."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for path, content in files.items():
                data = content if isinstance(content, bytes) else content.read_bytes()
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(data), 0o755
                tar.addfile(entry, io.BytesIO(data))
        layer = gzip.compress(packed.getvalue(), 1)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(command)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}"]},
        }
        of_config = self._kept(json.dumps(config).encode(), "config.v1+json")
        of_layer = self._kept(layer, "layer.v1.tar+gzip")
        self._large.add(of_layer["digest"])
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": of_config,
            "layers": [of_layer],
        }
        kept = self._kept(json.dumps(manifest).encode(), "manifest.v1+json")
        # Both images are asked for by their tags, so tags are not the same.
        self._blobs[name] = self._blobs[kept["digest"]]
        return f"{self.address}/{name}:{name}"

    def _kept(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._blobs[digest] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Cri:
    """A client. Calls are kept in ``calls``, in their order."""

    def __init__(self, socket: Path, group: str, folder: Path, path: str) -> None:
        self.path = path  # where its containerd is found
        words = [sys.executable, "-c", _CLIENT, f"unix:{socket}", str(PATIENCE_S)]
        self._client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._group, self._folder = group, folder
        self.calls: list[Called] = []

    def ask(self, name: str, fields: dict[int, Any], service: str = "RuntimeService") -> str:
        """The first field of the answer, if it has one."""
        begin_ns, end_ns, answer = self._answer(name, fields, service)
        text = answer[2 : 2 + answer[1]].decode("utf-8", "replace") if answer else ""  # shorter than 128 bytes
        self.calls.append(Called(name, begin_ns, end_ns, text))
        return text

    def is_ready(self) -> bool:
        """Whether it has seen its network."""
        return b"NetworkReady\x10\x01" in self._answer("Status", {}, "RuntimeService")[2]

    def _answer(self, name: str, fields: dict[int, Any], service: str) -> tuple[int, int, bytes]:
        assert self._client.stdin and self._client.stdout
        self._client.stdin.write(f"/runtime.v1.{service}/{name} x{message(fields).hex()}\n")
        self._client.stdin.flush()
        line = self._client.stdout.readline()
        assert line, f"{name} failed: see what was printed"
        begin_ns, end_ns, answer = line.split()
        return int(begin_ns), int(end_ns), bytes.fromhex(answer[1:])

    def config(self, namespace: str, name: str, uid: str, own_network: bool = True) -> dict[int, Any]:
        """A PodSandboxConfig; without a network of its own it has the host's."""
        linux: dict[int, Any] = {1: f"/{self._group}"}
        if not own_network:
            linux[2] = {1: {1: _NODE}}
        labels = {"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.uid": uid}
        return {
            1: {1: name, 2: uid, 3: namespace},
            2: "pod" if own_network else "",
            3: str(self._folder / "logs"),
            6: [{1: key, 2: value} for key, value in labels.items()],
            8: linux,
        }

    def run_sandbox(self, pod: dict[int, Any]) -> str:
        return self.ask("RunPodSandbox", {1: pod})

    def pull(self, image: str, pod: dict[int, Any]) -> str:
        return self.ask("PullImage", {1: {1: image}, 3: pod}, "ImageService")

    def create(self, sandbox: str, pod: dict[int, Any], name: str, image: str, *command: str, **more: Any) -> str:
        """``mounts`` are pairs of folders or files, there and here; ``attempt`` counts restarts."""
        mounts = [{1: there, 2: str(here), 3: 1} for there, here in more.get("mounts", ())]
        container = {
            1: {1: name, 2: more.get("attempt", 0)},
            2: {1: image},
            3: list(command),
            7: mounts,
            11: f"{name}.log",
        }
        return self.ask("CreateContainer", {1: sandbox, 2: container, 3: pod})

    def start(self, container: str) -> None:
        self.ask("StartContainer", {1: container})

    def stop(self, sandbox: str) -> None:
        """With its containers."""
        for name in ("StopPodSandbox", "RemovePodSandbox"):
            self.ask(name, {1: sandbox})

    def close(self) -> None:
        self._client.communicate(timeout=PATIENCE_S)


@contextlib.contextmanager
def running(folder: Path, pause: str, suite: str = "") -> Iterator[tuple[Cri, list[str], Path]]:
    """(a client, ctr's words, where the network's clock is kept): this machine's containerd, or that of ``suite``."""
    path = path_of(suite, "containerd")
    group = f"gotrace-cri-{os.getpid()}"
    plugins = folder / "cni"
    plugins.mkdir()
    for name in ("loopback", "slow"):
        (plugins / name).write_text(_PLUGIN)
        (plugins / name).chmod(0o755)
    network = {"cniVersion": _CNI, "name": "gotrace", "plugins": [{"type": "slow"}]}
    (folder / "cni.d").mkdir()
    (folder / "cni.d" / "1.conflist").write_text(json.dumps(network))
    registry = pause.partition("/")[0]
    (folder / "hosts" / registry).mkdir(parents=True)
    (folder / "hosts" / registry / "hosts.toml").write_text(
        f'server = "http://{registry}"\n[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    config = (
        f'[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "{pause}"\n'
        "restrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\n"
        f'[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{folder}/hosts"\n'
        f'[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "{plugins}"\nconf_dir = "{folder}/cni.d"\n'
        '[plugins."io.containerd.internal.v1.opt"]\n'
        f'path = "{folder}/opt"\n'
    )
    try:
        with (
            containerd(folder, path, config) as (ctr, socket),
            contextlib.closing(Cri(socket, group, folder, path)) as client,
        ):
            client.ask("Version", {1: "v1"})
            until(client.is_ready, 60)
            client.calls.clear()
            yield client, [*ctr, "--namespace", "k8s.io"], plugins / "slow.log"
    finally:
        subprocess.run(["umount", f"{folder}/state/io.containerd.grpc.v1.cri/netns"], capture_output=True)
        for group_folder in Path("/sys/fs/cgroup").glob(f"*/{group}"):
            until(lambda each=group_folder: _is_removed(each))  # type: ignore[misc]


@contextlib.contextmanager
def containerd(folder: Path, path: str, config: str) -> Iterator[tuple[list[str], Path]]:
    """(ctr's words, the socket) of a containerd of its own, found in ``path``, with ``config`` besides what all have."""
    socket, file = folder / "c.sock", folder / "config.toml"
    file.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n{config}'
        f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{folder}/t.sock"\n'
    )
    tool, ctr = (str(shutil.which(name, path=path)) for name in ("containerd", "ctr"))
    with open(folder / "containerd.log", "w") as log:
        daemon = subprocess.Popen([tool, "-c", str(file)], stdout=log, stderr=log, env={**os.environ, "PATH": path})
    try:
        yield [ctr, "--address", str(socket)], socket
    finally:
        daemon.terminate()
        daemon.wait(PATIENCE_S)


def _is_removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def pause() -> Path:
    """A program that waits: what a sandbox executes."""
    return targets.build("starter")
