"""What a running agent knows about processes that another command lists."""

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
    """The agent's row for each process, within ``patience_s`` seconds. Raises GotraceError.

    The request runs in a daemon thread, so that a server that sends a byte now and then cannot hold up the caller.
    """
    remote = Remote(url, token_file, ca_file)
    found: list[list[Row] | GotraceError] = []

    def ask() -> None:
        try:
            found.append(remote.rows())
        except GotraceError as error:
            found.append(error)
        except Exception as error:
            found.append(HostError(f"request to {remote.title} failed: {printable(str(error))}", "is it `gotrace serve`?"))

    thread = threading.Thread(target=ask, name="question", daemon=True)
    thread.start()
    thread.join(patience_s)
    answer = found[0] if found else HostError(f"{remote.title} did not respond in time", "is it `gotrace serve`?")
    if isinstance(answer, GotraceError):
        raise answer
    return answer


def add_pauses(processes: Iterable[PsProcess], rows: Sequence[Row]) -> None:
    """Set the longest pause of each process, or why it is unknown. A row with another executable is of a reused pid."""
    by_pid = {row.pid: row for row in rows}
    for each in processes:
        row = by_pid.get(each["pid"])
        if row is None or row.exe != printable(each["exe"]):
            each["unknown"]["longest_pause_ns"] = "not traced by the agent"
        elif not row.is_traced:
            each["unknown"]["longest_pause_ns"] = f"not traced by the agent: {printable(row.state[:_MOST_TEXT])}"
        elif 0 <= row.longest_pause_ns < _MOST_NS and 0 <= row.traced_s < _MOST_S:
            each["longest_pause_ns"], each["traced_s"] = row.longest_pause_ns or None, row.traced_s
        else:
            each["unknown"]["longest_pause_ns"] = "implausible value from the agent"
