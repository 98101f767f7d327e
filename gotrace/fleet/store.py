"""A fleet's folder: ``DIR/<table>/date=YYYY-MM-DD/<name>.parquet``, written so that a crash leaves an addition whole
or not at all, and one that adds keeps others from adding.

Files are first written under names that no engine reads, then listed in a journal, with the files that they replace; then
those are removed, and they get their names. What is in the journal is done, whatever happens: `files_of` goes by it, and
the next that adds ends what was cut off. What was cut off before is gone. Nothing is ever written to a file that is there.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shlex
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from gotrace.errors import GotraceError, UsageError
from gotrace.fleet.tables import DAY_NS, DAY_OF, MOST_NAME, MOST_TEXT, TABLES, Row, Type, columns_of
from gotrace.run.files import held
from gotrace.text import printable

SCHEMA = "gotrace.fleet/1"
BUCKET = "s3://"  # of a folder that is no file's
ABOUT, JOURNAL = "fleet.json", ".adding"
_LOCK = ".lock"
_COMPRESSION = "zstd(3)"
_MAGIC = b"PAR1"  # at both ends of a Parquet file
_ENDING = 4 + len(_MAGIC)  # what ends it: how long its metadata before that is, as a little-endian int, and the magic
# Before the metadata we put this, and 4 bytes, the CRC-32 of all other bytes. Engines go by the offsets in the metadata, so
# they do not see it. The format has no checksum of its metadata, and with one bit of it flipped the library panics, or
# allocates any amount of memory and aborts.
SEAL = bytes.fromhex("67740f8a92d3c15e")
MOST_ROWS = 1 << 18  # of a table that are held at once: 20 MB
_SINGLE = (str, int, float, type(None))
_RANGES: Mapping[Type, range] = {
    "int": range(1 << 63),
    "signed": range(-1 << 63, 1 << 63),
    "bucket": range(-1 << 15, 1 << 15),
}
_LENGTHS: Mapping[Type, int] = {"name": MOST_NAME, "text": MOST_TEXT}


class Addition:
    """Rows on their way into a folder. Nothing of them is there before `adding` ends without an error.

    They go to the disk in parts, so that memory does not grow with them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stem = f"{time.time_ns():019}-{uuid.uuid4().hex[:8]}"
        self._columns: dict[str, dict[str, list[Any]]] = {}
        self._written: list[tuple[Path, Path]] = []
        self._replaced: list[str] = []

    def add(self, table: str, rows: Sequence[Row]) -> None:
        """Rows by names of columns; those that are left out are null."""
        if rows:
            names = {name: None for row in rows for name in row}
            self.add_columns(table, {name: [row.get(name) for row in rows] for name in names})

    def add_columns(self, table: str, columns: Mapping[str, Any]) -> None:
        """Many rows at once: equally long arrays or lists by name; a single value is that of all rows."""
        types = columns_of(table)
        if unknown := set(columns) - set(types):
            raise ValueError(f"{table} has no column {sorted(unknown)}")
        lengths = {len(each) for each in columns.values() if not isinstance(each, _SINGLE)}
        (length,) = lengths or {1}
        held = self._columns.setdefault(table, {name: [] for name in types})
        for name, column in held.items():
            values = columns.get(name)
            if isinstance(values, _SINGLE):
                column += [values] * length
            else:
                column += values.tolist() if hasattr(values, "tolist") else values
        if len(held["source"]) >= MOST_ROWS:
            self._flush(table)

    def replace(self, files: Sequence[str]) -> None:
        """These files of the folder go when what was added comes."""
        self._replaced += files

    def _flush(self, table: str) -> None:
        for day, data in _by_day(table, self._columns.pop(table)):
            folder = self._folder / table / f"date={day}"
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{self._stem}-{len(self._written)}.parquet"
            self._written.append((folder / f".{name}.part", folder / name))
            _write_parquet(self._written[-1][0], data)

    def complete(self) -> None:
        """Make all of it visible."""
        for table in list(self._columns):
            self._flush(table)
        if not self._written:
            return
        names = [[str(each.relative_to(self._folder)) for each in pair] for pair in self._written]
        replaced = [os.path.relpath(each, self._folder) for each in self._replaced]
        _synced(self._folder / JOURNAL, json.dumps({"replaced": replaced, "renamed": names}).encode())
        _end(self._folder)


