"""What is said of an integration as a whole: whether RDS calls it active, failed tables, and lag.

RDS and CloudWatch say it for free, Redshift by SQL.
"""

from __future__ import annotations

from dataclasses import dataclass

from zeroetl_dagster.replication.activity import IntegrationRow
from zeroetl_dagster.replication.faults import explain_status
from zeroetl_dagster.replication.probe import Probe
from zeroetl_dagster.replication.signals import Lag, Limits, lag_between, lag_of

NO_FAILED_TABLES = "no_failed_tables"
LAG_WITHIN_BOUNDS = "lag_within_bounds"
ACTIVE = "active"
CHECKS = {
    ACTIVE: "RDS calls the integration active.",
    NO_FAILED_TABLES: "No table has failed.",
    LAG_WITHIN_BOUNDS: "Changes arrive in time; idle is not late.",
}


@dataclass(frozen=True)
class Verdict:
    """One check's result. `severe` tells an error from a warning."""

    check: str
    passed: bool
    severe: bool
    description: str


def verdicts(probe: Probe, limits: Limits) -> list[Verdict]:
    """One for each check that RDS and the metrics say something of."""
    failed = probe.metrics.tables_failed if probe.metrics is not None else None
    return [*_status(probe), *_verdicts(failed, lag_of(probe, limits))]


def _status(probe: Probe) -> list[Verdict]:
    if probe.integration_id is None:
        return [Verdict(ACTIVE, False, True, "there is no integration of this name")]
    if not probe.status:
        return []
    passed, severe = probe.status in ("active", "modifying"), probe.status in ("failed", "deleting")
    return [Verdict(ACTIVE, passed, severe, explain_status(probe.status, probe.errors))]


def verdicts_of_view(row: IntegrationRow, limits: Limits) -> list[Verdict]:
    """The same from SVV_INTEGRATION, for who asks before CloudWatch has data points.

    `current_lag` grows while the source is idle: without the times of changes it can acquit, and not accuse.
    """
    lag = None
    if row.latest_detected is not None and row.latest_applied is not None:
        times = row.latest_detected.timestamp(), row.latest_applied.timestamp()
        lag = lag_between(*times, row.lag_seconds, limits)
    elif row.lag_seconds is not None and row.lag_seconds <= limits.lag_warning_seconds:
        lag = Lag("ok", row.lag_seconds, False)
    return _verdicts(row.tables_failed, lag)


def _verdicts(failed: float | None, lag: Lag | None) -> list[Verdict]:
    found = []
    if failed is not None:
        told = f"{failed:.0f} failed table{'' if failed == 1 else 's'}"
        found.append(Verdict(NO_FAILED_TABLES, not failed, True, told))
    if lag is not None:
        told = f"lag {lag.seconds:.1f} s ({'idle' if lag.idle else lag.status})"
        found.append(Verdict(LAG_WITHIN_BOUNDS, lag.status == "ok", lag.status == "error", told))
    return found
