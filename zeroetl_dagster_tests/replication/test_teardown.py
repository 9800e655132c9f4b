"""The end of a pipeline and its second life: what is taken down, what is left, what stands in the way afterwards."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zeroetl_dagster.connections.reconciled import NotAsDeclared, ensure
from zeroetl_dagster.connections.resources import RedshiftResource
from zeroetl_dagster.replication import configuration, teardown
from zeroetl_dagster.replication.activity import read_integrations
from zeroetl_dagster.replication.resources import Pipeline
from zeroetl_dagster.replication.teardown import Step
from zeroetl_dagster.settings.connections import RedshiftConnection
from zeroetl_dagster_tests.conftest import Embedded
from zeroetl_dagster_tests.replication.conftest import FAST, Provisioned, aws_of, eventually

WORKGROUP = "repl-life"
FOREIGN = {
    "Sid": "Somebody",
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::222222222222:root"},
    "Action": "redshift:CreateInboundIntegration",
}


class Life:
    """A pipeline of its own from the shop's database into a workgroup of its own."""

    def __init__(self, embedded: Embedded) -> None:
        self.embedded = embedded
        aws = aws_of(embedded)
        connection = RedshiftConnection(aws="aws_default", workgroup=WORKGROUP, database="dev", ssl=False)
        settings: dict[str, Any] = {
            "name": "life",
            "redshift": "warehouse",
            "source": {"engine": "aurora-postgresql", "cluster": "tickit-source", "database": "shop"},
            "target": {"database": 'life "1"'},
            "data_filter": "include: shop.public.plain",
        }
        self.pipeline = Pipeline(configuration.load(settings, "life"), RedshiftResource(connection, aws), aws)
        self.source_arn = self.pipeline.source_state().arn
        self.said: list[str] = []

    def integrate(self) -> str:
        """Policy and integration as declared; returns the integration's id."""
        policy, integration = self.pipeline.policy(self.source_arn), self.pipeline.integration(self.source_arn)
        integration.poll = FAST
        ensure(policy, mode="ensure", report=self.said.append)
        return ensure(integration, mode="ensure", report=self.said.append).state.integration_id

    def make_database(self, integration_id: str, *, replace: str | None = None) -> None:
        database = self.pipeline.database(integration_id, replace=replace)
        database.poll = FAST
        ensure(database, mode="ensure", report=self.said.append)

    def steps(self) -> list[Step]:
        integration = self.pipeline.integration(self.source_arn)
        integration.poll = FAST
        policy = self.pipeline.policy(self.source_arn)
        return teardown.plan(
            integration, policy, self.pipeline.sessions("admin"), database=self.pipeline.settings.target.database
        )

    def teardown(self, *, dry_run: bool = False) -> list[str]:
        told: list[str] = []
        teardown.execute(self.steps(), told.append, dry_run=dry_run)
        return told

    def databases(self) -> set[str]:
        with self.pipeline.redshift.session("admin") as session:
            return {row[0] for row in session.query("SELECT datname FROM pg_database").rows}

    def integrations(self) -> list[str]:
        found = self.pipeline.rds.describe_integrations()["Integrations"]
        return [one["IntegrationName"] for one in found if one["TargetArn"] == self.namespace]

    @property
    def namespace(self) -> str:
        return self.pipeline.redshift.namespace_arn()

    def policy(self) -> list[dict[str, Any]]:
        return self.pipeline.policy(self.source_arn).read().statements

    def delete_integration(self) -> None:
        """By hand, as somebody in the console."""
        integration = self.pipeline.integration(self.source_arn)
        integration.poll = FAST
        state = integration.read()
        assert state is not None
        integration.delete(state, self.said.append)


@pytest.fixture(scope="module")
def life(embedded: Embedded, pipelines: tuple[Provisioned, Provisioned]) -> Life:
    serverless = embedded.session.client("redshift-serverless")
    serverless.create_namespace(namespaceName=WORKGROUP, dbName="dev", manageAdminPassword=True)
    serverless.create_workgroup(
        workgroupName=WORKGROUP,
        namespaceName=WORKGROUP,
        configParameters=[{"parameterKey": "enable_case_sensitive_identifier", "parameterValue": "true"}],
    )
    eventually(lambda: serverless.get_workgroup(workgroupName=WORKGROUP)["workgroup"]["status"] == "AVAILABLE")
    made = Life(embedded)
    document = json.dumps({"Version": "2012-10-17", "Statement": [FOREIGN]})
    made.pipeline.redshift.aws.client("redshift").put_resource_policy(ResourceArn=made.namespace, Policy=document)
    return made


def test_before_anything_was_made_there_is_nothing_to_remove(life: Life) -> None:
    assert life.teardown() == [
        "leave integration zeroetl-life: it does not exist",
        'leave database life "1": without its integration nothing says who made it; if it is a leftover: DROP DATABASE '
        '"life ""1"""',
        "leave source parameters and case sensitivity: others may rely on them",
    ]


