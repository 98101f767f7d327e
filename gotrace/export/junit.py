"""JUnit's XML, as Jenkins, GitLab and others read it: a suite of cases, each passed, failed, skipped or in error.

There is no standard; elements and attributes are those of the schema that Jenkins publishes (xunit-plugin's
junit-10.xsd), which the other readers take too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gotrace.text import printable

Outcome = Literal["passed", "failure", "skipped", "error"]


@dataclass(frozen=True)
class Case:
    """One case; ``message`` says why it did not pass, ``detail`` the rest of it."""

    name: str
    outcome: Outcome
    message: str = ""
    detail: str = ""


def document(suite: str, cases: Sequence[Case]) -> str:
    """A document of one suite. Characters that XML lacks are escaped as for a terminal."""
    from xml.etree import ElementTree

    outcomes = [case.outcome for case in cases]
    counts = {
        "tests": str(len(cases)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
    }
    root = ElementTree.Element("testsuites", {"name": printable(suite), **counts, "time": "0"})
    skipped = {"skipped": str(outcomes.count("skipped"))}
    within = ElementTree.SubElement(root, "testsuite", {"name": printable(suite), **counts, **skipped, "time": "0"})
    for case in cases:
        attributes = {"classname": printable(suite), "name": printable(case.name), "time": "0"}
        element = ElementTree.SubElement(within, "testcase", attributes)
        if case.outcome != "passed":
            told = ElementTree.SubElement(element, case.outcome, {"message": printable(case.message)})
            if case.outcome != "skipped":
                told.set("type", case.outcome)
                told.text = printable(case.detail)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'
