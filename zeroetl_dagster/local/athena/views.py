"""Views as Athena keeps them in Glue: Presto's definition as JSON, in base64, in a comment."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zeroetl_dagster.local.athena.errors import QueryFailed
from zeroetl_dagster.local.athena.hive_types import Type, UnknownType, parse

_ENCODED = re.compile(r"/\* Presto View: (?P<definition>[A-Za-z0-9+/=]+) \*/")


@dataclass(frozen=True)
class View:
    """`sql` is Trino's; unqualified names in it belong to `schema`; `columns` in order, with their types."""

    sql: str
    catalog: str
    schema: str
    columns: tuple[tuple[str, Type], ...]


def encode(view: View) -> dict[str, Any]:
    """What `create_table` of Glue gets, without name."""
    definition = {
        "originalSql": view.sql,
        "catalog": view.catalog,
        "schema": view.schema,
        "columns": [{"name": name, "type": kind.trino} for name, kind in view.columns],
    }
    text = base64.b64encode(json.dumps(definition).encode()).decode()
    return {
        "TableType": "VIRTUAL_VIEW",
        "ViewOriginalText": f"/* Presto View: {text} */",
        "ViewExpandedText": "/* Presto View */",
        "Parameters": {"presto_view": "true", "comment": "Presto View"},
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": [{"Name": name, "Type": hive_of(kind)} for name, kind in view.columns],
            "Location": "",
            "SerdeInfo": {},
        },
    }


def decode(table: Mapping[str, Any]) -> View:
    """Raises `QueryFailed` for a view that is none of Presto's (Hive's and Spark's cannot be read by Athena)."""
    found = _ENCODED.search(table.get("ViewOriginalText") or "")
    name = f"{table['DatabaseName']}.{table['Name']}"
    if found is None:
        raise QueryFailed(f"HIVE_VIEW_TRANSLATION_ERROR: Failed to translate Hive view '{name}': it is no Presto view")
    try:
        given = json.loads(base64.b64decode(found["definition"]))
        columns = tuple((column["name"].lower(), parse(column["type"])) for column in given["columns"])
        return View(given["originalSql"], given.get("catalog", "awsdatacatalog"), given["schema"], columns)
    except (ValueError, KeyError, UnknownType) as error:
        raise QueryFailed(f"HIVE_INVALID_VIEW_DATA: Invalid view data for view '{name}': {error}") from None


def hive_of(kind: Type) -> str:
    """The column's type in Glue; Trino types that Hive has not are text there."""
    if kind.name in ("timestamptz", "time", "json", "interval", "unknown"):
        return "string"
    return "string" if kind.name == "varchar" and not kind.arguments else kind.hive


def require_current(view: View, found: list[tuple[str, Type]], name: str) -> None:
    """A view whose tables changed under it is refused by Trino. Raises `QueryFailed` VIEW_IS_STALE."""
    prefix = f"VIEW_IS_STALE: line 1:15: View 'awsdatacatalog.{name}' is stale or in invalid state: "
    if len(found) != len(view.columns):
        raise QueryFailed(
            f"{prefix}stored view column count ({len(view.columns)}) does not match column count derived from the view "
            f"query analysis ({len(found)})"
        )
    for position, ((new_name, new), (old_name, old)) in enumerate(zip(found, view.columns, strict=True)):
        if new_name.lower() != old_name or not _coercible(new, old):
            raise QueryFailed(
                f"{prefix}column [{new_name.lower()}] of type {new.trino} projected from query view at position "
                f"{position} cannot be coerced to column [{old_name}] of type {old.trino} stored in view definition"
            )


_WIDER = ("tinyint", "smallint", "int", "bigint", "decimal", "float", "double")


def _coercible(new: Type, old: Type) -> bool:
    if new == old or "unknown" in (new.name, old.name) or (new.is_text and old.is_text):
        return True
    if new.name == old.name == "decimal":
        return bool(new.arguments[1] <= old.arguments[1])
    if new.is_number and old.is_number:
        return _WIDER.index(new.name) <= _WIDER.index(old.name)
    return new.name == old.name or (new.name == "date" and old.name.startswith("timestamp"))
