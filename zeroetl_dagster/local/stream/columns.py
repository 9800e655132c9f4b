"""Rows as PostgreSQL sends them, turned into columns as Arrow holds them, without a Python object a value.

pgoutput's tuples and COPY's binary rows both put a length before every value, so a batch of rows is cut column by
column with array arithmetic over one buffer. The values stay text; SQL casts them (types.py). What Redshift cannot hold
is found here, because here the lengths and first bytes lie open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from zeroetl_dagster.local.stream.literals import super_attributes
from zeroetl_dagster.local.stream.structure import Column, value_problem
from zeroetl_dagster.local.stream.types import MAX_VARCHAR, Target

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_TEXT, _UNCHANGED = ord("t"), ord("u")
_SPECIAL = np.frombuffer(b"NIi", np.uint8)
_JOIN_FROM = 64  # bytes a value: longer ones are copied one by one, shorter ones byte by byte in one go


class BadValue(Exception):
    """A value that Redshift cannot hold; the text is the reason for the table's failure."""


@dataclass(frozen=True)
class Cells:
    """One column of a batch: where in the buffer each value lies. `null` and `unchanged` are None when none is."""

    start: Ints
    length: Ints
    null: Bools | None = None
    unchanged: Bools | None = None

    def take(self, rows: Bools) -> Cells:
        return Cells(
            self.start[rows],
            self.length[rows],
            None if self.null is None else self.null[rows],
            None if self.unchanged is None else self.unchanged[rows],
        )

    def or_else(self, other: Cells) -> Cells:
        """This column, with `other`'s value wherever this one only says that nothing changed."""
        if self.unchanged is None:
            return self
        rows = self.unchanged
        null = None
        if self.null is not None or other.null is not None:
            mine = np.zeros(len(rows), bool) if self.null is None else self.null
            theirs = np.zeros(len(rows), bool) if other.null is None else other.null
            null = np.where(rows, theirs, mine)
        left = rows & other.unchanged if other.unchanged is not None else None
        return Cells(
            np.where(rows, other.start, self.start),
            np.where(rows, other.length, self.length),
            null,
            left if left is not None and left.any() else None,
        )


@dataclass(frozen=True)
class Rows:
    """Rows of one layout in one buffer."""

    buffer: bytes
    cells: list[Cells]

    def __len__(self) -> int:
        return len(self.cells[0].start) if self.cells else 0


class Buffer:
    """Raw messages side by side, readable as bytes and as big-endian integers at any offset."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        self.raw = b"".join([*messages, b"\0\0\0\0"])
        self.begin = np.cumsum(lengths) - lengths
        self.bytes: Bytes = np.frombuffer(self.raw, np.uint8)
        self._integers: Any = np.ndarray((len(self.raw) - 3,), ">i4", self.raw, strides=(1,))

    def integers(self, at: Ints) -> Ints:
        found: Ints = self._integers[at].astype(np.int64)
        return found


def cut_tuples(buffer: Buffer, at: Ints, columns: int) -> tuple[list[Cells], Ints]:
    """pgoutput's TupleData at each offset: the cells of each column, and where each tuple ends."""
    position = at + 2  # the number of columns
    cells = []
    for _ in range(columns):
        kind = buffer.bytes[position]
        text = kind == _TEXT
        if text.all():
            length = buffer.integers(position + 1)
            cells.append(Cells(position + 5, length))
            position = position + 5 + length
            continue
        length = np.where(text, buffer.integers(position + 1), 0)
        unchanged = kind == _UNCHANGED
        cells.append(Cells(position + 5, length, ~text, unchanged if unchanged.any() else None))
        position = position + np.where(text, 5 + length, 1)
    return cells, position


def cut_copy(buffer: Buffer, columns: int) -> list[Cells]:
    """Rows of COPY … (FORMAT binary), one a message."""
    position = buffer.begin + 2
    cells = []
    for _ in range(columns):
        length = buffer.integers(position)
        null = length < 0
        if null.any():
            length = np.where(null, 0, length)
            cells.append(Cells(position + 4, length, null))
        else:
            cells.append(Cells(position + 4, length))
        position = position + 4 + length
    return cells


