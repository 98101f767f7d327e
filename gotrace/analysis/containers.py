"""What lies before the execve of a program in a container: from events of `coldstart_containers` to rows of its start.

A start is joined with the tool that was asked for it by their processes (who forked whom), with its container by the
control group that its process was put into, and with the stages by time. At each moment the innermost stage has the time:
the layers that a pull unpacks are in "unpack", not in "image pull". Where none is under way it belongs to the tool that
executes last of those that live. So the rows follow one another without a gap.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gotrace.analysis.columns import Array, Kinds, text_of
from gotrace.analysis.container_cri import OfPod, Pods
from gotrace.analysis.container_daemons import Call, Daemons, OfDaemon, Step, called, interval_of
from gotrace.analysis.container_stages import (
    CGROUP,
    CREATE,
    INIT,
    MOUNTS,
    NAMESPACES,
    NO_PULL,
    OF_KERNEL,
    OF_TOOLS,
    PULL,
    SANDBOX,
    UNPACK,
    Interval,
    partition,
)
from gotrace.analysis.timeline import BEFORE, CONTAINER, Container, Row, Start, Unseen, added

_RUNTIMES = {"runc": "runtime (runc)", "crun": "runtime (crun)"}
_TOOLS = ("podman", "conmon", "containerd", "ctr", "nerdctl", "docker", "dockerd", "kubelet", "crio", *_RUNTIMES)
_CALLS = {
    **dict.fromkeys(("mount", "move_mount", "umount", "pivot_root"), MOUNTS),
    **dict.fromkeys(("unshare", "setns", "clone"), NAMESPACES),
}
# A container's name in the path of its control group: podman's, Docker's, containerd's for Kubernetes; else its last part.
_ID = re.compile(r"([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_KEPT_NS = 3600_000_000_000
_IN_VAIN = 1 << 63
_CLIENT = "between pull and creation"
_EARLIER = "it was done before tracing began, or by calls that were not seen"
_RUNNING = "It was executed in a container that ran already: it is told from execve on."
_NOBODY = "No request to a container tool was seen: times start at execve."


class Starts(Protocol):
    """What makes starts of events: `gotrace.analysis.coldstart.Decoder`."""

    def feed(self, events: Array, now_ns: int = 0) -> list[Start]: ...

    def close(self, now_ns: int) -> list[Start]: ...

    @property
    def under_way(self) -> bool: ...


@dataclass
class _Process:
    parent: int = 0
    name: str = ""
    executed: list[tuple[int, str]] = field(default_factory=list)
    ended_ns: int = 0


class Decoder:
    """As `coldstart.Decoder`, whose starts it extends by what was before them.

    ``seen`` are the stages of each tool whose functions are probed, ``refused`` says of tools why they are not;
    ``stages``, ``calls`` and ``labels`` are the probe's lists of them.
    """

    def __init__(
        self,
        starts: Starts,
        kinds: Kinds,
        seen: Mapping[str, Sequence[str]],
        refused: Mapping[str, str],
        stages: Sequence[str],
        calls: Sequence[str],
        labels: Sequence[str] = (),
    ) -> None:
        self._starts, self._kinds, self._seen, self._refused = starts, kinds, seen, refused
        self._words = dict(zip(("pull", "unpack", "snapshot", "sandbox", "create"), (*OF_TOOLS, CREATE), strict=True))
        self._words["chunked"] = UNPACK
        self._stages, self._calls = [self._words.get(stage, stage) for stage in stages], calls
        self._processes: dict[int, _Process] = {}
        self._steps: list[Step] = []
        self._taken: set[tuple[int, int]] = set()
        self._daemons = Daemons(seen, self._stages)
        self._pods = Pods(seen, self._stages, labels)

    def feed(self, events: Array, now_ns: int = 0) -> list[Start]:
        """As `coldstart.Decoder.feed`."""
        self._note(events)
        return [self._extended(start) for start in self._starts.feed(events, now_ns)]

    def close(self, now_ns: int) -> list[Start]:
        """As `coldstart.Decoder.close`."""
        return [self._extended(start) for start in self._starts.close(now_ns)]

    @property
    def under_way(self) -> bool:
        """As `coldstart.Decoder.under_way`."""
        return self._starts.under_way

    def _note(self, events: Array) -> None:
        mine = events[self._kinds.ours(events)]
        for kind, time_ns, _, _, of in self._kinds.each(mine[mine["time_ns"].argsort(kind="stable")]):
            if kind == "path":
                text = text_of(*(of[f"path{number}"] for number in range(4))).decode("utf-8", "replace")
                if self._steps:
                    last = self._steps[-1]
                    if "of_bytes" in last.of:
                        self._steps[-1] = last._replace(made_of=(last.made_of + text)[: last.of["of_bytes"]])
                    else:
                        self._steps[-1] = last._replace(path=(last.path + text)[: last.of.get("key_bytes") or None])
                continue
            if kind == "of":
                if self._steps:
                    self._steps[-1].of["of_bytes"] = of["key_bytes"]
                continue
            pid = of["process"]
            if kind == "forked":
                name = _name(of)
                self._processes[pid] = _Process(of["parent"], name)
                self._processes.setdefault(of["parent"], _Process(name=name))
            elif kind == "executed":
                process = self._processes.get(pid)
                if process is None or process.ended_ns:  # a tool that no other forked; its number may be had before
                    process = self._processes[pid] = _Process()
                process.name = _name(of)
                process.executed.append((time_ns, process.name))
            elif kind == "ended" and pid in self._processes:
                self._processes[pid].ended_ns = time_ns
            self._steps.append(Step(time_ns, kind, of, ""))
        if self._steps and self._steps[0].time_ns < self._steps[-1].time_ns - _KEPT_NS:
            since = self._steps[-1].time_ns - _KEPT_NS
            self._steps = [step for step in self._steps if step.time_ns >= since]
            gone = [pid for pid, process in self._processes.items() if 0 < process.ended_ns < since]
            for pid in gone:
                del self._processes[pid]

    def _chain(self, pid: int) -> list[int]:
        """The process and those it descends from, as far as they were seen; the first of them last."""
        chain = [pid]
        while (process := self._processes.get(chain[-1])) and process.parent and process.parent not in chain:
            chain.append(process.parent)
        return [each for each in chain if each in self._processes]

    def _extended(self, start: Start) -> Start:
        chain = self._chain(start.pid)
        # The client or the monitor that was asked is the first that executed something while we watched.
        roots = [pid for pid in chain if self._processes[pid].executed and _is_tool(self._processes[pid].executed[0][1])]
        if not roots or roots[-1] == start.pid:
            return dataclasses.replace(start, notes=(*start.notes, _NOBODY))
        root = roots[-1]
        tool, asked_ns = self._processes[root].executed[0][1], self._processes[root].executed[0][0]
        daemon = self._processes[root].parent
        identity = self._id(self._steps, chain)
        create = self._creation(daemon, asked_ns, start.exec_ns)
        pod = self._pods.of(self._steps, identity, start.exec_ns)
        if pod and 0 < pod.started_ns < self._ran_ns(chain):
            return dataclasses.replace(start, notes=(*start.notes, _RUNNING))
        done = pod.done if pod else self._daemons.of_dockerd(self._steps, identity, start.exec_ns)
        done = done or self._daemons.of_containerd(self._steps, daemon, create, identity, start.exec_ns)
        if done:
            tool, asked_ns = done.tool, done.asked_ns
        asked = (root, pod.begun_ns if pod else asked_ns)  # containers of one pod have its sandbox in common
        if asked in self._taken or asked_ns >= start.exec_ns:
            return start  # what a container's program starts later
        self._taken.add(asked)
        steps = [step for step in self._steps if asked_ns <= step.time_ns <= start.exec_ns]
        family = self._family(root)
        own = [call for call in called(steps, root, self._stages) if call.end_ns]
        intervals = [
            *(done.intervals if done else ()),
            *(interval_of(call) for call in own if call.stage in OF_TOOLS),
            *self._kernels(steps, family, chain, start.exec_ns),
        ]
        bases = [(asked_ns, tool), *self._bases([step for step in steps if step.of["process"] in family], root, chain)]
        if pod:
            bases, intervals = pod.bases(bases[1:]), pod.within(intervals)
        elif done and done.pulled_ns:
            bases += [(done.pulled_ns, _CLIENT), (done.snapshot_ns, tool)]
        if done and create and tool != "containerd":
            bases.append((create.begin_ns, "containerd"))
        pieces = partition(sorted(bases, key=lambda base: base[0]), intervals, asked_ns, start.exec_ns)
        known = done.known if done else tuple(self._known(tool))
        sized = [call.result for call in own if call.stage == UNPACK and call.result != _IN_VAIN]
        bytes_ = sum(sized) if UNPACK in known and all(size < 1 << 63 for size in sized) else None
        found = {piece.stage for piece in pieces}
        container = Container(
            id=self._id(steps, chain),
            tool=pod.tool if pod else tool,
            layers=done.layers if done else len(sized) if UNPACK in known else None,
            unpacked_bytes=done.unpacked_bytes if done else bytes_,
            absent=tuple(stage for stage in (*known, *OF_KERNEL) if stage not in found),
            unseen=tuple(Unseen(stage, self._why(tool, done, stage, pod)) for stage in OF_TOOLS if stage not in known),
            pod=pod.pod if pod else None,
        )
        rows = [
            Row(CONTAINER, each.stage, 1, each.begin_ns - start.exec_ns, each.end_ns - each.begin_ns, 0, 0, 0, 0, 0)
            for each in pieces
        ]
        if container.layers == 0:  # podman looks for an image in the function that pulls it
            rows = [dataclasses.replace(row, detail=NO_PULL) if row.name == PULL else row for row in rows]
        later = [row for row in start.rows if row.stage != BEFORE]
        return dataclasses.replace(start, rows=(added(rows, "", 0), *rows, *later), container=container)

    def _known(self, tool: str) -> list[str]:
        """The stages that were watched in that tool, if it does them by itself."""
        if tool in ("containerd", "dockerd"):
            return []
        return [stage for stage in OF_TOOLS if any(self._words.get(each) == stage for each in self._seen.get(tool, ()))]

    def _why(self, tool: str, done: OfDaemon | None, stage: str, pod: OfPod | None) -> str:
        if pod and (stage == SANDBOX or pod.pod is None):
            return _EARLIER
        if done and done.unseen and stage != SANDBOX:
            return done.unseen
        if done:
            return f"{tool} does that without naming a container, or another program does it"
        refused = self._refused.get("containerd" if tool.startswith("containerd") else tool, "")
        return refused or f"no function of {tool} is known for it"

    def _creation(self, daemon: int, executed_ns: int, exec_ns: int) -> Call | None:
        """The call of containerd within which it started the shim, if there is one."""
        if daemon not in self._processes or self._processes[daemon].name != "containerd":
            return None
        creates = [
            call
            for call in called(self._steps, daemon, self._stages)
            if call.stage == CREATE and call.begin_ns <= executed_ns <= (call.end_ns or exec_ns)
        ]
        return creates[0] if len(creates) == 1 else None

    def _ran_ns(self, chain: Sequence[int]) -> int:
        """When a runtime was executed last, of which the process descends."""
        return max((at for pid in chain for at, name in self._processes[pid].executed if name in _RUNTIMES), default=0)

    def _family(self, root: int) -> set[int]:
        found = {root}
        for pid in sorted(self._processes, key=lambda each: len(self._chain(each))):
            if self._processes[pid].parent in found:
                found.add(pid)
        return found

    def _kernels(self, steps: Sequence[Step], family: set[int], chain: Sequence[int], end_ns: int) -> Iterator[Interval]:
        """By system calls and control groups."""
        for step in steps:
            if step.kind == "called" and step.of["process"] in family:
                yield Interval(_CALLS[self._calls[step.of["call"]]], step.of["begin_ns"], step.time_ns)
        name = self._id(steps, chain)
        mine = [step for step in steps if name and name in step.path]
        made = [step.time_ns for step in mine if step.kind == "group_made" and step.of["process"] in family]
        joined = [step.time_ns for step in mine if step.kind == "group_joined" and step.of["process"] in chain]
        if joined:
            yield Interval(CGROUP, min([*made, *joined]), min(end_ns, max(joined)))

    def _id(self, steps: Sequence[Step], chain: Sequence[int]) -> str:
        """The container's, by the control group that its first process was put into last."""
        paths = [step.path for step in steps if step.kind == "group_joined" and step.of["process"] in chain]
        for path in reversed(paths):
            if match := _ID.search(path):
                return match[1]
        return paths[-1].rpartition("/")[2] if paths else ""

    def _bases(self, steps: Sequence[Step], root: int, chain: Sequence[int]) -> list[tuple[int, str]]:
        """From when on the time is whose, but for stages that lie over it: (time, name)."""
        own = self._processes[root].executed[0][1]
        found: list[tuple[int, str]] = []
        at_work = {}  # executed by a process that is not over
        for step in steps:
            pid = step.of["process"]
            if step.kind == "executed":
                name = _name(step.of)
                above = self._processes.get(self._processes[pid].parent, _Process())
                if pid in chain and _is_again(name) and any(each in _RUNTIMES for _, each in above.executed):
                    label = INIT
                elif _is_tool(name):
                    label = _RUNTIMES.get(name, name)
                elif pid in chain:
                    label = f"{name}, in the container"
                else:
                    continue
                at_work[pid] = label
                found.append((step.time_ns, label))
            elif step.kind == "ended" and pid in at_work:
                over = at_work.pop(pid)
                if over == "conmon" and pid in chain:
                    continue  # it goes on as its child
                if over == INIT:
                    continue  # so does it
                found.append((step.time_ns, own))
        return found


def _name(of: Mapping[str, int]) -> str:
    return text_of(of["name_low"], of["name_high"]).decode("utf-8", "replace")


def _is_tool(name: str) -> bool:
    return name in _TOOLS or name.startswith("containerd-shim")


def _is_again(name: str) -> bool:
    """Whether a runtime executed itself: by /proc/self/exe, or by the number of a descriptor of its copy."""
    return name == "exe" or name.isdigit() or name.startswith("runc")
