"""One integration database: the thread that keeps it up with its source, from the first seed to the end.

The thread alone writes to the database. What others want of it (a refresh, options, another filter) is a wish that it
fulfils between two transactions. A source that goes away is tried again, with backoff, for ever.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from zeroetl_dagster.local.integration import InboundIntegration
from zeroetl_dagster.local.stream import resync
from zeroetl_dagster.local.stream.catalog import TableRecord, naive
from zeroetl_dagster.local.stream.changes import Batch
from zeroetl_dagster.local.stream.data_filter import DataFilter
from zeroetl_dagster.local.stream.reader import Reader
from zeroetl_dagster.local.stream.seed import Stopped
from zeroetl_dagster.local.stream.source import Source, SourceMissing
from zeroetl_dagster.local.stream.writer import FAILED, RESYNC, Retry, Writer

if TYPE_CHECKING:
    from zeroetl_dagster.local.postgres import PostgresServers

log = logging.getLogger("zeroetl.local.stream")

_RETRY_SECONDS = (0.1, 5.0)  # first wait, longest wait
_RESYNC_RETRY_SECONDS = 0.2
_PRUNE_SECONDS = 3600.0
_STOP_SECONDS = 30.0
# Statuses of an integration in which nothing is replicated any more.
_ENDED = ("failed", "deleting")


class Meter(Protocol):
    """What a Serverless workgroup is billed by: ingestion wakes it."""

    def busy(self, start: float, end: float | None = None) -> None: ...


class NamespaceHandle(Protocol):
    """The namespace whose DuckDB instance has the integration's database attached."""

    @property
    def namespace_id(self) -> str: ...

    @property
    def meter(self) -> Meter: ...

    def cursor(self) -> Any: ...


class Integrations(Protocol):
    def get(self, integration_id: str) -> InboundIntegration | None: ...


@dataclass(frozen=True)
class Figures:
    """What the replica says of itself. Times are epoch seconds."""

    lag_seconds: float = 0.0
    tables_replicated: int = 0
    tables_failed: int = 0
    bytes_transferred: int = 0  # since the figures were taken last
    latest_detected_change: float | None = None
    latest_applied_change: float | None = None


@dataclass(frozen=True)
class Health:
    """`status` is RDS's word for it: active, syncing, needs_attention."""

    status: str
    errors: tuple[tuple[str, str], ...] = ()


class _Ended(Exception):
    """The integration is deleted or has failed for good."""


