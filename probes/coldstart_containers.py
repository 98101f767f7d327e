"""What container tools do before a program in a container is executed: which probe sits where, and why there.

* The kernel's tracepoints, for every tool: the processes that a tool forks, what they execute, and their end; control
  groups (``cgroup_mkdir``, ``cgroup_attach_task``); mounts, ``pivot_root`` and namespaces by their system calls.
* Where image pull, unpack, snapshot and network sandbox begin and end the kernel cannot tell: functions of the tools
  themselves, at their entry and at each of their return instructions. Which ones is known of some versions,
  and in what was built from them the functions' names, prologues and return instructions are looked for. No return
  probes: Go moves stacks.

podman 4.3, 5.4, 5.7 and 5.8 (containers/image and containers/storage in it) [their source, Debian's 4.3.1, 5.4.2 and 5.8.6,
and 5.7.1 built from it]: ``libimage.(*Runtime).Pull`` looks the image up and, where it lacks, copies it;
``(*layerStore).applyDiffWithOptions`` unpacks one layer into the storage and returns how many bytes it has. In 5.8 layers
are staged without it; what both call is ``applyDiff``, whose first closure returns the same. ``(*chunkedDiffer).ApplyDiff``
fetches the chunks of a zstd:chunked layer and writes them, or gives up, and the layer is unpacked as others are. What 5.0.3
returns for such a layer is not the bytes of its tar, as in the others: 5.0 is not known. ``(*store).CreateContainer`` makes
the container's own layer, ``(*store).Mount`` mounts it; ``(*Runtime).createNetNS`` and ``configureNetNS`` make and set up
its network.

containerd 1.6, 1.7 and 2.0 to 2.3 [their source, Debian's 1.6.20, 1.7.24 and 2.1.9, and 2.0.11, 2.2.7 and 2.3.4 built from
it]: ``(*snapshotter).Prepare`` of overlay, whose key has the container's name in it and whose parent is the image's topmost
layer, and ``services/tasks.(*local).Create`` (its process is asked for). A layer is a snapshot that ``Commit`` has named,
after ``diff/apply.(*fsApplier).Apply`` unpacked a blob into it, by its digest; the blob came between ``(*store).writer``
and ``(*writer).Commit`` of the content store. The transfer service, which pulls in 2.x, calls these, too; from 2.2 on it
can prepare all layers of an image on nothing and commit them onto one another, which is not told.

Its CRI plugin, which a kubelet asks, has a function for each of the four calls that make a container of a pod; their
messages begin with the same fields in all of them [cri-api's ``runtime/v1`` as vendored in them], from 2.2 on behind a word
of the library's. ``netns.newNS`` and ``setupPodNetwork`` make and set up the network of a pod.

dockerd 20.10, 26.1, 27.0 to 27.5, 28.2 to 28.5 and 29.5 to 29.7 with its own image store [their source, Debian's 20.10.24,
26.1.5 and 28.5.2, and 27.0.1, 27.5.1, 28.2.0, 28.2.2, 29.5.0 and 29.7.2 built from it: the ends of the ranges, between
which none of these functions differs]: ``distribution.Pull``; ``(*layerStore).registerWithDescriptor`` unpacks one layer
onto its parent and returns it, ``CreateRWLayer`` makes the container's own, by its id; ``(*Daemon).containerStart`` starts
it and calls ``libcontainerd/remote`` with its id. In it ``initializeNetworking`` sets up the network, as far as it can
without the task; ``initializeCreatedTask`` does the rest: little in 26.1 and 27, nearly all from 28 on; in 20.10 a hook of
runc did it.

kubelet 1.28 to 1.34 and 1.36 [their source, and a 1.28, a 1.32.13, a 1.34.9 and a 1.36.2 built from that]:
``recordFirstSeenTime``, which has a logger before the pod since 1.35, notes when a source of pods told of a new one,
for the annotation ``kubernetes.io/config.seen``; ``(*Kubelet).SyncPod`` is all that the pod's goroutine does for it,
in which ``WaitForAttachAndMount`` waits for its volumes, ``createPodSandbox`` asks for the sandbox, and
``startContainer`` for each container, in which ``EnsureImageExists`` waits for its turn to pull, and for the pull.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gotrace.errors import BinaryError
from gotrace.kernel.btf import task_settings
from gotrace.probe import Kind, Plan, PlanBuilder, Probe

if TYPE_CHECKING:
    from gotrace.analysis.containers import Decoder, Starts
    from gotrace.binary.program import GoProgram, Program
    from gotrace.probe import Traceable

CRI = ("run_sandbox", "pull_image", "create_container", "start_container")
LABELS = ("namespace", "pod", "uid", "container")
POD = ("pod_seen", "pod_sync", "pod_volumes", "pod_sandbox", "pod_image", "pod_container")
STAGES = ("pull", "unpack", "snapshot", "sandbox", "create", "commit", "fetch", "store", "container", "chunked", *CRI, *POD)
CALLS = ("mount", "move_mount", "umount", "pivot_root", "unshare", "setns", "clone")


def _of_podman(function: str) -> tuple[str, ...]:
    """In podman 5.8 its libraries have moved."""
    return tuple(f"{place}/{function}" for place in ("github.com/containers", "go.podman.io"))


def _of_containerd(folder: str, function: str) -> tuple[str, ...]:
    """In containerd 2 its packages have moved."""
    return (f"{_CONTAINERD}/{function}", f"{_CONTAINERD}/v2/{folder}/{function}")


def _of_cri(function: str) -> tuple[str, ...]:
    """Likewise, those of its CRI plugin."""
    return (f"{_CONTAINERD}/pkg/cri/server.{function}", f"{_CRI_2}.{function}")


def _of_docker(*functions: str) -> tuple[str, ...]:
    """In dockerd 29 its packages have moved."""
    places = (f"{_DOCKER}/", f"{_MOBY}/", f"{_MOBY}/daemon/internal/")
    return tuple(f"{place}{function}" for function in functions for place in places)


_LIBPOD = tuple(f"github.com/containers/podman/{version}libpod." for version in ("", "v4/", "v5/"))
_CONTAINERD = "github.com/containerd/containerd"
_CRI_2 = f"{_CONTAINERD}/v2/internal/cri/server"
_DOCKER, _MOBY = "github.com/docker/docker", "github.com/moby/moby/v2"
_KUBELET = "k8s.io/kubernetes/pkg/kubelet"
# Where containerd's protocol buffers have this, messages begin with a word of the library's, `protoimpl.MessageState`.
_REFLECTED, _STATE_BYTES = "k8s.io/cri-api/pkg/apis/runtime/v1.(*RunPodSandboxRequest).ProtoReflect", 8
# tool -> stage -> the functions that bound it; of each every name it may have: where it was built without modules, packages
# have no major version. Which versions they are known of `gotrace.kernel.container_tools.VERSIONS` says.
TOOLS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "podman": {
        "pull": (_of_podman("common/libimage.(*Runtime).Pull"),),
        "unpack": (("go.podman.io/storage.applyDiff.func1", *_of_podman("storage.(*layerStore).applyDiffWithOptions")),),
        "chunked": (_of_podman("storage/pkg/chunked.(*chunkedDiffer).ApplyDiff"),),
        "snapshot": (_of_podman("storage.(*store).CreateContainer"), _of_podman("storage.(*store).Mount")),
        "sandbox": tuple(
            tuple(f"{package}(*Runtime).{name}" for package in _LIBPOD) for name in ("createNetNS", "configureNetNS")
        ),
    },
    "containerd": {
        "prepare": (_of_containerd("plugins", "snapshots/overlay.(*snapshotter).Prepare"),),
        "commit": (_of_containerd("plugins", "snapshots/overlay.(*snapshotter).Commit"),),
        "apply": (_of_containerd("core", "diff/apply.(*fsApplier).Apply"),),
        "fetch": (_of_containerd("plugins", "content/local.(*store).writer"),),
        "store": (_of_containerd("plugins", "content/local.(*writer).Commit"),),
        "create": (_of_containerd("plugins", "services/tasks.(*local).Create"),),
        "sandbox": (
            (f"{_CONTAINERD}/pkg/netns.newNS", f"{_CONTAINERD}/v2/pkg/netns.newNS"),
            _of_cri("(*criService).setupPodNetwork"),
        ),
        "run_sandbox": (_of_cri("(*criService).RunPodSandbox"),),
        "pull_image": ((f"{_CRI_2}/images.(*GRPCCRIImageService).PullImage", *_of_cri("(*criService).PullImage")),),
        "create_container": (_of_cri("(*criService).CreateContainer"),),
        "start_container": (_of_cri("(*criService).StartContainer"),),
    },
    "dockerd": {
        "pull": (_of_docker("distribution.Pull"),),
        "register": (_of_docker("layer.(*layerStore).registerWithDescriptor"),),
        "rwlayer": (_of_docker("layer.(*layerStore).CreateRWLayer"),),
        "sandbox": (
            _of_docker("daemon.(*Daemon).initializeNetworking"),
            # None in 20.10.
            _of_docker("daemon.(*Daemon).initializeCreatedTask", "daemon.(*Daemon).initializeNetworking"),
        ),
        "create": (_of_docker("daemon.(*Daemon).containerStart"),),
        "container": (_of_docker("libcontainerd/remote.(*client).Create", "libcontainerd/remote.(*client).NewContainer"),),
    },
    "kubelet": {
        "pod_seen": ((f"{_KUBELET}/config.recordFirstSeenTime",),),
        "pod_sync": ((f"{_KUBELET}.(*Kubelet).SyncPod",),),
        "pod_volumes": ((f"{_KUBELET}/volumemanager.(*volumeManager).WaitForAttachAndMount",),),
        "pod_sandbox": ((f"{_KUBELET}/kuberuntime.(*kubeGenericRuntimeManager).createPodSandbox",),),
        "pod_image": ((f"{_KUBELET}/images.(*imageManager).EnsureImageExists",),),
        "pod_container": ((f"{_KUBELET}/kuberuntime.(*kubeGenericRuntimeManager).startContainer",),),
    },
}
# By the kernel's name for what they execute: its first eight bytes.
_NAMES = ("podman", "conmon", "runc", "crun", "containerd", "ctr", "nerdctl", "docker", "dockerd", "kubelet", "crio")

_SYSCALLS = tuple(f"on_trace_event__syscalls__sys_{end}_{name}" for name in CALLS for end in ("enter", "exit"))
_OF_POD = ("pod_seen", "pod_seen_logged", "pod_sync", "pod_container")
_NAMED = ("prepare", "commit", "apply", "fetch", "store", "rwlayer", "container", "register", *CRI, *_OF_POD)
_PLAIN = ("pull", "unpack", "snapshot", "sandbox", "create", "chunked", "pod_volumes", "pod_sandbox", "pod_image")
_OWN = (
    *(f"{name}_begins" for name in (*_NAMED, *_PLAIN)),
    *(f"{name}_ends" for name in (*_PLAIN, "commit", "store", "register", *CRI, "pod_sync", "pod_container")),
)
# Where versions differ in a function's arguments: by how many bytes these have, what is at its begin.
_BEGINS = {"pod_seen": {8: "pod_seen_begins", 32: "pod_seen_logged_begins"}}
# Named ones whose end is that of another; "": nothing is told of it.
_ENDS = {"prepare": "snapshot", "rwlayer": "snapshot", "apply": "unpack", "fetch": "", "container": "", "pod_seen": ""}

PROBE = Probe(
    stem="coldstart_containers",
    summary="what container tools do before a container's program runs",
    kinds=(
        Kind("forked", 0x1001, ("process", "parent", "name_low", "name_high")),
        Kind("executed", 0x1002, ("process", "name_low", "name_high")),
        Kind("ended", 0x1003, ("process",)),
        Kind("group_made", 0x1004, ("process",)),  # by that process
        Kind("group_joined", 0x1005, ("process",)),  # that process was put into it
        # after any of these, or a stage_begins, of the same time and thread: 31 bytes of its path
        Kind("path", 0x1006, ("part", "path0", "path1", "path2", "path3")),
        Kind("called", 0x1007, ("process", "call", "begin_ns", "flags", "result")),  # call: place in CALLS
        # stage: place in STAGES; key_bytes: how long a name is that follows as a path, 0 for none
        Kind("stage_begins", 0x1008, ("process", "stage", "g", "key_bytes")),
        # result: of unpacking, how many bytes, all ones where unknown, or 1 << 63 where it is begun again in another way
        Kind("stage_ends", 0x1009, ("process", "stage", "g", "result")),
        # after any of both, of the same time and thread: how long the name is that follows, of what it is made on
        Kind("of", 0x100A, ("process", "key_bytes")),
        # after a stage_begins of those in CRI, of the same time and thread: label is a place in LABELS, key_bytes is as
        # there, and attempt, of a container, how often one of its name was before
        Kind("label", 0x100B, ("process", "label", "key_bytes", "attempt")),
    ),
    config=("task_pid", "task_tgid", "task_signal", "signal_live", "message_state"),
    hits=(
        *("on_tracepoint__sched_process_fork", "on_tracepoint__sched_process_exec", "on_tracepoint__sched_process_exit"),
        *("on_tracepoint__cgroup_mkdir", "on_tracepoint__cgroup_attach_task"),
        *_SYSCALLS,
        *_OWN,
    ),
    constants={
        **{f"CALL_{name.upper()}": number for number, name in enumerate(CALLS)},
        **{f"STAGE_{name.upper()}": number for number, name in enumerate(STAGES)},
        **{f"LABEL_{name.upper()}": number for number, name in enumerate(LABELS)},
        **{f"TOOL_{name.upper()}": int.from_bytes(name.encode()[:8].ljust(8, b"\0"), "little") for name in _NAMES},
    },
    ring_bytes=16 << 20,
    go=False,
    tools=tuple(TOOLS),
    of_starts=True,
)

_KERNEL_FIELDS = {
    "task_pid": ("task_struct", "pid"),
    "task_tgid": ("task_struct", "tgid"),
    "task_signal": ("task_struct", "signal"),
    "signal_live": ("signal_struct", "live"),
}


def settings(_: Traceable) -> dict[str, int]:
    """Where the kernel keeps what is read of a task. Raises HostError without BTF."""
    found = task_settings(_KERNEL_FIELDS)
    return {name: found[name] for name in _KERNEL_FIELDS if name in found}


def plan(program: Program) -> Plan:
    """Which instructions of the tools' files to probe; ``program`` itself is none of them."""
    from gotrace.binary.program import GoProgram

    build = PlanBuilder(program)
    seen: dict[str, list[str]] = {}
    for path, elf in program.libraries.items():
        name = os.path.basename(path)
        try:
            tool = GoProgram(elf)
        except BinaryError as error:
            build.lacks(name, error.message)
            seen[name] = []
            continue
        present = frozenset(tool.pclntab.names())
        seen[name] = [stage for stage, each in TOOLS[name].items() if _add(build, path, tool, present, stage, each)]
        if name == "containerd" and _REFLECTED in present:  # a kubelet may have it beside a containerd without
            build.config["message_state"] = _STATE_BYTES
    return build.plan({"seen": seen})