def check_columns(table: str, columns: Mapping[str, Any]) -> None:
    """Whether `Addition.add_columns` can take columns of values that somebody else wrote. Raises ValueError."""
    types = columns_of(table)
    if len({len(each) for each in columns.values() if not isinstance(each, _SINGLE)}) > 1:
        raise ValueError(f"columns of {table} differ in length")
    for name, values in columns.items():
        each = [values] if isinstance(values, _SINGLE) else values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(each, (list, tuple)) or not all(_fits(value, types[name]) for value in each):
            raise ValueError(f"{table}.{name} has a value that is out of bounds, or of another type")


def _fits(value: object, type_: Type) -> bool:
    if value is None:
        return True
    if (numbers := _RANGES.get(type_)) is not None:
        return isinstance(value, int) and not isinstance(value, bool) and value in numbers
    if (most := _LENGTHS.get(type_)) is not None:
        return isinstance(value, str) and len(value) <= most
    if type_ == "texts":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return isinstance(value, bool if type_ == "bool" else (int, float))


@contextlib.contextmanager
def adding(folder: str, patience_s: float = 0) -> Iterator[Addition]:
    """Add to a fleet's folder, made if it is not there, once nobody else adds, for whom one waits ``patience_s`` seconds.

    Raises GotraceError, UsageError for one of another kind.
    """
    path = _checked(folder, make=True)
    with held(path, _LOCK, patience_s):
        _end(path)
        addition = Addition(path)
        try:
            yield addition
            addition.complete()
        except BaseException as error:
            _end(path)
            if not isinstance(error, OSError):
                raise
            raise GotraceError(
                f"cannot write {printable(folder)}: {error.strerror}",
                "free some space, then try again: this step changed nothing",
            ) from None


def check(folder: str) -> Path:
    """The folder of a fleet. Raises UsageError if it is none."""
    return _checked(folder, make=False)


class Known(NamedTuple):
    """A source that was added: how many bytes of it, and from where."""

    upto_bytes: int
    path: str


def sources_in(folder: str) -> dict[str, Known]:
    """What has been added to a folder, by the source's name.

    Raises UsageError for a folder of another kind.
    """
    found: dict[str, Known] = {}
    for name, upto, path in _read(folder, "source", "source", "upto_bytes", "path"):
        found[name] = max(found.get(name, Known(0, "")), Known(upto or 0, path))
    return found


def absent_in(folder: str) -> set[str]:
    """The URLs of those that could not be asked the last time."""
    rows = sorted(_read(folder, "absent", "time_ns", "url", "problem"), key=lambda row: int(row[0]))
    return {url for url, problem in {url: problem for _, url, problem in rows}.items() if problem is not None}


def _read(folder: str, table: str, *names: str) -> Iterator[tuple[Any, ...]]:
    """Columns of a table, without DuckDB."""
    from arro3.io import read_parquet

    for file in files_of(Path(folder), table):
        try:
            data = Path(file).read_bytes()
            if not _is_whole(data):
                raise ValueError  # the library would panic, and say so by itself
            found = read_parquet(io.BytesIO(data)).read_all()
            columns = [found.column(name).to_pylist() for name in names]
        except BaseException as error:  # whatever the library finds in a damaged file
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if table == "source":
                raise GotraceError(
                    f"{printable(file)} is damaged, and says what was added",
                    "restore it from a copy, or remove it: what it lists is counted twice if it is added again",
                ) from None
            continue  # `database.opened` tells of it
        yield from zip(*columns, strict=True)


def _is_whole(data: bytes) -> bool:
    """Whether a Parquet file begins and ends as it should, and is as we wrote it if it has our checksum."""
    if len(data) < len(_MAGIC) + _ENDING or not data.startswith(_MAGIC) or not data.endswith(_MAGIC):
        return False
    metadata = _metadata_at(data)
    at = metadata - len(SEAL) - 4
    if at < len(_MAGIC) or not data.startswith(SEAL, at):
        return SEAL not in data  # if it stands elsewhere, the length of the metadata is damaged
    return data[metadata - 4 : metadata] == _crc(data[:at], data[metadata:])


