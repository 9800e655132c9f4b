"""What a snapshot of a PostgreSQL cluster holds: every table as of one moment, as COPY's own text, compressed.

The moment is fixed when `Capture` is made: one REPEATABLE READ transaction a database, whose snapshots PostgreSQL keeps
until the tables are copied, whatever is written meanwhile. Text is exact for every type, is read back in bounded memory
and needs no second server. A snapshot is a folder: `snapshot.json` (written last: a folder without it is no snapshot)
and a file a table.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg2.extensions

MANIFEST = "snapshot.json"
CHUNK_BYTES = 4 << 20
_INTERNAL = ("rdsadmin",)  # databases that are the service's own
_DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
# Ordinary tables (partitions are tables, their parents hold no rows) that outlive a session and a crash.
_TABLES = """
SELECT c.oid, n.nspname, c.relname, EXISTS (
         SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
         WHERE i.indrelid = c.oid AND i.indisprimary AND a.atttypid IN (20, 21, 23)) AS numeric_key,
       pg_table_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY n.nspname, c.relname
"""
_COLUMNS = """
SELECT column_name, CASE WHEN domain_name IS NULL THEN data_type ELSE 'domain' END, domain_name IS NOT NULL,
       coalesce(character_maximum_length, 0), coalesce(numeric_precision, 0), coalesce(datetime_precision, 0), data_type
FROM information_schema.columns WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position
"""
# How values look as text; not what a role or database may have set.
_SETTINGS = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; "
    "SET extra_float_digits = 1; SET statement_timeout = 0; SET lock_timeout = 0; SET xmloption = content; "
    "SET idle_in_transaction_session_timeout = 0"
)

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
    """`file` in the snapshot's folder; `text_bytes` of COPY's text before compression (0 until copied)."""

    database: str
    schema: str
    name: str
    columns: tuple[Column, ...]
    numeric_key: bool
    file: str
    size_bytes: int
    text_bytes: int = 0
    rows: int = 0

    @property
    def target(self) -> str:
        return f"{self.database}.{self.schema}.{self.name}"


class Capture:
    """Holds the moment; `write` makes the folder of it. `close` in any case."""

    def __init__(self, connect: Connect) -> None:
        self.moment = time.time()
        self._connections: dict[str, Any] = {}
        try:
            for database in self._databases(connect):
                self._connections[database] = _begin(connect(database))
            self.tables = [
                table for name, connection in self._connections.items() for table in _tables(name, connection)
            ]
        except BaseException:
            self.close()
            raise
        numbered = enumerate(self.tables)
        self.tables = [Table(**{**vars(table), "file": f"{index:05d}.csv.zst"}) for index, table in numbered]

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
            text_bytes, rows = _copy(self._connections[table.database], table, folder / table.file)
            written.append(Table(**{**vars(table), "text_bytes": text_bytes, "rows": rows}))
            done += table.size_bytes
            progress(done / total)
        manifest = {"moment": self.moment, "tables": [asdict(table) for table in written]}
        part = folder / (MANIFEST + ".part")
        part.write_text(json.dumps(manifest))
        os.replace(part, folder / MANIFEST)

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
        held = b""
        while True:
            more = stream.read(CHUNK_BYTES)
            held += more
            if not more:
                break
            end = _last_row_end(held)
            if end:
                yield held[:end]
                held = held[end:]
            if len(held) >= limit_bytes:
                raise RowTooLarge(f"a row of {table.target} has {limit_bytes} bytes or more")
        if held:
            yield held


class RowTooLarge(Exception):
    """A row beyond what an export takes."""


def copy_folder(source: Path, target: Path) -> None:
    """A second snapshot of the same data (hard links: the files never change)."""
    shutil.copytree(source, target, copy_function=os.link)


def _begin(connection: Any) -> Any:
    """A transaction whose snapshot is taken now."""
    connection.set_session(isolation_level=psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
    with connection.cursor() as cursor:
        cursor.execute(_SETTINGS)
        cursor.execute("SELECT txid_current_snapshot()")
    return connection


def _tables(database: str, connection: Any) -> Iterator[Table]:
    with connection.cursor() as cursor:
        cursor.execute(_TABLES)
        found = cursor.fetchall()
        for _, schema, name, numeric_key, size in found:
            cursor.execute(_COLUMNS, (schema, name))
            columns = tuple(
                Column(column, kind if not domain else under, domain, length, precision, datetime_precision)
                for column, kind, domain, length, precision, datetime_precision, under in cursor.fetchall()
            )
            yield Table(database, schema, name, columns, numeric_key, "", size)


def _copy(connection: Any, table: Table, path: Path) -> tuple[int, int]:
    """Bytes of text and rows."""
    from psycopg2 import sql

    exported = [column for column in table.columns if column.data_type != "oid"]
    statement = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT (FORMAT csv)").format(
        sql.SQL(", ").join(sql.Identifier(column.name) for column in exported),
        sql.Identifier(table.schema, table.name),
    )
    sink = _Compressed(path)
    with io.BufferedWriter(sink, CHUNK_BYTES) as buffered, connection.cursor() as cursor:
        cursor.copy_expert(statement.as_string(connection), buffered)
        rows = cursor.rowcount
    return sink.text_bytes, rows


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


def _last_row_end(text: bytes) -> int:
    """After the last newline that is in no quotes: quotes before it are even, as COPY doubles those in values."""
    quotes, end = text.count(b'"'), len(text)
    while True:
        newline = text.rfind(b"\n", 0, end)
        if newline < 0:
            return 0
        quotes -= text.count(b'"', newline, end)
        if quotes % 2 == 0:
            return newline + 1
        end = newline
