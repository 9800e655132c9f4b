"""How a table's version follows from its newest ingestions, or from its state where their history is gone.

A version reads `<integration>/<record time>/<transaction>/<rows within the overlap>`; whoever looks finds the same one
for the same data. The count is there for rows that become visible after newer ones: with them the version changes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from zeroetl_dagster.replication.activity import TableActivity, TableState
from zeroetl_dagster.replication.cursor import Window

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row_version(integration_id: str, window: Window) -> str:
    """The version of a table whose newest ingestions are known."""
    return f"{integration_id[:8]}/{stamp(window.newest_us)}/{window.transaction_id}/{window.count}"


def state_version(integration_id: str, state: TableState) -> str:
    """The version of a table of which only the state is known."""
    return f"{integration_id[:8]}/state/{marker(state)}"


def window_of(rows: Sequence[TableActivity], overlap_us: int | None) -> Window:
    """The newest of these rows, and the sums of those up to `overlap_us` before it (None: of all)."""
    newest = max(rows, key=lambda row: (row.record_time, row.transaction_id), default=None)
    if newest is None:
        return Window(0, 0, 0, 0, 0, 0, 0)
    newest_us = microseconds(newest.record_time)
    within = [row for row in rows if overlap_us is None or microseconds(row.record_time) >= newest_us - overlap_us]
    return Window(
        newest_us=newest_us,
        transaction_id=newest.transaction_id,
        count=len(within),
        inserted=sum(row.inserted_rows for row in within),
        deleted=sum(row.deleted_rows for row in within),
        updated=sum(row.updated_rows for row in within),
        bytes=sum(row.bytes_ingested for row in within),
    )


def order(window: Window) -> tuple[int, int]:
    """What a window's newest row is newest by."""
    return window.newest_us, window.transaction_id


def unseen(rows: Sequence[TableActivity], known: Window, overlap_us: int) -> Window:
    """The sums of the rows that the known window did not hold: newer ones, and late ones within its overlap."""
    span = [row for row in rows if microseconds(row.record_time) >= known.newest_us - overlap_us]
    old = [row for row in span if (microseconds(row.record_time), row.transaction_id) <= order(known)]
    everything = window_of(span, None)
    if len(old) < known.count:  # a full read does not go back that far: late rows cannot be told from seen ones
        newer = [row for row in span if (microseconds(row.record_time), row.transaction_id) > order(known)]
        return window_of(newer, None)
    return replace(
        everything,
        count=everything.count - known.count,
        inserted=everything.inserted - known.inserted,
        deleted=everything.deleted - known.deleted,
        updated=everything.updated - known.updated,
        bytes=everything.bytes - known.bytes,
    )


def covers(reported: str, found: str) -> bool:
    """Whether the version reported last includes what a row version found later says.

    It does when it is the same; when it is the same newest row, seen while more of its overlap was kept; and when it
    was taken from a state that is younger than that row (a reload that left no row of its own).
    """
    if reported == found:
        return True
    integration, time, transaction, count = found.split("/")
    parts = reported.split("/")
    if parts[0] != integration or len(parts) < 3:
        return False
    if parts[1] == "state":
        return parts[2][:1].isdigit() and parts[2] >= time
    return parts[1:3] == [time, transaction] and len(parts) == 4 and parts[3].isdigit() and int(parts[3]) > int(count)


def marker(state: TableState) -> str:
    """What tells two states of a table's data apart when its history is gone."""
    if state.last_updated is not None:
        return stamp(microseconds(state.last_updated))
    return state.checkpoint


def microseconds(moment: datetime) -> int:
    """Since the epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def stamp(microseconds: int) -> str:
    """UTC in ISO form with six decimals: its order as text is the order in time."""
    return (EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None).isoformat(timespec="microseconds")
