"""What the tests of the replication room share: a control plane in this process, and two provisioned pipelines.

`bed` answers every RDS and Redshift call over HTTP within milliseconds and moves no data. `tickit` is the shipped
pipeline on the embedded AWS, made by this project's own code; `shop` is a second one from the same source cluster, with
names that must be quoted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from zeroetl_dagster.connections.reconciled import ensure
from zeroetl_dagster.connections.redshift import RedshiftSession
from zeroetl_dagster.connections.resources import AwsResource, RedshiftResource
from zeroetl_dagster.connections.waiting import Backoff
from zeroetl_dagster.local import landscape
from zeroetl_dagster.replication import configuration
from zeroetl_dagster.replication.activity import TableState, read_integrations, read_table_states
from zeroetl_dagster.replication.probe import read_metrics
from zeroetl_dagster.replication.resources import Pipeline
from zeroetl_dagster.replication.seeding import wait_for_tables
from zeroetl_dagster.settings.connections import AwsAccount, Identity, RedshiftConnection
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName
from zeroetl_dagster_tests.local_aws.conftest import Bed
from zeroetl_dagster_tests.replication.location import shipped_settings

if TYPE_CHECKING:
    from zeroetl_dagster_tests.conftest import Embedded

FAST = Backoff(0.02, 1, 0.02, 0)
SHOP_DATABASE = 'Zetl "Läden".1'
# Every name that must be quoted: a dot, a blank, a quote, upper case, umlauts; one table fails, one is empty.
SHOP_TABLES = (
    TableName("public", "plain"),
    TableName("public", "UPPER"),
    TableName("public", "Order Lines"),
    TableName('we"ird', 'q"uo.te'),
    TableName("Größe", "Üm.läut"),
    TableName("public", "empty"),
    TableName("public", "keyless"),
)


@pytest.fixture
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    made = Bed(tmp_path_factory.mktemp("aws"))
    yield made
    made.stop()


@pytest.fixture
def said() -> list[str]:
    """What was reported to a person, in order: pass `said.append`."""
    return []


def eventually(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `what` returns, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


@dataclass
class Provisioned:
    """A pipeline on the embedded AWS whose integration is active."""

    pipeline: Pipeline
    source: dict[str, Any]  # psycopg2's arguments

    @property
    def settings(self) -> IntegrationSettings:
        return self.pipeline.settings

    @property
    def redshift(self) -> RedshiftResource:
        assert isinstance(self.pipeline.redshift, RedshiftResource)
        return self.pipeline.redshift

    @property
    def integration_id(self) -> str:
        return self.pipeline.integration_id()

    def session(self, identity: Any = "admin") -> Any:
        return self.redshift.session(identity)

    def unprivileged(self) -> RedshiftResource:
        """The same workgroup as a user who is given a temporary password and no rights."""
        settings = self.redshift.settings.model_copy(update={"admin": Identity(iam=True)})
        return RedshiftResource(settings, self.redshift.aws, "unprivileged")

    def run(self, *statements: str) -> None:
        """At the source, each in a transaction of its own."""
        with closing(psycopg2.connect(**self.source)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """At the source."""
        with closing(psycopg2.connect(**self.source)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def states(self) -> dict[TableName, TableState]:
        with self.session() as session:
            return read_table_states(session, self.integration_id, self.settings.target.database)

    def becomes(self, table: TableName, state: str | None) -> None:
        """Wait until Redshift shows a table in that state (None: no longer)."""
        with self.session() as session:
            arguments = (session, self.integration_id, self.settings.target.database)

            def there() -> bool:
                found = read_table_states(*arguments).get(table)
                return (found.state if found else None) == state

            eventually(there)

    def published(self) -> None:
        """Wait until CloudWatch has been told of all that was applied."""
        cloudwatch, integration_id = self.pipeline.redshift.aws.client("cloudwatch"), self.integration_id

        def current() -> bool:
            with self.session() as session:
                rows = read_integrations(session, integration_id)
            applied = min(row.latest_applied.timestamp() for row in rows if row.latest_applied is not None)
            namespace = self.settings.sensor.metrics_namespace
            metrics = read_metrics(cloudwatch, integration_id, namespace=namespace, now=datetime.now(UTC))
            return metrics.applied is not None and abs(metrics.applied - applied) < 0.05

        eventually(current)

    def ingested(self, session: RedshiftSession, table: TableName, *, since: int = 0) -> int:
        """Wait until more than `since` ingestions into a table are recorded; how many there are."""

        def count() -> int:
            found = session.query(
                "SELECT COUNT(*) FROM sys_integration_table_activity WHERE TRIM(integration_id) = %s "
                "AND TRIM(schema_name) = %s AND TRIM(table_name) = %s",
                (self.integration_id, *table),
            )
            return int(found.rows[0][0])

        eventually(lambda: count() > since)
        return count()


def aws_of(embedded: Embedded) -> AwsResource:
    """A connection that does not look at the environment, which belongs to every test of the session."""
    made = AwsResource(AwsAccount(), "aws_default")
    made._session = embedded.session
    return made


def pipeline_of(embedded: Embedded, settings: IntegrationSettings, workgroup: str) -> Pipeline:
    aws = aws_of(embedded)
    connection = RedshiftConnection(aws="aws_default", workgroup=workgroup, database="dev", ssl=False)
    return Pipeline(settings, RedshiftResource(connection, aws, "warehouse"), aws)


def shop_settings() -> IntegrationSettings:
    return configuration.load(
        {
            "name": "shop",
            "redshift": "warehouse",
            "source": {"engine": "aurora-postgresql", "cluster": landscape.CLUSTER, "database": "shop"},
            "target": {"database": SHOP_DATABASE, "options": {"truncatecolumns": True, "acceptinvchars": True}},
            "data_filter": "include: shop.*.*, exclude: shop.public.left_out",
            "tables": list(SHOP_TABLES),
        },
        "shop",
    )


def provision(pipeline: Pipeline, tables: Sequence[TableName]) -> str:
    """What the four assets of a pipeline do, with shorter waits between two looks; returns the integration's id."""
    said: list[str] = []
    arn = ensure(pipeline.source(), mode="verify", report=said.append).state.arn
    case, integration = pipeline.case_sensitivity(), pipeline.integration(arn)
    case.poll = integration.poll = FAST
    ensure(case, mode="ensure", report=said.append)
    ensure(pipeline.policy(arn), mode="ensure", report=said.append)
    ensure(integration, mode="ensure", report=said.append)
    integration_id = pipeline.integration_id()
    database = pipeline.database(integration_id)
    database.poll = FAST
    ensure(database, mode="ensure", report=said.append)
    wait_for_tables(
        pipeline.sessions("admin"),
        integration_id=integration_id,
        database=pipeline.settings.target.database,
        tables=tables,
        timeout_seconds=60,
        report=said.append,
        poll=FAST,
    )
    return integration_id


