"""What lies before a start in a container, from events that nobody sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.elfwriter import Func, go_file

from gotrace.analysis.columns import Kinds
from gotrace.analysis.container_stages import Interval, partition
from gotrace.analysis.containers import Decoder
from gotrace.analysis.hot_zones import zones
from gotrace.analysis.start_summary import summary
from gotrace.analysis.timeline import BEFORE, EXEC, Row, Start
from gotrace.binary.elf import Elf
from gotrace.binary.program import Program
from gotrace.cli.text.coldstart import one_start
from gotrace.cli.text.layout import Rows
from gotrace.kernel.container_tools import version_refusal
from gotrace.kernel.ring import wire_dtype
from gotrace.probes.coldstart_containers import CALLS, CRI, LABELS, POD, PROBE, STAGES, TOOLS, plan

KINDS = {kind.name: kind for kind in PROBE.kinds}
ID, OTHER = "ab" * 32, "cd" * 32
SEEN = {"podman": ["pull", "unpack", "snapshot", "sandbox"]}


def words(text, count):
    padded = text.encode().ljust(8 * count, b"\0")
    return [int.from_bytes(padded[at : at + 8], "little") for at in range(0, 8 * count, 8)]


class Events:
    """Builds events of container tools; times in ns."""

    def __init__(self):
        self.rows = []

    def add(self, kind, at, *columns, tid=1):
        self.rows.append((at, tid, KINDS[kind].number, *columns, *[0] * (5 - len(columns))))

    def forked(self, at, child, parent, name):
        self.add("forked", at, child, parent, *words(name, 2))

    def executed(self, at, pid, name):
        self.add("executed", at, pid, *words(name, 2))

    def stage(self, begin, end, pid, name, result=0, g=9):
        self.add("stage_begins", begin, pid, STAGES.index(name), g)
        self.add("stage_ends", end, pid, STAGES.index(name), g, result)

    def called(self, begin, end, pid, name):
        self.add("called", end, pid, CALLS.index(name), begin)

    def group(self, kind, at, pid, path):
        self.add(kind, at, pid)
        for part, begin in enumerate(range(0, len(path), 31)):
            self.add("path", at, part, *words(path[begin : begin + 31], 4))

    def array(self):
        found = np.zeros(len(self.rows), wire_dtype())
        for number, (at, tid, kind, *columns) in enumerate(self.rows):
            found[number]["time_ns"], found[number]["tid"], found[number]["kind"] = at, tid, kind
            for letter, value in zip("abcde", columns, strict=True):
                found[number][letter] = value
        return found

    def podman(self, base, pid, identity, own=True):
        """A run as podman 4.3 and runc make it: ``pid`` and the numbers behind it, the program at 1000."""
        conmon, monitor, runc, init, child = range(pid + 1, pid + 6)
        self.executed(base, pid, "podman")
        if own:
            self.stage(base + 100, base + 400, pid, "pull", g=7)
            self.stage(base + 250, base + 350, pid, "unpack", result=5000)
            self.stage(base + 410, base + 450, pid, "snapshot")
        self.called(base + 420, base + 430, pid, "mount")  # of the snapshot
        self.forked(base + 500, conmon, pid, "podman")
        self.executed(base + 510, conmon, "conmon")
        self.forked(base + 520, monitor, conmon, "conmon")
        self.add("ended", base + 525, conmon)
        self.forked(base + 530, runc, monitor, "conmon")
        self.executed(base + 540, runc, "runc")
        self.group("group_made", base + 550, runc, f"/libpod_parent/libpod-{identity}")
        self.forked(base + 560, init, runc, "runc")
        self.executed(base + 570, init, "exe")
        self.group("group_joined", base + 580, init, f"/libpod_parent/libpod-{identity}")
        self.forked(base + 600, child, init, "runc:[0:PARENT]")
        self.called(base + 610, base + 640, child, "unshare")
        self.add("ended", base + 700, runc)
        self.forked(base + 800, pid + 7, pid, "podman")
        self.executed(base + 810, pid + 7, "runc")
        return child


class Given:
    """Starts that are over when they are asked for."""

    def __init__(self, *starts):
        self.starts = list(starts)

    def feed(self, events, now_ns=0):
        return []

    def close(self, now_ns):
        return self.starts


def start_at(pid, at):
    rows = (Row(BEFORE, "", 0, -5, 5, 0, 0, 0, 0, 0), Row(EXEC, "", 0, 0, 50, 0, 0, 0, 0, 0))
    return Start(pid, at, 50, "listen", rows)


def decoded(events, *starts, seen=SEEN, refused=()):
    decoder = Decoder(Given(*starts), Kinds(PROBE.header_kinds()), seen, dict(refused), STAGES, CALLS, LABELS)
    assert decoder.feed(events.array()) == []
    return decoder.close(0)


def stages(start):
    return [(row.name, row.begin_ns, row.duration_ns) for row in start.rows if row.stage == "container" and row.depth]


RAN = [
    *(("podman", -1000, 100), ("image pull", -900, 150), ("unpack", -750, 100), ("image pull", -650, 50)),
    *(("podman", -600, 10), ("snapshot", -590, 40), ("podman", -550, 60), ("conmon", -490, 30)),
    *(("runtime (runc)", -460, 10), ("cgroup", -450, 30), ("runtime (runc init)", -420, 30), ("namespaces", -390, 30)),
    *(("runtime (runc init)", -360, 60), ("podman", -300, 110), ("runtime (runc)", -190, 190)),
]


def test_two_at_once_are_told_apart():
    events = Events()
    children = [events.podman(0, 100, ID), events.podman(3, 200, OTHER)]
    found = decoded(events, start_at(children[0], 1000), start_at(children[1], 1003))
    for start, identity in zip(found, (ID, OTHER), strict=True):
        assert stages(start) == RAN
        assert start.asked_ns == 1000 and start.whole_ns == 1050 and start.total_ns == 50
        assert [row.stage for row in start.rows if row.depth == 0] == ["container", EXEC]
        container = start.container
        assert (container.id, container.tool, container.layers, container.unpacked_bytes) == (identity, "podman", 1, 5000)
        assert container.absent == ("sandbox (network)", "mounts") and container.unseen == ()


def test_of_a_container_the_first_program_alone():
    events = Events()
    child = events.podman(0, 100, ID)
    later, outside = start_at(child, 90_000), start_at(7, 1000)
    first, *others = decoded(events, start_at(child, 1000), later, outside)
    assert first.container is not None and others[0] == later
    assert others[1].rows == outside.rows and others[1].notes[0].startswith("No request to a container tool was seen")


def test_a_number_that_was_somebody_elses_is_forgotten():
    events = Events()
    events.forked(0, 100, 50, "containerd")
    events.executed(5, 100, "runc")
    events.add("ended", 10, 100)
    child = events.podman(1000, 100, ID)
    (start,) = decoded(events, start_at(child, 2000))
    assert start.container.tool == "podman" and stages(start) == RAN


def test_what_is_not_watched_is_unknown():
    events = Events()
    child = events.podman(0, 100, ID, own=False)
    (start,) = decoded(events, start_at(child, 1000), seen={"podman": []}, refused={"podman": "5.0 \x1b[1m"})
    unseen = ["image pull", "unpack", "snapshot", "sandbox (network)"]
    assert [each.stage for each in start.container.unseen] == unseen
    assert ("podman", -1000, 420) in stages(start) and "mounts" not in start.container.absent
    assert start.container.layers is None and start.container.unpacked_bytes is None
    lines = list(one_start(start, False, False))
    (table,) = (line for line in lines if isinstance(line, Rows))
    (unpack,) = (row for row in table.rows if row[0] == "  unpack")
    assert set(unpack[1:-2]) == {"?"}
    assert not any("\x1b" in line for line in lines if isinstance(line, str))


def test_a_layer_that_cannot_be_had_in_parts_is_unpacked_once():
    """podman tries the one and does the other: both take time, and it is one layer."""
    events = Events()
    child = events.podman(0, 100, ID)
    events.stage(150, 200, 100, "chunked", result=1 << 63)
    (start,) = decoded(events, start_at(child, 1000))
    assert ("unpack", -850, 50) in stages(start) and ("unpack", -750, 100) in stages(start)
    assert (start.container.layers, start.container.unpacked_bytes) == (1, 5000)
    events.stage(210, 220, 100, "chunked", result=(1 << 64) - 1)
    (start,) = decoded(events, start_at(child, 1000))
    assert (start.container.layers, start.container.unpacked_bytes) == (2, None)


def test_an_image_that_was_there_is_marked():
    events = Events()
    child = events.podman(0, 100, ID, own=False)
    events.stage(100, 400, 100, "pull")
    events.called(200, 210, 100, "mount")
    (start,) = decoded(events, start_at(child, 1000))
    assert [name for name, *_ in stages(start)][1:4] == ["image pull", "mounts", "image pull"]
    (table,) = (line for line in one_start(start, False, False) if isinstance(line, Rows))
    (pull,) = (row for row in table.rows if row[0] == "  image pull")
    assert pull[2] == "290 ns" and pull[-1] == "no layer was missing"
    found = {zone.name: zone.advice for zone in zones([start], summary([start]))}
    assert found["image pull"] == "no layer was missing"


def test_hot_zones_and_what_would_change_them():
    events = Events()
    children = [events.podman(2000 * number, 100 * number, ID) for number in (1, 2, 3)]
    starts = decoded(events, *(start_at(pid, 2000 * number + 1000) for number, pid in enumerate(children, 1)))
    found = {zone.name: zone for zone in zones(starts, summary(starts))}
    assert list(found)[0] == "podman" and found["podman"].median == 280
    pull = found["image pull"]
    assert (pull.count, pull.median, pull.low, pull.high) == (3, 200, 200, 200)
    assert pull.share == pytest.approx(200 / 1050)
    assert pull.advice == "pull it ahead of time, or make its layers smaller: 1 layer, 4.88 KiB unpacked"
    assert found["snapshot"].advice == "" and found["exec"].median == 50
    assert sum(zone.median for zone in found.values()) == 1050


NAMES = st.sampled_from(["image pull", "unpack", "mounts", "cgroup"])
SPANS = st.tuples(NAMES, st.integers(0, 100), st.integers(0, 100)).map(lambda of: Interval(of[0], *sorted(of[1:])))


@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from("ab"))), st.lists(SPANS, max_size=12))
def test_pieces_are_contiguous_and_innermost(bases, over):
    bases = [(0, "root"), *sorted(bases, key=lambda base: base[0])]
    pieces = partition(bases, over, 10, 90)
    assert pieces[0].begin_ns == 10 and pieces[-1].end_ns == 90
    for one, two in zip(pieces, pieces[1:], strict=False):
        assert one.end_ns == two.begin_ns and one.stage != two.stage
    order = ["image pull", "mounts", "cgroup", "unpack"]
    for at in range(10, 90):
        (mine,) = (piece.stage for piece in pieces if piece.begin_ns <= at < piece.end_ns)
        there = [each.stage for each in over if each.begin_ns <= at < each.end_ns]
        expected = max(there, key=order.index) if there else [name for since, name in bases if since <= at][-1]
        assert mine == expected


def test_versions():
    for version in ("4.3.1", "5.4.2", "5.7.1", "5.8.6"):
        assert version_refusal("podman", version) == ""
    for name, version in (
        ("kubelet", "1.30.14"),
        ("kubelet", "1.36.2"),
        ("containerd", "1.7.24"),
        ("containerd", "2.1.9"),
        ("containerd", "2.3.0"),
        ("dockerd", "20.10.24"),
        ("dockerd", "28.2.0"),
        ("dockerd", "28.5.2"),
        ("dockerd", "27.3.1"),
        ("dockerd", "29.5.0"),
        ("dockerd", "29.7.2"),
    ):
        assert version_refusal(name, version) == ""
    for name, version in (
        ("podman", "4.30.1"),
        ("podman", "5.2.0"),
        ("containerd", "2.4.0"),
        ("dockerd", "26.0.0"),
        ("dockerd", "28.1.1"),
        ("dockerd", "29.4.3"),
    ):
        assert version_refusal(name, version).startswith(f"{name} is {version}, and its functions")
    known = "1.28.x, 1.29.x, 1.30.x, 1.31.x, 1.32.x, 1.33.x, 1.34.x and 1.36.x"
    assert version_refusal("kubelet", "1.25.10") == f"kubelet is 1.25.10, and its functions are known only for {known}"


@pytest.mark.parametrize(("size", "programs"), [(8, ["pod_seen_begins"]), (32, ["pod_seen_logged_begins"]), (16, [])])
def test_where_the_pod_is_the_size_of_the_arguments_tells(size, programs):
    ((name,),) = TOOLS["kubelet"]["pod_seen"]
    host = Program(Elf.from_bytes(go_file().data))
    host.libraries["/usr/bin/kubelet"] = Elf.from_bytes(go_file(funcs=(Func(name, argument_bytes=size),)).data)
    found = plan(host)
    assert [point.program for point in found.points] == programs
    refused = {missing.name: missing.reason for missing in found.missing}.get("kubelet: pod_seen", "")
    assert (f"{size} bytes" in refused) == (not programs)


@pytest.mark.parametrize(("tool", "state"), [("containerd", 8), ("kubelet", 0)])
def test_only_containerds_own_messages_tell_how_they_begin(tool, state):
    host = Program(Elf.from_bytes(go_file().data))
    reflect = Func("k8s.io/cri-api/pkg/apis/runtime/v1.(*RunPodSandboxRequest).ProtoReflect")
    host.libraries[f"/usr/bin/{tool}"] = Elf.from_bytes(go_file(funcs=(reflect,)).data)
    assert plan(host).config.get("message_state", 0) == state


DAEMONS = {
    "containerd": ["prepare", "commit", "apply", "fetch", "store", "create", "sandbox", *CRI],
    "dockerd": ["pull", "register", "rwlayer", "sandbox", "create", "container"],
}
BLOB, OTHER_BLOB = f"sha256:{ID}", f"sha256:{OTHER}"


class Daemons(Events):
    """Calls of functions that are told names."""

    def named(self, begin, end, pid, stage, path="", made_of="", g=5, becomes="", result=0):
        self.add("stage_begins", begin, pid, STAGES.index(stage), g, len(path))
        self._name(begin, path, made_of)
        if end:
            self.add("stage_ends", end, pid, STAGES.index(stage), g, result)
            self._name(end, "", becomes)

    def _name(self, at, path, made_of):
        for text in (path, made_of):
            if text is made_of and text:
                self.add("of", at, 0, len(text))
            for part, begin in enumerate(range(0, len(text), 32)):
                self.add("path", at, part, *words(text[begin : begin + 32], 4))

    def layer(self, begin, number, blob, parent=""):
        """As containerd 1.7 unpacks one for a client: fetched for 100, then unpacked for 60 and committed for 10."""
        self.named(begin, 0, 50, "fetch", f"ns/{number}/layer-{blob}", g=number)
        self.named(begin + 90, begin + 100, 50, "store", blob, g=number)
        self.named(begin + 100, begin + 110, 50, "snapshot", f"ns/{number}/extract-7-x {blob}", parent, g=number)
        self.named(begin + 120, begin + 180, 50, "unpack", blob, g=number)
        self.named(
            begin + 180, begin + 190, 50, "commit", f"ns/{number}/layer", f"ns/{number}/extract-7-x {blob}", g=number
        )

    def started(self, base, identity, path="/ns/{}"):
        """By containerd, 50, from the shim on; the program at ``base`` + 500."""
        self.forked(base, 60, 50, "containerd")
        self.executed(base + 10, 60, "containerd-shim")
        self.forked(base + 20, 61, 60, "containerd-shim")
        self.executed(base + 30, 61, "runc")
        self.group("group_joined", base + 40, 61, path.format(identity))
        return 61


def test_the_layers_under_a_snapshot_are_its_containers():
    events = Daemons()
    events.layer(0, 1, BLOB)
    events.layer(200, 2, OTHER_BLOB, "ns/1/layer")
    events.layer(500, 3, f"sha256:{'ef' * 32}")  # of another image
    events.named(1000, 1050, 50, "snapshot", "ns/9/one", "ns/2/layer")
    events.named(1090, 1700, 50, "create")
    pid = events.started(1100, "one")
    (start,) = decoded(events, start_at(pid, 1600), seen=DAEMONS)
    found = start.container
    assert (found.tool, found.id, found.layers, [each.stage for each in found.unseen]) == (
        *("containerd", "one", 2),
        ["sandbox (network)"],
    )
    before = [(name, begin + 1600, took) for name, begin, took in stages(start)][:10]
    assert before == [
        *(("image pull", 0, 100), ("containerd", 100, 20), ("unpack", 120, 70), ("containerd", 190, 10)),
        *(("image pull", 200, 100), ("containerd", 300, 20), ("unpack", 320, 70), ("between pull and creation", 390, 610)),
        *(("snapshot", 1000, 50), ("containerd", 1050, 60)),
    ]


def test_which_of_two_images_was_unpacked_is_unknown():
    """containerd is told what to unpack by the client, with no name of the layer that it makes."""
    events = Daemons()
    events.layer(0, 1, BLOB)
    events.named(105, 112, 50, "snapshot", f"ns/2/extract-8-y {OTHER_BLOB}", g=8)
    events.named(1000, 1050, 50, "snapshot", "ns/9/one", "ns/1/layer")
    events.named(1090, 1700, 50, "create")
    (start,) = decoded(events, start_at(events.started(1100, "one"), 1600), seen=DAEMONS)
    assert start.container.layers is None and stages(start)[0][0] == "snapshot"
    reasons = {each.stage: each.reason for each in start.container.unseen}
    assert reasons["unpack"] == reasons["image pull"] == "several layers were unpacked at the same time"


def test_layers_that_were_unpacked_in_parallel_are_not_counted():
    """Each is prepared on nothing, and which it is committed onto is not told."""
    events = Daemons()
    events.named(100, 110, 50, "snapshot", "ns/1/extract-7-x")
    events.named(120, 130, 50, "unpack", BLOB, g=6)
    events.named(140, 150, 50, "snapshot", "ns/2/extract-8-y")
    events.named(160, 170, 50, "unpack", OTHER_BLOB, g=7)
    events.named(180, 190, 50, "commit", "ns/3/lower", "ns/1/extract-7-x")
    events.named(200, 210, 50, "commit", "ns/4/upper", "ns/2/extract-8-y")
    events.named(1000, 1050, 50, "snapshot", "ns/9/one", "ns/4/upper")
    events.named(1090, 1700, 50, "create")
    (start,) = decoded(events, start_at(events.started(1100, "one"), 1600), seen=DAEMONS)
    reasons = {each.stage: each.reason for each in start.container.unseen}
    assert start.container.layers is None and reasons["unpack"] == "several layers were unpacked at the same time"


def test_dockers_containers_by_their_ids():
    events = Daemons()
    events.named(0, 300, 40, "pull", g=1)
    events.named(150, 200, 40, "unpack", g=2, becomes="sha256:1", result=70)
    events.named(210, 260, 40, "unpack", made_of="sha256:1", g=2, becomes="sha256:2", result=7)
    events.named(400, 450, 40, "snapshot", ID, "sha256:2", g=3)
    events.named(500, 0, 40, "create", g=4)
    events.named(510, 550, 40, "sandbox", g=4)
    events.named(600, 0, 40, "container", ID, g=4)
    events.named(700, 1400, 50, "create")
    (start,) = decoded(events, start_at(events.started(1100, ID, "/docker/{}"), 1600), seen=DAEMONS)
    found = start.container
    assert (found.tool, found.id, found.layers, found.unpacked_bytes, found.unseen) == ("dockerd", ID, 2, 77, ())
    assert [(name, begin + 1600, took) for name, begin, took in stages(start)][:11] == [
        *(
            ("image pull", 0, 150),
            ("unpack", 150, 50),
            ("image pull", 200, 10),
            ("unpack", 210, 50),
            ("image pull", 260, 40),
        ),
        *(("between pull and creation", 300, 100), ("snapshot", 400, 50), ("dockerd", 450, 60)),
        *(("sandbox (network)", 510, 40), ("dockerd", 550, 150), ("containerd", 700, 410)),
    ]


class Pods(Daemons):
    """Calls of CRI, of containerd, 50; each is served by a goroutine of its own."""

    def asked(self, begin, end, stage, about="", becomes="", attempt=0, **labels):
        g = self.g = getattr(self, "g", 100) + 1
        self.add("stage_begins", begin, 50, STAGES.index(stage), g, len(about) if stage == "start_container" else 0)
        self._name(begin, *((about, "") if stage == "start_container" else ("", about)))
        for label, text in labels.items():
            self.add("label", begin, 50, LABELS.index(label), len(text), attempt)
            self._name(begin, text, "")
        if end:
            self.add("stage_ends", end, 50, STAGES.index(stage), g, 1)
            self._name(end, "", becomes)
        return g

    def sandbox(self, base, number):
        """With a network, from base to base + 100; its shim is 1000 * number."""
        of_pod = {"pod": f"p{number}", "namespace": "n", "uid": f"u{number}"}
        g = self.asked(base, base + 100, "run_sandbox", becomes=f"s{number}", **of_pod)
        self.named(base + 10, base + 40, 50, "sandbox", g=g)
        self.named(base + 45, base + 95, 50, "create")
        self.forked(base + 50, 1000 * number, 50, "containerd")
        self.executed(base + 55, 1000 * number, "containerd-shim")
        return of_pod

    def container(self, base, number, identity, of_pod, name="app", attempt=0, child=1):
        """Made from base to base + 30, started from base + 40 on, its program at base + 80."""
        of_it = {**of_pod, "container": name, "attempt": attempt}
        self.asked(base, base + 30, "create_container", f"s{number}", identity, **of_it)
        self.named(base + 5, base + 15, 50, "snapshot", f"k8s.io/9/{identity}", "ns/1/layer", g=number)
        self.asked(base + 40, base + 90, "start_container", identity)
        runc = 1000 * number + 10 * child
        self.forked(base + 50, runc, 1000 * number, "containerd-shim")
        self.executed(base + 55, runc, "runc")
        self.forked(base + 60, runc + 1, runc, "runc")
        self.group("group_joined", base + 65, runc + 1, f"/kubepods/pod{number}/{identity}")
        return start_at(runc + 1, base + 80)


SANDBOX = [("RunPodSandbox", 0, 10), ("sandbox (network)", 10, 30), ("RunPodSandbox", 40, 15), ("containerd-shim", 55, 45)]
ONE = [("CreateContainer", 0, 5), ("snapshot", 5, 10), ("CreateContainer", 15, 15), ("between CRI calls", 30, 10)]
ONE += [("StartContainer", 40, 15), ("runtime (runc)", 55, 25)]


def moved(rows, by):
    return [(name, begin + by, took) for name, begin, took in rows]


def test_pods_that_are_made_at_once():
    events = Pods()
    first, second = events.sandbox(0, 1), events.sandbox(3, 2)
    events.asked(150, 180, "pull_image", becomes="x", **second)
    starts = [events.container(200, 1, ID, first), events.container(203, 2, OTHER, second)]
    starts.append(events.container(400, 1, "ef" * 32, first, name="side", child=2))
    one, two, side = decoded(events, *starts, seen=DAEMONS)
    gap = [("between CRI calls", 100, 100)]
    assert moved(stages(one), 280) == [*SANDBOX, *gap, *moved(ONE, 200)]
    pulled = [("between CRI calls", 103, 47), ("PullImage", 150, 30), ("between CRI calls", 180, 23)]
    assert moved(stages(two), 283) == [*moved(SANDBOX, 3), *pulled, *moved(ONE, 203)]
    others = [("other containers of the pod", 200, 30), ("between CRI calls", 230, 10)]
    others += [("other containers of the pod", 240, 50), ("between CRI calls", 290, 110)]
    assert moved(stages(side), 480) == [*SANDBOX, *gap, *others, *moved(ONE, 400)]
    (network,) = (zone for zone in zones([one], summary([one])) if zone.name == "sandbox (network)")
    assert network.median == 30 and network.advice.startswith("CNI plugins set up the pod's network")
    pods = [start.container.pod for start in (one, two, side)]
    assert [(pod.namespace, pod.name, pod.uid, pod.container) for pod in pods] == [
        *(("n", "p1", "u1", "app"), ("n", "p2", "u2", "app"), ("n", "p1", "u1", "side"))
    ]
    assert all(start.container.unseen == () and start.container.layers == 0 for start in (one, two, side))


def test_a_container_that_is_restarted():
    """Its pod's sandbox and its first life are no part of it."""
    events = Pods()
    pod = events.sandbox(0, 1)
    first = events.container(200, 1, ID, pod)
    events.asked(500, 520, "pull_image", becomes="x", **pod)
    again = events.container(600, 1, OTHER, pod, attempt=3, child=2)
    _, start = decoded(events, first, again, seen=DAEMONS)
    before = [("PullImage", 500, 20), ("between CRI calls", 520, 80)]
    assert moved(stages(start), 680) == [*before, *moved(ONE, 600)]
    assert "sandbox (network)" in start.container.absent and start.container.unseen == ()
    (told,) = (line for line in one_start(start, False, False) if isinstance(line, str) and line.startswith("Container"))
    assert told.startswith(
        "Container cdcdcdcdcdcd, app of pod n/p1 (u1), started again (3): containerd received the request"
    )


