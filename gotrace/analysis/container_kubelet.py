"""What a kubelet did for a pod around the calls of CRI, by its own functions.

One goroutine does all for a pod, in SyncPod and in what that calls; SyncPod alone tells the pod's UID. By that it is joined
with containerd's calls, and by the container's CreateContainer, which lies within a SyncPod.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gotrace.analysis.container_daemons import Call, Step, called

BETWEEN, OTHERS = "kubelet (between syncs)", "other containers of the pod"
_TO_SYNC = "kubelet (to SyncPod)"
_SEEN, _SYNC, _CONTAINER = "pod_seen", "pod_sync", "pod_container"
_NAMES = {
    _SYNC: "kubelet (SyncPod)",
    "pod_volumes": "kubelet (volumes)",
    "pod_sandbox": "kubelet (sandbox)",
    "pod_image": "kubelet (image)",
    _CONTAINER: "kubelet (container)",
}
_READ_BYTES = 192  # of a name: the probe's chunks of it


class Span(NamedTuple):
    """What a start waits for; ``end_ns`` is 0 where it goes on behind the program's execve."""

    begin_ns: int
    end_ns: int
    name: str

    def has(self, time_ns: int) -> bool:
        """Whether it was under way then."""
        return self.begin_ns <= time_ns and (not self.end_ns or time_ns < self.end_ns)


class Labels:
    """What a process told of pods and containers, by when a call of it began; ``names`` is the probe's list of labels."""

    def __init__(self, steps: Sequence[Step], process: int, names: Sequence[str]) -> None:
        self._told: dict[int, dict[str, str]] = {}
        self._attempts: dict[int, int] = {}
        for step in steps:
            if step.kind == "label" and step.of["process"] == process:
                cut = "…" if step.of["key_bytes"] > _READ_BYTES else ""
                self._told.setdefault(step.time_ns, {})[names[step.of["label"]]] = step.path + cut
                self._attempts[step.time_ns] = step.of["attempt"]

    def of(self, call: Call) -> Mapping[str, str]:
        """What it is about, by the names of labels."""
        return self._told.get(call.begin_ns, {})

    def attempt(self, call: Call) -> int:
        """How often a container of its name was before."""
        return self._attempts.get(call.begin_ns, 0)


def spans(
    steps: Sequence[Step],
    stages: Sequence[str],
    labels: Sequence[str],
    of: Mapping[str, str],
    asked: Span,
    create_ns: int,
    since_ns: int | None,
) -> list[Span]:
    """The kubelet's, in the order of their begins; none where none was seen to do it.

    ``of`` is what CreateContainer, at ``create_ns``, says of the container. ``asked`` is the first call that it waited for:
    first of all is the SyncPod in which that lies, or that the pod was seen, where that was not before ``since_ns``.
    """
    uid = of.get("uid", "")
    begun = {step.time_ns: step for step in steps if step.kind == "stage_begins"}
    named = [step for step in steps if step.kind == "label" and uid and step.path == uid and step.time_ns in begun]
    last_ns = {step.of["process"]: step.time_ns for step in named if stages[begun[step.time_ns].of["stage"]] == _SYNC}
    # A SyncPod in which the kubelet exits, as when it is restarted, never ends: what that one did and saw is not of this
    # start. Where the exit was not seen, the next one's SyncPod comes first.
    ended = {
        step.of["process"]
        for step in steps
        if step.kind == "ended" and last_ns.get(step.of["process"], create_ns) < step.time_ns < create_ns
    }
    for process in sorted({*last_ns} - ended, key=lambda each: -last_ns[each]):
        told, calls = Labels(steps, process, labels), called(steps, process, stages)
        mine = [call for call in calls if told.of(call).get("uid", "") == uid]
        syncs = sorted((call for call in mine if call.stage == _SYNC), key=lambda call: call.begin_ns)
        if not any(_span(call).has(create_ns) for call in syncs):
            continue
        seen = [call.begin_ns for call in mine if call.stage == _SEEN and call.begin_ns < asked.begin_ns]
        if since_ns is not None and seen and max(seen) >= since_ns:
            first_ns = max(seen)
        else:
            first_ns = next((call.begin_ns for call in syncs if _span(call).has(asked.begin_ns)), asked.begin_ns)
        syncs = [call for call in syncs if call.begin_ns >= first_ns]
        found = [_span(call) for call in syncs]
        if syncs and first_ns < syncs[0].begin_ns:
            found.append(Span(first_ns, syncs[0].begin_ns, _TO_SYNC))
        inner = [
            c for c in calls if any(c.g == sync.g and _span(sync).has(c.begin_ns) for sync in syncs) and c not in syncs
        ]
        others = [_span(c) for c in inner if c.stage == _CONTAINER and told.of(c).get("container") != of.get("container")]
        for span in (_span(call) for call in inner):
            is_others = any(other.has(span.begin_ns) for other in others)
            found.append(span._replace(name=OTHERS) if is_others else span)
        return sorted(found)
    return []


def _span(call: Call) -> Span:
    return Span(call.begin_ns, call.end_ns, _NAMES.get(call.stage, ""))
