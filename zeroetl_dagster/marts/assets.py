"""The assets of a component's Redshift marts: one step refreshes any subset of them, in order, in one session.

One step, because a process per mart would cost more than most refreshes, and because a session is a wake-up of the
warehouse. A mart that fails does not end the step: what does not read it goes on, what does is skipped, and the step
fails at the end with everything it has to say.

Each result records the data versions that the mart's inputs had just before its SQL ran, read by this step itself, so
that the recorded ones are never newer than what was read (Dagster's own are those at the start of the step).
"""

# No `from __future__ import annotations`: Dagster compares the context's annotation with its classes, not their names.

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext, AssetKey, MetadataValue

from zeroetl_dagster.connections.redshift import RedshiftDenied, RedshiftSqlError
from zeroetl_dagster.marts import due, redshift
from zeroetl_dagster.marts.compile import ColumnRef, CompiledMart, TableRef
from zeroetl_dagster.marts.recorded import (
    BEGAN_AT,
    FAILED,
    INPUT_POINTER,
    INPUT_VERSION,
    KIND,
    KIND_TAG,
    MART,
    REFRESH,
    SKIPPED,
    input_versions,
)
from zeroetl_dagster.settings.marts import RedshiftMartsSettings

# What Dagster itself records of an input that has no data version.
_NO_VERSION = "INITIAL"
_NO_POINTER = "NULL"
_STORED = {"materialized_view": "materialized view", "table": "table", "view": "late-binding view"}


def mart_key(component: str, mart: str) -> AssetKey:
    """[component, mart]"""
    return AssetKey([component, mart])


def ref_key(component: str, ref: TableRef | str) -> AssetKey:
    """The asset key of what a mart reads: [pipeline, schema, table], or another mart's."""
    return mart_key(component, ref) if isinstance(ref, str) else AssetKey(ref.key)


def input_keys(mart: CompiledMart) -> list[AssetKey]:
    """The asset keys of all that a mart reads."""
    refs: list[TableRef | str] = [*mart.tables, *mart.marts]
    return [ref_key(mart.target.name, ref) for ref in refs]


def mart_spec(settings: RedshiftMartsSettings, mart: CompiledMart) -> dg.AssetSpec:
    """The asset of one mart."""
    options = mart.model.options
    interval = options.minimum_interval_seconds
    table_name = ".".join(filter(None, (settings.database, settings.schema_name, mart.name)))
    stored = f"A {_STORED[mart.materialized]} in Redshift, refreshed when what it reads has moved."
    return dg.AssetSpec(
        mart_key(settings.name, mart.name),
        deps=input_keys(mart),
        description="\n\n".join(filter(None, (options.description, stored, *mart.notes))),
        group_name=options.group or settings.name,
        code_version=mart.code_version,
        kinds={"redshift", "sql", "table" if mart.materialized == "table" else "view"},
        owners=[*settings.owners, *(owner for owner in options.owners if owner not in settings.owners)],
        tags={**settings.tags, **options.tags, KIND_TAG: KIND},
        skippable=True,
        metadata={
            MART: settings.name,
            REFRESH: MetadataValue.json(
                {
                    "minimum_interval_seconds": settings.minimum_interval_seconds if interval is None else interval,
                    "retry_first_seconds": settings.retry.first_seconds,
                    "retry_most_seconds": settings.retry.most_seconds,
                    "is_view": mart.materialized == "view",
                }
            ),
            "dagster/table_name": table_name,
            "dagster/storage_kind": "redshift",
            "dagster/code_references": dg.CodeReferencesMetadataValue(
                code_references=[
                    dg.LocalFileCodeReference(
                        file_path=str(mart.model.path), line_number=mart.model.sql_line, label=mart.model.path.name
                    )
                ]
            ),
        },
    )


