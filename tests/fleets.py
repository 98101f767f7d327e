"""A fleet's folder of measured values under invented names of hosts.

Every value is real: the latencies and metrics are those of the forty runs of one service in testdata/baselines, and the
pauses those of the recordings in testdata, with what they waited for. Invented are the hosts (`HOSTS`), their clouds and
types, the settings they are said to have and when (`START`): run number 4i + j is what host i did in the quarter j of the
days. Every fortieth pause is of the same run. So no type is faster than another, and whoever finds one is wrong, but for
`slower`: the values of the hosts named there are multiplied.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import gotrace.api
import unchanged
from gotrace.analysis.exponential import buckets_of
from gotrace.fleet.store import Addition, adding
from gotrace.views.gc import Gc

IntArray = npt.NDArray[np.int64]

START = 1_790_000_000 // 86_400 * 86_400 * 10**9  # midnight UTC
QUARTER = 6 * 3600 * 10**9
SERVICE, VERSION = "shop", "v1"
HOSTS = [f"host-{number}" for number in range(10)]
TYPES = {**dict.fromkeys(HOSTS[:5], ("aws", "c7g.large")), **dict.fromkeys(HOSTS[5:], ("hetzner", "cax21"))}
_RECORDINGS = ("gc", "gc-1.19", "all")


@dataclass(frozen=True)
class Pause:
    length_ns: int
    reason: str
    cause: str | None = None
    stack: tuple[str, ...] = ()


@functools.cache
def pauses() -> list[Pause]:
    """Of all recordings, one after the other; those that gotrace explains with cause and stack."""
    found = []
    for name in _RECORDINGS:
        path = str(Path(unchanged.__file__).parent / "testdata" / "recordings" / f"{name}.gotrace")
        records = list(gotrace.api.replaying(path, Gc(explained=16 if name == "all" else 0)))
        explained = {each["monotonic_ns"]: each for each in records if each["type"] == "explained"}
        for each in records:
            if each["type"] != "stw":
                continue
            known = explained.get(each["monotonic_ns"])
            stack: tuple[str, ...] = ()
            if known:
                codes = [code for part in known["code"].values() for cause, code in part.items() if cause == known["cause"]]
                stack = tuple(reversed(codes[0])) if codes else ()
            found.append(Pause(each["total_ns"], each["reason"], known and known["cause"], stack))
    return found


def latencies(run: int) -> IntArray:
    """How long the requests of one of the forty runs took, in ns."""
    codes, counts = np.array(unchanged.report()["runs"][run]["requests"]).T  # type: ignore[typeddict-item]
    return np.repeat(np.round(2 ** (codes / 64)).astype(np.int64), counts)


@dataclass(frozen=True)
class Made:
    """What is in the folder, as values: of (host, quarter since `START`)."""

    folder: str
    latencies: Mapping[tuple[str, int], IntArray]
    pauses: Mapping[tuple[str, int], list[Pause]]
    metrics: Mapping[tuple[str, int], Mapping[str, float]]

    def of_host(self, host: str) -> IntArray:
        """All latencies of a host."""
        return np.concatenate([values for (name, _), values in self.latencies.items() if name == host])


def made(
    folder: Path,
    *,
    slower: Mapping[str, float] | None = None,
    emulated: tuple[str, ...] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    types: Mapping[str, tuple[str | None, str | None]] = TYPES,
    service: str = SERVICE,
    lost: Mapping[str, int] | None = None,
    more: Mapping[str, list[dict[str, Any]]] | None = None,
) -> Made:
    """A fleet; ``settings`` of a host are columns of `host` and `run`, ``more`` are rows of tables."""
    result = Made(str(folder), {}, {}, {})
    with adding(str(folder)) as addition:
        for number, host in enumerate(types):
            provider, instance = types[host]
            own = (settings or {}).get(host, {})
            about = {
                "host": host,
                "fingerprint": f"f-{host}",
                "service": service,
                "version": VERSION,
                "source": f"s-{host}",
            }
            machine = {"architecture": "aarch64", "page_bytes": 4096, "huge_pages": "madvise", "numa_nodes": 1, **own}
            addition.add(
                "host",
                [
                    {
                        **{name: value for name, value in machine.items() if name not in ("go_version", "gogc")},
                        "host": host,
                        "fingerprint": about["fingerprint"],
                        "seen_ns": START,
                        "provider": provider,
                        "instance": instance,
                        "emulated": host in emulated,
                        "source": about["source"],
                    }
                ],
            )
            for quarter in range(4):
                run, begin = (4 * number + quarter) % 40, START + (quarter + 4 * (quarter % 2)) * QUARTER
                where = {**about, "start_ns": begin}
                factor = (slower or {}).get(host, 1.0)
                values = np.round(latencies(run) * factor).astype(np.int64)
                stops = pauses()[run::40]
                metrics = unchanged.report()["runs"][run]["metrics"]
                result.latencies[host, quarter] = values  # type: ignore[index]
                result.pauses[host, quarter] = stops  # type: ignore[index]
                result.metrics[host, quarter] = metrics  # type: ignore[index, assignment]
                addition.add(
                    "run",
                    [
                        {
                            **where,
                            "run": str(quarter),
                            "length_ns": 3 * 10**9,
                            "go_version": own.get("go_version", "go1.27.3"),
                            "gogc": own.get("gogc", "100"),
                            "valid": True,
                            "lost": (lost or {}).get(host, 0),
                        }
                    ],
                )
                addition.add(
                    "value",
                    [{**where, "run": str(quarter), "metric": name, "value": value} for name, value in metrics.items()],
                )
                add_values(addition, {**where, "metric": "latency", "label": ""}, values, [{}] * 16)
                for reason in sorted({each.reason for each in stops}):
                    those = sorted((each for each in stops if each.reason == reason), key=lambda each: -each.length_ns)
                    add_values(
                        addition,
                        {**where, "metric": "stw.total", "label": reason},
                        np.array([each.length_ns for each in those]),
                        [{"cause": each.cause, "stack": [*each.stack]} for each in those[:16]],
                    )
        for table, rows in (more or {}).items():
            addition.add(table, rows)
    return result


def add_values(addition: Addition, of: dict[str, Any], values: IntArray, about: list[dict[str, Any]]) -> None:
    """A histogram; ``about`` the longest of it, the longest first."""
    indexes, counts = buckets_of(values)
    addition.add("hist", [{**of, "bucket": int(at), "n": int(n)} for at, n in zip(indexes, counts, strict=True)])
    total = {"count": len(values), "zeros": int((values == 0).sum()), "sum_ns": int(values.sum())}
    addition.add("total", [{**of, **total, "min_ns": int(values.min()), "max_ns": int(values.max())}])
    longest = sorted(values.tolist(), reverse=True)[:16]
    rows = [
        {**of, "time_ns": of["start_ns"] + at, "value_ns": value, **own}
        for at, (value, own) in enumerate(zip(longest, about, strict=False))
    ]
    addition.add("worst", rows)
