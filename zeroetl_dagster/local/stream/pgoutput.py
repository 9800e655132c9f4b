"""Decoder of PostgreSQL's `pgoutput` messages, protocol version 1 (PostgreSQL documentation, "Logical Replication
Message Formats"). Bytes in, typed messages out; nothing else."""

from __future__ import annotations

import struct
from dataclasses import dataclass

UNCHANGED = object()  # a TOASTed value that the update left as it was
Row = tuple[object, ...]  # str, None or UNCHANGED, in the relation's column order


@dataclass(frozen=True)
class Begin:
    final_lsn: int
    commit_time_us: int  # microseconds since 2000-01-01
    xid: int


@dataclass(frozen=True)
class Commit:
    end_lsn: int
    commit_lsn: int
    commit_time_us: int


@dataclass(frozen=True)
class Relation:
    oid: int
    schema: str
    name: str
    columns: tuple[str, ...]
    key: tuple[bool, ...]


@dataclass(frozen=True)
class Insert:
    oid: int
    new: Row


@dataclass(frozen=True)
class Update:
    oid: int
    old: Row | None  # the old key or row, when the key changed
    new: Row


@dataclass(frozen=True)
class Delete:
    oid: int
    old: Row


@dataclass(frozen=True)
class Truncate:
    oids: tuple[int, ...]


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 1

    def take(self, fmt: str) -> tuple[int, ...]:
        values = struct.unpack_from("!" + fmt, self.data, self.at)
        self.at += struct.calcsize("!" + fmt)
        return values

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        found = self.data[self.at : end].decode()
        self.at = end + 1
        return found

    def char(self) -> bytes:
        self.at += 1
        return self.data[self.at - 1 : self.at]

    def row(self) -> Row:
        (count,) = self.take("h")
        values: list[object] = []
        for _ in range(count):
            kind = self.char()
            if kind == b"n":
                values.append(None)
            elif kind == b"u":
                values.append(UNCHANGED)
            else:
                (length,) = self.take("i")
                values.append(self.data[self.at : self.at + length].decode())
                self.at += length
        return tuple(values)


def decode(data: bytes) -> Message | None:
    """None for messages that carry nothing for a replica (Origin, Type, Message)."""
    reader, kind = _Reader(data), data[:1]
    if kind == b"B":
        return Begin(*reader.take("qqI"))
    if kind == b"C":
        _, commit_lsn, end_lsn, at = reader.take("bqqq")
        return Commit(end_lsn, commit_lsn, at)
    if kind == b"R":
        return _relation(reader)
    if kind == b"I":
        (oid,) = reader.take("I")
        reader.char()
        return Insert(oid, reader.row())
    if kind == b"U":
        (oid,) = reader.take("I")
        old = reader.row() if reader.char() in (b"K", b"O") else None
        if old is not None:
            reader.char()
        return Update(oid, old, reader.row())
    if kind == b"D":
        (oid,) = reader.take("I")
        reader.char()
        return Delete(oid, reader.row())
    if kind == b"T":
        count, _ = reader.take("Ib")
        return Truncate(reader.take(f"{count}I"))
    return None


def _relation(reader: _Reader) -> Relation:
    (oid,) = reader.take("I")
    schema, name = reader.text(), reader.text()
    reader.char()
    (count,) = reader.take("h")
    columns, key = [], []
    for _ in range(count):
        (flags,) = reader.take("b")
        columns.append(reader.text())
        key.append(bool(flags & 1))
        reader.take("Ii")
    return Relation(oid, schema, name, tuple(columns), tuple(key))
