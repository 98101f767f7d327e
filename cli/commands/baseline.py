"""`gotrace baseline`: run a Go service under load, again and again, and say how it behaves here."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gotrace.cli.options import (
    Command,
    Duration,
    Folder,
    Number,
    command_argument,
    exclude,
    given,
    need,
    option,
    say,
    schema_option_of,
)
from gotrace.cli.target import target
from gotrace.errors import UsageError
from gotrace.export.formats import TABLES
from gotrace.run import files
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.lab.plan import Version
    from gotrace.lab.report import Baseline

AUTO = "auto"
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class _Preload(Duration):
    """A duration, or until it is warm."""

    name = "duration|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return AUTO if value == AUTO else super().convert(value, param, ctx)


def _versions_options(command: _Decorated) -> _Decorated:
    """What to measure, other than a command."""
    for each in (
        click.option(
            "--container-tool", metavar="COMMAND", default="", help="Container tool.  [default: podman, or docker]"
        ),
        click.option(
            "--container-option",
            "container_options",
            multiple=True,
            metavar="OPTION",
            help="Extra option for podman run: --env=GOGC=50. May be repeated.",
        ),
        click.option(
            "--quota",
            type=Number(0, min_open=True),
            metavar="CPUS",
            help="CPU quota of a container, in CPUs: podman's --cpus.",
        ),
        click.option("--memory", metavar="SIZE", help="Memory limit of a container: 512m, 7g."),
        click.option(
            "--container",
            "images",
            multiple=True,
            metavar="[NAME=]IMAGE",
            help="A version to measure: this image's entry point, with the arguments after `--`.",
        ),
        click.option("--go", metavar="PATH", default="go", show_default=True, help="The `go` command to build with."),
        click.option(
            "--build",
            "builds",
            multiple=True,
            metavar="FLAGS",
            help="A version to measure: the PACKAGE after `--`, built with `go build FLAGS`.",
        ),
        click.option("--ab", "versions", multiple=True, metavar="NAME=COMMAND", help="A version to measure."),
        target(
            by=("name", "unit"),  # --container is an image
            not_with=("file", "versions", "builds", "images", "cpus"),
            help="A running Go process to put under load; it is not ended.",
        ),
    ):
        command = each(command)
    return command


# What a plan has, by the names of parameters.
_IN_THE_FILE = (
    *("load", "load_format", "versions", "runs", "preload", "ready", "cpus", "load_cpus", "max_drift", "explain", "seed"),
    *("events", "wakeups", "coldstart", "flame", "pprof"),
    *("pid", "builds", "go", "images", "memory", "quota", "container_options", "container_tool"),
)
_EXAMPLE = "gotrace baseline --load 'wrk -d10s http://127.0.0.1:8080/' --out out -- ./server"


@click.command(
    "baseline",
    cls=Command,
    topic="lab",
    short_help="Measure a Go service under load, run after run.",
    examples=[
        (_EXAMPLE, "starts the service ten times under that load, and writes a report"),
        (
            "gotrace baseline --load 'hey http://127.0.0.1:80/' --build '' --build=-gcflags=-l --out out -- ./cmd/server",
            "builds it twice and measures both in alternation",
        ),
    ],
    epilog="Afterwards: `gotrace compare`. Exit status: 0 measured as planned; 1 too few valid runs, or it could not "
    "be measured; 2 wrong usage; 5 the service or its load failed.",
)
@click.option(
    "-f", "--file", type=click.Path(), metavar="FILE", help="Read the plan from this YAML file instead of options."
)
@click.option("--load", "load", metavar="COMMAND", help="Command that puts the service under load: wrk, hey, ab, …")
@click.option("--load-format", metavar="TOOL", default="", help="Load tool whose output format the command prints.")
@_versions_options
@click.option(
    "-n",
    "--runs",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    metavar="N",
    help="Number of runs of each version.",
)
@click.option(
    "--preload",
    type=_Preload(),
    metavar="DURATION|auto",
    default="5s",
    show_default=True,
    help="Warm-up load before each run, not measured; auto: until the service is steady, at most 3 min.",
)
@click.option(
    "--ready",
    metavar="WHAT",
    help="tcp:PORT or http://HOST:PORT/PATH.  [default: when the load's address accepts connections]",
)
@click.option("--cpus", metavar="LIST", default="", help="CPUs that the service may use: 0-3,6.")
@click.option("--load-cpus", metavar="LIST", default="", help="CPUs that the load may use.")
@click.option(
    "--max-drift",
    type=Number(0),
    default=3,
    show_default=True,
    metavar="PERCENT",
    help="Maximum change of the machine's own speed during a valid run.",
)
@option("explain", help="Explain what the longest pauses of each run waited for; adds overhead.")
@click.option("--events", is_flag=True, help="Also probe threads' waits for a CPU, and work stealing between Ps.")
@click.option(
    "--wakeups", is_flag=True, help="Probe every goroutine switch: individual waits, and how long a goroutine stays on a P."
)
@click.option("--coldstart", is_flag=True, help="Trace each run's start from execve until ready, by stage.")
@click.option(
    "--flame/--no-flame",
    default=None,
    help="Add a run of each version at the end, not counted, for flame graphs of CPU time.  [default: with --build]",
)
@click.option(
    "--pprof",
    metavar="URL",
    help="Take live heap growth from the service's own /debug/pprof/heap at this address.",
)
@click.option("--seed", type=int, default=1, show_default=True, metavar="N", help="Seed for the order of the runs.")
@click.option(
    "--extend", type=click.IntRange(1), metavar="N", help="Add N more runs of each version to the report in --out."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--out", "folder", type=Folder(), required=True, metavar="DIR", help="Directory for the report.")
@option("force", help="Overwrite an existing report.")
@schema_option_of("report", lambda _: _schema())
@command_argument
def command(
    file: str | None,
    load: str | None,
    load_format: str,
    runs: int,
    preload: int | str,
    ready: str | None,
    cpus: str,
    load_cpus: str,
    max_drift: float,
    explain: bool,
    events: bool,
    wakeups: bool,
    coldstart: bool,
    flame: bool | None,
    pprof: str | None,
    seed: int,
    extend: int | None,
    dry_run: bool,
    folder: str,
    force: bool,
    pid: int | None,
    command: tuple[str, ...],
    **versions: Any,
) -> int:
    """Start a Go service, put it under load, measure it from outside, and end it, --runs times.

    The service is the command after `--`. Several versions are measured in alternation, in random order, with a new process
    for each run. DIR gets report.json with every run and whether it is valid, report.html to look at, and the raw
    events of each run.
    """
    from gotrace.cli.text import baseline as text
    from gotrace.lab import baseline, plan_file
    from gotrace.lab.load import parse_load
    from gotrace.lab.plan import Plan
    from gotrace.lab.pprof import url_of
    from gotrace.lab.service import Ready

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    if extend is not None:
        if idle := [*given(*_IN_THE_FILE, "file", "force", "dry_run"), *(["a command"] if command else [])]:
            raise UsageError(f"{idle[0]} and --extend are mutually exclusive", "the report says what is measured")
        from gotrace.lab.extend import extend as more_runs

        files.on_created = lambda _: None
        return _told(more_runs(Path(folder), extend, say), folder)
    if file is not None:
        if idle := [*given(*_IN_THE_FILE), *(["a command"] if command else [])]:
            raise UsageError(f"{idle[0]} and --file are mutually exclusive", "put it into the file")
        plan = plan_file.read(file)
    elif load is None:
        raise UsageError("give a load with --load, or a plan with --file", _EXAMPLE)
    else:
        parsed = parse_load(load, load_format)
        plan = Plan(
            versions=_versions(pid, command, **versions),
            pid=pid,
            load=parsed,
            runs=runs,
            warmup_ns=None if preload == AUTO else int(preload),
            ready=Ready.parse(ready) if ready is not None else plan_file.ready_of(parsed.command),
            seed=seed,
            most_drift=max_drift / 100,
            explained=5 if explain else 0,
            events=events,
            wakeups=wakeups,
            coldstart=coldstart,
            flame=bool(versions["builds"]) if flame is None else flame,
            pprof=url_of(pprof) if pprof is not None else None,
            cpus=plan_file.cpus("--cpus", cpus),
            load_cpus=plan_file.cpus("--load-cpus", load_cpus),
        )
    if dry_run:
        from gotrace.cli.text.doctor import of_the_host

        baseline.check(plan, Path(folder), force)
        for line in (*text.plan(plan, folder), *of_the_host()):
            click.echo(line)
        return 0
    files.on_created = lambda _: None  # there is one for each run
    return _told(baseline.run(plan, Path(folder), force, say), folder)


def _told(report: Baseline, folder: str) -> int:
    """Print it; the exit status."""
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import baseline as text
    from gotrace.lab.runs import enough

    with wanted((), None, TABLES, False, screen="table").streams() as streams:
        for stream, _ in streams:
            text.write(stream, report)
    say(f"Wrote {printable(folder)}/report.json." if report["runs"] else "Nothing was measured.")
    if report["cut_off"]:
        return 130
    return 0 if report["complete"] and enough(report) else 1


def _schema() -> dict[str, Any]:
    from gotrace.lab.report import schema

    return schema()


def _versions(
    pid: int | None,
    command: tuple[str, ...],
    versions: tuple[str, ...],
    builds: tuple[str, ...],
    go: str,
    images: tuple[str, ...],
    **limits: Any,
) -> tuple[Version, ...]:
    """What is measured, by whichever options say it. Raises UsageError."""
    from gotrace.lab.plan import Version

    exclude("pid", "versions", "builds", "images")
    exclude("pid", "cpus")
    need("--container", bool(images), "memory", "quota", "container_options", "container_tool")
    need("--build", bool(builds), "go")
    if pid is not None or versions:
        if command:
            raise UsageError("there is also a command after `--`", "omit it: --ab and --pid already say what to measure")
        found = _named(versions) if versions else [Version(f"pid {pid}", ())]
    elif images:
        found = _contained(images, command, **limits)
    elif not command:
        raise UsageError("say what to measure: a command after `--`, or versions with --ab", _EXAMPLE)
    elif builds:
        found = _built(builds, command, go)
    else:
        found = [Version(Path(command[0]).name, command)]
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise UsageError("two versions have the same name", "give each its own name")
    return tuple(found)


def _named(versions: tuple[str, ...]) -> list[Version]:
    from gotrace.lab.plan import Version

    found = []
    for text in versions:
        name, equals, words = text.partition("=")
        argv = _words(words)
        if not name or not equals or not argv:
            raise UsageError(f"cannot read --ab {text!r}", "write --ab NAME='./server --port 8080'")
        found.append(Version(name, argv))
    return found


def _built(builds: tuple[str, ...], command: tuple[str, ...], go: str) -> list[Version]:
    from gotrace.lab.build import Build
    from gotrace.lab.plan import Version

    found = []
    for text in builds:
        flags = _words(text)
        if flags is None:
            raise UsageError(f"cannot read --build {text!r}", "write --build='-gcflags=-l -trimpath'")
        build = Build(command[0], flags, go)
        found.append(Version(build.name, command, build))
    return found


def _contained(
    images: tuple[str, ...],
    command: tuple[str, ...],
    memory: str | None,
    quota: float | None,
    container_options: tuple[str, ...],
    container_tool: str,
) -> list[Version]:
    from gotrace.lab.container import Container, tool_of
    from gotrace.lab.plan import Version

    words = _words(container_tool)
    if words is None:
        raise UsageError(f"cannot read --container-tool {container_tool!r}", "write --container-tool='podman --remote'")
    tool, found = tool_of(words), []
    for text in images:
        name, equals, image = text.partition("=")
        image = image if equals else text
        name = name if equals else image.rpartition("/")[2].partition("@")[0]
        if not name or not image:
            raise UsageError(f"cannot read --container {text!r}", "write --container shop:1, or new=registry/shop:2")
        found.append(Version(name, command, container=Container(image, tool, memory, quota, container_options)))
    return found


def _words(text: str) -> tuple[str, ...] | None:
    """As a shell divides them; None for an odd quote."""
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return None
