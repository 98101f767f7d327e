"""Why an executable, a process or a command cannot be traced as a Go program, in the words for people."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, TypeVar

from gotrace.arch import a_machine, host_arch
from gotrace.errors import BinaryError, GotraceError, UsageError
from gotrace.kernel.launch import Launched, NotExecutableError, Spawned
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.kernel.process import Process

_Started = TypeVar("_Started", Launched, Spawned)


def refusal(path: str, name: str = "") -> BinaryError | None:
    """Why the executable at ``path`` cannot be traced, None if it is a Go program that can; ``name`` stands for the path.

    An UntraceableError is final; any other program may execute one that can be traced.
    """
    from gotrace.binary.elf import Elf
    from gotrace.binary.identity import identify

    try:
        with Elf.open(path) as elf:
            identify(elf)
    except BinaryError as error:
        return named(error, path, name or path)
    return None


def named(error: BinaryError, path: str, name: str) -> BinaryError:
    """The same error about a file that people know as ``name``."""
    message, hint = (printable(text.replace(path, name)) for text in (error.message, error.hint))
    return type(error)(message, hint, detail=error.detail)


def require_go(process: Process) -> None:
    """Raises BinaryError for a process whose program is not one of Go that can be traced."""
    error = refusal(process.exe_path, process.exe_name)
    if error is None:
        return
    for path, file in process.open_libraries(lambda path: ".so" in os.path.basename(path)).items():
        try:
            if _has_go(file.fd):
                raise BinaryError(
                    f"{error.message}, but has loaded Go code in {printable(path)}",
                    "gotrace traces Go main programs, not Go code in libraries",
                )
        finally:
            os.close(file.fd)
    raise error


def _has_go(descriptor: int) -> bool:
    from gotrace.binary.elf import Elf

    with contextlib.suppress(BinaryError), Elf.open(f"/proc/self/fd/{descriptor}") as elf:
        return not {".go.buildinfo", ".gopclntab"}.isdisjoint(elf.sections)
    return False


def start_command(command: list[str], how: type[_Started]) -> _Started:
    """A command, started in one of two ways. Raises UsageError, which says why it cannot be executed."""
    try:
        return how(command)
    except NotExecutableError:
        raise _why_not_executable(command[0]) from None


def _why_not_executable(command: str) -> GotraceError:
    """What to say of a command that the kernel does not know how to execute."""
    from gotrace.binary.elf import Elf

    path, name, host = shutil.which(command) or command, printable(command), host_arch().goarch
    try:
        with Elf.open(path) as elf:
            what = f"it is a program for {elf.arch}, but this machine is {host}"
            return UsageError(f"cannot run {name}: {what}", f"run gotrace on {a_machine(elf.arch)}")
    except BinaryError as error:
        if not _is_elf(path):
            return UsageError(
                f"cannot run {name}: it is neither a program nor a script with an interpreter",
                "begin a script with a line such as #!/bin/sh",
            )
        return UsageError(f"cannot run {name}: {named(error, path, name).message}", error.hint)


def _is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"
