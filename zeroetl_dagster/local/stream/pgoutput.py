"""PostgreSQL's logical replication messages (PostgreSQL documentation, "Logical Replication Message Formats").

Protocol version 1: a transaction comes whole, after its commit; what does not fit into the server's memory waits on the
server's disk, not here. Rows are not read here, only sorted: columns.py cuts them in bulk.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

BEGIN, COMMIT, RELATION, TYPE, ORIGIN = ord("B"), ord("C"), ord("R"), ord("Y"), ord("O")
INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE = ord("I"), ord("U"), ord("D"), ord("T"), ord("M")


@dataclass(frozen=True)
class Begin:
    """`commit_lsn` is where the commit record starts."""

    commit_lsn: int
    committed_at: datetime
    xid: int


@dataclass(frozen=True)
class Commit:
    """`end_lsn` is where the commit record ends: the stream goes on from there."""

    commit_lsn: int
    end_lsn: int
    committed_at: datetime


@dataclass(frozen=True)
class Relation:
    """What the following rows of a table consist of. `keys` tells the columns of the replica identity."""

    relid: int
    schema: str
    name: str
    identity: str
    columns: tuple[str, ...]
    keys: tuple[bool, ...]


@dataclass(frozen=True)
class Truncate:
    relids: tuple[int, ...]


@dataclass(frozen=True)
class Message:
    """pg_logical_emit_message's, part of its transaction when `transactional`."""

    transactional: bool
    prefix: str
    content: bytes


class UnknownMessage(Exception):
    """A message that is not in protocol version 1."""


def moment(microseconds: int) -> datetime:
    """PostgreSQL's time stamp: microseconds since 2000-01-01, UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def parse(payload: bytes) -> Begin | Commit | Relation | Truncate | Message | None:
    """Any message but a row; None for those that say nothing here (Type, Origin). Raises `UnknownMessage`."""
    tag = payload[0]
    if tag == BEGIN:
        lsn, committed, xid = struct.unpack_from(">QqI", payload, 1)
        return Begin(lsn, moment(committed), xid)
    if tag == COMMIT:
        _, lsn, end, committed = struct.unpack_from(">BQQq", payload, 1)
        return Commit(lsn, end, moment(committed))
    if tag == RELATION:
        return _relation(payload)
    if tag == TRUNCATE:
        (count,) = struct.unpack_from(">I", payload, 1)
        return Truncate(struct.unpack_from(f">{count}I", payload, 6))
    if tag == MESSAGE:
        prefix, at = _string(payload, 10)
        (length,) = struct.unpack_from(">I", payload, at)
        return Message(bool(payload[1] & 1), prefix, payload[at + 4 : at + 4 + length])
    if tag in (TYPE, ORIGIN):
        return None
    raise UnknownMessage(f"PostgreSQL sent a message {chr(tag)!r}, which protocol version 1 does not have")


def _relation(payload: bytes) -> Relation:
    (relid,) = struct.unpack_from(">I", payload, 1)
    schema, at = _string(payload, 5)
    name, at = _string(payload, at)
    identity, count = struct.unpack_from(">cH", payload, at)
    at += 3
    columns, keys = [], []
    for _ in range(count):
        keys.append(bool(payload[at] & 1))
        column, at = _string(payload, at + 1)
        columns.append(column)
        at += 8  # type and its modifier: the structure knows them
    return Relation(relid, schema or "pg_catalog", name, identity.decode(), tuple(columns), tuple(keys))


def _string(payload: bytes, at: int) -> tuple[str, int]:
    end = payload.index(b"\0", at)
    return payload[at:end].decode(), end + 1
