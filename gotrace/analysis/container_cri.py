"""What containerd was asked by a kubelet, or by another client of CRI, for a container of a pod.

StartContainer names the container, which CreateContainer made in a sandbox, which RunPodSandbox made; PullImage names the
pod. So a container's calls are found whatever processes there are. Between them time is the client's: of a kubelet whose
functions are probed, what it did then is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gotrace.analysis.container_daemons import Call, Daemons, OfDaemon, Step, called, interval_of
from gotrace.analysis.container_kubelet import BETWEEN as BETWEEN_SYNCS
from gotrace.analysis.container_kubelet import OTHERS, Labels, Span
from gotrace.analysis.container_kubelet import spans as kubelets_spans
from gotrace.analysis.container_stages import SANDBOX, UNPACK, Interval
from gotrace.analysis.timeline import Pod

BETWEEN, OF_SANDBOX = "between CRI calls", "PullImage (the sandbox's)"
_SANDBOX, _PULL, _CREATE, _START = "run_sandbox", "pull_image", "create_container", "start_container"
_NAMES = {_SANDBOX: "RunPodSandbox", _PULL: "PullImage", _CREATE: "CreateContainer", _START: "StartContainer"}
_CALLS = (*_NAMES.values(), OF_SANDBOX)


class _Request(NamedTuple):
    """A call, what its message says of the pod and the container, and how often a container of its name was before."""

    call: Call
    labels: Mapping[str, str]
    attempt: int


@dataclass(frozen=True)
class OfPod:
    """What containerd did, within which calls; ``pod`` is None where only the last of them was seen.

    ``begun_ns`` and ``started_ns`` are StartContainer's; ``started_ns`` is 0 where it had not returned before the execve.
    ``tool`` is what was asked for the pod: the kubelet, where ``spans`` has its functions, too.
    """

    done: OfDaemon
    pod: Pod | None
    spans: tuple[Span, ...]
    begun_ns: int
    started_ns: int
    tool: str = "containerd"

    def bases(self, of_processes: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        """Whose the time is from when on: the innermost call's, in it the processes'; the client's between calls."""
        edges = {span.begin_ns for span in self.spans} | {span.end_ns for span in self.spans if span.end_ns}
        return [*((at, self._at(at)) for at in edges), *(base for base in of_processes if self._is_mine(base[0]))]

    def within(self, intervals: Sequence[Interval]) -> list[Interval]:
        """Those that began in a call: what else the pod's processes do is not waited for."""
        return [each for each in intervals if self._is_mine(each.begin_ns)]

    def _at(self, time_ns: int) -> str:
        between = BETWEEN if self.tool == "containerd" else BETWEEN_SYNCS
        return max((span for span in self.spans if span.has(time_ns)), default=Span(0, 0, between)).name

    def _is_mine(self, time_ns: int) -> bool:
        return self._at(time_ns) in _CALLS


