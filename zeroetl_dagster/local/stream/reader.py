"""Reads the stream of one slot and has it written, whole transactions at a time.

Between a transaction's begin and its commit rows are gathered; every 50 ms (or REFRESH_INTERVAL) what was gathered of
whole transactions is committed. What is not a row is carried out at once, after the rows before it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from zeroetl_dagster.local.stream import pgoutput
from zeroetl_dagster.local.stream.catalog import TableRecord
from zeroetl_dagster.local.stream.data_filter import DataFilter
from zeroetl_dagster.local.stream.pgoutput import DELETE, INSERT, UPDATE, Begin, Commit, Message, Relation, Truncate
from zeroetl_dagster.local.stream.source import Source, Visible
from zeroetl_dagster.local.stream.source_sql import PREFIX
from zeroetl_dagster.local.stream.structure import Structure
from zeroetl_dagster.local.stream.writer import RESYNC, SYNCED, Writer

log = logging.getLogger("zeroetl.local.stream")

FLUSH_SECONDS = 0.05
FEEDBACK_SECONDS = 1.0
# A batch that is larger is written at once: part of a large transaction, or ahead of its time. Rows, bytes.
_PART = (200_000, 32 * 2**20)
# What REFRESH_INTERVAL may hold back; more is catching up, for which it does not count.
_HELD = (1_000_000, 128 * 2**20)
_ROWS = (INSERT, UPDATE, DELETE)
# Transactions may be in the stream before others at the source see them; a snapshot must see all that were read.
_RECENT = 20_000


@dataclass
class Reached:
    """The last transaction that was read to its end."""

    lsn: int
    xid: int
    committed_at: datetime
    transactions: int = 0  # since the last commit


class Reader:
    """One connection's stream. `idle` is called whenever nothing is under way (the replica's wishes and resyncs)."""

    def __init__(
        self, source: Source, writer: Writer, data_filter: DataFilter, idle: Callable[[], None], wake: int
    ) -> None:
        self._source, self._writer, self._batch = source, writer, writer.batch
        self.data_filter = data_filter
        self._idle, self._wake = idle, wake
        self._cursor: Any = None
        self._relations: dict[int, Relation] = {}
        self._begin: Begin | None = None
        self._rows_before = 0
        self._skip = False
        self._reached: Reached | None = None
        self._oldest: float | None = None  # monotonic time of the oldest row that waits
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._watched: dict[int, Visible] = {}
        self._flushed = time.monotonic()
        self._told = (0, 0.0)  # confirmed place in the log, monotonic time
        self.detected: datetime | None = None  # commit of the newest change that was read
        self.waiting_since: datetime | None = None  # commit of the oldest change that is read and not applied
        self.written: Callable[[int], None] = lambda size: None  # after each commit, with its bytes

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def run(self, connection: Any, stopped: Callable[[], bool]) -> None:
        """Follow the stream until `stopped`. Raises what the source raises when it goes away."""
        position = self._writer.position
        assert position is not None
        self._cursor = connection.cursor()
        self._cursor.start_replication(
            slot_name=self._source.slot,
            start_lsn=position.lsn,
            decode=False,
            options={"proto_version": "1", "publication_names": f'"{self._source.publication}"', "messages": "true"},
        )
        self.watch()
        while not stopped():
            message = self._cursor.read_message()
            if message is not None:
                self._take(message.payload)
                if self._begin is not None or not self._due():
                    continue
            if self._begin is None:
                if self._due():
                    self.flush()
                self._idle()
                if self._oldest is None:
                    self._confirm_idle()
            if message is None:
                ready, _, _ = select.select([self._cursor, self._wake], [], [], self._patience())
                if self._wake in ready:
                    os.read(self._wake, 4096)
        if self._begin is None:
            self.flush()

    def _patience(self) -> float:
        """Seconds until something is due."""
        if self._oldest is None:
            return FEEDBACK_SECONDS
        return max(0.001, min(FEEDBACK_SECONDS, self._due_at() - time.monotonic()))

    def _due_at(self) -> float:
        interval = float(self._writer.options.get("refresh_interval") or 0)
        assert self._oldest is not None
        return max(self._oldest + FLUSH_SECONDS, self._flushed + interval)

    def _due(self) -> bool:
        if self._oldest is None:
            return False
        return time.monotonic() >= self._due_at() or self._full(_HELD)

    def _full(self, limit: tuple[int, int]) -> bool:
        return self._batch.rows >= limit[0] or self._batch.size >= limit[1]

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _take(self, payload: bytes) -> None:
        if payload[0] in _ROWS:
            if not self._skip:
                self._batch.add(payload)
                if self._full(self._limit()):
                    self._writer.apply()
            return
        message = pgoutput.parse(payload)
        if isinstance(message, Begin):
            self._begun(message)
        elif isinstance(message, Commit):
            self._committed(message)
        elif isinstance(message, Relation):
            self._relations[message.relid] = message
            if not self._batch.fits(message):
                self._writer.apply()
            self._route(message.relid)
        elif self._skip:
            return
        elif isinstance(message, Truncate):
            self._writer.apply()
            for relid in message.relids:
                if not self._seen(relid):
                    self._writer.truncate(relid)
        elif isinstance(message, Message) and message.prefix == PREFIX and message.transactional:
            self._writer.apply()
            self._announced(json.loads(message.content))

    def _limit(self) -> tuple[int, int]:
        held = bool(self._writer.options.get("refresh_interval")) and not self._writer.open
        return _HELD if held else _PART

    def _begun(self, begin: Begin) -> None:
        position = self._writer.position
        assert position is not None
        self._begin, self._rows_before = begin, self._batch.rows
        self._skip = begin.commit_lsn < position.lsn  # sent again after a restart
        for relid, visible in list(self._watched.items()):
            if begin.commit_lsn > visible.lsn:
                del self._watched[relid]
            self._route(relid)

    def _committed(self, commit: Commit) -> None:
        begin, self._begin = self._begin, None
        assert begin is not None
        self._recent.append(begin.xid)
        if self._skip:
            self._skip = False
            return
        changed = self._batch.rows > self._rows_before or self._writer.open
        before = self._reached.transactions if self._reached else 0
        self._reached = Reached(commit.end_lsn, begin.xid, commit.committed_at, before + 1)
        if changed:
            if self._oldest is None:
                self._oldest = time.monotonic()
                self.waiting_since = commit.committed_at
            self.detected = commit.committed_at
        if self._writer.open:  # parts of it, or DDL, are in DuckDB's transaction already
            self.flush()

    def _announced(self, said: dict[str, Any]) -> None:
        """What the source's event triggers say (source_sql.py)."""
        if "table" in said:
            structure = Structure.of(said["table"])
            if not self._seen(structure.relid):
                included = self.data_filter.includes(self._source.database, structure.schema, structure.name)
                self._writer.described(structure, said["tag"], included=included)
                self._route(structure.relid)
        elif "rewritten" in said:
            if not self._seen(said["rewritten"]):
                self._writer.rewritten(said["rewritten"])
        else:
            relids = [relid for relid in said["dropped"] if not self._seen(relid)]
            self._writer.dropped(relids, said["schemas"])

    # ---- routes ------------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Look again which tables were seeded ahead of the stream, and which are replicated at all."""
        self._watched = {
            relid: record.visible for relid, record in self._writer.records.items() if record.visible is not None
        }
        for relid in self._relations:
            self._route(relid)

    def _seen(self, relid: int) -> bool:
        """Whether the table's seed already holds what the transaction under way did."""
        visible = self._watched.get(relid)
        return visible is not None and self._begin is not None and visible.sees(self._begin.xid)

    def _route(self, relid: int) -> None:
        record: TableRecord | None = self._writer.records.get(relid)
        relation = self._relations.get(relid)
        if record is None or relation is None or record.state != SYNCED or self._seen(relid):
            self._batch.unroute(relid)
        else:
            self._batch.route(record, relation)

    # ---- committing --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Commit all whole transactions that were read. Only between two transactions."""
        reached = self._reached
        if reached is None:
            return
        self._writer.apply()
        if self._writer.open:
            size = self._writer.commit(reached.lsn, reached.xid, reached.transactions, reached.committed_at)
            self._flushed = time.monotonic()
            self.written(size)
        self._tell(reached.lsn)
        self._reached = self._oldest = self.waiting_since = None

    def _tell(self, lsn: int) -> None:
        """Confirm a place in the log: what is before it will not be sent again, and the server may forget it.

        The server is asked to answer, with the place that it has reached.
        """
        self._cursor.send_feedback(write_lsn=lsn, flush_lsn=lsn, apply_lsn=lsn, reply=True)
        self._told = (lsn, time.monotonic())

    def _confirm_idle(self) -> None:
        """With nothing under way the whole log is done with, whatever others write into it."""
        if time.monotonic() - self._told[1] >= FEEDBACK_SECONDS:
            reached = self._reached.lsn if self._reached else 0
            self._tell(max(self._cursor.wal_end, reached, self._told[0]))
            self._reached = None

    def sees_all_read(self, visible: Visible) -> bool:
        """Whether a snapshot sees every transaction that was read."""
        return all(visible.sees(xid) for xid in self._recent)

    @property
    def lag_seconds(self) -> float | None:
        """Age of the oldest change that waits; None when none does."""
        since = self.waiting_since
        return None if since is None else max(0.0, (datetime.now(since.tzinfo) - since).total_seconds())

    def to_resync(self) -> list[TableRecord]:
        return [record for record in self._writer.records.values() if record.state in RESYNC]
