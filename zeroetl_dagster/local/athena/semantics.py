"""Rewrites a Trino statement so that DuckDB answers as Trino does, or refuses as Trino does.

Where the two differ without an error, Trino's answer depends on types: integer and decimal division, sums and averages,
casts of text and numbers, dates plus intervals. `Rewriter` goes through every SELECT from the inside out, asks for the
types of the operands (`inference.py`) and replaces the node; names and syntax are sqlglot's translation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp
from sqlglot.errors import OptimizeError
from sqlglot.optimizer.scope import Scope, traverse_scope

from zeroetl_dagster.local.athena import casts, checks, comparisons, functions, lambdas, texts, unnest
from zeroetl_dagster.local.athena.build import call
from zeroetl_dagster.local.athena.build import cast as _cast
from zeroetl_dagster.local.athena.errors import Position, QueryFailed, not_supported
from zeroetl_dagster.local.athena.formats import strftime_of_joda
from zeroetl_dagster.local.athena.hive_types import Type
from zeroetl_dagster.local.athena.inference import FLOATS, INTEGERS, ScopeTypes

_DIGITS = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 19}
_DATE_UNITS = ("DAY", "WEEK", "MONTH", "QUARTER", "YEAR")


class Rewriter:
    """Rewrites one statement; `connection` has the macros and the statement's tables."""

    def __init__(self, connection: Any, sql: str) -> None:
        self._connection = connection
        self.position = Position(sql)

    def rewrite(self, tree: Any) -> Any:
        """The same tree, rewritten in place (a new root where the root itself is replaced).

        Raises `QueryFailed`.
        """
        checks.refused(tree)
        try:
            scopes = traverse_scope(tree)
        except OptimizeError as error:
            raise QueryFailed(f"SYNTAX_ERROR: line 1:1: {error}") from None
        for scope in scopes:
            if not isinstance(scope.expression, exp.Unnest):  # an UNNEST belongs to the SELECT around it
                self._rewrite_scope(scope)
        return tree

    def _rewrite_scope(self, scope: Scope) -> None:
        if isinstance(scope.expression, exp.SetOperation):
            checks.set_operation(scope.expression, self._connection, self.position)
        for count, node in enumerate(_tables(scope.expression)):
            if isinstance(node, exp.Unnest):
                self._rewrite_unnest(node, ScopeTypes(self._connection, scope, tables=count))
        types = ScopeTypes(self._connection, scope)
        checks.having(scope.expression, types, self.position)
        self._rewrite_part(scope.expression, types)

    def _rewrite_unnest(self, node: Any, types: ScopeTypes) -> None:
        """Its arguments speak of the tables before it only; what it makes is not visited again."""
        for argument in list(node.expressions):
            holder = exp.Paren(this=argument.copy())
            argument.replace(holder)
            self._rewrite_part(holder, types)
        node.replace(unnest.rewritten(node, types.of_all(node.expressions)))

    def _rewrite_part(self, root: Any, types: ScopeTypes) -> None:
        levels: dict[int, list[Any]] = {}
        _collect(root, levels)
        for height in sorted(levels):
            nodes = levels[height]
            types.of_all([operand for node in nodes for operand in _operands(node)])
            for node in nodes:
                rewritten = self._apply(node, types)
                if rewritten is not None and rewritten is not node:
                    node.replace(rewritten)

    def _apply(self, node: Any, types: ScopeTypes) -> Any:
        checks.node(node, types, self.position)
        rule = _RULES.get(type(node))
        if rule is not None:
            return rule(node, types)
        if isinstance(node, exp.Anonymous):
            return functions.rewritten(node, types, self.position, checks.family)
        return None


def _tables(select: Any) -> list[Any]:
    """FROM and JOINs in order."""
    if not isinstance(select, exp.Select) or select.args.get("from_") is None:
        return []
    return [select.args["from_"].this, *(join.this for join in select.args.get("joins") or [])]


def _collect(root: Any, levels: dict[int, list[Any]]) -> None:
    """The nodes of a SELECT by how many of them are nested in each; nested queries are scopes of their own."""

    def height_of(node: Any, least: int) -> int:
        height = least
        # a lambda's variables have the types of the arguments before it, so those come first
        for child in sorted(node.iter_expressions(), key=lambda child: isinstance(child, exp.Lambda)):
            if isinstance(child, (exp.Subquery, exp.CTE, exp.With)) or (
                isinstance(child, exp.Query) and child is not root
            ):
                continue
            height = max(height, height_of(child, height if isinstance(child, exp.Lambda) else least))
        if type(node) in _RULES or isinstance(node, (exp.Anonymous, *checks.CHECKED)):
            height += 1
            levels.setdefault(height, []).append(node)
        return height

    height_of(root, -1)


