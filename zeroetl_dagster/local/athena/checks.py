"""Types that Trino does not mix: refused with its words, where DuckDB would quietly cast.

The trap that matters: an export's dates and numbers are text, and a comparison with them fails in Athena.
"""

from __future__ import annotations

from typing import Any

import duckdb
from sqlglot import exp

from zeroetl_dagster.local.athena.errors import Position, QueryFailed, column_not_found, not_supported, type_mismatch
from zeroetl_dagster.local.athena.hive_types import Type, UnknownType, parse
from zeroetl_dagster.local.athena.inference import ScopeTypes

_COMPARISONS: dict[type[Any], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
}
_ARITHMETIC: dict[type[Any], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%"}
# First argument must be text (Trino's string functions), by the name in the message.
_TEXT_FUNCTIONS: dict[type[Any], str] = {
    exp.Substring: "substr",
    exp.Lower: "lower",
    exp.Upper: "upper",
    exp.Trim: "trim",
    exp.Replace: "replace",
    exp.Split: "split",
    exp.SplitPart: "split_part",
    exp.StrPosition: "strpos",
    exp.Pad: "lpad",
    exp.StartsWith: "starts_with",
    exp.RegexpExtract: "regexp_extract",
    exp.RegexpReplace: "regexp_replace",
    exp.RegexpLike: "regexp_like",
    exp.Length: "length",
}
_TIMES: dict[type[Any], str] = {
    exp.Year: "year", exp.Month: "month", exp.Day: "day", exp.Quarter: "quarter", exp.TimestampTrunc: "date_trunc",
    exp.DayOfWeekIso: "day_of_week", exp.DayOfYear: "day_of_year", exp.WeekOfYear: "week", exp.Hour: "hour",
    exp.Minute: "minute", exp.DateAdd: "date_add", exp.DateDiff: "date_diff", exp.TimeToStr: "date_format",
}  # fmt: skip
_NUMERIC_AGGREGATES: dict[type[Any], str] = {exp.Sum: "sum", exp.Avg: "avg"}
_FUNCTIONS = {**_TEXT_FUNCTIONS, **_TIMES, **_NUMERIC_AGGREGATES}
CHECKED = (
    *_COMPARISONS, *_ARITHMETIC, *_FUNCTIONS, exp.Between, exp.In, exp.Like,
    exp.DPipe, exp.Concat, exp.Coalesce, exp.Case, exp.If,
)  # fmt: skip


def refused(tree: Any) -> None:
    """SQL/JSON, which only looks like the JSON functions of DuckDB, and results with a zone. Raises `QueryFailed`."""
    _zones(tree)
    for group in tree.find_all(exp.Group):
        if group.args.get("all"):
            raise QueryFailed("SYNTAX_ERROR: mismatched input 'ALL'. Expecting: <expression>")
    names = {exp.JSONObject: "json_object", exp.JSONValue: "json_value", exp.JSONExtract: "json_query"}
    for found in tree.find_all(*names):
        if type(found) is not exp.JSONExtract or found.args.get("json_query"):
            raise not_supported(f"the function {names[type(found)]}")


def _zones(tree: Any) -> None:
    """DuckDB's values have no zone but UTC: within a query the clock on the wall is right, as a result it would lack
    its zone. (Athena's views and tables do not take such a column either.)"""
    if isinstance(tree, exp.SetOperation):
        _zones(tree.this)
        _zones(tree.expression)
        return
    for output in tree.selects if isinstance(tree, exp.Select) else ():
        found = output.unalias().unnest()
        zone = found.args.get("zone") if isinstance(found, (exp.AtTimeZone, exp.UnixToTime)) else None
        if isinstance(found, exp.Anonymous) and found.name.lower() == "at_timezone":
            zone = found.expressions[-1]
        if zone is not None and zone.name.upper() != "UTC":
            raise not_supported(
                f"a timestamp with the time zone {zone.name} as a result: take its parts, or cast it to timestamp"
            )


def node(found: Any, types: ScopeTypes, position: Position) -> None:
    """Raises `QueryFailed` TYPE_MISMATCH or FUNCTION_NOT_FOUND."""
    kind = type(found)
    if kind in _COMPARISONS or kind in _ARITHMETIC:
        _operator(found, {**_COMPARISONS, **_ARITHMETIC}[kind], types, position)
    elif kind is exp.Between:
        _between(found, types, position)
    elif kind is exp.In:
        _in(found, types, position)
    elif kind is exp.Like:
        left = types.of(found.this)
        if left is not None and not left.is_text and left.name != "unknown":
            message = f"Left side of LIKE expression must evaluate to a varchar (actual: {left.trino})"
            raise type_mismatch(_where(found.this, position), message)
    elif kind in (exp.DPipe, exp.Concat):
        _concat(found, types, position)
    elif kind in (exp.Coalesce, exp.Case) or (kind is exp.If and not isinstance(found.parent, exp.Case)):
        _common(found, types, position)
    elif kind in _FUNCTIONS:
        _function(found, types, position)


def _operator(found: Any, sign: str, types: ScopeTypes, position: Position) -> None:
    if any(isinstance(side, (exp.Tuple, exp.Interval, exp.Any, exp.All)) for side in (found.this, found.expression)):
        return
    left, right = types.of_all([found.this, found.expression])
    if left is None or right is None or "unknown" in (left.name, right.name):
        return
    arithmetic = type(found) in _ARITHMETIC
    if family(left) != family(right) or (arithmetic and family(left) in ("text", "boolean")):
        if arithmetic and {family(left), family(right)} in ({"time", "interval"}, {"number", "interval"}):
            return
        message = f"Cannot apply operator: {left.trino} {sign} {right.trino}"
        raise type_mismatch(_where(found.this, position), message)


def _between(found: Any, types: ScopeTypes, position: Position) -> None:
    kinds = types.of_all([found.this, found.args["low"], found.args["high"]])
    if len(_families(kinds)) > 1:
        value, low, high = (kind.trino if kind else "unknown" for kind in kinds)
        message = f"Cannot check if {value} is BETWEEN {low} and {high}"
        raise type_mismatch(_where(found.this, position), message)


def _in(found: Any, types: ScopeTypes, position: Position) -> None:
    if found.expressions and not isinstance(found.this, exp.Tuple):
        kinds = types.of_all([found.this, *found.expressions])
        if len(_families(kinds)) > 1:
            message = f"All IN operands must be the same type or coercible to a common type. {_no_common(kinds)}"
            raise type_mismatch(_where(found.this, position), message)


def _concat(found: Any, types: ScopeTypes, position: Position) -> None:
    parts = list(found.expressions) or [found.this, found.expression]
    kinds = types.of_all(parts)
    families = _families(kinds)
    if "array" in families and isinstance(found, exp.DPipe):
        return  # an element too
    if families and not families <= {"text"} and families not in ({"array"}, {"binary"}):
        _unexpected("concat", kinds, _where(parts[0], position), "concat(varchar), concat(array(E)), concat(varbinary)")


def _common(found: Any, types: ScopeTypes, position: Position) -> None:
    if isinstance(found, exp.Coalesce):
        values, word = [found.this, *found.expressions], "COALESCE operands"
    elif isinstance(found, exp.If):
        values = [value for value in (found.args.get("true"), found.args.get("false")) if value is not None]
        word = "IF results"
    else:
        values = [branch.args["true"] for branch in found.args["ifs"]]
        values += [found.args["default"]] if found.args.get("default") is not None else []
        word = "CASE results"
    kinds = types.of_all(values)
    if len(_families(kinds)) > 1:
        message = f"All {word} must be the same type or coercible to a common type. {_no_common(kinds)}"
        raise type_mismatch(_where(found, position), message)


def _function(found: Any, types: ScopeTypes, position: Position) -> None:
    kind = type(found)
    argument = found.this.expressions[0] if isinstance(found.this, exp.Distinct) else found.this
    if argument is None:
        return
    given = types.of(argument)
    if given is None or given.name == "unknown":
        return
    allowed = {"number", "interval"} if kind in _NUMERIC_AGGREGATES else {"time"} if kind in _TIMES else {"text"}
    if kind is exp.Length:
        allowed = {"text", "binary"}
    if kind in _TIMES:
        allowed = {"time", "interval"} if given.name != "time" else {"clock"}
    if family(given) not in allowed:
        name = _FUNCTIONS[kind]
        expected = {"text": "varchar", "number": "bigint, double, decimal(p,s)", "time": "date, timestamp(p)"}
        first = sorted(allowed, key=lambda family: family == "interval")[0]
        _unexpected(name, [given], position.of_word(name), f"{name}({expected.get(first, first)})")


def having(select: Any, types: ScopeTypes, position: Position) -> None:
    """HAVING does not know the names that the select list gives. Raises `QueryFailed` COLUMN_NOT_FOUND."""
    clause = select.args.get("having")
    if clause is None:
        return
    given = {item.alias.lower() for item in select.expressions if isinstance(item, exp.Alias)}
    for column in clause.find_all(exp.Column):
        named = not column.table and column.name.lower() in given
        if named and column.find_ancestor(exp.Select) is select and types.of(column) is None:
            raise column_not_found(column.name, position.of_word(column.name))


def set_operation(found: Any, connection: Any, position: Position) -> None:
    """UNION and its like: as many columns on each side, of types that have a common one."""
    sides = [_described(side, found, connection) for side in (found.this, found.expression)]
    if None in sides:
        return
    left, right = sides
    assert left is not None and right is not None
    word = type(found).__name__.upper()
    if len(left) != len(right):
        raise type_mismatch("line 1:1: ", f"{word} query has different number of fields: {len(left)}, {len(right)}")
    for index, kinds in enumerate(zip(left, right, strict=True), 1):
        if len(_families(list(kinds))) > 1:
            shown = ", ".join(kind.trino for kind in kinds if kind)
            raise type_mismatch("line 1:1: ", f"column {index} in {word} query has incompatible types: {shown}")


def _described(side: Any, root: Any, connection: Any) -> list[Type | None] | None:
    clause = root.args.get("with_")
    head = clause.sql(dialect="duckdb") + " " if clause is not None else ""
    try:
        rows = connection.execute(f"DESCRIBE {head}{side.sql(dialect='duckdb')}").fetchall()
    except duckdb.Error:
        return None
    return [None if row[1] == '"NULL"' else _parsed(row[1]) for row in rows]


def _parsed(text: str) -> Type | None:
    try:
        return parse(text)
    except UnknownType:
        return None


def _unexpected(name: str, kinds: list[Type | None], where: str, expected: str) -> None:
    shown = ", ".join(kind.trino if kind else "unknown" for kind in kinds)
    raise QueryFailed(
        f"FUNCTION_NOT_FOUND: {where}Unexpected parameters ({shown}) for function {name}. Expected: {expected}"
    )


def _no_common(kinds: list[Type | None]) -> str:
    shown = list(dict.fromkeys(kind.trino for kind in kinds if kind and kind.name != "unknown"))
    return (
        f"Cannot find common type between {shown[0]} and {shown[-1]}, all types (without duplicates): "
        f"[{', '.join(shown)}]"
    )


def _families(kinds: list[Type | None]) -> set[str]:
    return {family(kind) for kind in kinds if kind is not None and kind.name != "unknown"}


def family(kind: Type) -> str:
    if kind.is_text:
        return "text"
    if kind.is_number:
        return "number"
    if kind.name in ("date", "timestamp", "timestamptz"):
        return "time"
    return {"time": "clock"}.get(kind.name, kind.name)


def _where(found: Any, position: Position) -> str:
    column = found if isinstance(found, exp.Column) else found.find(exp.Column)
    if column is not None:
        return position.of_word(column.name)
    return position.at(0)
