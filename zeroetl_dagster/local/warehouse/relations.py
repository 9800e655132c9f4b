"""What stands under a name: schemas, tables, views and their columns, as `_zeroetl` of each database remembers them.

In the namespace's own databases the session writes these rows in the transaction of its DDL; in an integration's
database the tables are those of the replica (stream/catalog.py), and belong to the database's owner.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from zeroetl_dagster.local.warehouse.dialect import quoted
from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.types import RedshiftType, from_duckdb, parse

INTERNAL = "_zeroetl"
_TABLES = {
    "relation": "oid BIGINT, schema_name VARCHAR, relation_name VARCHAR, kind VARCHAR, owner VARCHAR, body VARCHAR, "
    "comment VARCHAR, state INTEGER, auto_refresh BOOLEAN",
    "column_type": "schema_name VARCHAR, table_name VARCHAR, column_name VARCHAR, position INTEGER, "
    "redshift_type VARCHAR, is_key BOOLEAN",
    "column_comment": "schema_name VARCHAR, relation_name VARCHAR, column_name VARCHAR, comment VARCHAR",
    "schema": "schema_name VARCHAR, owner VARCHAR",
    "privilege": "on_kind VARCHAR, schema_name VARCHAR, relation_name VARCHAR, privilege VARCHAR, "
    "grantee_kind VARCHAR, grantee VARCHAR, grant_option BOOLEAN, grantor VARCHAR",
    "dependency": "oid BIGINT, base_database VARCHAR, base_schema VARCHAR, base_name VARCHAR, token VARCHAR",
    "change": "oid BIGINT, changes BIGINT",
}
# Where a relation's name is written, and which of the rows are about relations.
_NAMED = (
    ("relation", "relation_name", ""),
    ("privilege", "relation_name", " AND on_kind = 'relation'"),
    ("column_comment", "relation_name", ""),
    ("column_type", "table_name", ""),
)
READABLE = "Synced"
_MANY_CHANGES = 1000


@dataclass(frozen=True)
class Column:
    name: str
    type: RedshiftType


@dataclass(frozen=True)
class Relation:
    """`kind`: table, view, late (a late-binding view), mv, or temp. `state` of a replicated table is AWS's word, and
    `readable` whether it lets one read; `body` is a `Body` as text."""

    database: str
    schema: str
    name: str
    kind: str
    owner: str | None
    oid: int = 0
    body: str | None = None
    state: str | None = None
    readable: bool = True

    @property
    def sql(self) -> str:
        return quoted("temp", "main", self.name) if self.kind == "temp" else quoted(*self.key)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.database, self.schema, self.name


@dataclass(frozen=True)
class Body:
    """The SQL of a view as it was written, with what its words meant when it was made."""

    text: str
    case_sensitive: bool
    search_path: tuple[str, ...]
    columns: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Body:
        found = json.loads(text)
        columns = found.get("columns")
        return cls(
            found["text"], found["case_sensitive"], tuple(found["search_path"]), tuple(columns) if columns else None
        )

    def dump(self) -> str:
        return json.dumps(vars(self))


def create_memory(cursor: duckdb.DuckDBPyConnection, database: str, *, integration: bool) -> None:
    """Make `_zeroetl` of a database, or what is missing in it; `column_type` of an integration's is the replica's.

    Called before anybody reads it: the many small rows of `change` are folded to one a relation, which says the same.
    """
    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(database, INTERNAL)}")
    cursor.execute(f"CREATE SEQUENCE IF NOT EXISTS {quoted(database, INTERNAL, 'oids')} START 100000")
    for table, columns in _TABLES.items():
        if not (integration and table == "column_type"):
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {quoted(database, INTERNAL, table)} ({columns})")
    if not integration:
        schemas = quoted(database, INTERNAL, "schema")
        cursor.execute(f"INSERT INTO {schemas} SELECT 'public', NULL WHERE NOT EXISTS (FROM {schemas})")
        if cursor.fetchone() == (1,):
            cursor.execute(
                f"INSERT INTO {quoted(database, INTERNAL, 'privilege')} SELECT 'schema', 'public', NULL, p, 'public', "
                "'public', false, NULL FROM (VALUES ('USAGE'), ('CREATE')) AS t(p)"
            )
    changes = quoted(database, INTERNAL, "change")
    if cursor.execute(f"SELECT count(*) FROM {changes}").fetchall()[0][0] > _MANY_CHANGES:
        cursor.execute("BEGIN")
        summed = cursor.execute(f"SELECT oid, sum(changes)::BIGINT FROM {changes} GROUP BY oid").fetchall()
        cursor.execute(f"DELETE FROM {changes}")
        cursor.executemany(f"INSERT INTO {changes} VALUES ($1, $2)", [list(row) for row in summed])
        cursor.execute("COMMIT")


class Relations:
    """Reads and writes on a session's cursor, in its transaction. `databases`: the namespace, for its `find`."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, databases: Any) -> None:
        self.cursor = cursor
        self.databases = databases
        self.temporary: set[str] = set()
        self._temporary_types: dict[str, dict[str, str]] = {}  # what column_type is for the others

    def table(self, database: str, name: str) -> str:
        return quoted(database, INTERNAL, name)

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.cursor.execute(sql, list(params)).fetchall()

    # ---- reading -----------------------------------------------------------------------------------------------------

    def find(self, database: str, schema: str, name: str) -> Relation | None:
        """Exactly that name: letters in upper case count."""
        doc = self.databases.find(database)
        if doc is None:
            raise SqlError("3D000", f'database "{database}" does not exist')
        if doc.get("integration_id"):
            return self._replicated(doc, schema, name)
        rows = self.rows(
            f"SELECT kind, owner, oid, body FROM {self.table(database, 'relation')} "
            "WHERE schema_name = $1 AND relation_name = $2",
            [schema, name],
        )
        return Relation(database, schema, name, *rows[0]) if rows else None

    def _replicated(self, doc: dict[str, Any], schema: str, name: str) -> Relation | None:
        rows = self.rows(
            f"SELECT table_id, table_state FROM {self.table(doc['name'], 'table_state')} "
            "WHERE schema_name = $1 AND table_name = $2 AND table_state <> 'Deleted'",
            [schema, name],
        )
        if not rows:
            return None
        oid, state = rows[0]
        readable = state == READABLE or bool(doc.get("options", {}).get("query_all_states"))
        return Relation(doc["name"], schema, name, "table", doc.get("owner"), oid, state=state, readable=readable)

    def columns(self, relation: Relation) -> list[Column]:
        """DuckDB's columns, with the declared type where one is known."""
        declared = self._temporary_types.get(relation.name, {})
        if relation.kind != "temp":
            declared = dict(
                self.rows(
                    f"SELECT column_name, redshift_type FROM {self.table(relation.database, 'column_type')} "
                    "WHERE schema_name = $1 AND table_name = $2",
                    [relation.schema, relation.name],
                )
            )
        return [
            Column(name, parse(declared.get(name, "")) or from_duckdb(kind))
            for name, kind, *_ in self.rows(f"DESCRIBE {relation.sql}")
        ]

    def required(self, relation: Relation) -> dict[str, tuple[bool, str | None]]:
        """Whether a column is NOT NULL, and its default as DuckDB writes it, of a table."""
        rows = self.rows(f"DESCRIBE {relation.sql}")
        return {name: (null == "NO", default) for name, _, null, _, default, *_ in rows}

    def keys(self, relation: Relation) -> list[str]:
        """The columns of the declared primary key."""
        if relation.kind == "temp":
            return []
        rows = self.rows(
            f"SELECT column_name FROM {self.table(relation.database, 'column_type')} "
            "WHERE schema_name = $1 AND table_name = $2 AND is_key ORDER BY position",
            [relation.schema, relation.name],
        )
        return [name for (name,) in rows]

    def schemas(self, database: str) -> dict[str, str | None]:
        """Name to owner."""
        doc = self.databases.find(database) or {}
        if doc.get("integration_id"):
            found = self.rows(f"SELECT DISTINCT schema_name FROM {self.table(database, 'table_state')}")
            return {name: doc.get("owner") for (name,) in [*found, ("public",)]}
        return dict(self.rows(f"SELECT schema_name, owner FROM {self.table(database, 'schema')}"))

    # ---- writing -----------------------------------------------------------------------------------------------------

    def add(
        self, relation: Relation, columns: Iterable[Column], keys: Iterable[str] = (), *, auto_refresh: bool = False
    ) -> Relation:
        """Note a relation that has just been made; returns it with its oid."""
        if relation.kind == "temp":
            self.temporary.add(relation.name)
            self._temporary_types.pop(relation.name, None)
            self.declare(relation, columns)
            return relation
        oid = self.rows("SELECT nextval($1)", [f'"{relation.database}"."{INTERNAL}"."oids"'])[0][0]
        self.cursor.execute(
            f"INSERT INTO {self.table(relation.database, 'relation')} VALUES ($1, $2, $3, $4, $5, $6, NULL, 0, $7)",
            [oid, relation.schema, relation.name, relation.kind, relation.owner, relation.body, auto_refresh],
        )
        self.declare(relation, columns, keys)
        return replace(relation, oid=oid)

    def declare(self, relation: Relation, columns: Iterable[Column], keys: Iterable[str] | None = None) -> None:
        """Note the types of its columns anew, and its primary key where it is another now."""
        if relation.kind == "temp":  # what a rollback brings back is known still
            known = self._temporary_types.get(relation.name, {})
            self._temporary_types[relation.name] = known | {one.name: one.type.text for one in columns}
            return
        marked = set(self.keys(relation) if keys is None else keys)
        where = [relation.schema, relation.name]
        types = self.table(relation.database, "column_type")
        self.cursor.execute(f"DELETE FROM {types} WHERE schema_name = $1 AND table_name = $2", where)
        values = [
            [*where, column.name, place, column.type.text, column.name in marked]
            for place, column in enumerate(columns, 1)
        ]
        if values:
            self.cursor.executemany(f"INSERT INTO {types} VALUES ($1, $2, $3, $4, $5, $6)", values)

    def forget(self, relation: Relation) -> None:
        """A relation that has been dropped, with its rights and comments."""
        for table, column, more in _NAMED:
            self.cursor.execute(
                f"DELETE FROM {self.table(relation.database, table)} WHERE schema_name = $1 AND {column} = $2{more}",
                [relation.schema, relation.name],
            )
        for table in ("dependency", "change"):
            self.cursor.execute(f"DELETE FROM {self.table(relation.database, table)} WHERE oid = $1", [relation.oid])

    def rename(self, relation: Relation, name: str) -> None:
        for table, column, more in _NAMED:
            self.cursor.execute(
                f"UPDATE {self.table(relation.database, table)} SET {column} = $1 "
                f"WHERE schema_name = $2 AND {column} = $3{more}",
                [name, relation.schema, relation.name],
            )
        self.cursor.execute(  # what reads it reads it still
            f"UPDATE {self.table(relation.database, 'dependency')} SET base_name = $1 "
            "WHERE base_database = $2 AND base_schema = $3 AND base_name = $4",
            [name, *relation.key],
        )

    def set(self, relation: Relation, **values: Any) -> None:
        """Change columns of its row in `relation`."""
        places = ", ".join(f"{column} = ${number}" for number, column in enumerate(values, 2))
        self.cursor.execute(
            f"UPDATE {self.table(relation.database, 'relation')} SET {places} WHERE oid = $1",
            [relation.oid, *values.values()],
        )

    # ---- what has changed since, and what reads what -----------------------------------------------------------------

    def changed(self, relation: Relation) -> None:
        """Its rows are others now. Written as a row of its own: two sessions may change one table at a time."""
        if relation.kind == "temp":
            return
        changes = self.table(relation.database, "change")
        self.cursor.execute(f"INSERT INTO {changes} VALUES ($1, 1)", [relation.oid])

    def token(self, relation: Relation) -> str:
        """Another one whenever rows of the relation have changed."""
        if relation.state is not None:
            found = self.rows(
                f"SELECT checkpoint, last_updated, table_rows FROM {self.table(relation.database, 'table_state')} "
                "WHERE table_id = $1 AND schema_name = $2 AND table_name = $3",
                [relation.oid, relation.schema, relation.name],
            )
            return json.dumps([str(value) for value in found[0]]) if found else ""
        changes = self.table(relation.database, "change")
        count = self.rows(f"SELECT coalesce(sum(changes), 0) FROM {changes} WHERE oid = $1", [relation.oid])
        return f"{relation.oid}:{count[0][0]}"

    def depend(self, relation: Relation, bases: Iterable[Relation], seen_by: Relations | None = None) -> None:
        """Note what a view reads, and how far each of it was; `seen_by`: for whom, if not for this session."""
        table = self.table(relation.database, "dependency")
        self.cursor.execute(f"DELETE FROM {table} WHERE oid = $1", [relation.oid])
        for base in dict.fromkeys(bases):
            self.cursor.execute(
                f"INSERT INTO {table} VALUES ($1, $2, $3, $4, $5)",
                [relation.oid, *base.key, (seen_by or self).token(base)],
            )

    def bases(self, relation: Relation) -> list[tuple[tuple[str, str, str], str]]:
        """Name and token of what the view read."""
        rows = self.rows(
            "SELECT base_database, base_schema, base_name, token FROM "
            f"{self.table(relation.database, 'dependency')} WHERE oid = $1",
            [relation.oid],
        )
        return [((row[0], row[1], row[2]), row[3]) for row in rows]

    def is_stale(self, relation: Relation) -> bool:
        """Whether a base has changed since it was last read, or is no longer the one it was."""
        for key, token in self.bases(relation):
            base = self.find(*key) if self.databases.find(key[0]) is not None else None
            if base is None or self.token(base) != token:
                return True
        return False

    def dependents(self, relation: Relation) -> list[Relation]:
        """Views and materialized views of the same database that read it."""
        rows = self.rows(
            f"SELECT DISTINCT r.schema_name, r.relation_name, r.kind, r.owner, r.oid, r.body "
            f"FROM {self.table(relation.database, 'dependency')} d "
            f"JOIN {self.table(relation.database, 'relation')} r ON r.oid = d.oid "
            "WHERE base_database = $1 AND base_schema = $2 AND base_name = $3 ORDER BY r.oid",
            list(relation.key),
        )
        return [Relation(relation.database, *row) for row in rows]
