from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

import pytest

from zeroetl_dagster_tests.local_aws.conftest import ACCOUNT, REGION, Bed, refused

ENDPOINT = f"workgroup:{ACCOUNT}/{REGION}/target"


def settings(workgroup: dict[str, Any]) -> dict[str, str]:
    return {p["parameterKey"]: p["parameterValue"] for p in workgroup["configParameters"]}


def test_a_namespace_with_a_managed_password(bed: Bed) -> None:
    made = bed.client("redshift-serverless").create_namespace(
        namespaceName="target", adminUsername="chief", dbName="lake", manageAdminPassword=True
    )["namespace"]
    assert made["namespaceArn"] == f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:namespace/{made['namespaceId']}"
    assert (made["status"], made["dbName"], made["adminUsername"]) == ("AVAILABLE", "lake", "chief")
    secret = bed.client("secretsmanager").get_secret_value(SecretId=made["adminPasswordSecretArn"])
    login = json.loads(secret["SecretString"])
    held = bed.warehouse.namespaces[made["namespaceId"]]
    assert held == {"user": "chief", "password": login["password"], "database": "lake"}
    assert login["username"] == "chief" and secret["Name"] == "redshift!target-chief"
    found = bed.client("redshift-serverless").get_namespace(namespaceName="target")["namespace"]
    assert found == made


def test_a_given_password(bed: Bed) -> None:
    made = bed.client("redshift-serverless").create_namespace(
        namespaceName="target", adminUsername="admin", adminUserPassword="Secret-123"
    )["namespace"]
    assert "adminPasswordSecretArn" not in made
    assert bed.warehouse.namespaces[made["namespaceId"]]["password"] == "Secret-123"
    assert "Secret-123" not in "".join(bed.store._database.iterdump())


def test_changing_who_keeps_the_password(bed: Bed) -> None:
    namespace = bed.namespace()
    serverless = bed.client("redshift-serverless")
    user = (namespace["namespaceId"], "admin")
    changed = serverless.update_namespace(
        namespaceName="target", manageAdminPassword=False, adminUserPassword="Secret-123"
    )["namespace"]
    assert "adminPasswordSecretArn" not in changed
    assert bed.warehouse.users[user] == {"password": "Secret-123", "superuser": True, "expires_at": None}
    changed = serverless.update_namespace(namespaceName="target", manageAdminPassword=True)["namespace"]
    secret = bed.client("secretsmanager").get_secret_value(SecretId=changed["adminPasswordSecretArn"])
    assert json.loads(secret["SecretString"])["password"] == bed.warehouse.users[user]["password"]
    error = refused(lambda: serverless.update_namespace(namespaceName="target", adminUsername="other"))
    assert "cannot be renamed" in error["Message"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"namespaceName": "Upper"}, "regular expression pattern"),
        ({"adminUserPassword": "short"}, "8 to 64 characters"),
        ({"adminUserPassword": "alllowercase1"}, "one upper-case letter"),
        ({"adminUserPassword": "Secret-123", "manageAdminPassword": True}, "choose one"),
    ],
)
def test_namespaces_that_cannot_be(bed: Bed, more: dict[str, Any], said: str) -> None:
    serverless = bed.client("redshift-serverless")
    error = refused(lambda: serverless.create_namespace(**{"namespaceName": "target"} | more))
    assert error["Code"] == "ValidationException" and said in error["Message"]
    assert "alllowercase1" not in error["Message"]


def test_a_namespace_exists_once_and_is_described_by_name(bed: Bed) -> None:
    bed.namespace()
    serverless = bed.client("redshift-serverless")
    assert refused(lambda: serverless.create_namespace(namespaceName="target"))["Code"] == "ConflictException"
    assert refused(lambda: serverless.get_namespace(namespaceName="none"))["Code"] == "ResourceNotFoundException"


