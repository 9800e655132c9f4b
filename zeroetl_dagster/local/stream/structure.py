"""What a source table looks like, and what has to happen in Redshift when that changes.

A structure is read at the source by `rds_zeroetl.describe` (source_sql.py), from the seed's snapshot or, in the middle
of the stream, by the event trigger that follows every DDL statement. Columns are told apart by their number
(pg_attribute.attnum), which survives renaming.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from zeroetl_dagster.local.stream.types import Target, Unsupported, target_of

# AWS's words (Redshift management guide, event REDSHIFT-INTEGRATION-EVENT-0004).
NO_KEY = (
    "Amazon Redshift cannot replicate the table because the table is missing a primary key. Add primary key(s) to the "
    "source table and the table will resynchronize automatically."
)
_CANNOT = "Amazon Redshift cannot replicate the table because"
REASON_LENGTH = 256  # of SVV_INTEGRATION_TABLE_STATE.reason


@dataclass(frozen=True)
class Column:
    """`kind` is pg_type.typtype; `element` names the type of an array's elements; `missing` is the text of the value
    that rows older than the column have (ADD COLUMN … DEFAULT)."""

    number: int
    name: str
    type: str
    namespace: str
    kind: str
    typmod: int
    element: str | None = None
    missing: str | None = None

    def target(self) -> Target:
        """Raises `Unsupported`."""
        return target_of(self.type, self.namespace, self.kind, self.typmod, self.element)


@dataclass(frozen=True)
class Structure:
    """One table at one moment. `key` holds the numbers of the primary key's columns."""

    relid: int
    schema: str
    name: str
    kind: str
    persistence: str
    filenode: int
    key: tuple[int, ...]
    deferrable: bool
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Structure:
        columns = tuple(Column(**column) for column in described["columns"])
        return cls(**{**described, "key": tuple(described["key"]), "columns": columns})

    @classmethod
    def parse(cls, text: str) -> Structure:
        return cls.of(json.loads(text))

    def text(self) -> str:
        return json.dumps(asdict(self))

    @property
    def replicable(self) -> bool:
        """An ordinary logged table: a partition counts, its parent does not."""
        return self.kind == "r" and self.persistence == "p"

    @property
    def keys(self) -> list[Column]:
        by_number = {column.number: column for column in self.columns}
        return [by_number[number] for number in self.key]

    def problem(self) -> str | None:
        """Why Redshift cannot hold this table, in AWS's words; None when it can."""
        if not self.key:
            return NO_KEY
        if self.deferrable:
            return f"{_CANNOT} its primary key is DEFERRABLE: rows cannot be told apart while its check is deferred."
        wrong = []
        for column in self.columns:
            try:
                column.target()
            except Unsupported as why:
                wrong.append(f"{column.name} ({why})")
        if wrong:
            what = f"{_CANNOT} one or more columns use an unsupported data type: {', '.join(wrong)}"
            remedy = (
                ". Exclude the table in the filter, or drop the column(s) and run ALTER DATABASE INTEGRATION REFRESH"
            )
            return what[: REASON_LENGTH - len(remedy) - 1] + remedy + "."
        names: dict[str, str] = {}
        for column in self.columns:
            if other := names.get(column.name.lower()):
                return f"{_CANNOT} the embedded Redshift cannot tell its columns {other} and {column.name} apart."
            names[column.name.lower()] = column.name
        return None


def value_problem(column: str, what: str) -> str:
    """Why a table failed over a value."""
    return f"{_CANNOT} of a value in column {column}: {what}"[:REASON_LENGTH]


class Change(Enum):
    NOTHING = "nothing"
    FOLLOW = "follow"  # the same rows under other names, more columns, or fewer
    RESYNC = "resync"  # Aurora guide, "DDL operations for Aurora PostgreSQL"


def change_between(old: Structure, new: Structure) -> Change:
    """What a DDL statement asks for. Both must be replicable and without a problem."""
    if old.schema != new.schema or old.key != new.key:
        return Change.RESYNC
    before = {column.number: column for column in old.columns}
    for column in new.columns:
        known = before.get(column.number)
        if known is not None and known.target() != column.target():
            return Change.RESYNC
    if old.name == new.name and [(c.number, c.name) for c in old.columns] == [(c.number, c.name) for c in new.columns]:
        return Change.NOTHING
    return Change.FOLLOW
