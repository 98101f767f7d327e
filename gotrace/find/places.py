"""Where a process runs, by its control groups: a container and its runtime, a pod, a unit of systemd, a user's session.

A pure function of the text of /proc/PID/cgroup: version 1 (a line per hierarchy), version 2 (one line, "0::"), or both.
How runtimes name a container's group: docker, podman, containerd and CRI-O with systemd's driver as ``NAME-<id>.scope``,
with cgroupfs' as a folder; the kubelet's folders are those of pkg/kubelet/cm in its source, with "_" for "-" under systemd.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
    "libpod-payload": "podman",
}
_CONTAINER = re.compile(rf"(?:.*?:)??(?:({'|'.join(_RUNTIMES)})[-:])?([0-9a-f]{{64}})(?:\.scope)?")
_POD = re.compile(r"kubepods.*[/-]pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})(?=[./:]|$)")
_QOS = re.compile(r"kubepods[-/.].*?(burstable|besteffort)")
_USER = re.compile(r"/user-(\d+)\.slice|/user@(\d+)\.service")
_UNIT = re.compile(r"[^/]+\.(?:service|scope)")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True)
class Place:
    """Each is "" where there is none.

    ``runtime`` is one of docker, containerd, cri-o, podman, lxc and machine (systemd-nspawn), "kubernetes" where only the
    kubelet knows, or "unknown"; ``container`` its id, of lxc and machine the name. ``pod`` is the pod's uid, ``qos`` its
    class; ``unit`` that of systemd which the process is in outside of containers, as systemctl writes it; ``user`` the
    number of the user in whose slice it is.
    """

    runtime: str = ""
    container: str = ""
    pod: str = ""
    qos: str = ""
    unit: str = ""
    user: str = ""


@functools.lru_cache(4096)
def place_of(cgroup: str) -> Place:
    """The place that the text of /proc/PID/cgroup means.

    In a hybrid of both versions the line that says most counts: a runtime may have put its containers in one only. Of
    units, that is systemd's own hierarchy.
    """
    lines = [line.split(":", 2) for line in cgroup.split("\n") if line.count(":") >= 2]
    lines.sort(key=lambda line: line[1] != "name=systemd")
    return max(map(_of_path, dict.fromkeys(path for _, _, path in lines)), key=_weight, default=Place())


def _weight(place: Place) -> tuple[bool, ...]:
    return bool(place.container), bool(place.pod), bool(place.unit), bool(place.user)


def _of_path(path: str) -> Place:
    parts = path.strip("/").split("/")
    pod = _POD.search(path)
    qos = _QOS.search(path) if pod else None
    user = _USER.search(path)
    runtime, container, outside = _container(parts, pod is not None)
    units = [part for part in outside if _UNIT.fullmatch(part) and not pod]  # of pods it would be their runtime's
    return Place(
        runtime=runtime,
        container=container,
        pod=pod[1].replace("_", "-") if pod else "",
        qos=qos[1] if qos else "guaranteed" if pod else "",
        unit=units[-1] if units else "",
        user=(user[1] or user[2]) if user else "",
    )


def _container(parts: list[str], in_pod: bool) -> tuple[str, str, list[str]]:
    """(runtime, id, the parts outside): of the innermost container, for one may run in another (kind, docker in docker)."""
    for place in reversed(range(len(parts))):
        part, before = parts[place], parts[place - 1] if place else ""
        if found := _CONTAINER.fullmatch(part):
            runtime = _RUNTIMES.get(found[1] or before, "kubernetes" if in_pod else "unknown")
            return runtime, found[2], _outside(parts[:place])
        if part.startswith("lxc.payload."):
            return "lxc", part.removeprefix("lxc.payload."), _outside(parts[:place])
        if before in ("lxc", "lxc.payload"):
            return "lxc", part, _outside(parts[: place - 1])
        if before == "machine.slice" and part.startswith("machine-") and part.endswith(".scope"):
            name = part.removeprefix("machine-").removesuffix(".scope")
            return "machine", _ESCAPED.sub(lambda each: chr(int(each[1], 16)), name), []
    return "", "", parts


def _outside(parts: list[str]) -> list[str]:
    """Those around a container that are not in one themselves."""
    return [] if any(_CONTAINER.fullmatch(part) for part in parts) else parts
