"""Recordings as rows: pauses and cycles with what long ones waited for, starts by their stages, looks at memory."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gotrace.agent.spool import WORST
from gotrace.analysis.gc_summary import PARTS, part_of
from gotrace.analysis.pauses import PAUSE, UNKNOWN, gogc_text
from gotrace.errors import GotraceError
from gotrace.fleet.machines import Told, host_row, short_build
from gotrace.fleet.series import Part, Whose, of_values
from gotrace.kernel.host import is_emulated
from gotrace.lab.start import STAGES
from gotrace.recording.reader import Recording
from gotrace.run.kept import code_of
from gotrace.run.sources import Replayed
from gotrace.text import count_text

if TYPE_CHECKING:
    from gotrace.analysis.columns import Array
    from gotrace.run.starts import Result

MEASURED = tuple(part for part in PARTS if part != "restart")


class Pauses:
    """What a recording has of the collector; ``lost`` are events."""

    def __init__(self, source: Recording, begin_ns: int = 0, end_ns: int = 1 << 63) -> None:
        """Of pauses and cycles that began between two times, ns since 1970. Raises GotraceError."""
        from gotrace.probes.gc import decoder

        offset = source.header["clock"]["wall_offset_ns"]
        replayed, decoding = Replayed(source), decoder(source.header, source.text)
        pauses, cycles = [np.zeros(0, PAUSE)], []
        for events in replayed.portions():
            batch = decoding.feed(events)
            pauses.append(batch.pauses)
            cycles.append(batch.cycles)
        every = np.concatenate(pauses)
        at = every["start_ns"] + offset
        self.pauses = every[(at >= begin_ns) & (at <= end_ns)]
        self.offset_ns, self.reasons = offset, decoding.reasons
        self.cycles = np.concatenate(cycles) if cycles else None
        if self.cycles is not None:
            at = self.cycles["time_ns"] + offset
            self.cycles = self.cycles[(at >= begin_ns) & (at <= end_ns)]
        self.end = replayed.end
        self.lost = int(self.end["lost"]) + decoding.incomplete

    def parts(self, whose: Whose, pid: int | None, causes: Mapping[int, Mapping[str, Any]], path: str) -> Iterator[Part]:
        """Rows of pauses by reason, and of marking; ``causes`` are explanations by how long the pause was."""
        for part in MEASURED:
            values, begins = part_of(self.pauses, part)
            for number in np.unique(self.pauses["reason"]).tolist():
                own = values[(self.pauses["reason"] == number) & (values != UNKNOWN)]
                yield from of_values(whose, f"stw.{part}", self.reasons[number], own)
            for at in np.argsort(values)[::-1][:WORST].tolist():
                if values[at] != UNKNOWN:
                    yield "worst", self._worst(whose, part, at, values, begins, pid, causes, path)
        if self.cycles is not None:
            yield from of_values(whose, "gc.mark", "", self.cycles["mark_ns"])

    def _worst(
        self,
        whose: Whose,
        part: str,
        at: int,
        values: Array,
        begins: Array,
        pid: int | None,
        causes: Mapping[int, Mapping[str, Any]],
        path: str,
    ) -> dict[str, Any]:
        cause = causes.get(int(self.pauses["total_ns"][at]), {})
        return {
            **whose.of(),
            "metric": f"stw.{part}",
            "label": self.reasons[int(self.pauses["reason"][at])],
            "time_ns": int(begins[at]) + self.offset_ns,
            "value_ns": int(values[at]),
            "pid": pid,
            "cause": cause.get("cause"),
            "stack": [cause.get("stack")],
            "recording": path,
        }

    def settings(self) -> dict[str, Any]:
        """GOGC and GOMAXPROCS at the last cycle's end."""
        if self.cycles is None or not len(self.cycles):
            return {}
        last = self.cycles[-1]
        return {"gogc": gogc_text(int(last["gc_percent"])), "gomaxprocs": int(last["maxprocs"])}


