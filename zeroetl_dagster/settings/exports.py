"""What a user may say about one snapshot export: source, destination, tables, catalogue, schedule, waiting.

The rules checked here are those that AWS would refuse (or silently misread) hours later, so that a bad value is one
message at load time. Sources: RDS API reference, `StartExportTask`; Aurora guide, "Considerations for DB cluster
snapshot exports".
"""

from __future__ import annotations

import re
from datetime import date
from typing import Literal

from pydantic import Field, field_validator, model_validator

from zeroetl_dagster.settings.base import DefsStateSettings, Settings
from zeroetl_dagster.settings.times import Cron, TimeZone

Engine = Literal["aurora-postgresql", "aurora-mysql", "postgres", "mysql", "mariadb"]
SnapshotType = Literal["automated", "manual", "awsbackup", "shared", "public"]

# "Partial export only if names use A-Z a-z 0-9 $ _" (Considerations for DB cluster snapshot exports).
_PARTIAL_EXPORT_NAME = re.compile(r"[A-Za-z0-9$_]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GLUE_NAME = re.compile(r"[a-z0-9_]{1,255}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # S3 user guide, "General purpose bucket naming rules"
_SOURCE_TYPE = re.compile(r"(?:numeric|decimal)\(\s*(\d+)\s*,\s*(\d+)\s*\)", re.IGNORECASE)
_MAX_DIGITS = 38  # of Trino's decimals
_MAX_EXPORT_ONLY_BYTES = 200 * 1024


class ExportSource(Settings):
    """The database whose snapshots are exported: an Aurora cluster or an RDS instance.

    `aws` names another `connections` account when the database lives in one that is not the analytics account (its
    `assume_role` is used to look for snapshots and to start, watch and cancel the task, which lives there).
    """

    cluster: str | None = None
    instance: str | None = None
    engine: Engine
    database: str = Field(min_length=1)
    aws: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ExportSource:
        if (self.cluster is None) == (self.instance is None):
            raise ValueError("give exactly one of `cluster` (Aurora, Multi-AZ cluster) and `instance` (RDS instance)")
        if self.instance is not None and self.engine.startswith("aurora"):
            raise ValueError(f"engine {self.engine} has cluster snapshots: name the `cluster`, not the `instance`")
        return self

    @property
    def is_cluster(self) -> bool:
        return self.cluster is not None

    @property
    def identifier(self) -> str:
        """The cluster's or instance's own identifier."""
        return self.cluster or self.instance or ""

    @property
    def is_mysql(self) -> bool:
        """MySQL and MariaDB have no schemas: a table is `table`, exported below `database/database.table/`."""
        return self.engine in ("aurora-mysql", "mysql", "mariadb")


class CrawlerSettings(Settings):
    """A Glue crawler that reads the exports.

    `manage: create` makes it and keeps its settings as this project needs them; `adopt` uses one made elsewhere, checks
    its settings and changes nothing but its targets. It crawls into `database` of its own (default: the catalogue's
    name with `_crawl` appended), from which the tables of the catalogue take their columns: see `exports.crawler`.
    """

    name: str = Field(min_length=1, max_length=255)
    role: str | None = None
    manage: Literal["create", "adopt"] = "create"
    database: str | None = None

    @model_validator(mode="after")
    def _role_to_create(self) -> CrawlerSettings:
        if self.manage == "create" and not self.role:
            raise ValueError("`role` is needed to create the crawler (name or ARN of a role for glue.amazonaws.com)")
        return self


class CatalogueSettings(Settings):
    """Where the tables appear. `register` reads the export's own manifest (no DPU); `crawler` asks a Glue crawler.

    `source_types` says what the manifest does not: `numeric(p,s)` of columns, by table, for their typed views.
    """

    mode: Literal["register", "crawler"] = "register"
    database: str
    crawler: CrawlerSettings | None = None
    partition_key: str = "snapshot_date"
    names: dict[str, str] = Field(default_factory=dict)
    source_types: dict[str, dict[str, str]] = Field(default_factory=dict)

    @field_validator("source_types")
    @classmethod
    def _numeric_types(cls, value: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        for table, columns in value.items():
            for column, kind in columns.items():
                found = _SOURCE_TYPE.fullmatch(kind)
                if found is None or not 0 <= int(found[2]) <= int(found[1]) <= _MAX_DIGITS or int(found[1]) == 0:
                    raise ValueError(
                        f"{table}: {column}: {kind!r} is not `numeric(p,s)` with 1 <= p <= 38 and 0 <= s <= p"
                    )
        return value

    @field_validator("database", "partition_key")
    @classmethod
    def _lower_case(cls, value: str) -> str:
        return _glue_name(value)

    @field_validator("names")
    @classmethod
    def _names_lower_case(cls, value: dict[str, str]) -> dict[str, str]:
        return {table: _glue_name(name) for table, name in value.items()}

    @model_validator(mode="after")
    def _crawler_where_needed(self) -> CatalogueSettings:
        if self.mode == "crawler" and self.crawler is None:
            raise ValueError("`mode: crawler` needs `crawler:` with its `name` and `role`")
        if self.mode == "register" and self.crawler is not None:
            raise ValueError("`crawler:` is given, but `mode` is register: set `mode: crawler` or leave `crawler:` out")
        if self.crawler is not None and self.crawler_database == self.database:
            raise ValueError("`crawler.database` must differ from `database`: the crawler's tables live for one export")
        return self

    @property
    def crawler_database(self) -> str:
        """The database the crawler writes to."""
        return (self.crawler.database if self.crawler else None) or f"{self.database}_crawl"


class ExportSchedule(Settings):
    """When the day's export is asked for. The partition is the day it is in `time_zone` at that moment."""

    cron: Cron = "0 16 * * *"
    timezone: TimeZone = "UTC"
    default_status: Literal["running", "stopped"] = "stopped"


class ExportWait(Settings):
    """How the export is waited for: in the run, or by the completion sensor after the run has ended.

    `timeout_seconds` counts from the run's first look; a timeout never cancels the task (a retry finds it again).
    `on_termination` says what a terminated run does with the task it waits for.
    """

    mode: Literal["run", "sensor"] = "run"
    timeout_seconds: int = Field(default=6 * 3600, ge=60, le=7 * 24 * 3600)
    on_termination: Literal["cancel", "leave"] = "cancel"
    sensor_status: Literal["running", "stopped"] = "running"


class ReconciledMart(Settings):
    """A mart that exists in both engines. `athena` and `redshift` are asset keys, written `component/mart`.

    `period_column` holds the first day of what a row stands for, `period_days` how many days that is; with them, what
    had ended before the snapshot can be compared although the source goes on.
    """

    athena: str = Field(pattern=r"^[^/]+(/[^/]+)+$")
    redshift: str = Field(pattern=r"^[^/]+(/[^/]+)+$")
    keys: tuple[str, ...] = Field(min_length=1)
    period_column: str | None = None
    period_days: int = Field(default=1, ge=1)


class Reconciliation(Settings):
    """Hold the marts of a snapshot against those of the stream, where both paths exist.

    `integration_database` is the Redshift database that was made from the integration (its activity tells whether the
    source was quiet). `tolerance` is relative; `margin_seconds` before the snapshot count as after it.

    The check runs after each refresh of the Athena mart; while it was "not comparable", again after the Redshift mart
    was refreshed, at most every `recheck_seconds`. Both are asked for by a sensor (`sensor_status`).
    """

    redshift: str
    integration_database: str = Field(min_length=1)
    marts: tuple[ReconciledMart, ...] = Field(min_length=1)
    tolerance: float = Field(default=1e-6, ge=0)
    margin_seconds: float = Field(default=0, ge=0)
    max_rows: int = Field(default=200_000, ge=1)
    recheck_seconds: float = Field(default=900, ge=0)
    sensor_status: Literal["running", "stopped"] = "running"
    sensor_interval_seconds: int = Field(default=30, ge=1)


class SnapshotExportSettings(Settings):
    """One snapshot export. Raises (through `settings.errors.parse`) one message that names the YAML path.

    `make_snapshot: when_missing` takes one for today's partition when it has none; what was made for an export is
    deleted after it, unless `keep_made_snapshots`.
    """

    name: str
    aws: str
    athena: str | None = None
    source: ExportSource
    bucket: str
    prefix: str = ""
    kms_key: str = Field(min_length=1)
    export_role: str
    tables: Literal["all"] | tuple[str, ...] = "all"
    snapshot_types: tuple[SnapshotType, ...] = Field(default=("automated", "manual"), min_length=1)
    make_snapshot: Literal["never", "when_missing"] = "never"
    keep_made_snapshots: bool = False
    catalogue: CatalogueSettings
    retention_days: int | None = Field(default=None, ge=1)
    schedule: ExportSchedule | None = ExportSchedule()
    time_zone: TimeZone = "UTC"
    start_date: date
    wait: ExportWait = ExportWait()
    reconcile: Reconciliation | None = None
    defs_state: DefsStateSettings = DefsStateSettings()

    @field_validator("name")
    @classmethod
    def _asset_key_part(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"{value!r} begins asset keys: letters, digits and _ only, not beginning with a digit")
        return value

    @field_validator("bucket")
    @classmethod
    def _bucket_name(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value):
            raise ValueError(
                f"{value!r} is not the name of a bucket: 3 to 63 lower-case letters, digits, . and -, without s3:// (a "
                "folder in it goes to `prefix`)"
            )
        return value

    @field_validator("prefix")
    @classmethod
    def _no_colon(cls, value: str) -> str:
        if ":" in value:
            raise ValueError(f"{value!r}: exports do not support a colon in the S3 prefix")
        if "//" in value:
            raise ValueError(f"{value!r}: an empty folder name in the S3 prefix makes paths that Glue cannot read")
        return value.strip("/")

    @field_validator("export_role")
    @classmethod
    def _role_arn(cls, value: str) -> str:
        if not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/.+", value):
            raise ValueError(f"{value!r} is not a role ARN (arn:aws:iam::123456789012:role/NAME)")
        return value

    @field_validator("tables")
    @classmethod
    def _no_duplicates(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, tuple):
            twice = sorted({table for table in value if value.count(table) > 1})
            if twice:
                raise ValueError(f"{', '.join(twice)}: listed twice")
            if not value:
                raise ValueError("an empty list exports nothing: list tables, or say `all`")
        return value

    @model_validator(mode="after")
    def _athena_to_reconcile(self) -> SnapshotExportSettings:
        if self.reconcile is not None and self.athena is None:
            raise ValueError("reconcile: marts are read through Athena: name its connection with `athena`")
        return self

    @model_validator(mode="after")
    def _tables_can_be_exported(self) -> SnapshotExportSettings:
        if self.tables == "all":
            return self
        form, parts = ("table", 1) if self.source.is_mysql else ("schema.table", 2)
        for table in self.tables:
            names = table.split(".")
            if len(names) != parts:
                raise ValueError(f"tables: {table!r} must be written `{form}` for engine {self.source.engine}")
            for name in (self.source.database, *names):
                if not _PARTIAL_EXPORT_NAME.fullmatch(name):
                    raise ValueError(
                        f"tables: {name!r} in {table!r}: AWS exports chosen tables only where every name uses A-Z a-z "
                        "0-9 $ _; say `tables: all` (partial exports cost the same as full ones)"
                    )
        size = sum(len(item.encode()) for item in self.export_only)
        if size > _MAX_EXPORT_ONLY_BYTES:
            raise ValueError(f"tables: the list is {size:,} bytes, ExportOnly may hold 200 KB; say `tables: all`")
        return self

    @property
    def export_only(self) -> tuple[str, ...]:
        """ExportOnly of `start_export_task`, sorted; empty where a name's characters forbid a partial export."""
        if self.tables == "all":
            whole = _PARTIAL_EXPORT_NAME.fullmatch(self.source.database)
            return (self.source.database,) if whole else ()
        return tuple(sorted(f"{self.source.database}.{table}" for table in self.tables))

    @property
    def source_aws(self) -> str:
        """Name of the account connection in which snapshots and export tasks live."""
        return self.source.aws or self.aws


def _glue_name(value: str) -> str:
    if not _GLUE_NAME.fullmatch(value):
        raise ValueError(f"{value!r}: names in Glue and Athena are lower-case letters, digits and _ only")
    return value