def test_a_pod_that_was_there_before_tracing_began():
    events = Pods()
    start = events.container(200, 1, ID, {"pod": "p\x1b[1m", "namespace": "n", "uid": "u"})
    (found,) = decoded(events, start, seen=DAEMONS)
    assert moved(stages(found), 280) == moved(ONE, 200)
    assert [each.stage for each in found.container.unseen] == ["sandbox (network)"]
    assert "before tracing began" in found.container.unseen[0].reason
    assert not any("\x1b" in line for line in one_start(found, False, False) if isinstance(line, str))
    events = Pods()
    events.asked(240, 290, "start_container", ID)
    events.forked(250, 1010, 7, "containerd-shim")
    events.executed(255, 1010, "runc")
    events.forked(260, 1011, 1010, "runc")
    events.group("group_joined", 265, 1011, f"/kubepods/pod1/{ID}")
    (found,) = decoded(events, start_at(1011, 280), seen=DAEMONS)
    assert moved(stages(found), 280) == [("StartContainer", 240, 15), ("runtime (runc)", 255, 25)]
    assert found.container.pod is None and len(found.container.unseen) == 4


class Kubelet(Pods):
    """Functions of a kubelet, 70; the goroutine of pod n is n."""

    def seen(self, at, number):
        self.add("stage_begins", at, 70, STAGES.index("pod_seen"), 500)
        self._labelled(at, "uid", f"u{number}")

    def synced(self, begin, end, number, **inner):
        """``inner``: (begin, end) of functions, or (begin, end, container)."""
        self.add("stage_begins", begin, 70, STAGES.index("pod_sync"), number)
        self._labelled(begin, "uid", f"u{number}")
        for stage, times in inner.items():
            for since, until, *container in times:
                self.add("stage_begins", since, 70, STAGES.index(f"pod_{stage}"), number)
                for name in container:
                    self._labelled(since, "container", name)
                if until:
                    self.add("stage_ends", until, 70, STAGES.index(f"pod_{stage}"), number)
        if end:
            self.add("stage_ends", end, 70, STAGES.index("pod_sync"), number)

    def _labelled(self, at, label, text):
        self.add("label", at, 70, LABELS.index(label), len(text))
        self._name(at, text, "")


