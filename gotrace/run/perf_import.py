"""From what `perf script` printed to a recording."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from io import BufferedReader

from gotrace.errors import GotraceError
from gotrace.kernel.ring import wire_dtype
from gotrace.recording.perf_import import Importer, header
from gotrace.recording.perf_script import PerfScript, Sample
from gotrace.recording.writer import Writer
from gotrace.run.files import cannot_write, create
from gotrace.runtime.file_names import FileNames
from gotrace.text import count_text, printable

_EXCERPT = 60
# Lines that cannot be parsed, of all: more of them are in no output of perf's, whatever happens to look like a sample.
_MOST_GARBAGE = 0.5
# What files begin with that are taken for perf's output: what they are, and what makes text of them.
_OTHERS = (
    (b"PERFILE2", "perf's own data", "perf script -i"),
    (b"2ELIFREP", "perf.data from a machine with the other byte order", "perf script -i"),
    (b"\x1f\x8b", "compressed by gzip", "gunzip -c"),
    (b"\xff\xfe", "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
)
_ADVICE = "give it the output of `perf script`: perf script > perf-script.txt"


def import_script(
    source: BufferedReader,
    name: str,
    output: str,
    force: bool,
    pid: int | None = None,
    comm: str | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[PerfScript, Importer]:
    """Write a recording of the samples in ``source``: of those of a process and of threads of a name, if given.

    ``name`` is the file's ("-": standard input); ``tell`` is called with the number of bytes read so far. Raises
    GotraceError, and leaves no file, where there is nothing to import.
    """

    def fits(thread: str, process: int | None) -> bool:
        return (comm is None or thread == comm) and (pid is None or process == pid)

    shown = "standard input" if name == "-" else printable(name)
    _require_text(source.peek(8), name, shown)
    names = FileNames()
    script = PerfScript(source, names)
    batches = _told(script, tell)
    first = next((batch for batch in batches if batch), None)
    if first is None:
        garbage = f"; {garbage_text(script)}" if script.garbage else ""
        raise GotraceError(f"no samples found in {shown}{garbage}", _ADVICE)
    if pid is not None and first[0].pid is None:
        raise GotraceError(f"{shown} has no pids", "use `perf script -F +pid,+ip,+sym,+dso`")
    with create(output, force) as target:
        dtype = wire_dtype()
        try:
            begin_ns = next((sample.time_ns or 0 for sample in first if fits(sample.comm, sample.pid)), 0)
            writer = Writer(target, header(script, begin_ns), dtype)
            importer = Importer(writer, dtype, fits, script.partial)
            importer.add(first)
            for batch in batches:
                importer.add(batch)
            writer.close(importer.end(script, "end of the input"))
        except OSError as error:
            raise cannot_write(output, error) from None
    is_other = script.garbage > _MOST_GARBAGE * script.lines
    if (is_other or not importer.samples) and os.path.isfile(output):
        os.unlink(output)
    if is_other:
        raise GotraceError(f"{shown} is not the output of `perf script`: {garbage_text(script)}", _ADVICE)
    if not importer.samples:
        raise GotraceError(f"no sample in {shown} is from that thread or process", "check --pid and --comm")
    importer.notes += [f"left out: {what} of {count_text(count, 'sample')}" for what, count in script.left_out.items()]
    importer.notes += names.notes()
    return script, importer


def _require_text(beginning: bytes, name: str, shown: str) -> None:
    for magic, what, command in _OTHERS:
        if beginning.startswith(magic):
            path = "FILE" if name == "-" else printable(name)
            convert = f"{command} {shlex.quote(path)} > {shlex.quote(f'{path}.txt')}"
            raise GotraceError(f"{shown} is {what}", f"import the text instead: {convert}")


def _told(script: PerfScript, tell: Callable[[int], None]) -> Iterator[list[Sample]]:
    for batch in script.batches():
        yield batch
        tell(script.read)


def garbage_text(script: PerfScript) -> str:
    """How much could not be parsed, and the first of it."""
    assert script.first_garbage is not None
    number, line = script.first_garbage
    return (
        f"{script.garbage:,} of {count_text(script.lines, 'line')} could not be parsed; the first is line {number}: "
        f"{printable(line[:_EXCERPT])}{'…' if len(line) > _EXCERPT else ''}"
    )
