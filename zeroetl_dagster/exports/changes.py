"""What happened to a table's columns since the newest day that was catalogued before, and how the table remembers it.

Two parameters of the table in Glue hold what its columns cannot. The types that the columns have in the source: most of
PostgreSQL's are exported as strings, so that text which became a number changes nothing in Glue. And what had changed
on the newest day: whoever catalogues that day again, after a failure say, is told the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from zeroetl_dagster.exports.types import ExportedColumn, parse_source_type

SOURCE_TYPES = "zeroetl.source_types"
CHANGES = "zeroetl.schema_changes"


@dataclass(frozen=True)
class ColumnChange:
    """What happened to one column since the newest day that was catalogued before."""

    kind: Literal["added", "removed", "retyped"]
    column: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.kind == "retyped":
            return f"column {self.column!r} changed from {self.before} to {self.after}"
        return f"column {self.column!r} ({self.before or self.after}) was {self.kind}"


def retyped(held: Mapping[str, str], exported: Iterable[ExportedColumn]) -> tuple[ColumnChange, ...]:
    """Columns that have another type in the source than the table remembers in its parameters."""
    before: dict[str, str] = json.loads(held.get(SOURCE_TYPES) or "{}")
    now = source_types(exported)
    return tuple(
        ColumnChange("retyped", name, before[name], kind)
        for name, kind in now.items()
        if before.get(name, kind) != kind
    )


def joined(*found: Sequence[ColumnChange]) -> tuple[ColumnChange, ...]:
    """All of them; of what is said twice of a column, the first."""
    result: dict[tuple[str, str], ColumnChange] = {}
    for changes in found:
        for change in changes:
            result.setdefault((change.column, change.kind), change)
    return tuple(result.values())


def recalled(held: Mapping[str, str]) -> tuple[ColumnChange, ...]:
    """What had changed on the newest day."""
    return tuple(ColumnChange(*change) for change in json.loads(held.get(CHANGES) or "[]"))


def remembered(
    held: Mapping[str, str], exported: Iterable[ExportedColumn], changes: Iterable[ColumnChange]
) -> dict[str, str]:
    """The parameters of a table whose newest day has these columns and changes. Columns that are gone keep the types
    they had: older days have them still."""
    types = {**json.loads(held.get(SOURCE_TYPES) or "{}"), **source_types(exported)}
    listed = [astuple(change) for change in changes]
    return {SOURCE_TYPES: json.dumps(types, ensure_ascii=False), CHANGES: json.dumps(listed, ensure_ascii=False)}


def known_columns(held: Mapping[str, str]) -> dict[str, ExportedColumn]:
    """Every column that the table remembers, by its name in Glue, also those that are gone."""
    types: dict[str, str] = json.loads(held.get(SOURCE_TYPES) or "{}")
    return {name: parse_source_type(name, kind) for name, kind in types.items()}


def source_types(exported: Iterable[ExportedColumn]) -> dict[str, str]:
    """Types in the source by the columns' names in Glue."""
    return {column.name.lower(): column.source_type for column in exported}