def _operands(node: Any) -> list[Any]:
    """What a rule may ask the type of: direct children that are values."""
    skip = (
        exp.Star,
        exp.DataType,
        exp.Query,
        exp.Subquery,
        exp.Tuple,
        exp.Var,
        exp.Identifier,
        exp.Distinct,
        exp.Order,
    )
    children = [
        child
        for child in node.iter_expressions()
        if not isinstance(child, (*skip, exp.Order, exp.Lambda, exp.JSONPath, exp.Interval, exp.Window, exp.If))
    ]
    if isinstance(node, (exp.Avg, exp.Sum)) and isinstance(node.this, exp.Distinct):
        children += node.this.expressions
    return children


# ---- arithmetic -----------------------------------------------------------------------------------------------------


def _divide(node: Any, types: ScopeTypes) -> Any:
    left, right = types.of_all([node.this, node.expression])
    if left is None or right is None:
        if node.find_ancestor(exp.Order) is not None:  # by an alias: halves and wholes are in the same order
            return None
        raise not_supported(f"the division {node.sql(dialect='trino')}, whose types are not known")
    if left.name in INTEGERS and right.name in INTEGERS:
        return exp.paren(exp.Div(this=_wrapped(node.this), expression=_nonzero(node)), copy=False)
    if left.name in FLOATS or right.name in FLOATS:
        divided = call("trino_double_divide", _cast(node.this, "DOUBLE"), _cast(node.expression, "DOUBLE"))
        return _cast(divided, "REAL") if left.name == right.name == "float" else divided
    if _is_exact(left) and _is_exact(right):
        return _divide_decimals(node.this, left, node.expression, right, safe=_in_try(node))
    return None


def _divide_decimals(a: Any, left: Type, b: Any, right: Type, *, safe: bool) -> Any:
    """Trino: scale max(s1, s2), rounded half up. Exact in 128-bit integers; beyond those, by doubles."""
    (p1, s1), (p2, s2) = _precision(left), _precision(right)
    scale = max(s1, s2)
    precision = min(38, p1 + s2 + max(s2 - s1, 0))
    return _exact_quotient(_decimal(a, p1, s1), _decimal(b, p2, s2), (precision, scale), s1, s2, safe=safe)


def _exact_quotient(a: Any, b: Any, result: tuple[int, int], s1: int, s2: int, *, safe: bool) -> Any:
    precision, scale = result
    divisor = call("trino_nonzero_try" if safe else "trino_nonzero", b)
    shift = scale + s2 - s1
    text = call("trino_quotient", a, divisor, s1, s2, shift, scale)
    return _decimal(_decimal(text, 38, scale), precision, scale)


def _modulo(node: Any, types: ScopeTypes) -> Any:
    left, right = types.of_all([node.this, node.expression])
    if left is None or right is None or not (_is_exact(left) and _is_exact(right)):
        return None
    return exp.paren(exp.Mod(this=_wrapped(node.this), expression=_nonzero(node)), copy=False)


def _nonzero(node: Any) -> Any:
    if isinstance(node.expression, exp.Literal) and float(node.expression.name) != 0:
        return node.expression
    return call("trino_nonzero_try" if _in_try(node) else "trino_nonzero", node.expression)


def _subtract(node: Any, types: ScopeTypes) -> Any:
    left, right = types.of_all([node.this, node.expression])
    if left is not None and right is not None and left.name == right.name == "date":
        days = exp.Sub(this=_wrapped(node.this), expression=_wrapped(node.expression))
        return call("to_days", _cast(exp.paren(days, copy=False), "INTEGER"))
    return _plus_interval(node, types)


def _plus_interval(node: Any, types: ScopeTypes) -> Any:
    """A date plus an interval of days or more stays a date."""
    intervals = [side for side in (node.this, node.expression) if isinstance(side, exp.Interval)]
    if len(intervals) != 1 or str(intervals[0].args.get("unit")).upper().rstrip("S") not in _DATE_UNITS:
        return None
    other = node.expression if node.this is intervals[0] else node.this
    kind = types.of(other)
    return _cast(exp.paren(node.copy(), copy=False), "DATE") if kind is not None and kind.name == "date" else None


def _date_add(node: Any, types: ScopeTypes) -> Any:
    kind = types.of(node.this)
    return _cast(node.copy(), "DATE") if kind is not None and kind.name == "date" else None


def _date_trunc(node: Any, types: ScopeTypes) -> Any:
    """A date's stays a date; DuckDB makes a time of it."""
    kind = types.of(node.this)
    return _cast(node.copy(), "DATE") if kind is not None and kind.name == "date" else None


def _date_diff(node: Any, types: ScopeTypes) -> Any:
    """Trino counts whole units that have passed, DuckDB's date_diff the boundaries between."""
    unit = str(node.args.get("unit") or "day").lower()
    start, end = _cast(node.expression, "TIMESTAMP"), _cast(node.this, "TIMESTAMP")
    return call("date_sub", unit, start, end)


