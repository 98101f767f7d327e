"""A fleet's folder in DuckDB: every table of `gotrace.fleet.tables` as a view, and views over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gotrace.errors import Exit, GotraceError, UsageError
from gotrace.fleet.buckets import files_in, quoted
from gotrace.fleet.store import BUCKET, check, files_of, text_of
from gotrace.fleet.tables import SQL_TYPES, TABLES, columns_of
from gotrace.text import count_text, installing, printable

# Of a histogram, or its longest values: not of a run that does not count.
VALID = (
    "not exists (select 1 from run where not run.valid and run.source = part.source and run.host = part.host "
    "and run.start_ns = part.start_ns)"
)
# What the other views are made of, in the order in which they can be made. `machine`: the latest of each fingerprint; a
# host is emulated if one of its sources says so, for not all of them name the processor.
VIEWS = {
    "machine": "select * exclude (source) replace (bool_or(emulated) over (partition by host) as emulated) from host "
    "qualify row_number() over (partition by host, fingerprint order by seen_ns desc) = 1",
    # All values of a metric together: of the parts of a series (by reason) too.
    "merged": "select host, fingerprint, service, version, metric, start_ns, bucket, sum(n)::bigint as n "
    f"from hist part where {VALID} group by all",
}
# Rows ("part") with what their machine is made of.
JOINED = "left join machine on part.host = machine.host and part.fingerprint = machine.fingerprint"
REAL = "not coalesce(machine.emulated, false)"
# `add` knows the sources of a damaged file by another one, and does not read them again.
_MEND = "restore it from a copy of the fleet, or add (or collect) everything again in a new folder"
# Whatever has a row in one of the latter has one in the first.
_ALWAYS = {"total": ("hist", "worst"), "hist": ("worst",)}
_LIMITS = {"memory_limit": "400MB", "threads": "2", "preserve_insertion_order": "false"}


class UnreadableError(GotraceError):
    """Of a file of the fleet, found while it was read."""


class SkippedError(GotraceError):
    """Of files of the fleet that were left out, without which there is nothing to show."""

    exit_code = Exit.INCONCLUSIVE


@dataclass
class Database:
    """An open fleet, of which nothing outside ``folder`` (a path, or a URL) is read.

    ``broken`` are files that were left out, and why; ``files`` those of each table that are read; ``notes`` what else is to
    be told with results.
    """

    folder: str
    connection: Any
    files: dict[str, list[str]] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a query of ours."""
        given = [text_of(each) if isinstance(each, str) else each for each in parameters]
        try:
            found: list[tuple[Any, ...]] = self.connection.execute(sql, given).fetchall()
        except duckdb().IOException as error:  # somebody compacts, or removes files
            raise _unread(error) from None
        except duckdb().Error as error:
            raise self.damage() or error from None
        return found

    def table_of(self, file: str) -> str:
        """That of which a file is, or a folder."""
        return file.removeprefix(f"{self.folder}/").partition("/")[0]

    def damage(self) -> UnreadableError | None:
        """Of a file that begins and ends as it should, so that it was not left out, and is damaged between; or None."""
        for table, files in self.files.items():
            every = ", ".join(f'"{name}"' for name in columns_of(table))
            for file in files:
                if "://" not in file and not os.path.exists(file):
                    continue  # compacted since
                try:
                    self.connection.execute(f"select bit_xor(hash({every})) from ({select_of(table, [file])})").fetchall()
                except duckdb().Error as error:
                    return UnreadableError(
                        f"{printable(file)} is damaged: {_said(error)}",
                        f"move it out of the folder to see the rest; {_MEND}",
                    )
        return None

    def lacks(self, what: str, there: Sequence[str], tables: Sequence[str]) -> GotraceError:
        """That a fleet has no ``what``, and what of that it has: but not where files of the ``tables`` that may have it
        were left out."""
        names = ", ".join(map(printable, there))
        if broken := [each for each in self.broken if self.table_of(each[0]) in tables]:
            ((file, problem), *others) = broken
            more = f", and {count_text(len(others), 'more file')}" if others else ""
            return SkippedError(
                f"this fleet has no {what} in what can be read: {printable(file)}: {problem}{more}",
                f"{_MEND}; in what can be read there are {names}" if there else _MEND,
                detail="\n".join(f"{printable(each)}: {said}" for each, said in broken),
            )
        if there:
            hint = f"there are {names}"
        elif self.broken or any(self.files.values()):
            hint = "nothing that was added has any; what was: gotrace fleet sql DIR 'select kind, path from source'"
        else:
            hint = "nothing has been added: use gotrace fleet add"
        return UsageError(f"this fleet has no {what}", hint)


