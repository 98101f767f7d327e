"""What others published, from a file of the reader's: group,service,metric,value,source."""

from __future__ import annotations

import csv
from typing import TextIO

from gotrace.errors import GotraceError, UsageError
from gotrace.fleet.show_sections import Claim
from gotrace.text import printable

COLUMNS = ("group", "service", "metric", "value", "source")


def claims_of(path: str) -> list[Claim]:
    """The rows of a CSV file with these columns. Raises GotraceError, UsageError."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return _read(file, path)
    except OSError as error:
        raise GotraceError(f"cannot read {printable(path)}: {error.strerror}", "give another file with --claims") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{printable(path)} is not a CSV file: {printable(str(error))}", _HINT) from None


_HINT = f"its first line is {','.join(COLUMNS)}"


def _read(file: TextIO, path: str) -> list[Claim]:
    rows = csv.reader(file, strict=True)
    if tuple(next(rows, ())) != COLUMNS:
        raise UsageError(f"{printable(path)} has different columns from a claims file", _HINT)
    found = []
    for row in rows:
        if len(row) != len(COLUMNS) or not all(cell.strip() for cell in row):
            raise UsageError(
                f"line {rows.line_num} of {printable(path)} is not a claim",
                f"give all of {', '.join(COLUMNS)}; source is who makes the claim",
            )
        found.append(Claim(*row))
    return found
