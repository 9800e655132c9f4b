"""Types of expressions inside a statement, asked of DuckDB's own binder.

What Trino answers depends on types (1/2, a date plus a month, text against a number), and only the engine knows the
type of every expression. So an expression is put into a DESCRIBE over the same FROM, in the same scope. Statements are
rewritten from the inside out: what is asked about has Trino's types already.
"""

from __future__ import annotations

from typing import Any

import duckdb
from sqlglot import exp
from sqlglot.optimizer.scope import Scope

from zeroetl_dagster.local.athena import lambdas
from zeroetl_dagster.local.athena.hive_types import Type, UnknownType, parse

INTEGERS = ("tinyint", "smallint", "int", "bigint")
FLOATS = ("double", "float")
_BOOLEAN = (
    exp.And, exp.Or, exp.Not, exp.Is, exp.In, exp.Between, exp.Like, exp.ILike, exp.Exists, exp.Boolean, exp.EQ,
    exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ, exp.RegexpLike,
)  # fmt: skip


class ScopeTypes:
    """The types of expressions in one SELECT; None where nobody can tell."""

    def __init__(self, connection: Any, scope: Scope, tables: int | None = None) -> None:
        """`tables` is how many of FROM and the JOINs are there already; None: all."""
        self._connection, self._scope, self._tables = connection, scope, tables
        self._known: dict[tuple[str, bool], Type | None] = {}

    def of(self, node: exp.Expression) -> Type | None:
        return self.of_all([node])[0]

    def of_all(self, nodes: list[Any]) -> list[Type | None]:
        asked: dict[tuple[str, bool], Any] = {}
        for node in nodes:
            if _own(node) is None:
                key = self._key(node)
                if key not in self._known:
                    asked[key] = node
        for grouped in (False, True):
            self._ask({key: node for key, node in asked.items() if key[1] is grouped}, grouped)
        return [_own(node) or self._known.get(self._key(node)) for node in nodes]

    def _key(self, node: Any) -> tuple[str, bool]:
        return lambdas.standing_in(node).sql(dialect="duckdb"), self._is_grouped(node)

    def _is_grouped(self, node: Any) -> bool:
        """Whether the expression is one over groups: then the probe needs the GROUP BY."""
        select = self._scope.expression
        if not isinstance(select, exp.Select) or select.args.get("group") is None:
            return False
        parent = node.parent
        while parent is not None and parent is not select:
            if isinstance(parent, (exp.AggFunc, exp.Where, exp.Group, exp.Join, exp.From)):
                return False
            parent = parent.parent
        return True

    def _ask(self, asked: dict[tuple[str, bool], Any], grouped: bool) -> None:
        if not asked:
            return
        found = self._describe([key[0] for key in asked], grouped)
        if found is None:  # one of them cannot be bound alone: find out which
            for key in asked:  # part of a group's own expression is not grouped itself
                alone = self._describe([key[0]], grouped) or (self._describe([key[0]], False) if grouped else None)
                self._known[key] = alone[0] if alone else None
            return
        self._known |= dict(zip(asked, found, strict=True))

    def _describe(self, expressions: list[str], grouped: bool) -> list[Type | None] | None:
        columns = ", ".join(f"{text} AS c{index}" for index, text in enumerate(expressions))
        outer: Any = self._scope
        sql = f"SELECT {columns} {self._tail(grouped)}"
        while True:
            try:
                rows = self._connection.execute(f"DESCRIBE {self._head()}{sql}").fetchall()
                return [_parsed(row[1]) for row in rows]
            except duckdb.Error:
                outer = outer.parent
                if outer is None or not isinstance(outer.expression, exp.Select):
                    return None
                # it may name columns of the query around it
                tail = ScopeTypes(self._connection, outer)._tail(False)
                sql = f"SELECT zeroetl_inner.* {tail} CROSS JOIN LATERAL ({sql}) AS zeroetl_inner"

    def _head(self) -> str:
        """The WITH clauses that this scope sees."""
        visible: list[str] = []
        node: Any = self._scope.expression
        inside: Any = node
        recursive = False
        while node is not None:
            clause = node.args.get("with_")
            if clause is not None:
                before = []
                for cte in clause.expressions:
                    if cte is inside:
                        before += _own_beginning(cte)
                        break
                    before.append(cte.sql(dialect="duckdb"))
                visible = before + visible
                recursive = recursive or bool(clause.args.get("recursive"))
            if isinstance(node, exp.CTE):
                inside = node
            node = node.parent
        return f"WITH {'RECURSIVE ' if recursive else ''}{', '.join(visible)} " if visible else ""

    def _tail(self, grouped: bool) -> str:
        select = self._scope.expression
        probe = exp.Select()
        for name in ("from_", "joins", "laterals"):
            part = select.args.get(name)
            if self._tables is not None:
                part = None if self._tables == 0 else part[: self._tables - 1] if isinstance(part, list) else part
            if part:
                probe.set(name, [item.copy() for item in part] if isinstance(part, list) else part.copy())
        if grouped and select.args.get("group"):
            probe.set("group", _without_ordinals(select))
        return str(probe.sql(dialect="duckdb")).removeprefix("SELECT").strip()


def _own_beginning(cte: Any) -> list[str]:
    """What a recursive WITH clause sees of itself has the columns of its first part."""
    if not isinstance(cte.this, exp.SetOperation):
        return []
    made = cte.copy()
    made.this.replace(cte.this.this.copy())
    return [made.sql(dialect="duckdb")]


def _without_ordinals(select: Any) -> Any:
    """GROUP BY 1 names a column of this select list, not of the probe's."""
    group = select.args["group"].copy()
    for item in group.expressions:
        if isinstance(item, exp.Literal) and item.is_int:
            chosen = select.expressions[int(item.name) - 1]
            item.replace((chosen.this if isinstance(chosen, exp.Alias) else chosen).copy())
    return group


def _parsed(text: str) -> Type | None:
    if text == '"NULL"':
        return Type("unknown")
    if text.startswith(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")):
        return Type("bigint")
    try:
        return parse(text)
    except UnknownType:
        return None


def _own(node: Any) -> Type | None:
    """What needs no binder."""
    if isinstance(node, (exp.Paren, exp.Alias)):
        return _own(node.this)
    if isinstance(node, exp.Null):
        return Type("unknown")
    if isinstance(node, exp.Literal):
        return _literal(node)
    if isinstance(node, (exp.Cast, exp.TryCast)):
        try:
            return parse(node.to.sql(dialect="trino"))
        except UnknownType:
            return None
    if isinstance(node, _BOOLEAN):
        return Type("boolean")
    if isinstance(node, exp.Count):
        return Type("bigint")
    return None


def _literal(node: Any) -> Type:
    if node.is_string:
        return Type("varchar", (len(node.name),))
    if node.is_int:
        return Type("int" if abs(int(node.name)) < 2**31 else "bigint")
    if "e" in node.name.lower():
        return Type("double")
    digits = node.name.replace(".", "").lstrip("0")
    return Type("decimal", (max(len(digits), 1), len(node.name.partition(".")[2])))
