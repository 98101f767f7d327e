"""What containers are called where a kubelet, or the API server, can be asked: again and again, beside the agent."""

from __future__ import annotations

import threading

from gotrace.find.kubelet import Kubelet
from gotrace.find.names import Names

_EVERY_S = 5, 20


class Pods:
    """Asks once, and in a thread from `start` on: an answer may take seconds, and events do not wait.

    Processes are looked at when they are ``min_age_s`` old: by then it has asked since their container began, unless that
    is less than five seconds.
    """

    def __init__(self, kubelet: Kubelet, min_age_s: float, names: Names | None = None) -> None:
        self.kubelet = kubelet
        self.of = kubelet.naming(names or Names())
        self._every_s = min(max(min_age_s / 2, _EVERY_S[0]), _EVERY_S[1])
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pods", daemon=True)

    def start(self) -> Pods:
        self.kubelet.refresh()
        self._thread.start()
        return self

    def close(self) -> None:
        """An answer that is waited for is not."""
        self._ends.set()

    def _run(self) -> None:
        while not self._ends.wait(self._every_s):
            self.kubelet.refresh()
