"""An init, or main.main before the end of the start, goes through much of the program's own data.

Needs each page fault of the executable's sections, from its begin to its end, and the sections. Reported if those of the
main thread in one init function, except of its code, take at least 3 % of the start and 0.5 ms. The gain is that time,
measured: what is saved if nothing needs the data before the start is over. Data that nobody touches takes no time;
relocating it, the linker's.
"""

from __future__ import annotations

from collections.abc import Iterator

from gotrace.advice.finding import Finding, place_of
from gotrace.advice.starts import Seen, exact, work_of
from gotrace.analysis.start_code import DATA
from gotrace.analysis.start_summary import median
from gotrace.analysis.timeline import LINKER
from gotrace.text import printable

_CODE = ".text"


def find(seen: Seen) -> Iterator[Finding]:
    owners = {owner for code in seen.code for owner, _ in code.touched if owner not in ("", LINKER)}
    for owner in sorted(owners):
        sections = {section for code in seen.code for name, section in code.touched if name == owner} - {_CODE}
        ns = [sum(each.ns for key, each in code.touched.items() if key[0] == owner and key[1] != _CODE) for code in seen.code]
        gain = exact(ns, seen.total_ns)
        if not seen.is_worth(gain):
            continue
        faults = {section: _median(seen, owner, section, "faults") for section in sections}
        most = max(faults, key=lambda section: faults[section])
        places = work_of(seen, owner, DATA).places
        where = f" ({place_of(places.most_common(1)[0][0])})" if places else ""
        major = sum(_median(seen, owner, section, "major") for section in sections)
        yield Finding(
            rule="data",
            title=f"{printable(owner)} goes through the program's own data{where}: {seen.gain_of(gain)}",
            evidence=(
                f"{faults[most]:,.0f} page faults in {printable(most) or 'a section without a name'} of "
                f"{sum(faults.values()):,.0f} in its data, {gain.basis} from the begin of each to its end; "
                f"{major:,.0f} of them read from a disk",
            ),
            gain=gain,
            mend="Touch the data where it is needed (sync.OnceValue); what is only read costs a sixteenth of what is written, "
            "whose pages are copied.",
            check=seen.check("change it"),
            excluded="Only faults at addresses of the executable's sections count: no heap, no stack, and not its code.",
        )


def _median(seen: Seen, owner: str, section: str, what: str) -> float:
    return median([getattr(code.touched.get((owner, section)), what, 0) for code in seen.code])