def causes_of(explained: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """By the length of the pause: its cause, and the stack of what took most of it, outermost first."""
    return {
        int(each["total_ns"]): {"cause": each["cause"], "stack": code_of({**each})[::-1] if "code" in each else []}
        for each in explained
    }


def parts_of(path: str, told: Told, name: str) -> tuple[dict[str, Any], list[Part], list[str]]:
    """Of a recording: columns of its row in "source", other rows, and what is to be known of it.

    ``name`` is the source's. Raises GotraceError for one that cannot be read, or in which there is nothing of these.
    """
    with Recording.open(path) as source:
        header = source.header
        if "kept" in header:
            raise GotraceError("it is a single pause kept by an agent", "add the agent's whole spool folder")
        known = {"gc", "coldstart"} & set(header["probes"]) or "memory" in header.get("views", {})
        if not known:
            raise GotraceError("it has neither pauses, starts nor memory", "record some: gotrace record -o FILE.gotrace")
    with Recording.open(path) as source:
        header = source.header
        about, host = header["host"], told.host_name or str(header["host"]["name"])
        begin_ns = int(header["clock"]["begin_ns"]) + int(header["clock"]["wall_offset_ns"])
        machine = {"architecture": about["machine"], "kernel": about["kernel"], "cpus": about.get("cpus")}
        row = host_row(host, {**machine, "emulated": is_emulated(about.get("cpu"))}, begin_ns, told)
        target = header["target"]
        whose = Whose(
            host,
            row["fingerprint"],
            told.service or os.path.basename(target["exe"]),
            told.version or short_build(target.get("build_id")),
            begin_ns,
            None,
            name,
        )
        run: dict[str, Any] = {"run": name, "go_version": target.get("go_version") or None, "valid": True, "reasons": [[]]}
        parts: list[Part] = [("host", {**row, "source": name})]
        notes: list[str] = []
        if "coldstart" in header["probes"]:
            from gotrace.run.starts import replayed

            result = replayed(source)
            end: Mapping[str, Any] = result.about
            parts += _starts(result, whose, run)
        elif "gc" in header["probes"]:
            found = Pauses(source)
            end, lost = found.end, found.lost
            whose = _lasting(whose, int(end["duration_ns"]))
            pid = int(target["pid"])
            causes = causes_of(_explained(path)) if "tail" in header["probes"] else {}
            parts += found.parts(whose, pid, causes, path)
            parts.append(("run", {**whose.lasting(), **run, **found.settings(), "lost": lost}))
            notes += [f"{count_text(lost, 'event')} lost: counts are lower bounds"] if lost else []
        else:
            for _ in Replayed(source).portions():
                pass
            end = source.end or {}
            whose = _lasting(whose, int(end["duration_ns"]) if end else 0)
            parts.append(("run", {**whose.lasting(), **run, "lost": source.lost}))
        if "memory" in header.get("views", {}):
            parts += _memory(path, whose, name)
        if source.cut_off:
            notes.append("truncated: used up to that point")
        last_ns = begin_ns + int(end.get("duration_ns", 0))
    return {"kind": "recording", "host": host, "first_ns": begin_ns, "last_ns": last_ns}, parts, notes


def _lasting(whose: Whose, length_ns: int) -> Whose:
    """What is below 0 is 0: the program may have executed another while tracing began, and that was its end."""
    import dataclasses

    return dataclasses.replace(whose, length_ns=max(0, length_ns))


def _explained(path: str) -> Iterator[Mapping[str, Any]]:
    from gotrace.api import replaying
    from gotrace.views.gc import Gc

    yield from (each for each in replaying(path, Gc(explained=WORST, singles=False)) if each["type"] == "explained")


def _starts(result: Result, whose: Whose, run: Mapping[str, Any]) -> Iterator[Part]:
    """A run for each start, with the metrics of `gotrace.lab.start`."""
    import dataclasses

    for number, start in enumerate(result.starts):
        own = dataclasses.replace(whose, start_ns=start.exec_ns + result.wall_offset_ns, length_ns=start.total_ns)
        of_run = {**run, "run": f"{run['run']}:{number}"}
        yield "run", {**own.lasting(), **of_run, "lost": result.about["lost"]}
        lasted = {row.stage: row.duration_ns for row in start.rows if row.depth == 0}
        values = {name: lasted.get(stage) for name, stage in STAGES.items()}
        values |= {"start.ready": start.ready_ns, "start.listen": start.listen_ns}
        for metric, value in values.items():
            if value is not None:
                yield "value", {**own.of(), "run": of_run["run"], "metric": metric, "value": float(value)}


def _memory(path: str, whose: Whose, name: str) -> Iterator[Part]:
    """RSS by parts, as the mean of all looks."""
    from gotrace.api import replaying
    from gotrace.views.memory import Looks

    looks = [each for each in replaying(path, Looks()) if each["type"] == "memory"]
    if not looks:
        return
    rss = [each["rss_bytes"] for each in looks]
    factors = [each["amplification"] for each in looks if each["amplification"] is not None]
    values = {"rss.peak": max(rss), "rss.mean": np.mean(rss)}
    values |= {"mem.amplification": np.mean(factors)} if factors else {}
    values |= {f"rss.part.{part}": np.mean([each["parts"].get(part, 0) for each in looks]) for part in looks[0]["parts"]}
    for metric, value in values.items():
        yield "value", {**whose.of(), "run": name, "metric": metric, "value": float(value)}
    heap = [each["counters"].get("heap_alloc") for each in looks]
    known = [each for each in heap if each and each > 0]  # below 0 where it was read between two of the counters' updates
    yield (
        "period",
        {
            **whose.lasting(),
            "processes": 1,
            "rss_bytes": round(float(np.mean(rss))),
            "heap_bytes": round(float(np.mean(known))) if known else None,
        },
    )


def time_ns(text: str) -> int:
    """Nanoseconds since 1970 of a time as `gotrace.records.times.wall_time` writes it. Raises ValueError."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    stamp = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return int(stamp.timestamp()) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)
