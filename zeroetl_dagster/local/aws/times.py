"""Points in time on the wire: documents keep epoch seconds (float), AWS's models want aware datetimes in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(epoch: float) -> datetime:
    """Epoch seconds as a UTC datetime of whole milliseconds, the precision of AWS's answers."""
    return datetime.fromtimestamp(round(epoch, 3), UTC)