OF_KUBELET = {**DAEMONS, "kubelet": list(POD)}
STARTED = [*ONE[:3], ("kubelet (container)", 30, 10), *ONE[4:]]


def test_what_a_kubelet_does_around_the_calls():
    """Its first container pulls and ends, the second is started by the next SyncPod; another pod's is synced meanwhile."""
    events = Kubelet()
    events.seen(0, 1)
    events.seen(1, 2)
    first = {"volumes": [(105, 180)], "sandbox": [(190, 310)], "image": [(325, 370)], "container": [(320, 500, "init")]}
    events.synced(100, 510, 1, **first)
    events.synced(102, 0, 2, volumes=[(110, 0)])
    pod = events.sandbox(200, 1)
    events.asked(330, 360, "pull_image", becomes="x", **pod)
    init = events.container(400, 1, OTHER, pod, name="init", child=2)
    events.synced(600, 0, 1, image=[(615, 640), (645, 650)], container=[(610, 0, "app")])
    start = events.container(700, 1, ID, pod)
    before, found = decoded(events, init, start, seen=OF_KUBELET)
    begun = [("kubelet (to SyncPod)", 0, 100), ("kubelet (SyncPod)", 100, 5), ("kubelet (volumes)", 105, 75)]
    begun += [("kubelet (SyncPod)", 180, 10), ("kubelet (sandbox)", 190, 10), *moved(SANDBOX, 200)]
    begun += [("kubelet (sandbox)", 300, 10), ("kubelet (SyncPod)", 310, 10)]
    pulled = [("kubelet (container)", 320, 5), ("kubelet (image)", 325, 5), ("PullImage", 330, 30)]
    pulled += [("kubelet (image)", 360, 10), ("kubelet (container)", 370, 30)]
    assert moved(stages(before), 480) == [*begun, *pulled, *moved(STARTED, 400)]
    others = [("other containers of the pod", 320, 180), ("kubelet (SyncPod)", 500, 10)]
    others += [("kubelet (between syncs)", 510, 90), ("kubelet (SyncPod)", 600, 10), ("kubelet (container)", 610, 5)]
    others += [("kubelet (image)", 615, 25), ("kubelet (container)", 640, 5), ("kubelet (image)", 645, 5)]
    assert moved(stages(found), 780) == [*begun, *others, ("kubelet (container)", 650, 50), *moved(STARTED, 700)]
    assert (found.container.tool, found.asked_ns, found.container.pod.container) == ("kubelet", 780, "app")


