"""Tables and schemas: CREATE, ALTER, DROP, TRUNCATE, CREATE TABLE AS, SELECT INTO.

Keys other than NOT NULL are not kept from being broken, as in Redshift; layout (DISTKEY, SORTKEY, ENCODE, BACKUP) is
read and has no effect here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlglot import exp

from zeroetl_dagster.local.warehouse import dialect
from zeroetl_dagster.local.warehouse.binding import Bound
from zeroetl_dagster.local.warehouse.dialect import Statement, declared, quoted
from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.grants import Grantee
from zeroetl_dagster.local.warehouse.queries import need_own_database, need_writable
from zeroetl_dagster.local.warehouse.relations import Column, Relation
from zeroetl_dagster.local.warehouse.session import Result, Session
from zeroetl_dagster.local.warehouse.types import MAX_VARCHAR, RedshiftType, parse
from zeroetl_dagster.local.warehouse.view_statements import break_dependents, drop_dependents, rename_in_views

_WORDS = {"table": "table", "view": "view", "late": "view", "mv": "materialized view", "temp": "table"}
_SCHEMAS_OF_DUCKDB = ("main", "pg_catalog", "information_schema", "_zeroetl")


def ddl(session: Session, statement: Statement, params: Sequence[Any]) -> Result:
    tree = statement.tree
    assert tree is not None
    tree = tree.copy()
    if isinstance(tree, exp.Select):
        result = _select_into(session, tree, params)
    elif isinstance(tree, exp.Create):
        result = _create(session, statement, tree, params)
    elif isinstance(tree, exp.Drop):
        result = _drop(session, statement, tree)
    elif isinstance(tree, exp.TruncateTable):
        result = _truncate(session, tree)
    else:
        result = _alter(session, statement, tree)
    session.catalogue_changed()
    return result


# ---- making ----------------------------------------------------------------------------------------------------------


def _create(session: Session, statement: Statement, tree: exp.Create, params: Sequence[Any]) -> Result:
    if tree.kind != "TABLE":
        raise not_implemented(f"CREATE {tree.kind}")
    if tree.args.get("replace"):
        raise SqlError("42601", 'syntax error at or near "TABLE"')
    schema = tree.this if isinstance(tree.this, exp.Schema) else None
    table = schema.this if schema else tree.this
    properties = tree.args.get("properties")
    temporary = bool(properties and properties.find(exp.TemporaryProperty))
    place = _place(session, table, temporary)
    if tree.args.get("exists") and _taken(session, place):
        return Result(statement.tag)
    if tree.expression:
        names = [one.name for one in schema.expressions] if schema else None
        query = tree.expression.this if isinstance(tree.expression, exp.Subquery) else tree.expression
        return create_as(session, place, query, params, names)
    if schema is None:
        raise SqlError("42601", f"a table needs columns: CREATE TABLE {table.name} (…)")
    columns, definitions, keys = _definitions(session, schema.expressions)
    with session.block():
        make(session, place, columns, definitions, keys=keys)
    return Result(statement.tag)


def _select_into(session: Session, tree: exp.Select, params: Sequence[Any]) -> Result:
    into = tree.args["into"]
    tree.set("into", None)
    return create_as(session, _place(session, into.this, bool(into.args.get("temporary"))), tree, params, None)


def _place(session: Session, table: exp.Expr, temporary: bool) -> Relation:
    assert isinstance(table, exp.Table)
    name = tuple(part.name for part in table.parts)
    if temporary or name[-1].startswith("#"):
        return Relation("temp", "main", name[-1], "temp", session.user.name)
    need_own_database(session, name)
    schema, relation = session.catalogue.place(name)
    session.rights.need_schema(session.database, schema, "CREATE")
    return Relation(session.database, schema, relation, "table", session.user.name)


def _taken(session: Session, place: Relation) -> bool:
    if place.kind == "temp":
        return place.name in session.relations.temporary
    return session.relations.find(*place.key) is not None


def make(session: Session, place: Relation, columns: list[Column], definitions: Iterable[str], **more: Any) -> Relation:
    """Make a table, and note it."""
    if _taken(session, place):
        raise SqlError("42P07", f'Relation "{place.name}" already exists')
    _need_distinct(session, place)
    names = [column.name for column in columns]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise SqlError("42701", f'column "{doubled}" duplicated')
    kind = "TEMP TABLE" if place.kind == "temp" else "TABLE"
    session.execute(f"CREATE {kind} {place.sql} ({', '.join(definitions)})")
    relation = session.relations.add(place, columns, **more)
    if place.kind != "temp":
        session.rights.apply_defaults(relation)
    return relation


def _need_distinct(session: Session, place: Relation) -> None:
    """DuckDB does not tell names apart by case; what it would take for the same is said to be."""
    if place.kind != "temp":
        rows = session.relations.rows(
            f"SELECT relation_name FROM {session.relations.table(place.database, 'relation')} WHERE schema_name = $1 "
            "AND lower(relation_name) = lower($2)",
            [place.schema, place.name],
        )
        if rows:
            raise not_implemented(f'tables whose names differ in case only: "{place.name}" beside "{rows[0][0]}"')


def create_as(
    session: Session, place: Relation, query: exp.Expr, params: Sequence[Any], names: list[str] | None, **more: Any
) -> Result:
    """CREATE TABLE AS, and what else is made of a query."""
    with session.block():
        count, _, _ = fill(session, place, session.binder.bind(query), params, names, **more)
    session.catalogue_changed()
    return Result(f"SELECT {count}" if place.kind in ("table", "temp") else "CREATE MATERIALIZED VIEW")


def fill(
    session: Session, place: Relation, bound: Bound, params: Sequence[Any], names: list[str] | None, **more: Any
) -> tuple[int, Relation, list[Column]]:
    """Make a table of a query's columns, and put its rows in."""
    session.check(bound)
    columns = [Column(column.name, _sized(column.type)) for column in bound.columns]
    if names is not None:
        if len(names) != len(columns):
            raise SqlError("42601", "CREATE TABLE AS specifies another number of column names than the query has")
        columns = [Column(name, column.type) for name, column in zip(names, columns, strict=True)]
    definitions = [f"{quoted(column.name)} {column.type.duckdb}" for column in columns]
    relation = make(session, place, columns, definitions, **more)
    used = params[: dialect.placeholders(bound.sql)]
    rows = session.execute(f"INSERT INTO {place.sql} {bound.sql}", used).fetchall()
    session.relations.changed(relation)
    return rows[0][0], relation, columns


