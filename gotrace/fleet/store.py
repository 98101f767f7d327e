"""A fleet's folder: ``DIR/<table>/date=YYYY-MM-DD/<name>.parquet``, written so that a crash leaves an addition whole
or not at all, and one that adds keeps others from adding.

Files are first written under names that no engine reads, then listed in a journal, then renamed; what the next that
comes finds in a journal it takes back. Nothing is ever written to a file that is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gotrace.errors import GotraceError, UsageError
from gotrace.fleet.tables import DAY_OF, Row, Type, columns_of
from gotrace.text import printable

SCHEMA = "gotrace.fleet/1"
_ABOUT, _LOCK, _JOURNAL = "fleet.json", ".lock", ".adding"
_DAY_NS = 86_400 * 10**9
_COMPRESSION = "zstd(3)"


class Addition:
    """Rows on their way into a folder. Nothing of them is there before `adding` ends without an error."""

    def __init__(self) -> None:
        self.rows: defaultdict[str, list[Row]] = defaultdict(list)
        self._tables: list[tuple[str, Any]] = []

    def add(self, table: str, rows: Sequence[Row]) -> None:
        """Rows by names of columns; those that are left out are null."""
        self.rows[table] += rows

    def add_columns(self, table: str, columns: Mapping[str, Any]) -> None:
        """Many rows at once: equally long arrays or lists by name; a single value is that of all rows."""
        self._tables.append((table, columns))


@contextlib.contextmanager
def adding(folder: str) -> Iterator[Addition]:
    """Add to a fleet's folder, made if it is not there. Raises GotraceError, UsageError for one of another kind."""
    path = _checked(folder, make=True)
    with _locked(path):
        _take_back(path)
        addition = Addition()
        yield addition
        try:
            _write(path, addition)
        except OSError as error:
            _take_back(path)
            raise GotraceError(
                f"cannot write {printable(folder)}: {error.strerror}", "nothing was added; free some space, then add again"
            ) from None


def check(folder: str) -> Path:
    """The folder of a fleet. Raises UsageError if it is none."""
    return _checked(folder, make=False)


def is_being_added_to(folder: Path) -> bool:
    """Whether files of an addition may be there that is not complete."""
    return (folder / _JOURNAL).exists()


def files_of(folder: Path, table: str) -> list[str]:
    """The Parquet files of a table, in the order of days."""
    return sorted(str(each) for each in (folder / table).glob("date=*/*.parquet"))


def _checked(folder: str, make: bool) -> Path:
    path = Path(folder)
    about = path / _ABOUT
    try:
        if make and not path.exists():
            path.mkdir(parents=True)
        if not path.is_dir():
            raise UsageError(f"{printable(folder)} is no folder", "give the folder that `gotrace fleet add` filled")
        if not about.exists():
            if not make or any(each.name != _LOCK for each in path.iterdir()):
                raise UsageError(f"{printable(folder)} is no fleet", "`gotrace fleet add DIR FILE...` makes one")
            about.write_text(json.dumps({"schema": SCHEMA}) + "\n")
        found = json.loads(about.read_bytes())["schema"]
    except OSError as error:
        raise GotraceError(f"cannot use {printable(folder)}: {error.strerror}", "give another folder") from None
    except (ValueError, TypeError, KeyError):
        found = None
    if found != SCHEMA:
        raise UsageError(f"{printable(folder)} is a fleet of another version", f"this gotrace reads {SCHEMA}")
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path / _LOCK, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GotraceError(
                f"another gotrace adds to {printable(str(path))} just now", "try again when it has ended"
            ) from None
        yield


def _take_back(path: Path) -> None:
    """Remove what an addition left that did not come to its end."""
    journal = path / _JOURNAL
    with contextlib.suppress(FileNotFoundError, ValueError):
        for name in json.loads(journal.read_bytes()):
            (path / name).unlink(missing_ok=True)
    for part in path.glob("*/date=*/.*.part"):
        part.unlink(missing_ok=True)
    journal.unlink(missing_ok=True)


def _write(path: Path, addition: Addition) -> None:
    name = f"{time.time_ns():019}-{uuid.uuid4().hex[:8]}.parquet"
    written: list[tuple[Path, Path]] = []
    for table, day, data in _by_day(addition):
        folder = path / table / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{name}.part"
        _write_parquet(part, data)
        written.append((part, folder / name))
    if not written:
        return
    journal = path / _JOURNAL
    _synced(journal, json.dumps([str(final.relative_to(path)) for _, final in written]).encode())
    for part, final in written:
        os.rename(part, final)
    journal.unlink()


def _write_parquet(path: Path, data: Any) -> None:
    from arro3.io import write_parquet

    with open(path, "wb") as file:
        write_parquet(data, file, compression=_COMPRESSION, max_row_group_size=1 << 20)
        file.flush()
        os.fsync(file.fileno())


def _synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _by_day(addition: Addition) -> Iterator[tuple[str, str, Any]]:
    """(table, day, Arrow table) of all that is to be added."""
    found: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    parts = [(table, _columns(rows)) for table, rows in addition.rows.items() if rows] + addition._tables
    for table, columns in parts:
        for day, batch in _batches(table, columns):
            found[table, day].append(batch)
    from arro3.core import Table

    for (table, day), batches in sorted(found.items()):
        yield table, day, Table.from_batches(batches)


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    names = {name: None for row in rows for name in row}
    return {name: [row.get(name) for row in rows] for name in names}


def _batches(table: str, columns: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Record batches with all columns of a table, a day each."""
    import numpy as np
    from arro3.core import RecordBatch, Schema

    types = columns_of(table)
    if unknown := set(columns) - set(types):
        raise ValueError(f"{table} has no column {sorted(unknown)}")
    lengths = {len(each) for each in columns.values() if not isinstance(each, (str, int, float, type(None)))}
    (length,) = lengths or {1}
    full = {name: _full(columns.get(name), length) for name in types}
    when = np.asarray(full[DAY_OF[table]], np.int64) if table in DAY_OF else np.full(length, time.time_ns())
    days = when // _DAY_NS
    schema = Schema([_field(name, type_) for name, type_ in types.items()])
    for day in np.unique(days).tolist():
        chosen = np.flatnonzero(days == day)
        arrays = [_array(full[name], chosen, len(chosen) == length, type_) for name, type_ in types.items()]
        yield time.strftime("%Y-%m-%d", time.gmtime(day * 86_400)), RecordBatch.from_arrays(arrays, schema=schema)


def _full(values: Any, length: int) -> Any:
    return [values] * length if isinstance(values, (str, int, float, type(None))) else values


def _array(values: Any, chosen: Any, whole: bool, type_: Type) -> Any:
    import numpy as np
    from arro3.core import Array, DataType, list_array

    if not whole:
        values = values[chosen] if isinstance(values, np.ndarray) else [values[at] for at in chosen.tolist()]
    if type_ == "texts":
        each = [one or [] for one in values]
        ends = np.cumsum([0, *map(len, each)]).astype(np.int32)
        texts = Array([text for one in each for text in one], DataType.utf8())
        return list_array(Array(ends), texts, type=_arrow_type(type_))
    return Array(values, _arrow_type(type_))


def _field(name: str, type_: Type) -> Any:
    from arro3.core import Field

    return Field(name, _arrow_type(type_), nullable=True)


def _arrow_type(type_: Type) -> Any:
    from arro3.core import DataType, Field

    if type_ == "texts":
        return DataType.list(Field("", DataType.utf8(), nullable=True))
    made = {"text": DataType.utf8, "int": DataType.int64, "bucket": DataType.int16, "float": DataType.float64}
    return made.get(type_, DataType.bool)()
