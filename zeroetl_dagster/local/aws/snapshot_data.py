"""What a snapshot of a PostgreSQL cluster holds: every table as of one moment, as COPY's own text, compressed.

The moment is fixed when `Capture` is made: one REPEATABLE READ transaction a database, whose snapshots PostgreSQL keeps
until the tables are copied, whatever is written meanwhile. What no snapshot guards against (TRUNCATE, DROP TABLE, ALTER
TABLE) waits for the copy, which AWS does not need. Text is exact for every type, is read back in bounded memory and
needs no second server. A snapshot is a folder: `snapshot.json` (written last: a folder without it is no snapshot) and a
file a table.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg2.errors
import psycopg2.extensions

MANIFEST = "snapshot.json"
CHUNK_BYTES = 4 << 20
ROW_TEXT_BYTES = 1 << 30  # what PostgreSQL's buffer of a row holds
_INTERNAL = ("rdsadmin",)  # databases that are the service's own
_DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
# Ordinary tables (partitions are tables, their parents hold no rows) that outlive a session and a crash.
_TABLES = """
SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY n.nspname, c.relname
"""
# Asked for when the tables are locked: a size waits for whoever has a table to himself.
_SIZES = """
SELECT c.oid, pg_table_size(c.oid), EXISTS (
         SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
         WHERE i.indrelid = c.oid AND i.indisprimary AND a.atttypid IN (20, 21, 23))
FROM pg_class c WHERE c.oid = ANY(%s)
"""
_COLUMNS = """
SELECT table_schema, table_name, column_name, data_type, domain_name IS NOT NULL,
       coalesce(character_maximum_length, 0), coalesce(numeric_precision, 0), coalesce(datetime_precision, 0)
FROM information_schema.columns WHERE table_schema !~ '^pg_' AND table_schema <> 'information_schema'
ORDER BY table_schema, table_name, ordinal_position
"""
# How values look as text; not what a role or database may have set.
_SETTINGS = (
    "SET client_encoding = 'UTF8'; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; "
    "SET bytea_output = 'hex'; SET extra_float_digits = 1; SET xmloption = content; SET statement_timeout = 0; "
    "SET idle_in_transaction_session_timeout = 0"
)
LOCK_SECONDS = 10
_CHANGED_TABLES = (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName, psycopg2.errors.DeadlockDetected)

Connect = Callable[[str], Any]


@dataclass(frozen=True)
class Column:
    """`data_type` as information_schema names it; a domain is text whatever is under it (`is_domain`)."""

    name: str
    data_type: str
    is_domain: bool
    max_length: int
    precision: int
    datetime_precision: int


@dataclass(frozen=True)
class Table:
    """`file` in the snapshot's folder; `text_bytes` of COPY's text before compression (0 until copied).

    PostgreSQL writes no row of 1 GB of text: a table with such a row has no file, but the size of its `largest_value`.
    """

    database: str
    schema: str
    name: str
    columns: tuple[Column, ...]
    numeric_key: bool
    file: str
    size_bytes: int
    text_bytes: int = 0
    rows: int = 0
    largest_value: int = 0

    @property
    def target(self) -> str:
        return f"{self.database}.{self.schema}.{self.name}"


class TableLocked(Exception):
    """Somebody keeps a table to himself: the moment cannot be fixed."""


class Capture:
    """Holds the moment; `write` makes the folder of it. `close` in any case.

    Raises `TableLocked` where another session holds an exclusive lock on a table for long.
    """

    def __init__(self, connect: Connect) -> None:
        self._connections: dict[str, Any] = {}
        found: list[Table] = []
        try:
            for database in self._databases(connect):
                connection = self._connections[database] = connect(database)
                found += _begin(database, connection)
        except BaseException:
            self.close()
            raise
        self.moment = time.time()
        self.tables = [Table(**{**vars(table), "file": f"{index:05d}.csv.zst"}) for index, table in enumerate(found)]

    def _databases(self, connect: Connect) -> list[str]:
        connection = connect("postgres")
        try:
            with connection.cursor() as cursor:
                cursor.execute(_DATABASES)
                return [row[0] for row in cursor.fetchall() if row[0] not in _INTERNAL]
        finally:
            connection.close()

    def write(self, folder: Path, progress: Callable[[float], None] = lambda part: None) -> None:
        """Copy every table; `progress` hears the part that is done, 0 to 1."""
        folder.mkdir(parents=True, exist_ok=True)
        total = sum(table.size_bytes for table in self.tables) or 1
        done, written = 0, []
        for table in self.tables:
            written.append(_copy(self._connections[table.database], table, folder / table.file))
            done += table.size_bytes
            progress(done / total)
        manifest = {"moment": self.moment, "tables": [asdict(table) for table in written]}
        part = folder / (MANIFEST + ".part")
        part.write_text(json.dumps(manifest))
        os.replace(part, folder / MANIFEST)

    def interrupt(self, writer: threading.Thread) -> None:
        """End a `write` that goes on in the thread `writer`: it raises."""
        while writer.is_alive():  # again: between two tables nobody hears it
            for connection in list(self._connections.values()):
                with contextlib.suppress(psycopg2.Error):  # closed meanwhile: it has ended
                    connection.cancel()
            writer.join(timeout=0.05)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def read_manifest(folder: Path) -> list[Table]:
    """The tables of a snapshot's folder. Raises `FileNotFoundError` where there is none, or only a part of one."""
    found = json.loads((folder / MANIFEST).read_text())
    return [
        Table(**{**table, "columns": tuple(Column(**column) for column in table["columns"])})
        for table in found["tables"]
    ]