class Replica:
    """Created for each integration database when it is made, and again whenever its namespace is opened."""

    def __init__(
        self,
        postgres: PostgresServers,
        integrations: Integrations,
        namespace: NamespaceHandle,
        database: str,
        integration_id: str,
        source_database: str,
        options: Mapping[str, Any],
        report: Callable[[], None],
    ) -> None:
        self.database, self.integration_id, self.source_database = database, integration_id, source_database
        self.health = Health("active")
        self._postgres, self._integrations, self._namespace = postgres, integrations, namespace
        self._report = report
        self._batch = Batch()
        self._writer = Writer(namespace.cursor(), database, self._batch)
        self._writer.catalog.create(self._writer.cursor, integration_id, source_database, options)
        self._writer.load()
        self._source: Source | None = None
        self._reader: Reader | None = None
        self._wishes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._changed = True  # whether the integration may say something new
        self._discover = False  # whether another filter is to be carried out
        self._resync_at = 0.0
        self._prune_at = time.monotonic() + _PRUNE_SECONDS
        self._bytes = 0
        self._counts = (0, 0)
        self._latest = self._writer.catalog.latest(self._writer.cursor)  # of a former process
        self._said = ""
        self._stopping = threading.Event()
        self._wake_out, self._wake_in = os.pipe()
        self._thread = threading.Thread(target=self._run, name=f"zeroetl-{database}", daemon=True)
        self._tell()

    # ---- for other threads -------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what was not committed is read again at the next start."""
        self._stopping.set()
        self._wake()
        deadline = time.monotonic() + _STOP_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self._source is not None:
                self._source.interrupt()
            self._thread.join(0.2)
        if self._thread.is_alive():
            log.error("the replication into %s does not stop", self.database)
            return
        self._writer.cursor.close()
        os.close(self._wake_in)
        os.close(self._wake_out)

    def remove_from_source(self) -> None:
        """Take slot and publication away, after `stop`."""
        import psycopg2

        integration = self._integrations.get(self.integration_id)
        if self._source is None and integration is not None:
            self._source = self._source_of(integration)
        if self._source is None:
            return
        try:
            self._source.remove()
        except (psycopg2.Error, SourceMissing, KeyError) as error:
            # an unread slot is bounded (max_slot_wal_keep_size), and a database made anew replaces it
            log.warning("the source of %s keeps its slot %s: %s", self.database, self._source.slot, error)

    def wish(self, what: Callable[[Replica], None], *, wait_seconds: float = 0.0) -> None:
        """Have something done on the replica's thread; wait for it for at most so long."""
        done = threading.Event()

        def fulfil() -> None:
            try:
                what(self)
            finally:
                done.set()

        self._wishes.put(fulfil)
        self._wake()
        if wait_seconds:
            done.wait(wait_seconds)

    def figures(self) -> Figures:
        reader, writer = self._reader, self._writer
        waiting = reader.lag_seconds if reader else None
        detected = naive(reader.detected) if reader and reader.detected else self._latest[0]
        applied = writer.applied_at or self._latest[1]
        size, self._bytes = self._bytes, 0
        return Figures(
            writer.lag_ms / 1000 if waiting is None else waiting, *self._counts, size, _epoch(detected), _epoch(applied)
        )

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile: nobody waits any more
            os.write(self._wake_in, b"!")

    # ---- wishes: on the replica's thread ---------------------------------------------------------------------------

    def integration_changed(self) -> None:
        self._changed = True

    def set_options(self, options: Mapping[str, Any]) -> None:
        """TRUNCATECOLUMNS and the like act on what is ingested from now on."""
        merged = {**self._writer.options, **options}
        self._flush()
        with self._writer.transaction() as cursor:
            self._writer.catalog.update_integration(cursor, options=json.dumps(merged))
        self._writer.set_options(merged)

    def refresh(self, chosen: Callable[[str, str, str], bool]) -> None:
        """Resync the tables that `chosen` says yes to, of schema, name and state."""
        self._flush()
        with self._writer.transaction():
            for record in list(self._writer.records.values()):
                structure = record.structure
                if record.state not in RESYNC and chosen(structure.schema, structure.name, record.state):
                    self._writer.require_resync(record, "")
        self._resync_at = 0.0

    def _flush(self) -> None:
        if self._reader is not None:
            self._reader.flush()

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        import psycopg2

        wait, longest = _RETRY_SECONDS
        while not self._stopping.is_set():
            try:
                self._replicate()
                wait = _RETRY_SECONDS[0]
            except Stopped:
                return
            except Retry as error:
                self._say(f"the replication into {self.database} begins again at its last commit: {error}")
            except _Ended as why:
                self._say(f"the replication into {self.database} has ended: {why}")
                self._state("ErrorState")
                self._changed = False
                self._pause(None)
            except (psycopg2.Error, SourceMissing, KeyError) as error:
                self._say(f"the source of {self.database} does not answer, trying again: {error}")
                self._pause(wait)
                wait = min(wait * 2, longest)
            except Exception:
                if self._stopping.is_set():
                    return
                self._say(f"the replication into {self.database} was interrupted, trying again", traceback=True)
                self._pause(wait)
                wait = min(wait * 2, longest)

    def _replicate(self) -> None:
        self._reader = None
        self._batch.clear()
        self._writer.load()
        self._changed = True
        integration = self._integration()
        source = self._source = self._source_of(integration)
        data_filter = DataFilter(integration.data_filter)
        with closing(source.connect()) as control, source.interruptible(control):
            source.prepare(control)
            slot = source.find_slot(control)
            ready = self._writer.catalog.setting(self._writer.cursor, resync.SLOT) == source.slot
            if slot is None or slot.confirmed is None or not ready:
                self._seeding(lambda: resync.begin(self._writer, source, data_filter, **self._callbacks()))
            else:
                source.free_slot(control)
        self._state("CdcRefreshState")
        self._said = ""
        follows = DataFilter(self._writer.catalog.setting(self._writer.cursor, resync.FILTER))
        self._reader = Reader(source, self._writer, follows, self._idle, self._wake_out)
        self._reader.written = self._written
        with closing(source.stream()) as connection:
            self._reader.run(connection, self._stopping.is_set)

    def _integration(self) -> InboundIntegration:
        found = self._integrations.get(self.integration_id)
        if found is None or found.status in _ENDED:
            if found is None and self._source is not None:
                self.remove_from_source()
            raise _Ended("it was deleted" if found is None else f"its status is {found.status}")
        return found

    def _source_of(self, integration: InboundIntegration) -> Source:
        return Source(self._postgres, integration.cluster_key, self.source_database, self.integration_id)

    def _idle(self) -> None:
        """Between two transactions of the stream."""
        self._obey()
        reader = self._reader
        assert reader is not None
        if self._changed:
            self._changed = False
            data_filter = DataFilter(self._integration().data_filter)
            if data_filter.text != reader.data_filter.text:
                reader.data_filter = data_filter
                self._discover = True
        if time.monotonic() >= self._resync_at and (self._discover or reader.to_resync()):
            self._resync()
        if time.monotonic() >= self._prune_at:
            reader.flush()
            with self._writer.transaction() as cursor:
                self._writer.catalog.prune(cursor)
            self._prune_at = time.monotonic() + _PRUNE_SECONDS
        self._tell()

    def _obey(self) -> None:
        while True:
            try:
                self._wishes.get_nowait()()
            except queue.Empty:
                return

    def _resync(self) -> None:
        """Bring tables up again from a snapshot of now, while the stream waits."""
        reader, source, writer = self._reader, self._source, self._writer
        assert reader is not None and source is not None
        reader.flush()
        assert writer.position is not None
        with source.snapshot() as snapshot:
            if not reader.sees_all_read(snapshot.visible):
                return  # at once again: it will
            structures = snapshot.structures()
            if self._discover:
                resync.discover(writer, structures, reader.data_filter, source.database, all_known=False)
                self._discover = False
            position = writer.position
            self._seeding(lambda: resync.seed(writer, snapshot, structures, position, **self._callbacks()))
        self._resync_at = time.monotonic() + _RESYNC_RETRY_SECONDS
        reader.watch()

    def _seeding(self, work: Callable[[], int]) -> None:
        began = time.time()
        self._tell()
        size = work()
        if size:
            self._written(size, began)

    def _callbacks(self) -> dict[str, Callable[[], Any]]:
        return {"stopped": self._stopping.is_set, "seeded": self._tell}

    def _written(self, size: int, began: float | None = None) -> None:
        self._bytes += size
        self._namespace.meter.busy(self._writer.began if began is None else began)

    def _pause(self, seconds: float | None) -> None:
        """Wait for so long, or for ever, but fulfil wishes meanwhile; a change of the integration ends it."""
        deadline = None if seconds is None else time.monotonic() + seconds
        self._writer.load()
        self._reader = None
        while not self._stopping.is_set() and not (seconds is None and self._changed):
            self._obey()
            self._tell()
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if left <= 0:
                return
            if select.select([self._wake_out], [], [], left)[0]:
                os.read(self._wake_out, 4096)

    # ---- reporting ---------------------------------------------------------------------------------------------------

    def _state(self, state: str) -> None:
        """SVV_INTEGRATION.state."""
        with self._writer.transaction() as cursor:
            self._writer.catalog.update_integration(cursor, state=state)

    def _say(self, what: str, *, traceback: bool = False) -> None:
        """Once, however often it is tried."""
        if what != self._said:
            log.warning("%s", what, exc_info=traceback)
        self._said = what

    def _tell(self) -> None:
        """Tell the control plane when the health has changed."""
        writer = self._writer
        if not writer.states_changed or writer.open:
            return
        writer.states_changed = False
        records = list(writer.records.values())
        failed = [record for record in records if record.state == FAILED]
        self._counts = (len(records) - len(failed), len(failed))
        if any(record.state in RESYNC for record in records):
            status = "syncing"
        else:
            status = "needs_attention" if failed else "active"
        errors = tuple(
            (_code(one.reason), f"{one.structure.schema}.{one.structure.name}: {one.reason}") for one in failed
        )
        health = Health(status, errors)
        if health != self.health:
            self.health = health
            self._report()


def _epoch(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()


def _about(record: TableRecord) -> str:
    return f"{record.structure.schema}.{record.structure.name}: {record.reason}"


def _code(reason: str) -> str:
    """The event that AWS sends for such a table (Redshift management guide, "Zero-ETL event notifications")."""
    return f"REDSHIFT-INTEGRATION-EVENT-{'0004' if 'primary key' in reason else '0005'}"
