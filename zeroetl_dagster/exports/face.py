"""How this room's values look in Dagster: asset keys and specs, metadata, and the notes by which runs and sensor talk.

A run that cannot report an export yet leaves an observation on the export asset with a state in its metadata
(`submitted`, `queued`, `no snapshot`); the completion sensor reads those, never a run's insides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster import AssetKey, MetadataValue

from zeroetl_dagster.exports import console
from zeroetl_dagster.exports.catalogue import CatalogueTable, Column
from zeroetl_dagster.exports.daily import Catalogued, Exported, Submitted
from zeroetl_dagster.exports.export_task import Queued, Task
from zeroetl_dagster.exports.names import LATEST_SUFFIX, TYPED_SUFFIX, SourceTable, catalogue_names
from zeroetl_dagster.exports.snapshots import NoSnapshot
from zeroetl_dagster.settings.asset_keys import asset_key_part
from zeroetl_dagster.settings.exports import SnapshotExportSettings
from zeroetl_dagster.settings.prices import athena_usd, crawl_usd, export_usd

STATE = "zeroetl/export_state"
TASK = "zeroetl/export_task"
MAY_COME = "zeroetl/snapshot_may_come"
PIPELINE = "zeroetl/export"
SNAPSHOT_TIME = "zeroetl/snapshot_time"
LATEST = "zeroetl/latest_view"
TYPED = "zeroetl/typed_view"

SUBMITTED, QUEUED, NO_SNAPSHOT = "submitted", "queued", "no snapshot"

REPORT_TAG = "zeroetl/report_export_task"  # on a run that only has to report this task

Metadata = dict[str, Any]


def export_key(settings: SnapshotExportSettings) -> AssetKey:
    """[name, "export"]: the day's export in S3."""
    return AssetKey([settings.name, "export"])


def catalogue_key(settings: SnapshotExportSettings) -> AssetKey:
    """[name, "catalogue"]: the day in Glue as a whole."""
    return AssetKey([settings.name, "catalogue"])


def table_key(settings: SnapshotExportSettings, table: SourceTable) -> AssetKey:
    """[name, schema, table], MySQL [name, database, table]; see `asset_key_part`."""
    return AssetKey([settings.name, *map(asset_key_part, table.key_path)])


def export_spec(settings: SnapshotExportSettings) -> dg.AssetSpec:
    """The export asset; one partition a day, materialised when the export is truly there."""
    source = settings.source
    what = f"{'cluster' if source.is_cluster else 'instance'} `{source.identifier}`"
    where = f"s3://{settings.bucket}/{settings.prefix}".rstrip("/")
    return dg.AssetSpec(
        export_key(settings),
        description=(
            f"Parquet export to `{where}/` of the newest available snapshot of {what}, database `{source.database}`. "
            f"A partition is the snapshot's own date ({settings.time_zone})."
        ),
        group_name=settings.name,
        kinds={"rds", "s3", "parquet"},
        metadata={PIPELINE: settings.name, "dagster/uri": f"{where}/"},
    )


def catalogue_spec(settings: SnapshotExportSettings) -> dg.AssetSpec:
    """The asset of the catalogue as a whole: calls, crawl, tables that could not be catalogued."""
    return dg.AssetSpec(
        catalogue_key(settings),
        description=f"The day's tables in Glue database `{settings.catalogue.database}` "
        f"(mode {settings.catalogue.mode}), with their views.",
        group_name=settings.name,
        kinds={"glue"},
        metadata={PIPELINE: settings.name},
    )


def table_specs(settings: SnapshotExportSettings, tables: Sequence[SourceTable]) -> dict[SourceTable, dg.AssetSpec]:
    """One spec per table. A mart finds the relation to read in its metadata: `zeroetl/latest_view`."""
    names, _ = catalogue_names(tables, settings.catalogue.names)
    return {table: _table_spec(settings, table, names.get(table)) for table in tables}


def _table_spec(settings: SnapshotExportSettings, table: SourceTable, name: str | None) -> dg.AssetSpec:
    metadata: Metadata = {PIPELINE: settings.name, "dagster/storage_kind": "glue"}
    if name is not None:
        database = settings.catalogue.database
        metadata["dagster/table_name"] = f"AwsDataCatalog.{database}.{name}"
        if settings.athena:
            metadata[LATEST] = f"{database}.{name}{LATEST_SUFFIX}"
            metadata[TYPED] = f"{database}.{name}{TYPED_SUFFIX}"
    return dg.AssetSpec(
        table_key(settings, table),
        description=f"`{table.label}` of `{table.database}` as the day's snapshot has it, catalogued in Glue.",
        group_name=settings.name,
        kinds={"glue", "athena", "parquet"} if settings.athena else {"glue", "parquet"},
        metadata=metadata,
    )


