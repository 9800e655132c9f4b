"""The check that both paths tell the same: a mart in Athena, of a snapshot, against its twin in Redshift.

It knows marts only by their asset keys and what their events and specs say (`dagster/table_name`, the data versions of
their inputs), and reads both through the connections. A mart's inputs lead back to the one export it was made from,
whose event holds the time of the snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg
from dagster import AssetKey

from zeroetl_dagster.connections.athena import AthenaError
from zeroetl_dagster.connections.redshift import RedshiftError
from zeroetl_dagster.connections.sql import identifier, literal, qualified
from zeroetl_dagster.exports import face
from zeroetl_dagster.exports.comparison import Period, Scope, Stream, Verdict, compare, scope
from zeroetl_dagster.settings.exports import ReconciledMart, Reconciliation, SnapshotExportSettings

CHECK = "equals_redshift"
VERDICT = "zeroetl/verdict"
NOT_COMPARABLE: Final = "not comparable"
_INPUT_VERSION = "dagster/input_data_version/"
_BEGAN_AT = "zeroetl/began_at"
_DAY = "zeroetl/day"
_EXPORTS_LOOKED_AT = 400

# Times are UTC without a zone; character columns are padded with blanks (Redshift: SYS_INTEGRATION_ACTIVITY).
_ACTIVITY = """\
SELECT max(last_commit_timestamp) AS last_commit, max(integration_end_time) AS last_applied,
  min(CASE WHEN last_commit_timestamp >= %s THEN integration_end_time END) AS passed
FROM sys_integration_activity
WHERE trim(target_database) = %s AND modified_tables > 0"""

# All columns: those that tell of detected and applied changes are newer than the view itself.
_INTEGRATION = "SELECT * FROM svv_integration WHERE trim(target_database) = %s"
_REPLICATES = "CdcRefreshState"


class NotKnown(Exception):
    """Something that the comparison needs is not recorded; the message says what."""


def build_checks(settings: SnapshotExportSettings) -> list[dg.AssetChecksDefinition]:
    """One check on each reconciled Athena mart."""
    wanted = settings.reconcile
    return [_check(settings, wanted, mart) for mart in wanted.marts] if wanted else []


def _check(settings: SnapshotExportSettings, wanted: Reconciliation, mart: ReconciledMart) -> dg.AssetChecksDefinition:
    key = AssetKey(mart.athena.split("/"))
    assert settings.athena is not None

    @dg.multi_asset_check(
        name=f"{settings.name}__{'__'.join(key.path)}__{CHECK}",
        specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=key,
                description=f"The same as `{mart.redshift}` in Redshift, as far as they can be compared.",
            )
        ],
        required_resource_keys={settings.athena, wanted.redshift},
    )
    def equals_redshift(context) -> Iterator[dg.AssetCheckResult]:  # type: ignore[no-untyped-def]
        found = reconcile(context, settings, wanted, mart)
        context.log.info(f"{mart.athena} against {mart.redshift}: {found.status}: {found.reason}")
        yield dg.AssetCheckResult(
            asset_key=key,
            check_name=CHECK,
            passed=found.status == "equal",
            # A difference is an error only where the source stood still: old periods may have been corrected since.
            severity=dg.AssetCheckSeverity.ERROR if found.certain else dg.AssetCheckSeverity.WARN,
            description=f"{found.status}: {found.reason}",
            metadata={
                VERDICT: found.status,
                "zeroetl/rows_compared": found.compared,
                "zeroetl/rows_left_out": found.left_out,
            },
        )

    return equals_redshift


def reconcile(context: Any, settings: SnapshotExportSettings, wanted: Reconciliation, mart: ReconciledMart) -> Verdict:
    """The verdict on one mart. What is not recorded, or cannot be reached, makes it "not comparable"."""
    athena, redshift = (AssetKey(key.split("/")) for key in (mart.athena, mart.redshift))
    try:
        snapshot = snapshot_time(context.instance, settings, athena)
        stream = _stream(getattr(context.resources, wanted.redshift), wanted, snapshot)
        period = Period(mart.period_column, mart.period_days) if mart.period_column else None
        within = scope(
            snapshot=snapshot,
            refreshed=_refreshed(context.instance, redshift),
            stream=stream,
            period=period,
            margin=timedelta(seconds=wanted.margin_seconds),
        )
        if not isinstance(within, Scope):
            return within
        ours = _athena_rows(context, settings, wanted, athena)
        theirs = _redshift_rows(context, wanted, redshift)
        return compare(ours, theirs, keys=mart.keys, within=within, period=period, tolerance=wanted.tolerance)
    except (NotKnown, RedshiftError, AthenaError) as error:
        return Verdict(NOT_COMPARABLE, str(error))


def snapshot_time(instance: dg.DagsterInstance, settings: SnapshotExportSettings, mart: AssetKey) -> datetime:
    """Time of the snapshot that `mart` shows (UTC), found by the data versions of what it read.

    Raises `NotKnown` when it read no table of this pipeline, or tables of several exports.
    """
    tasks = _exports_read(instance, settings, mart, seen=set())
    if not tasks:
        raise NotKnown(f"{mart.to_user_string()} has recorded no export of {settings.name} among what it read")
    if len(tasks) > 1:
        raise NotKnown(f"{mart.to_user_string()} read tables of several exports: {', '.join(sorted(tasks))}")
    (task,) = tasks
    records = instance.fetch_materializations(face.export_key(settings), limit=_EXPORTS_LOOKED_AT).records
    for record in records:
        event = record.asset_materialization
        if event and face.TASK in event.metadata and face.plain(event.metadata[face.TASK]) == task:
            if face.SNAPSHOT_TIME in event.metadata:
                return datetime.fromtimestamp(float(face.plain(event.metadata[face.SNAPSHOT_TIME])), UTC)
            raise NotKnown(f"export {task} has not recorded the time of its snapshot")
    raise NotKnown(f"export {task}, of which {mart.to_user_string()} was made, is not among the recorded ones")


def _exports_read(
    instance: dg.DagsterInstance, settings: SnapshotExportSettings, key: AssetKey, seen: set[AssetKey]
) -> set[str]:
    """Data versions (that is, export tasks) of this pipeline's tables below `key`, through marts on marts."""
    if key in seen:
        return set()
    seen.add(key)
    event = instance.get_latest_materialization_event(key)
    tags = (event.asset_materialization.tags or {}) if event and event.asset_materialization else {}
    found: set[str] = set()
    for tag, version in tags.items():
        if tag.startswith(_INPUT_VERSION):
            upstream = AssetKey.from_user_string(tag.removeprefix(_INPUT_VERSION))
            if upstream.path[0] == settings.name:
                found.add(version)
            else:
                found |= _exports_read(instance, settings, upstream, seen)
    return found


