"""`gotrace serve`: the agent."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import click

from gotrace.cli.options import Command, Duration, option, say
from gotrace.errors import GotraceError, UsageError

_READ_AGAIN_S = 2  # the agent does nothing else in that time, and its ring holds the events of about twice that


@click.command(
    "serve",
    cls=Command,
    topic="agent",
    short_help="Trace every Go process continuously and export metrics.",
    examples=[
        (
            "gotrace serve --select 'name=api' --min-age 0s",
            "traces processes of this name; see http://127.0.0.1:9464/metrics",
        ),
        (
            "gotrace serve --systemd > /etc/systemd/system/gotrace.service",
            "writes a systemd unit with the capabilities and limits it needs",
        ),
    ],
)
# click asks access(2), which knows no capabilities.
@click.option(
    "-f", "--file", "file", type=click.Path(readable=False), metavar="FILE", help="Settings in YAML; options override them."
)
@click.option("--listen", metavar="HOST:PORT", help="Address to serve /metrics on.  [default: 127.0.0.1:9464]")
@click.option("--otlp", metavar="URL", help="Also push metrics to this collector, by OTLP over HTTP.")
@option("select")
@click.option("--exclude", multiple=True, metavar="KEY=GLOB,…", help="Skip these processes; may be repeated.")
@click.option("--min-age", type=Duration(), help="Skip processes younger than this.  [default: 30s]")
@click.option("--spool", metavar="DIR", help="Keep per-minute data in this directory, up to 100 MiB.")
@click.option("--explain-above", type=Duration(), help="Keep in --spool the causes of each pause longer than this (5ms).")
@click.option("--prepare", is_flag=True, help="Compile the probes into the cache and exit.")
@click.option("--systemd", is_flag=True, help="Print a systemd unit that runs this gotrace (with -f FILE) and exit.")
@click.option("--check", is_flag=True, help="Check the settings and exit.")
def command(
    file: str | None,
    listen: str | None,
    otlp: str | None,
    select: tuple[str, ...],
    exclude: tuple[str, ...],
    min_age: int | None,
    spool: str | None,
    explain_above: int | None,
    prepare: bool,
    systemd: bool,
    check: bool,
) -> None:
    """Trace every Go process on this host continuously, and serve the results to Prometheus on /metrics.

    New processes are picked up as they start. Observability agents, container runtimes and Kubernetes itself are skipped
    unless selected by name, path or pid.
    """
    import msgspec

    from gotrace.agent.serve import check as check_settings
    from gotrace.agent.serve import prepare as compile_probes
    from gotrace.agent.serve import serve
    from gotrace.agent.settings import SCHEMA, Settings
    from gotrace.agent.unit import require_usable, unit
    from gotrace.kernel.child import Child
    from gotrace.lab.yaml_file import read

    if prepare:
        return compile_probes()
    given: dict[str, Any] = {
        "listen": listen,
        "otlp": otlp,
        "select": list(select),
        "exclude": list(exclude),
        "spool": spool,
    }
    given["min_age"] = f"{min_age}ns" if min_age is not None else None
    given["explain_above"] = f"{explain_above}ns" if explain_above is not None else None

    def settings_now(patience_s: float | None = None) -> Settings:
        # In a child: the agent is to stay small, and YAML's reader takes two megabytes.
        settings = Settings()
        if file is not None:
            child = Child(read, file, Settings, SCHEMA)
            if patience_s is not None and not child.is_done(patience_s):
                child.abandon()
                raise GotraceError(f"{file} could not be read in {patience_s} s")
            settings = child.result()
        return msgspec.structs.replace(settings, **{key: value for key, value in given.items() if value})

    settings = settings_now()
    settings.address(), settings.selection(), settings.explain_above_ns()
    if systemd:
        if listen or otlp or select or exclude or spool or min_age is not None or explain_above is not None:
            raise UsageError("--systemd takes its settings from a file", "put them into agent.yaml and add -f agent.yaml")
        require_usable(settings, file)
        click.echo(unit(own_command(), ["-f", os.path.abspath(file)] if file is not None else []), nl=False)
    elif check:
        check_settings(settings)
        say("the configuration is valid")
    else:
        serve(settings, say, functools.partial(settings_now, _READ_AGAIN_S) if file is not None else None)
    return None


def own_command() -> list[str]:
    """What starts this gotrace again, from any folder."""
    name = os.path.abspath(sys.argv[0])
    return [name] if os.path.basename(name) == "gotrace" else [sys.executable, "-m", "gotrace.cli"]