def _sealed(data: memoryview) -> bytes:
    """A Parquet file with our checksum in it."""
    at = _metadata_at(data)
    return b"".join((data[:at], SEAL, _crc(data[:at], data[at:]), data[at:]))


def _metadata_at(data: bytes | memoryview) -> int:
    return len(data) - _ENDING - int.from_bytes(data[-_ENDING : -len(_MAGIC)], "little")


def _crc(before: bytes | memoryview, after: bytes | memoryview) -> bytes:
    return zlib.crc32(after, zlib.crc32(before)).to_bytes(4, "little")


def text_of(name: str) -> str:
    """A name as it stands in a fleet: with what is not UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def files_of(folder: Path, table: str) -> list[str]:
    """The Parquet files of a table, in the order of days; with what a journal promises, which may be halfway done."""
    replaced, renamed = _journal(folder)
    found = {str(each) for each in (folder / table).glob("date=*/*.parquet")}
    found -= {str(folder / each) for each in replaced}
    for part, final in renamed:
        if (folder / final).parent.parent.name == table:
            found.discard(str(folder / final))
            found.add(str(next((each for each in (folder / part, folder / final) if each.exists()), folder / final)))
    return sorted(found)


def _journal(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """(files that go, files that are renamed), none without a journal or of one that was not written to its end, or names
    what is no file of a table."""
    try:
        found = json.loads((folder / JOURNAL).read_bytes())
        replaced, renamed = list(found["replaced"]), [(part, final) for part, final in found["renamed"]]
        whole = all(map(_is_of_table, [*replaced, *itertools.chain(*renamed)]))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return [], []
    return (replaced, renamed) if whole else ([], [])


def _is_of_table(name: str) -> bool:
    table, day, *file = PurePosixPath(name).parts
    return table in TABLES and day.startswith("date=") and len(file) == 1 and file[0].endswith((".parquet", ".part"))


def _checked(folder: str, make: bool) -> Path:
    if folder.startswith(BUCKET):
        raise UsageError(
            f"{printable(folder)} can only be read", f"use a folder here, then copy it: aws s3 sync --delete DIR {BUCKET}…"
        )
    path = Path(folder)
    about = path / ABOUT
    try:
        folder.encode()
        if make:
            path.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            raise UsageError(f"{printable(folder)} is not a folder", "give a folder filled by `gotrace fleet add`")
        if not about.exists():
            if not make:
                raise UsageError(f"{printable(folder)} is no fleet", "create one with `gotrace fleet add DIR FILE...`")
            ours = (_LOCK, f".{ABOUT}")  # of others too, who make it just now
            if any(not each.name.startswith(ours) for each in path.iterdir()) and not about.exists():
                raise UsageError(f"{printable(folder)} is not a fleet, and is not empty", "give a new or empty folder")
            part = path / f".{ABOUT}.{uuid.uuid4().hex}"
            try:
                _synced(part, json.dumps({"schema": SCHEMA}).encode() + b"\n")
                os.rename(part, about)
            finally:
                part.unlink(missing_ok=True)
        data = about.read_bytes()
    except FileExistsError:
        raise UsageError(f"{printable(folder)} is not a folder", "give a new folder") from None
    except UnicodeEncodeError:
        raise UsageError(f"{printable(folder)} is not a UTF-8 name", "give another folder") from None
    except OSError as error:
        raise GotraceError(
            f"cannot use {printable(folder)}: {error.strerror}", "give another folder, or free some space"
        ) from None
    check_about(data, folder)
    return path


def check_about(data: bytes | str, folder: str) -> None:
    """What a folder says of itself. Raises GotraceError if that is damaged, UsageError for another kind or version."""
    file = f"{folder.rstrip('/')}/{ABOUT}"
    try:
        about = json.loads(data)
    except (ValueError, RecursionError):
        raise GotraceError(f"{printable(file)} is damaged", _mending(folder, file)) from None
    found = about.get("schema") if isinstance(about, dict) else None
    if not isinstance(found, str) or not found.startswith(SCHEMA.partition("/")[0]):
        raise UsageError(
            f"{printable(folder)} is no fleet: its {ABOUT} is another program's",
            "give a folder filled by `gotrace fleet add`",
        )
    if found != SCHEMA:
        raise UsageError(f"{printable(folder)} is a fleet in a different version", f"this gotrace reads {SCHEMA}")


def _mending(folder: str, file: str) -> str:
    """What to do where `ABOUT` is damaged: it may be another program's, unless our tables are beside it."""
    exact = printable(file) == file  # or a command would be about another file
    if folder.startswith(BUCKET):
        return "copy the folder again" + (f": aws s3 sync --delete DIR {folder}" if exact else "")
    if not any(any(Path(folder).glob(f"{table}/date=*")) for table in TABLES):
        return "give a folder filled by `gotrace fleet add`"
    content = json.dumps({"schema": SCHEMA})
    return f"write it again: echo {shlex.quote(content)} > {shlex.quote(file)}" if exact else f"write into it: {content}"


