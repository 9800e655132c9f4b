"""Export tasks: what is refused, how one goes on its way, how many may."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from zeroetl_dagster_tests.control_plane import ACCOUNT, OTHER_ACCOUNT, REGION
from zeroetl_dagster_tests.local_aws.conftest import refused
from zeroetl_dagster_tests.local_exports.bed import ALL_OF_S3, BUCKET, TRUST, Bed, until

THERE_IS_NONE = f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster-snapshot:there-is-none"


@pytest.fixture(scope="module")
def source(bed: Bed) -> str:
    """The ARN of a snapshot with `shopping.public.sales` (3 rows) and `shopping.back.office` (1 row)."""
    bed.database(
        "shopping",
        "CREATE TABLE sales AS SELECT g AS id FROM generate_series(1, 3) g; CREATE SCHEMA back;"
        "CREATE TABLE back.office AS SELECT 1 AS id",
        of="source",
    )
    return bed.snapshot("shopping", of="source")


def names(bed: Bed, **more: Any) -> list[str]:
    return [task["ExportTaskIdentifier"] for task in bed.rds.describe_export_tasks(**more)["ExportTasks"]]


# ---- the way of one task -----------------------------------------------------------------------------------------


def test_a_task_from_its_start_to_its_end(bed: Bed, source: str) -> None:
    with bed.waiting():
        made = bed.start_export("whole", source, S3Prefix="/daily/", ExportOnly=["shopping"])
        assert made["Status"] == "STARTING" and made["PercentProgress"] == 0
        assert "TaskStartTime" not in made and made["SourceType"] == "SNAPSHOT"
    done = bed.ended("whole")
    assert (done["PercentProgress"], done["TotalExtractedDataInGB"]) == (100, 0)
    assert done["SnapshotTime"] == bed.described("shopping")["SnapshotCreateTime"]
    assert done["SnapshotTime"] < done["TaskStartTime"] < done["TaskEndTime"]
    given = {name: done[name] for name in ("S3Bucket", "S3Prefix", "IamRoleArn", "KmsKeyId", "ExportOnly", "SourceArn")}
    assert given == {
        "S3Bucket": BUCKET,
        "S3Prefix": "daily",
        "IamRoleArn": bed.role,
        "KmsKeyId": bed.key,
        "ExportOnly": ["shopping"],
        "SourceArn": source,
    }
    assert "FailureCause" not in done and "WarningMessage" not in done
    assert sorted(bed.table("daily/whole/shopping/public.sales/")["id"].to_pylist()) == [1, 2, 3]


def test_the_percentage_grows_while_it_is_written(bed: Bed) -> None:
    """Held at each step: what has been written is what the percentage says."""
    tables = "; ".join(f"CREATE TABLE t{n} AS SELECT g AS id FROM generate_series(1, 1000) g" for n in range(4))
    name = bed.database("percent", tables, of="source")
    arn = bed.snapshot("percent", of="source")
    seen: list[int] = []
    change = bed.service.exports._change_unless_canceling

    def spy(key: str, **members: Any) -> None:
        change(key, **members)
        seen.append(bed.task("percent")["PercentProgress"])

    bed.service.exports._change_unless_canceling = spy  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zeroetl_dagster.local.aws.export_run.TELL_SECONDS", 0)
        bed.export("percent", arn, ExportOnly=[name])
    bed.service.exports._change_unless_canceling = change  # type: ignore[method-assign]
    assert seen == [0, 25, 50, 75, 99]


def test_only_what_was_asked_for_is_exported(bed: Bed, source: str) -> None:
    for name, only, targets in (
        ("by-table", ["shopping.public.sales"], {"shopping.public.sales"}),
        ("by-schema", ["shopping.back"], {"shopping.back.office"}),
        ("by-both", ["shopping.back", "shopping.public.sales"], {"shopping.back.office", "shopping.public.sales"}),
    ):
        bed.export(name, source, ExportOnly=only)
        assert set(bed.manifest(name)) == targets
    bed.export("everything", source)
    assert {"shopping.back.office", "shopping.public.sales"} <= set(bed.manifest("everything"))


def test_a_live_cluster_is_exported_as_of_the_call(bed: Bed) -> None:
    name = bed.database("alive", "CREATE TABLE it AS SELECT 1 AS n", of="source")
    arn = bed.rds.describe_db_clusters(DBClusterIdentifier="source")["DBClusters"][0]["DBClusterArn"]
    before = set((bed.folder.root / "snapshots").iterdir())
    with bed.waiting():
        made = bed.start_export("alive", arn, ExportOnly=[name])
        bed.sql("UPDATE it SET n = 2", of="source", database=name)
    done = bed.ended("alive")
    assert made["SourceType"] == done["SourceType"] == "CLUSTER" and done["SourceArn"] == arn
    assert bed.table("alive/alive/public.it/")["n"].to_pylist() == [1]
    until(lambda: set((bed.folder.root / "snapshots").iterdir()), before)  # the clone is gone


# ---- cancelling --------------------------------------------------------------------------------------------------


def test_a_task_is_cancelled_before_it_writes(bed: Bed, source: str) -> None:
    with bed.waiting():
        bed.start_export("cancelled", source)
        assert bed.rds.cancel_export_task(ExportTaskIdentifier="cancelled")["Status"] == "CANCELING"
        done = bed.ended("cancelled", "CANCELED")
    assert bed.keys("cancelled/") == [] and "TaskEndTime" in done
    said = refused(lambda: bed.rds.cancel_export_task(ExportTaskIdentifier="cancelled"))
    assert said["Code"] == "InvalidExportTaskStateFault" and "status CANCELED" in said["Message"]
    assert refused(lambda: bed.rds.cancel_export_task(ExportTaskIdentifier="no"))["Code"] == "ExportTaskNotFound"


def test_a_task_that_is_cancelled_while_it_writes_leaves_what_it_has_written(
    bed: Bed, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroetl_dagster.local.aws import export_run

    write = export_run.write_table

    def cancelling(*given: Any, **more: Any) -> int:
        files = write(*given, **more)
        bed.rds.cancel_export_task(ExportTaskIdentifier="cut-short")
        return files

    monkeypatch.setattr(export_run, "write_table", cancelling)
    bed.start_export("cut-short", source, ExportOnly=["shopping"])
    bed.ended("cut-short", "CANCELED")
    assert [key for key in bed.keys("cut-short/") if key.endswith("_SUCCESS")] == ["shopping/back.office/1/_SUCCESS"]
    assert not [key for key in bed.keys("cut-short/") if key.endswith(".json")]


def test_a_task_that_is_cancelled_at_the_last_moment_is_not_complete(
    bed: Bed, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroetl_dagster.local.aws.export_run import _TaskWriter

    write = _TaskWriter.write

    def cancelling(self: Any) -> dict[str, Any]:
        written = write(self)
        bed.rds.cancel_export_task(ExportTaskIdentifier="too-late")
        return written

    monkeypatch.setattr(_TaskWriter, "write", cancelling)
    bed.start_export("too-late", source, ExportOnly=["shopping"])
    bed.ended("too-late", "CANCELED")


# ---- how many, and which are told of --------------------------------------------------------------------------------


@pytest.fixture
def five(bed: Bed, source: str) -> Iterator[list[str]]:
    """Five tasks that wait, of copies of the snapshot."""
    made = [f"five-{number}" for number in range(6)]
    for name in made:
        given = {"SourceDBClusterSnapshotIdentifier": source, "TargetDBClusterSnapshotIdentifier": name}
        bed.rds.copy_db_cluster_snapshot(**given)
    arns = [bed.described(name)["DBClusterSnapshotArn"] for name in made]
    with bed.waiting():
        for name, arn in zip(made[:5], arns, strict=False):
            bed.start_export(name, arn, ExportOnly=["shopping"])
        yield arns
        for name in made[:5]:
            bed.rds.cancel_export_task(ExportTaskIdentifier=name)
    for name in made[:5]:
        bed.ended(name, "CANCELED")
    for name in made:
        bed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)


def test_five_tasks_at_once_are_allowed_one_of_each_source_and_each_is_found(bed: Bed, five: list[str]) -> None:
    said = refused(lambda: bed.start_export("sixth", five[5]))
    assert said["Code"] == "ExportTaskLimitReachedFault" and "5 export tasks" in said["Message"]
    assert names(bed, SourceArn=five[2]) == ["five-2"]
    assert names(bed, SourceArn=five[5]) == []
    running = [{"Name": "status", "Values": ["starting"]}]
    assert set(names(bed, Filters=running)) == {f"five-{number}" for number in range(5)}
    assert set(names(bed, SourceType="CLUSTER")) & {f"five-{number}" for number in range(5)} == set()
    named = [{"Name": "export-task-identifier", "Values": ["five-1"]}, {"Name": "s3-bucket", "Values": [BUCKET]}]
    assert names(bed, Filters=named) == ["five-1"]
    assert names(bed, Filters=[{"Name": "source-arn", "Values": [five[0]]}]) == ["five-0"]


def test_one_task_at_a_time_of_a_source(bed: Bed, source: str) -> None:
    with bed.waiting():
        bed.start_export("only-one", source)
        said = refused(lambda: bed.start_export("second", source))
        assert said["Code"] == "InvalidExportSourceState" and "is being exported" in said["Message"]
    bed.ended("only-one")
    bed.export("after-it", source)


def test_of_calls_at_once_one_gets_the_source(bed: Bed, source: str) -> None:
    outcomes: list[str] = []

    def start(number: int) -> None:
        client = bed.client("rds")
        try:
            bed.start_export(f"race-{number}", source, rds=client, ExportOnly=["shopping"])
            outcomes.append("started")
        except client.exceptions.ClientError as error:
            outcomes.append(error.response["Error"]["Code"])

    with bed.waiting():
        threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == [*["InvalidExportSourceState"] * 3, "started"]
    (name,) = [name for name in names(bed) if name.startswith("race-")]
    bed.ended(name)


def test_the_newest_task_comes_first_in_pages(bed: Bed, source: str) -> None:
    bed.export("older", source, ExportOnly=["shopping"])
    bed.export("newer", source, ExportOnly=["shopping"])
    assert names(bed)[:2] == ["newer", "older"]
    pages = bed.rds.get_paginator("describe_export_tasks").paginate(PaginationConfig={"PageSize": 20})
    assert [task["ExportTaskIdentifier"] for page in pages for task in page["ExportTasks"]] == names(bed)
    assert refused(lambda: bed.task("there-is-none"))["Code"] == "ExportTaskNotFound"


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_an_identifier_is_never_free_again(bed: Bed, source: str) -> None:
    bed.export("used", source, ExportOnly=["shopping"])
    with bed.waiting():
        bed.start_export("used-too", source)
        bed.rds.cancel_export_task(ExportTaskIdentifier="used-too")
        bed.ended("used-too", "CANCELED")
    for name in ("used", "used-too"):
        assert refused(partial(bed.start_export, name, source))["Code"] == "ExportTaskAlreadyExists"


@pytest.mark.parametrize("name", ["1st", "a--b", "a-", "a_b", "a" * 61])
def test_an_identifier_that_is_none(bed: Bed, source: str, name: str) -> None:
    said = refused(lambda: bed.start_export(name, source))
    assert said["Code"] == "InvalidParameterValue" and "at most 60 letters, digits and hyphens" in said["Message"]


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"SourceArn": THERE_IS_NONE}, "DBClusterSnapshotNotFoundFault", "there-is-none"),
        ({"SourceArn": THERE_IS_NONE.replace("-snapshot", "")}, "DBClusterNotFoundFault", "there-is-none"),
        ({"SourceArn": THERE_IS_NONE.replace("cluster-", "")}, "DBSnapshotNotFound", "there-is-none"),
        ({"SourceArn": "there-is-none"}, "InvalidParameterValue", "ARN of a snapshot or of an Aurora cluster"),
        ({"S3BucketName": "there-is-none"}, "InvalidS3BucketFault", "isn't valid"),
        ({"S3Prefix": "a:b"}, "InvalidParameterValue", "colon"),
        ({"IamRoleArn": f"arn:aws:iam::{ACCOUNT}:role/none"}, "IamRoleNotFound", "is missing"),
        ({"KmsKeyId": "alias/there-is-none"}, "KMSKeyNotAccessibleFault", "alias/there-is-none"),
        ({"ExportOnly": ["there_is_none"]}, "InvalidExportOnly", "there_is_none does not exist"),
        ({"ExportOnly": ["shopping.public.none"]}, "InvalidExportOnly", "shopping.public.none does not exist"),
        ({"ExportOnly": ["shopping.Public"]}, "InvalidExportOnly", "shopping.Public does not exist"),
        ({"ExportOnly": ["shop-ping"]}, "InvalidExportOnly", "letters, digits, $ and _"),
        ({"ExportOnly": ["a.b.c.d"]}, "InvalidExportOnly", "letters, digits, $ and _"),
        ({"ExportOnly": ["x" * 1000] * 205}, "InvalidExportOnly", "200 KB"),
    ],
)
def test_what_no_export_is_started_of(bed: Bed, source: str, given: dict[str, Any], code: str, words: str) -> None:
    said = refused(lambda: bed.start_export("refused", given.pop("SourceArn", source), **given))
    assert said["Code"] == code and words in said["Message"]
    assert "refused" not in names(bed)


def test_a_snapshot_that_is_being_made_is_not_exported(bed: Bed) -> None:
    made = bed.rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="unfinished", DBClusterIdentifier="source")
    said = refused(lambda: bed.start_export("unfinished", made["DBClusterSnapshot"]["DBClusterSnapshotArn"]))
    assert said["Code"] == "InvalidExportSourceState" and "status creating" in said["Message"]
    until(lambda: bed.described("unfinished")["Status"], "available")


def test_a_disabled_key(bed: Bed, source: str) -> None:
    key = bed.kms.create_key()["KeyMetadata"]["KeyId"]
    bed.kms.disable_key(KeyId=key)
    said = refused(lambda: bed.start_export("disabled-key", source, KmsKeyId=key))
    assert said["Code"] == "KMSKeyNotAccessibleFault" and "is disabled" in said["Message"]


def test_a_key_may_be_named_in_every_way(bed: Bed, source: str) -> None:
    bed.kms.create_alias(AliasName="alias/exports", TargetKeyId=bed.key)
    for number, name in enumerate(("alias/exports", bed.key.rpartition("/")[2])):
        done = bed.export(f"key-{number}", source, KmsKeyId=name, ExportOnly=["shopping"])
        assert done["KmsKeyId"] == bed.key


def test_a_role_that_the_service_may_not_assume(bed: Bed, source: str) -> None:
    trust = {**TRUST, "Principal": {"Service": "rds.amazonaws.com"}}
    role = bed.make_role("for-others", trust)
    said = refused(lambda: bed.start_export("not-trusted", source, IamRoleArn=role))
    assert said["Code"] == "IamRoleMissingPermissions" and "can't assume the IAM role" in said["Message"]


@pytest.mark.parametrize("missing", ["s3:ListBucket", "s3:GetBucketLocation", "s3:PutObject", "s3:DeleteObject"])
def test_a_role_without_a_right_on_the_bucket(bed: Bed, source: str, missing: str) -> None:
    rights = {"Effect": "Allow", "NotAction": missing, "Resource": "*"}
    role = bed.make_role("without-" + missing.partition(":")[2], TRUST, rights)
    said = refused(lambda: bed.start_export("no-rights", source, IamRoleArn=role))
    assert said["Code"] == "IamRoleMissingPermissions" and f"isn't authorized to call {missing}" in said["Message"]


def test_the_least_rights_that_the_guide_gives_are_enough(bed: Bed, source: str) -> None:
    bucket = f"arn:aws:s3:::{BUCKET}"
    statements = [
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject*", "s3:GetObject*", "s3:DeleteObject*"],
            "Resource": f"{bucket}/in/*",
        },
        {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation"], "Resource": bucket},
    ]
    role = bed.make_role("least", TRUST, None)
    bed.iam.put_role_policy(RoleName="least", PolicyName="own", PolicyDocument=json.dumps({"Statement": statements}))
    bed.export("least", source, IamRoleArn=role, S3Prefix="in", ExportOnly=["shopping"])
    said = refused(lambda: bed.start_export("elsewhere", source, IamRoleArn=role, S3Prefix="out"))
    assert "s3:PutObject" in said["Message"]


def test_a_caller_who_may_not_pass_the_role(bed: Bed, source: str) -> None:
    trust = {**TRUST, "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
    passing = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": bed.role}
    for name, rights, allowed in (
        ("no-pass", {"Effect": "Allow", "Action": ["rds:*", "kms:*"], "Resource": "*"}, False),
        (
            "other-service",
            {**passing, "Condition": {"StringEquals": {"iam:PassedToService": "glue.amazonaws.com"}}},
            False,
        ),
        ("may-pass", passing, True),
    ):
        caller = bed.make_role(name, trust, rights)
        session = bed.client("sts").assume_role(RoleArn=caller, RoleSessionName="test")["Credentials"]
        rds = bed.client("rds", credentials=session)
        if allowed:
            bed.start_export(name, source, rds=rds, ExportOnly=["shopping"])
            bed.ended(name)
        else:
            said = refused(partial(bed.start_export, name, source, rds=rds))
            assert said["Code"] == "AccessDenied" and "iam:PassRole" in said["Message"] and bed.role in said["Message"]


# ---- what goes wrong on the way -----------------------------------------------------------------------------------


def test_a_bucket_in_another_region_fails_the_task(bed: Bed, source: str) -> None:
    s3 = bed.client("s3", region="eu-west-1")
    s3.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    bed.start_export("far-away", source, S3BucketName="far-away")
    assert "isn't located in the current AWS Region" in bed.ended("far-away", "FAILED")["FailureCause"]


def test_what_is_taken_away_while_the_task_waits_fails_it(bed: Bed, source: str) -> None:
    key = bed.kms.create_key()["KeyMetadata"]["Arn"]
    roles = {name: bed.make_role(f"robbed-{name}") for name in ("no-key", "no-rights-left", "no-role")}

    def take_key() -> None:
        bed.kms.disable_key(KeyId=key)

    def take_rights() -> None:
        bed.iam.delete_role_policy(RoleName="robbed-no-rights-left", PolicyName="own")

    def take_role() -> None:
        bed.iam.delete_role_policy(RoleName="robbed-no-role", PolicyName="own")
        bed.iam.delete_role(RoleName="robbed-no-role")

    for name, take, words in (
        ("no-key", take_key, f"can't use the KMS key {key}: it is Disabled"),
        ("no-rights-left", take_rights, "isn't authorized to call s3:ListBucket"),
        ("no-role", take_role, "can't assume the IAM role"),
    ):
        with bed.waiting():
            bed.start_export(name, source, IamRoleArn=roles[name], KmsKeyId=key if name == "no-key" else bed.key)
            take()
        assert words in bed.ended(name, "FAILED")["FailureCause"]


def test_another_account_exports_its_cluster_into_this_accounts_bucket(bed: Bed) -> None:
    session = bed.in_account(OTHER_ACCOUNT)
    rds, iam, kms = (bed.client(name, credentials=session) for name in ("rds", "iam", "kms"))
    bed.cluster("theirs", rds=rds)
    bed.sql("CREATE TABLE it AS SELECT 41 AS n", of="theirs", account=OTHER_ACCOUNT)
    arn = bed.snapshot("theirs", of="theirs", rds=rds)
    assert arn.split(":")[4] == OTHER_ACCOUNT
    role = bed.make_role("export", TRUST, ALL_OF_S3, iam=iam)
    given = {"rds": rds, "IamRoleArn": role, "KmsKeyId": kms.create_key()["KeyMetadata"]["Arn"], "ExportOnly": ["shop"]}
    said = refused(lambda: bed.start_export("across", arn, **given))
    assert said["Code"] == "IamRoleMissingPermissions" and "s3:ListBucket" in said["Message"]
    allowed = {"Effect": "Allow", "Principal": {"AWS": role}, "Action": "s3:*"}
    policy = {**allowed, "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]}
    bed.s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Statement": [policy]}))
    assert (
        refused(lambda: bed.start_export("across", arn, **{**given, "IamRoleArn": bed.role}))["Code"]
        == "IamRoleNotFound"
    )
    assert refused(lambda: bed.start_export("across", arn))["Code"] == "DBClusterSnapshotNotFoundFault"
    bed.start_export("across", arn, **given)
    bed.ended("across", rds=rds)
    assert bed.table("across/shop/public.it/")["n"].to_pylist() == [41]
    assert refused(lambda: bed.task("across"))["Code"] == "ExportTaskNotFound"  # it is a task of their account