def test_a_name_that_an_ordinary_database_has_is_not_taken_unless_asked_for(life: Life) -> None:
    integration_id = life.integrate()
    with life.pipeline.redshift.session("admin") as session:
        session.execute('CREATE DATABASE "life ""1"""')
    with pytest.raises(NotAsDeclared) as raised:
        life.make_database(integration_id)
    (only,) = raised.value.differences
    assert only.found == f"a database of this name that was not made from integration {integration_id}"
    assert only.remedy == (
        'Choose another `target.database`. To drop life "1" and make it anew (a full load of every table): run the '
        'asset with `replace_database: life "1"`.'
    )
    with pytest.raises(NotAsDeclared):
        life.make_database(integration_id, replace="dev")
    # a dry run does not claim a database that the integration did not make
    assert any(
        line.startswith('leave database life "1": SVV_INTEGRATION does not say') for line in life.teardown(dry_run=True)
    )
    life.make_database(integration_id, replace='life "1"')
    with life.pipeline.redshift.session("admin") as session:
        assert [row.target_database for row in read_integrations(session, integration_id)] == ['life "1"']


def test_an_integration_that_was_deleted_and_made_again_needs_its_database_made_again(life: Life) -> None:
    first = life.integrate()
    life.make_database(first)
    life.delete_integration()
    assert 'life "1"' in life.databases(), "what was replicated stays"
    second = life.integrate()
    assert second != first
    with pytest.raises(NotAsDeclared) as raised:
        life.make_database(second)
    (only,) = raised.value.differences
    assert only.found.startswith(f"a database made from another integration ({first}, ")
    assert only.required == f"a database made from integration {second}"
    assert only.remedy.endswith('run the asset with `replace_database: life "1"`.')
    life.make_database(second, replace='life "1"')
    with life.pipeline.redshift.session("admin") as session:
        assert [row.target_database for row in read_integrations(session, second)] == ['life "1"']
        assert read_integrations(session, first) == []


def test_a_dry_run_lists_and_removes_nothing(life: Life) -> None:
    life.make_database(life.integrate())
    before = life.databases(), life.integrations(), life.policy()
    assert life.teardown(dry_run=True) == [
        'would remove database life "1": made from this integration (DROP DATABASE "life ""1""")',
        "would remove integration zeroetl-life: this project made it",
        "would remove this source's statements in the resource policy: only those this project added",
        "leave source parameters and case sensitivity: others may rely on them",
    ]
    assert (life.databases(), life.integrations(), life.policy()) == before


def test_teardown_takes_what_is_ours_and_only_that(life: Life) -> None:
    life.make_database(life.integrate())
    told = life.teardown()
    assert told[:2] == [
        'remove database life "1": made from this integration (DROP DATABASE "life ""1""")',
        'DROP DATABASE "life ""1"""',
    ]
    assert 'life "1"' not in life.databases() and "dev" in life.databases()
    assert life.integrations() == [] and life.policy() == [FOREIGN]
    assert all(line.startswith("leave") for line in life.teardown()), "a second one finds nothing"


def test_a_teardown_that_was_interrupted_is_finished_by_the_next(life: Life) -> None:
    life.integrate()
    life.delete_integration()
    assert len(life.policy()) == 3
    assert any(line.startswith("remove this source's statements") for line in life.teardown())
    assert life.policy() == [FOREIGN]


def test_what_was_adopted_is_left(life: Life) -> None:
    ensure(life.pipeline.policy(life.source_arn), mode="ensure", report=life.said.append)
    rds = life.pipeline.rds
    made = rds.create_integration(
        SourceArn=life.source_arn,
        TargetArn=life.namespace,
        IntegrationName="zeroetl-life",
        DataFilter="include: shop.public.plain",
        Tags=[{"Key": "zeroetl:managed-by", "Value": "zeroetl-dagster"}, {"Key": "zeroetl:pipeline", "Value": "other"}],
    )
    integration_id = life.integrate()
    assert made["IntegrationArn"].endswith(integration_id)
    life.make_database(integration_id)
    statements = life.policy()
    assert life.teardown() == [
        "leave integration zeroetl-life: it lacks the tags zeroetl:managed-by and zeroetl:pipeline=life, so this "
        "project did not make it",
        'leave database life "1": its integration was not made by this project',
        "leave source parameters and case sensitivity: others may rely on them",
    ]
    assert life.integrations() == ["zeroetl-life"] and 'life "1"' in life.databases()
    assert life.policy() == statements, "an adopted integration still needs to be let in"
    with life.pipeline.redshift.session("admin") as session:
        session.execute('DROP DATABASE "life ""1"""')
    rds.delete_integration(IntegrationIdentifier=made["IntegrationArn"])
