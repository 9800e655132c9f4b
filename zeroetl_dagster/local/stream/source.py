"""The source's side of a replica: its publication and slot, the structure of its tables, snapshots to seed from.

The slot, the publication and the functions of source_sql.py are all that an integration leaves in a source.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.stream import source_sql
from zeroetl_dagster.local.stream.sql import identifier, literal, qualified
from zeroetl_dagster.local.stream.structure import Column, Structure

if TYPE_CHECKING:
    from zeroetl_dagster.local.postgres import PostgresServers

log = logging.getLogger("zeroetl.local.stream")

# How values are written, in the stream and in the seed alike. A walsender waits for a reader that seeds or holds back.
_OPTIONS = (
    "-c datestyle=ISO -c timezone=UTC -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=1 "
    "-c lc_monetary=C -c wal_sender_timeout=0 -c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
)
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"
_RETRIES = 50


class SourceMissing(Exception):
    """The source has no such database (as DATABASE of CREATE DATABASE … FROM INTEGRATION names it)."""


class SnapshotTooOld(Exception):
    """The table was changed after the snapshot in a way that the snapshot cannot read."""


@dataclass(frozen=True)
class Slot:
    """`confirmed` is None when the slot cannot be read from any more (its log was removed)."""

    confirmed: int | None


@dataclass(frozen=True)
class Visible:
    """Which transactions a snapshot sees, as pg_current_snapshot says it, and a place in the log after it."""

    minimum: int
    maximum: int
    running: frozenset[int]
    lsn: int

    @classmethod
    def parse(cls, text: str, lsn: int) -> Visible:
        minimum, maximum, running = text.split(":")
        return cls(int(minimum), int(maximum), frozenset(map(int, filter(None, running.split(",")))), lsn)

    def text(self) -> str:
        return f"{self.minimum}:{self.maximum}:{','.join(map(str, sorted(self.running)))}"

    def sees(self, xid: int) -> bool:
        """Whether a committed transaction is visible. `xid` is the stream's, without the epoch."""
        full = self.maximum - ((self.maximum - xid + 2**31) % 2**32 - 2**31)
        return full < self.minimum or (full < self.maximum and full not in self.running)


class Source:
    """One source database of one integration."""

    def __init__(self, servers: PostgresServers, cluster_key: str, database: str, integration_id: str) -> None:
        self._servers = servers
        self._cluster_key = cluster_key
        self.database = database
        digest = hashlib.sha256(database.encode()).hexdigest()[:8]
        self.slot = f"zeroetl_{integration_id.replace('-', '')}_{digest}"
        self.publication = self.slot
        self._blocked: set[Any] = set()
        self._lock = threading.Lock()

    # ---- connections -------------------------------------------------------------------------------------------------

    def connect(self) -> Any:
        """A session with autocommit. Raises `SourceMissing`, psycopg2's OperationalError while it is unreachable."""
        return self._connect(autocommit=True)

    def _connect(self, *, autocommit: bool = False, factory: Any = None) -> Any:
        import psycopg2

        dsn = self._servers.dsn(self._cluster_key, self.database)
        try:
            connection = psycopg2.connect(
                **dsn, options=_OPTIONS, application_name=self.slot, connection_factory=factory
            )
        except psycopg2.OperationalError as error:
            if "does not exist" in str(error) and "database" in str(error):
                raise SourceMissing(f"the source has no database {self.database!r}") from None
            raise
        if factory is None:  # a replication connection knows no transactions
            connection.autocommit = autocommit
        return connection

    def stream(self) -> Any:
        """A connection for the replication protocol."""
        from psycopg2.extras import LogicalReplicationConnection

        return self._connect(factory=LogicalReplicationConnection)

    @contextlib.contextmanager
    def interruptible(self, connection: Any) -> Iterator[None]:
        """While inside, `interrupt` cancels what the connection waits for."""
        with self._lock:
            self._blocked.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._blocked.discard(connection)

    def interrupt(self) -> None:
        """Cancel what waits at the source, from another thread."""
        with self._lock:
            for connection in self._blocked:
                if not connection.closed:
                    connection.cancel()

    # ---- setting up --------------------------------------------------------------------------------------------------

    def prepare(self, control: Any) -> None:
        """Event triggers, replica identities, publication: idempotent, in this order (see source_sql)."""
        with control.cursor() as cursor:
            cursor.execute(source_sql.INSTALLED)
            if not cursor.fetchone()[0]:
                self._together(source_sql.install())
            self.identify(control)
            cursor.execute("SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = %s)", (self.publication,))
            if not cursor.fetchone()[0]:
                cursor.execute(
                    f"CREATE PUBLICATION {identifier(self.publication)} FOR ALL TABLES "
                    "WITH (publish_generated_columns = stored)"
                )

    def identify(self, control: Any) -> None:
        """The replica identity of the tables that were there before the event triggers.

        Raises psycopg2's LockNotAvailable when one is in use for longer than the lock timeout.
        """
        with control.cursor() as cursor:
            cursor.execute(source_sql.WITHOUT_IDENTITY)
            for table, identity in cursor.fetchall():
                self._together([_LOCK_TIMEOUT, f"ALTER TABLE {table} REPLICA IDENTITY {identity}"])

    def _together(self, statements: list[str]) -> None:
        with closing(self._connect()) as connection, connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def find_slot(self, control: Any) -> Slot | None:
        with control.cursor() as cursor:
            cursor.execute(
                "SELECT wal_status, confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
                (self.slot,),
            )
            found = cursor.fetchone()
        if found is None:
            return None
        return Slot(None if found[0] == "lost" else int(found[1]))

    def remove_slot(self, control: Any) -> None:
        self.free_slot(control)
        with control.cursor() as cursor:
            cursor.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
                (self.slot,),
            )

    def free_slot(self, control: Any) -> None:
        """End a reader that a killed process left."""
        with control.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
                "WHERE slot_name = %s AND active_pid IS NOT NULL",
                (self.slot,),
            )

    def remove(self) -> None:
        """Take slot and publication away, and the event triggers with the last integration of the database."""
        with closing(self.connect()) as control:
            self.remove_slot(control)
            with control.cursor() as cursor:
                cursor.execute(f"DROP PUBLICATION IF EXISTS {identifier(self.publication)}")
                cursor.execute("SELECT count(*) FROM pg_publication WHERE pubname LIKE 'zeroetl\\_%'")
                if cursor.fetchone()[0] == 0:
                    self._together(source_sql.remove())

    # ---- reading -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def new_slot(self) -> Iterator[tuple[int, Snapshot]]:
        """Create the slot: where its stream begins, and the snapshot of exactly that moment, while inside.

        Waits for all transactions that are under way at the source.
        """
        with closing(self.stream()) as holder, holder.cursor() as cursor, self.interruptible(holder):
            cursor.execute(f"CREATE_REPLICATION_SLOT {identifier(self.slot)} LOGICAL pgoutput (SNAPSHOT 'export')")
            _, lsn, name, _ = cursor.fetchone()
            with closing(Snapshot(self, name)) as snapshot:
                yield parse_lsn(lsn), snapshot

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """A snapshot of now, while inside."""
        with closing(self._connect()) as holder, holder.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute("SELECT pg_export_snapshot()")
            with closing(Snapshot(self, cursor.fetchone()[0])) as snapshot:
                yield snapshot


