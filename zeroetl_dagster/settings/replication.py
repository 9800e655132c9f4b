"""What a user may say about one zero-ETL pipeline: source, target, filter, tables, what is managed, sensor, checks.

Only shapes and values live here. What needs the filter's grammar (a listed table that the filter leaves out, say) is
checked by `replication.configuration`, with the same wording.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from zeroetl_dagster.settings.base import VARIABLE, DefsStateSettings, Settings

Engine = Literal["aurora-postgresql", "aurora-mysql", "postgres", "mysql"]
Mode = Literal["ensure", "verify"]

# Dagster's rule for group names, and a name that plain SQL can write as the first part of `pipeline.schema.table`.
_PIPELINE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")
# botocore's rds model, CreateIntegration: 1-63 characters.
_INTEGRATION = re.compile(r"[a-zA-Z](?:-?[a-zA-Z0-9]+)*")
# Redshift SQL reference, "Names and identifiers": 1-127 bytes.
_MAX_IDENTIFIER_BYTES = 127
_QUOTED_OR_BARE = re.compile(r'"((?:[^"]|"")+)"|([^".\s]+)')
RESERVED_TAG_PREFIX = "zeroetl:"


class TableName(NamedTuple):
    """A replicated table by its Redshift name: for MySQL the schema is the MySQL database."""

    schema: str
    table: str

    def __str__(self) -> str:
        return ".".join(part if re.fullmatch(r"[\w$-]+", part) else _quote(part) for part in self)


def parse_table_name(text: Any) -> TableName:
    """`schema.table`, a part in double quotes when it holds a dot, a blank or a quote. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(_TABLE_ERROR.format(text))
    parts: list[str] = []
    at = 0
    while True:
        found = _QUOTED_OR_BARE.match(text, at)
        if found is None:
            raise ValueError(_TABLE_ERROR.format(text))
        parts.append(found[2] or found[1].replace('""', '"'))
        at = found.end()
        if at == len(text):
            break
        if text[at] != ".":
            raise ValueError(_TABLE_ERROR.format(text))
        at += 1
    if len(parts) != 2:
        raise ValueError(_TABLE_ERROR.format(text))
    return TableName(*parts)


_TABLE_ERROR = (
    "{0!r} is not `schema.table` (MySQL: `database.table`); "
    'quote a part that holds a dot, a blank or a quote: `sales."Order Lines"`'
)


class SourceSettings(Settings):
    """The operational database: an Aurora cluster (`cluster`) or an RDS instance (`instance`)."""

    engine: Engine = Field(description="aurora-postgresql, aurora-mysql, postgres (RDS) or mysql (RDS)")
    cluster: str | None = Field(None, min_length=1, description="Aurora: the DB cluster identifier")
    instance: str | None = Field(None, min_length=1, description="RDS: the DB instance identifier")
    database: str | None = Field(None, min_length=1, description="PostgreSQL: the database that is replicated")

    @model_validator(mode="after")
    def _one_source(self) -> SourceSettings:
        wanted, other = ("cluster", "instance") if self.engine.startswith("aurora") else ("instance", "cluster")
        if getattr(self, wanted) is None:
            raise ValueError(f"engine {self.engine} needs `{wanted}`, the identifier of its DB {wanted}")
        if getattr(self, other) is not None:
            raise ValueError(f"engine {self.engine} is named by `{wanted}`; remove `{other}`")
        if self.engine in ("aurora-postgresql", "postgres"):
            if self.database is None:
                raise ValueError(
                    f"engine {self.engine} needs `database`: one Redshift database is made from one source database"
                )
        elif self.database is not None:
            raise ValueError(
                f"engine {self.engine} takes no `database`: every MySQL database becomes a schema of the target; "
                "choose databases with `data_filter`"
            )
        return self

    @property
    def identifier(self) -> str:
        """The cluster's or the instance's identifier."""
        return self.cluster or self.instance or ""