def chunks(folder: Path, table: Table, limit_bytes: int) -> Iterator[bytes]:
    """The table's CSV in pieces of whole rows, a few MiB each.

    Raises `RowTooLarge` for a row of `limit_bytes` or more.
    """
    import pyarrow as pa

    if not table.columns:
        return
    with pa.OSFile(str(folder / table.file)) as file, pa.CompressedInputStream(file, "zstd") as stream:
        held: list[bytes] = []  # the beginning of a row, and whether it ends within quotes
        quoted = False
        while more := stream.read(CHUNK_BYTES):
            quoted ^= more.count(b'"') % 2 == 1
            end = _last_row_end(more, quoted)
            if end:
                yield b"".join([*held, more[:end]])
                held = []
            held.append(more[end:])
            if sum(map(len, held)) >= limit_bytes:
                raise RowTooLarge(f"a row of {table.target} has {limit_bytes} bytes or more")
        if rest := b"".join(held):
            yield rest


class RowTooLarge(Exception):
    """A row beyond what an export takes."""


def _begin(database: str, connection: Any) -> list[Table]:
    """Begin the transaction whose snapshot is of now; its tables.

    The tables are locked before the snapshot is taken, so that it shows nothing which is not there any more: again,
    where one came or went between.
    """
    connection.set_session(isolation_level=psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
    while True:
        expected = _found(connection)
        connection.rollback()
        try:
            with connection.cursor() as cursor:
                cursor.execute(_SETTINGS)
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                _lock(connection, expected)
            found = _found(connection)
        except psycopg2.errors.LockNotAvailable as error:
            raise TableLocked(f"database {database}: {str(error).strip()} after {LOCK_SECONDS} s") from None
        except _CHANGED_TABLES:
            found = []
        if found == expected:
            return list(_described(database, connection, found))
        connection.rollback()


def _found(connection: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(_TABLES)
        return list(cursor.fetchall())


def _lock(connection: Any, found: list[tuple[Any, ...]]) -> None:
    from psycopg2 import sql

    names = sql.SQL(", ").join(sql.SQL("ONLY ") + sql.Identifier(schema, name) for _, schema, name in found)
    if found:
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))


def _described(database: str, connection: Any, found: list[tuple[Any, ...]]) -> Iterator[Table]:
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS)
        rows = groupby(cursor.fetchall(), key=lambda row: row[:2])
        columns = {name: tuple(Column(*row[2:]) for row in group) for name, group in rows}
        cursor.execute(_SIZES, ([oid for oid, _, _ in found],))
        sizes = {oid: (size, numeric_key) for oid, size, numeric_key in cursor.fetchall()}
    for oid, schema, name in found:
        size, numeric_key = sizes[oid]
        yield Table(database, schema, name, columns.get((schema, name), ()), numeric_key, "", size)


def _copy(connection: Any, table: Table, path: Path) -> Table:
    """The table with what is known of it afterwards."""
    from psycopg2 import sql

    exported = [column for column in table.columns if column.data_type != "oid"]
    statement = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT (FORMAT csv)").format(
        sql.SQL(", ").join(sql.Identifier(column.name) for column in exported),
        sql.Identifier(table.schema, table.name),
    )
    sink = _Compressed(path)
    with io.BufferedWriter(sink, CHUNK_BYTES) as buffered, connection.cursor() as cursor:
        cursor.execute("SAVEPOINT copying")
        try:
            cursor.copy_expert(statement.as_string(connection), buffered)
        except (psycopg2.errors.ProgramLimitExceeded, psycopg2.errors.InternalError_):
            cursor.execute("ROLLBACK TO copying")
            largest = _largest_value(cursor, table, exported)
            if largest < ROW_TEXT_BYTES / 2 / len(exported):  # hexadecimal doubles: it was no row's size then
                raise
            path.unlink()
            return Table(**{**vars(table), "largest_value": largest})
        rows = cursor.rowcount
    return Table(**{**vars(table), "text_bytes": sink.text_bytes, "rows": rows})


def _largest_value(cursor: Any, table: Table, columns: list[Column]) -> int:
    """Bytes of it, as it is stored."""
    from psycopg2 import sql

    sizes = sql.SQL(", ").join(
        sql.SQL("max(octet_length({}{}))").format(
            sql.Identifier(column.name), sql.SQL("" if column.data_type == "bytea" else "::text")
        )
        for column in columns
    )
    source = sql.Identifier(table.schema, table.name)
    cursor.execute(sql.SQL("SELECT coalesce(greatest({}), 0) FROM ONLY {}").format(sizes, source))
    return int(cursor.fetchone()[0])


class _Compressed(io.RawIOBase):
    """A file that keeps what is written to it in Zstandard."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._file = pa.OSFile(str(path), "wb")
        self._stream = pa.CompressedOutputStream(self._file, "zstd")
        self.text_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(data)
        self.text_bytes += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._file.close()
        super().close()


def _last_row_end(text: bytes, quoted: bool) -> int:
    """After the last newline that is in no quotes, 0 where there is none. `quoted`: the text ends within quotes.

    COPY doubles the quotes in values, so each quote opens or closes.
    """
    newline = text.rfind(b"\n")
    if newline < 0 or quoted == (text.count(b'"', newline) % 2 == 1):
        return newline + 1
    import numpy

    letters = numpy.frombuffer(text, numpy.uint8)
    quotes = letters == ord('"')
    began_quoted = quoted ^ bool(numpy.count_nonzero(quotes) % 2)
    within = numpy.bitwise_xor.accumulate(quotes) ^ began_quoted
    ends = numpy.flatnonzero((letters == ord("\n")) & ~within)
    return int(ends[-1]) + 1 if len(ends) else 0
