"""The kinds of a pipeline's steps: what each reads, writes and does. A kind is a class in `KINDS`."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from gotrace.cluster.topo.differences import odd_nodes, wrong
from gotrace.cluster.topo.files import read_machines
from gotrace.cluster.topo.report import topology
from gotrace.errors import GotraceError, UsageError
from gotrace.lab import baseline
from gotrace.lab.children import Group
from gotrace.lab.compare import compare_with_each, require_comparable, sides_of
from gotrace.lab.gate import MARGIN, Rules, judge, report_of, sides
from gotrace.lab.gate_file import rules_of
from gotrace.lab.pipeline_file import Build, Compare, DataPath, Followed, Gate, Reproduce, Step, Topo
from gotrace.lab.plan import Plan, Version
from gotrace.lab.plan_file import PlanBody, duration, plan_of, share
from gotrace.lab.report import NAME, whole
from gotrace.lab.reproduce import check, repeat
from gotrace.lab.requirements import parse_all
from gotrace.lab.runs import enough
from gotrace.run.files import created
from gotrace.text import bytes_text, count_text, duration_text, percent_text, printable

_PATIENCE_S = 5.0
HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
# Of every package that is built but Go's own: all its files, those of embed too, and go.mod.
_SOURCES = "".join(
    ["{{if not .Standard}}{{$dir := .Dir}}"]
    + [
        f'{{{{range .{kind}}}}}{{{{$dir}}}}/{{{{.}}}}{{{{"\\n"}}}}{{{{end}}}}'
        for kind in ("GoFiles", "CgoFiles", "CFiles", "CXXFiles", "HFiles", "SFiles", "SysoFiles", "EmbedFiles")
    ]
    + ['{{with .Module}}{{.GoMod}}{{"\\n"}}{{end}}{{end}}']
)


class StepFailedError(GotraceError):
    """A command of a step ended badly."""


@dataclass(frozen=True)
class Place:
    """Where a pipeline's step works: its folder, its log; the folders of the steps that it needs, and what they make."""

    folder: Path
    log: Path
    reports: Mapping[str, Path] = field(default_factory=dict)
    made: frozenset[str] = frozenset()  # by steps that it needs: paths
    foreign: Mapping[str, str] = field(default_factory=dict)  # path -> the step that makes it, of all
    steps: frozenset[str] = frozenset()
    lengths: Mapping[str, int | None] = field(default_factory=dict)  # of the steps that it needs, ns

    def report(self, name: str) -> str:
        """The folder of a report by the name of its step, or its path. Raises UsageError for a step that is not needed."""
        if name in self.reports:
            return str(self.reports[name])
        if name in self.steps:
            raise UsageError(f"it uses the report of {name}, which is not in its needs", f"needs: [{name}]")
        return name

    def require_need(self, path: str) -> bool:
        """Whether a step that is needed makes this file. Raises UsageError if only another one does."""
        real = os.path.abspath(path)
        if real in self.made:
            return True
        if real in self.foreign:
            raise UsageError(
                f"it uses {printable(path)}, which the step {self.foreign[real]} makes", f"needs: [{self.foreign[real]}]"
            )
        return False


@dataclass
class Result:
    """How a step ended: an exit status, and for people what came of it. ``data`` is kept in the state of the pipeline."""

    exit_code: int = 0
    lines: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


class Work:
    """What a step of some kind does. Nothing but `run` starts or writes anything."""

    def __init__(self, step: Step, place: Place) -> None:
        self.step = step
        self.place = place

    def check(self, force: bool) -> None:
        """Raises GotraceError for what can be known before anything is started."""

    def files(self) -> list[str]:
        """That it reads, of those that are there now."""
        return []

    def others(self) -> list[str]:
        """What else it reads, in words that change with it."""
        return []

    def outputs(self) -> list[Path]:
        """That it writes."""
        return []

    def describe(self) -> Iterator[str]:
        """What it does, for people."""
        yield from ()

    def estimated_ns(self) -> int | None:
        """About how long it takes; None: nobody knows."""
        return None

    def run(self, force: bool, say: baseline.Say) -> Result:
        """Do it. Raises GotraceError, or KeyboardInterrupt when nothing of it runs any more."""
        raise NotImplementedError


