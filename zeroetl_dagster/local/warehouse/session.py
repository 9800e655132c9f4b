"""One Redshift session: carries out translated statements on the namespace's DuckDB, within the user's rights."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from zeroetl_dagster.local.warehouse import dialect, views
from zeroetl_dagster.local.warehouse.dialect import SqlError, Statement, quoted
from zeroetl_dagster.local.warehouse.storage import Namespace, User, Warehouse

_QUERY_IDS = itertools.count(1000)
_ERRORS = [
    (duckdb.ParserException, "42601"),
    (duckdb.BinderException, "42703"),
    (duckdb.CatalogException, "42P01"),
    (duckdb.ConversionException, "22018"),
    (duckdb.OutOfRangeException, "22003"),
    (duckdb.ConstraintException, "23505"),
]

_TARGET = re.compile(
    r"\s*(?:INSERT INTO|UPDATE|DELETE FROM|(?:CREATE|DROP|ALTER|TRUNCATE) \w+)\s+(?:IF (?:NOT )?EXISTS\s+)?"
    r'"?([^".\s]+)"?\."?[^".]+"?\.'
)

_MACROS = {
    "getdate()": "CAST(now() AS TIMESTAMP)",
    "from_base(s, b)": "list_reduce(list_transform(string_split(lower(s), ''), "
    "c -> CAST(strpos('0123456789abcdefghijklmnopqrstuvwxyz', c) - 1 AS BIGINT)), (a, d) -> a * b + d)",
    "_redshift_avg(average, sample)": "CASE WHEN typeof(sample) IN ('TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT') "
    "THEN trunc(average) ELSE average END",
}


@dataclass(frozen=True)
class Result:
    """`columns` (name, DuckDB type) is None where a statement returns no rows."""

    tag: str
    columns: list[tuple[str, str]] | None = None
    rows: Sequence[tuple[Any, ...]] = ()


class Session:
    """Not for several threads, but `interrupt` may be called from another one."""

    def __init__(
        self, warehouse: Warehouse, namespace: Namespace, user: User, database: str, settings: dict[str, str], pid: int
    ) -> None:
        if namespace.find(database) is None:
            raise SqlError("3D000", f'database "{database}" does not exist')
        self.warehouse, self.namespace, self.user, self.database, self.pid = warehouse, namespace, user, database, pid
        self.settings = dict(settings)
        self.in_transaction = self.failed = False
        self.last_query_id = -1
        self._views: dict[str, str] = {}
        self.cursor = namespace.cursor()
        self.cursor.execute(f"USE {quoted(database, 'public')}")
        self._functions()

    @property
    def case_sensitive(self) -> bool:
        return self.settings.get("enable_case_sensitive_identifier", "false").lower() in ("true", "on", "1")

    def prepare(self, text: str) -> Statement:
        return dialect.translate(text, user=self.user.name, case_sensitive=self.case_sensitive)

    def describe(self, statement: Statement, samples: Sequence[Any] = ()) -> list[tuple[str, str]] | None:
        """Column names and DuckDB types of what the statement will return; `samples` are values of its parameters'
        types, as far as they are known."""
        if not statement.returns_rows:
            return None
        self._refresh_views()
        count = dialect.placeholders(statement.sql)
        given = [*samples[:count], *[None] * (count - len(samples))]
        rows = self._duck(f"DESCRIBE {self._own(statement.sql)}", given).fetchall()
        return [(row[0], row[1]) for row in rows]

    def run(self, statement: Statement, params: Sequence[Any] = ()) -> Result:
        """Raises `SqlError`; inside a transaction every later statement fails until its end (25P02)."""
        began = time.time()
        try:
            return self._run(statement, params)
        finally:
            self.namespace.meter.busy(began)

    def _run(self, statement: Statement, params: Sequence[Any]) -> Result:
        if self.failed and statement.kind not in ("rollback", "commit"):
            raise SqlError("25P02", "current transaction is aborted, commands ignored until end of transaction block")
        try:
            return self._carry_out(statement, params)
        except SqlError:
            self.abort()
            raise
        except duckdb.Error as error:
            self.abort()
            raise self.explained(error) from None

    def interrupt(self) -> None:
        self.cursor.interrupt()

    def close(self) -> None:
        if self.in_transaction and not self.failed:
            self.cursor.rollback()
        self.cursor.close()

    def _carry_out(self, statement: Statement, params: Sequence[Any]) -> Result:
        handler: Callable[[Statement], Result] | None = getattr(self, f"_{statement.kind}", None)
        if statement.kind == "query":
            return self._select(statement, params)
        if handler is not None:
            return handler(statement)
        self._check_writable(statement.sql)
        cursor = self._duck(self._own(statement.sql), params)
        rows = cursor.fetchall() if cursor.description else []
        count = rows[0][0] if rows and isinstance(rows[0][0], int) else 0
        tag = {"INSERT": f"INSERT 0 {count}", "UPDATE": f"UPDATE {count}", "DELETE": f"DELETE {count}"}
        return Result(tag.get(statement.tag.split(" ")[0], statement.tag))

    def _select(self, statement: Statement, params: Sequence[Any]) -> Result:
        self._refresh_views(statement.sql)
        cursor = self._duck(self._own(statement.sql), params)
        columns = [(column[0], str(column[1])) for column in cursor.description or ()]
        self.last_query_id = next(_QUERY_IDS)
        rows = cursor.fetchall()
        return Result(f"SELECT {len(rows)}", columns, rows)

    def _begin(self, _: Statement) -> Result:
        if not self.in_transaction:
            self.cursor.begin()
            self.in_transaction = True
        return Result("BEGIN")

    def _commit(self, _: Statement) -> Result:
        if self.failed:
            return self._rollback(_)
        if self.in_transaction:
            self.in_transaction = False
            self.cursor.commit()
        return Result("COMMIT")

    def _rollback(self, _: Statement) -> Result:
        if self.in_transaction and not self.failed:
            self.cursor.rollback()
        self.in_transaction = self.failed = False
        return Result("ROLLBACK")

    def _set(self, statement: Statement) -> Result:
        self.settings[statement.args["name"]] = statement.args["value"]
        return Result("SET")

    def _noop(self, statement: Statement) -> Result:
        return Result(statement.tag)

    _grant = _noop

    def _create_database(self, statement: Statement) -> Result:
        self._not_in_transaction("CREATE DATABASE")
        if not (self.user.superuser or self.user.createdb):
            raise SqlError("42501", "permission denied to create database")
        name, integration_id = statement.args["name"], statement.args.get("integration")
        if integration_id is None:
            self.namespace.create_database(name, owner=self.user.name)
            return Result(statement.tag)
        self._create_from_integration(name, integration_id, statement)
        return Result(statement.tag)

    def _create_from_integration(self, name: str, integration_id: str, statement: Statement) -> None:
        found = self.warehouse.integrations.get(integration_id)
        inbound = {one.integration_id for one in self.warehouse.integrations.inbound(self.namespace.namespace_id)}
        if found is None or integration_id not in inbound:
            raise SqlError("XX000", f"Integration {integration_id} does not exist")
        if found.status != "active":
            raise SqlError("XX000", f"Integration {integration_id} is not active (its status is {found.status})")
        source, options = statement.args["source_database"], statement.args["options"]
        if found.engine == "PostgreSQL" and source is None:
            raise SqlError("42601", "DATABASE must be specified for an integration with a PostgreSQL source")
        more = {"integration_id": integration_id, "engine": found.engine, "source_database": source}
        self.namespace.create_database(name, owner=self.user.name, options=options, **more)
        try:
            with _refusing():
                self.warehouse.replicator.attach(self.namespace, name, integration_id, source, options)
        except Exception:
            self.namespace.drop_database(name)
            raise

    def _drop_database(self, statement: Statement) -> Result:
        self._not_in_transaction("DROP DATABASE")
        name = statement.args["name"][0]
        doc = self.namespace.find(name)
        if doc is None:
            if statement.args["if_exists"]:
                return Result(statement.tag)
            raise SqlError("3D000", f'database "{name}" does not exist')
        self._require_owner(doc)
        if doc.get("integration_id"):
            self.warehouse.replicator.detach(self.namespace.namespace_id, doc["name"])
        self.namespace.drop_database(doc["name"])
        return Result(statement.tag)

    def _alter_integration(self, statement: Statement) -> Result:
        doc = self.namespace.find(statement.args["name"])
        if doc is None or not doc.get("integration_id"):
            raise SqlError("3D000", f'database "{statement.args["name"]}" is not created from an integration')
        self._require_owner(doc)
        replicator, where = self.warehouse.replicator, (self.namespace.namespace_id, doc["name"])
        if statement.args["action"] == "set":
            with _refusing():
                replicator.set_options(*where, statement.args["options"])
            doc["options"] = {**doc.get("options", {}), **statement.args["options"]}
            self.namespace.store.put("warehouse.database", "/".join(where), doc)
        else:
            from zeroetl_dagster.local.stream.replicator import Refresh

            scope = Refresh(
                statement.args["scope"],
                tuple(statement.args.get("schemas", ())),
                tuple(tuple(name) for name in statement.args.get("tables", ())),
            )
            replicator.refresh(*where, scope)
        return Result(statement.tag)

    def _create_mv(self, statement: Statement) -> Result:
        schema, name = self._place(statement.args["name"])
        body = self.prepare(statement.args["body"])
        if not body.returns_rows:
            raise SqlError("42601", "a materialized view is made of a SELECT")
        with _Block(self):
            self._refresh_views()
            self._duck(f"CREATE TABLE {quoted(self.database, schema, name)} AS {self._own(body.sql)}")
            self._remember(schema, name, "mv", statement.args["body"])
        return Result(statement.tag)

    def _refresh_mv(self, statement: Statement) -> Result:
        schema, name = self._place(statement.args["name"])
        body = self.prepare(self._body(schema, name))
        with _Block(self):
            self._refresh_views()
            target = quoted(self.database, schema, name)
            self._duck(f"DELETE FROM {target}")
            self._duck(f"INSERT INTO {target} {self._own(body.sql)}")
        self.last_query_id = next(_QUERY_IDS)
        return Result(statement.tag)

    def _drop_mv(self, statement: Statement) -> Result:
        schema, name = self._place(statement.args["name"])
        try:
            self._body(schema, name)
        except SqlError:
            if statement.args["if_exists"]:
                return Result(statement.tag)
            raise
        with _Block(self):
            self._duck(f"DROP TABLE {quoted(self.database, schema, name)}")
            self._duck(f"DELETE FROM {self._objects()} WHERE schema_name = ? AND relation_name = ?", [schema, name])
        return Result(statement.tag)

    def _create_view(self, statement: Statement) -> Result:
        schema, name = self._place(statement.args["name"])
        body = self.prepare(statement.args["body"])
        replace = "OR REPLACE " if statement.args["replace"] else ""
        self._duck(f"CREATE {replace}VIEW {quoted(self.database, schema, name)} AS {self._own(body.sql)}")
        return Result(statement.tag)

    def _comment(self, statement: Statement) -> Result:
        if statement.args["on"] in ("TABLE", "VIEW"):
            schema, name = self._place(statement.args["name"])
            self._duck(
                f"INSERT INTO {self._objects()} VALUES (?, ?, 'comment', NULL, ?) "
                "ON CONFLICT (schema_name, relation_name) DO UPDATE SET comment = excluded.comment",
                [schema, name, statement.args["text"]],
            )
        return Result("COMMENT")

    def _user(self, statement: Statement) -> Result:
        if not self.user.superuser:
            raise SqlError("42501", "permission denied to create or alter users")
        args = statement.args
        found = self.namespace.user(args["name"])
        if args["create"] and found:
            raise SqlError("42710", f'user "{args["name"]}" already exists')
        if args["password"]:
            self.namespace.set_password(args["name"], args["password"], superuser=None, expires_at=None)
        elif found is None:  # PASSWORD DISABLE: only temporary passwords open it
            self.namespace.put_user(User(args["name"], "", ""))
        user = self.namespace.user(args["name"])
        assert user is not None
        user.superuser = user.superuser if args["superuser"] is None else args["superuser"]
        user.createdb = user.createdb if args["createdb"] is None else args["createdb"]
        self.namespace.put_user(user)
        return Result(statement.tag)

    def _grant_role(self, statement: Statement) -> Result:
        if not self.user.superuser:
            raise SqlError("42501", "permission denied to grant roles")
        user = self.namespace.user(statement.args["to"])
        if user is None:
            raise SqlError("42704", f'user "{statement.args["to"]}" does not exist')
        role = statement.args["role"]
        user.roles = [r for r in user.roles if r != role] + ([role] if statement.args["grant"] else [])
        self.namespace.put_user(user)
        return Result(statement.tag)

    def _body(self, schema: str, name: str) -> str:
        row = self._duck(
            f"SELECT body FROM {self._objects()} WHERE schema_name = ? AND relation_name = ? AND kind = 'mv'",
            [schema, name],
        ).fetchone()
        if row is None:
            raise SqlError("42P01", f'materialized view "{name}" does not exist')
        return str(row[0])

    def _remember(self, schema: str, name: str, kind: str, body: str) -> None:
        self._duck(f"INSERT OR REPLACE INTO {self._objects()} VALUES (?, ?, ?, ?, NULL)", [schema, name, kind, body])

    def _objects(self) -> str:
        return quoted(self.database, "_zeroetl", "relation")

    def _place(self, name: tuple[str, ...]) -> tuple[str, str]:
        if len(name) == 3 and name[0] != self.database:
            raise SqlError("0A000", "cross-database reference is for reading only")
        return (name[-2] if len(name) > 1 else "public"), name[-1]

    def _check_writable(self, sql: str) -> None:
        for doc in self.namespace.database_docs():
            if not doc.get("integration_id"):
                continue
            target = _TARGET.match(sql)
            if doc["name"] == self.database or (target and target[1] == doc["name"]):
                raise SqlError("25006", f'database "{doc["name"]}" is created from an integration: it is read-only')

    def _require_owner(self, doc: dict[str, Any]) -> None:
        if not self.user.superuser and doc.get("owner") != self.user.name:
            raise SqlError("42501", f'must be owner of database "{doc["name"]}"')

    def _not_in_transaction(self, what: str) -> None:
        if self.in_transaction:
            raise SqlError("25001", f"{what} cannot run inside a transaction block")

    def _duck(self, sql: str, params: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        return self.cursor.execute(sql, list(params)) if params else self.cursor.execute(sql)

    def _own(self, sql: str) -> str:
        return sql

    def _functions(self) -> None:
        """Functions that DuckDB has not, as macros of this session."""
        for signature, body in {"pg_backend_pid()": str(self.pid), **_MACROS}.items():
            self.cursor.execute(f"CREATE OR REPLACE TEMP MACRO {signature} AS {body}")

    def _refresh_views(self, sql: str = "") -> None:
        """Make the system views anew where the set of databases, integrations or rights changed."""
        self.user = self.namespace.user(self.user.name) or self.user
        self.cursor.execute(f"CREATE OR REPLACE TEMP MACRO pg_last_query_id() AS {self.last_query_id}")
        people = [(user.name, 100 + n, user.superuser) for n, user in enumerate(self.namespace.users())]
        wanted = views.definitions(
            self.namespace.databases(),
            self.warehouse.pending(self.namespace),
            current=self.database,
            sees_all=self.user.sees_integrations,
            users=people,
            usage=self.namespace.meter.recorded() if "_v_sys_serverless_usage" in sql else [],
        )
        for name, sql in wanted.items():
            if self._views.get(name) != sql:
                self.cursor.execute(f"CREATE OR REPLACE TEMP VIEW _v_{name} AS {sql}")
                self._views[name] = sql

    def abort(self) -> None:
        """An error inside a transaction block ends it; only ROLLBACK is answered then."""
        if self.in_transaction and not self.failed:
            self.failed = True
            self.cursor.rollback()

    def explained(self, error: duckdb.Error) -> SqlError:
        text = str(error).splitlines()[0]
        code = next((code for kind, code in _ERRORS if isinstance(error, kind)), "XX000")
        if isinstance(error, duckdb.InterruptException):
            return SqlError("57014", "Query (1) cancelled on user's request")
        if "onflict" in text and isinstance(error, duckdb.TransactionException):
            return SqlError("40001", f"1023 DETAIL: Serializable isolation violation: {text}")
        return SqlError(code, text)


@contextmanager
def _refusing() -> Iterator[None]:
    """What the replicator does not take (`stream.replicator.OptionError` and its like) is an error of the statement."""
    try:
        yield
    except ValueError as error:
        raise SqlError("22023", str(error)) from None


class _Block:
    """One transaction around several DuckDB statements, unless the session is in one already."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.own = not session.in_transaction

    def __enter__(self) -> None:
        if self.own:
            self.session.cursor.begin()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.own:
            self.session.cursor.commit() if kind is None else self.session.cursor.rollback()
