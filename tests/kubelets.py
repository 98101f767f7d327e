"""A server that answers as kubelets and API servers do, over TLS, and may refuse."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ID = "49f9e8e5395d57c1083996c09e2e6f042d5fe1ec0310facab32f94912b35ce59"
INIT = "21572039dd8398ff8272b031fa5422a40165145ab37f2f8794e1e7f844fe8118"
UID = "2942c55e-c9cb-428a-93f4-eaf89c1f3ce0"


def pod(name: str = "api-7d9f8c6b5-x2x4k", uid: str = UID, **changed: Any) -> dict[str, Any]:
    """As kubelets of Kubernetes 1.31 answer, with what is of no interest left out."""
    metadata = {
        "name": name,
        "namespace": "shop",
        "uid": uid,
        "labels": {"app": "web", "pod-template-hash": "7d9f8c6b5"},
        "annotations": {"kubernetes.io/config.seen": "2026-11-20T08:00:00Z", "kubernetes.io/config.source": "api"},
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "api-7d9f8c6b5", "uid": "1", "controller": True}
        ],
    }
    return {
        "metadata": {**metadata, **changed},
        "spec": {"containers": [{"name": "app", "image": "shop/api:1"}], "nodeName": "node-1"},
        "status": {
            "phase": "Running",
            "initContainerStatuses": [
                {"name": "migrate", "image": "shop/migrate:1", "containerID": f"containerd://{INIT}"}
            ],
            "containerStatuses": [
                {"name": "app", "image": "docker.io/shop/api:1", "containerID": f"containerd://{ID}", "ready": True},
                {"name": "waiting", "image": "x", "state": {"waiting": {"reason": "ImagePullBackOff"}}},
            ],
        },
    }


def document(*pods: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(pods)}


class Server(http.server.ThreadingHTTPServer):
    """Answers /pods to who has the token; ``status`` and ``body`` may be changed, and how long it ``waits``."""

    status, body, waits = 200, json.dumps(document(pod())).encode(), 0.0

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """A client that hung up."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        time.sleep(self.server.waits)
        good = self.headers.get("Authorization") == "Bearer secret" or not isinstance(self.connection, ssl.SSLSocket)
        self.send_response(self.server.status if good else 401)
        self.end_headers()
        self.wfile.write(self.server.body if good else b"Unauthorized")

    def log_message(self, *_: object) -> None:
        pass


def account_in(folder: Path) -> Path:
    """The folder of a service account, with the key of the server that its ca.crt vouches for beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=kubelet"
    words = [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key", "-out", "ca.crt"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    (folder / "token").write_text("secret\n")
    return folder


@contextlib.contextmanager
def serving(account: Path) -> Iterator[Server]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(account / "ca.crt", account / "key")
    with Server(tls) as server:
        yield server
        server.shutdown()
