"""What an agent that happens to run knows of processes that somebody else looks at."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gotrace.agent.remote import Remote, Row
from gotrace.errors import GotraceError, HostError
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.records.ps import PsProcess

DEFAULT = "http://127.0.0.1:9464"
PATIENCE_S = 1.0
_MOST_NS, _MOST_S = 1 << 62, 1e9
_MOST_TEXT = 80


def rows_of(url: str, token_file: str = "", ca_file: str = "", patience_s: float = PATIENCE_S) -> list[Row]:
    """What the agent at ``url`` says of each process, if it does so in time, however it goes about it. Raises GotraceError.

    Who answers a byte now and then is left to a thread that nobody waits for.
    """
    remote = Remote(url, token_file, ca_file)
    found: list[list[Row] | GotraceError] = []

    def ask() -> None:
        try:
            found.append(remote.rows())
        except GotraceError as error:
            found.append(error)
        except Exception as error:
            found.append(HostError(f"{remote.title} cannot be asked: {printable(str(error))}", "is it a gotrace?"))

    thread = threading.Thread(target=ask, name="question", daemon=True)
    thread.start()
    thread.join(patience_s)
    answer = found[0] if found else HostError(f"{remote.title} does not answer in time", "is it `gotrace serve`?")
    if isinstance(answer, GotraceError):
        raise answer
    return answer


def add_pauses(processes: Iterable[PsProcess], rows: Sequence[Row]) -> None:
    """Give each process its longest pause, or say why that is unknown. A row that is of another program is of nobody."""
    by_pid = {row.pid: row for row in rows}
    for each in processes:
        row = by_pid.get(each["pid"])
        if row is None or row.exe != printable(each["exe"]):
            each["unknown"]["longest_pause_ns"] = "the agent does not trace it"
        elif not row.is_traced:
            each["unknown"]["longest_pause_ns"] = f"the agent does not trace it: {printable(row.state[:_MOST_TEXT])}"
        elif 0 <= row.longest_pause_ns < _MOST_NS and 0 <= row.traced_s < _MOST_S:
            each["longest_pause_ns"], each["traced_s"] = row.longest_pause_ns, row.traced_s
        else:
            each["unknown"]["longest_pause_ns"] = "what the agent says cannot be"
