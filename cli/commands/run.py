"""`gotrace run`: the steps of a pipeline, one after the other."""

from __future__ import annotations

import signal

import click

from gotrace.cli.options import Command, option, say
from gotrace.run import files


@click.command(
    "run",
    cls=Command,
    topic="lab",
    short_help="Run a pipeline: build, measure, compare, judge.",
    examples=[
        ("gotrace run pipeline.yaml", "runs its steps in order of their dependencies"),
        ("gotrace run pipeline.yaml --resume", "resumes where it was interrupted, or where something has changed"),
    ],
    epilog="Exit status: 0 if every step succeeded, else that of the first that did not: 1 a command or a gate failed,"
    " 2 wrong usage, 3 cannot tell, 4 not comparable, 5 the service or the load failed.",
)
@click.option("--only", multiple=True, metavar="STEP", help="Run only this step; may be repeated.")
@click.option("--resume", is_flag=True, help="Skip steps that are done and whose inputs have not changed.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@option("force")
@click.argument("pipeline", type=click.Path(), metavar="FILE")
def command(only: tuple[str, ...], resume: bool, dry_run: bool, force: bool, pipeline: str) -> int:
    """Run the steps of the pipeline in FILE (YAML): build, baseline, compare, gate, reproduce, topo, shell."""
    from gotrace.lab import pipeline as lab
    from gotrace.lab import pipeline_file
    from gotrace.lab.steps import Result
    from gotrace.text import printable

    resolved = lab.resolve(pipeline_file.read(pipeline), only, resume, force)
    if dry_run:
        from gotrace.cli.text.doctor import of_the_host

        for line in (*lab.describe(resolved), *of_the_host()):
            click.echo(line)
        return 0
    files.on_created = lambda _: None  # there are many
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended

    def ended(name: str, result: Result) -> None:
        for line in result.lines:
            click.echo(f"{name}: {line}")

    status = lab.run(resolved, say, ended)
    say(f"Wrote {printable(str(resolved.out / lab.STATE))}.")
    return status
