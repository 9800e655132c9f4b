"""The filter of get_partitions: a WHERE clause over partition keys (Glue API reference, GetPartitions, Expression)."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from zeroetl_dagster.local.aws.errors import AwsError

NULL_VALUE = "__HIVE_DEFAULT_PARTITION__"
_COMPARISONS: dict[type[exp.Expression], Callable[[Any, Any], bool]] = {
    exp.EQ: lambda a, b: a == b,
    exp.NEQ: lambda a, b: a != b,
    exp.GT: lambda a, b: a > b,
    exp.GTE: lambda a, b: a >= b,
    exp.LT: lambda a, b: a < b,
    exp.LTE: lambda a, b: a <= b,
}
Row = Mapping[str, str]


def compile_expression(text: str, keys: list[Mapping[str, str]]) -> Callable[[list[str]], bool]:
    """A predicate on partition values. Raises `AwsError` InvalidInputException for what is no such filter."""
    types = {key["Name"].lower(): key.get("Type", "string").lower() for key in keys}
    names = list(types)
    try:
        tree: Any = parse_one(text, dialect="hive")
    except SqlglotError:
        raise AwsError("InvalidInputException", f"Unsupported expression '{text}'") from None
    for column in tree.find_all(exp.Column):
        if column.name.lower() not in types:
            raise AwsError(
                "InvalidInputException",
                f"Unsupported expression '{text}': {column.name} is no partition key (keys: {', '.join(names)})",
            )

    def matches(values: list[str]) -> bool:
        try:
            return _evaluate(tree, dict(zip(names, values, strict=True)), types) is True
        except (_Unsupported, InvalidOperation, ValueError, TypeError) as error:
            raise AwsError("InvalidInputException", f"Unsupported expression '{text}': {error}") from None

    if not any(isinstance(node, (exp.Predicate, exp.Connector, exp.Not)) for node in [tree.unnest()]):
        raise AwsError("InvalidInputException", f"Unsupported expression '{text}'")
    return matches


class _Unsupported(Exception):
    pass


def _evaluate(node: exp.Expression, row: Row, types: Mapping[str, str]) -> bool | None:
    """Three-valued, as SQL: None is unknown."""
    if isinstance(node, exp.Paren):
        return _evaluate(node.this, row, types)
    if isinstance(node, exp.And):
        sides = [_evaluate(node.this, row, types), _evaluate(node.expression, row, types)]
        return False if False in sides else None if None in sides else True
    if isinstance(node, exp.Or):
        sides = [_evaluate(node.this, row, types), _evaluate(node.expression, row, types)]
        return True if True in sides else None if None in sides else False
    if isinstance(node, exp.Not):
        inner = _evaluate(node.this, row, types)
        return None if inner is None else not inner
    return _predicate(node, row, types)


def _predicate(node: exp.Expression, row: Row, types: Mapping[str, str]) -> bool | None:
    kind = next((types[c.name.lower()] for c in node.find_all(exp.Column)), "string")

    def value(item: exp.Expression) -> Any:
        return _value(item, row, kind)

    if isinstance(node, exp.Is):
        return value(node.this) is None
    left = value(node.this)
    if left is None:
        return None
    if isinstance(node, exp.Between):
        return bool(value(node.args["low"]) <= left <= value(node.args["high"]))
    if isinstance(node, exp.In):
        return any(left == value(item) for item in node.expressions)
    if isinstance(node, exp.Like):
        pattern = re.escape(str(value(node.expression))).replace("%", ".*").replace("_", ".")
        return re.fullmatch(pattern, str(left), re.DOTALL) is not None
    compare = _COMPARISONS.get(type(node))
    if compare is None:
        raise _Unsupported(f"{node.sql()} is no comparison")
    right = value(node.expression)
    return None if right is None else compare(left, right)


def _value(node: exp.Expression, row: Row, kind: str) -> Any:
    if isinstance(node, exp.Paren):
        return _value(node.this, row, kind)
    if isinstance(node, exp.Cast):
        return _value(node.this, row, kind)
    if isinstance(node, exp.Null):
        return None
    if isinstance(node, exp.Column):
        text = row[node.name.lower()]
        return None if text == NULL_VALUE else _typed(text, kind)
    if isinstance(node, exp.Neg):
        return _typed("-" + node.this.name, kind)
    if isinstance(node, exp.Literal):
        return _typed(node.name, kind)
    raise _Unsupported(f"{node.sql()} is neither a key nor a value")


def _typed(text: str, kind: str) -> Any:
    if kind.startswith(("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")):
        return Decimal(text)
    if kind == "date":
        return datetime.date.fromisoformat(text)
    if kind == "timestamp":
        return datetime.datetime.fromisoformat(text)
    return text
