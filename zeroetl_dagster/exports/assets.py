"""The assets of one snapshot export: the day's export, its catalogue, and one asset per table.

Two steps a day. The first ends when the export is truly there (or, with `wait: sensor`, when its task runs; then it
materialises nothing, and a short run reports the end). The second puts every table of that export into the catalogue at
once; tables can be selected one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext, AssetKey

from zeroetl_dagster.connections.athena import AthenaError
from zeroetl_dagster.connections.aws import explained
from zeroetl_dagster.connections.waiting import Backoff
from zeroetl_dagster.exports import checks, export_task, face, manifest
from zeroetl_dagster.exports.catalogue import CatalogueError
from zeroetl_dagster.exports.daily import Catalogued, CatalogueOfDay, Exported, ExportOfDay, Submitted, written
from zeroetl_dagster.exports.faults import ExportError
from zeroetl_dagster.exports.manifest import ManifestError
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster.exports.partitions import daily, day_of
from zeroetl_dagster.exports.snapshots import NoSnapshot, SourceNotFound
from zeroetl_dagster.settings.exports import SnapshotExportSettings

Clock = Callable[[], datetime]

_BACKFILL_TAG = "dagster/backfill"  # Dagster's, on every run of a backfill
_CONFIG = {
    "new_export": dg.Field(
        bool, default_value=False, description="Make another export of a day that has one (which is billed again)."
    ),
    "new_snapshot": dg.Field(
        bool, default_value=False, description="Today only: take a snapshot now and make an export of that."
    ),
}


@dataclass(frozen=True)
class Pace:
    """How often AWS is asked, and what time it is."""

    poll: Backoff = export_task.POLL
    now: Clock = lambda: datetime.now(UTC)


def build_assets(
    settings: SnapshotExportSettings, tables: Sequence[SourceTable], pace: Pace | None = None
) -> list[dg.AssetsDefinition]:
    """The export asset and the catalogued tables. `tables` are those known when the definitions load."""
    pace = pace or Pace()
    return [build_export(settings, pace), build_tables(settings, tables, pace)]


def build_export(settings: SnapshotExportSettings, pace: Pace) -> dg.AssetsDefinition:
    """[name, "export"], one partition a day."""
    key = face.export_key(settings)

    @dg.multi_asset(
        name=f"{settings.name}__export",
        specs=[face.export_spec(settings)],
        check_specs=checks.export_specs(key),
        partitions_def=daily(settings),
        required_resource_keys={settings.aws, settings.source_aws},
        pool=f"{settings.source_aws}_rds_exports",
        can_subset=True,  # a day without a snapshot materialises nothing
        config_schema=_CONFIG,
    )
    def export(context) -> Iterator[Any]:  # type: ignore[no-untyped-def]  # Dagster takes no string annotation here
        if key in context.selected_asset_keys:
            yield from _export(context, settings, pace, context.op_execution_context.op_config)

    return export


def build_tables(settings: SnapshotExportSettings, tables: Sequence[SourceTable], pace: Pace) -> dg.AssetsDefinition:
    """[name, "catalogue"] and one asset per table, all made by one step."""
    specs = face.table_specs(settings, tables)
    keys = {spec.key: table for table, spec in specs.items()}
    catalogue = face.catalogue_key(settings)
    # Named outputs, since a table's name may have characters that Dagster's default names do not allow.
    outs = {_output_name(spec.key): dg.AssetOut.from_spec(spec, is_required=False) for spec in specs.values()}
    outs["catalogue"] = dg.AssetOut.from_spec(face.catalogue_spec(settings), is_required=False)

    @dg.multi_asset(
        name=f"{settings.name}__catalogue",
        outs=outs,
        deps=[face.export_key(settings)],
        check_specs=[*checks.catalogue_specs(catalogue), *(checks.table_spec(key) for key in keys)],
        partitions_def=daily(settings),
        required_resource_keys={settings.aws, settings.source_aws, *([settings.athena] if settings.athena else [])},
        can_subset=True,
    )
    def tables_of_day(context) -> Iterator[Any]:  # type: ignore[no-untyped-def]  # as above
        if context.selected_asset_keys:
            yield from _catalogue(context, settings, keys, pace)

    return tables_of_day


def _export(
    context: AssetExecutionContext, settings: SnapshotExportSettings, pace: Pace, asked: Mapping[str, bool]
) -> Iterator[Any]:
    key = face.export_key(settings)
    source, own = getattr(context.resources, settings.source_aws), getattr(context.resources, settings.aws)
    day = ExportOfDay(
        rds=source.client("rds"),
        s3=own.client("s3"),
        settings=settings,
        day=day_of(context.partition_key),
        report=context.log.info,
        known=_reported_task(context, key),
        nonce=_nonce(context) if asked["new_export"] or asked["new_snapshot"] else None,
        new_snapshot=asked["new_snapshot"],
        waits=_waits(context, settings),
        pace=pace.poll,
    )
    reporting = context.run.tags.get(face.REPORT_TAG)
    try:
        with explained(settings.source_aws):
            outcome = day.reported(reporting) if reporting else day.run(pace.now())
    except (ExportError, SourceNotFound, ManifestError) as error:
        raise dg.Failure(str(error), allow_retries=isinstance(error, ExportError) and error.retryable) from error
    if not isinstance(outcome, Exported):
        context.log_event(
            dg.AssetObservation(key, partition=context.partition_key, metadata=face.pending_metadata(outcome))
        )
        if isinstance(outcome, NoSnapshot):
            context.log.warning(outcome.message)
            yield checks.no_snapshot(key, outcome)
        else:
            context.log.info(_goes_on(outcome))
        return
    yield dg.MaterializeResult(
        asset_key=key,
        metadata=face.export_metadata(settings, outcome, own.region),
        data_version=dg.DataVersion(outcome.task.identifier),
        check_results=list(checks.exported(key, outcome)),
    )


def _catalogue(
    context: AssetExecutionContext, settings: SnapshotExportSettings, keys: dict[AssetKey, SourceTable], pace: Pace
) -> Iterator[Any]:
    own = getattr(context.resources, settings.aws)
    export = _export_event(context, settings)
    export_id = str(face.plain(export[face.TASK]))
    selected = {keys[key] for key in context.selected_asset_keys if key in keys}
    whole = face.catalogue_key(settings) in context.selected_asset_keys
    day = CatalogueOfDay(
        glue=own.client("glue"),
        athena=getattr(context.resources, settings.athena) if settings.athena else None,
        settings=settings,
        day=day_of(context.partition_key),
        export_id=export_id,
        report=context.log.info,
        pace=pace.poll,
    )
    try:
        with explained(settings.aws):
            found = _written(context, settings, export_id, None if whole else selected)
            done = day.run(found, pace.now())
    except (CatalogueError, ManifestError, AthenaError) as error:
        raise dg.Failure(str(error)) from error
    yield from _results(context, settings, done, keys, export, own.region, whole=whole)
    absent = sorted(t.label for t in selected - {entry.table for entry in found.tables})
    if absent:
        context.log.warning(f"not in export {export_id}, hence not materialised: {', '.join(absent)}")
    if done.problems:
        raise dg.Failure(
            f"{len(done.problems)} tables of export {export_id} are not in the catalogue:\n"
            + "\n".join(str(problem) for problem in done.problems),
            allow_retries=False,
        )


def _results(
    context: AssetExecutionContext,
    settings: SnapshotExportSettings,
    done: Catalogued,
    keys: dict[AssetKey, SourceTable],
    export: dict[str, Any],
    region: str,
    *,
    whole: bool,
) -> Iterator[Any]:
    for table in done.tables:
        key = face.table_key(settings, table.source.table)
        metadata = face.table_metadata(table, export, region)
        if key in keys:
            yield dg.MaterializeResult(
                asset_key=key,
                metadata=metadata,
                data_version=dg.DataVersion(table.source.export_id),
                check_results=[checks.schema(key, table)],
            )
        else:  # `tables: all` found one that was not known when the definitions loaded
            context.log_event(
                dg.AssetMaterialization(
                    key,
                    partition=context.partition_key,
                    metadata=metadata,
                    tags={"dagster/data_version": table.source.export_id},
                )
            )
    if whole:
        key = face.catalogue_key(settings)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=face.catalogue_metadata(settings, done, region),
            data_version=dg.DataVersion(str(face.plain(export[face.TASK]))),
            check_results=[
                checks.catalogued(key, [str(problem) for problem in done.problems]),
                checks.none_gone(key, done.gone),
            ],
        )


def _written(
    context: AssetExecutionContext, settings: SnapshotExportSettings, export_id: str, selected: set[SourceTable] | None
) -> manifest.Written:
    """What the export wrote, narrowed to the selected tables (None: all)."""
    s3 = getattr(context.resources, settings.aws).client("s3")
    rds = getattr(context.resources, settings.source_aws).client("rds")
    task = export_task.describe(rds, export_id)  # its warning names skipped tables; AWS may list it no more
    listing = manifest.read(s3, settings.bucket, settings.prefix, export_id)
    found = written(listing, settings, task.warning if task else None)
    if selected is None:
        return found
    tables = tuple(entry for entry in found.tables if entry.table in selected)
    return manifest.Written(tables, found.skipped, found.missing, found.notes)


def _export_event(context: AssetExecutionContext, settings: SnapshotExportSettings) -> dict[str, Any]:
    """Metadata of the newest materialisation of this day's export."""
    materialization = _latest(context, face.export_key(settings))
    if materialization is None or face.TASK not in materialization.metadata:
        raise dg.Failure(
            f"the export of {context.partition_key} is not there yet: materialise "
            f"{face.export_key(settings).to_user_string()} for this partition first",
            allow_retries=False,
        )
    return dict(materialization.metadata)


