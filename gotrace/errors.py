"""The errors gotrace raises on purpose: one line of what is wrong, one line of what to do.

The command line prints both lines and exits with ``exit_code``; nothing else may reach a user as
an exception. Imports nothing of gotrace, so every other module may import it.
"""

from __future__ import annotations

import errno
import os

# hints that several messages share
MORE_SPACE = "free some space or write elsewhere"
MORE_FILES = "raise the limit on open files (ulimit -n; LimitNOFILE= of a unit)"


class Exit:
    """Exit statuses: what they mean is the same in every command. FAIL is an error too: what broke a gate opens none."""

    OK = 0
    ERROR = FAIL = 1
    USAGE = 2
    INCONCLUSIVE = 3
    NOT_COMPARABLE = 4
    NOT_MEASURED = 5  # the service or its load failed


class GotraceError(Exception):
    """Something a person can act on.

    ``message`` says what is wrong, ``hint`` what to do about it; both are single lines.
    ``detail`` is the long form (a verifier log, a compiler's output), shown on request.
    """

    exit_code = Exit.ERROR

    def __init__(self, message: str, hint: str = "", *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel from short-lived child processes to the parent by pickle.
        return (_rebuild, (type(self), self.message, self.hint, self.detail))


def _rebuild(cls: type[GotraceError], message: str, hint: str, detail: str) -> GotraceError:
    return cls(message, hint, detail=detail)


def told_of(error: OSError) -> GotraceError:
    """What a person can make of a failed system call that nobody expected."""
    name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    hint = "check the path and its permissions" if name else "`gotrace doctor` shows what this host allows"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = MORE_SPACE
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        hint = MORE_FILES
    return GotraceError(f"{name}{error.strerror or error}", hint)


class UsageError(GotraceError):
    """The command line asks for something that cannot be meant."""

    exit_code = Exit.USAGE


class BinaryError(GotraceError):
    """An executable file is damaged, or is not what it has to be (an ELF file, a Go program)."""


class UntraceableError(BinaryError):
    """A Go program that cannot be traced, or a file that may hide one: what it executes is beside the point."""


class TargetError(GotraceError):
    """The process to look at is gone, out of reach, or cannot be traced safely."""


class NoProfileError(TargetError):
    """A Go program that keeps no heap profile of itself."""


class HostError(GotraceError):
    """This kernel or this user may not do what tracing needs."""


class NoRoomError(HostError):
    """There is no room for another process now; later there may be."""


class LoadError(GotraceError):
    """A BPF program did not compile, or the kernel refused it."""


class MeasuringError(GotraceError):
    """The service under test or what loads it failed, so that there is nothing to judge."""

    exit_code = Exit.NOT_MEASURED


class ServiceError(MeasuringError):
    """The service cannot be built or started, does not become ready, or ended under load."""


class LoadToolError(MeasuringError):
    """The tool that puts load on a service is missing, failed, or printed what cannot be read."""
