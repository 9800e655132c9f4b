"""A small stand-in for a Redshift session: it keeps a catalogue, refuses what Redshift refuses, and remembers.

It understands the statements of `marts.redshift` and no others. Rows are not kept: a relation holds the SQL it was made
from, and how often it was refreshed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field

from zeroetl_dagster.connections.redshift import RedshiftDenied, RedshiftSqlError, Rows

_NAME = r'"(\w+)"\."(\w+)"'


@dataclass
class FakeRelation:
    kind: str
    sql: str
    comment: str | None = None
    state: int = 1
    refreshes: int = 0
    readers: list[str] = field(default_factory=list)


class FakeSession:
    def __init__(self) -> None:
        self.relations: dict[str, FakeRelation] = {}
        self.schemas: set[str] = set()
        self.statements: list[str] = []
        self.log: list[str] = []  # statements, with BEGIN, COMMIT and ROLLBACK between them
        self.fail: Callable[[str], Exception | None] = lambda sql: None
        self.mv_ddl_in_transaction = True
        self.integration_views: list[tuple[object, ...]] | None = []  # None: not permitted
        self.rows = 7
        self._in_transaction = False

    def query(self, sql: str, params: Sequence[object] = ()) -> Rows:
        if error := self.fail(sql):
            raise error
        if sql == "SELECT current_database()":
            return Rows(("current_database",), [("dev",)])
        if "FROM pg_namespace" in sql:
            return Rows(("?column?",), [(1,)] if params[0] in self.schemas else [])
        if "FROM pg_class" in sql:
            found = self.relations.get(str(params[1]))
            kind = "r" if found and found.kind == "table" else "v"
            return Rows(("relkind", "description"), [(kind, found.comment)] if found else [])
        if "FROM svv_mv_info" in sql:
            assert params[0] == "dev"
            found = self.relations.get(str(params[2]))
            return Rows(("state",), [(found.state,)] if found and found.kind == "materialized view" else [])
        if "svv_integration_table_state" in sql:
            if self.integration_views is None:
                raise RedshiftDenied("permission denied for svv_integration_table_state")
            return Rows(tuple("abcde"), list(self.integration_views))
        if "FROM svv_columns" in sql:
            return Rows(
                tuple("abcde"), [("x" + " " * 9, "integer", None, 32, 0), ("y", "character varying", 30, None, None)]
            )
        if sql.startswith("SELECT COUNT(*)"):
            return Rows(("count",), [(self.rows,)])
        raise AssertionError(sql)

    def execute(self, sql: str, params: Sequence[object] = ()) -> int:
        assert not params
        self.log.append(sql)
        if error := self.fail(sql):
            raise error
        if self._in_transaction and not self.mv_ddl_in_transaction and "MATERIALIZED VIEW" in sql[:30]:
            raise RedshiftSqlError(f"{sql[:25]} cannot run inside a transaction block", "25001")
        self._apply(sql)
        self.statements.append(sql)
        return -1

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.log.append("BEGIN")
        before, done = deepcopy(self.relations), list(self.statements)
        self._in_transaction = True
        try:
            yield
        except BaseException:
            self.relations, self.statements = before, done
            self.log.append("ROLLBACK")
            raise
        finally:
            self._in_transaction = False
        self.log.append("COMMIT")

    def query_id(self) -> str | None:
        return str(len(self.statements))

    def _apply(self, sql: str) -> None:
        if found := re.match(r'CREATE SCHEMA IF NOT EXISTS "(\w+)"', sql):
            self.schemas.add(found[1])
        elif found := re.match(rf"CREATE (MATERIALIZED VIEW|VIEW|TABLE) {_NAME}.*? AS\n(.*)", sql, re.S):
            self._must(found[3] not in self.relations, f'relation "{found[3]}" already exists', "42P07")
            self.relations[found[3]] = FakeRelation(found[1].lower(), found[4])
        elif found := re.match(rf"DROP (MATERIALIZED VIEW|VIEW|TABLE) (IF EXISTS )?{_NAME}", sql):
            self._drop(found[1].lower(), found[4], missing_ok=bool(found[2]))
        elif found := re.match(rf'ALTER TABLE {_NAME} RENAME TO "(\w+)"', sql):
            self._must(found[3] not in self.relations, f'relation "{found[3]}" already exists', "42P07")
            self.relations[found[3]] = self.relations.pop(found[2])
        elif found := re.match(rf"COMMENT ON (VIEW|TABLE) {_NAME} IS '(.*)'", sql):
            self.relations[found[3]].comment = found[4].replace("''", "'")
        elif found := re.match(rf"REFRESH MATERIALIZED VIEW {_NAME}", sql):
            self.relations[found[2]].refreshes += 1
        elif found := re.match(rf"GRANT SELECT ON {_NAME} TO (.*)", sql):
            readers = self.relations[found[2]].readers
            readers += [found[3]] if found[3] not in readers else []
        else:
            assert sql.startswith("GRANT USAGE"), sql

    def _drop(self, kind: str, name: str, *, missing_ok: bool) -> None:
        found = self.relations.get(name)
        if found is None:
            self._must(missing_ok, f'relation "{name}" does not exist', "42P01")
            return
        self._must(found.kind == kind, f'"{name}" is not a {kind}', "42809")
        holds = [n for n, r in self.relations.items() if r.kind == "materialized view" and f'."{name}"' in r.sql]
        self._must(not holds, f"cannot drop {kind} {name} because other objects depend on it", "2BP01")
        del self.relations[name]

    @staticmethod
    def _must(condition: bool, message: str, code: str) -> None:
        if not condition:
            raise RedshiftSqlError(message, code)
