"""Load on a service: a user's command is recognised, run so that its result can be read exactly, and read.

    load = parse_load("wrk -t4 -c100 -d30s http://127.0.0.1:8080/ping")
    ready = prepare(load, folder)       # ready.command is what --dry-run prints
    process = start(ready)
    result = finish(ready, process.wait())

No shell is involved, and what is added to a command never changes the load.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pkgutil
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gotrace.errors import LoadToolError, UsageError
from gotrace.lab import load_tools
from gotrace.lab.load_cpu import Loading
from gotrace.lab.load_result import LoadResult
from gotrace.lab.load_tools.tool import Asked, Output, Tool
from gotrace.lab.load_tools.vegeta import STDOUT
from gotrace.text import count_text, printable

# Commands that run another one, which is looked for among their arguments.
_WRAPPERS = frozenset({"taskset", "nice", "ionice", "chrt", "numactl", "env", "setpriv", "stdbuf", "sudo"})
# Our own form, for any other tool: what `LoadResult.record` gives, as JSON.
OWN_FORMAT = "gotrace"
_TEXT_LIMIT = 64 << 20


@functools.cache
def tools() -> Mapping[str, Tool]:
    """Every tool that is known, by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(load_tools.__path__))
    modules = (importlib.import_module(f"{load_tools.__name__}.{name}") for name in names)
    return {module.TOOL.name: module.TOOL for module in modules if hasattr(module, "TOOL")}


@dataclass(frozen=True)
class Load:
    """What a user wants a service to be put under."""

    command: tuple[str, ...]
    tool: str  # a name of `tools()`, or OWN_FORMAT
    at: int | None  # where in ``command`` the tool is; None: it is run as it is, and prints what the tool prints
    asked: Asked


@dataclass(frozen=True)
class Ready:
    """A load that can be started. Files of ``folder`` hold what it prints, ``files`` are those that it reads."""

    load: Load
    command: tuple[str, ...]
    folder: Path
    version: str  # of the tool; "" if it does not say
    results: Path | None = None
    after: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def stdout(self) -> Path:
        return self.folder / "load.stdout"

    @property
    def stderr(self) -> Path:
        return self.folder / "load.stderr"


def parse_load(command: str | Sequence[str], output_format: str = "") -> Load:
    """Take a command apart; ``output_format`` names the tool whose output it prints, where it is not such a tool itself.

    UsageError if it cannot be meant.
    """
    words = _words(command)
    formats = [*tools(), OWN_FORMAT]
    if output_format and output_format not in formats:
        raise UsageError(f"unknown load format {output_format!r}", f"there are {', '.join(formats)}")
    at = _place(words)
    if at is None:
        if not output_format:
            first = printable(Path(words[0]).name)
            raise UsageError(
                f"{first!r} is not a supported load tool",
                f"supported are {', '.join(tools())}; --load-format tells which of them its output matches",
            )
        return Load(words, output_format, None, _unasked(output_format))
    name = Path(words[at]).name
    if output_format not in ("", name):
        return Load(words, output_format, None, _unasked(output_format))
    return Load(words, name, at, tools()[name].asked(words[at + 1 :]))


def _unasked(output_format: str) -> Asked:
    """Of a command whose arguments are not known."""
    tool = tools().get(output_format)
    return Asked(model=tool.model if tool else "unknown")


def _words(command: str | Sequence[str]) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command) if isinstance(command, str) else command)
    except ValueError as error:
        raise UsageError(f"the load command has an unbalanced quote: {error}", "quote it as for a shell") from None
    if not words or not words[0]:
        raise UsageError("the load command is empty", "for example: --load 'wrk -d30s http://127.0.0.1:8080/'")
    if any("\0" in word for word in words):
        raise UsageError("the load command has a NUL character", "command arguments cannot contain one")
    for word in words if isinstance(command, str) else ():
        if word in ("|", "||", "&&", ";", "&") or re.match(r"[12]?>>?&?|<(?!\w+>)", word):
            hint = "the command is run without a shell: put pipes and redirections in a script, and give its --load-format"
            raise UsageError(f"the load command has {printable(word)!r}, which needs a shell", hint)
    return words


def _place(words: Sequence[str]) -> int | None:
    for at, word in enumerate(words):
        # env's NAME=/path is no program.
        if Path(word).name in tools() and "=" not in word.partition("/")[0]:
            return at
        if at == 0 and Path(word).name not in _WRAPPERS:
            return None
    return None


