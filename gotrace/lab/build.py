"""Builds of the service under test: `go build`, as it is called by hand."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gotrace.errors import ServiceError, UsageError
from gotrace.lab.children import preparation
from gotrace.text import printable


@dataclass(frozen=True)
class Build:
    """``package`` as `go build` takes it, and the flags before it; ``go`` is the command."""

    package: str
    flags: tuple[str, ...] = ()
    go: str = "go"

    @property
    def name(self) -> str:
        """What tells it from others of the package."""
        return shlex.join(self.flags) or "default"

    @property
    def file_name(self) -> str:
        """What `go build` would call the executable."""
        return Path(os.path.abspath(self.package)).name.removesuffix(".go") or "service"

    def command(self, path: Path) -> list[str]:
        return [self.go, "build", *self.flags, "-o", str(path), self.package]

    def check(self) -> None:
        """Raises UsageError for what can be known before it is built."""
        if shutil.which(self.go) is None:
            raise UsageError(
                f"there is no command {printable(self.go)!r}", "install Go, or give the path of `go` with --go"
            )
        if any(flag in ("-o", "-C", "-n") or flag.startswith(("-o=", "-C=")) for flag in self.flags):
            raise UsageError("--build has a flag that changes where to build, or prevents it", "remove -o, -C and -n")

    def make(self, path: Path, log: Path) -> None:
        """The executable at ``path``, over what is there; what `go build` prints goes to ``log``. Raises ServiceError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with open(log, "wb") as output:
            try:
                done = subprocess.run(
                    self.command(path.absolute()),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=preparation(),
                )
            except OSError as error:
                raise UsageError(
                    f"cannot run {printable(self.go)}: {error.strerror}", "give another `go` with --go"
                ) from None
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip() and line[0] not in "#\t"]
        if done.returncode:
            why = printable(said[0][:200]) if said else f"status {done.returncode}"
            raise ServiceError(f"go build failed for {self.name}: {why}", f"its output is in {log}")
        if not os.access(path, os.X_OK):
            raise ServiceError(
                f"go build made no executable from {printable(self.package)}", "give a package of a command (package main)"
            )
