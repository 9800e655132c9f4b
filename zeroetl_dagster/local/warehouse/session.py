"""One Redshift session: its settings and transaction, and how a statement is prepared, described and carried out.

What the statements do is in the modules of `_HANDLERS`; all of them work on the session's DuckDB cursor.
"""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb

from zeroetl_dagster.local.warehouse import dialect, errors, parameters, statements
from zeroetl_dagster.local.warehouse.binding import Binder, Bound, Catalogue
from zeroetl_dagster.local.warehouse.dialect import Statement, literal, quoted
from zeroetl_dagster.local.warehouse.errors import SqlError
from zeroetl_dagster.local.warehouse.people import User
from zeroetl_dagster.local.warehouse.relations import Column, Relations
from zeroetl_dagster.local.warehouse.rights import Rights
from zeroetl_dagster.local.warehouse.session_functions import session_functions
from zeroetl_dagster.local.warehouse.storage import Namespace, Query, Warehouse
from zeroetl_dagster.local.warehouse.system_views import SystemViews

if TYPE_CHECKING:
    from sqlglot import exp

_READING = frozenset("query declare fetch close show set begin commit rollback noop".split())
_QUERY_IDS = itertools.count(1000)
_REMEMBERED = 300  # bound statements
_BATCH = 10_000  # rows in memory at a time


class Rows:
    """A query's rows as DuckDB computes them: read once, before the session's next statement. `count` are those read
    so far."""

    def __init__(self, source: duckdb.DuckDBPyConnection) -> None:
        self._source, self.count = source, 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while batch := self._source.fetchmany(_BATCH):
            self.count += len(batch)
            yield from batch


@dataclass(frozen=True)
class Result:
    """`columns` is None where a statement returns no rows; the `tag` of rows still to be read lacks their number."""

    tag: str
    columns: list[Column] | None = None
    rows: Rows | Sequence[tuple[Any, ...]] = ()
    count: int = 0  # of rows, once they were read

    def collected(self) -> Result:
        """With its rows in memory, or without those that were read already."""
        if not isinstance(self.rows, Rows):
            return replace(self, count=len(self.rows))
        kept = list(self.rows)
        return Result(f"{self.tag} {self.rows.count}", self.columns, kept, self.rows.count)


@dataclass
class Cursor:
    """A cursor that DECLARE has opened."""

    columns: list[Column]
    rows: Sequence[tuple[Any, ...]]
    at: int = 0


@dataclass
class _Remembered:
    version: int
    bound: Bound
    views: tuple[tuple[str, str], ...] = ()


Handler = Callable[["Session", Statement, Sequence[Any]], Result]
Deliver = Callable[[Result], None]


