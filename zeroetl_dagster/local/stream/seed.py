"""A table's rows as a snapshot shows them, copied into DuckDB.

One thread takes what PostgreSQL sends, another cuts it into columns and inserts: the server, Python and DuckDB work at
the same time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from zeroetl_dagster.local.stream.columns import Buffer, array_of, cut_copy
from zeroetl_dagster.local.stream.source import copy_statement
from zeroetl_dagster.local.stream.structure import Structure
from zeroetl_dagster.local.stream.tables import Tables

_CHUNK_ROWS = 100_000
_CHUNK_BYTES = 16 * 2**20
_HEADER = 19  # bytes: signature, flags, length of the header's extension
_END = b"\xff\xff"


class Stopped(Exception):
    """The replica was told to stop."""


def copy_table(
    session: Any, cursor: Any, tables: Tables, structure: Structure, stopped: Callable[[], bool]
) -> tuple[int, int]:
    """Create the table and fill it, in the transaction that is open on `cursor`: its rows, and their bytes.

    `session` is the source's, under the snapshot. Raises `BadValue`, `Stopped`, and what the source raises.
    """
    tables.create(cursor, structure)
    count = size = 0
    for rows in _chunks(session, copy_statement(structure)):
        if stopped():
            raise Stopped
        buffer = Buffer(rows)
        cells = cut_copy(buffer, len(structure.columns))
        arrays = [
            array_of(buffer.raw, cell, column, truncate=tables.truncate)
            for cell, column in zip(cells, structure.columns, strict=True)
        ]
        tables.insert(cursor, structure, arrays)
        count += len(rows)
        size += len(buffer.raw)
    return count, size


def _chunks(session: Any, statement: str) -> Iterator[list[bytes]]:
    """The rows that COPY sends, a list at a time; at most two lists wait."""
    waiting: queue.Queue[list[bytes] | Exception | None] = queue.Queue(maxsize=2)
    ended = threading.Event()
    reader = threading.Thread(target=_read, args=(session, statement, waiting, ended), name="zeroetl-seed", daemon=True)
    reader.start()
    try:
        while (got := waiting.get()) is not None:
            if isinstance(got, Exception):
                raise got
            yield got
    finally:
        ended.set()
        if reader.is_alive():
            session.cancel()
        while reader.is_alive():
            try:
                waiting.get(timeout=0.01)
            except queue.Empty:
                continue


def _read(
    session: Any, statement: str, waiting: queue.Queue[list[bytes] | Exception | None], ended: threading.Event
) -> None:
    sink = _Sink(waiting)
    try:
        with session.cursor() as cursor:
            cursor.copy_expert(statement, sink)
        sink.flush()
    except Exception as error:  # raised again by the thread that reads the queue
        if not ended.is_set():
            waiting.put(error)
            return
    waiting.put(None)


class _Sink:
    """What psycopg2 writes a COPY into: one call a row, since the server sends one message a row."""

    def __init__(self, waiting: queue.Queue[list[bytes] | Exception | None]) -> None:
        self._waiting = waiting
        self._rows: list[bytes] = []
        self._size = 0
        self._begun = False

    def write(self, row: bytes) -> None:
        if not self._begun:  # the header comes with the first row
            self._begun = True
            row = row[_HEADER:]
        if row == _END or not row:
            return
        self._rows.append(row)
        self._size += len(row)
        if self._size >= _CHUNK_BYTES or len(self._rows) >= _CHUNK_ROWS:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._waiting.put(self._rows)
        self._rows, self._size = [], 0