# ---- aggregates -----------------------------------------------------------------------------------------------------


def _sum(node: Any, types: ScopeTypes) -> Any:
    kind = types.of(_argument(node))
    if kind is not None and kind.name in (*INTEGERS, "float"):
        return _around(node, lambda whole: _cast(whole, "BIGINT" if kind.name != "float" else "REAL"))
    return None


def _average(node: Any, types: ScopeTypes) -> Any:
    kind = types.of(_argument(node))
    if kind is None or kind.name not in ("decimal", "float"):
        return None
    if kind.name == "float":
        return _around(node, lambda whole: _cast(whole, "REAL"))
    precision, scale = _precision(kind)

    def exact(whole: Any) -> Any:
        parts = []
        for aggregate in (exp.Sum, exp.Count):
            part = whole.copy()
            inner = part if isinstance(part, exp.Avg) else part.find(exp.Avg)
            made = aggregate(this=inner.this.copy())
            parts.append(made if inner is part else (inner.replace(made), part)[1])
        total, count = _decimal(parts[0], 38, scale), parts[1]
        return _exact_quotient(total, count, (precision, scale), scale, 0, safe=True)

    return _around(node, exact)


def _argument(node: Any) -> Any:
    return node.this.expressions[0] if isinstance(node.this, exp.Distinct) else node.this


def _count_if(node: Any, types: ScopeTypes) -> Any:
    return _around(node, lambda whole: _cast(whole, "BIGINT"))


def _around(node: Any, wrap: Callable[[Any], Any]) -> Any:
    """Apply `wrap` outside of the aggregate's FILTER and OVER."""
    whole = node
    while isinstance(whole.parent, (exp.Filter, exp.Window, exp.WithinGroup)) and whole.parent.this is whole:
        whole = whole.parent
    if whole is node:
        return wrap(node.copy())
    whole.replace(wrap(whole.copy()))
    return None


def _percentile(node: Any, types: ScopeTypes) -> Any:
    kind = types.of(node.this)
    if kind is not None and kind.name == "decimal":
        node.set("this", _cast(node.this, "DOUBLE"))
    return None


# ---- the rest -------------------------------------------------------------------------------------------------------


def _round(node: Any, types: ScopeTypes) -> Any:
    kind = types.of(node.this)
    if kind is not None and kind.name in INTEGERS:
        return _cast(node.copy(), kind.duckdb)
    if kind is None or kind.name != "decimal" or node.args.get("decimals") is None:
        return None
    precision, scale = _precision(kind)
    return _cast(node.copy(), f"DECIMAL({min(38, precision + 1)}, {scale})")


def _whole(node: Any, types: ScopeTypes) -> Any:
    """FLOOR and CEIL of a whole number are itself; DuckDB makes a double of it, and a division is another then."""
    kind = types.of(node.this)
    return node.this if kind is not None and kind.name in INTEGERS else None


def _bits(node: Any, types: ScopeTypes) -> Any:
    return _cast(exp.paren(node.copy(), copy=False), "BIGINT")


def _bracket(node: Any, types: ScopeTypes) -> Any:
    """`a[i]` fails outside of its bounds; `element_at(a, i)` does not."""
    if node.args.get("safe") or len(node.expressions) != 1 or _in_try(node):
        return None
    kind, index = types.of(node.this), node.expressions[0]
    if kind is None or kind.name not in ("array", "map", "struct"):
        return None
    literal = index.this if isinstance(index, exp.Neg) else index
    if isinstance(literal, exp.Literal) and literal.is_int:  # sqlglot counts literal subscripts from 0
        index = exp.Literal.number(int(literal.name) * (-1 if literal is not index else 1) + 1)
    if kind.name == "struct":
        return _field_at(node.this, kind, index)
    return call("trino_item" if kind.name == "array" else "trino_entry", node.this, index)


def _field_at(row: Any, kind: Type, index: Any) -> Any:
    if not (isinstance(index, exp.Literal) and index.is_int and 0 < int(index.name) <= len(kind.fields)):
        raise QueryFailed(f"TYPE_MISMATCH: Row index must be between 1 and {len(kind.fields)}")
    return call("struct_extract", row, kind.fields[int(index.name) - 1])


def _at_time_zone(node: Any, types: ScopeTypes) -> Any:
    return functions.local_time(node.this, node.args["zone"])


def _reduce(node: Any, types: ScopeTypes) -> Any:
    """`reduce(a, s, f, g)` is g of `reduce(a, s, f)`."""
    finish = node.args.get("finish")
    if finish is None:
        return None
    made = node.copy()
    made.set("finish", None)
    return lambdas.replaced(finish.this, {finish.expressions[0].name.lower(): made})


