"""The connections as Dagster resources, under the names of the configuration.

A user's own asset takes one by its name:

    @dg.asset
    def top_sellers(warehouse: dg.ResourceParam[RedshiftResource]):
        with warehouse.session() as redshift: ...

They are plain objects, not ConfigurableResources: a copy of those would lose the cached credentials. They also satisfy
Dagster's `SQLClient`, so that `TemplatedSqlComponent` works with them.
"""

from __future__ import annotations

from dagster.components.lib.sql_component.sql_client import SQLClient

from zeroetl_dagster.connections.athena import Athena
from zeroetl_dagster.connections.aws import Aws
from zeroetl_dagster.connections.redshift import Redshift
from zeroetl_dagster.settings.connections import ConnectionsSettings


class AwsResource(Aws):
    """An AWS account: `.client("rds")`, `.region`, `.account_id()`."""


class RedshiftResource(Redshift, SQLClient):
    """A Redshift workgroup or cluster: `with warehouse.session() as redshift: redshift.query(...)`."""

    def connect_and_execute(self, sql: str) -> None:
        """Run one statement as the `marts` identity."""
        with self.session("marts") as session:
            session.execute(sql)


class AthenaResource(Athena, SQLClient):
    """An Athena workgroup: `athena.query(...)`."""

    def connect_and_execute(self, sql: str) -> None:
        """Run one statement."""
        self.execute(sql)


Connection = AwsResource | RedshiftResource | AthenaResource


def build(settings: ConnectionsSettings) -> dict[str, Connection]:
    """One resource for each connection, by name. Nothing connects before it is used."""
    accounts = {name: AwsResource(account, name) for name, account in settings.aws.items()}
    resources: dict[str, Connection] = dict(accounts)
    for name, redshift in settings.redshift.items():
        resources[name] = RedshiftResource(redshift, accounts[redshift.aws], name)
    for name, athena in settings.athena.items():
        resources[name] = AthenaResource(athena, accounts[athena.aws], name)
    return resources
