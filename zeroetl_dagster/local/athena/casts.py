"""Casts as Trino does them: what is cut, rounded, refused, and how numbers and times look as text."""

from __future__ import annotations

import re
from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.athena.errors import QueryFailed
from zeroetl_dagster.local.athena.hive_types import Type, UnknownType, parse

_INTEGERS = {"tinyint": "TINYINT", "smallint": "SMALLINT", "int": "INT", "bigint": "BIGINT"}
_LITERALS = {
    "date": re.compile(r"\s*[+-]?\d{4,}-\d{1,2}-\d{1,2}\s*"),
    "timestamp": re.compile(r"\s*[+-]?\d{4,}-\d{1,2}-\d{1,2}( \d{1,2}:\d{1,2}(:\d{1,2}(\.\d+)?)?)?\s*"),
}


def rewritten(node: Any, source: Type | None, *, safe: bool) -> Any:
    """The cast for DuckDB; `safe` gives NULL where the cast would fail. Raises `QueryFailed` for a bad literal."""
    try:
        target = parse(node.to.sql(dialect="trino"))
    except UnknownType:
        return None
    precise = "TIMESTAMP" in node.to.sql(dialect="trino").upper() and "(6)" in node.to.sql(dialect="trino")
    value = node.this.copy()
    if source is not None:
        if isinstance(value, exp.Literal) and value.is_string and target.name in _LITERALS:
            value = _checked_literal(value, target.name, safe=safe)
        else:
            value = _prepared(value, source, target, safe)
    kind = exp.TryCast if safe else exp.Cast
    made: Any = kind(this=value, to=exp.DataType.build(target.duckdb, dialect="duckdb"))
    if target.name == "timestamp" and source is not None and source.is_text and not precise:
        made = _call("trino_timestamp_ms", made)
    if target.name in ("varchar", "char") and target.arguments:
        made = _call(_length_rule(source, target), made, exp.Literal.number(target.arguments[0]))
    if target.name == "json" and (source is None or source.name != "json"):
        made = _call("to_json", value)
    return made


def _length_rule(source: Type | None, target: Type) -> str:
    if target.name == "char":
        return "trino_pad"
    return "trino_cut" if source is None or source.is_text or source.name == "json" else "trino_fit"


def _prepared(value: Any, source: Type, target: Type, safe: bool) -> Any:
    """The value as DuckDB's own cast may take it."""
    if target.is_text:
        return as_text(value, source)
    if source.is_text:
        return _from_text(value, target, safe)
    if target.name in _INTEGERS and source.name in ("double", "float"):
        return _call("round", value)
    return value


def as_text(value: Any, source: Type | None) -> Any:
    """The value as Trino writes it; one of an unknown type as DuckDB does."""
    if source is None:
        return _varchar(value)
    if source.name in ("double", "float"):
        return _call("trino_double_text", value)
    if source.name == "timestamp":
        return _call("trino_timestamp_show", value)
    if source.name == "timestamptz":
        return _call("trino_zoned_show", value)
    if source.name == "time":
        return _call("trino_time_show", value)
    if source.name == "json":
        return _call("json_extract_string", value, exp.Literal.string("$"))
    return value if source.is_text else _varchar(value)


def _varchar(value: Any) -> Any:
    return exp.Cast(this=value.copy(), to=exp.DataType.build("VARCHAR", dialect="duckdb"))


def _from_text(value: Any, target: Type, safe: bool) -> Any:
    if target.name in _INTEGERS:
        if safe:
            return _call("trino_integer_try", value)
        return _call("trino_integer_text", value, exp.Literal.string(_INTEGERS[target.name]))
    rules = {"date": "date", "timestamp": "timestamp", "timestamptz": "zoned", "boolean": "boolean"}
    if target.name in rules:
        return _call(f"trino_{rules[target.name]}_{'try' if safe else 'text'}", value)
    return value


def _checked_literal(value: Any, kind: str, *, safe: bool) -> Any:
    """A literal is judged here, so that DuckDB sees a constant."""
    if _LITERALS[kind].fullmatch(value.name):
        return value
    if safe:
        return exp.Null()
    raise QueryFailed(f"INVALID_CAST_ARGUMENT: Value cannot be cast to {kind}: {value.name}")


def _call(name: str, *arguments: Any) -> Any:
    return exp.Anonymous(this=name, expressions=list(arguments))
