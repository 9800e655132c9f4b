"""Trailing blanks of text do not count where rows are compared with each other: grouping, DISTINCT, sets, IN, USING.

"Significance of trailing blanks" (Character types): values that differ in them alone are equal. Comparisons of two
expressions are in typed.py. Of equal values one is shown as it is, except by INTERSECT, EXCEPT and USING, which show it
without its blanks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import duckdb
from sqlglot import exp

from zeroetl_dagster.local.warehouse.functions import call
from zeroetl_dagster.local.warehouse.probing import frame, is_scope, own_nodes, types_of, with_clauses

DescribeColumns = Callable[[str], list[tuple[str, str]]]
_GROUPINGS = (exp.Rollup, exp.Cube, exp.GroupingSets, exp.Tuple)
_ORDERS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)


def without_blanks(tree: exp.Expr, describe: DescribeColumns) -> exp.Expr:
    """A copy of the tree in which trailing blanks do not count; the tree itself where DuckDB could not read that."""
    holder = exp.Paren(this=tree.copy())
    whole = isinstance(tree, exp.Query)
    _Blanks(describe, whole).visit(holder)
    made: exp.Expr = holder.this
    if whole and made != tree:
        try:
            describe(made.sql("duckdb"))
        except duckdb.Error:
            return tree
    return made


class _Blanks:
    """`whole`: of a query, which can be tried; of DML only the expressions are changed."""

    def __init__(self, describe: DescribeColumns, whole: bool) -> None:
        self.describe, self.whole = describe, whole

    def visit(self, node: exp.Expr) -> None:
        """The innermost queries first."""
        for child in list(node.iter_expressions()):
            self.visit(child)
        if self.whole and isinstance(node, exp.Select):
            self._using(node)
        if is_scope(node):
            self._expressions(node)
        if self.whole and isinstance(node, exp.Select):
            self._group(node)
            self._distinct(node)
        if self.whole and isinstance(node, exp.SetOperation):
            self._set(node)

    def _texts(self, expressions: list[exp.Expr], scope: exp.Expr) -> list[exp.Expr]:
        """Those that are text."""
        types = types_of(expressions, scope, lambda sql: [kind for _, kind in self.describe(sql)])
        return [one for one, kind in zip(expressions, types, strict=True) if kind == "VARCHAR"]

    def _columns(self, query: exp.Query) -> list[tuple[str, str]]:
        """Names and types of a query's columns; none where they cannot be told, or have names in common."""
        try:
            found = self.describe(with_clauses(query.copy(), query).sql("duckdb"))
        except duckdb.Error:
            return []
        return found if len({name for name, _ in found}) == len(found) else []

    # ---- one SELECT --------------------------------------------------------------------------------------------------

    def _expressions(self, scope: exp.Expr) -> None:
        """COUNT(DISTINCT …) and LISTAGG(DISTINCT …), windows, and what is compared with a subquery."""
        nodes = list(own_nodes(scope))
        for node in nodes:
            if isinstance(node, exp.Window):
                parts = [*node.args.get("partition_by", []), *_ordered(node.args.get("order"))]
                _trim(self._texts(parts, scope))
            elif isinstance(node, exp.Distinct) and isinstance(node.parent, exp.AggFunc):
                within = node.parent.parent  # WITHIN GROUP (ORDER BY …)
                order = within.args.get("expression") if isinstance(within, exp.WithinGroup) else None
                _trim(self._texts([*node.expressions, *_ordered(order)], scope))
            elif isinstance(node, exp.ApproxDistinct):
                _trim(self._texts([node.this], scope))
            elif isinstance(node, exp.In) and isinstance(node.args.get("query"), exp.Subquery):
                self._in(node, scope)
            elif isinstance(node, _ORDERS) and isinstance(node.expression, exp.Subquery):
                found = self._texts([node.this, node.expression], scope)
                _trim(found if len(found) == 2 else [])

    def _in(self, node: exp.In, scope: exp.Expr) -> None:
        query = node.args["query"].this
        if not self._texts([node.this], scope):
            return
        if isinstance(query, exp.Select) and len(query.expressions) == 1 and not query.is_star:
            value = query.expressions[0].unalias()
            _trim([node.this, value] if self._texts([value], query) else [])
        elif [kind for _, kind in self._columns(query)] == ["VARCHAR"]:
            _trim([node.this])
            node.args["query"].set("this", exp.select(_trimmed(_column("c"))).from_(_named(query, ["c"])))

    def _using(self, select: exp.Select) -> None:
        """The sources that are joined by a text column, with that column trimmed."""
        joins = select.args.get("joins") or []
        names = {name.name for join in joins for name in join.args.get("using") or []}
        sources = [select.args["from_"].this, *(join.this for join in joins)] if names else []
        for source in sources:
            kinds = self._columns(with_clauses(exp.select("*").from_(source.copy()), select))
            texts = [name for name, kind in kinds if name in names and kind == "VARCHAR"]
            if not texts or not source.alias_or_name:
                continue
            alias = exp.to_identifier(source.alias_or_name, quoted=True)
            star = exp.Star(replace=[exp.alias_(_trimmed(_column(one)), one, quoted=True) for one in texts])
            inner = exp.Select(expressions=[star]).from_(source.copy())
            source.replace(exp.Subquery(this=inner, alias=exp.TableAlias(this=alias)))

    def _group(self, select: exp.Select) -> None:
        group = select.args.get("group")
        keys = _keys_of(group) if group is not None else []
        meant = [self._meant(select, key) for key in keys]
        texts = {id(one) for one in self._texts(meant, select)}
        kept = [one.copy() for one in meant if id(one) in texts]
        whole = all(key.parent is group for key in keys)  # no ROLLUP, which takes keys away
        for key, one in zip(keys, meant, strict=True):
            if id(one) in texts:
                key.replace(_trimmed(one.copy()))
        for node in _after_grouping(select) if kept else ():
            if any(_same(node, one) for one in kept):
                name = node.output_name if node.parent is select else ""
                value = exp.Min(this=node.copy()) if whole else _trimmed(node.copy())
                node.replace(exp.alias_(value, name, quoted=True) if name else value)

    def _meant(self, select: exp.Select, key: exp.Expr) -> exp.Expr:
        """What a key of GROUP BY says: an expression, or the number or name of one of the SELECT list."""
        values = select.expressions
        if isinstance(key, exp.Literal) and not key.is_string and 0 < int(key.this) <= len(values):
            return values[int(key.this) - 1].unalias()
        named = next((one for one in values if isinstance(one, exp.Alias) and one.alias == key.name), None)
        if named is None or not isinstance(key, exp.Column) or key.table:
            return key
        probe = frame(select)
        probe.set("expressions", [key.copy()])
        return key if self._columns(with_clauses(probe, select)) else named.this

    def _distinct(self, select: exp.Select) -> None:
        distinct = select.args.get("distinct")
        if distinct is None or distinct.args.get("on"):
            return
        columns = self._columns(select)
        if not any(kind == "VARCHAR" for _, kind in columns):
            return
        values = [one.unalias() for one in select.expressions]
        if len(values) != len(columns) or any(one.find(exp.Star) for one in values):
            values = [_column(name) for name, _ in columns]
        distinct.set("on", exp.Tuple(expressions=_keys(values, columns)))

    # ---- sets --------------------------------------------------------------------------------------------------------

    def _set(self, node: exp.SetOperation) -> None:
        columns = self._columns(node)
        clause = node.find_ancestor(exp.With)
        if not node.args.get("distinct") or not any(kind == "VARCHAR" for _, kind in columns):
            return
        names = [name for name, _ in columns]
        keys = _keys([_column(name) for name in names], columns)
        if not isinstance(node, exp.Union):
            for side in (node.this, node.expression):
                query = side.this if isinstance(side, exp.Subquery) else side
                chosen = [exp.alias_(one.copy(), name, quoted=True) for one, name in zip(keys, names, strict=True)]
                side.replace(exp.select(*chosen).from_(_named(query.copy(), names)))
        elif clause is None or not clause.args.get("recursive"):
            whole = node.copy()
            whole.set("distinct", False)
            made = exp.select("*")
            made.set("distinct", exp.Distinct(on=exp.Tuple(expressions=keys)))
            for key in ("with_", "order", "limit", "offset"):
                made.set(key, whole.args.get(key))
                whole.set(key, None)
            node.replace(made.from_(_named(whole, names)))


