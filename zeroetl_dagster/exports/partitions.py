"""The daily partitions of a snapshot export: a day is the snapshot's own date in the configured time zone."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import dagster as dg

from zeroetl_dagster.settings.exports import SnapshotExportSettings


def daily(settings: SnapshotExportSettings) -> dg.DailyPartitionsDefinition:
    """Partitions from `start_date` to today.

    Today's exists already (`end_offset=1`), because its snapshot may: at 16:00 UTC it is tomorrow in Tokyo, and a
    snapshot taken then belongs to that day.
    """
    return dg.DailyPartitionsDefinition(
        start_date=settings.start_date.isoformat(), timezone=settings.time_zone, end_offset=1
    )


def day_of(partition_key: str) -> date:
    """The day that a partition key names."""
    return date.fromisoformat(partition_key)


def key_at(settings: SnapshotExportSettings, moment: datetime) -> str:
    """The partition of the day it is in the configured time zone at `moment`."""
    return moment.astimezone(ZoneInfo(settings.time_zone)).date().isoformat()
