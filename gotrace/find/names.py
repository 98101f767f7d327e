"""What people call a container: read from the files in which runtimes keep their containers, so that nobody is asked.

podman and CRI-O (containers/storage): overlay-containers/containers.json, and volatile-containers.json of those that go
when they end. docker: containers/ID/config.v2.json. containerd: the OCI configuration that its shim runs, with the
annotations of its CRI plugin (pkg/cri/annotations in its source); CRI-O's has its own.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gotrace.find.places import Place

_STORAGE = ("/var/lib/containers/storage", "/run/containers/storage")
_ROOTLESS = ("/home/*/.local/share/containers/storage", "/run/user/*/containers")
_DOCKER = ("/var/lib/docker", "/var/snap/docker/common/var-lib-docker")
# Annotations of an OCI configuration that say the container's name, image, pod and namespace.
_ANNOTATIONS = (
    tuple(f"io.kubernetes.cri.{each}" for each in ("container-name", "image-name", "sandbox-name", "sandbox-namespace")),
    (
        *("io.kubernetes.container.name", "io.kubernetes.cri-o.ImageName"),
        *("io.kubernetes.pod.name", "io.kubernetes.pod.namespace"),
    ),
)
_MOST_KEPT = 4096


@dataclass(frozen=True)
class Container:
    """Each is "" where it is unknown, or there is none: ``namespace``, ``pod`` and ``owner`` ("Deployment/api") are
    Kubernetes', ``service`` what the semantic conventions call it."""

    name: str = ""
    image: str = ""
    namespace: str = ""
    pod: str = ""
    owner: str = ""
    service: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


UNKNOWN = Container()


class Names:
    """Reads a container's name once. ``root`` stands in for / in tests, and is the host's / for an agent in a container."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._known: dict[str, Container] = {}

    def of(self, place: Place) -> Container:
        """The container of a place; one without a name where nobody who may be read knows it."""
        if not place.container:
            return UNKNOWN
        if place.container not in self._known:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            found = self._read(place)
            if found is None:  # not kept: it may be about to be written
                return UNKNOWN
            self._known[place.container] = found
        return self._known[place.container]

    def _read(self, place: Place) -> Container | None:
        if place.runtime in ("lxc", "machine"):
            return Container(name=place.container)
        readers: dict[str, tuple[Callable[[str], Container | None], ...]] = {
            "podman": (self._podman,),
            "docker": (self._docker,),
            "containerd": (self._oci,),
            "cri-o": (self._oci,),
        }
        for reader in readers.get(place.runtime, (self._docker, self._oci)):
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # no such file, or form
                if (found := reader(place.container)) is not None:
                    return found
        return None

    def _paths(self, *patterns: str) -> Iterator[str]:
        for pattern in patterns:
            path = os.path.join(self._root, pattern.lstrip("/"))
            yield from glob.iglob(path) if "*" in path else [path]

    def _podman(self, container: str) -> Container | None:
        """All that are in a list are learned at once."""
        for folder in self._paths(*_STORAGE, *_ROOTLESS):
            for kind in ("", "volatile-"):
                with contextlib.suppress(OSError):
                    for each in _json(f"{folder}/overlay-containers/{kind}containers.json"):
                        image = json.loads(each.get("metadata") or "{}").get("image-name", "")
                        self._known[each["id"]] = Container(_text(each.get("names", [""])[0]), _text(image))
        return self._known.get(container)

    def _docker(self, container: str) -> Container | None:
        folders = list(_DOCKER)
        with contextlib.suppress(OSError, ValueError):
            folders.insert(0, _json(next(self._paths("/etc/docker/daemon.json")))["data-root"])
        for folder in self._paths(*folders):
            with contextlib.suppress(OSError):
                about = _json(f"{folder}/containers/{container}/config.v2.json")
                config = about["Config"]
                labels = {_text(name): _text(value) for name, value in (config.get("Labels") or {}).items()}
                return Container(_text(about["Name"]).removeprefix("/"), _text(config["Image"]), labels=labels)
        return None

    def _oci(self, container: str) -> Container | None:
        for path in self._paths(
            f"/run/containerd/io.containerd.runtime.v2.task/*/{container}/config.json",
            f"/run/k3s/containerd/io.containerd.runtime.v2.task/*/{container}/config.json",
            f"/run/containers/storage/overlay-containers/{container}/userdata/config.json",
        ):
            with contextlib.suppress(OSError):
                said = _json(path).get("annotations") or {}
                for names in _ANNOTATIONS:
                    if names[0] in said:
                        name, image, pod, namespace = (_text(said.get(each, "")) for each in names)
                        return Container(name, image, namespace, pod)
        return None


def _json(path: str) -> Any:
    with open(path, encoding="utf-8", errors="replace") as file:
        return json.load(file)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