class Building(Work):
    """`go build`, for each architecture."""

    def __init__(self, step: Step, place: Place) -> None:
        super().__init__(step, place)
        assert step.build is not None
        self.build: Build = step.build
        self.arches: Sequence[str] = self.build.arch or [HOST_ARCH]

    def check(self, force: bool) -> None:
        if shutil.which("go") is None:
            raise UsageError("there is no command 'go'", "install Go, or put it into PATH")
        if not os.path.isdir(self.build.dir):
            raise UsageError(f"there is no folder {printable(self.build.dir)!r}", "dir is where the package is built")
        if len(set(self.arches)) > 1 and "{arch}" not in self.build.out:
            raise UsageError("it builds several architectures into one file", "write {arch} into out")
        if unknown := sorted(set(self.build.smoke) - set(self.arches)):
            raise UsageError(f"smoke names {printable(unknown[0])}, which it does not build", "add it to arch")
        for words in self.build.smoke.values():
            if not words or shutil.which(words[0].replace("{out}", "/bin/true")) is None:
                raise UsageError(f"there is no command {printable((words or [''])[0])!r}", "smoke must be a list of words")

    def files(self) -> list[str]:
        build = self.build
        each = [sources("go", build.flags, build.package, build.dir, self._environment(arch)) for arch in self.arches]
        return sorted(set().union(*each))

    def outputs(self) -> list[Path]:
        return [self._out(arch) for arch in self.arches]

    def _out(self, arch: str) -> Path:
        return Path(self.build.out.replace("{arch}", arch))

    def _command(self, arch: str) -> list[str]:
        return ["go", "build", "-o", os.path.abspath(self._out(arch)), *self.build.flags, self.build.package]

    def _smoke(self, arch: str) -> list[str]:
        # Where it is relative, it is in a machine that has the current folder, too.
        path = os.path.join(".", self._out(arch))
        return [word.replace("{out}", path) for word in self.build.smoke[arch]]

    def _environment(self, arch: str) -> dict[str, str]:
        return {**os.environ, "GOARCH": arch, **self.build.env}

    def describe(self) -> Iterator[str]:
        for arch in self.arches:
            yield f"GOARCH={arch} {printable(shlex.join(self._command(arch)))} (in {printable(self.build.dir)})"
            if arch in self.build.smoke:
                emulated = "" if arch == HOST_ARCH else " (emulated: times are not kept)"
                yield f"smoke {arch}: {printable(shlex.join(self._smoke(arch)))}{emulated}"

    def run(self, force: bool, say: baseline.Say) -> Result:
        result = Result()
        for arch in self.arches:
            self._out(arch).parent.mkdir(parents=True, exist_ok=True)
            execute(self._command(arch), self.place.log, cwd=self.build.dir, env=self._environment(arch))
            result.lines.append(f"built {printable(str(self._out(arch)))}")
        smokes = []
        for arch in self.build.smoke:
            say(f"smoke test of {arch}")
            execute(self._smoke(arch), self.place.log)
            smokes.append({"arch": arch, "emulated": arch != HOST_ARCH, "ended": 0})
            result.lines.append(f"smoke test of {arch}: ok{'' if arch == HOST_ARCH else ' (emulated)'}")
        result.data = {"smoke": smokes}
        return result


class Measuring(Work):
    """`gotrace.lab.baseline`."""

    def __init__(self, step: Step, place: Place) -> None:
        super().__init__(step, place)
        assert step.baseline is not None
        body: PlanBody = step.baseline
        self.plan: Plan = plan_of(body)

    def check(self, force: bool) -> None:
        there = [version for version in self.plan.versions if not self._made_before(version)]
        baseline.check(replace(self.plan, versions=tuple(there)), self.place.folder, force)

    def _made_before(self, version: Version) -> bool:
        """Whether it may not be there yet, but is by the time."""
        if version.container is not None:
            return bool(self.step.needs)
        return version.build is None and self.place.require_need(version.command[0])

    def files(self) -> list[str]:
        words = [*self.plan.load.command, *(word for version in self.plan.versions for word in version.command)]
        found = [word for word in words if os.path.isfile(word)]
        for version in self.plan.versions:
            if version.build is not None:
                build = version.build
                found += sources(build.go, build.flags, build.package, ".", os.environ)
            elif version.container is None and (program := shutil.which(version.command[0])):
                found.append(program)
        return found

    def others(self) -> list[str]:
        return [version.container.image_id() for version in self.plan.versions if version.container is not None]

    def outputs(self) -> list[Path]:
        return [self.place.folder / NAME]

    def describe(self) -> Iterator[str]:
        yield from baseline.commands(self.plan, self.place.folder)
        yield f"load: {printable(shlex.join(self.plan.load.command))}"
        yield f"order (seed {self.plan.seed}): " + " ".join(printable(each.name) for _, each in self.plan.order())

    def estimated_ns(self) -> int | None:
        return self.plan.estimated_ns

    def run(self, force: bool, say: baseline.Say) -> Result:
        report = baseline.run(self.plan, self.place.folder, force, say)
        if report["cut_off"]:
            raise KeyboardInterrupt
        valid = sum(run["valid"] for run in report["runs"])
        lines = [f"{count_text(valid, 'run')} of {len(self.plan.order())} count"]
        return Result(
            0 if report["complete"] and enough(report) else 1, lines, {"runs": valid, "emulated": self.plan.emulated}
        )


