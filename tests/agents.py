"""The agent, run as a command, and what it answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from conftest import GOTRACE
from services import free_port


def changed(code: str) -> list[str]:
    """A command that is gotrace with other settings of its own: ``code`` sets them, in the module `agent`."""
    after = "import sys; from gotrace.cli.main import main; main(sys.argv[1:])"
    return [sys.executable, "-c", f"from gotrace.agent import agent\n{code}\n{after}"]


class Agent:
    """``through`` is what the command is started by."""

    def __init__(self, *options: str, through: Sequence[str] = (), command: Sequence[str] = GOTRACE) -> None:
        self.port = free_port()
        words = [*through, *command, "serve", "--listen", f"127.0.0.1:{self.port}", *options]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.head = self.process.stderr.readline()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=dict(headers or {}))
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        families = text_string_to_metric_families(self.get("/metrics"))
        return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}

    def values(self, name: str, **labels: str) -> list[float]:
        """The samples of a name that have these labels."""
        return [
            value for (each, has), value in self.samples().items() if each == name and labels.items() <= dict(has).items()
        ]

    def one(self, name: str, **labels: str) -> float:
        (value,) = self.values(name, **labels)
        return value

    def traced(self) -> set[int]:
        return {each["pid"] for each in json.loads(self.get("/processes")) if each["state"] == "traced"}

    def is_ready(self) -> bool:
        try:
            return bool(self.get("/readyz"))
        except urllib.error.HTTPError as error:
            assert error.code == 503
            return False

    def finish(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        said = self.said()
        assert self.process.returncode == 0 and "Traceback" not in said, said
        return said

    def said(self) -> str:
        """Wait for its end: all that it wrote."""
        assert self.process.stderr is not None
        rest = self.process.stderr.read()  # not by `communicate`, which does without what was read ahead
        self.process.wait(30)
        return self.head + rest
