"""One PostgreSQL server for the folder's tests, a database each, and DuckDB as the warehouse gives it."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.integration import InboundIntegration
from zeroetl_dagster.local.postgres import PostgresServers
from zeroetl_dagster.local.postgres_files import remove_outside
from zeroetl_dagster.local.stream.replicator import Refresh, Replicator
from zeroetl_dagster.local.stream.sql import identifier, qualified
from zeroetl_dagster.local.supervisor import free_port

CLUSTER = "123456789012/ap-northeast-1/source"
TARGET = 'Zetl "db".é'
TIMEOUT_SECONDS = 30.0
_numbers = itertools.count(1)


def eventually(what: Callable[[], Any], seconds: float = TIMEOUT_SECONDS) -> Any:
    """What `what` returns, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return found


@dataclass(frozen=True)
class Source:
    """A database of the test's own."""

    servers: PostgresServers
    database: str

    def connect(self) -> Any:
        return psycopg2.connect(**self.servers.dsn(CLUSTER, self.database))

    def run(self, *statements: str) -> None:
        """Each in a transaction of its own."""
        with closing(self.connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)

    def together(self, *statements: str) -> None:
        """All in one transaction."""
        with closing(self.connect()) as connection, connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


class Meter:
    def busy(self, start: float, end: float | None = None) -> None:
        assert start <= (end or time.time())


class Namespace:
    """What the warehouse hands to the replicator: a DuckDB instance with the database attached."""

    namespace_id = "namespace"
    meter = Meter()

    def __init__(self, path: Path) -> None:
        self.instance = duckdb.connect()
        self.instance.execute(f"ATTACH '{path}' AS {identifier(TARGET)}")

    def cursor(self) -> Any:
        cursor = self.instance.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        return cursor


@dataclass
class OneIntegration:
    """The control plane's view, which a test may change."""

    now: InboundIntegration | None

    def get(self, integration_id: str) -> InboundIntegration | None:
        return self.now