class Comparing(Work):
    """`gotrace.lab.compare`."""

    def __init__(self, step: Step, place: Place) -> None:
        super().__init__(step, place)
        assert step.compare is not None
        self.compare: Compare = step.compare
        self.margin = share("margin", self.compare.margin)
        self.reports = [place.report(name) for name in self.compare.reports]

    def check(self, force: bool) -> None:
        if not self.margin > 0:
            raise UsageError("a margin must be above 0: equality to within 0 % cannot be proved", "margin: 5%")
        if not self.reports or len(set(self.reports)) < len(self.reports):
            raise UsageError("it has no reports, or the same one twice", "reports: [measure]")
        for name, path in zip(self.compare.reports, self.reports, strict=True):
            if name not in self.place.reports:
                whole(path)

    def files(self) -> list[str]:
        return [_report_file(path) for path in self.reports]

    def outputs(self) -> list[Path]:
        return [self.place.folder / "compare.json"]

    def describe(self) -> Iterator[str]:
        yield f"compares {', '.join(map(printable, self.reports))} within {percent_text(self.margin)}"

    def estimated_ns(self) -> int | None:
        return 1_000_000_000

    def run(self, force: bool, say: baseline.Say) -> Result:
        first, *others = sides_of([(path, whole(path)) for path in self.reports])
        result, comparisons = Result(), []
        for other in others:
            require_comparable(first, other)
        for other, rows in zip(others, compare_with_each(first, others, self.margin, self.compare.all), strict=True):
            comparisons.append({"a": first.name, "b": other.name, "metrics": [row.to_json() for row in rows]})
            result.lines.append(f"{printable(other.name)} against {printable(first.name)}:")
            for word in ("worse", "better", "same", "cannot tell"):
                if named := [row.metric for row in rows if row.verdict == word and row.a is not None]:
                    result.lines.append(f"  {word}: {', '.join(named)}")
        write_json(self.place.folder / "compare.json", {"margin": self.margin, "comparisons": comparisons}, force)
        return result


class Gating(Work):
    """`gotrace.lab.gate`."""

    def __init__(self, step: Step, place: Place) -> None:
        super().__init__(step, place)
        assert step.gate is not None
        self.gate: Gate = step.gate
        self.report = place.report(self.gate.report)
        self.against = place.report(self.gate.against) if self.gate.against else None

    def _rules(self) -> Rules:
        requirements = parse_all(self.gate.require)
        if not self.gate.file:
            return Rules(share("margin", self.gate.margin) if self.gate.margin else MARGIN, None, requirements)
        if self.gate.margin:
            raise UsageError("margin and file are mutually exclusive", "put the margin into the file")
        rules = rules_of(self.gate.file)
        return replace(rules, requirements=(*rules.requirements, *requirements))

    def check(self, force: bool) -> None:
        if not self._rules().margin > 0:
            raise UsageError("a margin must be above 0: equality to within 0 % cannot be proved", "margin: 5%")
        if self.against == self.report:
            raise UsageError("a report was given twice", "give against another one")
        for name, path in ((self.gate.report, self.report), (self.gate.against, self.against)):
            if path is not None and name not in self.place.reports:
                whole(path)

    def files(self) -> list[str]:
        reports = [_report_file(path) for path in (self.report, self.against) if path is not None]
        return [*reports, *([self.gate.file] if self.gate.file else [])]

    def outputs(self) -> list[Path]:
        return [self.place.folder / "gate.json"]

    def describe(self) -> Iterator[str]:
        against = f" against {printable(self.against)}" if self.against is not None else ""
        yield f"judges {printable(self.report)}{against}"
        if self.gate.file:
            yield f"by {printable(self.gate.file)}"
        yield from (f"requires {each}" for each in self._rules().requirements)

    def estimated_ns(self) -> int | None:
        return 1_000_000_000

    def run(self, force: bool, say: baseline.Say) -> Result:
        before = report_of(self.against) if self.against is not None else None
        found = judge(*sides(report_of(self.report), before, self.gate.judge or None), self._rules())
        write_json(self.place.folder / "gate.json", found.to_json(), force)
        if found.problem is not None:
            raise found.problem
        status = found.ended(self.gate.inconclusive or "inconclusive")
        return Result(status, [found.sentence, *(f"  {note}" for note in found.notes)], {"verdict": found.verdict})


