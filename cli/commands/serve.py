"""`gotrace serve`: the agent."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from gotrace.cli.options import Command, Duration, option, say
from gotrace.errors import UsageError


@click.command(
    "serve",
    cls=Command,
    topic="agent",
    short_help="Trace every Go process, always, and export metrics.",
    examples=[
        ("gotrace serve --select 'name=api' --min-age 0s", "traces every process of this name, on http://127.0.0.1:9464"),
        ("gotrace serve --systemd > /etc/systemd/system/gotrace.service", "makes it a service, with its rights and limits"),
    ],
)
@click.option("-f", "--file", "file", type=click.Path(), help="Settings, in YAML; options go before them.")
@click.option("--listen", metavar="HOST:PORT", help="Where /metrics is answered.  [default: 127.0.0.1:9464]")
@click.option("--otlp", metavar="URL", help="Send metrics to this collector too, by OTLP over HTTP.")
@option("select")
@click.option("--exclude", multiple=True, metavar="KEY=GLOB,…", help="Which processes not; may be repeated.")
@click.option("--min-age", type=Duration(), help="Leave younger processes alone.  [default: 30s]")
@click.option("--spool", metavar="DIR", help="Keep every minute in this folder, 100 MiB at most.")
@click.option("--explain-above", type=Duration(), help="Keep in --spool what each pause longer than this (5ms) waited for.")
@click.option("--prepare", is_flag=True, help="Compile the probes, keep them for later, and exit.")
@click.option("--systemd", is_flag=True, help="Print a unit for systemd that runs this gotrace, with -f FILE, and exit.")
@click.option("--check", is_flag=True, help="Look at the settings, and exit.")
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
    """Trace every Go process of this host as long as it runs, and answer on /metrics what Prometheus asks.

    Processes are found when they begin; observers, container runtimes and what belongs to Kubernetes itself are left alone
    unless they are selected.
    """
    import msgspec

    from gotrace.agent.serve import check as check_settings
    from gotrace.agent.serve import prepare as compile_probes
    from gotrace.agent.serve import serve
    from gotrace.agent.settings import SCHEMA, Settings
    from gotrace.agent.unit import require_usable, unit
    from gotrace.lab.yaml_file import read

    if prepare:
        return compile_probes()
    settings = read(file, Settings, SCHEMA) if file is not None else Settings()
    given: dict[str, Any] = {
        "listen": listen,
        "otlp": otlp,
        "select": list(select),
        "exclude": list(exclude),
        "spool": spool,
    }
    given["min_age"] = f"{min_age}ns" if min_age is not None else None
    given["explain_above"] = f"{explain_above}ns" if explain_above is not None else None
    settings = msgspec.structs.replace(settings, **{key: value for key, value in given.items() if value})
    settings.address(), settings.selection(), settings.explain_above_ns()
    if systemd:
        if listen or otlp or select or exclude or spool or min_age is not None or explain_above is not None:
            raise UsageError("a service's settings are in a file", "write them into agent.yaml, and add -f agent.yaml")
        require_usable(settings, file)
        click.echo(unit(own_command(), ["-f", os.path.abspath(file)] if file is not None else []), nl=False)
    elif check:
        check_settings(settings)
        say("the settings are right")
    else:
        serve(settings, say)
    return None


def own_command() -> list[str]:
    """What starts this gotrace again, from any folder."""
    name = os.path.abspath(sys.argv[0])
    return [name] if os.path.basename(name) == "gotrace" else [sys.executable, "-m", "gotrace.cli"]