class Session:
    """Not for several threads, but `interrupt` may be called from another one."""

    def __init__(
        self, warehouse: Warehouse, namespace: Namespace, user: User, database: str, settings: dict[str, str], pid: int
    ) -> None:
        if namespace.find(database) is None:
            raise SqlError("3D000", f'database "{database}" does not exist')
        self.warehouse, self.namespace, self.database, self.pid = warehouse, namespace, database, pid
        self.login = user  # who is logged in; `user` is who is acting (SET SESSION AUTHORIZATION)
        self.user = user
        self.defaults = {**parameters.DEFAULTS, **settings}
        self.settings = dict(self.defaults)
        self.in_transaction = self.failed = self.read_only = False
        self.query_id = -1
        self.cursors: dict[str, Cursor] = {}
        self.cursor = namespace.cursor()
        self.cursor.execute(f"USE {quoted(database, 'public')}")
        self.cursor.execute("SET VARIABLE last_query_id = -1")
        self.relations = Relations(self.cursor, namespace)
        self.system_views = SystemViews(self)
        self._bound: dict[tuple[Any, ...], _Remembered] = {}
        self._samples: Sequence[Any] = ()

    # ---- who and where -----------------------------------------------------------------------------------------------

    @property
    def case_sensitive(self) -> bool:
        return self.settings["enable_case_sensitive_identifier"].lower() in ("true", "on", "1")

    @property
    def search_path(self) -> tuple[str, ...]:
        parts = [part.strip() for part in self.settings["search_path"].split(",") if part.strip()]
        names = [part.strip("\"'") if part[:1] in "\"'" else part.lower() for part in parts]
        return tuple(self.user.name if name == "$user" else name for name in names)

    @property
    def rights(self) -> Rights:
        return Rights(self.relations, self.namespace.people, self.user)

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.relations, self.database, self.search_path, self.system_views.find)

    @property
    def binder(self) -> Binder:
        return Binder(self.catalogue, self.user.name, session_functions(self), self.describe_sql)

    # ---- statements --------------------------------------------------------------------------------------------------

    def prepare(self, text: str) -> Statement:
        return statements.read(text, self.case_sensitive)

    def describe(self, statement: Statement, samples: Sequence[Any] = ()) -> list[Column] | None:
        """The columns that the statement will return; `samples` are values of its parameters' types, as far as they are
        known."""
        if not statement.returns_rows:
            return None
        if self.failed:
            raise _aborted()
        if statement.kind == "query":
            assert statement.tree is not None
            return self.bind(statement, statement.tree.copy, samples).columns
        if statement.kind == "fetch":
            found = self.cursors.get(statement.args["name"])
            return found.columns if found is not None else []
        return self._handler(statement.kind)(self, statement, samples).columns

    def run(self, statement: Statement, params: Sequence[Any] = (), deliver: Deliver | None = None) -> Result:
        """The result with its rows; with `deliver`, which reads them as they come, without.

        Raises `SqlError`; inside a transaction every later statement fails until its end (25P02)."""
        began, query_id = time.time(), next(_QUERY_IDS)
        status, error, rows = "success", "", 0
        try:
            result = self._run(statement, params, query_id, deliver)
            rows = result.count
            return result
        except OSError:
            status, error = "canceled", "the client has gone"
            raise
        except SqlError as refused:
            status, error = "canceled" if refused.code == "57014" else "failed", str(refused)
            raise
        finally:
            ended = time.time()
            self.namespace.meter.busy(began, ended)
            self.namespace.history.append(
                Query(query_id, self.user.name, self.database, statement.tag, status, statement.text or statement.tag,
                      began, ended, rows, error, self.pid)
            )  # fmt: skip

    def _run(self, statement: Statement, params: Sequence[Any], query_id: int, deliver: Deliver | None) -> Result:
        if self.failed and statement.kind not in ("rollback", "commit"):
            raise _aborted()
        if self.read_only and statement.kind not in _READING:
            raise SqlError("25006", f"transaction is read-only: {statement.tag} is not allowed in it")
        self.user = self.namespace.people.user(self.user.name) or self.user
        self._samples = params
        try:
            result = self._handler(statement.kind)(self, statement, params)
            if deliver is not None:
                deliver(result)
            result = result.collected()
        except SqlError:
            self.abort()
            raise
        except duckdb.Error as error:
            self.abort()
            raise errors.explained(error, query_id) from None
        if statement.kind not in ("set", "show", "begin", "commit", "rollback", "noop"):
            self.query_id = query_id
        return result

    def _handler(self, kind: str) -> Handler:
        if not _HANDLERS:
            _HANDLERS.update(_collected())
        return _HANDLERS[kind]

    def interrupt(self) -> None:
        self.cursor.interrupt()

    def close(self) -> None:
        if self.in_transaction and not self.failed:
            self.cursor.rollback()
        self.cursor.close()

    # ---- DuckDB ------------------------------------------------------------------------------------------------------

    def execute(self, sql: str, params: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        return self.cursor.execute(sql, list(params)) if params else self.cursor.execute(sql)

    def describe_sql(self, sql: str) -> list[tuple[str, str]]:
        """Names and DuckDB's types of a query's columns."""
        count = dialect.placeholders(sql)
        given = [*self._samples[:count], *[None] * (count - len(self._samples))]
        return [(row[0], row[1]) for row in self.execute(f"DESCRIBE {sql}", given).fetchall()]

    def bind(
        self,
        statement: Statement,
        tree: Callable[[], exp.Expr],
        samples: Sequence[Any],
        make: Callable[[exp.Expr], Bound] | None = None,
    ) -> Bound:
        """The statement bound, remembered until the catalogue or the session's settings change."""
        key = (statement.text, self.user.name, *(_kind(one) for one in samples))
        self._samples = samples
        known = self._bound.get(key)
        if known is not None and known.version == self.namespace.version and not self.in_transaction:
            for place in known.views:
                self.system_views.find(*place)
            return known.bound
        self.system_views.asked.clear()
        try:
            bound = (make or self.binder.bind)(tree())
        except duckdb.Error as error:
            raise errors.explained(error, self.query_id) from None
        if len(self._bound) > _REMEMBERED:
            self._bound.clear()
        self._bound[key] = _Remembered(self.namespace.version, bound, tuple(self.system_views.asked))
        return bound

    def check(self, bound: Bound) -> None:
        """Whether the user may do it, and whether what is read can be read. Raises `SqlError`."""
        rights = self.rights
        for use in bound.uses:
            if use.privilege is not None:
                rights.need_relation(use.relation, use.privilege)
            if use.relation.state is not None:
                self._check_replicated(use.relation.key)

    def _check_replicated(self, key: tuple[str, str, str]) -> None:
        now = self.relations.find(*key)
        if now is None:
            raise SqlError("42P01", f'relation "{".".join(key)}" does not exist')
        if not now.readable:
            raise SqlError(
                "XX000",
                f"Table {now.schema}.{now.name} of the zero-ETL integration's database {now.database} is in state "
                f"{now.state} and cannot be queried: only Synced tables can. Its reason is in "
                f"SVV_INTEGRATION_TABLE_STATE; ALTER DATABASE {now.database} INTEGRATION SET QUERY_ALL_STATES = TRUE "
                "lets it be read as it is",
            )

    def forget_bound(self) -> None:
        """After a change of the session's settings."""
        self._bound.clear()

    def catalogue_changed(self) -> None:
        """After DDL and GRANT, of this session or, once committed, of any."""
        self.namespace.version += 1

    # ---- transactions ------------------------------------------------------------------------------------------------

    @contextmanager
    def block(self) -> Iterator[None]:
        """One transaction around several DuckDB statements, unless the session is in one already."""
        if self.in_transaction:
            yield
            return
        self.cursor.begin()
        try:
            yield
        except BaseException:
            self.cursor.rollback()
            self.undone()
            raise
        self.cursor.commit()

    def abort(self) -> None:
        """An error inside a transaction block ends it; only ROLLBACK is answered then."""
        if self.in_transaction and not self.failed:
            self.failed = True
            self.cursor.rollback()
            self.undone()

    def undone(self) -> None:
        """What a rollback has taken back is not to be trusted any more."""
        self.system_views.forget()
        self.forget_bound()
        self.catalogue_changed()
        rows = self.relations.rows("SELECT table_name FROM duckdb_tables() WHERE temporary AND database_name = 'temp'")
        self.relations.temporary = {name for (name,) in rows}


def _kind(value: Any) -> Any:
    """What of a parameter decides what a statement means: its type, of a decimal its digits too."""
    if isinstance(value, Decimal):
        parts = value.as_tuple()
        return Decimal, len(parts.digits), parts.exponent
    if isinstance(value, dt.datetime):
        return dt.datetime, value.tzinfo is None
    return type(value)


def _aborted() -> SqlError:
    return SqlError("25P02", "current transaction is aborted, commands ignored until end of transaction block")


# ---- statements of the session itself --------------------------------------------------------------------------------


def _begin(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    if not session.in_transaction:
        session.cursor.begin()
        session.in_transaction = True
        session.read_only = statement.args["read_only"]
    return Result("BEGIN")


def _commit(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    if session.failed:
        return _rollback(session, statement, _)
    if session.in_transaction:
        session.in_transaction = session.read_only = False
        session.cursors.clear()
        session.cursor.commit()
        session.catalogue_changed()
    return Result("COMMIT")


def _rollback(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    if session.in_transaction and not session.failed:
        session.cursor.rollback()
        session.undone()
    session.in_transaction = session.failed = session.read_only = False
    session.cursors.clear()
    return Result("ROLLBACK")


def _set(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    name, value = statement.args["name"], statement.args["value"]
    parameters.need(name)
    if value is None or value.upper() == "DEFAULT":
        value = session.defaults.get(name, "")
    if name == "timezone":
        session.execute(f"SET TimeZone = {literal(value)}")
    session.settings[name] = value
    session.forget_bound()
    return Result(statement.tag)


def _noop(session: Session, statement: Statement, _: Sequence[Any]) -> Result:
    return Result(statement.tag)


def _collected() -> Mapping[str, Handler]:
    from zeroetl_dagster.local.warehouse import databases, principals, queries, show, tables, view_statements

    found: dict[str, Handler] = {
        "begin": _begin, "commit": _commit, "rollback": _rollback, "set": _set, "noop": _noop
    }  # fmt: skip
    for module in (databases, principals, queries, show, tables, view_statements):
        found |= module.HANDLERS
    return found


_HANDLERS: dict[str, Handler] = {}
