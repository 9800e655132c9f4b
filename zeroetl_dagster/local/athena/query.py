"""A query on its way to DuckDB: tables found, views unfolded, partitions pruned, semantics rewritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from sqlglot import ErrorLevel, exp
from sqlglot.errors import SqlglotError

from zeroetl_dagster.local.athena import macros, relations, trino, usage
from zeroetl_dagster.local.athena.errors import Position, QueryFailed, column_not_found, not_supported, translated
from zeroetl_dagster.local.athena.hive_types import Type, UnknownType, parse
from zeroetl_dagster.local.athena.relations import PATH, Relation
from zeroetl_dagster.local.athena.semantics import Rewriter
from zeroetl_dagster.local.athena.views import View, decode, require_current
from zeroetl_dagster.local.aws.glue_catalogue import is_view

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.glue_catalogue import Catalogue
    from zeroetl_dagster.local.aws.s3_objects import Objects

CATALOG = "awsdatacatalog"
_UNNAMED = "__unnamed_"
_MAX_VIEW_DEPTH = 30
_WHOLE = {"HUGEINT": "BIGINT", "UBIGINT": "BIGINT", "UINTEGER": "BIGINT", "UHUGEINT": "BIGINT", "UUID": "VARCHAR"}


@dataclass
class Environment:
    """What a statement runs in. `scratch` is a folder of its own, removed afterwards."""

    catalogue: Catalogue
    objects: Objects
    database: str
    scratch: Path
    check_scan: Callable[[int], None] = lambda scanned: None


@dataclass(frozen=True)
class Prepared:
    """`sql` is DuckDB's, its output columns are `columns` in order (names may repeat)."""

    sql: str
    columns: list[tuple[str, Type]]
    scanned_bytes: int


class Engine:
    """One DuckDB with Trino's functions; each statement has a connection of its own (its tables are temporary)."""

    def __init__(self, spill: Path) -> None:
        self._database = duckdb.connect(":memory:")
        self._database.execute(f"SET temp_directory = {relations.text(str(spill))}")
        macros.install(self._database)

    def connect(self) -> Any:
        connection = self._database.cursor()
        connection.execute("SET integer_division = true")
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    def close(self) -> None:
        self._database.close()


