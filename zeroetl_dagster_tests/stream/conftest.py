"""One PostgreSQL server for the folder's tests, a database each, and DuckDB as the warehouse gives it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.postgres import PostgresServers
from zeroetl_dagster.local.postgres_files import remove_outside
from zeroetl_dagster.local.supervisor import free_port

CLUSTER = "123456789012/ap-northeast-1/source"
_numbers = itertools.count(1)


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

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


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
    Source(servers, "postgres").run(f'CREATE DATABASE "{name.replace(chr(34), chr(34) * 2)}" OWNER master')
    return made
