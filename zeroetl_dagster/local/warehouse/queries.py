"""SELECT, cursors, INSERT, UPDATE, DELETE, MERGE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.warehouse import dialect
from zeroetl_dagster.local.warehouse.binding import Bound, Use
from zeroetl_dagster.local.warehouse.dialect import Statement, quoted
from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.functions import call, text
from zeroetl_dagster.local.warehouse.relations import Column, Relation
from zeroetl_dagster.local.warehouse.session import Cursor, Result, Rows, Session
from zeroetl_dagster.local.warehouse.typed import literal_as
from zeroetl_dagster.local.warehouse.types import MAX_VARCHAR, RedshiftType


def select(session: Session, statement: Statement, params: Sequence[Any]) -> Result:
    assert statement.tree is not None
    bound = session.bind(statement, statement.tree.copy, params)
    session.check(bound)
    session.execute(f"SET VARIABLE last_query_id = {session.query_id}")
    found = session.execute(bound.sql, params[: dialect.placeholders(bound.sql)])
    return Result("SELECT", bound.columns, Rows(found))


def declare(session: Session, statement: Statement, params: Sequence[Any]) -> Result:
    if not session.in_transaction:
        raise SqlError("25P01", "DECLARE CURSOR may only be used in transaction blocks")
    name = statement.args["name"]
    if name in session.cursors:
        raise SqlError("42P03", f'cursor "{name}" already exists')
    body = session.prepare(statement.args["body"])
    if body.kind != "query":
        raise SqlError("42601", "a cursor is made of a SELECT")
    found = select(session, body, params)
    session.cursors[name] = Cursor(found.columns or [], list(found.rows))
    return Result(statement.tag)


def fetch(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    cursor = _cursor(session, statement.args["name"])
    count = statement.args["count"]
    rows = cursor.rows[cursor.at :] if count is None else cursor.rows[cursor.at : cursor.at + count]
    cursor.at += len(rows)
    return Result(f"FETCH {len(rows)}", cursor.columns, rows)


def close(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    _cursor(session, statement.args["name"])
    del session.cursors[statement.args["name"]]
    return Result(statement.tag)


def _cursor(session: Session, name: str) -> Cursor:
    if name not in session.cursors:
        raise SqlError("34000", f'cursor "{name}" does not exist')
    return session.cursors[name]


# ---- rows in, out, and others ----------------------------------------------------------------------------------------


def change(session: Session, statement: Statement, params: Sequence[Any]) -> Result:
    tree = statement.tree
    assert tree is not None
    make = next(make for kind, make in _CHANGES if isinstance(tree, kind))
    bound = session.bind(statement, tree.copy, params, lambda copy: make(session, copy))
    session.check(bound)
    target = bound.uses[0].relation
    with session.block():
        rows = session.execute(bound.sql, params[: dialect.placeholders(bound.sql)]).fetchall()
        count = rows[0][0] if rows and isinstance(rows[0][0], int) else 0
        if count:
            session.relations.changed(target)
    word = type(tree).__name__.upper()
    return Result({"INSERT": f"INSERT 0 {count}", "MERGE": "MERGE"}.get(word, f"{word} {count}"))


def _target(session: Session, table: exp.Expr) -> Relation:
    """A table that can be written."""
    assert isinstance(table, exp.Table)
    name = tuple(part.name for part in table.parts)
    relation = session.catalogue.need(name)
    need_writable(session, relation)
    if relation.kind in ("view", "late", "mv"):
        kind = "materialized view" if relation.kind == "mv" else "view"
        raise SqlError("42809", f'"{relation.name}" is a {kind}: it cannot be written')
    return relation


def need_writable(session: Session, relation: Relation) -> None:
    """Not in an integration's database, and not in another than this session's."""
    if relation.state is not None:
        raise SqlError(
            "25006", f'database "{relation.database}" is created from an integration: it is read-only, write elsewhere'
        )
    if relation.kind != "temp" and relation.database != session.database:
        raise SqlError("0A000", "cross-database reference is for reading only")


def need_own_database(session: Session, name: tuple[str, ...] = ()) -> None:
    """Nothing is made in an integration's database, be it the session's or named."""
    database = name[0] if len(name) == 3 else session.database
    if (session.namespace.find(database) or {}).get("integration_id"):
        raise SqlError(
            "25006", f'database "{database}" is created from an integration: it is read-only, create elsewhere'
        )


def _insert(session: Session, tree: exp.Expr) -> Bound:
    schema = tree.this if isinstance(tree.this, exp.Schema) else None
    relation = _target(session, schema.this if schema else tree.this)
    columns = session.relations.columns(relation)
    named = [one.name for one in schema.expressions] if schema else [column.name for column in columns]
    kinds = {column.name: column.type for column in columns}
    for name in named:
        if name not in kinds:
            raise SqlError("42703", f'column "{name}" of relation "{relation.name}" does not exist')
    use = Use(relation, "INSERT")
    source = tree.args.get("expression")
    if source is None:
        return Bound(f"INSERT INTO {relation.sql} DEFAULT VALUES", [use])
    if isinstance(source, exp.Values):
        return _insert_values(session, relation, source, named, kinds)
    bound = session.binder.bind(source)
    count = len(bound.columns)
    if count > len(named):
        raise SqlError("42601", "INSERT has more expressions than target columns")
    if schema and count < len(named):
        raise SqlError("42601", "INSERT has more target columns than expressions")
    into = f"INSERT INTO {relation.sql} ({', '.join(quoted(name) for name in named[:count])})"
    chosen = ", ".join(
        fitting(exp.column(f"c{at}", quoted=True), kinds[name]).sql("duckdb") for at, name in enumerate(named[:count])
    )
    names = ", ".join(f'"c{at}"' for at in range(count))
    return Bound(f"{into} SELECT {chosen} FROM ({bound.sql}) AS q({names})", [use, *bound.uses])


def _insert_values(
    session: Session, relation: Relation, source: exp.Values, named: list[str], kinds: dict[str, RedshiftType]
) -> Bound:
    width = max(len(row.expressions) for row in source.expressions)
    if width > len(named):
        raise SqlError("42601", "INSERT has more expressions than target columns")
    bound = session.binder.bind(source)
    assert bound.tree is not None
    for row in bound.tree.expressions:
        row.set("expressions", [fitting(one, kinds[name]) for one, name in zip(row.expressions, named, strict=False)])
    into = ", ".join(quoted(name) for name in named[:width])
    rows = ", ".join(row.sql("duckdb") for row in bound.tree.expressions)
    return Bound(f"INSERT INTO {relation.sql} ({into}) VALUES {rows}", [Use(relation, "INSERT"), *bound.uses])


def fitting(value: exp.Expr, kind: RedshiftType) -> exp.Expr:
    """The value as a column of that type holds it: text that is too long is refused, CHAR without trailing blanks."""
    if isinstance(value, exp.Literal) and value.is_string and not kind.is_text:
        return literal_as(value, kind.duckdb)
    if not kind.is_text or isinstance(value, exp.Null | exp.Var):
        return value
    size = kind.size or MAX_VARCHAR
    if isinstance(value, exp.Literal) and value.is_string and len(value.this.encode()) <= size:
        return text(value.this.rstrip(" ")) if kind.name == "character" else value
    plain = exp.Cast(this=value, to=exp.DataType.build("VARCHAR", dialect="duckdb"))
    made = call("_fits", plain, exp.Literal.number(size), text(kind.text))
    return call("_text", made) if kind.name == "character" else made


def _assign(assignments: Sequence[exp.Expr], columns: list[Column]) -> None:
    kinds = {column.name: column.type for column in columns}
    for assignment in assignments:
        column = assignment.this
        if column.name not in kinds:
            raise SqlError("42703", f'column "{column.name}" does not exist')
        if column.args.get("table") is not None:
            column.set("table", None)
        assignment.set("expression", fitting(assignment.expression, kinds[column.name]))


def _update(session: Session, tree: exp.Expr) -> Bound:
    tree.this.set("only", None)
    relation = _target(session, tree.this)
    columns = session.relations.columns(relation)
    bound = session.binder.bind(tree, tree.this, "UPDATE")
    assert bound.tree is not None
    _assign(bound.tree.expressions, columns)
    return _first(bound, relation, bound.tree.sql("duckdb"))


def _delete(session: Session, tree: exp.Expr) -> Bound:
    if not tree.this:  # DELETE t WHERE …
        tree.set("this", tree.args["tables"][0])
        tree.set("tables", None)
    relation = _target(session, tree.this)
    return _first(session.binder.bind(tree, tree.this, "DELETE"), relation)


def _merge(session: Session, tree: exp.Expr) -> Bound:
    relation = _target(session, tree.this)
    columns = session.relations.columns(relation)
    for when in tree.args["whens"].expressions:
        then = when.args["then"]
        if isinstance(then, exp.Insert):
            _mend_merge_insert(then, columns)
        elif isinstance(then, exp.Var) and then.name.upper() != "DELETE":
            raise SqlError("42601", f'syntax error at or near "{then.name}"')
    bound = session.binder.bind(tree, tree.this, "UPDATE")
    assert bound.tree is not None
    kinds = {column.name: column.type for column in columns}
    for when in bound.tree.args["whens"].expressions:
        then = when.args["then"]
        if isinstance(then, exp.Update):
            _assign(then.expressions, columns)
        elif isinstance(then, exp.Insert):
            names, values = then.this.expressions, then.expression.expressions
            fitted = [fitting(value, kinds[name.name]) for name, value in zip(names, values, strict=True)]
            then.set("expression", exp.Tuple(expressions=fitted))
    bound.uses.append(Use(relation, "INSERT"))
    return _first(bound, relation, bound.tree.sql("duckdb"))


def _mend_merge_insert(then: exp.Insert, columns: list[Column]) -> None:
    """`INSERT VALUES (…)` and `INSERT (a, b) VALUES (…)` as columns and values."""
    first = then.this.expressions[0] if isinstance(then.this, exp.Tuple) and then.this.expressions else None
    if isinstance(first, exp.Anonymous) and str(first.this).lower() == "values":
        names = [exp.column(column.name, quoted=True) for column in columns[: len(first.expressions)]]
        then.set("expression", exp.Tuple(expressions=first.expressions))
        then.set("this", exp.Tuple(expressions=names))
    if len(then.this.expressions) != len(then.expression.expressions):
        raise SqlError("42601", "INSERT has more target columns than expressions, or fewer")


def _first(bound: Bound, relation: Relation, sql: str | None = None) -> Bound:
    """The target's use comes first: it is what changes."""
    uses = sorted(bound.uses, key=lambda use: use.relation.key != relation.key or use.privilege == "SELECT")
    return Bound(sql or bound.sql, uses, tree=bound.tree)


_CHANGES = ((exp.Insert, _insert), (exp.Update, _update), (exp.Delete, _delete), (exp.Merge, _merge))
HANDLERS: dict[str, Callable[[Session, Statement, Sequence[Any]], Result]] = {
    "query": select, "declare": declare, "fetch": fetch, "close": close, "dml": change,
}  # fmt: skip
