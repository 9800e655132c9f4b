"""Which tables moved: one pure function from what was remembered and what is seen to events and what to remember.

The rule is by level, per table: a table's version is derived from the newest rows that
SYS_INTEGRATION_TABLE_ACTIVITY has of it, so whoever looks, whenever, finds the same version for the same data; an
event that is reported twice changes nothing. Where that history has aged out (or on a first tick), the state of the
table stands in. Three clocks meet here (CloudWatch, Redshift, this host); each is compared with its own times only.

A row becomes visible at its transaction's end and may carry an earlier `record_time` than rows already seen. So reading
goes back `overlap_seconds`, and the version counts the rows within the overlap before the newest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from zeroetl_dagster.replication.activity import SYNCED, TRANSITIONAL_STATES, Snapshot, TableActivity, TableState
from zeroetl_dagster.replication.cursor import Cursor, Health, Move, Window
from zeroetl_dagster.replication.faults import ABSENT
from zeroetl_dagster.replication.probe import Probe
from zeroetl_dagster.replication.signals import Limits, account, base, metrics_silent, start, why_sql
from zeroetl_dagster.replication.versions import (
    EPOCH,
    covers,
    marker,
    microseconds,
    order,
    row_version,
    state_version,
    unseen,
    window_of,
)
from zeroetl_dagster.settings.replication import TableName

# States in which a table without any retained history still holds data that was replicated.
_HOLDS_DATA = frozenset({SYNCED, "DroppedSource"})
_GONE = frozenset({"Deleted", "ResyncDeleted"})
# SVV_INTEGRATION.state before the first tables are there.
_STARTING = frozenset({"PendingDbConnectState", "SchemaDiscoveryState"})


@dataclass(frozen=True)
class Reported:
    """What Dagster's event log last heard of a table. `synced` is its check's last result, None when never run."""

    version: str = ""
    marker: str = ""
    synced: bool | None = None


@dataclass(frozen=True)
class TableMoved:
    """A table has a new version."""

    table: TableName
    move: Move


@dataclass(frozen=True)
class TableHealth:
    """A table entered or left a state in which it is replicated and can be read."""

    table: TableName
    state: str
    reason: str

    @property
    def synced(self) -> bool:
        return self.state == SYNCED


Event = TableMoved | TableHealth


@dataclass(frozen=True)
class Advance:
    """What a tick comes to: events to store, the cursor to store with them, notes for the person who reads the tick."""

    events: tuple[Event, ...]
    cursor: Cursor
    notes: tuple[str, ...]


def history_in_doubt(cursor: Cursor, limits: Limits, *, now: float) -> bool:
    """Whether to ask how far back the history goes: nobody looked for so long that some of it may have aged out."""
    return not 0 <= now - cursor.watched_at <= limits.unwatched_seconds


def why_full(cursor: Cursor, limits: Limits, *, declared: str, now: float, oldest: datetime | None) -> str | None:
    """Why every table must be compared, not only what came since.

    `oldest` is the oldest row that the history keeps; it is only looked at when `history_in_doubt`.
    """
    if cursor.watermark_us is None:
        return "nothing seen of this integration yet"
    if cursor.declared != declared:
        return "the list of tables changed"
    if history_in_doubt(cursor, limits, now=now) and (oldest is None or microseconds(oldest) > cursor.watermark_us):
        return f"history aged out while nobody looked for {max(0.0, now - cursor.watched_at) / 3600:.1f} h"
    return None


def read_since(cursor: Cursor, limits: Limits) -> datetime:
    """From where an incremental read must start, so that every version's rows are complete."""
    return EPOCH + timedelta(microseconds=(cursor.watermark_us or 0) - 2 * limits.overlap_seconds * 1_000_000)


