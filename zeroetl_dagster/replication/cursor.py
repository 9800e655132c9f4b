"""What the activity sensor remembers between two ticks: typed, versioned, small.

It does not hold a version for every table: what was reported last is in Dagster's own event log, and read from there.
It holds where reading stands, the tables that moved within the overlap, what is still to be reported, and what the free
signals said.
Times of Redshift are microseconds since the epoch (`…_us`), times of the sensor's own host are seconds; they are never
compared with each other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from zeroetl_dagster.settings.replication import TableName

VERSION = 1


class CursorError(ValueError):
    """The stored text is not a cursor of this version."""


@dataclass(frozen=True)
class Window:
    """A table's newest ingestion, and the sum of those within the overlap before it (itself included)."""

    newest_us: int
    transaction_id: int
    count: int
    inserted: int
    deleted: int
    updated: int
    bytes: int


@dataclass(frozen=True)
class Move:
    """A table's new version, to be reported. The sums cover every ingestion since it was last reported."""

    version: str
    record_us: int
    inserted: int = 0
    deleted: int = 0
    updated: int = 0
    bytes: int = 0
    checkpoint: str = ""
    lag_seconds: float | None = None
    state: str = ""
    rows: int | None = None
    size_mb: int | None = None
    marker: str = ""


@dataclass(frozen=True)
class Health:
    """A table's state as it was last queued for reporting."""

    state: str
    reason: str = ""
    # Whether an ingestion was seen since the table left Synced: then its return needs no report of its own.
    moved: bool = False


@dataclass(frozen=True)
class Signals:
    """What CloudWatch and RDS had said when SQL was last asked (or found needless)."""

    applied: float | None = None
    failed: float | None = None
    replicated: float | None = None
    status: str = ""
    errors: str = ""
    # Minutes (epoch seconds of CloudWatch's own clock) with bytes transferred, as far as the probe looks back.
    transferred: dict[int, float] = field(default_factory=dict)
    newest_point: int | None = None
    # When, by the host's clock, CloudWatch last had a newer data point than before.
    advanced_at: float = 0.0


@dataclass(frozen=True)
class Cursor:
    """See the module's docstring."""

    integration_id: str
    declared: str = ""
    watermark_us: int | None = None
    recent: dict[TableName, Window] = field(default_factory=dict)
    pending: dict[TableName, Move] = field(default_factory=dict)
    pending_health: dict[TableName, Health] = field(default_factory=dict)
    unhealthy: dict[TableName, Health] = field(default_factory=dict)
    signals: Signals = Signals()
    sql_at: float | None = None
    look_again_at: float | None = None
    looks: int = 0
    watched_at: float = 0.0

    def encode(self) -> str:
        """JSON; tables as [schema, table, values…], so that any name survives."""
        plain = {
            "version": VERSION,
            **{name: getattr(self, name) for name in _PLAIN},
            "signals": asdict(self.signals),
            **{name: _encode_tables(getattr(self, name)) for name in _BY_TABLE},
        }
        return json.dumps(plain, separators=(",", ":"), ensure_ascii=False)

    def but(self, **changes: Any) -> Cursor:
        """A copy with some fields changed."""
        return replace(self, **changes)


_BY_TABLE: dict[str, type] = {"recent": Window, "pending": Move, "pending_health": Health, "unhealthy": Health}
_PLAIN = ("integration_id", "declared", "watermark_us", "sql_at", "look_again_at", "looks", "watched_at")


def decode(text: str) -> Cursor:
    """Raises `CursorError` saying what is wrong with the text."""
    try:
        stored = json.loads(text)
    except json.JSONDecodeError as error:
        raise CursorError(f"the stored cursor is not JSON ({error})") from None
    if not isinstance(stored, dict) or stored.get("version") != VERSION:
        found = stored.get("version") if isinstance(stored, dict) else type(stored).__name__
        raise CursorError(f"the stored cursor has version {found!r}, this sensor writes {VERSION}")
    try:
        signals = dict(stored["signals"])
        signals["transferred"] = {int(minute): value for minute, value in signals["transferred"].items()}
        values: dict[str, Any] = {name: stored[name] for name in _PLAIN}
        values.update({name: _decode_tables(stored[name], kind) for name, kind in _BY_TABLE.items()})
        return Cursor(signals=Signals(**signals), **values)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CursorError(f"the stored cursor is damaged ({type(error).__name__}: {error})") from None


def _encode_tables(tables: dict[TableName, Any]) -> list[list[Any]]:
    if not tables:
        return []
    names = [one.name for one in fields(next(iter(tables.values())))]
    return [[*table, *(getattr(value, name) for name in names)] for table, value in tables.items()]


def _decode_tables(stored: list[list[Any]], kind: type) -> dict[TableName, Any]:
    return {TableName(str(row[0]), str(row[1])): kind(*row[2:]) for row in stored}
