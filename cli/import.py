# ruff: noqa: N999 -- the command is called import, and a command is found by its module's name
"""`gotrace import`: a recording from what perf has seen, for hosts where BPF is not allowed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import click

from gotrace.cli._progress import reading
from gotrace.cli._target import cannot_write, check_files, create
from gotrace.errors import GotraceError
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.recording.perf_script import PerfScript, Sample

_NAMES_SHOWN = 8
_EXCERPT = 60


@click.command("import", epilog="Afterwards: `gotrace flame`, `gotrace export`.")
@click.argument("file", type=click.Path(), metavar="FILE|-")
@click.option("-o", "--output", type=click.Path(), required=True, metavar="FILE", help="Where to (run.gotrace).")
@click.option("--comm", help="Only threads of this name.")
@click.option("--pid", type=int, help="Only this process; needs `perf script -F +pid,+ip,+sym,+dso`.")
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
def command(file: str, output: str, comm: str | None, pid: int | None, force: bool) -> int:
    """Make a recording of what `perf script` printed.

    \b
    perf record -g -e cpu-clock -p PID -- sleep 10
    perf script --ns -F +pid,+ip,+sym,+dso,+period | gotrace import - -o run.gotrace

    Any fields will do (-F), tracepoints and hardware events too. sched:sched_switch, system calls and uprobes on
    stopTheWorldWithSema and startTheWorldWithSema become durations, which `gotrace export` makes histograms of. Lines
    that cannot be understood are counted.
    """
    check_files((output, file), force=True)
    check_files((output,), force)
    from gotrace.kernel.ring import wire_dtype
    from gotrace.recording.perf_import import Importer, header
    from gotrace.recording.perf_script import PerfScript
    from gotrace.recording.writer import Writer

    def wanted(name: str, process: int | None) -> bool:
        return (comm is None or name == comm) and (pid is None or process == pid)

    with _opened(file) as source, contextlib.ExitStack() as stack:
        script = PerfScript(source)
        batches = _with_progress(script, source)
        first = next((batch for batch in batches if batch), None)
        if first is None:
            raise GotraceError(
                f"no sample was understood in {printable(file)}{_garbage(script)}",
                "give it what `perf script` prints: perf script > perf-script.txt",
            )
        if pid is not None and first[0].pid is None:
            raise GotraceError(
                f"{printable(file)} does not tell processes apart", "use `perf script -F +pid,+ip,+sym,+dso`"
            )
        target = stack.enter_context(create(output, force))
        dtype = wire_dtype()
        try:
            begin_ns = next((sample.time_ns or 0 for sample in first if wanted(sample.comm, sample.pid)), 0)
            writer = Writer(target, header(script, begin_ns), dtype)
            importer = Importer(writer, dtype, wanted, script.partial)
            importer.add(first)
            for batch in batches:
                importer.add(batch)
            writer.close(importer.end(script, "end of the input"))
        except OSError as error:
            raise cannot_write(output, error) from None
    if not importer.samples:
        if os.path.isfile(output):
            os.unlink(output)
        raise GotraceError(f"none of the samples in {printable(file)} is of that thread or process", "see what is in it")
    if importer.partial:
        names = ", ".join(map(printable, sorted(importer.partial)[:_NAMES_SHOWN]))
        print(f"gotrace: perf took only some of {names}: no durations from them (record with -c 1)", file=sys.stderr)
    if importer.gaps:
        print(f"gotrace: {importer.gaps} gaps between context switches: no time off the CPU across them", file=sys.stderr)
    spans = f"; durations: {_listed(importer.spans)}" if importer.spans else ""
    lost = f"; perf had lost {script.lost}" if script.lost else ""
    print(
        f"{printable(output)}: {importer.samples.total()} samples: {_listed(importer.samples)}; {importer.stacks} stacks"
        f"{spans}{lost}{_garbage(script)}",
        file=sys.stderr,
    )
    return 0


def _listed(names: Counter[str]) -> str:
    listed = [f"{count} {printable(name) or 'without a name'}" for name, count in names.most_common(_NAMES_SHOWN)]
    return ", ".join([*listed, *(["…"] if len(names) > _NAMES_SHOWN else [])])


def _garbage(script: PerfScript) -> str:
    if script.first_garbage is None:
        return ""
    number, line = script.first_garbage
    return (
        f"; {script.garbage} of {script.lines} lines could not be understood, the first is line {number}: "
        f"{printable(line[:_EXCERPT])}{'…' if len(line) > _EXCERPT else ''}"
    )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file


def _with_progress(script: PerfScript, file: BinaryIO) -> Iterator[list[Sample]]:
    """Every batch, with a progress bar where somebody may be waiting."""
    size = os.fstat(file.fileno()).st_size
    with reading(size) as tell:
        for batch in script.batches():
            yield batch
            tell(script.read)
