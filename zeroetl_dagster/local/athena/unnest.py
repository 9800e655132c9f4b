"""UNNEST as Trino has it: of several arrays side by side, of maps into keys and values, of rows into their fields."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.athena.build import call
from zeroetl_dagster.local.athena.errors import QueryFailed
from zeroetl_dagster.local.athena.hive_types import Type
from zeroetl_dagster.local.athena.lambdas import transformed


def rewritten(node: Any, kinds: list[Type | None]) -> Any:
    """The UNNEST of FROM or JOIN as a subquery that sees the tables before it. Raises `QueryFailed` TYPE_MISMATCH."""
    columns: list[tuple[str, Any]] = []
    sizes = []
    for argument, kind in zip(node.expressions, kinds, strict=True):
        columns += _columns(argument, kind)
        sizes.append(call("len", call("map_keys", argument) if _is(kind, "map") else argument))
    if node.args.get("offset"):
        longest = sizes[0] if len(sizes) == 1 else call("greatest", *sizes)
        columns.append(("", call("generate_series", 1, longest)))
    select = exp.Select(expressions=[exp.alias_(call("unnest", c), f"c{i}") for i, (_, c) in enumerate(columns)])
    made: Any = exp.Subquery(this=select)
    if isinstance(node.parent, exp.Join):
        made = exp.Lateral(this=made)
    made.set("alias", _alias(node, [name for name, _ in columns]))
    return made


def _columns(argument: Any, kind: Type | None) -> list[tuple[str, Any]]:
    """(name, list) of the columns that one argument becomes; names only where Trino gives them."""
    if kind is None or kind.name == "unknown":
        return [("", argument)]
    if kind.name == "map":
        return [("", call("map_keys", argument)), ("", call("map_values", argument))]
    if kind.name != "array":
        raise QueryFailed(f"TYPE_MISMATCH: Cannot unnest type: {kind.trino}")
    inner = kind.arguments[0]
    if inner.name != "struct":
        return [("", argument)]
    element = exp.column("zeroetl_row")
    return [
        (name, transformed(argument.copy(), "zeroetl_row", call("struct_extract", element.copy(), name)))
        for name in inner.fields
    ]


def _alias(node: Any, names: list[str]) -> Any:
    given = node.args.get("alias")
    alias = given.this if given is not None and given.this is not None else exp.to_identifier("zeroetl_unnest")
    chosen = list(given.args.get("columns") or []) if given is not None else []
    offset = node.args.get("offset")
    chosen += [offset] if isinstance(offset, exp.Identifier) else []
    if chosen and len(chosen) != len(names):
        raise QueryFailed(
            f"MISMATCHED_COLUMN_ALIASES: Column alias list has {len(chosen)} entries but '{alias.name}' has "
            f"{len(names)} columns available"
        )
    columns = chosen or [exp.to_identifier(name or f"_col{i}", quoted=True) for i, name in enumerate(names)]
    return exp.TableAlias(this=alias.copy(), columns=[column.copy() for column in columns])


def _is(kind: Type | None, name: str) -> bool:
    return kind is not None and kind.name == name