def prepare(load: Load, folder: Path) -> Ready:
    """Find the tool and what makes it tell everything; ``folder`` is where `start` will put its files.

    LoadToolError if it is missing.
    """
    ready = Ready(load, load.command, folder.absolute(), "")
    program = load.command[load.at or 0]
    found = shutil.which(program)
    if load.at is None:
        if found is None:
            raise LoadToolError(f"there is no command {printable(program)!r}", "--load takes a program and its arguments")
        return ready
    tool = tools()[load.tool]
    if found is None:
        install = f"Debian's package {tool.package} has it: apt-get install {tool.package}"
        raise LoadToolError(f"{printable(program)} is not installed", install if tool.package else f"see {tool.page}")
    help_text = _said(found, "--help") if tool.needs_help else ""
    made = tool.prepare(load.command[load.at + 1 :], ready.folder, help_text)
    told = _said(found, *tool.version_arguments) if tool.version_pattern else ""
    version = re.search(tool.version_pattern, told, re.M) if told else None
    output = {STDOUT: str(ready.stdout)}
    return replace(
        ready,
        command=(*load.command[: load.at + 1], *made.arguments),
        version=version[1] if version else "",
        results=Path(output.get(made.results, made.results)) if made.results else None,
        after=(found, *(output.get(each, each) for each in made.after)) if made.after else (),
        notes=(*load.asked.notes, *made.notes),
        files=made.files,
    )


def _said(program: str, *arguments: str) -> str:
    """What a tool says about itself, whatever its exit status; "" if it says nothing in time."""
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def start(ready: Ready, cpus: Collection[int] = ()) -> Loading:
    """Start it, on those CPUs; what it prints goes into files of its folder, and its standard input is empty."""
    for path, text in ready.files.items():
        Path(path).write_text(text, errors="surrogateescape")
    if ready.results is not None and ready.results.parent == ready.folder:
        ready.results.unlink(missing_ok=True)  # of an earlier run, which must not be taken for this one's
    with open(ready.stdout, "wb") as stdout, open(ready.stderr, "wb") as stderr:
        try:
            threads = ready.load.asked.threads
            return Loading(ready.command, cpus, threads, stdout=stdout, stderr=stderr)
        except OSError as error:
            message = f"cannot run {printable(ready.command[0])}: {os.strerror(error.errno or 0)}"
            raise LoadToolError(message, "--load takes a program and its arguments") from None


def finish(ready: Ready, status: int) -> LoadResult:
    """Read the result; ``status`` is what Popen.wait() gave. LoadToolError if it failed or cannot be read."""
    load = ready.load
    tool = tools().get(load.tool)
    if status not in (tool.good_exits if tool else {0}):
        raise _failed(ready, status)
    text = _text(ready.stdout)
    if ready.after:
        done = subprocess.run(
            ready.after, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise LoadToolError(f"{load.tool} cannot read its results: {printable(last)}", shlex.join(ready.after))
        text = done.stdout
    output = Output(text, load.asked, ready.results)
    # Our own form says it itself.
    result = replace(tool.read(output), model=load.asked.model) if tool else _own(output)
    notes = (*ready.notes, *result.notes, *([f"{load.tool} exited with status {status}"] if status else []))
    result = replace(
        result, asked=load.command, command=ready.command, notes=notes, version=ready.version or result.version
    )
    if load.asked.rate is not None:
        result = replace(result, wanted_rate=load.asked.rate)
    if not result.answered:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in result.errors.items())
        raise LoadToolError(
            f"{load.tool} got no response to {count_text(result.requests, 'request')}"
            + (f" (errors: {kinds})" if kinds else ""),
            "check that the service listens where the load is sent: " + shlex.join(load.command),
        )
    return result


def run(load: Load, folder: Path) -> LoadResult:
    """All of it, in one go."""
    ready = prepare(load, folder)
    with start(ready) as process:
        status = process.wait()
    return finish(ready, status)


def _failed(ready: Ready, status: int) -> LoadToolError:
    text = _text(ready.stderr) or _text(ready.stdout)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    how = f"exit status {status}"
    if status < 0:
        how = f"killed by {signal.Signals(-status).name}" if -status in set(signal.Signals) else f"signal {-status}"
    last = f": {printable(lines[-1][:200])}" if lines else ", and said nothing"
    return LoadToolError(f"{ready.load.tool} failed ({how}){last}", f"try it: {shlex.join(ready.command)}", detail=text)


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_TEXT_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""


def _own(output: Output) -> LoadResult:
    try:
        return LoadResult.from_record(json.loads(output.text))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise output.garbage("the load's command", "one object of JSON as gotrace writes it for a load") from None