class Pods:
    """As `Daemons`; ``labels`` is the probe's list of what it tells of a pod."""

    def __init__(self, seen: Mapping[str, Sequence[str]], stages: Sequence[str], labels: Sequence[str]) -> None:
        self._seen, self._stages, self._labels = seen, stages, labels

    def of(self, steps: Sequence[Step], identity: str, exec_ns: int) -> OfPod | None:
        """By the container's id, that stands in its control group; None where no client of CRI started it."""
        steps = [step for step in steps if step.time_ns <= exec_ns]
        daemon = next((step.of["process"] for step in reversed(steps) if self._starts(step, identity)), 0)
        if not daemon:
            return None
        calls = called(steps, daemon, self._stages)
        requests = sorted(self._requests(steps, daemon, calls), key=lambda each: each.call.begin_ns)
        start = next(each.call for each in reversed(requests) if (each.call.stage, each.call.path) == (_START, identity))
        created = [each for each in requests if (each.call.stage, each.call.path) == (_CREATE, identity)]
        if not created:
            alone = Span(start.begin_ns, start.end_ns, _NAMES[_START])
            return OfPod(OfDaemon("containerd", start.begin_ns, (), ()), None, (alone,), start.begin_ns, start.end_ns)
        create = created[-1]
        waited = _waited(requests, create)
        spans = [_span(each.call, identity, waited[0].call) for each in waited]
        kubelets = kubelets_spans(
            *(steps, self._stages, self._labels, create.labels, spans[0], create.call.begin_ns),
            _sandbox_before(requests, waited[0], create),
        )
        others = [span for span in kubelets if span.name == OTHERS]
        pulls_others = [span.name == _NAMES[_PULL] and any(each.has(span.begin_ns) for each in others) for span in spans]
        spans = [
            span._replace(name=OTHERS) if is_others else span for span, is_others in zip(spans, pulls_others, strict=True)
        ]
        spans = sorted([*kubelets, *spans])
        # Containers of one pod may have a layer in common, for which each of them waits.
        done = Daemons(self._seen, self._stages).of_containerd(steps, daemon, create.call, identity, exec_ns)
        done = done or OfDaemon("containerd", create.call.begin_ns, (), ())
        sandbox = waited[0].call if waited[0].call.stage == _SANDBOX else None
        networks = [
            interval_of(call)
            for call in calls
            if sandbox and call.stage == SANDBOX and call.g == sandbox.g and sandbox.begin_ns <= call.begin_ns
            if call.end_ns and call.end_ns <= sandbox.end_ns
        ]
        is_known = "sandbox" in self._seen["containerd"] and (sandbox is not None or create.attempt > 0)
        found = OfPod(done, None, tuple(spans), start.begin_ns, start.end_ns, "kubelet" if kubelets else "containerd")
        unpacked = any(each.stage == UNPACK for each in found.within(done.intervals))
        done = dataclasses.replace(
            done,
            asked_ns=spans[0].begin_ns,
            intervals=(*done.intervals, *networks),
            known=(*done.known, *([SANDBOX] if is_known else [])),
            layers=done.layers and unpacked * done.layers,  # or they were there before
        )
        pod = Pod(
            namespace=create.labels.get("namespace", ""),
            name=create.labels.get("pod", ""),
            uid=create.labels.get("uid", ""),
            container=create.labels.get("container", ""),
            attempt=create.attempt,
        )
        return dataclasses.replace(found, done=done, pod=pod)

    def _starts(self, step: Step, identity: str) -> bool:
        mine = step.kind == "stage_begins" and self._stages[step.of["stage"]] == _START
        return mine and step.path == identity != ""

    def _requests(self, steps: Sequence[Step], daemon: int, calls: Sequence[Call]) -> Iterator[_Request]:
        labels = Labels(steps, daemon, self._labels)
        for call in calls:
            if call.stage in _NAMES:
                yield _Request(call, labels.of(call), labels.attempt(call))


def _waited(requests: Sequence[_Request], create: _Request) -> list[_Request]:
    """The pod's calls from its sandbox on; for a container that is restarted, or without that, from its own pull on."""
    sandbox = create.call.made_of
    mine = {each.call.path for each in requests if each.call.stage == _CREATE and each.call.made_of == sandbox}
    of_pod = [
        each
        for each in requests
        if (each.call.stage == _SANDBOX and each.call.path == sandbox)
        or (each.call.stage == _CREATE and each.call.made_of == sandbox)
        or (each.call.stage == _START and each.call.path in mine)
        or (each.call.stage == _PULL and each.labels.get("uid", "") == create.labels.get("uid") != "")
    ]
    made = [number for number, each in enumerate(of_pod) if each.call.stage == _SANDBOX]
    if made and not create.attempt:
        return of_pod[made[0] :]
    first = of_pod.index(create)
    while first and of_pod[first - 1].call.stage == _PULL:
        first -= 1
    return of_pod[first:]


def _sandbox_before(requests: Sequence[_Request], first: _Request, create: _Request) -> int | None:
    """When the last sandbox was made that the pod had before, 0 for none; None where the container's was not seen."""
    if first.call.stage != _SANDBOX:
        return None
    earlier = [
        each.call.end_ns
        for each in requests
        if each.call.stage == _SANDBOX and each.call.path and each.call.begin_ns < first.call.begin_ns
        if each.labels.get("uid") == create.labels.get("uid")
    ]
    return max(earlier, default=0)


def _span(call: Call, identity: str, first: Call) -> Span:
    name = OTHERS if call.stage in (_CREATE, _START) and call.path != identity else _NAMES[call.stage]
    if call.stage == _PULL and first.stage == _SANDBOX and call.begin_ns < first.end_ns:
        name = OF_SANDBOX
    return Span(call.begin_ns, call.end_ns, name)
