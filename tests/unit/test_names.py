"""Names of containers, from files of the form that each runtime keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gotrace.find.names import UNKNOWN, Container, Names
from gotrace.find.places import Place

_ID = "49f9e8e5395d57c1083996c09e2e6f042d5fe1ec0310facab32f94912b35ce59"
_PODMAN = [{"id": _ID, "names": ["shop"], "metadata": '{"image-name":"localhost/shop:1","name":"shop"}'}]
_DOCKER = {"ID": _ID, "Name": "/shop", "Config": {"Image": "shop:1", "Labels": {"app": "web"}}}
_CRI = {
    "ociVersion": "1.1.0",
    "annotations": {
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": "docker.io/shop:1",
        "io.kubernetes.cri.sandbox-name": "api-1",
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-uid": "2942c55e-c9cb-428a-93f4-eaf89c1f3ce0",
    },
}
_CRIO = {
    "annotations": {
        "io.kubernetes.container.name": "app",
        "io.kubernetes.cri-o.ImageName": "docker.io/shop:1",
        "io.kubernetes.pod.name": "api-1",
        "io.kubernetes.pod.namespace": "shop",
    }
}
_SHOP, _APP = Container("shop", "localhost/shop:1"), Container("app", "docker.io/shop:1", "shop", "api-1")
_DOCKERS = Container("shop", "shop:1", labels={"app": "web"})
_STORAGE = "var/lib/containers/storage/overlay-containers"


def write(root: Path, path: str, content: Any) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("runtime", "path", "content", "container"),
    [
        ("podman", f"{_STORAGE}/containers.json", _PODMAN, _SHOP),
        ("podman", "run/containers/storage/overlay-containers/volatile-containers.json", _PODMAN, _SHOP),
        ("podman", "home/eve/.local/share/containers/storage/overlay-containers/containers.json", _PODMAN, _SHOP),
        ("docker", f"var/lib/docker/containers/{_ID}/config.v2.json", _DOCKER, _DOCKERS),
        ("unknown", f"var/lib/docker/containers/{_ID}/config.v2.json", _DOCKER, _DOCKERS),
        ("containerd", f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{_ID}/config.json", _CRI, _APP),
        ("kubernetes", f"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{_ID}/config.json", _CRI, _APP),
        ("cri-o", f"run/containers/storage/overlay-containers/{_ID}/userdata/config.json", _CRIO, _APP),
    ],
)
def test_a_runtimes_file(runtime: str, path: str, content: Any, container: Container, tmp_path: Path) -> None:
    names, place = Names(str(tmp_path)), Place(runtime, _ID)
    assert names.of(place) == UNKNOWN
    for damaged in ("", "[", "null", "[]", "{}", "[1]", '{"annotations": 1}', '{"Config": null}', '[{"id": 1}]'):
        write(tmp_path, path, damaged)
        assert names.of(place) == UNKNOWN, damaged
    write(tmp_path, path, content)
    assert names.of(place) == container  # as soon as it is there
    (tmp_path / path).unlink()
    assert names.of(place) == container
    assert Names(str(tmp_path)).of(place) == UNKNOWN


def test_docker_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, "etc/docker/daemon.json", {"data-root": "/data/docker"})
    write(tmp_path, f"data/docker/containers/{_ID}/config.v2.json", _DOCKER)
    assert Names(str(tmp_path)).of(Place("docker", _ID)) == _DOCKERS


def test_those_that_have_no_other_name() -> None:
    assert Names().of(Place("lxc", "web")).name == "web"
    assert Names().of(Place()) == UNKNOWN
