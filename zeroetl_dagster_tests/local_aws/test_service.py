"""The framework: parsing, validation, refusals, dispatch; seen through boto3."""

from __future__ import annotations

import datetime
import http.client
import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.service import Call, Service, page

NO_WORLD: Any = None


class Rds(Service):
    name = "rds"

    def describe_db_clusters(self, call: Call) -> dict[str, Any]:
        when = datetime.datetime(2026, 11, 21, 3, 4, 5, tzinfo=datetime.UTC)
        cluster = {
            "DBClusterIdentifier": f"{call.account}.{call.region}.{call.params.get('DBClusterIdentifier')}",
            "Port": 5,
            "StorageEncrypted": False,
            "ClusterCreateTime": when.timestamp(),
            "TagList": call.params.get("Filters", []) and [{"Key": "a", "Value": "<&>"}],
            "not_of_the_model": 1,
        }
        return {"DBClusters": [cluster], "Marker": None}

    def create_integration(self, call: Call) -> dict[str, Any]:
        raise AwsError("IntegrationAlreadyExistsFault", "There is <one>.")

    def delete_integration(self, call: Call) -> dict[str, Any]:
        raise AwsError("InvalidParameterValue", "That is no value.")

    def describe_db_instances(self, call: Call) -> dict[str, Any]:
        raise RuntimeError("a fault")

    def describe_integrations(self, call: Call) -> dict[str, Any]:
        call.only("IntegrationIdentifier")
        return {"Integrations": []}


class Serverless(Service):
    name = "redshift-serverless"

    def get_workgroup(self, call: Call) -> dict[str, Any]:
        if call.params["workgroupName"] == "absent":
            raise AwsError("ResourceNotFoundException", "No such workgroup.")
        return {"workgroup": {"workgroupName": call.params["workgroupName"], "status": "AVAILABLE"}}

    def create_workgroup(self, call: Call) -> dict[str, Any]:
        return {"workgroup": {"baseCapacity": call.params["baseCapacity"], "tags": 1}}


@pytest.fixture
def client(serve: Any) -> Any:
    return serve({"rds": Rds(NO_WORLD), "redshift-serverless": Serverless(NO_WORLD)})


