"""What `gotrace import` says of what it has read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gotrace.recording.perf_import import Importer
from gotrace.recording.perf_script import PerfScript
from gotrace.run.perf_import import garbage_text
from gotrace.text import count_text, printable

_NAMES_SHOWN = 8


def summary(script: PerfScript, importer: Importer) -> Iterator[str]:
    """What was left out, and how much there is of what was not."""
    if importer.partial:
        names = ", ".join(map(printable, sorted(importer.partial)[:_NAMES_SHOWN]))
        yield f"gotrace: perf sampled only some of {names}: no durations for them (record with -c 1)"
    if importer.gaps:
        gaps = count_text(importer.gaps, "gap")
        yield f"gotrace: {gaps} between context switches: no off-CPU time across them"
    spans = f"; durations: {_listed(importer.spans)}" if importer.spans else ""
    lost = f"; perf lost {script.lost:,}" if script.lost else ""
    garbage = f"; {garbage_text(script)}" if script.garbage else ""
    yield (
        f"{count_text(importer.samples.total(), 'sample')}: {_listed(importer.samples)}; "
        f"{count_text(importer.stacks, 'stack')}{spans}{lost}{garbage}"
    )
    yield from importer.notes


def _listed(names: Counter[str]) -> str:
    listed = [f"{count} {printable(name) or 'unnamed'}" for name, count in names.most_common(_NAMES_SHOWN)]
    return ", ".join([*listed, *(["…"] if len(names) > _NAMES_SHOWN else [])])
