"""Rows of the stream, gathered table by table until they are applied."""

from __future__ import annotations

from dataclasses import dataclass, field

from zeroetl_dagster.local.stream.catalog import TableRecord
from zeroetl_dagster.local.stream.pgoutput import Relation


@dataclass
class Group:
    """Messages of one shape, and the place of each in the batch."""

    messages: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


@dataclass
class TableChanges:
    """What happened to one table, by shape: a message's tag and the kind of its first tuple, N(ew), O(ld) or K(ey)."""

    record: TableRecord
    relation: Relation
    shapes: dict[bytes, Group] = field(default_factory=dict)
    size: int = 0  # bytes

    def count(self, tag: bytes) -> int:
        return sum(len(group.messages) for shape, group in self.shapes.items() if shape[:1] == tag)


class Batch:
    """Rows of one or more transactions, whole or in part, in the order of the stream.

    `routes` tells where a row goes by the four bytes of its relation's id; what has no route is not replicated.
    """

    def __init__(self) -> None:
        self.routes: dict[bytes, TableChanges] = {}
        self.rows = 0
        self.size = 0
        self._gathered: dict[bytes, TableChanges] = {}

    def clear(self) -> None:
        """Forget rows and routes."""
        self.routes, self._gathered = {}, {}
        self.rows = self.size = 0

    def add(self, message: bytes) -> None:
        """An INSERT, UPDATE or DELETE message."""
        table = self.routes.get(message[1:5])
        if table is None:
            return
        shape = message[:1] + message[5:6]
        group = table.shapes.get(shape)
        if group is None:
            group = table.shapes[shape] = Group()
        group.messages.append(message)
        group.places.append(self.rows)
        length = len(message)
        table.size += length
        self.rows += 1
        self.size += length

    def route(self, record: TableRecord, relation: Relation) -> None:
        """Rows of this relation are this table's from now on. `fits` must have said so."""
        key = relation_key(relation.relid)
        table = self._gathered.get(key)
        if table is None or table.relation != relation or table.record is not record:
            table = self._gathered[key] = TableChanges(record, relation)
        self.routes[key] = table

    def unroute(self, relid: int) -> None:
        """Rows of it are dropped from now on; what was gathered stays."""
        self.routes.pop(relation_key(relid), None)

    def forget(self, relid: int) -> None:
        """Drop what was gathered too."""
        self.unroute(relid)
        table = self._gathered.pop(relation_key(relid), None)
        if table is not None:
            self.rows -= sum(len(group.messages) for group in table.shapes.values())
            self.size -= table.size

    def fits(self, relation: Relation) -> bool:
        """False when rows of another layout of this table wait: they must be applied first."""
        table = self._gathered.get(relation_key(relation.relid))
        return table is None or table.relation == relation or not table.shapes

    def take(self) -> list[TableChanges]:
        """The tables with changes, which are the caller's now; the routes stay."""
        taken = [table for table in self._gathered.values() if table.shapes]
        self._gathered = {}
        for key, table in self.routes.items():
            self.routes[key] = self._gathered[key] = TableChanges(table.record, table.relation)
        self.rows = self.size = 0
        return taken


def relation_key(relid: int) -> bytes:
    return relid.to_bytes(4, "big")