class TargetOptions(Settings):
    """Options of CREATE DATABASE … FROM INTEGRATION. Only what is written here is set and compared."""

    query_all_states: bool | None = Field(None, description="tables can be queried in every state, not only Synced")
    acceptinvchars: bool | None = Field(None, description="invalid characters become `?` instead of failing the table")
    refresh_interval_seconds: int | None = Field(None, ge=0, le=432_000, description="wait after a refresh cycle")
    truncatecolumns: bool | None = Field(None, description="over-long values are cut instead of failing the table")
    auto_remediation: bool | None = Field(None, description="tables with duplicate rows are resynced by Redshift")
    history_mode: bool | None = Field(None, description="keep every version of every row")


class TargetSettings(Settings):
    """The Redshift database that is made from the integration, in the namespace of the `redshift` connection."""

    database: str = Field(min_length=1)
    options: TargetOptions = TargetOptions()

    @field_validator("database")
    @classmethod
    def _identifier(cls, value: str) -> str:
        if len(value.encode()) > _MAX_IDENTIFIER_BYTES:
            raise ValueError(f"a Redshift database name has at most {_MAX_IDENTIFIER_BYTES} bytes")
        return value


class ManageSettings(Settings):
    """`ensure` creates and corrects, `verify` only compares and says what differs.

    Source parameters are only verified unless said otherwise: correcting them touches a production database and takes
    effect with a reboot, which happens only where `reboot_source` (for Redshift: `reboot_target`) allows it.
    """

    source_parameters: Mode = "verify"
    target_policy: Mode = "ensure"
    case_sensitive: Mode = "ensure"
    integration: Mode = "ensure"
    database: Mode = "ensure"
    reboot_source: bool = False
    reboot_target: bool = False


class WaitSettings(Settings):
    """How long a provisioning step waits. AWS takes minutes to an hour; a large seed can take many."""

    integration_seconds: int = Field(3600, ge=1)
    tables_seconds: int = Field(7200, ge=1)
    reboot_seconds: int = Field(1800, ge=1)


class SensorSettings(Settings):
    """The activity sensor. CloudWatch is asked on every tick; SQL only when it says that something was applied."""

    interval_seconds: int = Field(30, ge=1)
    sql: Literal["when_applied", "every_tick"] = Field(
        "when_applied", description="every_tick suits a provisioned cluster, where SQL costs nothing extra"
    )
    minimum_sql_interval_seconds: int = Field(
        900, ge=1, description="while CloudWatch has no metrics, SQL is asked at most once in this time"
    )
    events_per_tick: int = Field(500, ge=10, le=5000, description="an event costs Dagster about 14 ms to store")
    default_status: Literal["running", "stopped"] = "stopped"
    lag_warning_seconds: float = Field(300, gt=0)
    lag_error_seconds: float = Field(3600, gt=0)
    metrics_namespace: str = Field("AWS/Redshift", min_length=1)

    @model_validator(mode="after")
    def _thresholds(self) -> SensorSettings:
        if self.lag_warning_seconds > self.lag_error_seconds:
            raise ValueError(
                f"lag_warning_seconds ({self.lag_warning_seconds:g}) must not exceed "
                f"lag_error_seconds ({self.lag_error_seconds:g})"
            )
        return self


class SourceLogin(Settings):
    """How the row count check logs in to the source: `secret: managed` is the secret that RDS keeps for the master."""

    secret: str | None = Field(None, description="`managed`, or the ARN of a secret with username and password")
    user: str | None = Field(None, min_length=1)
    password_env: str | None = Field(None, description="name of the environment variable that holds the password")
    endpoint: str | None = Field(None, description="host:port instead of the described endpoint, as for a tunnel")

    @property
    def given(self) -> bool:
        """Whether it says how to log in."""
        return self.secret is not None or self.user is not None

    @model_validator(mode="after")
    def _one_way(self) -> SourceLogin:
        if self.secret is not None and (self.user is not None or self.password_env is not None):
            raise ValueError("give `secret`, or `user` with `password_env`, not both")
        if (self.user is None) != (self.password_env is None):
            missing = "user" if self.user is None else "password_env"
            raise ValueError(f"`user` and `password_env` go together; `{missing}` is missing")
        # Not shown: who misunderstands these two may have written the password itself.
        if self.password_env is not None and not VARIABLE.fullmatch(self.password_env):
            raise ValueError("`password_env` must be the name of an environment variable, like SOURCE_PASSWORD")
        if self.secret is not None and self.secret != "managed" and not self.secret.startswith("arn:"):
            raise ValueError(
                "`secret` is neither `managed` nor the ARN of a secret; a password itself never stands here, but in an "
                "environment variable: `user` with `password_env`"
            )
        if self.endpoint is not None and not re.fullmatch(r".+:\d{1,5}", self.endpoint):
            raise ValueError(f"endpoint must be host:port, found {self.endpoint!r}")
        return self


