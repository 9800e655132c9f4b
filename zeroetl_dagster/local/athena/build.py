"""Pieces of DuckDB's SQL."""

from __future__ import annotations

from typing import Any

from sqlglot import exp


def call(name: str, *arguments: Any) -> Any:
    """A DuckDB function by its own name; plain Python texts and numbers are literals."""
    return exp.Anonymous(this=name, expressions=[_node(argument) for argument in arguments])


def cast(node: Any, kind: str) -> Any:
    """A plain cast to one of DuckDB's types."""
    return exp.Cast(this=node.copy(), to=exp.DataType.build(kind, dialect="duckdb"))


def _node(value: Any) -> Any:
    if isinstance(value, exp.Expression):
        return value
    return exp.Literal.string(value) if isinstance(value, str) else exp.Literal.number(value)