def _trimmed(value: exp.Expr) -> exp.Expr:
    return call("_text", value)


def _trim(values: list[exp.Expr]) -> None:
    for value in values:
        value.replace(_trimmed(value.copy()))


def _named(query: exp.Expr, names: list[str]) -> exp.Expr:
    """The query as what is read, its columns of these names."""
    columns = [exp.to_identifier(name, quoted=True) for name in names]
    return exp.Subquery(this=query, alias=exp.TableAlias(this=exp.to_identifier("_q"), columns=columns))


def _column(name: str) -> exp.Expr:
    return exp.column(name, quoted=True)


def _keys(values: list[exp.Expr], columns: list[tuple[str, str]]) -> list[exp.Expr]:
    return [
        _trimmed(one.copy()) if kind == "VARCHAR" else one.copy()
        for one, (_, kind) in zip(values, columns, strict=True)
    ]


def _ordered(order: exp.Expr | None) -> list[exp.Expr]:
    return [one.this for one in order.expressions] if isinstance(order, exp.Order) else []


def _keys_of(group: exp.Expr) -> list[exp.Expr]:
    """The keys of GROUP BY, those in ROLLUP, CUBE and GROUPING SETS too."""
    found: list[exp.Expr] = []
    for one in group.iter_expressions():
        found += _keys_of(one) if isinstance(one, _GROUPINGS) else [one]
    return found


def _after_grouping(select: exp.Select) -> Iterator[exp.Expr]:
    """What is computed of groups, whole expressions before their parts; not what is in aggregates and subqueries."""
    shown = {one.alias_or_name for one in select.expressions}
    todo = list(select.expressions)
    todo += [select.args[clause] for clause in ("having", "qualify", "order") if select.args.get(clause) is not None]
    while todo:
        node = todo.pop()
        parent = node.parent
        if isinstance(parent, exp.Ordered) and isinstance(node, exp.Column) and not node.table and node.name in shown:
            continue  # the name of a column of the result
        yield node
        inside = isinstance(node, exp.Query) or isinstance(node, exp.AggFunc) and not isinstance(parent, exp.Window)
        if node.parent is parent and not inside:
            todo += list(node.iter_expressions())


def _same(one: exp.Expr, other: exp.Expr) -> bool:
    """Whether two expressions are the same, with or without the names of their tables."""
    if isinstance(one, exp.Column) and isinstance(other, exp.Column):
        tables = {one.table, other.table} - {""}
        return one.name == other.name and len(tables) < 2
    if type(one) is not type(other):
        return False
    mine, others = list(one.iter_expressions()), list(other.iter_expressions())
    if not mine or len(mine) != len(others):
        return one == other
    return all(_same(a, b) for a, b in zip(mine, others, strict=True)) and _own(one) == _own(other)


def _own(node: exp.Expr) -> dict[str, object]:
    """What a node says without its parts."""
    return {key: value for key, value in node.args.items() if isinstance(value, str | bool | int)}