def prepare(connection: Any, environment: Environment, tree: Any, sql: str, *, read: bool = True) -> Prepared:
    """Ready to run; with `read` False only analysed (nothing is listed, tables have no rows).

    Raises `QueryFailed`.
    """
    position = Position(sql)
    resolver = Resolver(connection, environment, position)
    tree = resolver.resolve(tree, environment.database)
    nulls = _name_columns(tree)
    try:
        filters = usage.analyse(tree, resolver.relations)
    except usage.UnresolvedColumn as error:
        raise _unresolved(connection, resolver, tree, error.args[0], sql) from None
    scanned = 0
    for name, found in resolver.relations.items():
        if name in resolver.memory:
            continue
        if read:
            _prune(connection, found, filters.get(name, []))
            relations.list_files(environment.objects, found)
        scanned += relations.create_view(connection, found)
    environment.check_scan(scanned)
    tree = Rewriter(connection, sql).rewrite(tree)
    try:
        text = tree.sql(dialect="duckdb", unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as error:
        raise not_supported(str(error)) from None
    described = [
        (name, Type("unknown") if index in nulls else kind, raw)
        for index, (name, kind, raw) in enumerate(_described(connection, text, sql))
    ]
    resolver.check_views(sql)
    return Prepared(_plain(text, described), [(name, kind) for name, kind, _ in described], scanned)


def _unresolved(connection: Any, resolver: Resolver, tree: Any, name: str, sql: str) -> QueryFailed:
    """A column of no table, or of several: the engine knows which."""
    for found in resolver.relations.values():
        if found.name not in resolver.memory:
            relations.create_shell(connection, found)
    try:
        connection.execute(f"DESCRIBE {tree.sql(dialect='duckdb')}")
    except duckdb.Error as error:
        failed = translated(error, sql)
        if failed.reason.startswith("AMBIGUOUS_NAME"):
            return failed
    return column_not_found(name, Position(sql).of_word(name))


def _prune(connection: Any, found: Relation, conjuncts: list[Any]) -> None:
    """Keep the partitions that a filter on their keys may let through."""
    if not found.keys or not conjuncts:
        return
    table = relations.create_partition_table(connection, found)
    kept = set(range(len(found.partitions)))
    for conjunct in conjuncts:
        alias = next(conjunct.find_all(exp.Column)).table
        query = exp.select("__i").from_(exp.to_table(table).as_(alias, quoted=True)).where(conjunct.copy())
        try:
            query = Rewriter(connection, "").rewrite(query)
            kept &= {row[0] for row in connection.execute(query.sql(dialect="duckdb")).fetchall()}
        except (QueryFailed, duckdb.Error, SqlglotError):
            continue  # the statement itself will say what is wrong with it
    found.kept = sorted(kept)


def _described(connection: Any, text: str, sql: str) -> list[tuple[str, Type, str]]:
    """(name, type, DuckDB's type) of the output columns."""
    try:
        rows = connection.execute(f"DESCRIBE {text}").fetchall()
    except duckdb.Error as error:
        raise translated(error, sql) from None
    columns = []
    for index, (name, kind, *_) in enumerate(rows):
        shown = f"_col{index}" if name.startswith(_UNNAMED) else name
        columns.append((shown, _type(kind), kind))
    return columns


def _type(text: str) -> Type:
    if text == '"NULL"':
        return Type("unknown")
    try:
        return parse(_WHOLE.get(text, text))
    except UnknownType:
        raise not_supported(f"results of DuckDB's type {text}") from None


def _plain(text: str, described: list[tuple[str, Type, str]]) -> str:
    """DuckDB's own wide types as Trino's."""
    if not any(kind in _WHOLE for _, _, kind in described):
        return text
    names = [f"c{index}" for index in range(len(described))]
    columns = [
        f"CAST({name} AS {_WHOLE[kind]}) AS {name}" if kind in _WHOLE else name
        for name, (_, _, kind) in zip(names, described, strict=True)
    ]
    return f"SELECT {', '.join(columns)} FROM ({text}) AS q({', '.join(names)})"


def _name_columns(tree: Any) -> set[int]:
    """Expressions without a name are `_col0`, `_col1`, ... by their place in the result; the places of bare NULLs."""
    select = tree
    while isinstance(select, (exp.SetOperation, exp.Subquery)):
        select = select.this
    if not isinstance(select, exp.Select):
        return set()
    values = [item.this if isinstance(item, exp.Alias) else item for item in select.expressions]
    stars = any(item.is_star for item in values)
    nulls = set() if stars or select is not tree else {i for i, item in enumerate(values) if isinstance(item, exp.Null)}
    for index, item in enumerate(select.expressions):
        named = isinstance(item, (exp.Alias, exp.Star, exp.Dot)) or isinstance(item, exp.Column)
        if not named:
            item.replace(exp.alias_(item.copy(), f"{_UNNAMED}{index}", quoted=True))
    return nulls


class Resolver:
    """Replaces the tables of a statement by relations of this run, views by their queries."""

    def __init__(self, connection: Any, environment: Environment, position: Position) -> None:
        self._connection, self._environment, self._position = connection, environment, position
        self.relations: dict[str, Relation] = {}
        self.memory: set[str] = set()
        self._views: list[tuple[View, str, Any]] = []

    def resolve(self, tree: Any, database: str, depth: int = 0) -> Any:
        if depth > _MAX_VIEW_DEPTH:
            raise QueryFailed("VIEW_IS_RECURSIVE: line 1:15: Statement would create a recursive view")
        for column in list(tree.find_all(exp.Column)):
            if column.args.get("db") is not None:
                _shorten(column)
        with_path = any(column.name.lower() == PATH for column in tree.find_all(exp.Column))
        for table in list(tree.find_all(exp.Table)):
            if isinstance(table.this, exp.Identifier) and not _is_cte(table):
                self._replace(table, database, depth, with_path)
        return tree

    def check_views(self, sql: str) -> None:
        """Raises `QueryFailed` VIEW_IS_STALE."""
        for view, name, node in self._views:
            described = _described(self._connection, node.sql(dialect="duckdb"), sql)
            require_current(view, [(column, kind) for column, kind, _ in described], name)

    def _replace(self, table: Any, default: str, depth: int, with_path: bool) -> None:
        catalog, database, name = table.catalog, table.db or default, table.name
        alias = table.alias or name.lower()
        if catalog and catalog.lower() != CATALOG:
            where = self._position.of_word(catalog)
            raise QueryFailed(f"CATALOG_NOT_FOUND: {where}Catalog '{catalog.lower()}' not found")
        found = self._find(database.lower(), name.lower())
        if isinstance(found, View):
            inner = self._view(found, f"{database.lower()}.{name.lower()}", depth)
            made: Any = exp.Subquery(this=inner)
            self._views.append((found, f"{database.lower()}.{name.lower()}", inner))
        else:
            found.with_path = with_path and found.name not in self.memory
            made = exp.to_table(found.name)
            _hide_path(table, found.with_path)
        made.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        given = table.args.get("alias")
        if given is not None and given.args.get("columns"):
            made.args["alias"].set("columns", [column.copy() for column in given.args["columns"]])
        for key in ("sample", "joins", "pivots", "laterals"):
            if table.args.get(key):
                made.set(key, table.args[key])
        table.replace(made)

    def _view(self, view: View, name: str, depth: int) -> Any:
        try:
            tree = trino.read(view.sql)
        except SqlglotError as error:
            raise QueryFailed(f"HIVE_INVALID_VIEW_DATA: Invalid view data for view '{name}': {error}") from None
        return self.resolve(tree, view.schema, depth + 1)

    def _find(self, database: str, name: str) -> Relation | View:
        if database == "information_schema":
            return self._memory(*information_schema(self._environment.catalogue, name, self._position))
        base, _, special = name.partition("$")
        table = self._environment.catalogue.find_table(database, base or name)
        if table is None or (special and special != "partitions"):
            self._missing(database, name)
        assert table is not None
        if is_view(table):
            return decode(table)
        partitions = self._environment.catalogue.partitions(database, base or name) if table["PartitionKeys"] else []
        made = relations.relation(f"__r{len(self.relations)}", table, partitions)
        if special:
            rows = [dict(zip(made.keys, p["Values"], strict=True)) for p in partitions]
            return self._memory(name, made.keys, rows)
        self.relations[made.name] = made
        return made

    def _missing(self, database: str, name: str) -> None:
        known = {d["Name"] for d in self._environment.catalogue.databases()} | {"default"}
        if database not in known:
            raise QueryFailed(f"SCHEMA_NOT_FOUND: {self._position.of_word(name)}Schema '{database}' does not exist")
        raise QueryFailed(
            f"TABLE_NOT_FOUND: {self._position.of_word(name)}Table '{CATALOG}.{database}.{name}' does not exist"
        )

    def _memory(self, title: str, columns: dict[str, Type], rows: list[dict[str, Any]]) -> Relation:
        name = f"__r{len(self.relations)}"
        made = Relation(name, {"DatabaseName": "information_schema", "Name": title}, [], columns, {})
        shape = ", ".join(f"{relations.quoted(column)} {kind.duckdb}" for column, kind in columns.items())
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({shape})")
        for row in rows:
            marks = ", ".join("?" for _ in columns)
            self._connection.execute(f"INSERT INTO {name} VALUES ({marks})", [row.get(c) for c in columns])
        self.relations[name] = made
        self.memory.add(name)
        return made


def information_schema(
    catalogue: Catalogue, name: str, position: Position
) -> tuple[str, dict[str, Type], list[dict[str, Any]]]:
    """schemata, tables, views, columns from the catalogue. Raises `QueryFailed` TABLE_NOT_FOUND."""
    text, number = Type("string"), Type("bigint")
    databases = [database["Name"] for database in catalogue.databases()]
    if name == "schemata":
        rows: list[dict[str, Any]] = [{"catalog_name": CATALOG, "schema_name": database} for database in databases]
        return name, {"catalog_name": text, "schema_name": text}, rows
    tables = [table for database in databases for table in catalogue.tables(database)]
    base = [
        {"table_catalog": CATALOG, "table_schema": table["DatabaseName"], "table_name": table["Name"]}
        for table in tables
    ]
    named = {"table_catalog": text, "table_schema": text, "table_name": text}
    if name == "tables":
        kinds = ["VIEW" if is_view(table) else "BASE TABLE" for table in tables]
        return name, {**named, "table_type": text}, [b | {"table_type": k} for b, k in zip(base, kinds, strict=True)]
    if name == "views":
        rows = [b | {"view_definition": decode(t).sql} for b, t in zip(base, tables, strict=True) if is_view(t)]
        return name, {**named, "view_definition": text}, rows
    if name == "columns":
        rows = []
        for row, table in zip(base, tables, strict=True):
            held = [*table.get("StorageDescriptor", {}).get("Columns", []), *table["PartitionKeys"]]
            for index, column in enumerate(held, 1):
                kind = parse(column["Type"]).trino
                more = {"column_name": column["Name"].lower(), "ordinal_position": index, "data_type": kind}
                rows.append(row | more | {"is_nullable": "YES"})
        shape = {**named, "column_name": text, "ordinal_position": number, "is_nullable": text, "data_type": text}
        return name, shape, rows
    where = position.of_word(name)
    raise QueryFailed(f"TABLE_NOT_FOUND: {where}Table '{CATALOG}.information_schema.{name}' does not exist")


def _is_cte(table: Any) -> bool:
    """Whether the name is one of a WITH clause around it (not of one that comes later)."""
    if table.db:
        return False
    node, inside = table.parent, table
    while node is not None:
        clause = node.args.get("with_")
        if clause is not None:
            for cte in clause.expressions:
                own = cte is inside
                if cte.alias.lower() == table.name.lower() and (not own or clause.args.get("recursive")):
                    return True
                if own:
                    break
        if isinstance(node, exp.CTE):
            inside = node
        node = node.parent
    return False


def _shorten(column: Any) -> None:
    """`database.table.column` without the database; `table.row.field` and `row.field.field` as fields of rows."""
    names: set[str] = set()
    select = column.find_ancestor(exp.Select)
    while select is not None:  # a subquery sees the tables around it
        tables = [select.args.get("from_"), *(select.args.get("joins") or [])]
        names |= {table.this.alias_or_name.lower() for table in tables if table is not None}
        select = select.find_ancestor(exp.Select)
    parts = [part.copy() for part in column.parts]
    first = next((index for index, part in enumerate(parts) if part.name.lower() in names), None)
    if first is not None and first + 1 < len(parts):
        made: Any = exp.Column(this=parts[first + 1], table=parts[first])
        fields = parts[first + 2 :]
    else:
        made, fields = exp.Column(this=parts[0]), parts[1:]
    for field in fields:
        made = exp.Dot(this=made, expression=field)
    column.replace(made)


def _hide_path(table: Any, with_path: bool) -> None:
    """`*` does not include `$path`."""
    select = table.find_ancestor(exp.Select)
    if not with_path or select is None:
        return
    for item in select.expressions:
        star = item if isinstance(item, exp.Star) else item.this if isinstance(item, exp.Column) else None
        if isinstance(star, exp.Star) and not star.args.get("except_"):
            star.set("except_", [exp.to_identifier(PATH, quoted=True)])