def _sized(kind: RedshiftType) -> RedshiftType:
    return RedshiftType(kind.name, MAX_VARCHAR) if kind.name == "character varying" and kind.size is None else kind


def _definitions(session: Session, expressions: Iterable[exp.Expr]) -> tuple[list[Column], list[str], set[str]]:
    """Columns, how DuckDB is told of each, and the primary key."""
    columns: list[Column] = []
    definitions: list[str] = []
    keys: set[str] = set()
    for one in expressions:
        if isinstance(one, exp.ColumnDef):
            column, definition = _column(session, one)
            columns.append(column)
            definitions.append(definition)
            if one.find(exp.PrimaryKeyColumnConstraint):
                keys.add(column.name)
        elif isinstance(one, exp.LikeProperty):
            for column, definition in _liked(session, one):
                columns.append(column)
                definitions.append(definition)
        elif isinstance(one, exp.PrimaryKey):
            keys |= {part.name for part in one.expressions}
        elif not isinstance(one, exp.UniqueColumnConstraint | exp.ForeignKey | exp.Constraint):
            raise not_implemented(f"{one.sql('redshift')[:40]} of a table")
    for at, column in enumerate(columns):  # a primary key is not enforced, but is never null
        if column.name in keys and "NOT NULL" not in definitions[at]:
            definitions[at] += " NOT NULL"
    return columns, definitions, keys


