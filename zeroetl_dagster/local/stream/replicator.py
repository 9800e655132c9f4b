"""Runs the replications: one thread per integration database, from the seed through streaming to the end.

A thread owns its DuckDB cursor and its connections. What others ask of it (refresh, options, a changed filter) is a
wish that it fulfils between two batches. A lost source is tried again with backoff.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import duckdb

from zeroetl_dagster.local.integration import InboundIntegration
from zeroetl_dagster.local.postgres import PostgresServers
from zeroetl_dagster.local.stream import pgoutput
from zeroetl_dagster.local.stream.applier import Applier, Transaction
from zeroetl_dagster.local.stream.catalog import Catalog, quoted
from zeroetl_dagster.local.stream.data_filter import replicated
from zeroetl_dagster.local.stream.seed import Unreplicable, copy_table
from zeroetl_dagster.local.stream.source import Source, SourceTable
from zeroetl_dagster.local.warehouse.usage import Meter

log = logging.getLogger("zeroetl.local.stream")

FLUSH_SECONDS = 0.05
DISCOVER_SECONDS = 1.0
_RETRY_CAP_SECONDS = 5.0
Name = tuple[str, str]


class NamespaceHandle(Protocol):
    namespace_id: str

    meter: Meter  # ingestion wakes a Serverless workgroup, and is billed

    def cursor(self) -> duckdb.DuckDBPyConnection: ...


class Integrations(Protocol):
    def get(self, integration_id: str) -> InboundIntegration | None: ...


@dataclass(frozen=True)
class Refresh:
    """Which tables to copy anew: ALL, INERROR or REMEDIABLE (within `schemas`, if any), or TABLE with `tables`."""

    scope: str
    schemas: tuple[str, ...] = ()
    tables: tuple[Name, ...] = ()


@dataclass(frozen=True)
class IntegrationMetrics:
    """What CloudWatch is told: seconds, counts, bytes since the last call, epoch seconds."""

    integration_id: str
    lag_seconds: float
    tables_replicated: int
    tables_failed: int
    bytes_transferred: int
    latest_detected_change: float | None
    latest_applied_change: float | None


class Replicator:
    """All replications of one embedded AWS."""

    def __init__(self, postgres: PostgresServers, integrations: Integrations | None = None) -> None:
        self.postgres = postgres
        self.integrations = integrations
        self.on_health: Callable[[str, str, Iterable[str]], None] | None = None
        self._streams: dict[tuple[str, str], Stream] = {}
        self._lock = threading.RLock()

    def attach(
        self,
        namespace: NamespaceHandle,
        database: str,
        integration_id: str,
        source_database: str | None,
        options: Mapping[str, object],
    ) -> None:
        """Start or resume the replication into `database`."""
        stream = Stream(self, namespace, database, integration_id, source_database)
        stream.catalog.create(integration_id, source_database, options)
        with self._lock:
            self._streams[namespace.namespace_id, database] = stream
        stream.start()

    def detach(self, namespace_id: str, database: str) -> None:
        with self._lock:
            stream = self._streams.pop((namespace_id, database), None)
        if stream is not None:
            stream.stop(drop=True)

    def refresh(self, namespace_id: str, database: str, scope: Refresh) -> None:
        self._streams[namespace_id, database].ask(lambda stream: stream.refresh(scope))

    def set_options(self, namespace_id: str, database: str, options: Mapping[str, object]) -> None:
        self._streams[namespace_id, database].ask(lambda stream: stream.catalog.set_options(options))

    def integration_changed(self, integration_id: str) -> None:
        for stream in list(self._streams.values()):
            if stream.integration_id == integration_id:
                stream.ask(lambda one: one.discover())

    def metrics(self) -> list[IntegrationMetrics]:
        return [stream.metrics() for stream in list(self._streams.values())]

    def stop(self) -> None:
        for stream in list(self._streams.values()):
            stream.stop(drop=False)
        self._streams.clear()


class Stream:
    """One integration database."""

    def __init__(
        self,
        replicator: Replicator,
        namespace: NamespaceHandle,
        database: str,
        integration_id: str,
        source_database: str | None,
    ) -> None:
        self.replicator, self.database, self.integration_id = replicator, database, integration_id
        self.source_database = source_database
        self.meter = namespace.meter
        self.cursor = namespace.cursor()
        self.catalog = Catalog(self.cursor, database)
        self.applier = Applier(self.cursor, database, self.catalog)
        self.tables: dict[Name, SourceTable] = {}
        self.source: Source
        self._wishes: deque[Callable[[Stream], None]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"replicate-{database}", daemon=True)
        self._bytes = 0
        self._figures: tuple[float, int, int, float | None, float | None] = (0.0, 0, 0, None, None)
        self._health: tuple[str, str] = ("", "")

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, drop: bool) -> None:
        self._stopping.set()
        self._thread.join(timeout=15)
        if drop and hasattr(self, "source"):
            import psycopg2

            try:
                self.source.drop()
            except psycopg2.OperationalError as error:
                log.warning("slot of %s is left at its source, which does not answer: %s", self.database, error)
        self.cursor.close()

    def ask(self, wish: Callable[[Stream], None]) -> None:
        self._wishes.append(wish)

    def metrics(self) -> IntegrationMetrics:
        lag, replicated_tables, failed, detected, applied = self._figures
        sent, self._bytes = self._bytes, 0
        return IntegrationMetrics(self.integration_id, lag, replicated_tables, failed, sent, detected, applied)

    def _run(self) -> None:
        wait = 0.1
        while not self._stopping.is_set():
            try:
                self._replicate()
                wait = 0.1
            except Exception as error:
                if self._stopping.is_set():
                    return
                log.warning("replication into %s is interrupted: %s", self.database, error)
                self._stopping.wait(wait)
                wait = min(wait * 2, _RETRY_CAP_SECONDS)

    def _replicate(self) -> None:
        integration = self._integration()
        if integration is None:
            self._stopping.wait(0.5)
            return
        database = self.source_database or "postgres"
        name = "zetl_" + integration.integration_id.replace("-", "")[:24]
        self.source = Source(self.replicator.postgres.dsn(integration.cluster_key, database), name)
        self.source.publish([])
        if not self.source.has_slot():
            self.source.create_slot()
            for (schema, table), state in self.catalog.tables().items():  # the slot is gone, and changes with it
                self.catalog.table(schema, table, state["table_id"], "ResyncRequired", "the replication slot was lost")
        self.discover()
        self._report()
        self._stream()

    def _integration(self) -> InboundIntegration | None:
        found = self.replicator.integrations.get(self.integration_id) if self.replicator.integrations else None
        return found if found is not None and found.status not in ("deleting", "failed") else None

    def discover(self) -> None:
        """Bring publication and tables in line with the source and the filter; seed what is new or to be resynced."""
        integration = self._integration()
        if integration is None:
            return
        database = self.source_database or ""
        found = {n: t for n, t in self.source.tables().items() if replicated(integration.data_filter, database, *n)}
        states = self.catalog.tables()
        for name in states.keys() - found.keys():
            self._remove(name)
        seed = []
        for name, table in found.items():
            state = states.get(name)
            if table.problem:
                if state is None or state["reason"] != table.problem[:256]:
                    self.catalog.table(*name, table.oid, "Failed", table.problem)
            elif state is None or self._changed(table, state) or state["table_state"].startswith("Resync"):
                seed.append(table)
            elif state["table_state"] == "Failed" and "has no primary key" in (state["reason"] or ""):
                seed.append(table)  # the key was added: it resyncs by itself
        good = {name: table for name, table in found.items() if not table.problem}
        if seed or good.keys() != self.tables.keys():
            self.source.publish(list(good))
        self.tables = good
        self._seed(seed)

    def refresh(self, scope: Refresh) -> None:
        states = self.catalog.tables()
        for name, table in self.tables.items():
            state = states.get(name, {}).get("table_state")
            inside = not scope.schemas or name[0] in scope.schemas
            by_scope = scope.scope == "ALL" or (scope.scope == "INERROR" and state == "Failed")
            if (scope.scope == "TABLE" and name in scope.tables) or (by_scope and inside):
                self.catalog.table(*name, table.oid, "ResyncInitiated")
        self.discover()

    def _changed(self, table: SourceTable, state: Mapping[str, Any]) -> bool:
        return bool(state["columns"]) and state["columns"] != _signature(table)

    def _remove(self, name: Name) -> None:
        """Dropped at the source, or no longer let through by the filter: the data goes too."""
        self.cursor.begin()
        self.cursor.execute(f"DROP TABLE IF EXISTS {quoted(self.database, *name)}")
        self.catalog.table(*name, 0, "Deleted")
        self.catalog.forget(*name)
        self.cursor.commit()
        self.tables.pop(name, None)

    def _seed(self, tables: list[SourceTable]) -> None:
        if not tables:
            return
        for table in tables:
            self.catalog.table(table.schema, table.name, table.oid, "ResyncInitiated")
        self._report()
        with self.source.snapshot() as (connection, point):
            for table in tables:
                if self._stopping.is_set():
                    return
                self._seed_one(connection, table, point)
        self.catalog.set_state("CdcRefreshState")
        self._report()

    def _seed_one(self, connection: Any, table: SourceTable, point: int) -> None:
        started = dt.datetime.now(dt.UTC).replace(tzinfo=None)
        truncate = bool(self.catalog.options().get("truncatecolumns"))
        self.cursor.begin()
        try:
            rows, size = copy_table(connection, self.cursor, self.database, table, truncate=truncate)
            _, seq = self.catalog.position()
            lsn, _ = self.catalog.position()
            self.catalog.advance(lsn, seq + 1, 0)
            checkpoint = self.catalog.checkpoint("snapshot", seq + 1, table.oid, size, started, 1, started)
            self.catalog.table(
                table.schema, table.name, table.oid, "Synced", from_lsn=point, columns=_signature(table), table_rows=0,
                table_size_mb=max(size >> 20, 1),
            )  # fmt: skip
            self.catalog.moved(checkpoint, table.schema, table.name, table.oid, 0, (rows, 0, 0), size)
            self.catalog.seen(detected=started, applied=True, lag_ms=0, checkpoint=checkpoint)
            self.cursor.commit()
            self.meter.busy(started.replace(tzinfo=dt.UTC).timestamp())
            self._bytes += size
        except Unreplicable as reason:
            self.cursor.rollback()
            self.catalog.table(table.schema, table.name, table.oid, "Failed", str(reason))
        except BaseException:
            self.cursor.rollback()
            raise

    def _stream(self) -> None:
        position, _ = self.catalog.position()
        connection = self.source.replication()
        try:
            cursor = connection.cursor()
            cursor.start_replication(
                slot_name=self.source.name,
                start_lsn=position,
                decode=False,
                options={"proto_version": "1", "publication_names": f'"{self.source.name}"'},
            )
            self._follow(cursor)
        finally:
            connection.close()

    def _follow(self, cursor: Any) -> None:
        relations: dict[int, pgoutput.Relation] = {}
        batch: list[Transaction] = []
        current: Transaction | None = None
        flush_at, discover_at = time.monotonic() + FLUSH_SECONDS, time.monotonic() + DISCOVER_SECONDS
        while not self._stopping.is_set():
            message = cursor.read_message()
            if message is not None:
                current = self._gather(message.payload, relations, batch, current)
            else:
                select.select([cursor], [], [], max(flush_at - time.monotonic(), 0.001))
            now = time.monotonic()
            if now >= flush_at:
                self._flush(cursor, batch, relations)
                flush_at = now + FLUSH_SECONDS
                while self._wishes:
                    self._wishes.popleft()(self)
                if now >= discover_at:
                    self.discover()
                    self._report()
                    if self._integration() is None:
                        return
                    discover_at = time.monotonic() + DISCOVER_SECONDS

    def _gather(
        self,
        payload: bytes,
        relations: dict[int, pgoutput.Relation],
        batch: list[Transaction],
        current: Transaction | None,
    ) -> Transaction | None:
        message = pgoutput.decode(payload)
        if isinstance(message, pgoutput.Begin):
            return Transaction(message.xid, message.final_lsn, 0, message.commit_time_us)
        if isinstance(message, pgoutput.Relation):
            relations[message.oid] = message
            return current
        if current is None or message is None:
            return current
        current.size += len(payload)
        if isinstance(message, pgoutput.Commit):
            current.end_lsn = message.end_lsn
            batch.append(current)
            return None
        if isinstance(message, pgoutput.Truncate):
            current.changes += [(relations[oid], message) for oid in message.oids if oid in relations]
        else:
            current.changes.append((relations[message.oid], message))
        return current

    def _flush(self, cursor: Any, batch: list[Transaction], relations: dict[int, pgoutput.Relation]) -> None:
        if batch:
            position, _ = self.catalog.position()
            new = [one for one in batch if one.end_lsn > position]
            if any(self._altered(relation) for relation in relations.values()):
                self.discover()
            if new:
                began = time.time()
                self.applier.apply(new, self.tables)
                self.meter.busy(began)
                self._bytes += sum(one.size for one in new)
                self._report()
            cursor.send_feedback(flush_lsn=batch[-1].end_lsn)
            batch.clear()

    def _altered(self, relation: pgoutput.Relation) -> bool:
        table = self.tables.get((relation.schema, relation.name))
        return table is not None and tuple(c.name for c in table.columns) != relation.columns

    def _report(self) -> None:
        """Keep the figures for CloudWatch, and tell the control plane when the health changed."""
        states = self.catalog.tables()
        failed = {name: state["reason"] for name, state in states.items() if state["table_state"] == "Failed"}
        row = self.catalog.one(f"SELECT lag_ms, latest_detected, latest_applied FROM {self.catalog.z}.integration")
        lag, detected, applied = row or (0, None, None)
        self._figures = ((lag or 0) / 1000, len(states) - len(failed), len(failed), _epoch(detected), _epoch(applied))
        syncing = any(state["table_state"].startswith("Resync") for state in states.values())
        status = "needs_attention" if failed else "syncing" if syncing else "active"
        errors = list(failed.values())
        health = (status, json.dumps(errors))
        if self.replicator.on_health is not None and health != self._health:
            self._health = health
            self.replicator.on_health(self.integration_id, status, errors)


def _signature(table: SourceTable) -> str:
    return json.dumps([[c.name, c.source_type] for c in table.columns] + [list(table.key)])


def _epoch(moment: dt.datetime | None) -> float | None:
    return moment.replace(tzinfo=dt.UTC).timestamp() if moment is not None else None