def _refreshed(instance: dg.DagsterInstance, key: AssetKey) -> datetime | None:
    """When the run that last refreshed the mart began."""
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    began = (event.asset_materialization.tags or {}).get(_BEGAN_AT)
    return datetime.fromtimestamp(float(began) if began else event.timestamp, UTC)


def _stream(redshift: Any, wanted: Reconciliation, snapshot: datetime) -> Stream:
    with redshift.session("watch") as session:
        moment = snapshot.astimezone(UTC).replace(tzinfo=None)
        (row,) = session.query(_ACTIVITY, (moment, wanted.integration_database))
        behind = _behind(list(session.query(_INTEGRATION, (wanted.integration_database,))), wanted)
    return Stream(_utc(row["last_commit"]), _utc(row["last_applied"]), _utc(row["passed"]), behind)


def _behind(integrations: list[dict[str, Any]], wanted: Reconciliation) -> str | None:
    """Why Redshift is known to lack something of the source."""
    if not integrations:
        return f"Redshift shows no integration with the database {wanted.integration_database}"
    row = integrations[0]
    state = str(row.get("state") or "").strip()
    if state != _REPLICATES:
        return f"the integration of {wanted.integration_database} is in {state}"
    detected, applied = (_utc(row.get(f"latest_{what}_change_time")) for what in ("detected", "applied"))
    if detected is not None and (applied is None or applied < detected):
        return f"a change of {detected:%Y-%m-%d %H:%M:%S} UTC is on its way to Redshift and not applied yet"
    return None


def _athena_rows(
    context: Any, settings: SnapshotExportSettings, wanted: Reconciliation, key: AssetKey
) -> list[dict[str, Any]]:
    sql = f"SELECT * FROM {qualified(*_relation(context, key)[-2:])}"
    day = _day_written(context.instance, key)
    if day is not None:  # a mart that keeps a partition for each day: this one is of the export that was found
        sql += f" WHERE {identifier(settings.catalogue.partition_key)} = {literal(day)}"
    athena = getattr(context.resources, settings.athena or "")
    return _limited(list(athena.query(f"{sql} LIMIT {wanted.max_rows + 1}").rows), wanted)


def _day_written(instance: dg.DagsterInstance, key: AssetKey) -> str | None:
    event = instance.get_latest_materialization_event(key)
    found = event.asset_materialization.metadata.get(_DAY) if event and event.asset_materialization else None
    return None if found is None else str(face.plain(found))


def _redshift_rows(context: Any, wanted: Reconciliation, key: AssetKey) -> list[dict[str, Any]]:
    relation = qualified(*_relation(context, key))
    with getattr(context.resources, wanted.redshift).session("marts") as session:
        return _limited(list(session.query(f"SELECT * FROM {relation} LIMIT {wanted.max_rows + 1}")), wanted)


def _limited(rows: list[dict[str, Any]], wanted: Reconciliation) -> list[dict[str, Any]]:
    if len(rows) > wanted.max_rows:
        raise NotKnown(f"the mart has more than {wanted.max_rows:,} rows (`reconcile.max_rows`)")
    return rows


def _relation(context: Any, key: AssetKey) -> list[str]:
    """The parts of `dagster/table_name` in the mart's spec. Raises `NotKnown`."""
    graph = context.repository_def.asset_graph
    metadata: Mapping[str, Any] = graph.get(key).metadata if graph.has(key) else {}
    name = face.plain(metadata.get("dagster/table_name"))
    if not name:
        raise NotKnown(f"there is no asset {key.to_user_string()} with a `dagster/table_name` in this code location")
    return str(name).split(".")


def _utc(value: Any) -> datetime | None:
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