def test_a_kubelet_whose_first_try_failed():
    """The pod's own container again, in the next SyncPod: what it waited for is its own. Then the container ends."""
    events = Kubelet()
    events.seen(0, 1)
    events.synced(10, 350, 1, sandbox=[(20, 130)], image=[(205, 300)], container=[(200, 310, "app")])
    pod = events.sandbox(25, 1)
    events.synced(400, 600, 1, container=[(410, 595, "app")])
    start = events.container(500, 1, ID, pod)
    events.synced(1000, 1010, 1)  # and is done with it
    events.synced(1100, 1400, 1, container=[(1110, 1300, "app")])
    again = events.container(1200, 1, OTHER, pod, attempt=1, child=2)
    one, two = decoded(events, start, again, seen=OF_KUBELET)
    names = [name for name, _, _ in moved(stages(one), 580)]
    assert "other containers of the pod" not in names and names.count("kubelet (between syncs)") == 1
    assert moved(stages(one), 580)[0] == ("kubelet (to SyncPod)", 0, 10)
    begun = [("kubelet (SyncPod)", 1100, 10), ("kubelet (container)", 1110, 90)]
    assert moved(stages(two), 1280) == [*begun, *moved(STARTED, 1200)]


def test_a_pod_that_gets_a_second_sandbox():
    """From the SyncPod on in which that was made; of a pod of another kubelet, whose functions are not probed, nothing."""
    events = Kubelet()
    events.seen(0, 1)
    events.synced(10, 200, 1, sandbox=[(20, 130)])
    events.asked(25, 125, "run_sandbox", becomes="s7", pod="p1", namespace="n", uid="u1")
    events.synced(900, 0, 1, sandbox=[(910, 1110)], container=[(1150, 0, "app")])
    pod = events.sandbox(1000, 1)
    other = events.sandbox(1001, 2)
    starts = [events.container(1200, 1, ID, pod), events.container(1201, 2, OTHER, other)]
    mine, others = decoded(events, *starts, seen=OF_KUBELET)
    assert moved(stages(mine), 1280)[:2] == [("kubelet (SyncPod)", 900, 10), ("kubelet (sandbox)", 910, 90)]
    assert moved(stages(others), 1281)[0] == ("RunPodSandbox", 1001, 10) and others.container.tool == "containerd"