class Snapshot:
    """One moment of the source, in a session of its own, which waits in an open transaction while it is held."""

    def __init__(self, source: Source, name: str) -> None:
        self._session = source._connect()
        self._now = source.connect()
        self._interruptible = source.interruptible(self._session)
        self._interruptible.__enter__()
        with self._session.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(f"SET TRANSACTION SNAPSHOT {literal(name)}")
            cursor.execute("SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            seen, lsn = cursor.fetchone()
        self.visible = Visible.parse(seen, int(lsn))

    def close(self) -> None:
        self._interruptible.__exit__(None, None, None)
        self._session.close()
        self._now.close()

    def structures(self) -> list[Structure]:
        """Every ordinary table of users."""
        with self._session.cursor() as cursor:
            cursor.execute(f"SELECT {source_sql.SCHEMA}.describe(oid)::text FROM ({source_sql.TABLES}) AS t")
            return [Structure.parse(text) for (text,) in cursor.fetchall()]

    @contextlib.contextmanager
    def table(self, structure: Structure) -> Iterator[Any]:
        """The session, in which the table is locked against DDL and reads as the snapshot says.

        Raises `SnapshotTooOld` when it was rewritten, truncated, altered or dropped since.
        """
        import psycopg2

        with self._session.cursor() as cursor:
            cursor.execute("SAVEPOINT of_table")  # its end gives the lock back
            try:
                cursor.execute(_LOCK_TIMEOUT)
                cursor.execute(f"LOCK TABLE ONLY {qualified(structure.schema, structure.name)} IN ACCESS SHARE MODE")
                if self._present(structure.relid) != structure:
                    raise SnapshotTooOld(f"{structure.schema}.{structure.name} was changed meanwhile")
                yield self._session
            except (psycopg2.errors.UndefinedTable, psycopg2.errors.LockNotAvailable) as error:
                raise SnapshotTooOld(str(error).strip()) from None
            finally:
                if not self._session.closed:
                    cursor.execute("ROLLBACK TO SAVEPOINT of_table")

    def _present(self, relid: int) -> Structure | None:
        """The table as it is now, not as the snapshot has it."""
        with self._now.cursor() as cursor:
            cursor.execute(f"SELECT {source_sql.SCHEMA}.describe(%s)::text", (relid,))
            (text,) = cursor.fetchone()
        return None if text is None else Structure.parse(text)


def copy_statement(structure: Structure) -> str:
    """The table's rows as the text that the stream would show, each value with its length before it."""
    shown = ", ".join(map(_shown, structure.columns))
    table = qualified(structure.schema, structure.name)
    return f"COPY (SELECT {shown} FROM ONLY {table}) TO STDOUT (FORMAT binary)"


def _shown(column: Column) -> str:
    name = identifier(column.name)
    if column.type == "inet":  # its cast to text adds a netmask that its output does not show
        return f"CASE WHEN {name} IS NOT NULL THEN concat({name}) END"
    return f"{name}::text"


def parse_lsn(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)
