from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import pytest
import redshift_connector

from zeroetl_dagster.local import supervisor
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.integration import InboundIntegration
from zeroetl_dagster.local.store import Store
from zeroetl_dagster.local.stream.catalog import Catalog, TableRecord
from zeroetl_dagster.local.stream.replicator import check_options
from zeroetl_dagster.local.stream.structure import Column, Structure
from zeroetl_dagster.local.warehouse.storage import Warehouse

NAMESPACE = "0f5b7a4e-0000-4000-8000-000000000001"
INTEGRATION = InboundIntegration(
    "4798e675-8f9f-4686-b05f-92c538e19629", "arn", "src", "dst", "PostgreSQL", "active", None, "a/r/c", 0.0
)


@dataclass
class Recorder:
    """Stands where the replicator stands: makes the schema `_zeroetl`, and notes what is asked of it."""

    asked: list[tuple[str, Any]] = field(default_factory=list)

    def attach(self, namespace: Any, database: str, integration_id: str, source: str | None, options: Any) -> None:
        check_options(options)
        Catalog(database).create(namespace.cursor(), integration_id, source or "", options)
        self.asked.append(("attach", (database, source, dict(options))))

    def detach(self, namespace_id: str, database: str) -> None:
        self.asked.append(("detach", database))

    def refresh(self, namespace_id: str, database: str, scope: Any) -> None:
        self.asked.append(("refresh", scope))

    def set_options(self, namespace_id: str, database: str, options: Any) -> None:
        check_options(options)
        self.asked.append(("set", dict(options)))


def replicated(cursor: Any, database: str, name: str, state: str, reason: str = "", relid: int = 1) -> TableRecord:
    """Note a table `public.<name>` as the replica does; its rows are the caller's to make."""
    columns = (Column(1, "id", "int4", "pg_catalog", "b", -1), Column(2, "total", "numeric", "pg_catalog", "b", 524294))
    structure = Structure(relid, "public", name, "r", "p", relid, (1,) if state != "Failed" else (), False, columns)
    record = TableRecord(structure, state, reason)
    Catalog(database).put_table(cursor, record)
    return record


class OneIntegration:
    def get(self, integration_id: str) -> InboundIntegration | None:
        return INTEGRATION if integration_id == INTEGRATION.integration_id else None

    def inbound(self, namespace: str) -> list[InboundIntegration]:
        return [INTEGRATION]


class Redshift:
    """One namespace with database `dev` behind one listener, and ways to reach it."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder, self.replicator = folder, Recorder()
        self.open()

    def open(self) -> None:
        self.warehouse = Warehouse(self.folder, Store(self.folder.store_path), OneIntegration(), self.replicator)
        self.warehouse.create_namespace(NAMESPACE, admin_user="admin", admin_password="Secret1x", database="dev")
        self.port = supervisor.free_port()
        settings = {"enable_case_sensitive_identifier": "true"}
        self.warehouse.listen("wg", NAMESPACE, port=self.port, settings=settings, rpu=8)

    def connect(self, user: str = "admin", password: str = "Secret1x", database: str = "dev") -> Any:
        """By redshift_connector, autocommit."""
        connection = redshift_connector.connect(
            host="127.0.0.1", port=self.port, user=user, password=password, database=database, ssl=False
        )
        connection.autocommit = True
        return connection

    def psycopg2(self) -> Any:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="admin", password="Secret1x", dbname="dev", sslmode="disable"
        )
        connection.autocommit = True
        return connection


@pytest.fixture(scope="session")
def redshift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redshift]:
    found = Redshift(DataFolder(tmp_path_factory.mktemp("redshift")))
    yield found
    found.warehouse.stop()


@pytest.fixture
def sql(redshift: Redshift) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Run a statement through redshift_connector; rows as tuples."""
    connection = redshift.connect()
    cursor = connection.cursor()

    def run(statement: str, *params: Any) -> list[tuple[Any, ...]]:
        cursor.execute(statement, params) if params else cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    yield run
    connection.close()
