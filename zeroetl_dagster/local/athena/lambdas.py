"""Functions that take a lambda: DuckDB has one over lists, Trino many over arrays and maps.

A lambda's variables have no table, so their types come from a value that stands for them: the array's first element,
the map's first key. `standing_in` puts those in their places, for a type to be asked of DuckDB's binder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from zeroetl_dagster.local.athena.build import call

if TYPE_CHECKING:
    from zeroetl_dagster.local.athena.inference import ScopeTypes

_OVER_MAPS = ("map_filter", "transform_keys", "transform_values")


def transformed(array: Any, variable: str, body: Any) -> Any:
    """`list_transform(array, lambda variable: body)`."""
    return call("list_transform", array, _lambda(variable, body))


def _lambda(variable: str, body: Any) -> Any:
    return exp.Lambda(this=body, expressions=[exp.to_identifier(variable)])


def replaced(body: Any, values: dict[str, Any]) -> Any:
    """The body with values in the places of variables; a lambda inside that names one of them again keeps its own."""
    body = body.copy()
    for column in [body, *body.find_all(exp.Column, exp.Identifier)]:
        name = _variable(column)
        if name not in values or _shadowed(column, name, body):
            continue
        value = exp.paren(values[name].copy(), copy=False)
        if column is body:
            return value
        column.replace(value)
    return body


def _variable(node: Any) -> str:
    """The name of a variable: sqlglot has it as a bare identifier, what is made here as a column."""
    if isinstance(node, exp.Column):
        return "" if node.table else str(node.name).lower()
    if not isinstance(node, exp.Identifier) or isinstance(node.parent, _NAMING):
        return ""
    is_field = isinstance(node.parent, exp.Dot) and node.arg_key == "expression"
    return "" if is_field else str(node.name).lower()


_NAMING = (exp.Column, exp.Lambda, exp.Alias, exp.PropertyEQ, exp.DataType, exp.ColumnDef, exp.Table, exp.TableAlias)


def _shadowed(node: Any, name: str, body: Any) -> bool:
    while node is not body and node is not None:
        node = node.parent
        if isinstance(node, exp.Lambda) and name in _names(node):
            return True
    return False


def _names(node: Any) -> list[str]:
    return [str(variable.name).lower() for variable in node.expressions]


def standing_in(node: Any) -> Any:
    """A copy of the expression that no longer names a lambda's variables."""
    found = node.find_ancestor(exp.Lambda, exp.Select)
    made = node.copy()
    while isinstance(found, exp.Lambda):
        values = _samples(found)
        made = replaced(made, dict(zip(_names(found), values, strict=False)))
        found = found.find_ancestor(exp.Lambda, exp.Select)
    return made


def _samples(node: Any) -> list[Any]:
    function = node.parent
    if function is None:
        return []
    first = function.expressions[0] if isinstance(function, exp.Anonymous) else function.this
    name = function.name.lower() if isinstance(function, exp.Anonymous) else ""
    if name in _OVER_MAPS:
        return [call("list_extract", call(part, first.copy()), 1) for part in ("map_keys", "map_values")]
    element = call("list_extract", first.copy(), 1)
    if isinstance(function, exp.Reduce):
        state = function.args["initial"].copy()
        return [state] if node is function.args.get("finish") else [state, element]
    if name == "zip_with":
        return [element, call("list_extract", function.expressions[1].copy(), 1)]
    return [element]


def _map_filter(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    kept = exp.Anonymous(this="list_filter", expressions=[_entries(arguments[0]), _over_entry(arguments[1])])
    return call("map_from_entries", kept)


def _transform_values(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    made = _over_entry(arguments[1])
    made.set("this", call("row", _field("key"), made.this))
    return call("map_from_entries", call("list_transform", _entries(arguments[0]), made))


def _transform_keys(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    made = _over_entry(arguments[1])
    made.set("this", call("row", made.this, _field("value")))
    return call("map_from_entries", call("list_transform", _entries(arguments[0]), made))


def _entries(map_: Any) -> Any:
    return call("map_entries", map_)


def _field(name: str) -> Any:
    return call("struct_extract", exp.column("zeroetl_entry"), name)


def _over_entry(node: Any) -> Any:
    """`(k, v) -> f` as `entry -> f`."""
    key, value = _names(node)
    return _lambda("zeroetl_entry", replaced(node.this, {key: _field("key"), value: _field("value")}))


def _zip_with(node: Any, arguments: list[Any], types: ScopeTypes) -> Any:
    pair = exp.column("zeroetl_pair")
    values = [call("struct_extract", pair.copy(), index) for index in (1, 2)]
    body = replaced(arguments[2].this, dict(zip(_names(arguments[2]), values, strict=True)))
    return transformed(call("list_zip", arguments[0], arguments[1]), "zeroetl_pair", body)


RULES: dict[str, Callable[[Any, list[Any], ScopeTypes], Any]] = {
    "map_filter": _map_filter,
    "transform_values": _transform_values,
    "transform_keys": _transform_keys,
    "zip_with": _zip_with,
}