@pytest.fixture(scope="session")
def pipelines(embedded: Embedded) -> tuple[Provisioned, Provisioned]:
    """TICKIT and the shop: one source cluster with two databases, two workgroups, two integrations."""
    session = embedded.session
    serverless = session.client("redshift-serverless")
    serverless.create_namespace(namespaceName="repl-shop", dbName="dev", manageAdminPassword=True)
    serverless.create_workgroup(workgroupName="repl-shop", namespaceName="repl-shop", baseCapacity=8)
    landscape.create(session, say=lambda _: None)
    landscape.load_tickit(session, scale=0.01, say=lambda _: None)
    cluster = session.client("rds").describe_db_clusters(DBClusterIdentifier=landscape.CLUSTER)["DBClusters"][0]
    secret = session.client("secretsmanager").get_secret_value(SecretId=cluster["MasterUserSecret"]["SecretArn"])
    login = json.loads(secret["SecretString"])
    source = {
        "host": cluster["Endpoint"],
        "port": cluster["Port"],
        "user": login["username"],
        "password": login["password"],
    }
    tickit = Provisioned(
        pipeline_of(embedded, shipped_settings(), landscape.WORKGROUP), {**source, "dbname": landscape.DATABASE}
    )
    shop = Provisioned(pipeline_of(embedded, shop_settings(), "repl-shop"), {**source, "dbname": "shop"})
    tickit.run("CREATE DATABASE shop")
    shop.run(*SHOP_SQL)
    with ThreadPoolExecutor() as both:
        list(both.map(lambda one: provision(one.pipeline, one.settings.tables), (tickit, shop)))
    return tickit, shop


SHOP_SQL = (
    "CREATE TABLE plain (id int PRIMARY KEY, name varchar(20) NOT NULL, price numeric(8,2))",
    "INSERT INTO plain VALUES (1, 'one', 1.50), (2, 'two', 2.25)",
    'CREATE TABLE "UPPER" ("Id" int PRIMARY KEY, "Größe" text)',
    """INSERT INTO "UPPER" VALUES (1, 'groß')""",
    'CREATE TABLE "Order Lines" ("order id" int PRIMARY KEY)',
    'INSERT INTO "Order Lines" VALUES (1), (2), (3)',
    'CREATE SCHEMA "we""ird"',
    'CREATE TABLE "we""ird"."q""uo.te" (id int PRIMARY KEY)',
    'INSERT INTO "we""ird"."q""uo.te" VALUES (7)',
    'CREATE SCHEMA "Größe"',
    'CREATE TABLE "Größe"."Üm.läut" (id int PRIMARY KEY)',
    'INSERT INTO "Größe"."Üm.läut" VALUES (8)',
    "CREATE TABLE empty (id int PRIMARY KEY)",
    "CREATE TABLE keyless (id int)",
    "CREATE TABLE left_out (id int PRIMARY KEY)",
)


@pytest.fixture
def tickit(pipelines: tuple[Provisioned, Provisioned]) -> Provisioned:
    return pipelines[0]


@pytest.fixture
def shop(pipelines: tuple[Provisioned, Provisioned]) -> Provisioned:
    return pipelines[1]
