"""The PostgreSQL side of a replication: what tables there are, publication and slot, and consistent snapshots."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zeroetl_dagster.local.stream.types import Column, column

_TABLES = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
  array(SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(attnum, at)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.at),
  array(SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  array(SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
"""


@dataclass(frozen=True)
class SourceTable:
    oid: int
    schema: str
    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def problem(self) -> str:
        """Why it cannot be replicated, in AWS's words; empty when it can."""
        if not self.key:
            return f"Table '{self.schema}.{self.name}' has no primary key. Add a primary key to replicate it."
        reasons = [one.reason for one in self.columns if one.reason]
        return f"Table '{self.schema}.{self.name}' cannot be replicated: {reasons[0]}." if reasons else ""


class Source:
    """One database of a cluster, for one integration."""

    def __init__(self, dsn: dict[str, Any], name: str) -> None:
        self.dsn = dsn
        self.name = name  # of the publication and of the slot

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        import psycopg2

        with contextlib.closing(psycopg2.connect(**self.dsn)) as connection:
            connection.autocommit = True
            yield connection

    def tables(self) -> dict[tuple[str, str], SourceTable]:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(_TABLES)
            return {
                (schema, name): SourceTable(
                    oid, schema, name, tuple(key), tuple(column(c, t) for c, t in zip(columns, kinds, strict=True))
                )
                for oid, schema, name, _, _, key, columns, kinds in cursor.fetchall()
            }

    def publish(self, tables: list[tuple[str, str]]) -> None:
        """An explicit list: FOR ALL TABLES would break UPDATE and DELETE on tables without a key."""
        from psycopg2 import sql

        names = sql.SQL(", ").join(sql.Identifier(*table) for table in sorted(tables))
        publication = sql.Identifier(self.name)
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", (self.name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE PUBLICATION {}").format(publication))
            if tables:
                cursor.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(publication, names))

    def has_slot(self) -> bool:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (self.name,))
            return cursor.fetchone() is not None

    def replication(self) -> Any:
        import psycopg2
        from psycopg2.extras import LogicalReplicationConnection

        return psycopg2.connect(**self.dsn, connection_factory=LogicalReplicationConnection)

    def create_slot(self) -> None:
        with contextlib.closing(self.replication()) as connection, connection.cursor() as cursor:
            cursor.execute(f'CREATE_REPLICATION_SLOT "{self.name}" LOGICAL pgoutput NOEXPORT_SNAPSHOT')

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[tuple[Any, int]]:
        """A connection that sees exactly what was committed before an LSN, and that LSN."""
        with contextlib.closing(self.replication()) as exporting, exporting.cursor() as cursor:
            cursor.execute(f'CREATE_REPLICATION_SLOT "{self.name}_seed" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT')
            _, point, snapshot, _ = cursor.fetchone()
            with self.connect() as connection, connection.cursor() as reading:
                reading.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                reading.execute("SET TRANSACTION SNAPSHOT %s", (snapshot,))
                yield connection, lsn(point)

    def drop(self) -> None:
        """Remove slot and publication, where the source still answers."""
        from psycopg2 import sql

        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = %s AND active_pid IS NOT NULL",
                (self.name,),
            )
            cursor.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s "
                "AND NOT active",
                (self.name,),
            )
            cursor.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(self.name)))


def lsn(text: str) -> int:
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)
