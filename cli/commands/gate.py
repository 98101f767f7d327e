"""`gotrace gate`: may this version be released? What cannot be shown is no pass."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from gotrace.cli.options import Command, given, output_options, percent, say, schema_option_of
from gotrace.errors import UsageError
from gotrace.export.formats import GATES
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.analysis.stats.verdicts import Outcome
    from gotrace.lab.gate import Gated, Rules


@click.command(
    "gate",
    cls=Command,
    topic="lab",
    short_help="Decide whether a measured version may be released.",
    examples=[
        ("gotrace gate out-b --against out-a -f gate.yaml", "judges a version against the one before"),
        ("gotrace gate out --require 'latency.p99 <= 28ms'", "judges a version by fixed limits"),
    ],
    epilog="Exit status: 0 pass, 1 fail, 3 inconclusive, 4 not comparable, 5 the service or its load failed.",
)
@click.option("--against", type=click.Path(), metavar="DIR", help="The report of the version to compare with.")
@click.option("--judge", "version", metavar="NAME", help="The version to judge, if the report has several.")
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="Rules: margins and requirements, in YAML.")
@percent("--margin", 5, "How much worse a metric may be.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Compare this metric instead of the primary ones; may be repeated.",
)
@click.option("--require", multiple=True, metavar="TEXT", help="Required limit: 'stw.total.p99 <= 350us'; may be repeated.")
@click.option(
    "--looks",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    metavar="N",
    help="Planned number of looks at these runs.",
)
@click.option("--inconclusive", type=click.Choice(["pass", "fail"]), help="Verdict to give instead of inconclusive.")
@click.option("--anyway", is_flag=True, help="Judge reports even if not comparable; then no change passes or fails.")
@click.option("--listen", metavar="[HOST:]PORT", help="Answer over HTTP at this address instead, for rollouts.")
@output_options(GATES, screen=("table", "json", "md", "junit"))
@schema_option_of("rules in a file", lambda _: _schema())
@click.argument("folder", type=click.Path(), metavar="DIR")
def command(folder: str, against: str | None, version: str | None, anyway: bool, **options: Any) -> int:
    """Decide whether the version in DIR may be released: pass, fail or inconclusive. A pass has to be earned.

    DIR was written by `gotrace baseline --out`. In a report with two versions, the second is compared with the first.
    """
    from gotrace.cli.outputs import wanted
    from gotrace.cli.text import gate as text
    from gotrace.lab.gate import judge, report_of, sides
    from gotrace.lab.report import file_of

    if against is not None and os.path.realpath(against) == os.path.realpath(folder):
        raise UsageError("a report was given twice", "give another report to --against")
    rules = _rules(options["file"], options["margin"] / 100, options["metrics"], options["require"], options["looks"])

    def gate() -> Gated:
        before = report_of(against) if against is not None else None
        return judge(*sides(report_of(folder), before, version), rules, anyway)

    inconclusive: Outcome = options["inconclusive"] or "inconclusive"
    if options["listen"] is not None:
        return _listen(options["listen"], gate, inconclusive)
    read = [str(file_of(path)) for path in (folder, against) if path is not None]
    results = wanted(
        options["outputs"], options["format_"], GATES, options["force"], "table", inputs=[*read, options["file"]]
    )
    gated = gate()
    with results.streams() as streams:
        for stream, kind in streams:
            text.write(stream, kind, gated, inconclusive)
    _tell_github(gated)
    if gated.problem is not None:
        raise gated.problem
    return gated.ended(inconclusive)


def _schema() -> dict[str, Any]:
    from gotrace.lab.gate_file import schema

    return schema()


def _rules(file: str | None, margin: float, metrics: tuple[str, ...], require: tuple[str, ...], looks: int) -> Rules:
    from gotrace.lab.gate import Rules
    from gotrace.lab.metrics import find
    from gotrace.lab.requirements import parse_all

    requirements = parse_all(require)
    named = {find(name).name: margin for name in metrics} or None
    if file is None:
        return Rules(margin, named, requirements, looks)
    if both := given("margin", "metrics", "looks"):
        raise UsageError(f"{both[0]} and --file are mutually exclusive", "put it into the file")
    from gotrace.lab.gate_file import rules_of

    rules = rules_of(file)
    return Rules(rules.margin, rules.margins, (*rules.requirements, *requirements), rules.looks)


def _listen(text: str, gate: Callable[[], Gated], inconclusive: Outcome) -> int:
    from gotrace.addresses import address_of
    from gotrace.lab.gate_server import serve

    if idle := given("outputs", "format_", "force"):
        raise UsageError(
            f"{idle[0]} and --listen are mutually exclusive", "a listening gate answers in JSON and writes no files"
        )
    address = address_of(text)
    if address[0] not in ("127.0.0.1", "::1", "localhost"):
        say("Anyone who can reach that address gets an answer.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve(address, gate, inconclusive, say)
    return 0


def _tell_github(gated: Gated) -> None:
    """GitHub's runner takes annotations from standard error as well, and a summary from the end of a file."""
    from gotrace.cli.text import gate as text

    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in text.annotated(gated):
            say(line)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(text.summary(gated))
        except OSError as error:
            say(f"gotrace: cannot write the summary to {printable(path)}: {error.strerror}")