class Reproducing(Work):
    """`gotrace.lab.reproduce`."""

    def __init__(self, step: Step, place: Place) -> None:
        super().__init__(step, place)
        assert step.reproduce is not None
        self.reproduce: Reproduce = step.reproduce
        self.margin = share("margin", self.reproduce.margin)
        self.report = place.report(self.reproduce.report)

    def check(self, force: bool) -> None:
        if not self.margin > 0:
            raise UsageError("a margin must be above 0: equality to within 0 % cannot be proved", "margin: 3%")
        if self.reproduce.report not in self.place.reports:
            report = whole(self.report)
            check(report, Plan.from_json(report["plan"]), self.place.folder, force, False)

    def files(self) -> list[str]:
        path = _report_file(self.report)
        found = [path]
        with contextlib.suppress(GotraceError):
            programs = [
                shutil.which(each.command[0]) for each in Plan.from_json(whole(path)["plan"]).versions if each.command
            ]
            found += [each for each in programs if each]
        return found

    def outputs(self) -> list[Path]:
        return [self.place.folder / NAME, self.place.folder / "reproduce.json"]

    def describe(self) -> Iterator[str]:
        yield f"repeats {printable(self.report)}, the same within {percent_text(self.margin)}"

    def estimated_ns(self) -> int | None:
        if self.reproduce.report in self.place.lengths:
            return self.place.lengths[self.reproduce.report]
        with contextlib.suppress(GotraceError):
            return Plan.from_json(whole(self.report)["plan"]).estimated_ns
        return None

    def run(self, force: bool, say: baseline.Say) -> Result:
        now, found = repeat(whole(self.report), self.place.folder, self.margin, force, False, say)
        if now["cut_off"]:
            raise KeyboardInterrupt
        write_json(self.place.folder / "reproduce.json", found.to_json(), force)
        lines = [found.answer, *(f"  {reason}" for reason in found.reasons)]
        lines += [f"  NOT THE SAME BINARY: {printable(each.version)}" for each in found.binaries if not each.same]
        return Result(found.exit_code, lines, {"answer": found.answer})


class Checking(Work):
    """`gotrace.cluster.topo`."""

    def __init__(self, step: Step, place: Place) -> None:
        super().__init__(step, place)
        assert step.topo is not None
        self.topo: Topo = step.topo

    def check(self, force: bool) -> None:
        if not self.topo.read:
            raise UsageError("it reads nothing", "read: [topo.txt, ibstat.txt]")
        for path in self.topo.read:
            if not self.place.require_need(path) and not os.path.isfile(path):
                raise UsageError(f"there is no file {printable(path)!r}", "nvidia-smi topo -m > topo.txt")

    def files(self) -> list[str]:
        return [*self.topo.read]

    def outputs(self) -> list[Path]:
        return [self.place.folder / "topo.json"]

    def describe(self) -> Iterator[str]:
        yield f"checks the topology of {', '.join(map(printable, self.topo.read))}"

    def estimated_ns(self) -> int | None:
        return 1_000_000_000

    def run(self, force: bool, say: baseline.Say) -> Result:
        found = [topology(each, self.topo.max_crossings) for each in read_machines(self.topo.read, self.topo.nodes)]
        compared = odd_nodes(found) if self.topo.nodes else None
        write_json(self.place.folder / "topo.json", [*found, *([compared] if compared else [])], force)
        lines = [f"odd: {printable(odd['node'])}" for odd in (compared["odd"] if compared else [])]
        lines += [
            printable(f"{each['name']}: {finding['severity']}: {finding['what']}; {finding['do']}")
            for each in found
            for finding in each["findings"]
            if finding["severity"] != "note"
        ]
        failed = wrong(found, compared)
        return Result(int(failed), lines or ["nothing is wrong"], {"wrong": failed})


