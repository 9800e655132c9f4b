"""When SQL is worth asking: what the free signals say now, compared with what they said before.

A signal is compared with its own previous value only, never with another clock: CloudWatch's data points come minutes
late, and neither its clock nor Redshift's nor this host's agree. A signal counts as seen when SQL was asked (or was not
needed), so a tick on which Redshift did not answer leaves it to be noticed by the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zeroetl_dagster.replication.cursor import Cursor, Signals
from zeroetl_dagster.replication.probe import LOOKBACK_SECONDS, Probe


@dataclass(frozen=True)
class Limits:
    """The sensor's settings as the rules need them; all times in seconds."""

    events_per_tick: int = 500
    minimum_sql_interval_seconds: float = 900
    sql_every_tick: bool = False
    overlap_seconds: int = 120
    # Without having looked for this long, history that is gone may have held updates.
    unwatched_seconds: float = 3600
    # CloudWatch without a newer data point for this long is as good as without metrics.
    stalled_metrics_seconds: float = 900
    look_again_seconds: float = 30
    lag_warning_seconds: float = 300
    lag_error_seconds: float = 3600


def start(integration_id: str) -> Cursor:
    """A cursor that knows nothing."""
    return Cursor(integration_id=integration_id)


def base(cursor: Cursor | None, probe: Probe) -> Cursor | None:
    """The cursor a tick starts from: a fresh one on the first tick and when the integration has been recreated."""
    if probe.integration_id is None:
        return cursor
    if cursor is None or cursor.integration_id != probe.integration_id:
        return start(probe.integration_id)
    return cursor


def why_sql(cursor: Cursor, probe: Probe, limits: Limits, *, declared: str, now: float) -> str | None:
    """Why Redshift should be asked, None when nothing needs it. `now` is the host's clock, `declared` a digest."""
    if probe.integration_id is None or probe.status == "creating":
        return None
    if cursor.sql_at is None:
        return "first look at this integration"
    if cursor.declared != declared:
        return "the list of tables changed"
    if limits.sql_every_tick:
        return "configured to ask on every tick"
    moved = _moved_signals(cursor.signals, probe)
    if moved:
        return moved
    if cursor.look_again_at is not None and (now >= cursor.look_again_at or now < cursor.sql_at):
        return "looking again: the last look was not conclusive"
    if metrics_silent(cursor, probe, limits, now):
        waited = now - cursor.sql_at
        if waited >= limits.minimum_sql_interval_seconds or waited < 0:
            return "CloudWatch has no current metrics of this integration"
    return None


def _moved_signals(before: Signals, probe: Probe) -> str | None:
    metrics = probe.metrics
    if metrics is not None:
        if metrics.applied is not None and metrics.applied != before.applied:
            return "CloudWatch: a change was applied (IntegrationLatestAppliedChange moved)"
        if any(before.transferred.get(minute) != value for minute, value in metrics.transferred.items()):
            return "CloudWatch: data was transferred (IntegrationDataTransferred)"
        if metrics.tables_failed is not None and metrics.tables_failed != before.failed:
            return "CloudWatch: the number of failed tables changed"
        if metrics.tables_replicated is not None and metrics.tables_replicated != before.replicated:
            return "CloudWatch: the number of replicated tables changed"
    if (before.status, before.errors) != (probe.status, errors_text(probe)):
        return f"RDS: the integration's status is {probe.status}"
    return None


def metrics_silent(cursor: Cursor, probe: Probe, limits: Limits, now: float) -> bool:
    """True when CloudWatch cannot be relied upon to say that nothing moved."""
    metrics = probe.metrics
    if metrics is None or not metrics.present:
        return True
    if metrics.newest_point != cursor.signals.newest_point:
        return False
    return not 0 <= now - cursor.signals.advanced_at <= limits.stalled_metrics_seconds


def account(before: Signals, probe: Probe, now: float) -> Signals:
    """The signals as now known; what was not said this time stays as it was."""
    known = replace(before, status=probe.status, errors=errors_text(probe))
    metrics = probe.metrics
    if metrics is None:
        return known
    newest = metrics.newest_point
    kept = {**before.transferred, **metrics.transferred}
    if kept:
        # Twice the look-back, by CloudWatch's own clock: a point that is fetched again is always still known.
        horizon = max(kept) - 2 * LOOKBACK_SECONDS
        kept = {minute: value for minute, value in kept.items() if minute >= horizon}
    return replace(
        known,
        applied=before.applied if metrics.applied is None else metrics.applied,
        failed=before.failed if metrics.tables_failed is None else metrics.tables_failed,
        replicated=before.replicated if metrics.tables_replicated is None else metrics.tables_replicated,
        transferred=kept,
        newest_point=before.newest_point if newest is None else newest,
        advanced_at=before.advanced_at if newest is None or newest == before.newest_point else now,
    )


def errors_text(probe: Probe) -> str:
    return "; ".join(f"{code}: {message}" for code, message in probe.errors)


@dataclass(frozen=True)
class Lag:
    """How late an integration is. `status` is `ok`, `warning` or `error`; an idle source is never late."""

    status: str
    seconds: float
    idle: bool


def lag_of(probe: Probe, limits: Limits) -> Lag | None:
    """The lag by CloudWatch's metrics, None when they say nothing.

    IntegrationLag grows while nothing is committed at the source, so it only counts while a detected change waits to be
    applied; where the metrics of changes are missing, while data is being transferred.
    """
    metrics = probe.metrics
    if metrics is None or not metrics.present:
        return None
    if metrics.applied is not None and metrics.detected is not None:
        return lag_between(metrics.detected, metrics.applied, metrics.lag_seconds, limits)
    return _judged(not metrics.transferred, metrics.lag_seconds or 0.0, limits)


def lag_between(detected: float, applied: float, lag_seconds: float | None, limits: Limits) -> Lag:
    """From the times of the last change detected and of the last applied, in seconds of one clock."""
    behind = max(0.0, detected - applied)
    return _judged(applied >= detected, lag_seconds if lag_seconds is not None else behind, limits)


def _judged(idle: bool, seconds: float, limits: Limits) -> Lag:
    if idle or seconds <= limits.lag_warning_seconds:
        return Lag("ok", seconds, idle)
    return Lag("warning" if seconds <= limits.lag_error_seconds else "error", seconds, idle)
