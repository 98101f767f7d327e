"""The records of `gotrace ps`: each Go process of the host, and what could not be seen."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict


class PsPlace(TypedDict):
    """Where a process runs; null: in none, or unknown."""

    runtime: Annotated[
        str | None,
        "of its container: docker, containerd, cri-o, podman, lxc, machine (systemd-nspawn), kubernetes (one of the"
        " kubelet's), unknown; null: not in a container",
    ]
    container_id: str | None
    container: Annotated[str | None, "its name"]
    image: str | None
    namespace: Annotated[str | None, "of its pod"]
    pod: str | None
    pod_uid: str | None
    unit: Annotated[str | None, "of systemd, outside containers"]
    user: Annotated[str | None, "whose slice it is in: a number"]


class PsProcess(PsPlace):
    """A Go process. Numbers are null where they are unknown, with the reason in ``unknown``."""

    type: Literal["process"]
    pid: int
    name: Annotated[str, "of the executable"]
    exe: str
    go_version: Annotated[str | None, "null: unknown"]
    path: Annotated[str | None, "of the main package; null: unknown"]
    stripped: Annotated[bool, "without a symbol table"]
    refusal: Annotated[str | None, "why it cannot be traced; null: it can"]
    hint: Annotated[str | None, "what to do about it"]
    age_s: float
    cpus_used: Annotated[float | None, "on average over period_s"]
    cpus: Annotated[int | None, "that it may run on"]
    gomaxprocs: int | None
    quota_cpus: Annotated[float | None, "CPUs its cgroups allow on average; null: no limit, unless unknown"]
    rss_bytes: int | None
    heap_live_bytes: Annotated[int | None, "what the last collection marked: /gc/heap/live:bytes in runtime/metrics"]
    gc_cycles: Annotated[int | None, "completed, including forced ones"]
    gc_per_s: Annotated[float | None, "on average over period_s"]
    longest_pause_ns: Annotated[
        int | None, "stop-the-world, since an agent traces it; null: none since then, no agent answers, or unknown"
    ]
    traced_s: Annotated[float | None, "how long an agent has traced it; null: none does"]
    period_s: Annotated[float, "since its start, or the time given by --wait"]
    unknown: Annotated[dict[str, str], "field, and why it is unknown"]


class Ps(TypedDict):
    """What was examined: the last record."""

    type: Literal["ps"]
    seen: Annotated[int, "processes, without kernel threads"]
    go: int
    shown: int
    wait_s: Annotated[float | None, "over which rates were measured; null: since each process started"]
    unreadable: Annotated[int, "processes whose executables this user may not read"]
    unreadable_pids: list[int]
