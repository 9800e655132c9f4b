"""What a user may say about marts: the options in the head of a `.sql` file, and the settings of a marts component.

Only shapes and values live here; what needs the SQL itself is checked by `marts.compile`.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from zeroetl_dagster.settings.base import Settings
from zeroetl_dagster.settings.times import Cron, TimeZone

Materialization = Literal["materialized_view", "table", "view", "partitioned"]
RedshiftMaterialization = Literal["materialized_view", "table", "view"]
AthenaMaterialization = Literal["table", "view", "partitioned"]
SensorStatus = Literal["running", "stopped"]

# Redshift SQL reference, "Names and identifiers": 1-127 bytes; the swap of a table needs room for a suffix.
_MAX_MART_NAME_BYTES = 120
_MART_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_COMPONENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_TEAM = re.compile(r"team:\S+")
_GLUE_NAME = re.compile(r"[a-z0-9_]{1,255}")
_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?")
_READER = re.compile(r"(role|group|user):.+")
_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")


class MartOptions(Settings):
    """The `-- key: value` lines at the head of a mart's file. Everything has a default."""

    description: str | None = None
    materialized: Materialization | None = None
    minimum_interval_seconds: float | None = Field(None, ge=0)
    owners: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    group: str | None = None
    diststyle: Literal["auto", "even", "all", "key"] | None = None
    distkey: str | None = Field(None, min_length=1)
    sortkey: tuple[str, ...] = ()

    @field_validator("owners", "sortkey", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("tags", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(equals and key.strip() for key, equals, _ in pairs):
            raise ValueError("write tags as `key=value, key=value`")
        return {key.strip(): tag.strip() for key, _, tag in pairs}

    @field_validator("tags")
    @classmethod
    def _dagster_tags(cls, value: dict[str, str]) -> dict[str, str]:
        return dagster_tags(value)

    @field_validator("owners")
    @classmethod
    def _dagster_owners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return dagster_owners(value)

    @model_validator(mode="after")
    def _distribution(self) -> MartOptions:
        if self.diststyle == "key" and self.distkey is None:
            raise ValueError("diststyle key needs `distkey`, the column to distribute by")
        if self.distkey is not None and self.diststyle not in (None, "key"):
            raise ValueError(f"distkey does not go with diststyle {self.diststyle}; leave one of them out")
        return self


class RetrySettings(Settings):
    """How long a failed mart is left alone: `first_seconds`, doubled with every failure in a row, at most `most`."""

    first_seconds: float = Field(60, ge=0)
    most_seconds: float = Field(3600, ge=0)

    @model_validator(mode="after")
    def _order(self) -> RetrySettings:
        if self.first_seconds > self.most_seconds:
            raise ValueError(
                f"first_seconds ({self.first_seconds:g}) must not exceed most_seconds ({self.most_seconds:g})"
            )
        return self


class NightlySettings(Settings):
    """The nightly net: a schedule that refreshes only what is stale, whatever became of the sensors."""

    cron: Cron = "0 3 * * *"
    timezone: TimeZone = "UTC"
    default_status: SensorStatus = "stopped"


class MartsSettings(Settings):
    """What the marts of every engine have in common."""

    name: str = Field(description="first part of the marts' asset keys, and their group")
    minimum_interval_seconds: float = Field(
        300,
        ge=0,
        description="a mart is refreshed at most once in this time; a refresh wakes Redshift Serverless for at least "
        "60 billed seconds",
    )
    retry: RetrySettings = RetrySettings()
    nightly: NightlySettings | None = NightlySettings()
    owners: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    pool: str | None = Field(None, min_length=1, description="Dagster pool that the refreshing step takes a slot of")

    @field_validator("name")
    @classmethod
    def _asset_key_part(cls, value: str) -> str:
        if not _COMPONENT_NAME.fullmatch(value):
            raise ValueError("letters, digits and _ only, not a digit first: it is a Dagster group and a name in SQL")
        return value

    @field_validator("owners")
    @classmethod
    def _dagster_owners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return dagster_owners(value)

    @field_validator("tags")
    @classmethod
    def _dagster_tags(cls, value: dict[str, str]) -> dict[str, str]:
        return dagster_tags(value)


class RedshiftMartsSettings(MartsSettings):
    """A folder of `.sql` files, materialised in one schema of the Redshift connection's database."""

    redshift: str = Field(min_length=1, description="the Redshift connection, by name")
    schema_name: str = Field(alias="schema", description="the schema of the marts; created when it is missing")
    database: str | None = Field(None, min_length=1, description="the marts' database; default: the connection's own")
    pipelines: dict[str, str] = Field(
        min_length=1,
        description="Redshift database of each pipeline whose name the SQL uses: `{tickit: tickit_zetl}`",
    )
    materialized: RedshiftMaterialization = "materialized_view"
    readers: tuple[str, ...] = Field(
        (), description="who may SELECT from the marts: `role:name`, `group:name`, `user:name` or `public`"
    )
    refresh_sensor: SensorStatus | None = Field(
        None, description="a sensor of its own, for marts above which no pipeline has an activity sensor"
    )
    refresh_sensor_interval_seconds: int = Field(30, ge=1)

    @field_validator("schema_name")
    @classmethod
    def _schema(cls, value: str) -> str:
        if not 0 < len(value.encode()) <= 127:
            raise ValueError("a Redshift schema name has 1 to 127 bytes")
        return value

    @field_validator("readers")
    @classmethod
    def _grantees(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for reader in value:
            if reader != "public" and not _READER.fullmatch(reader):
                raise ValueError(f"{reader!r} is neither `role:name`, `group:name`, `user:name` nor `public`")
        return value

    @field_validator("pipelines")
    @classmethod
    def _databases(cls, value: dict[str, str]) -> dict[str, str]:
        for pipeline, database in value.items():
            if not 0 < len(database.encode()) <= 127:
                raise ValueError(
                    f"the database of {pipeline!r} is {database!r}; a Redshift database has 1 to 127 bytes"
                )
        return value

    @model_validator(mode="after")
    def _own_database(self) -> RedshiftMartsSettings:
        for pipeline, database in self.pipelines.items():
            if self.database is not None and database == self.database:
                raise ValueError(
                    f"pipelines.{pipeline}: {database!r} is the marts' own database; a database made from an "
                    "integration is read-only, keep the marts in another one"
                )
        return self


class AthenaMartsSettings(MartsSettings):
    """A folder of `.sql` files, materialised in one Glue database through an Athena connection."""

    athena: str = Field(min_length=1, description="the Athena connection, by name")
    database: str = Field(description="the Glue database of the marts; created when it is missing")
    location: str | None = Field(
        None,
        description="s3://bucket/prefix of the marts' files; default: where the workgroup puts its results (which some "
        "workgroups enforce)",
    )
    exports: tuple[str, ...] = Field(
        min_length=1, description="names of the SnapshotExport components whose tables the SQL reads"
    )
    materialized: AthenaMaterialization = "table"
    partition_key: str = Field("snapshot_date", description="the day's column of `materialized: partitioned`")
    refresh_sensor: SensorStatus | None = Field(
        "running", description="asks for refreshes when an export was catalogued; it reads Dagster's own records only"
    )
    refresh_sensor_interval_seconds: int = Field(30, ge=1)

    @field_validator("database", "partition_key")
    @classmethod
    def _glue_name(cls, value: str) -> str:
        if not _GLUE_NAME.fullmatch(value):
            raise ValueError(f"{value!r}: names in Glue and Athena are lower-case letters, digits and _ only")
        return value

    @field_validator("location")
    @classmethod
    def _s3(cls, value: str | None) -> str | None:
        if value is not None and not _S3.fullmatch(value):
            raise ValueError(f"{value!r} is not s3://bucket/prefix")
        return value.rstrip("/") if value else None


def dagster_owners(owners: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError unless each is `team:name` or an e-mail address, which is all that Dagster takes."""
    for owner in owners:
        if not (_TEAM.fullmatch(owner) or _EMAIL.fullmatch(owner)):
            raise ValueError(f"{owner!r} is neither `team:name` nor an e-mail address")
    return owners


def dagster_tags(tags: dict[str, str]) -> dict[str, str]:
    """Raises ValueError for tags that Dagster refuses on an asset, and for those that are this project's or its own."""
    for key, value in tags.items():
        if key.startswith(("dagster/", "zeroetl/")):
            raise ValueError(f"{key!r}: tags beginning with dagster/ or zeroetl/ are reserved")
        if not _TAG_KEY.fullmatch(key):
            raise ValueError(
                f"{key!r}: a tag's name may hold letters, digits, _ . - only (1-63 characters), one / inside"
            )
        if not _TAG_VALUE.fullmatch(value):
            raise ValueError(
                f"the value of {key!r} is {value!r}; it may hold letters, digits, _ . - only (at most 63 characters)"
            )
    return tags


def mart_name(name: str) -> str:
    """Raises ValueError unless `name` can be a relation of every engine and a part of an asset key as it stands."""
    if not _MART_NAME.fullmatch(name) or len(name) > _MAX_MART_NAME_BYTES:
        raise ValueError(
            f"{name!r} cannot name a mart: lower-case letters, digits and _ only, not a digit first, "
            f"at most {_MAX_MART_NAME_BYTES} characters"
        )
    if name.endswith(("__new", "__old")):
        raise ValueError(f"{name!r} cannot name a mart: __new and __old are kept for the tables that are exchanged")
    return name