def _liked(session: Session, like: exp.LikeProperty) -> Iterable[tuple[Column, str]]:
    """LIKE: names, types and NOT NULL of another table's columns; their defaults if they are asked for."""
    liked = session.catalogue.need(tuple(part.name for part in like.this.parts))
    session.rights.need_relation(liked, "SELECT")
    chosen = [
        str(option.this).upper() for option in like.expressions if option.args["value"].name.upper() == "DEFAULTS"
    ]
    facts = {} if liked.kind in ("view", "late") else session.relations.required(liked)
    for column in session.relations.columns(liked):
        required, default = facts.get(column.name, (False, None))
        made = f"{quoted(column.name)} {column.type.duckdb}{' NOT NULL' if required else ''}"
        yield column, made + (f" DEFAULT {default}" if default and chosen[-1:] == ["INCLUDING"] else "")


def _column(session: Session, definition: exp.ColumnDef) -> tuple[Column, str]:
    kind = parse(declared(definition.kind)) if definition.kind else None
    if kind is None:
        raise SqlError(
            "42704", f'type "{definition.kind.sql("redshift").lower() if definition.kind else ""}" does not exist'
        )
    made = f"{quoted(definition.name)} {kind.duckdb}"
    for constraint in definition.args.get("constraints") or []:
        one = constraint.kind
        if isinstance(one, exp.NotNullColumnConstraint):
            made += "" if one.args.get("allow_null") else " NOT NULL"
        elif isinstance(one, exp.PrimaryKeyColumnConstraint):
            made += " NOT NULL"
        elif isinstance(one, exp.DefaultColumnConstraint):
            bound = session.binder.bind(exp.select(one.this.copy()))
            assert bound.tree is not None
            made += f" DEFAULT {bound.tree.expressions[0].unalias().sql('duckdb')}"
        elif isinstance(one, exp.GeneratedAsIdentityColumnConstraint):
            raise not_implemented("IDENTITY columns")
        elif isinstance(one, exp.CollateColumnConstraint):
            raise not_implemented("COLLATE of columns")
        elif not isinstance(one, exp.EncodeColumnConstraint | exp.UniqueColumnConstraint | exp.Reference):
            raise not_implemented(f"{constraint.sql('redshift')[:40]} of a column")
    return Column(definition.name, kind), made


# ---- taking away -----------------------------------------------------------------------------------------------------


def _drop(session: Session, statement: Statement, tree: exp.Drop) -> Result:
    kind, cascade = str(tree.args["kind"]).upper(), bool(tree.args.get("cascade"))
    tables = tree.args.get("tables") or [tree.this]
    if kind == "SCHEMA":
        with session.block():
            for one in tables:
                _drop_schema(session, one.args["db"].name, bool(tree.args.get("exists")), cascade)
        return Result(statement.tag)
    if kind not in ("TABLE", "VIEW"):
        raise not_implemented(f"DROP {kind}")
    with session.block():
        for one in tables:
            relation = session.catalogue.find(tuple(part.name for part in one.parts))
            if relation is None:
                if tree.args.get("exists"):
                    continue
                raise SqlError("42P01", f'{kind.capitalize()} "{one.name}" does not exist')
            if _WORDS[relation.kind] != kind.lower():
                raise SqlError(
                    "42809", f'"{relation.name}" is not a {kind.lower()}: DROP {_WORDS[relation.kind].upper()}'
                )
            drop(session, relation, cascade)
    return Result(statement.tag)


def drop(session: Session, relation: Relation, cascade: bool) -> None:
    """Drop a relation; what depends on it keeps it, or goes with it."""
    need_writable(session, relation)
    if not (relation.owner != session.user.name and session.rights.has_relation(relation, "DROP")):
        session.rights.need_owner(relation)
    if relation.kind == "temp":
        session.execute(f"DROP TABLE {relation.sql}")
        session.relations.temporary.discard(relation.name)
        return
    drop_dependents(session, relation, cascade)
    if relation.kind in ("table", "mv"):
        session.execute(f"DROP TABLE {relation.sql}")
    session.relations.forget(relation)