def build_assets(settings: RedshiftMartsSettings, compiled: Mapping[str, CompiledMart]) -> dg.AssetsDefinition:
    """All marts of a component as one definition that can be subset."""

    @dg.multi_asset(
        name=settings.name,
        specs=[mart_spec(settings, mart) for mart in compiled.values()],
        can_subset=True,
        required_resource_keys={settings.redshift},
        pool=settings.pool,
    )
    def marts(context: AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        keys = context.selected_asset_keys
        selected = [mart for mart in compiled.values() if mart_key(settings.name, mart.name) in keys]
        warehouse = getattr(context.resources, settings.redshift)
        with _session(warehouse, settings) as session:
            if redshift.ensure_schema(session, settings.schema_name, settings.readers):
                context.log.info(f"created the schema {settings.schema_name}")
            yield from _Step(context, session, settings, compiled).refresh(selected)

    return marts


@dataclass
class _Step:
    """One execution: what was made, what failed, what was left out because of it."""

    context: AssetExecutionContext
    session: redshift.Session
    settings: RedshiftMartsSettings
    compiled: Mapping[str, CompiledMart]
    began_at: float = field(default_factory=time.time)
    made: dict[AssetKey, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def refresh(self, marts: Sequence[CompiledMart]) -> Iterator[dg.MaterializeResult]:
        """Raises dagster.Failure at the end when a mart failed, and at once what concerns the whole session."""
        for mart in marts:
            lost = [name for name in mart.marts if name in self._lost()]
            if lost:
                self.skipped.append(mart.name)
                self.context.log.warning(f"{mart.name} is left out: it reads {', '.join(lost)}, which failed")
                continue
            inputs = self._input_tags(mart)
            try:
                done = redshift.materialize(self.session, mart, self.compiled, self.settings.readers)
            except (RedshiftSqlError, RedshiftDenied) as error:
                self.failed[mart.name] = str(error)
                self.context.log.error(f"{mart.name} failed: {error}")
                continue
            self.context.log.info(f"{mart.name}: {done.action}, {done.rows:,} rows in {done.duration_ms:,.0f} ms")
            yield self._result(mart, done, inputs)
        if self.failed:
            raise self._failure()

    def _lost(self) -> set[str]:
        return {*self.failed, *self.skipped}

    def _input_tags(self, mart: CompiledMart) -> dict[AssetKey, tuple[str, str]]:
        """Data version and event pointer of every input, as they are before the mart's SQL runs."""
        keys = input_keys(mart)
        found = input_versions(self.context.instance, keys)
        tags: dict[AssetKey, tuple[str, str]] = {}
        for key in keys:
            version, pointer = found.get(key, (_NO_VERSION, _NO_POINTER))
            tags[key] = (self.made.get(key, version), str(pointer))
        return tags

    def _result(
        self, mart: CompiledMart, done: redshift.Materialized, inputs: Mapping[AssetKey, tuple[str, str]]
    ) -> dg.MaterializeResult:
        key = mart_key(self.settings.name, mart.name)
        versions = {k.to_user_string(): version for k, (version, _) in inputs.items()}
        self.made[key] = due.data_version(mart.code_version, versions)
        return dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(self.made[key]),
            metadata=metadata(self.settings, mart, done),
            tags={
                **{f"{INPUT_VERSION}{k.to_user_string()}": version for k, (version, _) in inputs.items()},
                **{f"{INPUT_POINTER}{k.to_user_string()}": pointer for k, (_, pointer) in inputs.items()},
                BEGAN_AT: f"{self.began_at:.3f}",
            },
        )

    def _failure(self) -> dg.Failure:
        lines = [f"{name}: {error}" for name, error in self.failed.items()]
        if self.skipped:
            lines.append(f"left out because of it: {', '.join(self.skipped)}")
        component = self.settings.name
        return dg.Failure(
            f"{len(self.failed)} of the marts failed:\n" + "\n".join(lines),
            metadata={
                FAILED: MetadataValue.json(
                    {mart_key(component, n).to_user_string(): e for n, e in self.failed.items()}
                ),
                SKIPPED: MetadataValue.json([mart_key(component, name).to_user_string() for name in self.skipped]),
            },
        )


def metadata(settings: RedshiftMartsSettings, mart: CompiledMart, done: redshift.Materialized) -> dict[str, Any]:
    """Metadata of one refresh; numbers keep one type, so that they plot over time."""
    sql = ";\n\n".join(done.statements) or mart.sql
    found: dict[str, Any] = {
        "dagster/row_count": done.rows,
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(c.name, c.type) for c in done.columns]),
        "zeroetl/action": done.action,
        "zeroetl/duration_ms": float(done.duration_ms),
        "zeroetl/sql": MetadataValue.md(f"```sql\n{sql}\n```"),
    }
    if mart.lineage:
        found["dagster/column_lineage"] = _lineage(settings.name, mart.lineage)
    if done.query_id is not None:
        found["zeroetl/query_id"] = done.query_id
    if done.checkpoints:
        found["zeroetl/checkpoint"] = _checkpoints(done.checkpoints)
    if done.incremental is not None:
        found["zeroetl/incremental"] = done.incremental
    if done.gap:
        found["zeroetl/readers_gap"] = True
    return found


def _lineage(component: str, lineage: Mapping[str, tuple[ColumnRef, ...]]) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(ref_key(component, ref.relation), ref.column) for ref in refs]
            for column, refs in lineage.items()
        }
    )


def _checkpoints(checkpoints: Mapping[TableRef, redshift.Checkpoint]) -> MetadataValue:
    return MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "table": f"{table.schema}.{table.table}",
                    "state": found.state,
                    "checkpoint": found.checkpoint,
                    "last_updated": str(found.last_updated or ""),
                }
            )
            for table, found in sorted(checkpoints.items())
        ]
    )


def _session(warehouse: Any, settings: RedshiftMartsSettings) -> AbstractContextManager[redshift.Session]:
    found: AbstractContextManager[redshift.Session] = warehouse.session("marts", database=settings.database)
    return found