def _add(
    build: PlanBuilder[Program],
    path: str,
    tool: GoProgram,
    present: frozenset[str],
    stage: str,
    functions: tuple[tuple[str, ...], ...],
) -> bool:
    """Whether each of ``functions`` is there: with one missing, a stage would be seen in part."""
    from gotrace.binary import code

    name = f"{os.path.basename(path)}: {stage}"
    begins, ends, hit = [], [], f"{stage}_begins"
    try:
        symbols = []
        for names in functions:
            if not (there := [each for each in names if each in present]):
                raise BinaryError(f"it has no function {names[0]}")
            symbols.append(there[0])
        for symbol in dict.fromkeys(symbols):
            begins.append(code.entry_site(tool, symbol))
            ends += code.ret_sites(tool, symbol)
            if stage in _BEGINS:
                size = tool.pclntab.argument_bytes(code.body(tool, symbol))
                if size not in _BEGINS[stage]:
                    raise BinaryError(f"the arguments of {symbol} are {size} bytes, which is of no known version")
                hit = _BEGINS[stage][size]
    except BinaryError as error:
        build.lacks(name, error.message)
        return False
    build.add(name, hit, lambda: begins, path)
    if end := _ENDS.get(stage, stage):
        build.add(name, f"{end}_ends", lambda: ends, path)
    return True


def decoder(header: dict[str, Any], starts: Starts) -> Decoder:
    """``starts``, which makes starts of the events of a session, with what was before them; ``header`` as for that."""
    from gotrace.analysis.columns import Kinds
    from gotrace.analysis.containers import Decoder

    seen = header["probes"][PROBE.stem]["facts"]["seen"]
    refused = header["coldstart"]["containers"]["refused"]
    return Decoder(starts, Kinds.of_probe(header, PROBE.stem), seen, refused, STAGES, CALLS, LABELS)
