"""What the assets, checks, jobs and the sensor of a pipeline share: keys, connections of a run, metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import dagster as dg
from dagster import AssetKey

from zeroetl_dagster.connections.aws import Aws
from zeroetl_dagster.connections.redshift import IdentityName, Redshift, RedshiftSession
from zeroetl_dagster.connections.sql import integration_uuid
from zeroetl_dagster.replication.activity import Column
from zeroetl_dagster.replication.database import IntegrationDatabase, OptionValues, declared_options
from zeroetl_dagster.replication.faults import ReplicationError
from zeroetl_dagster.replication.integration import Integration, IntegrationSpec
from zeroetl_dagster.replication.probe import find_integration
from zeroetl_dagster.replication.requirements import family
from zeroetl_dagster.replication.source import Source, SourceState
from zeroetl_dagster.replication.target import CaseSensitivity, TargetPolicy
from zeroetl_dagster.settings.asset_keys import asset_key_part
from zeroetl_dagster.settings.connections import RedshiftConnection
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName

SYNCED_CHECK = "synced"
PIPELINE = "zeroetl/integration"


def step_key(pipeline: str, step: str) -> AssetKey:
    """`source`, `target`, `integration` or `database` of a pipeline."""
    return AssetKey([pipeline, step])


def table_key(pipeline: str, table: TableName) -> AssetKey:
    """A replicated table of a pipeline: `pipeline/schema/table`, see `asset_key_part`."""
    return AssetKey([pipeline, *map(asset_key_part, table)])


def required_resources(settings: IntegrationSettings) -> set[str]:
    """The names of the connections that a pipeline uses."""
    return {settings.redshift} | ({settings.aws} if settings.aws is not None else set())


@dataclass(frozen=True)
class Pipeline:
    """The settings of a pipeline with the connections of one run or tick."""

    settings: IntegrationSettings
    redshift: Redshift
    source_aws: Aws

    @classmethod
    def of(cls, settings: IntegrationSettings, resources: Any) -> Pipeline:
        """Raises `ReplicationError` when a connection's name leads to something else."""
        redshift = getattr(resources, settings.redshift)
        if not isinstance(redshift, Redshift):
            raise ReplicationError(
                f"pipeline {settings.name}: `redshift: {settings.redshift}` is a {type(redshift).__name__}; it must "
                "name a Redshift connection of a Connections component"
            )
        account = redshift.aws if settings.aws is None else getattr(resources, settings.aws)
        if not isinstance(account, Aws):
            raise ReplicationError(
                f"pipeline {settings.name}: `aws: {settings.aws}` is a {type(account).__name__}; it must name an AWS "
                "account of a Connections component"
            )
        return cls(settings, redshift, account)

    @property
    def rds(self) -> Any:
        return self.source_aws.client("rds")

    def sessions(
        self, identity: IdentityName, database: str | None = None
    ) -> Callable[[], AbstractContextManager[RedshiftSession]]:
        return lambda: self.redshift.session(identity, database=database)

    def source(self) -> Source:
        manage, wait = self.settings.manage, self.settings.wait
        return Source(self.rds, self.settings.source, reboot=manage.reboot_source, wait_seconds=wait.reboot_seconds)

    def source_state(self) -> SourceState:
        """The source as it is. Raises `ReplicationError` when there is none."""
        source = self.source()
        state = source.read()
        if state is None:
            raise ReplicationError(f"{source.name}: {source.diff(None)[0]}")
        return state

    def policy(self, source_arn: str) -> TargetPolicy:
        return TargetPolicy(self.redshift.aws.client("redshift"), self.redshift.namespace_arn(), source_arn)

    def case_sensitivity(self) -> CaseSensitivity:
        manage, wait, target = self.settings.manage, self.settings.wait, self.redshift.settings
        return CaseSensitivity(
            self.redshift.aws.client,
            workgroup=target.workgroup,
            cluster=target.cluster,
            reboot=manage.reboot_target,
            wait_seconds=wait.reboot_seconds,
        )

    def integration(self, source_arn: str, *, replace: str | None = None) -> Integration:
        settings = self.settings
        spec = IntegrationSpec(
            name=settings.integration,
            pipeline=settings.name,
            source_arn=source_arn,
            target_arn=self.redshift.namespace_arn(),
            family=family(settings.source.engine),
            data_filter=settings.data_filter,
            description=settings.description,
            kms_key=settings.kms_key,
            tags=settings.tags,
        )
        return Integration(
            self.rds,
            spec,
            kms=lambda: self.source_aws.client("kms"),
            replace=replace,
            wait_seconds=settings.wait.integration_seconds,
        )

    def integration_id(self) -> str:
        """The UUID of the integration. Raises `ReplicationError` when there is none of its name."""
        found = find_integration(self.rds, self.settings.integration)
        if found is None:
            raise ReplicationError(
                f"there is no integration {self.settings.integration} in {self.source_aws.region}: materialize "
                f"{step_key(self.settings.name, 'integration').to_user_string()}, or correct `integration_name`"
            )
        return integration_uuid(found["IntegrationArn"])

    def database(
        self, integration_id: str, *, last_set: OptionValues | None = None, replace: str | None = None
    ) -> IntegrationDatabase:
        settings = self.settings
        return IntegrationDatabase(
            self.sessions("admin"),
            integration_id=integration_id,
            database=settings.target.database,
            source_database=settings.source.database,
            options=declared_options(settings.target.options),
            last_set=last_set,
            strict=settings.manage.database == "ensure",
            replace=replace,
        )


def column_schema(columns: Sequence[Column]) -> dg.TableSchema:
    """As Dagster shows columns."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type,
                description=column.comment or None,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in columns
        ]
    )


def console(region: str, path: str) -> dg.UrlMetadataValue:
    """A page of the AWS console."""
    service, _, fragment = path.partition("#")
    return dg.MetadataValue.url(f"https://{region}.console.aws.amazon.com/{service}home?region={region}#{fragment}")


def warehouse_page(region: str, settings: RedshiftConnection) -> dg.UrlMetadataValue:
    """Where a person looks at a workgroup or a cluster."""
    if settings.workgroup is not None:
        return console(region, f"redshiftv2/#serverless-workgroup?workgroup={quote(settings.workgroup, safe='')}")
    return console(region, f"redshiftv2/#cluster-details?cluster={quote(settings.cluster or '', safe='')}")


def integration_pages(region: str, integration_id: str) -> dict[str, dg.UrlMetadataValue]:
    """Where a person looks at an integration in the AWS console."""
    return {
        "zeroetl/console_integration": console(region, "rds/#zero-etl-integrations:"),
        "zeroetl/console_target": console(region, f"redshiftv2/#/zero-etl-integrations/{integration_id}"),
    }


def sql(statement: str) -> dg.MarkdownMetadataValue:
    """A statement as metadata."""
    return dg.MetadataValue.md(f"```sql\n{statement}\n```")


def bullets(lines: Iterable[object]) -> dg.MarkdownMetadataValue:
    """Lines as metadata; an empty list says so."""
    told = [f"- {line}" for line in lines]
    return dg.MetadataValue.md("\n".join(told) if told else "none")


def plain(metadata: Mapping[str, Any], key: str) -> Any:
    """A metadata entry's own value, None when it is not there."""
    value = metadata.get(key)
    return value.value if isinstance(value, dg.MetadataValue) else value