def refused(action: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        action()
    return caught.value.response


def test_query_answers_are_typed(client: Any) -> None:
    answer = client("rds").describe_db_clusters(DBClusterIdentifier="x")
    cluster = answer["DBClusters"][0]
    assert cluster["DBClusterIdentifier"] == "123456789012.ap-northeast-1.x"
    assert cluster["Port"] == 5 and cluster["StorageEncrypted"] is False
    assert cluster["ClusterCreateTime"].isoformat() == "2026-11-21T03:04:05+00:00"
    assert "Marker" not in answer and "not_of_the_model" not in cluster


def test_query_lists_go_both_ways(client: Any) -> None:
    answer = client("rds").describe_db_clusters(Filters=[{"Name": "engine", "Values": ["a", "b"]}])
    assert answer["DBClusters"][0]["TagList"] == [{"Key": "a", "Value": "<&>"}]


def test_account_and_region_come_from_the_credential_scope(client: Any) -> None:
    other = client("rds", region="eu-west-1", key="ASIAOTHERACCOUNT")
    found = other.describe_db_clusters(DBClusterIdentifier="x")["DBClusters"][0]["DBClusterIdentifier"]
    assert found == "210987654321.eu-west-1.x"


def test_every_answer_has_a_request_id_and_a_date(client: Any) -> None:
    meta = client("rds").describe_db_clusters()["ResponseMetadata"]
    assert len(meta["RequestId"]) == 36
    assert meta["HTTPHeaders"]["x-amzn-requestid"] == meta["RequestId"]
    assert meta["HTTPHeaders"]["date"].endswith("GMT")


def test_a_modelled_error_is_the_clients_exception_class(client: Any) -> None:
    rds = client("rds")
    with pytest.raises(rds.exceptions.IntegrationAlreadyExistsFault, match="There is <one>."):
        rds.create_integration(SourceArn="arn:aws:rds:r:1:cluster:a", TargetArn="x" * 20, IntegrationName="a")


def test_an_unmodelled_code_arrives_too(client: Any) -> None:
    error = refused(lambda: client("rds").delete_integration(IntegrationIdentifier="a"))
    assert error["Error"]["Code"] == "InvalidParameterValue"
    assert error["Error"]["Message"] == "That is no value."
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_json_answers_and_errors(client: Any) -> None:
    serverless = client("redshift-serverless")
    assert serverless.get_workgroup(workgroupName="some")["workgroup"]["status"] == "AVAILABLE"
    with pytest.raises(serverless.exceptions.ResourceNotFoundException, match="No such workgroup"):
        serverless.get_workgroup(workgroupName="absent")


def test_an_operation_nobody_wrote_is_refused_by_name_and_once(client: Any) -> None:
    error = refused(lambda: client("rds").describe_db_proxies())
    assert error["Error"]["Code"] == "NotImplemented"
    assert "rds:DescribeDBProxies" in error["Error"]["Message"]
    assert error["ResponseMetadata"]["RetryAttempts"] == 0
    error = refused(lambda: client("redshift-serverless").list_snapshots())
    assert "redshift-serverless:ListSnapshots" in error["Error"]["Message"]


def test_a_parameter_nobody_obeys_is_refused_by_name(client: Any) -> None:
    error = refused(lambda: client("rds").describe_integrations(Filters=[{"Name": "a", "Values": ["b"]}]))
    assert "rds:DescribeIntegrations with Filters" in error["Error"]["Message"]


@pytest.mark.parametrize(
    ("service", "call", "named"),
    [
        ("sqs", lambda c: c.list_queues(), "sqs:ListQueues"),
        ("sns", lambda c: c.list_topics(), "sns:ListTopics"),
        ("ec2", lambda c: c.describe_vpcs(), "ec2:DescribeVpcs"),
        ("lambda", lambda c: c.list_functions(), "lambda:GET /2015-03-31/functions"),
        ("s3", lambda c: c.list_buckets(), "s3:GET /"),
        ("dynamodb", lambda c: c.list_tables(), "dynamodb:ListTables"),
    ],
)
def test_a_service_nobody_wrote_is_refused_by_name_and_once(client: Any, service: str, call: Any, named: str) -> None:
    error = refused(lambda: call(client(service)))
    assert error["Error"]["Code"] == "NotImplemented"
    assert named in error["Error"]["Message"] and "rds, redshift-serverless" in error["Error"]["Message"]
    assert error["ResponseMetadata"]["RetryAttempts"] == 0


def test_patterns_lengths_and_enums_of_the_model_are_checked(client: Any) -> None:
    rds = client("rds", parameter_validation=False)
    source = "arn:aws:rds:r:1:cluster:a"
    error = refused(lambda: rds.create_integration(SourceArn=source, TargetArn="x" * 20, IntegrationName="1a"))["Error"]
    assert error["Code"] == "ValidationError"
    assert "Value '1a' at 'integrationName'" in error["Message"] and "pattern" in error["Message"]
    error = refused(lambda: rds.create_integration(SourceArn=source, TargetArn="x", IntegrationName="a" * 64))["Error"]
    assert "2 validation errors" in error["Message"] and "length less than or equal to 63" in error["Message"]
    error = refused(lambda: rds.create_integration(SourceArn=source, TargetArn="x" * 20))["Error"]
    assert error == {"Type": "Sender", "Code": "MissingParameter", "Message": error["Message"]}
    assert error["Message"] == "The request must contain the parameter IntegrationName"


def test_json_requests_are_checked_too(client: Any) -> None:
    serverless = client("redshift-serverless", parameter_validation=False)
    error = refused(lambda: serverless.get_workgroup())["Error"]
    assert error["Code"] == "ValidationException" and "'workgroupName'" in error["Message"]
    error = refused(lambda: serverless.create_workgroup(workgroupName="UP", namespaceName="abc", baseCapacity=8))
    assert "Value 'UP' at 'workgroupName'" in error["Error"]["Message"]


def test_a_fault_of_ours_is_an_internal_failure_without_details(client: Any) -> None:
    error = refused(lambda: client("rds").describe_db_instances())
    assert error["Error"]["Code"] == "InternalFailure" and "request " in error["Error"]["Message"]
    assert "a fault" not in error["Error"]["Message"]


def raw(client: Any, method: str, path: str, body: str, headers: dict[str, str]) -> tuple[int, str]:
    endpoint = client("rds").meta.endpoint_url.removeprefix("http://")
    connection = http.client.HTTPConnection(endpoint, timeout=10)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_an_unsigned_request_is_refused(client: Any) -> None:
    status, body = raw(client, "GET", "/", "", {})
    assert status == 403 and "MissingAuthenticationToken" in body


SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIA/20261121/ap-northeast-1/{}/aws4_request"}


def signed(service: str, **more: str) -> dict[str, str]:
    return {"Authorization": SIGNED["Authorization"].format(service), **more}


def test_an_operation_that_does_not_exist(client: Any) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, body = raw(client, "POST", "/", "Action=Fly", signed("rds", **form))
    assert status == 400 and "<Code>InvalidAction</Code>" in body and "Fly" in body


def test_json_that_is_none(client: Any) -> None:
    target = {"X-Amz-Target": "RedshiftServerless.GetWorkgroup"}
    status, body = raw(client, "POST", "/", "{", signed("redshift-serverless", **target))
    assert status == 400 and "SerializationException" in body
    status, body = raw(client, "POST", "/", '{"workgroupName": 5}', signed("redshift-serverless", **target))
    assert status == 400 and "must be a string" in body


def test_a_body_that_is_not_what_it_says(client: Any) -> None:
    target = {"X-Amz-Target": "RedshiftServerless.GetWorkgroup", "Content-Encoding": "gzip"}
    status, body = raw(client, "POST", "/", "{}", signed("redshift-serverless", **target))
    assert status == 400 and "not gzip" in body
    status, body = raw(client, "POST", "/", "", signed("rds", **{"Content-Length": str(10**9)}))
    assert status == 413 and "the limit is" in body


def test_only_loopback_listens(client: Any) -> None:
    assert client("rds").meta.endpoint_url.startswith("http://127.0.0.1:")


def test_requests_are_served_side_by_side(client: Any) -> None:
    answers: list[str] = []

    def ask() -> None:
        answers.append(client("redshift-serverless").get_workgroup(workgroupName="abc")["workgroup"]["status"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["AVAILABLE"] * 8


def test_pages_end() -> None:
    items = [{"n": n} for n in range(45)]
    first, marker = page(items, 20, None)
    second, marker2 = page(items, 20, marker)
    third, end = page(items, 20, marker2)
    assert [item["n"] for item in first + second + third] == list(range(45)) and end is None
    with pytest.raises(AwsError, match="Invalid Marker"):
        page(items, 20, "x")


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [  # patterns of AWS's models are Java's
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", "a key = 日本 1", True),
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", "a;b", False),
        (r"[\p{L}\p{M}\p{N}\p{P}\p{S}\p{Zs}]+", "50 % [of] it", True),
        (r"^[\p{L}_][\p{L}\p{N}@$#_]+$", "tab;le", False),
        (r"[ -퟿\t]*", "line\nbreak", False),
        (r"[a-z0-9-]+\z", "name", True),
    ],
)
def test_patterns_of_java_are_understood(pattern: str, value: str, fits: bool) -> None:
    from zeroetl_dagster.local.aws.service import _compiled

    assert bool(_compiled(pattern).fullmatch(value)) is fits


@pytest.mark.parametrize(
    "service",
    ["rds", "redshift", "redshift-serverless", "cloudwatch", "iam", "sts", "kms", "secretsmanager", "glue", "athena"],
)
def test_every_pattern_of_the_models_can_be_checked(service: str) -> None:
    from moto.core.utils import get_service_model

    from zeroetl_dagster.local.aws.service import _compiled

    model = get_service_model(service)
    for name in model.shape_names:
        if pattern := model.shape_for(name).metadata.get("pattern"):
            _compiled(pattern)
