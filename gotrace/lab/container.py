"""A service in a container of its own, run by podman or docker: started for one run, found from outside, and removed.

Both are called as commands, so that what they do is what they do by hand.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from gotrace.errors import GotraceError, ServiceError, UsageError
from gotrace.kernel.cgroup import cpu_group, memory_group
from gotrace.lab import service
from gotrace.lab.children import guard
from gotrace.text import printable

TOOLS = ("podman", "docker")
_PATIENCE_S = 60.0
_OURS = ("--name", "--rm", "-d", "--detach", "--cidfile")


class ContainerOf(TypedDict):
    """What a version ran in; null: none, or unknown."""

    image: str
    id: Annotated[str, "of the image"]
    digest: Annotated[str | None, "of the image in its registry"]
    tool: str
    options: list[str]
    quota_cpus: Annotated[float | None, "how many CPUs its control group might use on average"]
    memory_bytes: Annotated[int | None, "the limit of its control group"]
    cgroup_version: int | None


@dataclass(frozen=True)
class Container:
    """``memory`` and ``quota`` are the limits (`--memory` and `--cpus` of podman); ``options`` others of `podman run`."""

    image: str
    tool: tuple[str, ...]
    memory: str | None = None
    quota: float | None = None
    options: tuple[str, ...] = ()

    @property
    def has_quota(self) -> bool:
        return self.quota is not None or any(each.startswith(("--cpus", "--cpu-")) for each in self.options)

    def command(self, name: str, arguments: Sequence[str], cpus: Collection[int] = ()) -> list[str]:
        """What starts it, in the foreground. It has the host's network, unless an option says another."""
        words = [*self.tool, "run", "--rm", "--pull=never", f"--name={name}"]
        if not any(each.startswith(("--network", "--net", "-p", "--publish")) for each in self.options):
            words.append("--network=host")
        if self.memory is not None:
            words.append(f"--memory={self.memory}")
        if self.quota is not None:
            words.append(f"--cpus={self.quota:g}")
        if cpus:
            words.append(f"--cpuset-cpus={','.join(map(str, cpus))}")
        return [*words, *self.options, self.image, *arguments]

    def check(self) -> None:
        """Raises UsageError for what cannot be meant, and where there is no such image here: none is fetched."""
        if not self.image or self.image.startswith("-"):
            raise UsageError(
                f"{printable(self.image)!r} is not an image", "give an image as for podman: shop:1, registry/shop:2"
            )
        if self.memory is not None and not re.fullmatch(r"[1-9][0-9]*[bkmg]?", self.memory):
            raise UsageError(f"cannot read the memory limit {printable(self.memory)!r}", "write 512m or 7g")
        if self.quota is not None and not 0 < self.quota < math.inf:
            raise UsageError(f"{self.quota} is not a number of CPUs", "write 3.5")
        for each in self.options:
            if not each.startswith("-") or each.startswith(_OURS):
                raise UsageError(f"{printable(each)!r} is not allowed as a container option here", "write --env=GOGC=50")
        if shutil.which(self.tool[0]) is None:
            raise UsageError(f"there is no command {printable(self.tool[0])!r}", "name another with --container-tool")
        self._image()

    def _image(self) -> dict[str, Any]:
        text = self._said("image", "inspect", self.image)
        try:
            return dict(json.loads(text)[0])
        except (ValueError, LookupError, TypeError):
            raise UsageError(f"{self.tool[0]} does not know the image {printable(self.image)}", "give an image") from None

    def image_id(self) -> str:
        """What the image is now; "" if there is none."""
        with contextlib.suppress(UsageError):
            return str(self._image().get("Id", ""))
        return ""

    def _said(self, *arguments: str) -> str:
        """Raises UsageError with the last line that it complains in."""
        command = [*self.tool, *arguments]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE_S,
                encoding="utf-8",
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            raise UsageError(f"{self.tool[0]} does not respond", f"try it: {shlex.join(command)}") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            hint = f"pull the image before measuring it: {shlex.join(command)}"
            raise UsageError(f"{self.tool[0]} {arguments[0]} failed: {printable(last[:200])}", hint)
        return done.stdout

    def pid(self, name: str) -> int:
        """Of its first process, as the host has it. Raises ServiceError."""
        try:
            pid = int(self._said("container", "inspect", "-f", "{{.State.Pid}}", name))
        except (UsageError, ValueError) as error:
            raise ServiceError(
                f"the container's process cannot be found: {error}", "check that it runs on this host"
            ) from None
        if pid <= 0 or not os.path.exists(f"/proc/{pid}"):
            raise ServiceError(
                f"the container's process {pid} is not visible from here",
                "run gotrace on the host, outside containers",
            )
        return pid

    def record(self, pid: int) -> ContainerOf:
        """What it is, with the limits that the kernel has for its process."""
        image = self._image()
        digests = image.get("RepoDigests") or []
        digest = image.get("Digest") or (digests[0].rpartition("@")[2] if digests else None)
        quota = memory = version = None
        with contextlib.suppress(GotraceError):
            group = cpu_group(pid)
            quota, version = group.quota_cpus, group.version
            memory = memory_group(pid).limit_bytes
        return {
            "image": self.image,
            "id": str(image.get("Id", "")),
            "digest": digest,
            "tool": self._said("--version").strip(),
            "options": list(self.options),
            "quota_cpus": quota,
            "memory_bytes": memory,
            "cgroup_version": version,
        }

    def to_json(self) -> dict[str, object]:
        return {
            "image": self.image,
            "tool": list(self.tool),
            "memory": self.memory,
            "quota": self.quota,
            "options": list(self.options),
        }


def tool_of(words: Sequence[str]) -> tuple[str, ...]:
    """That command, or the first of `TOOLS` that there is. Raises UsageError."""
    if words:
        return tuple(words)
    for name in TOOLS:
        if shutil.which(name) is not None:
            return (name,)
    raise UsageError("neither podman nor docker is installed", "install one, or give another tool with --container-tool")


@contextlib.contextmanager
def started(
    container: Container, arguments: Sequence[str], ready: service.Ready, log: Path, cpus: Collection[int] = ()
) -> Iterator[service.Running]:
    """As `service.started`, of the Go program in a new container; it is removed on the way out, and when we are killed."""
    name = f"gotrace-{os.getpid()}-{secrets.token_hex(4)}"
    command = container.command(name, arguments, cpus)
    with (
        _removed(container, name),
        service.started(command, ready, log, patience_s=_PATIENCE_S, root=lambda _: container.pid(name)) as running,
    ):
        yield running


@contextlib.contextmanager
def _removed(container: Container, name: str) -> Iterator[None]:
    remover = guard('exec "$@"', *container.tool, "rm", "-f", name)
    assert remover.stdin is not None
    try:
        yield
    finally:
        remover.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            remover.wait(_PATIENCE_S)