class ChecksSettings(Settings):
    """Which checks are defined. `row_counts` needs a network path and a driver to the source."""

    synced_but_empty: bool = True
    row_counts: bool = Field(True, description="defined where `source_login` says how to log in")
    row_counts_tolerance: float = Field(0.0, ge=0, le=1, description="allowed difference as a share of the source")
    source_login: SourceLogin = SourceLogin()


class IntegrationSettings(Settings):
    """One pipeline: a source, the integration, and the Redshift database made from it."""

    name: str = Field(description="the pipeline: asset key prefix, group, and first part of names in mart SQL")
    redshift: str = Field(min_length=1, description="the Redshift connection, by name")
    aws: str | None = Field(None, min_length=1, description="the source's AWS account; default: the target's")
    source: SourceSettings
    target: TargetSettings
    integration_name: str | None = Field(None, max_length=63)
    description: str | None = Field(None, max_length=1000)
    data_filter: str | None = Field(None, description="include: db.schema.*, exclude: … (required for PostgreSQL)")
    kms_key: str | None = Field(None, min_length=1, description="id, ARN or alias; default: a key that AWS owns")
    tags: dict[str, str] = Field(default_factory=dict, description="AWS tags of the integration")
    tables: tuple[TableName, ...] | Literal["discover"] = "discover"
    manage: ManageSettings = ManageSettings()
    wait: WaitSettings = WaitSettings()
    sensor: SensorSettings = SensorSettings()
    checks: ChecksSettings = ChecksSettings()
    defs_state: DefsStateSettings = DefsStateSettings()

    @field_validator("name")
    @classmethod
    def _pipeline_name(cls, value: str) -> str:
        if not _PIPELINE.fullmatch(value):
            raise ValueError("letters, digits and _ only, not a digit first: it is a Dagster group and a name in SQL")
        return value

    @field_validator("integration_name")
    @classmethod
    def _name_of_integration(cls, value: str | None) -> str | None:
        if value is not None and not _INTEGRATION.fullmatch(value):
            raise ValueError("letters, digits and single hyphens, a letter first, no hyphen last (1-63 characters)")
        return value

    @field_validator("tables", mode="before")
    @classmethod
    def _tables(cls, value: Any) -> Any:
        if value == "discover":
            return value
        if not isinstance(value, list | tuple):
            raise ValueError(f"found {value!r}; it must be a list of `schema.table`, or the word discover")
        names = tuple(one if isinstance(one, TableName) else parse_table_name(one) for one in value)
        if not names:
            raise ValueError("lists no table; leave it out (or write discover) to take every replicated table")
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"lists {', '.join(twice)} more than once")
        return names

    @field_validator("tags")
    @classmethod
    def _tag_names(cls, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            if key.startswith(("aws:", RESERVED_TAG_PREFIX)):
                raise ValueError(f"{key!r}: tags starting with aws: or {RESERVED_TAG_PREFIX} are reserved")
        return value

    @property
    def integration(self) -> str:
        """The integration's name: as configured, or `zeroetl-<pipeline>`."""
        if self.integration_name is not None:
            return self.integration_name
        words = re.sub(r"[^A-Za-z0-9]+", "-", self.name).strip("-") or "pipeline"
        return f"zeroetl-{words}"[:63].rstrip("-")


def _quote(part: str) -> str:
    return '"' + part.replace('"', '""') + '"'