def _drop_schema(session: Session, schema: str, if_exists: bool, cascade: bool) -> None:
    if schema not in session.relations.schemas(session.database):
        if if_exists:
            return
        raise SqlError("3F000", f'schema "{schema}" does not exist')
    need_own_database(session)
    session.rights.need_schema_owner(session.database, schema)
    place = session.relations.table(session.database, "relation")
    names = session.relations.rows(f"SELECT relation_name FROM {place} WHERE schema_name = $1", [schema])
    if names and not cascade:
        raise SqlError("2BP01", f"cannot drop schema {schema} because other objects depend on it")
    for (name,) in names:
        if found := session.relations.find(session.database, schema, name):
            drop(session, found, True)
    session.execute(f"DROP SCHEMA {quoted(session.database, schema)} CASCADE")
    for table in ("schema", "privilege"):
        session.execute(
            f"DELETE FROM {session.relations.table(session.database, table)} WHERE schema_name = $1", [schema]
        )


def _truncate(session: Session, tree: exp.TruncateTable) -> Result:
    """Commits the transaction that it is run in (SQL reference, TRUNCATE)."""
    with session.block():
        for one in tree.expressions:
            relation = session.catalogue.need(tuple(part.name for part in one.parts))
            need_writable(session, relation)
            if relation.kind not in ("table", "temp"):
                raise SqlError("42809", f'"{relation.name}" is not a table')
            if not (relation.owner != session.user.name and session.rights.has_relation(relation, "TRUNCATE")):
                session.rights.need_owner(relation)
            session.execute(f"DELETE FROM {relation.sql}")
            session.relations.changed(relation)
    if session.in_transaction:
        session.cursor.commit()
        session.cursor.begin()
    return Result("TRUNCATE TABLE")


# ---- changing --------------------------------------------------------------------------------------------------------


def _alter(session: Session, statement: Statement, tree: exp.Expr) -> Result:
    if str(tree.args.get("kind")).upper() != "TABLE":
        raise not_implemented(f"ALTER {tree.args.get('kind')}")
    relation = session.catalogue.need(tuple(part.name for part in tree.this.parts))
    need_writable(session, relation)
    if not (relation.owner != session.user.name and session.rights.has_relation(relation, "ALTER")):
        session.rights.need_owner(relation)
    if relation.kind not in ("table", "temp"):
        raise SqlError("42809", f'"{relation.name}" is not a table')
    with session.block():
        for action in tree.args["actions"]:
            _act(session, relation, tree, action)
    return Result(statement.tag)


def _act(session: Session, relation: Relation, tree: exp.Expr, action: exp.Expr) -> None:
    if isinstance(action, exp.AlterRename):
        if options := tree.args.get("options"):  # RENAME x TO y, without COLUMN
            _rename_column(session, relation, action.this.name, options[0].this.name)
        else:
            _rename(session, relation, action.this.name)
    elif isinstance(action, exp.RenameColumn):
        _rename_column(session, relation, action.this.name, action.args["to"].name)
    elif isinstance(action, exp.ColumnDef):
        column, definition = _column(session, action)
        required = definition.endswith(" NOT NULL")
        if required:
            raise SqlError(
                "42601", "ALTER TABLE ADD COLUMN defined as NOT NULL must have a non-null default expression"
            )
        session.execute(f"ALTER TABLE {relation.sql} ADD COLUMN {definition.replace(' NOT NULL', '')}")
        session.relations.declare(relation, [*session.relations.columns(relation)[:-1], column])
    elif isinstance(action, exp.Drop) and str(action.args.get("kind")).upper() == "CONSTRAINT":
        raise not_implemented("ALTER TABLE … DROP CONSTRAINT")
    elif isinstance(action, exp.Drop):
        name = (action.args.get("tables") or [action.this])[0].name
        session.execute(f"ALTER TABLE {relation.sql} DROP COLUMN {quoted(name)}")
        break_dependents(session, relation, 101, name)
    elif isinstance(action, exp.AlterColumn) and action.args.get("dtype") is not None:
        _change_type(session, relation, action)
    elif isinstance(action, exp.AddConstraint):
        keys = [part.name for key in action.find_all(exp.PrimaryKey) for part in key.expressions]
        session.relations.declare(relation, session.relations.columns(relation), keys or None)
    elif not isinstance(action, exp.AlterDistStyle | exp.AlterSortKey):
        raise not_implemented(f"ALTER TABLE … {action.sql('redshift')[:40]}")


