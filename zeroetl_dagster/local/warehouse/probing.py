"""Asks DuckDB for the types of expressions where they stand: what Redshift answers often depends on them.

A probe is `DESCRIBE SELECT <expressions> FROM <what the expressions' SELECT reads>`, with the same WITH clauses, and
with the same GROUP BY for what stands above an aggregate. Nothing is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import duckdb
from sqlglot import exp

Describe = Callable[[str], list[str]]
_SCOPES = (exp.Select, exp.Update, exp.Delete, exp.Merge, exp.Values)
Q = TypeVar("Q", bound=exp.Query)
Type = str | None  # as DESCRIBE writes it; None where it cannot be told
_DESCRIBED = {
    "TEXT": "VARCHAR", "INT": "INTEGER", "REAL": "FLOAT", "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
    "TIMETZ": "TIME WITH TIME ZONE",
}  # fmt: skip


def is_scope(node: exp.Expr) -> bool:
    """Not the UPDATE of a MERGE, which sees what the MERGE sees."""
    return isinstance(node, _SCOPES) and not (isinstance(node, exp.Update) and node.this is None)


def scope_of(node: exp.Expr) -> exp.Expr | None:
    """The SELECT (or UPDATE, …) whose columns the node sees."""
    found = node.parent
    while found is not None and not is_scope(found):
        found = found.parent
    return found


def own_nodes(scope: exp.Expr) -> Iterator[exp.Expr]:
    """What stands in a scope and in no scope within."""
    todo = [child for child in scope.iter_expressions()]
    while todo:
        node = todo.pop()
        yield node
        if not is_scope(node):
            todo += list(node.iter_expressions())


def types_of(expressions: Sequence[exp.Expr], scope: exp.Expr, describe: Describe) -> list[Type]:
    """The types of expressions of one scope: all in one question where that is possible."""
    static = [_static(one) for one in expressions]
    asked = [one for one, known in zip(expressions, static, strict=True) if known is None]
    answers: dict[int, Type] = {}
    by_grouping: dict[bool, list[exp.Expr]] = {}
    for one in asked:
        by_grouping.setdefault(_above_aggregates(one, scope), []).append(one)
    for grouped, some in by_grouping.items():
        answers |= zip(map(id, some), _ask(some, scope, grouped, describe), strict=True)
    return [known or answers.get(id(one)) for one, known in zip(expressions, static, strict=True)]


def _static(node: exp.Expr) -> Type:
    """What needs no question: casts and literals."""
    if isinstance(node, exp.Paren | exp.Neg):
        return _static(node.this)
    if isinstance(node, exp.Cast):
        return node.meta.get("kind") or described_name(node.to.sql("duckdb"))
    if isinstance(node, exp.Literal):
        if node.is_string:
            return "VARCHAR"
        whole, point, decimals = node.this.partition(".")
        if "e" in node.this.lower():
            return "DOUBLE"
        if point:
            return f"DECIMAL({max(len(whole.lstrip('0')) + len(decimals), 1)},{len(decimals)})"
        return "INTEGER" if int(whole) < 2**31 else "BIGINT" if int(whole) < 2**63 else f"DECIMAL({len(whole)},0)"
    return None


def described_name(kind: str) -> str:
    """A type as DESCRIBE writes it."""
    kind = kind.upper().replace(", ", ",")
    return _DESCRIBED.get(kind, kind)


def _above_aggregates(node: exp.Expr, scope: exp.Expr) -> bool:
    """Whether it is computed after the grouping, if its scope groups at all."""
    at: exp.Expr | None = node
    while at is not None and at is not scope:
        parent = at.parent
        if isinstance(at, exp.AggFunc) and not _windowed(at):
            return False
        if isinstance(at, exp.Where | exp.From | exp.Join | exp.Group):
            return False
        at = parent
    return isinstance(scope, exp.Select) and (
        scope.args.get("group") is not None or any(isinstance(one, exp.AggFunc) for one in own_nodes(scope))
    )


def _windowed(node: exp.Expr) -> bool:
    parent = node.parent
    while isinstance(parent, exp.IgnoreNulls | exp.RespectNulls | exp.WithinGroup | exp.Filter):
        parent = parent.parent
    return isinstance(parent, exp.Window)


def _ask(expressions: list[exp.Expr], scope: exp.Expr, grouped: bool, describe: Describe) -> list[Type]:
    for way in (grouped, not grouped) if isinstance(scope, exp.Select) else (False,):
        found = _described(_probe(expressions, scope, way), len(expressions), describe)
        if found is not None:
            return list(found)
    if len(expressions) > 1:
        return [_ask([one], scope, grouped, describe)[0] for one in expressions]
    return [_correlated(expressions[0], scope, describe)]


def _described(probe: exp.Select, count: int, describe: Describe) -> list[str] | None:
    try:
        return describe(probe.sql("duckdb"))[-count:]
    except duckdb.Error:
        return None  # the names are not to be found this way; a real mistake shows when the statement itself runs


def _correlated(expression: exp.Expr, scope: exp.Expr, describe: Describe) -> Type:
    """In a subquery that reads columns of the queries around it."""
    probe, outer = _probe([expression], scope, False, clauses=False), scope_of(scope)
    while outer is not None:
        wrapped = frame(outer)
        wrapped.set("expressions", [exp.Subquery(this=probe)])
        probe, found = wrapped, _described(with_clauses(wrapped.copy(), scope), 1, describe)
        if found is not None:
            return found[0]
        outer = scope_of(outer)
    return None


def _probe(expressions: list[exp.Expr], scope: exp.Expr, grouped: bool, *, clauses: bool = True) -> exp.Select:
    probe = frame(scope)
    columns = [exp.alias_(one.copy(), f"_c{number}") for number, one in enumerate(expressions)]
    if grouped:
        # Its own columns stay: GROUP BY may name them, and so may the expressions.
        probe.set("expressions", [one.copy() for one in scope.expressions] + columns)
        if group := scope.args.get("group"):
            probe.set("group", group.copy())
    else:
        probe.set("expressions", columns)
    return with_clauses(probe, scope) if clauses else probe


def frame(scope: exp.Expr) -> exp.Select:
    """An empty SELECT from what the scope reads."""
    made = exp.Select()
    sources = scope.args.get("from_")
    if isinstance(scope, exp.Select):
        if sources is not None:
            made.set("from_", sources.copy())
        made.set("joins", [join.copy() for join in scope.args.get("joins") or []])
        made.set("laterals", [one.copy() for one in scope.args.get("laterals") or []])
        return made
    target = scope.this if isinstance(scope, exp.Update | exp.Delete | exp.Merge) else None
    if target is None:
        return made
    others = scope.args.get("using") or []
    joined = [*(others if isinstance(others, list) else [others]), *([sources.this] if sources is not None else [])]
    made.set("from_", exp.From(this=target.copy()))
    made.set("joins", [exp.Join(this=one.copy()) for one in joined])
    return made


def with_clauses(probe: Q, scope: exp.Expr) -> Q:
    """The WITH clauses that the scope sees; of two of one name the nearer."""
    found: dict[str, exp.Expr] = {}
    recursive = False
    at: exp.Expr | None = scope
    while at is not None:
        clause = at.args.get("with_")
        if clause is not None:
            recursive = recursive or bool(clause.args.get("recursive"))
            found = {**{one.alias: one for one in clause.expressions}, **found}
        at = at.parent
    if found:
        probe.set("with_", exp.With(expressions=[one.copy() for one in found.values()], recursive=recursive))
    return probe
