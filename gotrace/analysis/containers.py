"""What lies before the execve of a program in a container: from events of `coldstart_containers` to rows of its start.

A start is joined with the tool that was asked for it by their processes (who forked whom), with its container by the
control group that its process was put into, and with the stages by time. At each moment the innermost stage has the time:
the layers that a pull unpacks are in "unpack", not in "image pull". Where none is under way it belongs to the tool that
executes last of those that live. So the rows follow one another without a gap.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gotrace.analysis.columns import Array, Kinds, text_of
from gotrace.analysis.timeline import BEFORE, CONTAINER, Container, Row, Start, Unseen, added

PULL, UNPACK, SNAPSHOT, SANDBOX, CREATE = "image pull", "unpack", "snapshot", "sandbox (network)", "create"
CGROUP, NAMESPACES, MOUNTS, INIT = "cgroup", "namespaces", "mounts", "runtime (runc init)"
_RUNTIMES = {"runc": "runtime (runc)", "crun": "runtime (crun)"}
_TOOLS = ("podman", "conmon", "containerd", "ctr", "nerdctl", "docker", "dockerd", "kubelet", "crio", *_RUNTIMES)
_OF_TOOLS = (PULL, UNPACK, SNAPSHOT, SANDBOX)  # which the kernel does not show
_OF_KERNEL = (CGROUP, NAMESPACES, MOUNTS)
# The innermost last.
_DEPTH = {name: number for number, name in enumerate((PULL, SANDBOX, MOUNTS, NAMESPACES, SNAPSHOT, CGROUP, UNPACK))}
_CALLS = {
    **dict.fromkeys(("mount", "move_mount", "umount", "pivot_root"), MOUNTS),
    **dict.fromkeys(("unshare", "setns", "clone"), NAMESPACES),
}
# A container's name in the path of its control group: podman's, Docker's, containerd's for Kubernetes; else its last part.
_ID = re.compile(r"([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_KEPT_NS = 3600_000_000_000
# A snapshot that was made longer ago was not made for this start, and a layer longer before that not for this snapshot.
_SNAPSHOT_NS = 60_000_000_000
_NO_PULL = "no layer was missing"
_CLIENT = "between pull and creation"
_AMBIGUOUS = "layers of several images were unpacked at the same time"
_NOBODY = "No container tool was seen to be asked for it: it is told from execve on."


class Starts(Protocol):
    """What makes starts of events: `gotrace.analysis.coldstart.Decoder`."""

    def feed(self, events: Array, now_ns: int = 0) -> list[Start]: ...

    def close(self, now_ns: int) -> list[Start]: ...

    @property
    def under_way(self) -> bool: ...


class Interval(NamedTuple):
    """When a stage was under way."""

    stage: str
    begin_ns: int
    end_ns: int


@dataclass
class _Process:
    parent: int = 0
    name: str = ""
    executed: list[tuple[int, str]] = field(default_factory=list)
    ended_ns: int = 0


class Step(NamedTuple):
    """Something that a family did: ``kind`` as the probe has it, ``of`` its columns, ``path`` a name that followed."""

    time_ns: int
    kind: str
    of: dict[str, int]
    path: str
    made_of: str = ""


class Call(NamedTuple):
    """A function of a tool, from its begin to its end (0: it did not return); ``path`` is what it makes, of what."""

    stage: str
    begin_ns: int
    end_ns: int
    g: int
    path: str
    made_of: str
    result: int


@dataclass(frozen=True)
class _OfDaemon:
    """What a daemon did for a container; of which stages that is known, or why not."""

    tool: str
    asked_ns: int
    intervals: tuple[Interval, ...]
    known: tuple[str, ...]
    pulled_ns: int = 0  # when its last layer was there
    layers: int | None = None
    unpacked_bytes: int | None = None
    unseen: str = ""
    snapshot_ns: int = 0


class Decoder:
    """As `coldstart.Decoder`, whose starts it extends by what was before them.

    ``seen`` are the stages of each tool whose functions are probed, ``refused`` says of tools why they are not;
    ``stages`` and ``calls`` are the probe's lists of them.
    """

    def __init__(
        self,
        starts: Starts,
        kinds: Kinds,
        seen: Mapping[str, Sequence[str]],
        refused: Mapping[str, str],
        stages: Sequence[str],
        calls: Sequence[str],
    ) -> None:
        self._starts, self._kinds, self._seen, self._refused = starts, kinds, seen, refused
        self._words = dict(zip(("pull", "unpack", "snapshot", "sandbox", "create"), (*_OF_TOOLS, CREATE), strict=True))
        self._stages, self._calls = [self._words.get(stage, stage) for stage in stages], calls
        self._processes: dict[int, _Process] = {}
        self._steps: list[Step] = []
        self._taken: set[tuple[int, int]] = set()
        self._used: set[str] = set()  # layers that were unpacked for a start

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
        done = self._of_dockerd(identity, start.exec_ns) or self._of_containerd(daemon, create, identity, start.exec_ns)
        if done:
            tool, asked_ns = done.tool, done.asked_ns
        if (root, asked_ns) in self._taken or asked_ns >= start.exec_ns:
            return start  # what a container's program starts later
        self._taken.add((root, asked_ns))
        steps = [step for step in self._steps if asked_ns <= step.time_ns <= start.exec_ns]
        family = self._family(root)
        own = [call for call in self._called(steps, root) if call.end_ns]
        intervals = [
            *(done.intervals if done else ()),
            *(Interval(call.stage, call.begin_ns, call.end_ns) for call in own if call.stage in _OF_TOOLS),
            *self._kernels(steps, family, chain, start.exec_ns),
        ]
        bases = [(asked_ns, tool), *self._bases([step for step in steps if step.of["process"] in family], root, chain)]
        if done and done.pulled_ns:
            bases += [(done.pulled_ns, _CLIENT), (done.snapshot_ns, tool)]
        if done and create and tool != "containerd":
            bases.append((create.begin_ns, "containerd"))
        pieces = partition(sorted(bases, key=lambda base: base[0]), intervals, asked_ns, start.exec_ns)
        known = done.known if done else tuple(self._known(tool))
        sized = [call.result for call in own if call.stage == UNPACK]
        bytes_ = sum(sized) if UNPACK in known and all(size < 1 << 63 for size in sized) else None
        found = {piece.stage for piece in pieces}
        container = Container(
            id=self._id(steps, chain),
            tool=tool,
            layers=done.layers if done else len(sized) if UNPACK in known else None,
            unpacked_bytes=done.unpacked_bytes if done else bytes_,
            absent=tuple(stage for stage in (*known, *_OF_KERNEL) if stage not in found),
            unseen=tuple(Unseen(stage, self._why(tool, done, stage)) for stage in _OF_TOOLS if stage not in known),
        )
        rows = [
            Row(CONTAINER, each.stage, 1, each.begin_ns - start.exec_ns, each.end_ns - each.begin_ns, 0, 0, 0, 0, 0)
            for each in pieces
        ]
        if container.layers == 0:  # podman looks for an image in the function that pulls it
            rows = [dataclasses.replace(row, detail=_NO_PULL) if row.name == PULL else row for row in rows]
        later = [row for row in start.rows if row.stage != BEFORE]
        return dataclasses.replace(start, rows=(added(rows, "", 0), *rows, *later), container=container)

    def _known(self, tool: str) -> list[str]:
        """The stages that were watched in that tool, if it does them by itself."""
        if tool in ("containerd", "dockerd"):
            return []
        return [stage for stage in _OF_TOOLS if any(self._words.get(each) == stage for each in self._seen.get(tool, ()))]

    def _why(self, tool: str, done: _OfDaemon | None, stage: str) -> str:
        if done and done.unseen and stage != SANDBOX:
            return done.unseen
        if done:
            return f"{tool} does that by no name of a container, or another program does it"
        refused = self._refused.get("containerd" if tool.startswith("containerd") else tool, "")
        return refused or f"no function of {tool} is known for it"

    def _creation(self, daemon: int, executed_ns: int, exec_ns: int) -> Call | None:
        """The call of containerd within which it started the shim, if there is one."""
        if daemon not in self._processes or self._processes[daemon].name != "containerd":
            return None
        creates = [
            call
            for call in self._called(self._steps, daemon)
            if call.stage == CREATE and call.begin_ns <= executed_ns <= (call.end_ns or exec_ns)
        ]
        return creates[0] if len(creates) == 1 else None

    def _of_containerd(self, daemon: int, create: Call | None, name: str, exec_ns: int) -> _OfDaemon | None:
        """By the snapshot of the container's name, the layers below it, and the blobs that these were unpacked from."""
        if create is None:
            return None
        calls = self._called([step for step in self._steps if step.time_ns <= exec_ns], daemon)
        snapshot = _of_name(calls, name, exec_ns)
        if snapshot is None:
            return _OfDaemon("containerd", create.begin_ns, (), ())
        intervals, known, unseen = [_interval(snapshot)], [SNAPSHOT], ""
        layers = []
        if {"commit", "apply", "fetch", "store"} <= set(self._seen.get("containerd", ())):
            committed = {call.path: call for call in calls if call.stage == "commit" and call.end_ns}
            prepared = {call.path: call for call in calls if call.stage == SNAPSHOT and call.end_ns}
            until = {call.made_of: call.end_ns for call in committed.values()}
            windows = [(each.begin_ns, until.get(key, exec_ns)) for key, each in prepared.items() if "/extract-" in key]
            for commit in self._new_layers(snapshot, committed, lambda commit: prepared[commit.made_of].made_of):
                since = prepared[commit.made_of].begin_ns
                applied = [c for c in calls if c.stage == UNPACK and since <= c.begin_ns <= c.end_ns <= commit.begin_ns]
                if len(applied) != 1 or sum(a <= applied[0].begin_ns and applied[0].end_ns <= b for a, b in windows) != 1:
                    unseen = _AMBIGUOUS
                    continue
                layers.append(applied[0])
                intervals += [_interval(applied[0]), Interval(UNPACK, commit.begin_ns, commit.end_ns)]
                intervals += _pulled(calls, applied[0])
            if not unseen:
                known += [PULL, UNPACK]
        return _OfDaemon(
            *("containerd", min(create.begin_ns, *(each.begin_ns for each in intervals)), tuple(intervals), tuple(known)),
            pulled_ns=max((each.end_ns for each in intervals if each.stage != SNAPSHOT), default=0),
            layers=len(layers) if UNPACK in known else None,
            unseen=unseen,
            snapshot_ns=snapshot.begin_ns,
        )

    def _of_dockerd(self, name: str, exec_ns: int) -> _OfDaemon | None:
        """By the container's id, which it makes a layer of and starts; the layers below it; the pull that they came in."""
        steps = [step for step in self._steps if step.time_ns <= exec_ns]
        daemons = {step.of["process"] for step in steps if name and step.kind == "stage_begins" and step.path == name}
        for daemon in daemons:
            calls = self._called(steps, daemon)
            named = [call for call in calls if call.stage == "container" and call.path == name]
            creates = [c for c in calls if c.stage == CREATE and named and c.g == named[-1].g and not c.end_ns]
            if len(creates) != 1:
                continue
            seen = self._seen.get("dockerd", ())
            since = creates[0].begin_ns
            inner = [c for c in calls if c.stage == SANDBOX and c.g == creates[0].g and since <= c.begin_ns <= c.end_ns]
            intervals, known, unseen = [_interval(call) for call in inner], [], ""
            known += [SANDBOX] if "sandbox" in seen else []
            snapshot, layers = _of_name(calls, name, exec_ns), []
            if snapshot is not None:
                intervals.append(_interval(snapshot))
                known.append(SNAPSHOT)
                registered = {call.path: call for call in calls if call.stage == UNPACK and call.end_ns}
                for layer in self._new_layers(snapshot, registered, lambda layer: layer.made_of):
                    pulls = [
                        c for c in calls if c.stage == PULL and c.begin_ns <= layer.begin_ns and layer.end_ns <= c.end_ns
                    ]
                    layers.append(layer)
                    intervals += [_interval(layer), *map(_interval, pulls if len(pulls) == 1 else ())]
                    unseen = _AMBIGUOUS if len(pulls) > 1 else unseen
                known += [UNPACK] if "register" in seen else []
                known += [PULL] if "pull" in seen and not unseen else []
            of_image = [each.end_ns for each in intervals if each.stage in (PULL, UNPACK)]
            return _OfDaemon(
                *("dockerd", min(since, *(each.begin_ns for each in intervals), since), tuple(intervals), tuple(known)),
                pulled_ns=max(of_image, default=0),
                layers=len(layers) if UNPACK in known else None,
                unpacked_bytes=sum(layer.result for layer in layers) if UNPACK in known else None,
                unseen=unseen,
                snapshot_ns=snapshot.begin_ns if snapshot else since,
            )
        return None

    def _new_layers(self, snapshot: Call, layers: Mapping[str, Call], below: Callable[[Call], str]) -> Iterator[Call]:
        """Those that a snapshot is made on, the topmost first, as far as they were made shortly before and for it."""
        name = snapshot.made_of
        while name in layers and name not in self._used and snapshot.begin_ns - layers[name].end_ns < _SNAPSHOT_NS:
            self._used.add(name)
            yield layers[name]
            name = below(layers[name])

    def _family(self, root: int) -> set[int]:
        found = {root}
        for pid in sorted(self._processes, key=lambda each: len(self._chain(each))):
            if self._processes[pid].parent in found:
                found.add(pid)
        return found

    def _called(self, steps: Sequence[Step], process: int) -> list[Call]:
        """By functions of a tool: outermost calls of a goroutine, in the order of their ends; then those under way."""
        begun: dict[tuple[int, int], Step] = {}
        found = []
        for step in steps:
            if step.kind not in ("stage_begins", "stage_ends") or step.of["process"] != process:
                continue
            key = (step.of["stage"], step.of["g"])
            if step.kind == "stage_ends":
                if key in begun:
                    found.append(self._call(begun.pop(key), step))
            elif self._stages[step.of["stage"]] in ("fetch", "container"):
                found.append(self._call(step, step))
            else:
                begun.setdefault(key, step)  # twice where the stack grows
        return found + [self._call(step, None) for step in begun.values()]

    def _call(self, begin: Step, end: Step | None) -> Call:
        return Call(
            self._stages[begin.of["stage"]],
            begin.time_ns,
            end.time_ns if end else 0,
            begin.of["g"],
            begin.path or (end.made_of if end else ""),
            begin.made_of,
            end.of.get("result", 0) if end else 0,
        )

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