def export_metadata(settings: SnapshotExportSettings, found: Exported, region: str) -> Metadata:
    """Metadata of a materialised export; numbers keep one type, so that they plot over time."""
    task, written = found.task, found.written
    metadata: Metadata = {
        TASK: task.identifier,
        "zeroetl/snapshot_arn": task.source_arn,
        "zeroetl/tables": len(written.tables),
        "zeroetl/skipped_tables": len(written.skipped),
        "zeroetl/missing_tables": len(written.missing),
        "zeroetl/files": written.files,
        "zeroetl/size_bytes": written.size_bytes,
        "zeroetl/extracted_gb": float(found.extracted_gb),
        "zeroetl/billed_gb": float(found.billed_gb),
        "zeroetl/estimated_cost_usd": float(export_usd(found.billed_gb, region)),
        "zeroetl/s3_console": MetadataValue.url(console.s3_folder(region, found.root)),
        "zeroetl/rds_console": MetadataValue.url(
            console.database(region, settings.source.identifier, cluster=settings.source.is_cluster)
        ),
        "dagster/uri": found.root,
    }
    metadata |= _times(task)
    if written.notes:
        metadata["zeroetl/notes"] = MetadataValue.md("\n".join(f"* {note}" for note in written.notes))
    return metadata


def pending_metadata(outcome: Submitted | Queued | NoSnapshot) -> Metadata:
    """Metadata of the observation that a run leaves when it ends before its export is there."""
    if isinstance(outcome, Submitted):
        return {STATE: SUBMITTED, TASK: outcome.task.identifier, "zeroetl/percent": outcome.task.percent}
    if isinstance(outcome, Queued):
        return {STATE: QUEUED, "zeroetl/reason": outcome.reason}
    return {STATE: NO_SNAPSHOT, "zeroetl/reason": outcome.message, MAY_COME: outcome.may_come}


def catalogue_metadata(settings: SnapshotExportSettings, done: Catalogued, region: str) -> Metadata:
    """Metadata of the catalogue as a whole."""
    metadata: Metadata = {
        "zeroetl/tables": len(done.tables),
        "zeroetl/size_bytes": sum(table.source.size_bytes for table in done.tables),
        "zeroetl/glue_calls": done.glue_calls,
        "zeroetl/scanned_bytes": done.scanned_bytes,
    }
    cost = athena_usd(done.scanned_bytes)
    if done.crawl is not None:
        metadata |= {
            "zeroetl/crawler": done.crawl.crawler,
            "zeroetl/crawl_log": f"{done.crawl.log_group} {done.crawl.log_stream}".strip(),
            "zeroetl/crawler_console": MetadataValue.url(console.crawler(region, done.crawl.crawler)),
        }
        if done.crawl.dpu_hours is not None:
            metadata["zeroetl/dpu_hours"] = float(done.crawl.dpu_hours)
        cost += crawl_usd(done.crawl.dpu_hours)
    metadata["zeroetl/estimated_cost_usd"] = float(cost)
    if done.problems:
        metadata["zeroetl/problems"] = MetadataValue.md("\n".join(f"* {problem}" for problem in done.problems))
    return metadata


def table_metadata(table: CatalogueTable, export: Mapping[str, Any], region: str) -> Metadata:
    """Metadata of one table on one day. `export` is what the export's own event said of task and snapshot."""
    metadata: Metadata = {
        TASK: table.source.export_id,
        "dagster/column_schema": column_schema(table.day_columns),
        "dagster/uri": table.source.location,
        "zeroetl/size_bytes": table.source.size_bytes,
        "zeroetl/files": table.source.files,
        "zeroetl/newest_day": table.newest,
        "zeroetl/glue_console": MetadataValue.url(console.glue_table(region, table.database, table.name)),
        "zeroetl/s3_console": MetadataValue.url(console.s3_folder(region, table.source.location)),
    }
    if table.rows is not None:
        metadata["dagster/partition_row_count"] = table.rows
    if table.source.crawled_records is not None:
        metadata["zeroetl/crawled_records"] = table.source.crawled_records
    if table.typed_view:
        metadata[TYPED] = f"{table.database}.{table.typed_view}"
    if table.latest_view:
        metadata[LATEST] = f"{table.database}.{table.latest_view}"
    if SNAPSHOT_TIME in export:
        metadata[SNAPSHOT_TIME] = export[SNAPSHOT_TIME]
    return metadata


def column_schema(columns: Iterable[Column]) -> dg.TableSchema:
    """Dagster's table schema of Glue columns."""
    return dg.TableSchema(
        columns=[dg.TableColumn(name=c.name, type=c.type, description=c.comment or None) for c in columns]
    )


def plain(value: Any) -> Any:
    """The value inside a stored metadata value."""
    return value.value if isinstance(value, MetadataValue) else value


def _times(task: Task) -> Metadata:
    metadata: Metadata = {}
    if task.snapshot_time:
        metadata[SNAPSHOT_TIME] = MetadataValue.timestamp(task.snapshot_time)
    if task.started_at and task.ended_at:
        metadata["zeroetl/duration_seconds"] = (task.ended_at - task.started_at).total_seconds()
    return metadata
