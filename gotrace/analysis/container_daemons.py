"""What containerd and Docker's daemon did for a container before it was started, by their own functions and names.

They pull for a client, before they are asked for the container. The container's snapshot names the layer below it, that
one the next, and each names what it was unpacked from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gotrace.analysis.container_stages import CREATE, PULL, SANDBOX, SNAPSHOT, UNPACK, Interval

# A snapshot that was made longer ago was not made for this start, and a layer longer before that not for this snapshot.
_SNAPSHOT_NS = 60_000_000_000
_AMBIGUOUS = "several layers were unpacked at the same time"
_PULLS = "several images were pulled at the same time"


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
class OfDaemon:
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


class Daemons:
    """``seen`` are the stages of each tool whose functions are probed, ``stages`` the probe's list of them."""

    def __init__(self, seen: Mapping[str, Sequence[str]], stages: Sequence[str]) -> None:
        self._seen, self._stages = seen, stages
        self._used: set[str] = set()  # layers that were unpacked for a start

    def of_containerd(
        self, steps: Sequence[Step], daemon: int, create: Call | None, name: str, exec_ns: int
    ) -> OfDaemon | None:
        """By the snapshot of the container's name, the layers below it, and the blobs that these were unpacked from."""
        if create is None:
            return None
        calls = called([step for step in steps if step.time_ns <= exec_ns], daemon, self._stages)
        snapshot = _of_name(calls, name, exec_ns)
        if snapshot is None:
            return OfDaemon("containerd", create.begin_ns, (), ())
        intervals, known, unseen = [interval_of(snapshot)], [SNAPSHOT], ""
        layers = []
        if {"commit", "apply", "fetch", "store"} <= set(self._seen.get("containerd", ())):
            committed = {call.path: call for call in calls if call.stage == "commit" and call.end_ns}
            prepared = {call.path: call for call in calls if call.stage == SNAPSHOT and call.end_ns}
            until = {call.made_of: call.end_ns for call in committed.values()}
            extracted = [each for key, each in prepared.items() if "/extract-" in key]
            windows = [(each.begin_ns, until.get(each.path, exec_ns)) for each in extracted]
            on_nothing = [window for window, each in zip(windows, extracted, strict=True) if not each.made_of]
            for commit in self._new_layers(snapshot, committed, lambda commit: prepared[commit.made_of].made_of):
                since, parent = prepared[commit.made_of].begin_ns, prepared[commit.made_of].made_of
                # From 2.2 on, containerd may prepare all layers of an image on nothing, and commit them onto one another.
                placed = parent or sum(a < commit.end_ns and since < b for a, b in on_nothing) == 1
                applied = [c for c in calls if c.stage == UNPACK and since <= c.begin_ns <= c.end_ns <= commit.begin_ns]
                inside = [applied[0].begin_ns >= a and applied[0].end_ns <= b for a, b in windows if applied]
                if not placed or len(applied) != 1 or sum(inside) != 1:
                    unseen = _AMBIGUOUS
                    continue
                layers.append(applied[0])
                intervals += [interval_of(applied[0]), Interval(UNPACK, commit.begin_ns, commit.end_ns)]
                intervals += _pulled(calls, applied[0])
            if not unseen:
                known += [PULL, UNPACK]
        return OfDaemon(
            *("containerd", min(create.begin_ns, *(each.begin_ns for each in intervals)), tuple(intervals), tuple(known)),
            pulled_ns=max((each.end_ns for each in intervals if each.stage != SNAPSHOT), default=0),
            layers=len(layers) if UNPACK in known else None,
            unseen=unseen,
            snapshot_ns=snapshot.begin_ns,
        )

    def of_dockerd(self, steps: Sequence[Step], name: str, exec_ns: int) -> OfDaemon | None:
        """By the container's id, which it makes a layer of and starts; the layers below it; the pull that they came in."""
        steps = [step for step in steps if step.time_ns <= exec_ns]
        daemons = {step.of["process"] for step in steps if name and step.kind == "stage_begins" and step.path == name}
        for daemon in daemons:
            calls = called(steps, daemon, self._stages)
            named = [call for call in calls if call.stage == "container" and call.path == name]
            creates = [c for c in calls if c.stage == CREATE and named and c.g == named[-1].g and not c.end_ns]
            if len(creates) != 1:
                continue
            seen = self._seen.get("dockerd", ())
            since = creates[0].begin_ns
            inner = [c for c in calls if c.stage == SANDBOX and c.g == creates[0].g and since <= c.begin_ns <= c.end_ns]
            intervals, known, unseen = [interval_of(call) for call in inner], [], ""
            known += [SANDBOX] if "sandbox" in seen else []
            snapshot, layers = _of_name(calls, name, exec_ns), []
            if snapshot is not None:
                intervals.append(interval_of(snapshot))
                known.append(SNAPSHOT)
                registered = {call.path: call for call in calls if call.stage == UNPACK and call.end_ns}
                for layer in self._new_layers(snapshot, registered, lambda layer: layer.made_of):
                    pulls = [
                        c for c in calls if c.stage == PULL and c.begin_ns <= layer.begin_ns and layer.end_ns <= c.end_ns
                    ]
                    layers.append(layer)
                    intervals += [interval_of(layer), *map(interval_of, pulls if len(pulls) == 1 else ())]
                    unseen = _PULLS if len(pulls) > 1 else unseen
                known += [UNPACK] if "register" in seen else []
                known += [PULL] if "pull" in seen and not unseen else []
            of_image = [each.end_ns for each in intervals if each.stage in (PULL, UNPACK)]
            return OfDaemon(
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


def called(steps: Sequence[Step], process: int, stages: Sequence[str]) -> list[Call]:
    """What a tool did, by its functions that are probed; ``stages`` are their names, by number.

    Outermost calls of a goroutine in the order of their ends, then those under way.
    """
    begun: dict[tuple[int, int], Step] = {}
    found = []
    for step in steps:
        if step.kind not in ("stage_begins", "stage_ends") or step.of["process"] != process:
            continue
        key = (step.of["stage"], step.of["g"])
        if step.kind == "stage_ends":
            if key in begun:
                found.append(_call(begun.pop(key), step, stages))
        elif stages[step.of["stage"]] in ("fetch", "container", "pod_seen"):
            found.append(_call(step, step, stages))
        else:
            begun.setdefault(key, step)  # twice where the stack grows
    return found + [_call(step, None, stages) for step in begun.values()]


def _call(begin: Step, end: Step | None, stages: Sequence[str]) -> Call:
    return Call(
        stages[begin.of["stage"]],
        begin.time_ns,
        end.time_ns if end else 0,
        begin.of["g"],
        begin.path or (end.made_of if end else ""),
        begin.made_of,
        end.of.get("result", 0) if end else 0,
    )


def interval_of(call: Call) -> Interval:
    """When it was under way."""
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