def test_a_workgroup_becomes_available_and_listens(bed: Bed) -> None:
    serverless = bed.client("redshift-serverless")
    namespace = serverless.create_namespace(namespaceName="target")["namespace"]
    made = serverless.create_workgroup(workgroupName="target", namespaceName="target", baseCapacity=8)["workgroup"]
    assert made["status"] == "CREATING" and "endpoint" not in made
    bed.settle()
    found = serverless.get_workgroup(workgroupName="target")["workgroup"]
    assert found["status"] == "AVAILABLE" and found["baseCapacity"] == 8
    assert found["workgroupArn"] == f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:workgroup/{found['workgroupId']}"
    assert found["endpoint"] == {"address": "127.0.0.1", "port": found["port"], "vpcEndpoints": []}
    assert bed.warehouse.listening[ENDPOINT] == {
        "namespace": namespace["namespaceId"],
        "port": found["port"],
        "settings": settings(found),
        "rpu": 8,
    }


def test_a_fresh_workgroup_has_the_defaults_of_aws(bed: Bed) -> None:
    serverless = bed.client("redshift-serverless")
    serverless.create_namespace(namespaceName="target")
    made = serverless.create_workgroup(workgroupName="target", namespaceName="target")["workgroup"]
    assert settings(made) == {
        "auto_mv": "true",
        "datestyle": "ISO, MDY",
        "enable_case_sensitive_identifier": "false",
        "enable_large_strings_opt_in": "false",
        "enable_user_activity_logging": "true",
        "query_group": "default",
        "require_ssl": "true",
        "search_path": "$user, public",
        "use_fips_ssl": "false",
        "max_query_execution_time": "14400",
    }
    assert made["baseCapacity"] == 128


def test_one_parameter_changed_leaves_the_others(bed: Bed) -> None:
    bed.namespace(case_sensitive=False)
    serverless = bed.client("redshift-serverless")
    before = settings(serverless.get_workgroup(workgroupName="target")["workgroup"])
    change = [{"parameterKey": "enable_case_sensitive_identifier", "parameterValue": "true"}]
    answer = serverless.update_workgroup(workgroupName="target", configParameters=change)["workgroup"]
    assert answer["status"] == "MODIFYING"
    bed.settle()
    after = settings(serverless.get_workgroup(workgroupName="target")["workgroup"])
    assert after == before | {"enable_case_sensitive_identifier": "true"}
    assert bed.warehouse.listening[ENDPOINT]["settings"] == after


def test_capacity_and_port_change(bed: Bed) -> None:
    bed.namespace()
    serverless = bed.client("redshift-serverless")
    port = serverless.get_workgroup(workgroupName="target")["workgroup"]["port"]
    serverless.update_workgroup(workgroupName="target", baseCapacity=32)
    bed.settle()
    assert bed.warehouse.listening[ENDPOINT]["rpu"] == 32
    serverless.update_workgroup(workgroupName="target", port=5439)
    bed.settle()
    found = serverless.get_workgroup(workgroupName="target")["workgroup"]
    assert found["endpoint"]["port"] != port
    assert bed.warehouse.listening[ENDPOINT]["port"] == found["endpoint"]["port"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "exactly one kind of setting in a request; got none"),
        ({"baseCapacity": 16, "port": 5440}, "got baseCapacity, port"),
        ({"baseCapacity": 9}, "multiple of 8 between 8 and 1024"),
        ({"configParameters": [{"parameterKey": "no", "parameterValue": "1"}]}, "Invalid config parameter no"),
        ({"configParameters": [{"parameterKey": "auto_mv", "parameterValue": "1"}]}, "allowed are true and false"),
        (
            {"configParameters": [{"parameterKey": "max_query_execution_time", "parameterValue": "x"}]},
            "must be a whole number",
        ),
    ],
)
def test_updates_that_cannot_be(bed: Bed, change: dict[str, Any], said: str) -> None:
    bed.namespace()
    error = refused(lambda: bed.client("redshift-serverless").update_workgroup(workgroupName="target", **change))
    assert error["Code"] == "ValidationException" and said in error["Message"]