def array_of(raw: bytes, cells: Cells, column: Column, *, truncate: bool = False) -> pa.Array:
    """One column as Arrow text, checked against what Redshift can hold.

    `truncate`: over-long texts are cut (TRUNCATECOLUMNS) instead of refused. Raises `BadValue`.
    """
    target = column.target()
    if target.check is not None:
        _check(raw, cells, column, target.check)
    over = target.limit is not None and len(cells.length) > 0 and int(cells.length.max()) > target.limit
    inside = target.redshift == "SUPER" and len(cells.length) > 0 and int(cells.length.max()) > MAX_VARCHAR
    if over or inside or target.convert is not None:
        return pa.array(_one_by_one(raw, cells, column, target, truncate), pa.large_string())
    return _gather(raw, cells)


def _gather(raw: bytes, cells: Cells) -> pa.Array:
    rows = len(cells.start)
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(cells.length, out=offsets[1:])
    total = int(offsets[-1])
    data: Any
    if total > _JOIN_FROM * rows:
        pairs = zip(cells.start.tolist(), (cells.start + cells.length).tolist(), strict=True)
        data = b"".join([raw[start:end] for start, end in pairs])
    else:
        kind = np.int32 if len(raw) < 2**31 else np.int64
        index = np.repeat((cells.start - offsets[:-1]).astype(kind), cells.length)
        index += np.arange(total, dtype=kind)
        data = np.frombuffer(raw, np.uint8)[index]
    validity = None if cells.null is None else pa.py_buffer(np.packbits(~cells.null, bitorder="little"))
    return pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(data), validity)


def _one_by_one(raw: bytes, cells: Cells, column: Column, target: Target, truncate: bool) -> list[str | None]:
    nulls = [False] * len(cells.start) if cells.null is None else cells.null.tolist()
    texts: list[str | None] = []
    for start, length, null in zip(cells.start.tolist(), cells.length.tolist(), nulls, strict=True):
        texts.append(None if null else _one(raw[start : start + length], column, target, truncate))
    return texts


def _one(value: bytes, column: Column, target: Target, truncate: bool) -> str:
    text = value.decode()
    if target.convert is not None:
        text = target.convert(text)
        value = text.encode()
    if target.redshift == "SUPER" and len(value) > MAX_VARCHAR:
        text = super_attributes(
            text, MAX_VARCHAR, truncate, lambda size: _too_long(column, f"a string of {size} bytes")
        )
        value = text.encode()
    if target.limit is None or len(value) <= target.limit:
        return text
    if truncate and target.duckdb == "VARCHAR":
        return value[: target.limit].decode(errors="ignore")
    raise _too_long(column, f"{len(value)} bytes")


def _too_long(column: Column, what: str) -> BadValue:
    problem = f"{what} is more than {column.target().redshift} holds (DATA_COLUMN_LENGTH_EXCEEDED)."
    return BadValue(value_problem(column.name, f"{problem} Set TRUNCATECOLUMNS, then REFRESH the table."))


def _check(raw: bytes, cells: Cells, column: Column, check: str) -> None:
    present = cells.length > 0 if cells.null is None else ~cells.null & (cells.length > 0)
    if present.all():
        start, length = cells.start, cells.length
    else:
        start, length = cells.start[present], cells.length[present]
    if not len(start):
        return
    data = np.frombuffer(raw, np.uint8)
    first, second = data[start], data[start + 1]  # every buffer has some bytes after its last value
    # NaN, Infinity, infinity, -Infinity, -infinity
    wrong = np.isin(first, _SPECIAL) | ((first == ord("-")) & np.isin(second, _SPECIAL))
    if check == "timestamp":
        wrong |= (data[start + length - 1] == ord("C")) | (data[start + 4] != ord("-"))  # … BC; five digits of year
    if wrong.any():
        at = int(np.argmax(wrong))
        value = raw[int(start[at]) : int(start[at] + length[at])].decode()
        raise BadValue(value_problem(column.name, f"{value} cannot be kept in {column.target().redshift}."))
