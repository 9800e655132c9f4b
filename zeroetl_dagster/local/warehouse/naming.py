"""The names of a query's columns as Redshift gives them, which are PostgreSQL's: `count`, `?column?`, …

Written into the query as aliases, since DuckDB would name a column after its whole expression.
"""

from __future__ import annotations

from sqlglot import exp

from zeroetl_dagster.local.warehouse.dialect import declared
from zeroetl_dagster.local.warehouse.types import parse

_UNNAMED = "?column?"
_NAMES: dict[type[exp.Expr], str] = {
    exp.Case: "case", exp.DecodeCase: "case", exp.Coalesce: "coalesce", exp.Nullif: "nullif",
    exp.GroupConcat: "listagg", exp.Extract: "date_part", exp.StrPosition: "strpos", exp.Substring: "substring",
    exp.CurrentDate: "date",
    exp.CurrentTimestamp: "timestamptz", exp.CurrentUser: "current_user", exp.SessionUser: "session_user",
    exp.CurrentSchema: "current_schema", exp.Boolean: "bool", exp.Stddev: "stddev_samp", exp.Variance: "var_samp",
    exp.ApproxDistinct: "count", exp.Array: "array", exp.Exists: _UNNAMED, exp.And: _UNNAMED, exp.Or: _UNNAMED,
    exp.RegexpLike: _UNNAMED, exp.RegexpILike: _UNNAMED,
}  # fmt: skip


def name_columns(tree: exp.Expr) -> None:
    """Give every unnamed column of every SELECT its name, in place."""
    for select in list(tree.find_all(exp.Select)):
        named = []
        for one in select.expressions:
            plain = isinstance(one, exp.Alias | exp.Star | exp.Column | exp.Aliases)
            named.append(one if plain else exp.alias_(one, name_of(one), quoted=True))
        select.set("expressions", named)


def name_of(node: exp.Expr) -> str:
    if isinstance(node, exp.Cast):
        inner = name_of(node.this)
        kind = parse(declared(node.to))
        return inner if inner != _UNNAMED else _type_name(kind.name if kind else "varchar")
    if isinstance(node, exp.Column | exp.Alias | exp.Bracket):
        return node.alias_or_name or _UNNAMED
    if isinstance(node, exp.Paren | exp.Window | exp.WithinGroup | exp.IgnoreNulls | exp.RespectNulls | exp.Distinct):
        return name_of(node.this)
    if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Select) and node.this.expressions:
        return name_of(node.this.expressions[0])
    if isinstance(node, exp.Trim):
        return {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or ""), "btrim")
    if type(node) in _NAMES:
        return _NAMES[type(node)]
    if isinstance(node, exp.Anonymous):
        return str(node.this).lower()
    return node.sql_name().lower() if isinstance(node, exp.Func) else _UNNAMED


def _type_name(name: str) -> str:
    """PostgreSQL's short name, after which a cast of a constant is called."""
    return {
        "character varying": "varchar", "character": "bpchar", "integer": "int4", "bigint": "int8", "smallint": "int2",
        "double precision": "float8", "real": "float4", "boolean": "bool",
        "timestamp without time zone": "timestamp", "timestamp with time zone": "timestamptz",
        "time without time zone": "time", "time with time zone": "timetz", "binary varying": "varbyte",
    }.get(name, name)  # fmt: skip
