"""When the check of both engines is due, and the sensor that asks for it.

The runs that refresh marts leave checks out, so nobody would run this one. It is due by level, from Dagster's own
records (nothing is asked of AWS): once for every refresh of the Athena mart, and while the verdict was "not
comparable", again after the Redshift mart was refreshed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetCheckKey, AssetKey, DagsterRunStatus, RunsFilter
from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES

from zeroetl_dagster.exports import face
from zeroetl_dagster.exports.reconciliation import CHECK, NOT_COMPARABLE, VERDICT
from zeroetl_dagster.exports.schedules import RETRIED
from zeroetl_dagster.settings.exports import ReconciledMart, Reconciliation, SnapshotExportSettings

_UNDER_WAY = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Checked:
    """The last evaluation: its own id, the refresh of the Athena mart it looked at, when, and what it found."""

    id: int
    athena_event: int
    at: float
    verdict: str


@dataclass(frozen=True)
class Twins:
    """One mart in both engines: the newest refresh of each (None: never) and the last evaluation.

    `going_on`: the run that refreshed it in Athena has not ended, and may be about to refresh others.
    """

    athena_event: int | None
    redshift_event: int | None
    redshift_at: float
    checked: Checked | None
    going_on: bool = False


def due(twins: Twins, *, now: float, recheck_seconds: float) -> str | None:
    """Why the check is due, or None."""
    if twins.athena_event is None or twins.redshift_event is None or twins.going_on:
        return None
    checked = twins.checked
    if checked is None or checked.athena_event < twins.athena_event:
        return "the Athena mart was refreshed"
    waited = now - checked.at >= recheck_seconds
    if checked.verdict == NOT_COMPARABLE and twins.redshift_at > checked.at and waited:
        return "it was not comparable, and the Redshift mart was refreshed since"
    return None


def build_job(settings: SnapshotExportSettings) -> dg.UnresolvedAssetJobDefinition | None:
    """`<name>__reconcile_job`: every check of both engines, in one process. None where nothing is reconciled."""
    if settings.reconcile is None:
        return None
    return dg.define_asset_job(
        f"{settings.name}__reconcile_job",
        selection=dg.AssetSelection.checks(*(_check_key(mart) for mart in settings.reconcile.marts)),
        description="Holds the marts in Athena against their twins in Redshift.",
        executor_def=dg.in_process_executor,
        tags=RETRIED,
    )


def build_sensor(
    settings: SnapshotExportSettings, job: dg.UnresolvedAssetJobDefinition, clock: Callable[[], float] = time.time
) -> dg.SensorDefinition:
    """`<name>__reconcile_sensor`. It reads Dagster's records only."""
    wanted = settings.reconcile
    assert wanted is not None

    @dg.sensor(
        name=f"{settings.name}__reconcile_sensor",
        job=job,
        minimum_interval_seconds=wanted.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus[wanted.sensor_status.upper()],
        description="Asks for the comparison of both engines when a mart of theirs was refreshed.",
    )
    def reconciling(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        running = context.instance.get_runs(RunsFilter(statuses=_UNDER_WAY))
        if any(run.job_name == job.name for run in running):
            return dg.SensorResult(skip_reason="a comparison is under way")
        return _tick(context.instance, settings, wanted, {run.run_id for run in running}, clock())

    return reconciling


def _tick(
    instance: dg.DagsterInstance,
    settings: SnapshotExportSettings,
    wanted: Reconciliation,
    running: Set[str],
    now: float,
) -> dg.SensorResult:
    found = _read(instance, wanted.marts, running)
    reasons: dict[AssetCheckKey, str] = {}
    words: list[str] = []
    for key, twins in found.items():
        reason = due(twins, now=now, recheck_seconds=wanted.recheck_seconds)
        if reason is not None:
            reasons[key] = reason
            words.append(f"{twins.athena_event}.{twins.redshift_event}.{twins.checked.id if twins.checked else 0}")
    if not reasons:
        return dg.SensorResult(skip_reason="every refresh was compared")
    # A run that failed is not asked for again until something has moved: the key is what was seen.
    request = dg.RunRequest(
        run_key=f"{settings.name}:reconcile:{'-'.join(words)}", asset_selection=[], asset_check_keys=list(reasons)
    )
    return dg.SensorResult(run_requests=[request])


def _read(
    instance: dg.DagsterInstance, marts: Sequence[ReconciledMart], running: Set[str]
) -> dict[AssetCheckKey, Twins]:
    keys = {key for mart in marts for key in (_key(mart.athena), _key(mart.redshift))}
    records = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(list(keys))}
    checks = [_check_key(mart) for mart in marts]
    last = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    found = {}
    for mart, check in zip(marts, checks, strict=True):
        athena, redshift = records.get(_key(mart.athena)), records.get(_key(mart.redshift))
        event = redshift.last_materialization if redshift else None
        last_run = athena.last_materialization.run_id if athena and athena.last_materialization else ""
        found[check] = Twins(
            athena_event=athena.last_materialization_storage_id if athena else None,
            redshift_event=redshift.last_materialization_storage_id if redshift else None,
            redshift_at=event.timestamp if event else 0.0,
            checked=_checked(last.get(check)),
            going_on=last_run in running,
        )
    return found


def _checked(record: Any | None) -> Checked | None:
    if record is None or record.status not in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES:
        return None  # one that was begun and did not end counts as none
    evaluation = record.evaluation
    target = evaluation.target_materialization_data
    return Checked(
        id=record.id,
        athena_event=target.storage_id if target else 0,
        at=record.event.timestamp,
        verdict=str(face.plain(evaluation.metadata.get(VERDICT, ""))),
    )


def _key(name: str) -> AssetKey:
    return AssetKey(name.split("/"))


def _check_key(mart: ReconciledMart) -> AssetCheckKey:
    return AssetCheckKey(_key(mart.athena), CHECK)