def _latest(context: AssetExecutionContext, key: AssetKey) -> dg.AssetMaterialization | None:
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[context.partition_key]), limit=1
    ).records
    return records[0].asset_materialization if records else None


def _reported_task(context: AssetExecutionContext, key: AssetKey) -> str | None:
    event = _latest(context, key)
    return str(face.plain(event.metadata[face.TASK])) if event and face.TASK in event.metadata else None


def _waits(context: AssetExecutionContext, settings: SnapshotExportSettings) -> bool:
    """Whether the run sees the end of the export.

    One of a backfill always does: Dagster calls a partition of a backfill failed, and leaves out what follows it, as
    soon as the backfill's runs have ended without it; a run that reports it later is none of the backfill's.
    """
    return settings.wait.mode == "run" or _BACKFILL_TAG in context.run.tags


def _nonce(context: AssetExecutionContext) -> str:
    """The same for a run and all its retries, so that they find the export which the first of them began."""
    run = context.run
    return "r" + hashlib.sha256((run.root_run_id or run.run_id).encode()).hexdigest()[:7]


def _output_name(key: AssetKey) -> str:
    return "table_" + hashlib.sha256("\0".join(key.path).encode()).hexdigest()[:16]


def _goes_on(outcome: Submitted | export_task.Queued) -> str:
    if isinstance(outcome, Submitted):
        return f"{export_task.progress(outcome.task)}; this run ends here, the completion sensor reports the end"
    return f"not started yet, the completion sensor will ask again: {outcome.reason}"
