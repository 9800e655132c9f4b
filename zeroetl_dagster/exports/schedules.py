"""The daily schedule: asks for the export of the day it is, with its catalogue. Marts follow by data."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
from dagster import AssetKey

from zeroetl_dagster.exports import face
from zeroetl_dagster.exports.partitions import key_at
from zeroetl_dagster.settings.exports import SnapshotExportSettings

# A run whose process died is begun again, where the instance has run retries on (as this project's dagster.yaml): it
# finds its own export task and crawl. A step that failed has said why, and is left to a person.
RETRIED = {"dagster/max_retries": "2", "dagster/retry_on_asset_or_op_failure": "false"}


def build_job(settings: SnapshotExportSettings, table_keys: Sequence[AssetKey]) -> dg.UnresolvedAssetJobDefinition:
    """`<name>__export_job`: one day, from snapshot to catalogue, in one process (its two steps wait for AWS)."""
    return dg.define_asset_job(
        f"{settings.name}__export_job",
        selection=dg.AssetSelection.assets(face.export_key(settings), face.catalogue_key(settings), *table_keys),
        description="Exports the day's snapshot and catalogues its tables.",
        executor_def=dg.in_process_executor,
        tags=RETRIED,
    )


def build_schedule(
    settings: SnapshotExportSettings, job: dg.UnresolvedAssetJobDefinition
) -> dg.ScheduleDefinition | None:
    """`<name>__export_schedule`, or None when the settings say `schedule: null`.

    The partition is the day in the settings' time zone at the scheduled time: 16:00 UTC asks for tomorrow's date in
    Tokyo. A day whose snapshot is not there yet is waited for by the completion sensor.
    """
    wanted = settings.schedule
    if wanted is None:
        return None

    @dg.schedule(
        name=f"{settings.name}__export_schedule",
        job=job,
        cron_schedule=wanted.cron,
        execution_timezone=wanted.timezone,
        default_status=dg.DefaultScheduleStatus[wanted.default_status.upper()],
        description="Exports the day's snapshot; one that is not there yet is waited for by the completion sensor.",
    )
    def daily_export(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        partition = key_at(settings, context.scheduled_execution_time)
        if partition < settings.start_date.isoformat():
            return dg.SkipReason(f"{partition} is before start_date {settings.start_date}")
        return dg.RunRequest(run_key=f"{settings.name}:{partition}", partition_key=partition)

    return daily_export