class Following(Work):
    """A command of gotrace that follows another one, in its own process: its result as JSON, a page and a recording."""

    verb: ClassVar[str]
    topic: ClassVar[str]

    def __init__(self, step: Step, place: Place, followed: Followed | None) -> None:
        super().__init__(step, place)
        assert followed is not None
        self.followed = followed
        self.length = duration("duration", followed.duration) if followed.duration else None

    def options(self) -> list[str]:
        """Of the command, but for those that all have."""
        raise NotImplementedError

    def result(self, found: list[dict[str, Any]]) -> Result:
        """What the record of the result comes to."""
        raise NotImplementedError

    def check(self, force: bool) -> None:
        command = self.followed.command
        if not command:
            raise UsageError("it has no command", "command: [python3, train.py]")
        if not self.place.require_need(command[0]) and shutil.which(command[0]) is None:
            raise UsageError(f"there is no command {printable(command[0])!r}", "check the spelling and PATH")

    def files(self) -> list[str]:
        program, *words = self.followed.command
        found = shutil.which(program)
        return [*([found] if found else []), *(word for word in words if os.path.isfile(word))]

    def outputs(self) -> list[Path]:
        return [self.place.folder / f"{self.verb}.{ending}" for ending in ("json", "html", "gotrace")]

    def describe(self) -> Iterator[str]:
        yield f"traces the {self.topic} of: {printable(shlex.join(self.followed.command))}"

    def estimated_ns(self) -> int | None:
        return self.length

    def run(self, force: bool, say: baseline.Say) -> Result:
        self.place.folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "gotrace.cli", self.verb, *self.options()]
        words += ["-d", self.followed.duration] if self.followed.duration else []
        words += [word for path in self.outputs() for word in ("-o", str(path))] + ["--force"] * force
        execute([*words, "--", *self.followed.command], self.place.log)
        records = json.loads(self.outputs()[0].read_bytes())
        return self.result([each for each in records if each["type"] == self.verb])


class FollowingGpuMemory(Following):
    """`gotrace gpumem`."""

    verb, topic = "gpumem", "GPU memory"

    def __init__(self, step: Step, place: Place) -> None:
        super().__init__(step, place, step.gpumem)
        assert step.gpumem is not None
        self.bin = step.gpumem.bin
        duration("bin", self.bin)

    def options(self) -> list[str]:
        return ["--bin", self.bin]

    def result(self, found: list[dict[str, Any]]) -> Result:
        spaces = [space for each in found for space in each["spaces"]]
        numbers = {
            "peak_live": max(each["peak_live"] for each in found),
            "merge_failures": sum(each["growths"]["merge_failure"] for each in spaces),
            "ooms": sum(each["ooms"] for each in spaces),
            "ooms_by_fragmentation": sum(each["ooms_by_fragmentation"] for each in spaces),
        }
        of_one = " in one process" if len(found) > 1 else ""
        line = (
            f"peak {bytes_text(numbers['peak_live'])} live{of_one}; "
            f"{count_text(numbers['merge_failures'], 'merge failure')}, {count_text(numbers['ooms'], 'OOM')}, "
            f"{numbers['ooms_by_fragmentation']} of them by fragmentation"
        )
        return Result(0, [line], numbers)


