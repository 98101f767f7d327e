"""Which processes are meant: expressions such as ``exe=*/api,namespace=shop,label:app=web``.

Each part is KEY=GLOB; all parts have to fit, and of several expressions one. Keys are those of `KEYS`, and label:NAME and
annotation:NAME, as a container or pod has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gotrace.errors import TargetError, UsageError
from gotrace.find.processes import GoProcess, Scan
from gotrace.text import count_text, printable

NOT_SELECTED, TOO_YOUNG = "not selected", "too young"
_SHORT_ID = 12  # of a container, as podman and docker print it
_NEAREST = 5

KEYS: dict[str, Callable[[GoProcess], tuple[str, ...]]] = {
    "pid": lambda process: (str(process.pid),),
    "name": lambda process: (process.name, process.comm),
    "exe": lambda process: (process.exe,),
    "container": lambda process: (
        process.container.name,
        process.place.container,
        process.place.container[:_SHORT_ID],
    ),
    "image": lambda process: (process.container.image,),
    "unit": lambda process: (process.place.unit, process.place.unit.removesuffix(".service")),
    "namespace": lambda process: (process.container.namespace,),
    "pod": lambda process: (process.container.pod, process.place.pod),
    "service": lambda process: (process.container.service,),
}
_MAPS: dict[str, Callable[[GoProcess], dict[str, str]]] = {
    "label": lambda process: process.container.labels,
    "annotation": lambda process: process.container.annotations,
}
_NAMING = ("pid", "name", "exe")

# What an agent leaves alone unless it is told to look: who observes others, and what runs the containers.
_OBSERVERS = (
    "otelcol* opentelemetry-* beyla obi ebpf-instrument alloy grafana-agent* coroot-* parca-agent pyroscope* promtail "
    "node_exporter cadvisor *datadog* trace-agent system-probe telegraf vmagent tetragon ig gadgettracermanager"
)
_RUNTIMES = "containerd* dockerd docker-proxy runc runsc* crio* podman buildkitd nerdctl"
_KUBERNETES = "kubelet kube-* k3s* cilium-*"
EXCLUDED: dict[str, tuple[str, ...]] = {
    "observers": ("label:app.kubernetes.io/name=gotrace", *(f"name={each}" for each in _OBSERVERS.split())),
    "container runtimes": tuple(f"name={each}" for each in _RUNTIMES.split()),
    "Kubernetes itself": ("namespace=kube-system", *(f"name={each}" for each in _KUBERNETES.split())),
}


@dataclass(frozen=True)
class Selector:
    """All of ``terms`` have to fit: (key, glob)."""

    terms: tuple[tuple[str, str], ...]

    def fits(self, process: GoProcess) -> bool:
        return all(any(value and fnmatchcase(value, glob) for value in values(process, key)) for key, glob in self.terms)

    def __str__(self) -> str:
        return ",".join(f"{key}={glob}" for key, glob in self.terms)


def parsed(text: str) -> Selector:
    """Raises UsageError for what cannot be read."""
    terms = []
    for part in text.split(","):
        key, equals, glob = part.partition("=")
        kind, colon, name = key.partition(":")
        if not equals or not glob or not (key in KEYS or (kind in _MAPS and colon and name)):
            known = ", ".join([*KEYS, *(f"{each}:NAME" for each in _MAPS)])
            raise UsageError(
                f"invalid selector {printable(part)!r}: expected KEY=GLOB", f"keys: {known}; shell globs: 'prom*'"
            )
        terms.append((key, glob))
    return Selector(tuple(terms))


def values(process: GoProcess, key: str) -> tuple[str, ...]:
    """What a process has for a key of an expression."""
    if key in KEYS:
        return KEYS[key](process)
    kind, _, name = key.partition(":")
    return (_MAPS[kind](process).get(name, ""),)


_DEFAULTS = tuple(parsed(text) for texts in EXCLUDED.values() for text in texts)


@dataclass(frozen=True)
class Selection:
    """Without ``select`` everything is meant. ``defaults``: what `EXCLUDED` has is not, unless it was selected by pid, name
    or exe. Processes younger than ``min_age_s`` are not meant yet."""

    select: tuple[Selector, ...] = ()
    exclude: tuple[Selector, ...] = ()
    defaults: bool = True
    min_age_s: float = 0

    def why_not(self, process: GoProcess) -> str:
        """Why a process is left alone, in words that can be counted by; "" if it is meant."""
        by = [selector for selector in self.select if selector.fits(process)]
        if self.select and not by:
            return NOT_SELECTED
        named = any(key in _NAMING for selector in by for key, _ in selector.terms)
        if any(selector.fits(process) for selector in self.exclude):
            return "excluded"
        if self.defaults and not named and any(selector.fits(process) for selector in _DEFAULTS):
            return "excluded by default"
        if process.executable.refusal:
            return "cannot be traced"
        return TOO_YOUNG if process.age_s < self.min_age_s else ""


def fitting(selectors: Sequence[Selector], scan: Scan) -> list[GoProcess]:
    """Those that one of the selectors fits. Raises TargetError with what is nearest if there are none."""
    found = [each for each in scan.processes if any(selector.fits(each) for selector in selectors)]
    if not found:
        near = ", ".join(map(printable, nearest(selectors, scan.processes)))
        hint = f"closest: {near}" if near else "`gotrace ps` lists the Go processes"
        if scan.unreadable and os.geteuid():
            hint += (
                f"; {count_text(len(scan.unreadable), 'process', 'processes')} could not be inspected: run as root (sudo)"
            )
        raise TargetError(f"no process matches {printable(' or '.join(map(str, selectors)))}", hint)
    return found


def nearest(selectors: Iterable[Selector], processes: Sequence[GoProcess]) -> list[str]:
    """Of what there is for the keys that were asked for: the five values nearest to what was."""
    import difflib

    found: dict[str, float] = {}
    for key, glob in dict.fromkeys(term for selector in selectors for term in selector.terms):
        wanted = glob.strip("*?")
        for value in {each for process in processes for each in values(process, key)[:1] if each}:
            likeness = difflib.SequenceMatcher(None, wanted, value).ratio() + (wanted.lower() in value.lower())
            found[value] = max(likeness, found.get(value, 0))
    return sorted(found, key=lambda value: (-found[value], value))[:_NEAREST]
