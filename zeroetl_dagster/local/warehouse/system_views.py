"""Which system views a session can read.

They are temporary DuckDB views, made when they are first asked for, and anew when what they are made of has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
from sqlglot import exp

from zeroetl_dagster.local.warehouse import catalogue_views, views
from zeroetl_dagster.local.warehouse.catalogue_sources import primary_keys
from zeroetl_dagster.local.warehouse.catalogue_views import Facts
from zeroetl_dagster.local.warehouse.dialect import quoted
from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.relations import Body, Column, Relation
from zeroetl_dagster.local.warehouse.types import from_duckdb

if TYPE_CHECKING:
    from zeroetl_dagster.local.warehouse.session import Session

_FIRST_USER = 100
_HISTORY = (
    "user_id:INTEGER, query_id:BIGINT, database_name:VARCHAR, query_type:VARCHAR, status:VARCHAR, session_id:INTEGER, "
    "start_time:TIMESTAMP, end_time:TIMESTAMP, elapsed_time:BIGINT, execution_time:BIGINT, queue_time:BIGINT, "
    "returned_rows:BIGINT, error_message:VARCHAR, query_text:VARCHAR, transaction_id:BIGINT, compute_type:VARCHAR, "
    "username:VARCHAR, query_label:VARCHAR, result_cache_hit:BOOLEAN"
)


class SystemViews:
    """`asked`: those that the statement being bound reads."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.asked: set[tuple[str, str]] = set()
        self._made: dict[tuple[str, str], tuple[str, list[Column]]] = {}

    def find(self, schema: str, name: str) -> tuple[str, list[Column]] | None:
        """The DuckDB name and the columns of a system view; None when there is none of that name."""
        definition = self._definition(schema, name)
        if definition is None:
            return None
        place = (schema, name)
        duck = f'temp.main."_v_{schema}_{name}"'
        if self._made.get(place, ("",))[0] != definition:
            self.session.execute(f"CREATE OR REPLACE TEMP VIEW {duck.removeprefix('temp.main.')} AS {definition}")
            columns = views.COLUMNS.get(name) or [
                Column(row[0], from_duckdb(row[1])) for row in self.session.execute(f"DESCRIBE {duck}").fetchall()
            ]
            self._made[place] = (definition, columns)
        self.asked.add(place)
        return duck, self._made[place][1]

    def forget(self) -> None:
        """A rollback may have taken views away."""
        self._made.clear()

    def user_ids(self) -> dict[str, int]:
        """Name to usesysid."""
        return {user.name: _FIRST_USER + at for at, user in enumerate(self.session.namespace.people.users())}

    def user_id(self, name: str) -> int:
        return self.user_ids().get(name, 1)

    def view_definitions(self) -> dict[tuple[int, ...], str]:
        """Of the views of this database, by oid."""
        made = [one for kind in ("view", "late", "mv") for one in self._relations(kind)]
        return {(one.oid,): Body.parse(one.body).text for one in made if one.body is not None}

    def key_definitions(self) -> dict[tuple[int, ...], str]:
        """Of the primary keys of this database, by oid."""
        found: dict[tuple[int, ...], list[str]] = {}
        rows = f"SELECT oid, column_name FROM ({primary_keys(self._facts('pg_constraint'))}) ORDER BY oid, sequence"
        for oid, column in self.session.relations.rows(rows):
            found.setdefault((oid,), []).append(column)
        return {oid: f"PRIMARY KEY ({', '.join(columns)})" for oid, columns in found.items()}

    def comments(self) -> dict[tuple[int, ...], str]:
        """Of the relations and columns of this database, by oid and number of the column, 0 for the relation."""
        described = catalogue_views.VIEWS["pg_catalog", "pg_description"](self._facts("pg_description"))
        rows = self.session.relations.rows(f"SELECT objoid, objsubid, description FROM ({described})")
        return {(oid, number): comment for oid, number, comment in rows}

    def _definition(self, schema: str, name: str) -> str | None:
        session, namespace = self.session, self.session.namespace
        if schema == "pg_catalog" and name in views.COLUMNS:
            sees_all = namespace.people.sees_integrations(session.user)
            pending = session.warehouse.pending(namespace)
            usage = namespace.meter.recorded() if name == "sys_serverless_usage" else []
            return views.definition(name, namespace.databases(), pending, usage, sees_all=sees_all)
        if schema == "pg_catalog" and name == "sys_query_history":
            return self._history()
        make = catalogue_views.VIEWS.get((schema, name))
        return None if make is None else make(self._facts(name))

    def _facts(self, name: str) -> Facts:
        session, people = self.session, self.session.namespace.people
        users = people.users()
        return Facts(
            databases=session.namespace.databases(),
            current=session.database,
            user=session.user.name,
            grantees=people.grantees_of(session.user),
            everything=people.sees_integrations(session.user),
            user_ids=self.user_ids(),
            superusers={user.name for user in users if user.superuser},
            createdb={user.name for user in users if user.createdb},
            groups=people.groups(),
            roles=people.roles(),
            user_roles={user.name: user.roles for user in users},
            settings=session.settings,
            search_path=session.search_path,
            stale=self._staleness() if name in catalogue_views.WITH_STALENESS else [],
            late=self._late_columns() if name in catalogue_views.WITH_COLUMNS else [],
        )

    def _relations(self, kind: str) -> list[Relation]:
        session = self.session
        if (session.namespace.find(session.database) or {}).get("integration_id"):
            return []
        rows = session.relations.rows(
            "SELECT schema_name, relation_name, kind, owner, oid, body FROM "
            f"{session.relations.table(session.database, 'relation')} WHERE kind = $1",
            [kind],
        )
        return [Relation(session.database, *row) for row in rows]

    def _staleness(self) -> list[tuple[str, str, bool]]:
        return [(one.schema, one.name, self.session.relations.is_stale(one)) for one in self._relations("mv")]

    def _late_columns(self) -> list[tuple[str, str, str, int, bool, str, int | None, int | None]]:
        found = []
        for view in self._relations("late"):
            try:
                columns = self.session.binder.bind(
                    exp.select("*").from_(exp.to_table(quoted(view.schema, view.name)))
                ).columns
            except (SqlError, duckdb.Error):  # what it reads is not there (any more): it has no columns then
                continue
            found += [
                (view.schema, view.name, one.name, at, False, one.type.name, one.type.size, one.type.scale)
                for at, one in enumerate(columns, 1)
            ]
        return found

    def _history(self) -> str:
        session = self.session
        everything = session.namespace.people.is_superuser(session.user)
        ids = self.user_ids()
        rows = [
            (
                ids.get(one.user, 1), one.query_id, one.database, one.kind, one.status, one.pid, _moment(one.start),
                _moment(one.end), round((one.end - one.start) * 1e6), round((one.end - one.start) * 1e6), 0, one.rows,
                one.error, one.text[:4000], one.query_id, "primary", one.user, "default", False,
            )
            for one in list(session.namespace.history)
            if everything or one.user == session.user.name
        ]  # fmt: skip
        return catalogue_views.values(_HISTORY, rows)


class _moment:
    """Epoch seconds as SQL."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __str__(self) -> str:
        return f"make_timestamp({int(self.seconds * 1e6)})"