class FollowingFiles(Following):
    """`gotrace datapath`, explained."""

    verb, topic = "datapath", "calls on files"

    def __init__(self, step: Step, place: Place) -> None:
        super().__init__(step, place, step.datapath)
        assert step.datapath is not None
        self.datapath: DataPath = step.datapath

    def check(self, force: bool) -> None:
        from gotrace.views.datapath import check_epoch

        super().check(force)
        check_epoch(self.datapath.epoch)

    def options(self) -> list[str]:
        by, epoch = self.datapath.by, self.datapath.epoch
        named = [word for each in self.datapath.dataset for word in ("--dataset", each)] or ["--by", by]
        return ["--explain", *named, *(["--epoch", epoch] if epoch else [])]

    def result(self, found: list[dict[str, Any]]) -> Result:
        told = found[-1]
        total = told["all"]
        numbers = {name: total[name] for name in ("calls", "errors", "bytes", "metadata_ns")}
        numbers["data_ns"] = total["total_ns"] - total["metadata_ns"] - total["other_ns"]
        numbers["lost"] = told["lost"]
        line = (
            f"{count_text(total['calls'], 'call')}, {total['errors']:,} of them failed; on files: metadata "
            f"{duration_text(numbers['metadata_ns'])}, data {duration_text(numbers['data_ns'])}"
        )
        lost = [f"{count_text(told['lost'], 'event')} LOST: counts are too low"] if told["lost"] else []
        return Result(0, [line, *lost, *(printable(each) for each in told["explained"]["advice"])], numbers)


class Shell(Work):
    """A line for /bin/sh: the one kind of step that has a shell."""

    def files(self) -> list[str]:
        return []

    def outputs(self) -> list[Path]:
        return [Path(path) for path in self.step.makes]

    def describe(self) -> Iterator[str]:
        yield f"/bin/sh -ec {printable(shlex.quote(self.step.shell or ''))}"

    def run(self, force: bool, say: baseline.Say) -> Result:
        execute(["/bin/sh", "-ec", self.step.shell or ""], self.place.log)
        if missing := [path for path in self.step.makes if not os.path.exists(path)]:
            raise StepFailedError(f"it did not create {printable(missing[0])}", "correct `makes`, or the command")
        return Result()


KINDS: Mapping[str, type[Work]] = {
    "build": Building,
    "baseline": Measuring,
    "compare": Comparing,
    "gate": Gating,
    "reproduce": Reproducing,
    "topo": Checking,
    "gpumem": FollowingGpuMemory,
    "datapath": FollowingFiles,
    "shell": Shell,
}


def execute(words: Sequence[str], log: Path, cwd: str = ".", env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end, its output into ``log``. Raises StepFailedError; on Ctrl-C all that it started is ended."""
    with open(log, "ab") as output:
        output.write(f"$ {shlex.join(words)}\n".encode(errors="surrogateescape"))
        output.flush()
        try:
            child = Group(words, cwd=cwd, env=env, stdout=output, stderr=output)
        except OSError as error:
            raise UsageError(f"cannot run {printable(words[0])}: {error.strerror}", "check its path") from None
        try:
            status = child.wait()
        except BaseException:
            child.end(_PATIENCE_S)
            raise
        child.leave()
    if status:
        how = f"status {status}" if status > 0 else signal.Signals(-status).name
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        said = f": {printable(last[0][:200])}" if last and not last[0].startswith(("$ ", "wrote ")) else ""
        name = "gotrace" if words[0] == sys.executable else Path(words[0]).name
        raise StepFailedError(f"{printable(name)} ended with {how}{said}", f"its output is in {log}")


def sources(go: str, flags: Sequence[str], package: str, folder: str, environment: Mapping[str, str]) -> set[str]:
    """The files of a package and of all that it imports, but Go's own; none if they are not known."""
    done = subprocess.run(
        [go, "list", "-deps", "-f", _SOURCES, *flags, package],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    if done.returncode:  # which `go build` will explain
        return set()
    found = {line for line in done.stdout.splitlines() if line}
    found |= {path.removesuffix(".mod") + ".sum" for path in found if path.endswith("/go.mod")}
    return {path for path in found if os.path.isfile(path)}


def write_json(path: Path, value: Any, force: bool) -> None:
    """A new file. Raises GotraceError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with created(str(path), force) as file:
        file.write(json.dumps(value, indent=1).encode() + b"\n")


def text_of(step: Step) -> Any:
    """A step as it is hashed: all that it says, defaults too, but its name and what it needs."""
    found = msgspec.to_builtins(step)
    return {key: value for key, value in found.items() if key not in ("name", "needs") and value is not None}


def _report_file(path: str) -> str:
    return str(Path(path, NAME)) if os.path.isdir(path) else path
