"""The integration: created, adopted, modified, replaced only when asked for by name, and every refusal explained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError
from botocore.stub import Stubber

from zeroetl_dagster.connections.reconciled import NotAsDeclared, Outcome, ensure
from zeroetl_dagster.connections.waiting import Backoff, WaitTimeout
from zeroetl_dagster.replication.faults import STATUSES, ReplicationError, explain_status
from zeroetl_dagster.replication.integration import (
    TAG_MANAGED,
    TAG_PIPELINE,
    Integration,
    IntegrationSpec,
    IntegrationState,
)
from zeroetl_dagster_tests.local_aws.conftest import ACCOUNT, REGION, Bed
from zeroetl_dagster_tests.replication.conftest import FAST

FILTER = "include: db.public.*"
SOURCE = f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:src"
TARGET = f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:namespace/11111111-2222-3333-4444-555555555555"
STUBBED = IntegrationSpec("zetl", "shop", SOURCE, TARGET, "postgresql", FILTER)


class Landscape:
    """A fit source and target, and the integration that is declared between them."""

    def __init__(self, bed: Bed) -> None:
        cluster, namespace = bed.landscape()
        self.bed = bed
        self.spec = IntegrationSpec(
            name="zetl",
            pipeline="shop",
            source_arn=cluster["DBClusterArn"],
            target_arn=namespace["namespaceArn"],
            family="postgresql",
            data_filter=FILTER,
        )

    def integration(self, *, replacing: str | None = None, seconds: float = 5, **changes: Any) -> Integration:
        spec = replace(self.spec, **changes)
        return Integration(self.bed.client("rds"), spec, replace=replacing, wait_seconds=seconds, poll=FAST)

    def ensured(self, said: list[str], **more: Any) -> Outcome[IntegrationState]:
        return ensure(self.integration(**more), mode="ensure", report=said.append)

    def foreign(self, **more: Any) -> dict[str, Any]:
        """Made by somebody else, without this project's tags."""
        settings = {"name": "theirs", "DataFilter": FILTER, **more}
        return self.bed.integration(self.spec.source_arn, self.spec.target_arn, **settings)

    def all(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.bed.client("rds").describe_integrations()["Integrations"]
        return found


@pytest.fixture
def landscape(bed: Bed) -> Landscape:
    return Landscape(bed)


def test_created_with_everything_that_is_declared(landscape: Landscape, said: list[str]) -> None:
    outcome = landscape.ensured(said, description="orders", tags={"team": "data"})
    (made,) = landscape.all()
    assert made["Status"] == "active" and made["DataFilter"] == FILTER and made["Description"] == "orders"
    assert {one["Key"]: one["Value"] for one in made["Tags"]} == {
        "team": "data",
        TAG_MANAGED: "zeroetl-dagster",
        TAG_PIPELINE: "shop",
    }
    state = outcome.state
    assert state.made_by("shop") and not state.made_by("another")
    assert state.arn.endswith(state.integration_id) and state.created_at is not None
    assert "integration zetl: creating" in said
    said.clear()
    assert landscape.ensured(said, description="orders", tags={"team": "data"}).changed == () and said == []


def test_verify_creates_nothing(landscape: Landscape, said: list[str]) -> None:
    with pytest.raises(NotAsDeclared, match="found nothing, required that it exists.*manage.integration: ensure"):
        ensure(landscape.integration(), mode="verify", report=said.append)
    assert landscape.all() == []


def test_an_equal_one_of_somebody_else_is_adopted_as_it_is(landscape: Landscape, said: list[str]) -> None:
    foreign = landscape.foreign(name="zetl", DataFilter="include:   db.public.*")
    outcome = landscape.ensured(said)
    assert outcome.changed == () and outcome.state.arn == foreign["IntegrationArn"]
    assert not outcome.state.made_by("shop") and landscape.all() == [foreign]


def test_one_between_the_same_two_under_another_name_is_told_and_left(landscape: Landscape, said: list[str]) -> None:
    landscape.foreign()
    with pytest.raises(NotAsDeclared) as raised:
        landscape.ensured(said)
    assert [str(one) for one in raised.value.differences] == [
        "name: found theirs, required zetl. To adopt it: `integration_name: theirs`."
    ]
    assert [one["IntegrationName"] for one in landscape.all()] == ["theirs"]


def test_our_own_is_renamed(landscape: Landscape, said: list[str]) -> None:
    before = landscape.ensured(said, name="older").state
    after = landscape.ensured(said).state
    assert (after.name, after.arn) == ("zetl", before.arn)


def test_filter_and_description_are_modified(landscape: Landscape, said: list[str]) -> None:
    before = landscape.ensured(said).state
    outcome = landscape.ensured(said, data_filter="include: db.*.*, exclude: db.audit.*", description="more")
    assert [one.what for one in outcome.changed] == ["data filter", "description"]
    assert outcome.state.arn == before.arn and outcome.state.description == "more"
    assert outcome.state.data_filter == "include: db.*.*, exclude: db.audit.*"
    assert landscape.ensured(said, data_filter="include: db.*.*,exclude:  db.audit.*").changed == ()
    assert landscape.ensured(said, data_filter=None).changed == (), "what is not declared is not compared"


def test_missing_tags_are_put(landscape: Landscape, said: list[str]) -> None:
    landscape.ensured(said)
    outcome = landscape.ensured(said, tags={"team": "data"})
    assert [str(one) for one in outcome.changed] == ["tag team: found none, required data"]
    assert outcome.state.tags["team"] == "data" and outcome.state.made_by("shop")


def second_source(bed: Bed) -> str:
    bed.cluster("src2")
    arn = f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:src2"
    namespace = bed.client("redshift-serverless").get_namespace(namespaceName="target")["namespace"]["namespaceArn"]
    bed.authorise(namespace, arn, SOURCE)
    return arn


def test_a_replacement_is_refused_unless_asked_for_by_name(landscape: Landscape, said: list[str]) -> None:
    before = landscape.ensured(said).state
    other = second_source(landscape.bed)
    for replacing in (None, "another"):
        with pytest.raises(NotAsDeclared) as raised:
            landscape.ensured(said, source_arn=other, replacing=replacing)
        (only,) = raised.value.differences
        assert (only.what, only.found, only.required) == ("source", SOURCE, other)
        assert "a full load of every table" in only.remedy and "`replace_integration: zetl`" in only.remedy
    assert [one["IntegrationArn"] for one in landscape.all()] == [before.arn]
    after = landscape.ensured(said, source_arn=other, replacing="zetl").state
    assert after.arn != before.arn and after.source_arn == other
    assert [one["IntegrationArn"] for one in landscape.all()] == [after.arn]


def test_a_foreign_one_of_the_same_name_is_never_replaced(landscape: Landscape, said: list[str]) -> None:
    foreign = landscape.foreign(name="zetl")
    other = second_source(landscape.bed)
    with pytest.raises(NotAsDeclared) as raised:
        landscape.ensured(said, source_arn=other)
    assert raised.value.differences[0].remedy == (
        "Integration zetl was not made by this project for pipeline shop: give another `integration_name`, or delete "
        "it yourself."
    )
    with pytest.raises(ReplicationError, match="was not made by this project.*delete it yourself"):
        landscape.ensured(said, source_arn=other, replacing="zetl")
    assert landscape.all() == [foreign]


def test_a_failed_one_is_explained_and_replaced_on_demand(landscape: Landscape, said: list[str]) -> None:
    bed, before = landscape.bed, landscape.ensured(said).state
    bed.authorise(landscape.spec.target_arn, SOURCE + "-other")
    assert bed.described(before.arn)["Status"] == "failed"
    bed.authorise(landscape.spec.target_arn, SOURCE)
    with pytest.raises(NotAsDeclared) as raised:
        landscape.ensured(said)
    (only,) = raised.value.differences
    assert only.what == "status" and only.found.startswith("failed: it cannot recover")
    assert "AWS says: Authorization failed" in only.found and "`replace_integration: zetl`" in only.remedy
    after = landscape.ensured(said, replacing="zetl").state
    assert after.status == "active" and after.arn != before.arn


def test_one_that_fails_while_it_is_made_is_explained(landscape: Landscape, said: list[str]) -> None:
    landscape.bed.set_parameters("src-group", **{"rds.logical_replication": "0"})
    landscape.bed.client("rds").reboot_db_instance(DBInstanceIdentifier="src-1")
    landscape.bed.settle()
    with pytest.raises(ReplicationError, match=r"zetl is failed: .*rds.logical_replication.*To do: mend the cause"):
        landscape.ensured(said)


def test_one_that_needs_attention_is_as_declared_and_told_with_its_reason(
    landscape: Landscape, said: list[str]
) -> None:
    made = landscape.ensured(said).state
    reason = ("REDSHIFT-INTEGRATION-EVENT-0011", "public.log has no primary key")
    landscape.bed.plane.on_health(made.integration_id, "needs_attention", [reason])
    outcome = landscape.ensured(said)
    assert outcome.changed == () and outcome.state.errors == (reason,)
    assert explain_status(outcome.state.status, outcome.state.errors) == (
        "needs_attention: something needs a person: a table failed, the filter cannot be parsed, or the warehouse is "
        "paused. AWS says: public.log has no primary key. To do: read the errors and the tables' reasons, mend them, "
        "then resync the tables."
    )


def test_one_that_is_being_deleted_is_waited_for_and_made_anew(landscape: Landscape, said: list[str]) -> None:
    before = landscape.ensured(said).state
    bed = landscape.bed
    bed.hold()
    bed.client("rds").delete_integration(IntegrationIdentifier=before.arn)

    def report(line: str) -> None:
        said.append(line)
        if line == "integration zetl: deleting":
            bed.release()

    after = ensure(landscape.integration(), mode="ensure", report=report).state
    assert after.arn != before.arn and after.status == "active"


def test_one_that_is_being_made_is_waited_for(landscape: Landscape, said: list[str]) -> None:
    """A run that was ended in mid-creation, or a second one beside it."""
    bed = landscape.bed
    bed.hold()
    with pytest.raises(WaitTimeout, match="still: integration zetl: creating"):
        landscape.ensured(said, seconds=0.1)
    with pytest.raises(NotAsDeclared, match="status: found creating, required active. Wait."):
        ensure(landscape.integration(), mode="verify", report=said.append)
    bed.release()
    assert landscape.ensured(said).state.status == "active"
    assert len(landscape.all()) == 1


def test_another_creation_of_the_same_source_is_waited_for(landscape: Landscape, said: list[str]) -> None:
    bed = landscape.bed
    other = bed.namespace("second")["namespaceArn"]
    bed.authorise(other, SOURCE)
    bed.hold()
    bed.client("rds").create_integration(
        SourceArn=SOURCE, TargetArn=other, IntegrationName="first", DataFilter="include: db.*.*"
    )

    def report(line: str) -> None:
        said.append(line)
        if line.startswith("create zetl"):
            bed.release()

    assert ensure(landscape.integration(), mode="ensure", report=report).state.status == "active"
    told = next(line for line in said if line.startswith("create zetl: AWS waits"))
    assert "IntegrationConflictOperation: Another integration is being created" in told


def test_deleted_and_its_source_can_have_another(landscape: Landscape, said: list[str]) -> None:
    state = landscape.ensured(said).state
    landscape.integration().delete(state, said.append)
    assert landscape.all() == []
    landscape.integration().delete(state, said.append)  # somebody else was faster: it is gone all the same


def test_no_access_is_explained_by_the_missing_policy(landscape: Landscape, said: list[str]) -> None:
    landscape.bed.authorise(landscape.spec.target_arn, SOURCE + "-other")
    with pytest.raises(ReplicationError) as raised:
        landscape.ensured(said)
    assert str(raised.value).startswith("create zetl: InvalidParameterValue: You don't have access to zero-ETL")
    assert "manage.target_policy: ensure" in str(raised.value)


def test_a_filter_that_aws_refuses(landscape: Landscape, said: list[str]) -> None:
    with pytest.raises(ReplicationError, match="create zetl: InvalidParameterValue: .*at least one include.*To do: "):
        landscape.ensured(said, data_filter=None)


def test_the_sixth_integration_of_a_source_is_refused_with_the_quota(landscape: Landscape, said: list[str]) -> None:
    bed = landscape.bed
    for number in range(5):
        target = bed.namespace(f"target{number}")["namespaceArn"]
        bed.authorise(target, SOURCE)
        bed.integration(SOURCE, target, f"zetl{number}")
    with pytest.raises(ReplicationError) as raised:
        landscape.ensured(said)
    assert str(raised.value) == (
        "create zetl: IntegrationQuotaExceeded: You can have at most 5 integrations for one source. To do: the quota "
        "of integrations is used up (5 for a source, 50 for a target, 100 for an account and Region); delete one, or "
        "ask for more in Service Quotas."
    )


# ---- what the embedded AWS does not do -------------------------------------------------------------------------------


def described(status: str = "active", **more: Any) -> dict[str, Any]:
    return {
        "SourceArn": SOURCE,
        "TargetArn": TARGET,
        "IntegrationName": "zetl",
        "IntegrationArn": f"arn:aws:rds:{REGION}:{ACCOUNT}:integration:99108e72-1cfd-414f-8cc0-000000000001",
        "Status": status,
        "DataFilter": FILTER,
        **more,
    }


def stubbed(spec: IntegrationSpec = STUBBED, **more: Any) -> tuple[Integration, Stubber]:
    rds = boto3.client("rds", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    stub = Stubber(rds)
    stub.activate()
    return Integration(rds, spec, **{"wait_seconds": 5, "poll": FAST, **more}), stub


def test_created_by_somebody_else_in_between(said: list[str]) -> None:
    one, stub = stubbed()
    stub.add_response("describe_integrations", {"Integrations": []})
    stub.add_response("describe_integrations", {"Integrations": []})
    stub.add_client_error("create_integration", "IntegrationAlreadyExistsFault", "it exists")
    stub.add_response("describe_integrations", {"Integrations": [described("creating")]})
    stub.add_response("describe_integrations", {"Integrations": [described("active")]})
    one.apply((), said.append)
    stub.assert_no_pending_responses()


def test_created_by_somebody_else_in_between_and_otherwise(said: list[str]) -> None:
    one, stub = stubbed()
    stub.add_response("describe_integrations", {"Integrations": []})
    stub.add_response("describe_integrations", {"Integrations": []})
    stub.add_client_error("create_integration", "IntegrationAlreadyExistsFault", "it exists")
    stub.add_response("describe_integrations", {"Integrations": [described(SourceArn=SOURCE + "2")]})
    with pytest.raises(NotAsDeclared, match="source: found .*src2, required .*src"):
        one.apply((), said.append)


def test_it_exists_and_is_not_listed(said: list[str]) -> None:
    """The name is taken in the account, and the caller may not see by what."""
    one, stub = stubbed()
    for _ in range(2):
        stub.add_response("describe_integrations", {"Integrations": []})
    stub.add_client_error("create_integration", "IntegrationAlreadyExistsFault", "it exists")
    for _ in range(2):
        stub.add_response("describe_integrations", {"Integrations": []})
    with pytest.raises(ReplicationError, match="AWS says that it exists, and does not list it: .*it exists"):
        one.apply((), said.append)


def test_throttling_and_network_errors_do_not_end_a_wait(said: list[str]) -> None:
    one, stub = stubbed()
    stub.add_response("describe_integrations", {"Integrations": [described("creating")]})
    stub.add_client_error("describe_integrations", "Throttling", "Rate exceeded")
    stub.add_client_error("describe_integrations", "InternalFailure", http_status_code=500)
    stub.add_response("describe_integrations", {"Integrations": [described("active")]})
    one.apply((), said.append)
    stub.assert_no_pending_responses()
    assert said[:2] == [
        "AWS throttles DescribeIntegrations (Throttling)",
        "AWS answers DescribeIntegrations with InternalFailure",
    ]


def test_throttling_that_does_not_end_is_said(said: list[str]) -> None:
    one, stub = stubbed(wait_seconds=0.05, poll=Backoff(0.03, 1, 0.03, 0))
    stub.add_response("describe_integrations", {"Integrations": [described("creating")]})
    for _ in range(10):
        stub.add_client_error("describe_integrations", "Throttling", "Rate exceeded")
    with pytest.raises(ReplicationError, match="describe integration zetl: AWS throttles DescribeIntegrations"):
        one.apply((), said.append)


def test_a_first_look_that_is_throttled_says_so(said: list[str]) -> None:
    one, stub = stubbed()
    stub.add_client_error("describe_integrations", "Throttling", "Rate exceeded")
    with pytest.raises(ReplicationError, match=r"^describe the integrations: AWS throttles DescribeIntegrations \(Thr"):
        one.read()


def test_expired_credentials_end_a_wait_with_what_renews_them(said: list[str]) -> None:
    one, stub = stubbed()
    stub.add_response("describe_integrations", {"Integrations": [described("creating")]})
    stub.add_client_error("describe_integrations", "ExpiredToken", "The security token is expired")
    with pytest.raises(ReplicationError) as raised:
        one.apply((), said.append)
    assert str(raised.value) == (
        "describe integration zetl: the credentials have expired (The security token is expired): renew them "
        "(`aws sso login`)"
    )


def test_without_credentials_it_says_how_to_have_some(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    rds = boto3.Session().client("rds", region_name=REGION)
    with pytest.raises(ReplicationError, match="describe the integrations: no credentials. Use `aws sso login`"):
        Integration(rds, STUBBED).read()


def test_an_unreachable_network_is_said(said: list[str]) -> None:
    one, stub = stubbed()
    stub.deactivate()

    def refuse(**_: Any) -> None:
        raise ConnectTimeoutError(endpoint_url="https://rds.example")

    one.rds.meta.events.register("before-send", refuse)
    one.rds.meta.config.retries = {"total_max_attempts": 1}
    with pytest.raises(ReplicationError, match="AWS cannot be reached: Connect timeout on endpoint URL"):
        one.read()


def test_gone_while_it_was_waited_for(said: list[str]) -> None:
    one, stub = stubbed()
    stub.add_response("describe_integrations", {"Integrations": [described("creating")]})
    stub.add_client_error("describe_integrations", "IntegrationNotFoundFault")
    with pytest.raises(ReplicationError, match="disappeared while it was waited for; somebody deleted it"):
        one.apply((), said.append)


@pytest.mark.parametrize(
    ("code", "said_of_it"),
    [
        ("KMSKeyNotAccessibleFault", "its policy must let redshift.amazonaws.com `kms:CreateGrant`"),
        ("DBClusterNotFoundFault", "check `source.cluster` and the Region of `aws`"),
        ("AccessDenied", "names the action to add to the role's policy"),
    ],
)
def test_refusals_of_a_creation(said: list[str], code: str, said_of_it: str) -> None:
    one, stub = stubbed()
    for _ in range(2):
        stub.add_response("describe_integrations", {"Integrations": []})
    stub.add_client_error("create_integration", code, "refused")
    with pytest.raises(ReplicationError) as raised:
        one.apply((), said.append)
    assert str(raised.value).startswith(f"create zetl: {code.removesuffix('Fault')}: refused. To do: ")
    assert said_of_it in str(raised.value)


def test_a_fault_that_nobody_knows_is_passed_on_as_it_is() -> None:
    one, stub = stubbed()
    stub.add_client_error("describe_integrations", "Surprise", "never seen")
    with pytest.raises(ReplicationError) as raised:
        one.read()
    assert str(raised.value) == "describe the integrations: Surprise: never seen"


KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/5f1a2b3c-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("wanted", "found", "equal"),
    [
        (KEY, KEY, True),
        (KEY.rpartition("/")[2], KEY, True),
        ("alias/zetl", KEY, True),
        ("alias/zetl", KEY + "1", False),
        (KEY, KEY + "1", False),
        (KEY, None, False),
    ],
)
def test_kms_keys_are_compared_by_what_they_name(wanted: str, found: str | None, equal: bool) -> None:
    kms = boto3.client("kms", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    one, stub = stubbed(replace(STUBBED, kms_key=wanted), kms=lambda: kms)
    stub.add_response("describe_integrations", {"Integrations": [described(**({"KMSKeyId": found} if found else {}))]})
    with Stubber(kms) as keys:
        keys.add_response("describe_key", {"KeyMetadata": {"KeyId": "x", "Arn": KEY}}, {"KeyId": "alias/zetl"})
        differences = one.diff(one.read())
    assert [one.what for one in differences] == ([] if equal else ["KMS key"])


def test_an_alias_that_does_not_exist() -> None:
    kms = boto3.client("kms", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    one, stub = stubbed(replace(STUBBED, kms_key="alias/none"), kms=lambda: kms)
    stub.add_response("describe_integrations", {"Integrations": [described(KMSKeyId=KEY)]})
    with Stubber(kms) as keys:
        keys.add_client_error("describe_key", "NotFoundException", "Alias alias/none is not found.")
        with pytest.raises(ReplicationError, match="look up the KMS key alias/none: NotFound: Alias alias/none is not"):
            one.diff(one.read())


def test_every_status_of_botocores_model_is_explained_and_no_other() -> None:
    model = boto3.client("rds", region_name=REGION).meta.service_model.shape_for("IntegrationStatus")
    assert set(model.enum) == set(STATUSES)
    assert explain_status("novel") == "novel: a status this project does not know."