def _parse_datetime(node: Any, types: ScopeTypes) -> Any:
    pattern = strftime_of_joda(_text_of(node.args["format"], "parse_datetime"))
    return _cast(call("strptime", node.this, pattern), "TIMESTAMPTZ")


def _text_of(node: Any, function: str) -> str:
    if not (isinstance(node, exp.Literal) and node.is_string):
        raise not_supported(f"{function} with a format that is no literal")
    return str(node.name)


def _cast_node(node: Any, types: ScopeTypes) -> Any:
    return casts.rewritten(node, types.of(node.this), safe=isinstance(node, exp.TryCast) or _in_try(node))


def _date_function(node: Any, types: ScopeTypes) -> Any:
    if node.this is None or node.expressions:
        return None
    made = exp.Cast(this=node.this.copy(), to=exp.DataType.build("DATE"))
    return casts.rewritten(made, types.of(node.this), safe=_in_try(node))


def _in_try(node: Any) -> bool:
    return node.find_ancestor(exp.Try) is not None


def _is_exact(kind: Type) -> bool:
    return kind.name in INTEGERS or kind.name == "decimal"


def _precision(kind: Type) -> tuple[int, int]:
    if kind.name == "decimal":
        return int(kind.arguments[0]), int(kind.arguments[1])
    return _DIGITS[kind.name], 0


def _decimal(node: Any, precision: int, scale: int) -> Any:
    return _cast(node, f"DECIMAL({precision}, {scale})")


def _wrapped(node: Any) -> Any:
    return node.copy() if isinstance(node, (exp.Column, exp.Literal, exp.Paren, exp.Func)) else exp.paren(node)


def _reverse(node: Any, types: ScopeTypes) -> Any:
    kind = types.of(node.this)
    return call("list_reverse", node.this) if kind is not None and kind.name == "array" else None


def _size(node: Any, types: ScopeTypes) -> Any:
    kind = types.of(node.this)
    name = "cardinality" if kind is not None and kind.name == "map" else "len"
    return _cast(call(name, node.this), "BIGINT")


_EXTRACTED = {
    "DAY_OF_MONTH": "DAY", "DAY_OF_WEEK": "ISODOW", "DOW": "ISODOW", "DAY_OF_YEAR": "DOY", "DOY": "DOY",
    "YEAR_OF_WEEK": "ISOYEAR", "YOW": "ISOYEAR",
}  # fmt: skip


def _extract(node: Any, types: ScopeTypes) -> Any:
    node.set("this", exp.var(_EXTRACTED.get(str(node.this).upper(), str(node.this))))


def _unix_time(node: Any, types: ScopeTypes) -> Any:
    zone = node.args.get("zone")
    if zone is None:
        return None
    node.set("zone", None)
    return functions.local_time(node, zone)


def _pipes(node: Any, types: ScopeTypes) -> Any:
    """An array and an element in either order."""
    left, right = types.of_all([node.this, node.expression])
    if left is None or right is None or (left.name == "array") == (right.name == "array"):
        return None
    if left.name == "array":
        return call("list_append", node.this, node.expression)
    return call("list_prepend", node.this, node.expression)


_RULES: dict[type[Any], Callable[[Any, ScopeTypes], Any]] = {
    **texts.RULES,
    exp.EQ: comparisons.rewritten,
    exp.NEQ: comparisons.rewritten,
    exp.GT: comparisons.rewritten,
    exp.GTE: comparisons.rewritten,
    exp.LT: comparisons.rewritten,
    exp.LTE: comparisons.rewritten,
    exp.DPipe: _pipes,
    exp.Reverse: _reverse,
    exp.ArraySize: _size,
    exp.Extract: _extract,
    exp.UnixToTime: _unix_time,
    exp.Div: _divide,
    exp.Mod: _modulo,
    exp.Sub: _subtract,
    exp.Add: _plus_interval,
    exp.DateAdd: _date_add,
    exp.DateDiff: _date_diff,
    exp.TimestampTrunc: _date_trunc,
    exp.DateTrunc: _date_trunc,
    exp.Sum: _sum,
    exp.Avg: _average,
    exp.CountIf: _count_if,
    exp.ApproxQuantile: _percentile,
    exp.Round: _round,
    exp.Floor: _whole,
    exp.Ceil: _whole,
    exp.BitwiseAnd: _bits,
    exp.BitwiseOr: _bits,
    exp.BitwiseXor: _bits,
    exp.BitwiseNot: _bits,
    exp.Bracket: _bracket,
    exp.AtTimeZone: _at_time_zone,
    exp.Reduce: _reduce,
    exp.ParseDatetime: _parse_datetime,
    exp.Cast: _cast_node,
    exp.TryCast: _cast_node,
    exp.Date: _date_function,
}