def _end(path: Path) -> None:
    """Do what the journal says, and remove what an addition left that did not come so far."""
    replaced, renamed = _journal(path)
    for name in replaced:
        (path / name).unlink(missing_ok=True)
    for part, final in renamed:
        with contextlib.suppress(FileNotFoundError):  # it was renamed before
            os.rename(path / part, path / final)
    for folder in {(path / name).parent for name in (*replaced, *(final for _, final in renamed))}:
        _sync(folder)
    for left in path.glob("*/date=*/.*.part"):
        left.unlink(missing_ok=True)
    (path / JOURNAL).unlink(missing_ok=True)


def _write_parquet(path: Path, data: Any) -> None:
    from arro3.io import write_parquet

    buffer = io.BytesIO()  # of a file that cannot be written the library dies
    write_parquet(data, buffer, compression=_COMPRESSION, max_row_group_size=1 << 20)
    _synced(path, _sealed(buffer.getbuffer()))


def _synced(path: Path, data: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _by_day(table: str, columns: Mapping[str, list[Any]]) -> Iterator[tuple[str, Any]]:
    """(day, Arrow table with all columns) of rows of any days."""
    import numpy as np
    from arro3.core import RecordBatch, Schema, Table

    types = columns_of(table)
    length = len(columns["source"])
    when = np.asarray(columns[DAY_OF[table]], np.int64) if table in DAY_OF else np.full(length, time.time_ns())
    days = when // DAY_NS
    schema = Schema([_field(name, type_) for name, type_ in types.items()])
    for day in np.unique(days).tolist():
        chosen = np.flatnonzero(days == day).tolist()
        arrays = []
        for name, type_ in types.items():
            values = columns[name] if len(chosen) == length else [columns[name][at] for at in chosen]
            arrays.append(_array(values, type_))
        batch = RecordBatch.from_arrays(arrays, schema=schema)
        yield time.strftime("%Y-%m-%d", time.gmtime(day * 86_400)), Table.from_batches([batch])


def _array(values: list[Any], type_: Type) -> Any:
    import numpy as np
    from arro3.core import Array, list_array

    if type_ == "texts":
        each = [one or [] for one in values]
        ends = np.cumsum([0, *map(len, each)]).astype(np.int32)
        return list_array(Array(ends), _array([text for one in each for text in one], "text"), type=_arrow_type(type_))
    try:
        return Array(values, _arrow_type(type_))
    except UnicodeEncodeError:  # a name that somebody chose, of bytes that are not UTF-8
        return Array([each and text_of(each) for each in values], _arrow_type(type_))


def _field(name: str, type_: Type) -> Any:
    from arro3.core import Field

    return Field(name, _arrow_type(type_), nullable=True)


def _arrow_type(type_: Type) -> Any:
    from arro3.core import DataType, Field

    if type_ == "texts":
        return DataType.list(Field("", DataType.utf8(), nullable=True))
    made = {"bool": DataType.bool, "bucket": DataType.int16, "float": DataType.float64}
    return made.get(type_, DataType.int64 if type_ in _RANGES else DataType.utf8)()