def test_price_performance_is_refused_by_name(bed: Bed) -> None:
    bed.namespace()
    error = refused(
        lambda: bed.client("redshift-serverless").update_workgroup(
            workgroupName="target", pricePerformanceTarget={"status": "ENABLED", "level": 50}
        )
    )
    assert error["Code"] == "NotImplemented" and "pricePerformanceTarget" in error["Message"]


def test_one_workgroup_a_namespace(bed: Bed) -> None:
    bed.namespace()
    serverless = bed.client("redshift-serverless")
    error = refused(lambda: serverless.create_workgroup(workgroupName="second", namespaceName="target"))
    assert error["Code"] == "ConflictException" and "workgroup target" in error["Message"]
    serverless.create_namespace(namespaceName="other")
    error = refused(lambda: serverless.create_workgroup(workgroupName="target", namespaceName="other"))
    assert error["Code"] == "ConflictException" and "name target" in error["Message"]
    error = refused(lambda: serverless.create_workgroup(workgroupName="new", namespaceName="absent"))
    assert error["Code"] == "ResourceNotFoundException"


def test_deleting_in_order(bed: Bed) -> None:
    namespace = bed.namespace()
    serverless = bed.client("redshift-serverless")
    error = refused(lambda: serverless.delete_namespace(namespaceName="target"))
    assert error["Code"] == "ConflictException" and "Delete the workgroup first" in error["Message"]
    assert serverless.delete_workgroup(workgroupName="target")["workgroup"]["status"] == "DELETING"
    bed.settle()
    assert bed.warehouse.listening == {}
    assert refused(lambda: serverless.get_workgroup(workgroupName="target"))["Code"] == "ResourceNotFoundException"
    assert serverless.delete_namespace(namespaceName="target")["namespace"]["status"] == "DELETING"
    bed.settle()
    assert bed.warehouse.namespaces == {} and serverless.list_namespaces()["namespaces"] == []
    secret = namespace["adminPasswordSecretArn"]
    assert "ResourceNotFound" in refused(lambda: bed.client("secretsmanager").get_secret_value(SecretId=secret))["Code"]


def test_a_restart_opens_what_was_open_on_the_same_port(bed: Bed) -> None:
    namespace = bed.namespace()
    before = dict(bed.warehouse.listening)
    bed.restart()
    assert bed.warehouse.listening == before
    assert bed.warehouse.opened == [namespace["namespaceId"]]


def test_a_taken_port_is_said(bed: Bed) -> None:
    import socket

    bed.namespace()
    workgroup = bed.client("redshift-serverless").get_workgroup(workgroupName="target")["workgroup"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", workgroup["port"]))
        taken.listen()
        with pytest.raises(OSError, match=f"port {workgroup['port']} .* workgroup target, is taken by another program"):
            bed.plane.serverless.resume()
    bed.plane.serverless.resume()


def test_a_namespace_that_was_never_answered_is_forgotten(bed: Bed) -> None:
    namespace = bed.namespace()
    key = f"{ACCOUNT}/{REGION}/target"
    bed.store.delete("redshift.workgroup", key)
    bed.store.update("redshift.namespace", key, lambda doc: doc.update(made=False))
    bed.restart()
    assert bed.client("redshift-serverless").list_namespaces()["namespaces"] == []
    assert namespace["namespaceId"] not in bed.warehouse.namespaces


def test_a_warehouse_that_cannot_make_the_namespace_leaves_nothing(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(bed.warehouse, "create_namespace", fail)
    serverless = bed.client("redshift-serverless")
    assert refused(lambda: serverless.create_namespace(namespaceName="target"))["Code"] == "InternalFailure"
    assert serverless.list_namespaces()["namespaces"] == []


def test_credentials_are_the_callers_own_and_without_rights(bed: Bed) -> None:
    namespace = bed.namespace()
    serverless = bed.client("redshift-serverless")
    found = serverless.get_credentials(workgroupName="target", dbName="dev", durationSeconds=1200)
    held = bed.warehouse.users[namespace["namespaceId"], found["dbUser"]]
    assert found["dbUser"] == "IAM:admin" and not held["superuser"] and held["password"] == found["dbPassword"]
    assert 1190 < found["expiration"].timestamp() - time.time() < 1210
    assert abs(held["expires_at"] - found["expiration"].timestamp()) < 0.01
    again = serverless.get_credentials(workgroupName="target")
    assert again["dbPassword"] == found["dbPassword"]  # two processes of one identity can both be logged in
    assert again["expiration"] == found["expiration"]


def test_a_role_is_another_user(bed: Bed) -> None:
    from zeroetl_dagster_tests.local_aws.conftest import OTHER_ACCOUNT

    other = bed.of_account("redshift-serverless")
    other.create_namespace(namespaceName="theirs")
    other.create_workgroup(workgroupName="theirs", namespaceName="theirs")
    bed.settle()
    assert other.get_credentials(workgroupName="theirs")["dbUser"] == "IAMR:builder"
    workgroup = other.get_workgroup(workgroupName="theirs")["workgroup"]
    assert workgroup["workgroupArn"].split(":")[4] == OTHER_ACCOUNT


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"workgroupName": "absent"}, "ResourceNotFoundException", "absent"),
        ({"workgroupName": "target", "durationSeconds": 60}, "ValidationException", "between 900 and 3600"),
        ({}, "ValidationException", "workgroupName must be given"),
        ({"customDomainName": "a.example.com"}, "NotImplemented", "customDomainName"),
    ],
)
def test_credentials_that_cannot_be(bed: Bed, more: dict[str, Any], code: str, said: str) -> None:
    bed.namespace()
    error = refused(lambda: bed.client("redshift-serverless").get_credentials(**more))
    assert error["Code"] == code and said in error["Message"]


