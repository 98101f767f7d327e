"""A dynamic linker loads the program, which could do without one.

Needs the stage "dynamic linker" and the function table. Reported if the stage and C's start-up take at least 3 % of the
start and 0.5 ms, and no package except the standard library's net, os/user and runtime/cgo calls C: Go code can replace
C in these. The gain is the whole stage and C's start-up, measured; savings on mappings, and on threads that C makes,
are not included. If no library is mapped, the page faults of the relocation are counted and reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gotrace.advice.finding import Finding
from gotrace.advice.starts import Seen, exact, stage_ns
from gotrace.analysis.start_summary import median
from gotrace.analysis.timeline import C_START, LINKER, Row
from gotrace.text import printable

REPLACEABLE = {"net", "os/user", "runtime/cgo"}


def _is_stage(row: Row) -> bool:
    return row.stage == LINKER and row.depth == 0


def find(seen: Seen) -> Iterator[Finding]:
    c_start = [
        sum(row.duration_ns for row in start.rows if row.depth == 1 and row.name in (C_START, "_cgo_init"))
        for start in seen.starts
    ]
    linked = [one + other for one, other in zip(stage_ns(seen, LINKER), c_start, strict=True)]
    gain = exact(linked, seen.total_ns)
    if not seen.is_worth(gain) or set(seen.cgo) - REPLACEABLE:
        return
    last = seen.starts[-1]
    libraries = [
        row.name
        for row in last.rows
        if row.stage == LINKER and row.depth == 1 and "mapped" in row.detail and not row.name.endswith(".cache")
    ]
    names = ", ".join(printable(name.rpartition("/")[2]) for name in libraries)
    if libraries:
        why = f"it maps {names}"
        mend = (
            "Build with CGO_ENABLED=0: net and os/user then use their Go code, which reads only /etc/resolv.conf "
            "and /etc/passwd, and ignores nsswitch.conf."
        )
        callers = ", ".join(map(printable, seen.cgo)) or "none"
        proof = f"packages that call C: {callers}, all of which have pure Go implementations"
    else:
        why = "it maps no library, and only relocates the position-independent program"
        faults = median([sum(row.minor_faults for row in start.rows if _is_stage(row)) for start in seen.starts])
        why += f", in {faults:,.0f} page faults: each page with an address in it is copied"
        mend = "Build without -buildmode=pie, unless address-space layout randomization of the program is required."
        touched: Counter[str] = Counter()
        for code in seen.code:
            touched.update(
                {section: each.faults for (owner, section), each in code.touched.items() if owner == LINKER and section}
            )
        if touched:
            sections = [f"{count / len(seen.code):,.0f} in {printable(name)}" for name, count in touched.most_common(3)]
            why += f": {', '.join(sections)}"
        proof = "no package calls C"
    yield Finding(
        rule="linker",
        title=f"The program is loaded by a dynamic linker that it does not need: {seen.gain_of(gain)}",
        evidence=(f"the stage was {gain.basis}; {why}", proof),
        gain=gain,
        mend=mend,
        check=seen.check("build it so"),
        excluded="No package of the program itself calls C: its function table lists every such call.",
    )