def _rename(session: Session, relation: Relation, name: str) -> None:
    if relation.kind == "temp":
        raise not_implemented("ALTER TABLE … RENAME of a temporary table")
    if session.relations.find(relation.database, relation.schema, name) is not None:
        raise SqlError("42P07", f'Relation "{name}" already exists')
    session.execute(f"ALTER TABLE {relation.sql} RENAME TO {quoted(name)}")
    rename_in_views(session, relation, name)
    break_dependents(session, relation, 103)
    session.relations.rename(relation, name)


def _rename_column(session: Session, relation: Relation, old: str, new: str) -> None:
    columns, keys = session.relations.columns(relation), session.relations.keys(relation)
    session.execute(f"ALTER TABLE {relation.sql} RENAME COLUMN {quoted(old)} TO {quoted(new)}")
    columns = [Column(new, one.type) if one.name == old else one for one in columns]
    session.relations.declare(relation, columns, [new if key == old else key for key in keys])
    break_dependents(session, relation, 104, old)


def _change_type(session: Session, relation: Relation, action: exp.AlterColumn) -> None:
    """Only longer VARCHARs, as in Redshift."""
    kind, name = parse(declared(action.args["dtype"])), action.this.name
    columns = session.relations.columns(relation)
    old = next((column.type for column in columns if column.name == name), None)
    if old is None:
        raise SqlError("42703", f'column "{name}" of relation "{relation.name}" does not exist')
    if kind is None or kind.name != "character varying" or old.name != "character varying":
        raise SqlError("0A000", f'cannot alter type of column "{name}": only the size of VARCHAR columns can change')
    longest = session.execute(f"SELECT max(strlen({quoted(name)})) FROM {relation.sql}").fetchall()[0][0] or 0
    if longest > (kind.size or 0):
        raise SqlError("22001", f'column "{name}" holds values of {longest} bytes: {kind.text} is too short')
    session.relations.declare(relation, [Column(name, kind) if one.name == name else one for one in columns])


def create_schema(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    args = statement.args
    if len(args["name"]) > 1 and args["name"][0] != session.database:
        raise SqlError("0A000", "cross-database reference is for reading only")
    name, owner = args["name"][-1], args["owner"] or session.user.name
    need_own_database(session)
    session.rights.need_database(session.database, "CREATE")
    session.namespace.people.need(Grantee("user", owner))
    if name in session.relations.schemas(session.database):
        if args["if_exists"]:
            return Result(statement.tag)
        raise SqlError("42P06", f'Schema "{name}" already exists')
    if name.lower() in _SCHEMAS_OF_DUCKDB or name.startswith("pg_"):
        raise SqlError("42939", f'unacceptable schema name "{name}"')
    with session.block():
        session.execute(f"CREATE SCHEMA {quoted(session.database, name)}")
        session.execute(
            f"INSERT INTO {session.relations.table(session.database, 'schema')} VALUES ($1, $2)", [name, owner]
        )
    session.catalogue_changed()
    return Result(statement.tag)


HANDLERS: dict[str, Callable[[Session, Statement, Sequence[Any]], Result]] = {
    "ddl": ddl,
    "create_schema": create_schema,
}