def advance(
    cursor: Cursor | None,
    probe: Probe,
    snapshot: Snapshot | None,
    limits: Limits,
    *,
    now: float,
    tables: Sequence[TableName],
    declared: str,
    reported: Mapping[TableName, Reported],
) -> Advance:
    """One tick. `snapshot` is None when SQL was not needed or did not answer; what moved then stays to be noticed.

    `tables` are the pipeline's tables, `declared` their digest, `reported` what Dagster knows of them (versions are
    only looked at when the snapshot is full). The returned cursor is for storing together with the events, or not at
    all: the next tick then comes to the same versions.
    """
    begun = base(cursor, probe)
    if begun is None:
        return Advance((), start(""), ("there is no integration of this name",))
    tick = _Tick(begun, probe, limits, now)
    if probe.integration_id is None:
        tick.notes.append("there is no integration of this name any more")
    elif snapshot is not None:
        tick.look(snapshot, tables, declared, reported)
    elif why_sql(begun, probe, limits, declared=declared, now=now) is None:
        tick.nothing_applied()
    return tick.finish()


class _Tick:
    """The working state of one `advance`; everything it holds ends in the result."""

    def __init__(self, cursor: Cursor, probe: Probe, limits: Limits, now: float) -> None:
        self.before = cursor
        self.cursor = cursor
        self.probe = probe
        self.limits = limits
        self.now = now
        self.events: list[Event] = []
        self.notes: list[str] = []
        self.pending = dict(cursor.pending)
        self.health = dict(cursor.pending_health)
        self.unhealthy = dict(cursor.unhealthy)

    def nothing_applied(self) -> None:
        """The free signals say that no table moved: take note of them."""
        silent = metrics_silent(self.before, self.probe, self.limits, self.now)
        certain = not silent and self.before.look_again_at is None
        self.cursor = self.cursor.but(
            signals=account(self.before.signals, self.probe, self.now),
            watched_at=self.now if certain else self.before.watched_at,
        )

    def look(
        self, snapshot: Snapshot, tables: Sequence[TableName], declared: str, reported: Mapping[TableName, Reported]
    ) -> None:
        """Compare the views with what was seen before."""
        if snapshot.integration is None:
            self._not_there(snapshot, declared)
            return
        rows = _by_table(snapshot.activity)
        watermark = self._watermark(snapshot.activity)
        recent, moved = self._moved(snapshot, rows, watermark, tables, reported)
        changed = self._compare_health(snapshot, tables, moved, reported)
        unlisted = sorted(str(name) for name in snapshot.tables.keys() - set(tables))
        if unlisted:
            self.notes.append(f"{len(unlisted)} replicated table(s) are not listed as assets: {_few(unlisted)}")
        signals = account(self.before.signals, self.probe, self.now)
        states = (snapshot.tables[name].state for name in tables if name in snapshot.tables)
        if snapshot.integration.state in _STARTING or any(state in TRANSITIONAL_STATES for state in states):
            look_again = self._again()
        else:
            expected = self.before.signals.applied is not None and signals.applied != self.before.signals.applied
            look_again = self._once(expected and not moved and not changed)
        self.cursor = self.cursor.but(
            declared=declared,
            watermark_us=watermark,
            recent=recent,
            signals=signals,
            sql_at=self.now,
            watched_at=self.now,
            **look_again,
        )

    def _not_there(self, snapshot: Snapshot, declared: str) -> None:
        """The views have nothing of this integration's database: remember nothing but when to look again.

        Once they have, every table is compared (there is no watermark then).
        """
        if snapshot.visible:
            self.notes.append(
                "no database has been made from the integration yet: materialize this pipeline's `database` asset"
            )
        else:
            self.notes.append(
                f"SVV_INTEGRATION shows no row although RDS says {self.probe.status}: Redshift does not know it yet, "
                "or the watch identity may not see it (`zeroetl grants` prints what it needs)"
            )
        self.cursor = self.cursor.but(
            declared=declared,
            watermark_us=None,
            recent={},
            sql_at=self.now,
            signals=account(self.before.signals, self.probe, self.now),
            **self._again(),
        )

    def _again(self) -> dict[str, object]:
        """What was seen will change without CloudWatch saying so: look again, less and less often."""
        wait = min(self.limits.look_again_seconds * 2**self.before.looks, self.limits.minimum_sql_interval_seconds)
        return {"look_again_at": self.now + wait, "looks": min(self.before.looks + 1, 16)}

    def _once(self, needed: bool) -> dict[str, object]:
        """CloudWatch spoke of an ingestion that the views do not show: they may be behind, so look once more."""
        wait = self.now + 2 * self.limits.look_again_seconds if needed else None
        return {"look_again_at": wait, "looks": 0}

    def _watermark(self, rows: Iterable[TableActivity]) -> int | None:
        newest = max((microseconds(row.record_time) for row in rows), default=None)
        before = self.before.watermark_us
        return newest if before is None else max(before, newest or before)

    def _moved(
        self,
        snapshot: Snapshot,
        rows: Mapping[TableName, list[TableActivity]],
        watermark: int | None,
        tables: Sequence[TableName],
        reported: Mapping[TableName, Reported],
    ) -> tuple[dict[TableName, Window], set[TableName]]:
        """Queue every table with another version than before; returns the windows to remember and who moved."""
        overlap = self.limits.overlap_seconds * 1_000_000
        recent: dict[TableName, Window] = {}
        moved: set[TableName] = set()
        for table in tables:
            own = rows.get(table, [])
            window = window_of(own, overlap) if own else None
            state = snapshot.tables.get(table)
            if window is not None and watermark is not None and window.newest_us >= watermark - overlap:
                recent[table] = window
            known = self.before.recent.get(table)
            if snapshot.full:
                move = self._compare(table, window, state, reported.get(table))
            else:
                move = self._increment(window, known, own) if window is not None else None
            if move is None:
                # Kept although it was not in this read: it is the newest known, and late rows are found against it.
                if known is not None and table not in recent and known.newest_us >= (watermark or 0) - overlap:
                    recent[table] = known
                continue
            moved.add(table)
            self._queue(table, _detail(move, own, state, snapshot))
        return recent, moved

    def _compare(
        self, table: TableName, window: Window | None, state: TableState | None, reported: Reported | None
    ) -> Move | None:
        """A full read: the version found against the version that Dagster has."""
        queued = self.pending.get(table)
        last = Reported(queued.version, queued.marker) if queued is not None else reported
        if window is not None:
            version = row_version(self.cursor.integration_id, window)
            gone = state is not None and state.state in _GONE
            if gone or (last is not None and covers(last.version, version)):
                return None
            return _sums(version, window)
        if state is None or state.state not in _HOLDS_DATA:
            return None
        version = state_version(self.cursor.integration_id, state)
        if (
            last is not None
            and last.version.startswith(self.cursor.integration_id[:8])
            and last.marker == marker(state)
        ):
            return None
        return Move(version, microseconds(state.last_updated or EPOCH))

    def _increment(self, window: Window, known: Window | None, rows: Sequence[TableActivity]) -> Move | None:
        """An incremental read: rows that were not there at the last look."""
        version = row_version(self.cursor.integration_id, window)
        horizon = (self.before.watermark_us or 0) - self.limits.overlap_seconds * 1_000_000
        if known is None:
            # Its newest row of before lies beyond the overlap, so all rows this side of it are new.
            new = [row for row in rows if microseconds(row.record_time) >= horizon]
            return _sums(version, window_of(new, None)) if new else None
        if order(window) < order(known) or (order(window) == order(known) and window.count <= known.count):
            return None
        return _sums(version, unseen(rows, known, self.limits.overlap_seconds * 1_000_000))

    def _queue(self, table: TableName, move: Move) -> None:
        """Put a move among those to be reported; one that waits there already is superseded, its sums added."""
        waiting = self.pending.pop(table, None)
        if waiting is not None:
            move = replace(
                move,
                inserted=move.inserted + waiting.inserted,
                deleted=move.deleted + waiting.deleted,
                updated=move.updated + waiting.updated,
                bytes=move.bytes + waiting.bytes,
            )
        self.pending[table] = move

    def _compare_health(
        self,
        snapshot: Snapshot,
        tables: Sequence[TableName],
        moved: set[TableName],
        reported: Mapping[TableName, Reported],
    ) -> bool:
        """Queue every table whose state is not what its check last said.

        One that came back to Synced without a new row was reloaded: that is a move too.
        """
        changed = False
        complete = snapshot.integration is not None and snapshot.integration.state == "CdcRefreshState"
        for table in tables:
            state = snapshot.tables.get(table)
            if state is None and not complete:
                continue
            known = self.unhealthy.get(table)
            passed = reported.get(table, Reported()).synced
            if state is not None and state.state == SYNCED:
                if known is not None:
                    self._recovered(table, known, state, table in moved, snapshot)
                    changed = True
                elif passed is not True:
                    self.health[table] = Health(SYNCED)
                continue
            found = Health(ABSENT) if state is None else Health(state.state, state.reason)
            different = known is None or (known.state, known.reason) != (found.state, found.reason)
            if different or passed is not False:
                self.health[table] = found
            changed = changed or different
            self.unhealthy[table] = replace(found, moved=known is not None and (known.moved or table in moved))
        return changed

    def _recovered(self, table: TableName, known: Health, state: TableState, moved: bool, snapshot: Snapshot) -> None:
        del self.unhealthy[table]
        self.health[table] = Health(SYNCED)
        if not moved and not known.moved:
            version = state_version(self.cursor.integration_id, state)
            self._queue(table, _detail(Move(version, microseconds(state.last_updated or EPOCH)), (), state, snapshot))

    def finish(self) -> Advance:
        """As many of the queued events as a tick may store: failures first, then moves by age, then recoveries.

        Recoveries have a tenth of the room for themselves, so that steady moves cannot hold them back for ever.
        """
        broken = [table for table, health in self.health.items() if health.state != SYNCED]
        self._report_health(broken[: self._room()])
        well = [table for table, health in self.health.items() if health.state == SYNCED]
        room = self._room() - min(len(well), self._room() // 10)
        for table in sorted(self.pending, key=lambda name: (self.pending[name].record_us, name))[:room]:
            self.events.append(TableMoved(table, self.pending.pop(table)))
        self._report_health(well[: self._room()])
        if self.pending or self.health:
            self.notes.append(f"{len(self.pending) + len(self.health)} event(s) are carried over to the next tick")
        cursor = self.cursor.but(pending=self.pending, pending_health=self.health, unhealthy=self.unhealthy)
        return Advance(tuple(self.events), cursor, tuple(self.notes))

    def _room(self) -> int:
        return max(0, self.limits.events_per_tick - len(self.events))

    def _report_health(self, tables: Sequence[TableName]) -> None:
        for table in tables:
            health = self.health.pop(table)
            self.events.append(TableHealth(table, health.state, health.reason))


def _by_table(rows: Iterable[TableActivity]) -> dict[TableName, list[TableActivity]]:
    found: dict[TableName, list[TableActivity]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return found


def _sums(version: str, window: Window) -> Move:
    return Move(
        version=version,
        record_us=window.newest_us,
        inserted=window.inserted,
        deleted=window.deleted,
        updated=window.updated,
        bytes=window.bytes,
    )


def _detail(move: Move, rows: Sequence[TableActivity], state: TableState | None, snapshot: Snapshot) -> Move:
    newest = max(rows, key=lambda row: (row.record_time, row.transaction_id), default=None)
    name = newest.checkpoint if newest is not None else (state.checkpoint if state is not None else "")
    checkpoint = snapshot.checkpoints.get(name)
    return replace(
        move,
        checkpoint=name,
        lag_seconds=checkpoint.lag_seconds if checkpoint is not None else None,
        state=state.state if state is not None else "",
        rows=state.rows if state is not None else None,
        size_mb=state.size_mb if state is not None else None,
        marker=marker(state) if state is not None else "",
    )


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
