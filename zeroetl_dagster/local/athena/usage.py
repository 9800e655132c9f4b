"""What a statement needs of its tables: which columns, and which filters speak of partition keys only.

Works on a copy, with sqlglot's optimizer; where that does not understand a statement, everything is needed, which is
slower and never wrong. The statement that runs is not touched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlglot import exp
from sqlglot.errors import OptimizeError, SqlglotError
from sqlglot.optimizer.pushdown_predicates import pushdown_predicates
from sqlglot.optimizer.pushdown_projections import pushdown_projections
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import traverse_scope

from zeroetl_dagster.local.athena.relations import Relation

log = logging.getLogger("zeroetl.local.athena")

# Where the optimizer does not know every name (lambda variables, fields of rows), it may call a column unknown.
_UNSURE = (exp.Lambda, exp.Unnest, exp.Lateral, exp.Dot, exp.Bracket)


class UnresolvedColumn(Exception):
    """A name that no table of the statement has; `args[0]` is the name."""


def analyse(tree: Any, relations: Mapping[str, Relation]) -> dict[str, list[Any]]:
    """Set `used` of each relation; the filters on partition keys, by relation.

    Raises `UnresolvedColumn`.
    """
    schema: dict[str, Any] = {
        name: {c: kind.trino for c, kind in found.schema.items()} for name, found in relations.items()
    }
    try:
        copy = qualify(
            tree.copy(),
            schema=schema,
            dialect="athena",
            expand_alias_refs=False,
            quote_identifiers=False,
            identify=False,
        )
        pruned = pushdown_predicates(pushdown_projections(copy), dialect="athena")
        scopes = traverse_scope(pruned)
    except OptimizeError as error:
        name = str(error).partition("Column '")[2].partition("'")[0]
        if name and "could not be resolved" in str(error) and not any(tree.find_all(*_UNSURE)):
            raise UnresolvedColumn(name) from None
        log.debug("not analysed: %s", error)
        return {}
    except (SqlglotError, KeyError, AttributeError, TypeError, ValueError, RecursionError) as error:
        log.debug("not analysed: %s", error)
        return {}
    used: dict[str, set[str]] = {name: set() for name in relations}
    filters: dict[str, list[Any]] = {}
    for scope in scopes:
        _of_scope(scope, relations, used, filters)
    for name, found in relations.items():
        found.used = used[name]
    return filters


def _of_scope(
    scope: Any, relations: Mapping[str, Relation], used: dict[str, set[str]], filters: dict[str, list[Any]]
) -> None:
    columns = [column for column in scope.expression.find_all(exp.Column)]
    for alias, source in scope.sources.items():
        if not isinstance(source, exp.Table) or source.name not in relations:
            continue
        found = relations[source.name]
        names = {column.name.lower() for column in columns if column.table in (alias, "")}
        used[source.name] |= names & set(found.schema)
        if found.keys:
            conjuncts = [c for c in _filters_on(scope.expression, alias) if _only_keys(c, alias, found)]
            held = filters.get(source.name)
            # the same relation in two scopes (a duplicated subquery): keep what both would read
            filters[source.name] = conjuncts if held is None else []


def _filters_on(select: Any, alias: str) -> list[Any]:
    """Conditions whose failing means that a row of this table contributes nothing.

    Where an outer join may put NULLs in its place, a WHERE must be one that NULL does not pass: otherwise leaving
    partitions out would make rows that were not there (`WHERE t.day IS NULL`).
    """
    joins = select.args.get("joins") or []
    sides = [(join.alias_or_name, join.side.upper()) for join in joins]
    own = next((index for index, (name, _) in enumerate(sides) if name == alias), -1)
    later = [side for _, side in sides[own + 1 :]]
    nullable = (own >= 0 and sides[own][1] in ("LEFT", "FULL")) or any(side in ("RIGHT", "FULL") for side in later)
    found = [c for c in _conjuncts(select.args.get("where")) if not nullable or _rejects_null(c)]
    for index, join in enumerate(joins):
        preserved = sides[index][1] in ("RIGHT", "FULL") if index == own else sides[index][1] in ("LEFT", "FULL")
        if not preserved and index >= own:
            found += _conjuncts(join.args.get("on"))
    return found


def _conjuncts(condition: Any) -> list[Any]:
    inner = condition.this if isinstance(condition, exp.Where) else condition
    if inner is None:
        return []
    return list(inner.flatten()) if isinstance(inner, exp.And) else [inner]


def _rejects_null(conjunct: Any) -> bool:
    comparisons = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between, exp.Like)
    return isinstance(conjunct, comparisons) and isinstance(conjunct.this, exp.Column)


def _only_keys(conjunct: Any, alias: str, found: Relation) -> bool:
    columns = list(conjunct.find_all(exp.Column))
    if not columns or conjunct.find(exp.Query, exp.AggFunc, exp.Window, exp.Rand):
        return False
    return all(column.table == alias and column.name.lower() in found.keys for column in columns)