@dataclass
class Replicated:
    """A source and what replicates it."""

    source: Source
    path: Path
    integration: OneIntegration
    namespace: Namespace
    replicator: Replicator
    health: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    _marker: int = 0

    @property
    def integration_id(self) -> str:
        return (
            "11111111-2222-3333-4444-555555555555"
            if self.integration.now is None
            else self.integration.now.integration_id
        )

    def attach(self, **options: Any) -> None:
        self.replicator.attach(self.namespace, TARGET, self.integration_id, self.source.database, options)

    def start(self, **options: Any) -> None:
        """Attach, and wait until everything there is seeded."""
        self.source.run("CREATE TABLE IF NOT EXISTS public.marker (id int PRIMARY KEY)")
        self.attach(**options)
        eventually(lambda: self.state() == "CdcRefreshState")

    def restart(self) -> None:
        """As after the end of the server process."""
        self.replicator.stop()
        self.namespace.instance.close()
        self.namespace = Namespace(self.path)
        self.replicator = Replicator(self.source.servers, self.integration)
        self.attach()

    def change(self, **what: Any) -> None:
        """Change the integration at the control plane."""
        assert self.integration.now is not None
        self.integration.now = replace(self.integration.now, **what)
        self.replicator.integration_changed(self.integration_id)

    def settle(self) -> None:
        """Wait until all that is committed at the source is here."""
        self._marker += 1
        self.source.run(f"INSERT INTO public.marker VALUES ({self._marker})")
        query = f"SELECT count(*) FROM {qualified(TARGET, 'public', 'marker')} WHERE id = {self._marker}"
        eventually(lambda: self.ask(query) == [(1,)])

    def refresh(self, *tables: tuple[str, str], scope: str = "TABLE", schemas: tuple[str, ...] = ()) -> None:
        self.replicator.refresh("namespace", TARGET, Refresh(scope, schemas, tables))

    def set_options(self, **options: Any) -> None:
        self.replicator.set_options("namespace", TARGET, options)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(self.namespace.cursor()) as cursor:
            rows: list[tuple[Any, ...]] = cursor.execute(query).fetchall()
            return rows

    def look(self, columns: str, table: str, more: str = "") -> list[tuple[Any, ...]]:
        """From a table of `_zeroetl`."""
        return self.ask(f"SELECT {columns} FROM {qualified(TARGET, '_zeroetl', table)} {more}")

    def state(self) -> str:
        return str(self.look("state", "integration")[0][0])

    def states(self) -> dict[str, str]:
        """Table states by "schema.table", but the marker's."""
        return {f"{s}.{t}": state for s, t, state in self.look("schema_name, table_name, table_state", "table_state")
                if t != "marker"}  # fmt: skip

    def reason(self, table: str) -> str:
        schema, name = table.split(".")
        return str(
            self.look("reason", "table_state", f"WHERE schema_name = '{schema}' AND table_name = '{name}'")[0][0]
        )

    def becomes(self, table: str, state: str) -> None:
        """Wait until a table ("schema.table") is in that state."""
        eventually(lambda: self.states().get(table) == state)

    def rows(self, schema: str, table: str) -> list[tuple[Any, ...]]:
        return self.ask(f"SELECT * FROM {qualified(TARGET, schema, table)} ORDER BY ALL")

    def columns(self, schema: str, table: str) -> list[tuple[str, str]]:
        found = self.ask(
            f"SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = '{TARGET}' "
            f"AND schema_name = '{schema}' AND table_name = '{table}' ORDER BY column_index"
        )
        return [(name, kind) for name, kind in found]

    def tables(self) -> set[str]:
        """The tables that are there, but the marker and `_zeroetl`'s."""
        found = self.ask(f"SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = '{TARGET}'")
        return {f"{schema}.{name}" for schema, name in found if schema != "_zeroetl" and name != "marker"}

    def agree(self, schema: str, table: str) -> None:
        """The same rows on both sides (of types that both drivers show alike)."""
        query = f"SELECT * FROM {qualified(schema, table)}"
        here = self.ask(f"SELECT * FROM {qualified(TARGET, schema, table)}")
        assert sorted(here, key=repr) == sorted(self.source.ask(query), key=repr)

    def activity(self, table: str) -> tuple[int, int, int]:
        """Rows inserted, updated, deleted, as SYS_INTEGRATION_TABLE_ACTIVITY has them."""
        sums = "sum(inserted_rows)::BIGINT, sum(updated_rows)::BIGINT, sum(deleted_rows)::BIGINT"
        return self.look(sums, "table_activity", f"WHERE table_name = '{table}'")[0]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServers]:
    folder = DataFolder(tmp_path_factory.mktemp("postgres"))
    folder.create()
    made = PostgresServers(folder)
    try:
        made.create(CLUSTER, port=free_port(), master_username="master", master_password="m" * 12, database=None)
        made.start(CLUSTER, logical=True)
        yield made
    finally:
        made.delete(CLUSTER)
        remove_outside(folder)


@pytest.fixture
def source(servers: PostgresServers) -> Source:
    servers.start(CLUSTER, logical=True)
    name = f'Shop "{next(_numbers)}" é.b'
    made = Source(servers, name)
    Source(servers, "postgres").run(f"CREATE DATABASE {identifier(name)} OWNER master")
    return made


@pytest.fixture
def replicated(source: Source, tmp_path: Path) -> Iterator[Replicated]:
    """An integration that replicates everything in `source`; a test starts it."""
    now = InboundIntegration(
        integration_id=str(uuid.uuid4()),
        arn="arn:aws:rds:ap-northeast-1:123456789012:integration:x",
        source_arn="arn:aws:rds:ap-northeast-1:123456789012:cluster:source",
        target_arn="arn:aws:redshift-serverless:ap-northeast-1:123456789012:namespace/x",
        engine="PostgreSQL",
        status="active",
        data_filter=f'include: "{source.database.replace(chr(34), chr(34) * 2)}".*.*',
        cluster_key=CLUSTER,
        created_at=time.time(),
    )
    integration = OneIntegration(now)
    path = tmp_path / "zetl.duckdb"
    replicator = Replicator(source.servers, integration)
    made = Replicated(source, path, integration, Namespace(path), replicator)
    replicator.on_health = lambda _, status, errors: made.health.append((status, errors))
    yield made
    made.integration.now = now
    made.replicator.detach("namespace", TARGET)
    made.namespace.instance.close()
