"""Views, late-binding views and materialized views, comments, and what depends on what.

A view is a text that is bound where it is read. A materialized view is a table with such a text; it is stale when what
it read has changed since, and it can no longer be refreshed when a base has changed its shape (SVV_MV_INFO.state).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.warehouse.binding import Bound
from zeroetl_dagster.local.warehouse.dialect import Statement, parse, quoted
from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.grants import Grantee
from zeroetl_dagster.local.warehouse.queries import fitting, need_own_database
from zeroetl_dagster.local.warehouse.relations import Body, Column, Relation, Relations
from zeroetl_dagster.local.warehouse.session import Result, Session

FULL, INCREMENTAL = 0, 1
BROKEN = {
    101: "a column of a base table was dropped", 102: "a column of a base table changed its type",
    103: "a base table was renamed", 104: "a column of a base table was renamed", 105: "a base schema was renamed",
}  # fmt: skip


# ---- views -----------------------------------------------------------------------------------------------------------


def create_view(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    args = statement.args
    place = _place(session, args["name"], "late" if args["late"] else "view")
    body = Body(args["body"], session.case_sensitive, session.search_path, tuple(args["columns"] or ()) or None)
    columns: list[Column] = []
    bases: list[Relation] = []
    if not args["late"]:
        bound = session.binder.bind(parse(body.text, body.case_sensitive))
        session.check(bound)
        bases = [use.relation for use in bound.uses if use.privilege is not None]
        if elsewhere := next((one for one in bases if one.database != session.database), None):
            raise SqlError(
                "0A000",
                f"a view cannot read {'.'.join(elsewhere.key)} of another database: make it WITH NO SCHEMA BINDING",
            )
        columns = bound.columns
        names = body.columns or tuple(column.name for column in columns)
        columns = [Column(name, column.type) for name, column in zip(names, columns, strict=True)]
    with session.block():
        _replace(session, place, bool(args["replace"]))
        relation = session.relations.add(_with_body(place, body), columns)
        session.relations.depend(relation, bases)
        session.rights.apply_defaults(relation)
    session.catalogue_changed()
    return Result(statement.tag)


def _place(session: Session, name: tuple[str, ...], kind: str) -> Relation:
    need_own_database(session, name)
    schema, relation = session.catalogue.place(name)
    session.rights.need_schema(session.database, schema, "CREATE")
    return Relation(session.database, schema, relation, kind, session.user.name)


def _with_body(place: Relation, body: Body) -> Relation:
    return Relation(*place.key, place.kind, place.owner, body=body.dump())


def _replace(session: Session, place: Relation, replace: bool) -> None:
    found = session.relations.find(*place.key)
    if found is None:
        return
    if not replace or found.kind not in ("view", "late"):
        raise SqlError("42P07", f'Relation "{place.name}" already exists')
    session.rights.need_owner(found)
    session.relations.forget(found)


# ---- materialized views ----------------------------------------------------------------------------------------------


def create_mv(session: Session, statement: Statement, params: Sequence[Any]) -> Result:
    from zeroetl_dagster.local.warehouse.tables import fill

    args = statement.args
    body = Body(args["body"], session.case_sensitive, session.search_path)
    tree = parse(body.text, body.case_sensitive)
    if not isinstance(tree, exp.Query):
        raise SqlError("42601", "a materialized view is made of a SELECT")
    state = INCREMENTAL if _incremental(tree) else FULL
    place = _with_body(_place(session, args["name"], "mv"), body)
    with session.block():
        bound = session.binder.bind(tree)
        _, relation, _ = fill(session, place, bound, params, None, auto_refresh=args["auto_refresh"])
        session.relations.set(relation, state=state)
        session.relations.depend(relation, _bases(bound))
    session.catalogue_changed()
    return Result(statement.tag)


def _bases(bound: Bound) -> list[Relation]:
    """The tables that are read, through views too."""
    return [use.relation for use in bound.uses if use.relation.kind not in ("view", "late")]


def _incremental(tree: exp.Expr) -> bool:
    """Whether Redshift could refresh it incrementally ("Refreshing a materialized view", limitations)."""
    refused = (
        exp.SetOperation, exp.Window, exp.Distinct, exp.Order, exp.Limit, exp.Subquery, exp.With, exp.Having,
        exp.Exists, exp.Median, exp.GroupConcat, exp.PercentileCont, exp.PercentileDisc, exp.Stddev, exp.StddevPop,
        exp.StddevSamp, exp.Variance, exp.VariancePop, exp.ApproxDistinct, exp.CurrentDate, exp.CurrentTimestamp,
    )  # fmt: skip
    if tree.find(*refused) is not None:
        return False
    if any(join.args.get("side") for join in tree.find_all(exp.Join)):
        return False
    mutable = ("getdate", "sysdate", "now", "random", "timeofday")
    return not any(str(one.this).lower() in mutable for one in tree.find_all(exp.Anonymous))


def _need_mv(session: Session, name: tuple[str, ...]) -> Relation:
    found = session.catalogue.find(name)
    if found is None or found.kind != "mv":
        raise SqlError("42P01", f'materialized view "{name[-1]}" does not exist')
    return found


def refresh_mv(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    relation = _need_mv(session, statement.args["name"])
    if relation.database != session.database:
        raise SqlError("0A000", "cross-database reference is for reading only")
    session.rights.need_owner(relation)
    with session.block():
        _refresh(session, relation, bool(statement.args["cascade"]))
    return Result(statement.tag)


def _refresh(session: Session, relation: Relation, cascade: bool) -> None:
    place = session.relations.table(relation.database, "relation")
    ((state,),) = session.relations.rows(f"SELECT state FROM {place} WHERE oid = $1", [relation.oid])
    if state in BROKEN:
        raise SqlError("XX000", f"Materialized view {relation.name} is unrefreshable: {BROKEN[state]}. Recreate it")
    assert relation.body is not None
    body = Body.parse(relation.body)
    binder = session.binder
    binder.catalogue.search_path = body.search_path
    bound = binder.bind(parse(body.text, body.case_sensitive))
    session.check(bound)
    bases = _bases(bound)
    if cascade:
        for base in bases:
            if base.kind == "mv":
                _refresh(session, base, True)
    columns = session.relations.columns(relation)
    names = ", ".join(quoted(f"c{at}") for at in range(len(columns)))
    fitted = ", ".join(
        fitting(exp.column(f"c{at}", quoted=True), column.type).sql("duckdb") for at, column in enumerate(columns)
    )
    session.execute(f"DELETE FROM {relation.sql}")
    into = f"INSERT INTO {relation.sql} SELECT {fitted} FROM"
    if state == INCREMENTAL and session.in_transaction:
        _fill_with_committed(session, relation, bound, f"{into} _committed AS q({names})")
    else:
        session.execute(f"{into} ({bound.sql}) AS q({names})")
        session.relations.depend(relation, bases)
    session.relations.changed(relation)


def _fill_with_committed(session: Session, relation: Relation, bound: Bound, insert: str) -> None:
    """An incremental refresh sees committed rows only, not those of its own transaction (SQL reference, REFRESH
    MATERIALIZED VIEW): they are read beside the transaction, then handed over."""
    other = session.namespace.cursor()
    try:
        other.begin()
        session.cursor.register("_committed", other.execute(bound.sql).to_arrow_table())
        session.execute(insert)
        session.cursor.unregister("_committed")
        session.relations.depend(relation, _bases(bound), Relations(other, session.namespace))
    finally:
        other.close()


def alter_mv(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    relation = _need_mv(session, statement.args["name"])
    session.rights.need_owner(relation)
    changes = {name: statement.args[name] for name in ("owner", "auto_refresh") if name in statement.args}
    if "owner" in changes:
        session.namespace.people.need(Grantee("user", changes["owner"]))
    if changes:
        session.relations.set(relation, **changes)
        session.catalogue_changed()
    return Result(statement.tag)


def drop_mv(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    from zeroetl_dagster.local.warehouse.tables import drop

    args = statement.args
    found = session.catalogue.find(args["name"])
    if found is None and args["if_exists"]:
        return Result(statement.tag)
    relation = _need_mv(session, args["name"])
    with session.block():
        drop(session, relation, args["cascade"])
    session.catalogue_changed()
    return Result(statement.tag)


# ---- what depends on a relation --------------------------------------------------------------------------------------


def drop_dependents(session: Session, relation: Relation, cascade: bool) -> None:
    """Views and materialized views that read a relation keep it from being dropped, or go with it."""
    from zeroetl_dagster.local.warehouse.tables import drop

    dependents = session.relations.dependents(relation)
    if dependents and not cascade:
        kind = "materialized view" if relation.kind == "mv" else "view" if relation.kind == "view" else "table"
        raise SqlError(
            "2BP01",
            f"cannot drop {kind} {relation.name} because other objects depend on it: "
            f"{', '.join(one.name for one in dependents)}. Use DROP … CASCADE to drop the dependent objects too",
        )
    for one in dependents:
        if session.relations.find(*one.key) is not None:
            drop(session, one, True)


def break_dependents(session: Session, relation: Relation, state: int, column: str | None = None) -> None:
    """Materialized views whose base has changed its shape cannot be refreshed any more."""
    for one in session.relations.dependents(relation):
        if one.kind == "mv" and (column is None or _mentions(one, column)):
            session.relations.set(one, state=state)
        elif one.kind == "view" and column is not None and _mentions(one, column):
            raise SqlError(
                "2BP01",
                f'cannot change column "{column}" of table {relation.name} because view {one.name} depends on it',
            )


def _mentions(view: Relation, column: str) -> bool:
    body = Body.parse(view.body or "")
    tree = parse(body.text, body.case_sensitive)
    starred = any(isinstance(star.parent, exp.Select | exp.Column) for star in tree.find_all(exp.Star))
    return starred or any(one.name == column for one in tree.find_all(exp.Column))


def rename_in_views(session: Session, relation: Relation, name: str) -> None:
    """A view goes on to read the table that it was made of, under its new name."""
    for view in session.relations.dependents(relation):
        if view.kind != "view":
            continue
        body = Body.parse(view.body or "")
        tree = parse(body.text, body.case_sensitive)
        for table in tree.find_all(exp.Table):
            schema = table.db or next((one for one in body.search_path if _is(session, relation, one)), None)
            if table.name == relation.name and schema == relation.schema:
                if not table.alias:
                    table.set("alias", exp.TableAlias(this=exp.to_identifier(relation.name, quoted=True)))
                table.set("this", exp.to_identifier(name, quoted=True))
        text = tree.sql("redshift")
        session.relations.set(view, body=Body(text, True, body.search_path, body.columns).dump())


def _is(session: Session, relation: Relation, schema: str) -> bool:
    return session.relations.find(relation.database, schema, relation.name) is not None


# ---- comments --------------------------------------------------------------------------------------------------------


def comment(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    args = statement.args
    if args["on"] not in ("TABLE", "VIEW", "COLUMN"):
        raise not_implemented(f"COMMENT ON {args['on']}")
    name = args["name"][:-1] if args["on"] == "COLUMN" else args["name"]
    relation = session.catalogue.need(name)
    session.rights.need_owner(relation)
    if relation.state is not None or relation.kind == "temp":
        raise not_implemented("comments on replicated and temporary tables")
    with session.block():
        if args["on"] == "COLUMN":
            _comment_column(session, relation, args["name"][-1], args["text"])
        else:
            session.relations.set(relation, comment=args["text"])
    return Result("COMMENT")


def _comment_column(session: Session, relation: Relation, column: str, text: str | None) -> None:
    if column not in [one.name for one in session.relations.columns(relation)]:
        raise SqlError("42703", f'column "{column}" of relation "{relation.name}" does not exist')
    table = session.relations.table(relation.database, "column_comment")
    where = [relation.schema, relation.name, column]
    session.execute(f"DELETE FROM {table} WHERE schema_name = $1 AND relation_name = $2 AND column_name = $3", where)
    if text is not None:
        session.execute(f"INSERT INTO {table} VALUES ($1, $2, $3, $4)", [*where, text])


HANDLERS: dict[str, Callable[[Session, Statement, Sequence[Any]], Result]] = {
    "create_view": create_view,
    "create_mv": create_mv,
    "refresh_mv": refresh_mv,
    "alter_mv": alter_mv,
    "drop_mv": drop_mv,
    "comment": comment,
}
