"""The one place where files are named, opened and written, and where it is known that one could not be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

from gotrace.errors import MORE_SPACE, GotraceError, UsageError
from gotrace.text import printable

_LONG_NS = 1_000_000_000  # a write that takes longer was blocked: by a reader that does not read, for example
# Called with the path of every file that was created.
on_created: Callable[[str], None] = lambda _: None  # noqa: E731


def check_distinct(outputs: Sequence[str | None], inputs: Sequence[str | None]) -> None:
    """Raises UsageError if one file would be written twice, or read and written."""
    written, read = ([os.path.realpath(path) for path in paths if path and path != "-"] for paths in (outputs, inputs))
    if len({*written, *read}) < len(written) + len(set(read)):
        raise UsageError("two outputs go to the same file", "give each its own name")


def check_files(paths: Sequence[str], force: bool) -> None:
    """Raises before anything is traced what creating these files would raise at its end."""
    for path in paths:
        if path == "-":
            continue
        if os.path.lexists(path) and not force:
            raise exists_already(path)
        try:
            os.stat(os.path.dirname(path) or ".")
            _try(path)
        except OSError as error:
            # Whether it is permitted may be another question to whoever creates the file.
            if error.errno not in (errno.EACCES, errno.EPERM):
                raise cannot_write(path, error) from None


def _try(path: str) -> None:
    """Raises OSError if there is no file and none can be made: not every folder takes files (/proc)."""
    if not os.path.lexists(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(path)
    elif os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)


def exists_already(path: str) -> GotraceError:
    return GotraceError(f"{printable(path)} already exists", "choose another name, or overwrite it with --force")


def numbered(path: str, number: int, force: bool) -> str:
    """The name of the file about the ``number``-th program that a process executes: run.gotrace, then run.2.gotrace.

    Without ``force`` names that are taken are passed over, for it is too late to ask.
    """
    if number == 1 or path == "-":
        return path
    names = (of_process(path, count) for count in itertools.count(number))
    return next(name for name in names if force or not os.path.lexists(name))


def of_process(path: str, pid: int) -> str:
    """The name of the file about one of several processes: run.1234.gotrace."""
    beginning, ending = os.path.splitext(path)
    outer, inner = os.path.splitext(beginning)
    if inner in (".pb", ".speedscope"):
        beginning, ending = outer, inner + ending
    return f"{beginning}.{pid}{ending}"


def free(path: str, force: bool) -> str:
    """``path``, or if that is taken and not to be overwritten its first `numbered` name that is free."""
    return path if force or not os.path.lexists(path) else numbered(path, 2, force)


def cannot_write(path: str, error: OSError) -> GotraceError:
    reason = f"cannot write {printable(path) if path != '-' else 'standard output'}: {error.strerror}"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return GotraceError(reason, MORE_SPACE if full else "choose an existing directory that you can write to")


def create(path: str, force: bool) -> BinaryIO:
    """A new file, unbuffered, or standard output for "-". Raises GotraceError if it exists or cannot be written."""
    if path == "-":
        return open(1, "wb", buffering=0, closefd=False)
    try:
        file = open(path, "wb" if force else "xb", buffering=0)
        on_created(path)
        return file
    except FileExistsError:
        raise exists_already(path) from None
    except OSError as error:
        raise cannot_write(path, error) from None


@contextlib.contextmanager
def input_of(path: str) -> Iterator[BufferedReader]:
    """A file to read, or standard input for "-". Raises OSError."""
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        yield file


@contextlib.contextmanager
def created(path: str, force: bool) -> Iterator[BinaryIO]:
    """A new file, or standard output; what cannot be written is said with the path. One that is not whole does not stay."""
    try:
        with open(1, "wb", closefd=False) if path == "-" else open(path, "wb" if force else "xb") as file:
            try:
                yield file
                if not file.closed:  # by whoever wrote to it
                    file.flush()  # now, for what is still to be written may not find room either
            except Exception:
                with contextlib.suppress(OSError):
                    file.close()  # if whoever wrote to it has not done so
                if path != "-" and os.path.isfile(path):
                    os.unlink(path)
                raise
        if path != "-":
            on_created(path)
    except FileExistsError:
        raise exists_already(path) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename not in (None, path):
            raise
        raise cannot_write(path, error) from None


class Sink:
    """A text stream that remembers its failure instead of raising it: what was measured must not go with a full disk.

    `close` closes the file only if it is ``owned``; one that is to be ``whole`` does not stay if it is not.
    ``blocked_ns`` is how long the writes took that took longer than a second.
    """

    def __init__(self, file: TextIO, name: str, owned: bool = False) -> None:
        self.file = file
        self.name = name
        self.failure: OSError | None = None
        self.blocked_ns = 0
        self._owned = owned

    @classmethod
    def created(cls, path: str, force: bool) -> Sink:
        """A new file, or standard output for "-". Raises GotraceError as `create` does."""
        if path == "-":
            return cls(sys.stdout, "standard output")
        try:
            sink = cls(open(path, "w" if force else "x", encoding="utf-8"), path, owned=True)
            on_created(path)
            return sink
        except FileExistsError:
            raise exists_already(path) from None
        except OSError as error:
            raise cannot_write(path, error) from None

    @classmethod
    def screen(cls, file: TextIO) -> Sink:
        """Where tables go: standard output, which may be a file, or a stream that stands for it."""
        return cls(file, "the terminal" if file.isatty() else "standard output")

    def write(self, text: str) -> None:
        self._do(self.file.write, text)

    def flush(self) -> None:
        self._do(self.file.flush)

    def _do(self, what: Callable[..., object], *arguments: str) -> None:
        if self.failure is not None:
            return
        began_ns = time.monotonic_ns()
        try:
            what(*arguments)
        except OSError as error:
            self.failure = error
        took_ns = time.monotonic_ns() - began_ns
        self.blocked_ns += took_ns if took_ns > _LONG_NS else 0

    def isatty(self) -> bool:
        return self.file.isatty()

    def close(self, whole: bool = False) -> None:
        if not self.file.closed:
            self.flush()
        if self._owned:
            with contextlib.suppress(OSError):
                self.file.close()
            if whole and self.failure is not None and os.path.isfile(self.name):
                os.unlink(self.name)


class Failing(Protocol):
    """Something that was to be written, and what kept it from it."""

    name: str
    failure: OSError | None


def complain_of(failed: Failing | None, intact: bool = True) -> None:
    """Raise what kept an output from being written; a reader that went away is not an error.

    ``intact``: what was written before is of use.
    """
    if failed is not None and failed.failure is not None and not isinstance(failed.failure, BrokenPipeError):
        reason = f"cannot write {printable(failed.name)}: {failed.failure.strerror}"
        raise GotraceError(reason, f"{MORE_SPACE}; data written so far is intact" if intact else MORE_SPACE)


@contextlib.contextmanager
def held(folder: Path, by: str = "", patience_s: float = 0) -> Iterator[None]:
    """No other gotrace writes into this folder, which is made, for as long as this lasts.

    ``by`` is a file in it to lock instead of the folder, which NFS does not lock. Others are waited for ``patience_s``
    seconds. Raises GotraceError.
    """
    name, until_s = printable(str(folder)), time.monotonic() + patience_s
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kind = os.O_RDWR | os.O_CREAT if by else os.O_RDONLY | os.O_DIRECTORY
        file = os.open(folder / by, kind | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise GotraceError(f"cannot write to {name}: {error.strerror}", "give another folder") from None
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until_s:
                    raise GotraceError(
                        f"another gotrace is writing to {name}", "wait until it ends, or choose another folder"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(file)