def duckdb() -> Any:
    """The module. Raises GotraceError where it is not installed."""
    try:
        import duckdb as module
    except ImportError:
        raise GotraceError("`gotrace fleet` needs the Python library duckdb", f"run: {installing('duckdb')}") from None
    return module


def opened(folder: str) -> Database:
    """A fleet's folder, or its copy at s3://BUCKET/FOLDER. Raises GotraceError, UsageError where there is none."""
    remote = folder.startswith(BUCKET)
    path = folder.rstrip("/") if remote else str(check(folder).resolve())
    module = duckdb()
    database = Database(path, module.connect(config=dict(_LIMITS)))
    found = files_in(database.connection, module, path) if remote else {}
    for table in TABLES:
        _view(database, module, table, lambda of: list(found.get(of, ())) if remote else files_of(Path(path), of))
    skipped = len(database.broken)
    damaged = {database.table_of(file) for file, _ in database.broken}
    for table, others in _ALWAYS.items():
        if not database.files[table] and table not in damaged and any(map(database.files.get, others)):
            database.broken.append((f"{path}/{table}", "the folder is missing, or empty"))
    for name, sql in VIEWS.items():
        database.connection.execute(f"create view {name} as {sql}")
    if skipped:
        database.notes.append(f"{count_text(skipped, 'file was', 'files were')} unreadable and skipped")
    return database


@dataclass(frozen=True)
class Answer:
    """Of a question in SQL."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def answered(database: Database, query: str) -> Answer:
    """Of somebody's question, which may read the fleet's files alone, and write none; the last one of this connection.

    Raises UsageError for what is no question, or is not understood.
    """
    module, connection = duckdb(), database.connection
    connection.execute(f"set allowed_directories = [{quoted(database.folder + '/')}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    try:
        statements = connection.extract_statements(text_of(query))
        # `explain analyze` does what it explains: a `copy` into the fleet's own files too
        if len(statements) != 1 or statements[0].type != module.StatementType.SELECT:
            raise UsageError("that is not a single query", "give one `select`: a fleet cannot be changed by SQL")
        found = connection.execute(statements[0])
        return Answer([each[0] for each in found.description], found.fetchall())
    except module.IOException as error:
        raise _unread(error) from None
    except module.Error as error:
        if type(error) in (module.Error, module.InvalidInputException) and (damage := database.damage()):
            raise damage from None
        lines = [line for line in str(error).splitlines() if line.strip()]
        hint = next(
            (line for line in lines[1:] if line.startswith("Candidate")), "`describe worst` lists a table's columns"
        )
        if "Table with name" in lines[0]:
            hint = f"there are {', '.join((*TABLES, *VIEWS))}"
        elif isinstance(error, module.PermissionException):
            hint = "a query reads the tables of the fleet: `show tables` lists them"
        raise UsageError(printable(lines[0]), printable(hint)) from None


def _said(error: Exception) -> str:
    """The first line of what DuckDB says; of some damage it says nothing."""
    return printable(next(iter(str(error).splitlines()), type(error).__name__))


def _unread(error: Exception) -> UnreadableError:
    return UnreadableError(f"a file cannot be read: {_said(error)}", "try again")


def _view(database: Database, module: Any, table: str, files_of: Callable[[str], list[str]]) -> None:
    files = files_of(table)
    try:
        database.connection.execute(f"create view {table} as {select_of(table, files)}")
    except module.Error:
        files = files_of(table)  # one may have got its name since
        for file in list(files):
            try:
                database.connection.execute(f"{select_of(table, [file])} limit 0")
            except module.Error as error:
                files.remove(file)
                database.broken.append((file, _said(error)))
        database.connection.execute(f"create view {table} as {select_of(table, files)}")
    database.files[table] = files


def select_of(table: str, files: list[str]) -> str:
    """In SQL, the rows of a table that are in these files."""
    columns = ", ".join(f'"{name}"' for name in columns_of(table))
    if files:
        return f"select {columns} from {_read(files)}"
    nothing = ", ".join(f'null::{SQL_TYPES[type_]} as "{name}"' for name, type_ in columns_of(table).items())
    return f"select {nothing} where false"


def _read(files: list[str]) -> str:
    names = ", ".join(map(quoted, files))
    return f"read_parquet([{names}], union_by_name => true, hive_partitioning => false)"
