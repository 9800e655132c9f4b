"""What CloudWatch's free metrics say of an integration as a whole: failed tables, and lag."""

from __future__ import annotations

from dataclasses import dataclass

from zeroetl_dagster.replication.probe import Probe
from zeroetl_dagster.replication.signals import Limits, lag_of

NO_FAILED_TABLES = "no_failed_tables"
LAG_WITHIN_BOUNDS = "lag_within_bounds"
CHECKS = {
    NO_FAILED_TABLES: "CloudWatch counts no failed table.",
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
    """One for each check that the metrics say something of."""
    found = []
    failed = probe.metrics.tables_failed if probe.metrics is not None else None
    if failed is not None:
        found.append(Verdict(NO_FAILED_TABLES, not failed, True, f"{failed:.0f} failed tables"))
    lag = lag_of(probe, limits)
    if lag is not None:
        told = f"lag {lag.seconds:.1f} s ({'idle' if lag.idle else lag.status})"
        found.append(Verdict(LAG_WITHIN_BOUNDS, lag.status == "ok", lag.status == "error", told))
    return found