def _interval(call: Call) -> Interval:
    return Interval(call.stage, call.begin_ns, call.end_ns)


def _of_name(calls: Sequence[Call], name: str, exec_ns: int) -> Call | None:
    """The last snapshot that was made for a container of that name, and shortly before."""
    for call in reversed(calls):
        ours = call.stage == SNAPSHOT and call.path.rpartition("/")[2] == name != ""
        if ours and call.end_ns and exec_ns - call.begin_ns < _SNAPSHOT_NS:
            return call
    return None


def _pulled(calls: Sequence[Call], applied: Call) -> Iterator[Interval]:
    """When containerd received the blob that was unpacked then, if it did."""
    stored = [c for c in calls if c.stage == "store" and c.path == applied.path and 0 < c.end_ns <= applied.end_ns]
    begun = [c.begin_ns for c in calls if c.stage == "fetch" and stored and c.path.endswith(stored[-1].path)]
    if begun and min(begun) <= stored[-1].end_ns:
        yield Interval(PULL, min(begun), stored[-1].end_ns)


def partition(bases: Sequence[tuple[int, str]], over: Sequence[Interval], begin_ns: int, end_ns: int) -> list[Interval]:
    """[begin_ns, end_ns) cut into pieces, each of one stage, neighbours of different ones.

    The innermost interval of ``over`` has the time; where there is none, the last of ``bases`` that has begun.
    """
    edges = {begin_ns, end_ns, *(at for at, _ in bases)}
    edges |= {at for each in over for at in (each.begin_ns, each.end_ns)}
    cuts = sorted(at for at in edges if begin_ns <= at <= end_ns)
    pieces: list[Interval] = []
    for at, until in zip(cuts, cuts[1:], strict=False):
        there = [each.stage for each in over if each.begin_ns <= at and until <= each.end_ns]
        base = next((name for since, name in reversed(bases) if since <= at), "")
        stage = max(there, key=_DEPTH.__getitem__) if there else base
        if pieces and pieces[-1].stage == stage:
            pieces[-1] = pieces[-1]._replace(end_ns=until)
        else:
            pieces.append(Interval(stage, at, until))
    return pieces


def _name(of: Mapping[str, int]) -> str:
    return text_of(of["name_low"], of["name_high"]).decode("utf-8", "replace")


def _is_tool(name: str) -> bool:
    return name in _TOOLS or name.startswith("containerd-shim")


def _is_again(name: str) -> bool:
    """Whether a runtime executed itself: by /proc/self/exe, or by the number of a descriptor of its copy."""
    return name == "exe" or name.isdigit() or name.startswith("runc")
