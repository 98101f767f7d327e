"""A finding about a machine, and what several kinds of them ask of its facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gotrace.cluster.topo.model import Facts, Port, natural

Severity = Literal["wrong", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("wrong", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """``what`` is wrong, in one sentence; ``do`` what to change; ``why`` the evidence; ``source`` who gave it."""

    code: str
    severity: Severity
    what: str
    do: str
    why: str
    source: str
    devices: tuple[str, ...] = ()


def live_ports(facts: Facts) -> list[Port]:
    return [port for port in facts.ports if port.usable]


def device_names(facts: Facts) -> list[str]:
    """Every RDMA device that some source names by its own name."""
    names = {nic.name for nic in facts.nics if nic.named}
    return sorted(names | {port.device for port in facts.ports} | set(facts.netdevs), key=natural)
