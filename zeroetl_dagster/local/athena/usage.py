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
            conjuncts = [c for c in _conjuncts(scope) if _only_keys(c, alias, found)]
            held = filters.get(source.name)
            # the same relation in two scopes (a duplicated subquery): keep what both would read
            filters[source.name] = conjuncts if held is None else []


def _conjuncts(scope: Any) -> list[Any]:
    where = scope.expression.args.get("where")
    return list(where.this.flatten()) if where and isinstance(where.this, exp.And) else [where.this] if where else []


def _only_keys(conjunct: Any, alias: str, found: Relation) -> bool:
    columns = list(conjunct.find_all(exp.Column))
    if not columns or conjunct.find(exp.Query, exp.AggFunc, exp.Window, exp.Rand):
        return False
    return all(column.table == alias and column.name.lower() in found.keys for column in columns)
