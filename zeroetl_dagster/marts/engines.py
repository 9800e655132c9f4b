"""The engines' Dagster face: how a mart of each looks, and what a refresh leaves as metadata.

Numbers keep one type for each key, so that they plot over time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from botocore.exceptions import ClientError
from dagster import AssetExecutionContext, AssetKey, MetadataValue

from zeroetl_dagster.connections.athena import AthenaError
from zeroetl_dagster.connections.redshift import RedshiftDenied, RedshiftSqlError
from zeroetl_dagster.marts import athena, redshift
from zeroetl_dagster.marts.assets import Done, Engine, Look, build_assets
from zeroetl_dagster.marts.compile import CompiledMart, TableRef
from zeroetl_dagster.marts.model import MartError
from zeroetl_dagster.marts.recorded import InputVersion
from zeroetl_dagster.settings.marts import AthenaMartsSettings, RedshiftMartsSettings
from zeroetl_dagster.settings.prices import athena_usd, rpu_usd

_ATHENA_STORED = {
    "table": "A table in Athena (Parquet)",
    "partitioned": "A table in Athena (Parquet) with a partition for each day",
    "view": "A view in Athena",
}
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
            rpu = warehouse.base_rpu()
            yield RedshiftEngine(session, settings, compiled, rpu, warehouse.aws.region if rpu else "")

    return build_assets(settings, compiled, look, settings.redshift, engine)


@dataclass(frozen=True)
class RedshiftEngine:
    """Refreshes marts in one Redshift session. `rpu`: the workgroup's base capacity, None where none is billed."""

    session: redshift.Session
    settings: RedshiftMartsSettings
    compiled: Mapping[str, CompiledMart]
    rpu: int | None
    region: str
    failures: tuple[type[Exception], ...] = (RedshiftSqlError, RedshiftDenied, MartError)

    def refresh(self, mart: CompiledMart, inputs: Mapping[AssetKey, InputVersion]) -> Done:
        done = redshift.materialize(self.session, mart, self.compiled, self.settings.readers)
        metadata = redshift_metadata(mart, done)
        if self.rpu:
            metadata |= _compute(self.rpu * done.duration_ms / 1000, self.region)
        return Done(metadata, f"{done.action}, {done.rows:,} rows in {done.duration_ms:,.0f} ms")


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


def _compute(rpu_seconds: float, region: str) -> dict[str, float]:
    """Of the mart's own statements. Each time the workgroup wakes up it bills 60 seconds at the least (Redshift
    management guide, Billing for Amazon Redshift Serverless), which what runs in them shares: not told here."""
    return {"zeroetl/rpu_seconds": rpu_seconds, "zeroetl/estimated_cost_usd": float(rpu_usd(rpu_seconds, region))}


def athena_assets(settings: AthenaMartsSettings, compiled: Mapping[str, CompiledMart]) -> dg.AssetsDefinition:
    """The marts of a component in Athena."""
    place = athena.Place(settings.database, settings.location, settings.partition_key)

    def look(mart: CompiledMart) -> Look:
        kinds = {"athena", "sql", "view" if mart.materialized == "view" else "parquet"}
        name = f"AwsDataCatalog.{settings.database}.{mart.name}"
        return Look(_ATHENA_STORED[mart.materialized], frozenset(kinds), name, "glue")

    @contextmanager
    def engine(context: AssetExecutionContext) -> Iterator[Engine]:
        connection = getattr(context.resources, settings.athena)
        if athena.ensure_database(connection, settings.database):
            context.log.info(f"created the database {settings.database}")
        yield AthenaEngine(connection, place)

    return build_assets(settings, compiled, look, settings.athena, engine)


@dataclass(frozen=True)
class AthenaEngine:
    """Refreshes marts through one Athena connection."""

    connection: Any
    place: athena.Place
    failures: tuple[type[Exception], ...] = (AthenaError, MartError, ClientError)

    def refresh(self, mart: CompiledMart, inputs: Mapping[AssetKey, InputVersion]) -> Done:
        day = _day(mart, inputs) if mart.materialized == "partitioned" else None
        done = athena.materialize(self.connection, mart, self.place, day=day)
        rows = f"{done.rows:,} rows, " if done.rows is not None else ""
        seen = f"{done.scanned_bytes:,} bytes scanned in {done.duration_ms:,} ms"
        return Done(athena_metadata(done, self.connection.aws.region), f"{done.action}, {rows}{seen}")


def athena_metadata(done: athena.Materialized, region: str) -> dict[str, Any]:
    """Metadata of one refresh in Athena."""
    found: dict[str, Any] = {
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(c.name, c.type) for c in done.columns]),
        "zeroetl/action": done.action,
        "zeroetl/sql": MetadataValue.md(f"```sql\n{done.sql}\n```"),
        "zeroetl/scanned_bytes": done.scanned_bytes,
        "zeroetl/estimated_cost_usd": float(athena_usd(done.scanned_bytes)),
        "zeroetl/duration_ms": float(done.duration_ms),
        "zeroetl/queue_ms": float(done.queue_ms),
        "zeroetl/reused": done.reused,
    }
    if done.rows is not None:
        found["dagster/row_count"] = done.rows
    if done.day is not None:
        found["zeroetl/day"] = done.day
    if done.query_id is not None:
        found["zeroetl/query_id"] = done.query_id
        found["zeroetl/athena_console"] = MetadataValue.url(
            f"https://{region}.console.aws.amazon.com/athena/home?region={region}#/query-editor/history/{done.query_id}"
        )
    if done.gap:
        found["zeroetl/readers_gap"] = True
    return found


def _day(mart: CompiledMart, inputs: Mapping[AssetKey, InputVersion]) -> str | None:
    days = {one.partition for one in inputs.values() if one.partition is not None}
    if len(days) > 1:
        told = ", ".join(f"{key.to_user_string()} {one.partition}" for key, one in sorted(inputs.items()))
        raise MartError(f"{mart.model.path}: what it reads is of different days, so it has none to write: {told}")
    return next(iter(days), None)


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