def test_listing_in_pages(bed: Bed) -> None:
    serverless = bed.client("redshift-serverless")
    for number in range(5):
        serverless.create_namespace(namespaceName=f"ns{number}")
    pages = serverless.get_paginator("list_namespaces").paginate(PaginationConfig={"PageSize": 2})
    assert [[n["namespaceName"] for n in page["namespaces"]] for page in pages] == [
        ["ns0", "ns1"],
        ["ns2", "ns3"],
        ["ns4"],
    ]
    assert "Invalid nextToken" in refused(lambda: serverless.list_namespaces(nextToken="x"))["Message"]
    assert serverless.list_workgroups()["workgroups"] == []


def test_the_own_resource_policy_is_kept_and_answered(bed: Bed) -> None:
    arn = bed.namespace()["namespaceArn"]
    serverless = bed.client("redshift-serverless")
    error = refused(lambda: serverless.get_resource_policy(resourceArn=arn))
    assert error["Code"] == "ResourceNotFoundException"
    serverless.put_resource_policy(resourceArn=arn, policy="{}")
    assert serverless.get_resource_policy(resourceArn=arn)["resourcePolicy"] == {"resourceArn": arn, "policy": "{}"}
    serverless.delete_resource_policy(resourceArn=arn)
    for action in (serverless.delete_resource_policy, serverless.get_resource_policy):
        assert refused(partial(action, resourceArn=arn))["Code"] == "ResourceNotFoundException"
    error = refused(lambda: serverless.put_resource_policy(resourceArn=arn + "x", policy="{}"))
    assert error["Code"] == "ResourceNotFoundException"


def test_tags(bed: Bed) -> None:
    namespace = bed.namespace()
    serverless = bed.client("redshift-serverless")
    for arn in (
        namespace["namespaceArn"],
        serverless.get_workgroup(workgroupName="target")["workgroup"]["workgroupArn"],
    ):
        serverless.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
        serverless.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "3"}])
        serverless.untag_resource(resourceArn=arn, tagKeys=["b"])
        assert serverless.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "a", "value": "3"}]


def test_an_unknown_key_may_not_call(bed: Bed) -> None:
    stranger = bed.client("redshift-serverless", key="AKIASTRANGER")
    assert refused(lambda: stranger.list_namespaces())["Code"] == "UnrecognizedClientException"
