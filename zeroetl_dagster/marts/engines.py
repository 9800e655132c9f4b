"""The engines' Dagster face: how a mart of each looks, and what a refresh leaves as metadata.

Numbers keep one type for each key, so that they plot over time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext, AssetKey, MetadataValue

from zeroetl_dagster.connections.redshift import RedshiftDenied, RedshiftSqlError
from zeroetl_dagster.marts import redshift
from zeroetl_dagster.marts.assets import Done, Engine, Look, build_assets
from zeroetl_dagster.marts.compile import CompiledMart, TableRef
from zeroetl_dagster.marts.recorded import InputVersion
from zeroetl_dagster.settings.marts import RedshiftMartsSettings

_STORED = {"materialized_view": "A materialized view", "table": "A table", "view": "A late-binding view"}


def redshift_assets(settings: RedshiftMartsSettings, compiled: Mapping[str, CompiledMart]) -> dg.AssetsDefinition:
    """The marts of a component in Redshift."""

    def look(mart: CompiledMart) -> Look:
        kinds = {"redshift", "sql", "table" if mart.materialized == "table" else "view"}
        name = ".".join(filter(None, (settings.database, settings.schema_name, mart.name)))
        return Look(f"{_STORED[mart.materialized]} in Redshift", frozenset(kinds), name, "redshift")

    @contextmanager
    def engine(context: AssetExecutionContext) -> Iterator[Engine]:
        warehouse = getattr(context.resources, settings.redshift)
        with warehouse.session("marts", database=settings.database) as session:
            if redshift.ensure_schema(session, settings.schema_name, settings.readers):
                context.log.info(f"created the schema {settings.schema_name}")
            yield RedshiftEngine(session, settings, compiled)

    return build_assets(settings, compiled, look, settings.redshift, engine)


@dataclass(frozen=True)
class RedshiftEngine:
    """Refreshes marts in one Redshift session."""

    session: redshift.Session
    settings: RedshiftMartsSettings
    compiled: Mapping[str, CompiledMart]
    failures: tuple[type[Exception], ...] = (RedshiftSqlError, RedshiftDenied)

    def refresh(self, mart: CompiledMart, inputs: Mapping[AssetKey, InputVersion]) -> Done:
        done = redshift.materialize(self.session, mart, self.compiled, self.settings.readers)
        return Done(redshift_metadata(mart, done), f"{done.action}, {done.rows:,} rows in {done.duration_ms:,.0f} ms")


def redshift_metadata(mart: CompiledMart, done: redshift.Materialized) -> dict[str, Any]:
    """Metadata of one refresh in Redshift."""
    sql = ";\n\n".join(done.statements) or mart.sql
    found: dict[str, Any] = {
        "dagster/row_count": done.rows,
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(c.name, c.type) for c in done.columns]),
        "zeroetl/action": done.action,
        "zeroetl/duration_ms": float(done.duration_ms),
        "zeroetl/sql": MetadataValue.md(f"```sql\n{sql}\n```"),
    }
    if done.query_id is not None:
        found["zeroetl/query_id"] = done.query_id
    if done.checkpoints:
        found["zeroetl/checkpoint"] = _checkpoints(done.checkpoints)
    if done.incremental is not None:
        found["zeroetl/incremental"] = done.incremental
    if done.gap:
        found["zeroetl/readers_gap"] = True
    return found


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
