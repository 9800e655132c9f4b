"""How long the text columns of a query may be, and which are CHAR: DuckDB knows neither.

Followed from declared columns and casts through subqueries and the functions that keep a length; None where it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlglot import exp

from zeroetl_dagster.local.warehouse.dialect import declared
from zeroetl_dagster.local.warehouse.relations import Column
from zeroetl_dagster.local.warehouse.types import MAX_VARCHAR, RedshiftType, parse

Output = list[tuple[str, RedshiftType | None]]
ColumnsOf = Callable[[exp.Table], "list[Column] | None"]

_KEEPING = ("lower", "upper", "initcap", "btrim", "ltrim", "rtrim", "trim", "reverse", "left", "right", "isnull")
_SAME_AS_FIRST = (
    exp.Max, exp.Min, exp.AnyValue, exp.FirstValue, exp.LastValue, exp.NthValue, exp.Lag, exp.Lead, exp.Nullif,
    exp.Window, exp.Paren, exp.Alias, exp.IgnoreNulls, exp.RespectNulls, exp.Distinct,
)  # fmt: skip


def text_types(query: exp.Expr, columns_of: ColumnsOf) -> list[RedshiftType | None] | None:
    """The text types of a query's columns, None for the others; None when not even their number can be told."""
    found = _outputs(query, {}, columns_of)
    return None if found is None else [kind for _, kind in found]


def _outputs(node: exp.Expr, ctes: Mapping[str, Output | None], columns_of: ColumnsOf) -> Output | None:
    clause = node.args.get("with_")
    if clause is not None:
        ctes = dict(ctes)
        for one in clause.expressions:
            found = _outputs(one.this, ctes, columns_of)
            names = [column.name for column in one.args["alias"].columns] if one.args.get("alias") else []
            ctes[one.alias] = _renamed(found, names)
    if isinstance(node, exp.Subquery | exp.Paren):
        return _outputs(node.this, ctes, columns_of)
    if isinstance(node, exp.SetOperation):
        left, right = (_outputs(one, ctes, columns_of) for one in (node.this, node.expression))
        if left is None or right is None or len(left) != len(right):
            return left
        return [(name, _together([a, b])) for (name, a), (_, b) in zip(left, right, strict=True)]
    return _selected(node, ctes, columns_of) if isinstance(node, exp.Select) else None


def _renamed(found: Output | None, names: list[str]) -> Output | None:
    if found is None or not names:
        return found
    return [(name, kind) for name, (_, kind) in zip(names, found, strict=False)]


def _selected(node: exp.Select, ctes: Mapping[str, Output | None], columns_of: ColumnsOf) -> Output | None:
    sources: dict[str, Output | None] = {}
    joins = node.args.get("joins") or []
    tables = [node.args["from_"].this] if node.args.get("from_") else []
    for table in [*tables, *(join.this for join in joins)]:
        sources[table.alias_or_name] = _source(table, ctes, columns_of)
    merged = any(join.args.get("using") or join.args.get("method") for join in joins)
    made: Output = []
    for projection in node.expressions:
        if isinstance(projection, exp.Star) or isinstance(projection, exp.Column) and projection.is_star:
            wanted = [projection.table] if isinstance(projection, exp.Column) else list(sources)
            parts = [sources.get(name) for name in wanted]
            if (
                merged
                or any(part is None for part in parts)
                or any(star.args.get("except_") for star in projection.find_all(exp.Star))
            ):
                return None
            made += [column for part in parts for column in part or []]
        else:
            made.append((projection.alias_or_name, _type(projection, sources)))
    return made


def _source(table: exp.Expr, ctes: Mapping[str, Output | None], columns_of: ColumnsOf) -> Output | None:
    if isinstance(table, exp.Table) and not table.db and table.name in ctes:
        return ctes[table.name]
    if isinstance(table, exp.Table):
        columns = columns_of(table)
        return None if columns is None else [(one.name, one.type if one.type.is_text else None) for one in columns]
    if isinstance(table, exp.Subquery):
        found = _outputs(table.this, ctes, columns_of)
        alias = table.args.get("alias")
        return _renamed(found, [column.name for column in alias.columns] if alias else [])
    return None


def _type(node: exp.Expr | None, sources: Mapping[str, Output | None]) -> RedshiftType | None:
    if isinstance(node, exp.Column):
        return _column(node, sources)
    if isinstance(node, exp.Literal):
        return RedshiftType("character varying", max(len(node.this.encode()), 1)) if node.is_string else None
    if isinstance(node, exp.Cast):
        found = parse(declared(node.to))
        if found is None or not found.is_text:
            return None
        sized = node.to.expressions or found.name == "character"
        return found if sized else RedshiftType("character varying", MAX_VARCHAR)
    if isinstance(node, _SAME_AS_FIRST):
        return _type(node.this, sources)
    if isinstance(node, exp.Trim):
        found = _type(node.this, sources)
        return RedshiftType("character varying", found.size) if found else None
    if isinstance(node, exp.Coalesce):
        return _together([_type(one, sources) for one in (node.this, *node.expressions)])
    if isinstance(node, exp.Case):
        results = [one.args["true"] for one in node.args["ifs"]] + [node.args.get("default")]
        return _together([_type(one, sources) for one in results if one is not None and not isinstance(one, exp.Null)])
    if isinstance(node, exp.DPipe):
        parts = [_type(one, sources) for one in (node.this, node.expression)]
        if all(parts):
            return RedshiftType("character varying", min(sum(one.size or 0 for one in parts if one), MAX_VARCHAR))
    if isinstance(node, exp.Anonymous) and str(node.this).lower() in _KEEPING and node.expressions:
        found = _type(node.expressions[0], sources)
        return RedshiftType("character varying", found.size) if found else None
    return None


def _column(node: exp.Column, sources: Mapping[str, Output | None]) -> RedshiftType | None:
    parts = [sources.get(node.table)] if node.table else list(sources.values())
    found = [kind for part in parts for name, kind in part or [] if name == node.name]
    return found[0] if len(found) == 1 else None


def _together(kinds: list[RedshiftType | None]) -> RedshiftType | None:
    """The type of a column whose values come from several."""
    if not kinds or any(kind is None for kind in kinds):
        return None
    known = [kind for kind in kinds if kind is not None]
    size = max(kind.size or 0 for kind in known)
    only_char = all(kind.name == "character" for kind in known) and len({kind.size for kind in known}) == 1
    return RedshiftType("character" if only_char else "character varying", size)
