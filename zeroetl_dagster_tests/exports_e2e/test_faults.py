"""What goes wrong at AWS, and what a user is told: what was found, what is required, what mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from zeroetl_dagster_tests.exports_e2e.shop import (
    ACCOUNT,
    BUCKET,
    CRAWLER_ROLE,
    EXPORT_ROLE,
    OTHER_ACCOUNT,
    REGION,
    Pipeline,
    Shop,
    describe_snapshot,
    failure,
    made,
    until,
)

NO_CLUSTER = {"cluster": "none", "engine": "aurora-postgresql", "database": "x"}


@pytest.fixture(scope="module", autouse=True)
def snapshot(shop: Shop) -> Iterator[str]:
    name = shop.snapshot()
    yield name
    shop.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)


def test_a_bucket_in_another_region_fails_the_task_and_the_run_says_what_mends_it(shop: Shop) -> None:
    s3 = shop.client("s3", region="eu-central-1")
    s3.create_bucket(Bucket="far-lake", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    pipeline = Pipeline(shop, shop.settings("far", bucket="far-lake"))
    said = failure(pipeline.run(only=[pipeline.export]))
    assert "FAILED: The S3 bucket far-lake isn't located in the current AWS Region" in said
    assert "change `bucket`" in said


def test_after_a_failed_task_the_next_run_makes_another(shop: Shop) -> None:
    shop.role("lost", "export.rds.amazonaws.com", ["s3:*"])
    arn = f"arn:aws:iam::{ACCOUNT}:role/lost"
    pipeline = Pipeline(shop, shop.settings("lost", export_role=arn, wait={"mode": "sensor"}))
    iam = shop.aws.client("iam")
    with shop.busy():
        pipeline.run()
        iam.delete_role_policy(RoleName="lost", PolicyName="rights")
    shop.ended(pipeline, "FAILED")
    (request,) = pipeline.tick()
    said = failure(pipeline.asked(request))
    assert "isn't authorized to call s3:ListBucket" in said and "`export_role` needs" in said
    rights = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    iam.put_role_policy(RoleName="lost", PolicyName="rights", PolicyDocument=json.dumps({"Statement": [rights]}))
    pipeline.run()
    shop.ended(pipeline)
    assert [task["Status"] for task in pipeline.tasks()] == ["FAILED", "COMPLETE"]


def test_a_disabled_key_is_refused(shop: Shop) -> None:
    kms = shop.aws.client("kms")
    key = kms.create_key()["KeyMetadata"]
    kms.disable_key(KeyId=key["KeyId"])
    pipeline = Pipeline(shop, shop.settings("nokey", kms_key=key["Arn"]))
    said = failure(pipeline.run())
    assert "[KMSKeyNotAccessibleFault]" in said and "is disabled" in said
    assert "the key must be enabled and symmetric" in said and pipeline.tasks() == []


def test_a_key_that_is_disabled_during_the_export_fails_it(shop: Shop) -> None:
    kms = shop.aws.client("kms")
    key = kms.create_key()["KeyMetadata"]
    pipeline = Pipeline(shop, shop.settings("lostkey", kms_key=key["Arn"], wait={"mode": "sensor"}))
    with shop.busy():
        pipeline.run()
        kms.disable_key(KeyId=key["KeyId"])
    shop.ended(pipeline, "FAILED")
    (request,) = pipeline.tick()
    assert "`kms_key`: the key must be enabled" in failure(pipeline.asked(request))


def test_whoever_may_not_pass_the_role_is_told_which_right_is_missing(shop: Shop) -> None:
    caller = shop.role("no-pass", f"arn:aws:iam::{ACCOUNT}:root", ["rds:*", "kms:*"])
    settings = shop.settings("nopass", source={**shop.source, "aws": "caller"})
    pipeline = Pipeline(shop, settings, caller=shop.assumed(caller))
    said = failure(pipeline.run())
    assert "iam:PassRole" in said and f"allow iam:PassRole on {EXPORT_ROLE}" in said
    assert "iam:PassedToService" in said


@pytest.mark.parametrize(
    ("what", "more", "words"),
    [
        ("bucket", {"bucket": "there-is-none"}, "`bucket` does not exist"),
        ("role", {"export_role": f"arn:aws:iam::{ACCOUNT}:role/there-is-none"}, "names no role of the account"),
        ("trust", {"export_role": f"arn:aws:iam::{ACCOUNT}:role/{CRAWLER_ROLE}"}, "its trust policy must let"),
        ("table", {"tables": ["public.there_is_none"]}, "is not in the snapshot"),
        (
            "source",
            {"source": NO_CLUSTER},
            "there is no cluster",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_one_message(shop: Shop, what: str, more: dict[str, Any], words: str) -> None:
    assert words in failure(Pipeline(shop, shop.settings(f"wrong_{what}", **more)).run())


def test_a_snapshot_that_is_deleted_as_it_is_chosen(shop: Shop) -> None:
    """A retry takes the newest one that is left."""
    doomed = shop.snapshot()
    pipeline = Pipeline(shop, shop.settings("deleted"))

    def delete(**_: Any) -> None:
        if describe_snapshot(shop.rds, doomed)["Status"] == "available":
            rds.meta.events.unregister("before-call.rds.StartExportTask", delete)
            shop.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=doomed)

    rds = shop.aws.client("rds")
    rds.meta.events.register("before-call.rds.StartExportTask", delete)
    said = failure(pipeline.run())
    assert doomed in said and "the snapshot was deleted since it was chosen: run the partition again" in said
    assert pipeline.run().success


def test_a_snapshot_that_is_deleted_during_its_export_does_not_matter(shop: Shop) -> None:
    doomed = shop.snapshot()
    pipeline = Pipeline(shop, shop.settings("gone", wait={"mode": "sensor"}))
    with shop.busy():
        pipeline.run()
        shop.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=doomed)
    shop.ended(pipeline)
    (request,) = pipeline.tick()
    assert "gone/public/sales" in made(pipeline.asked(request))


def test_a_crawler_that_runs_for_somebody_else_is_waited_for(shop: Shop) -> None:
    """They start it between our look at it and our change of it; its targets are theirs until it ends."""
    pipeline = Pipeline(shop, shop.settings("shared", mode="crawler"))
    assert pipeline.run().success
    shop.s3.put_object(Bucket=BUCKET, Key="theirs/things/a.csv", Body=b"a,b\n1,2\n")
    theirs, events = shop.client("glue"), shop.glue.meta.events
    theirs.create_database(DatabaseInput={"Name": "theirs"})
    targets = {"S3Targets": [{"Path": f"s3://{BUCKET}/theirs/"}]}
    theirs.update_crawler(Name="shared", Targets=targets, DatabaseName="theirs")

    def start(**_: Any) -> None:
        events.unregister("before-call.glue.UpdateCrawler", start)
        theirs.start_crawler(Name="shared")

    events.register("before-call.glue.UpdateCrawler", start)
    with shop.delays(modifying_seconds=0.2):
        again = pipeline.run(only=pipeline.following)
    assert again.success and "shared/public/sales" in made(again)
    said = [entry.user_message for entry in pipeline.instance.all_logs(again.run_id)]
    assert "crawler shared was started by somebody else; waiting for it" in said
    assert [t["Name"] for t in theirs.get_tables(DatabaseName="theirs")["TableList"]] == ["things"]


def test_an_adopted_crawler_that_would_make_a_table_a_day_is_refused_and_left_alone(shop: Shop) -> None:
    targets = {"S3Targets": [{"Path": f"s3://{BUCKET}/exports/"}]}
    shop.glue.create_crawler(Name="adopted", Role=CRAWLER_ROLE, DatabaseName="somewhere", Targets=targets)
    catalogue = {"database": "adopting", "mode": "crawler", "crawler": {"name": "adopted", "manage": "adopt"}}
    said = failure(Pipeline(shop, shop.settings("adopting", catalogue=catalogue)).run())
    assert "would make a table per export or mix tables up" in said and "TableLevelConfiguration is None" in said
    assert shop.glue.get_crawler(Name="adopted")["Crawler"]["DatabaseName"] == "somewhere"


@pytest.fixture(scope="module")
def other_account(shop: Shop) -> str:
    """A cluster with a snapshot in another account; its export role and key. Returns the role to assume there."""
    rds, iam = (shop.client(name, account=OTHER_ACCOUNT) for name in ("rds", "iam"))
    shop.cluster(rds, "theirs")
    key = f"{OTHER_ACCOUNT}/{REGION}/theirs"
    shop.sql("CREATE TABLE sales (id INT PRIMARY KEY); INSERT INTO sales VALUES (41), (42)", cluster=key)
    shop.snapshot("theirs-by-hand", rds=rds, cluster="theirs")
    shop.role("export", "export.rds.amazonaws.com", ["s3:*"], iam=iam)
    return shop.role("reader", f"arn:aws:iam::{ACCOUNT}:root", ["rds:*", "kms:*", "iam:PassRole"], iam=iam)


def test_the_database_of_another_account_is_exported_into_this_ones_bucket(shop: Shop, other_account: str) -> None:
    kms, account = shop.client("kms", account=OTHER_ACCOUNT), f"arn:aws:iam::{OTHER_ACCOUNT}:role/export"
    source = {"cluster": "theirs", "engine": "aurora-postgresql", "database": "shop", "aws": "production"}
    settings = shop.settings(
        "across", source=source, export_role=account, kms_key=kms.create_key()["KeyMetadata"]["Arn"]
    )
    pipeline = Pipeline(shop, settings, production=shop.assumed(other_account, "production"))
    said = failure(pipeline.run())
    assert "isn't authorized to call s3:ListBucket" in said  # this account's bucket has not let it in
    allow = {"Effect": "Allow", "Principal": {"AWS": account}, "Action": "s3:*"}
    resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    policy = {"Version": "2012-10-17", "Statement": [{**allow, "Resource": resources}]}
    shop.s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    assert pipeline.run().success
    assert shop.query("SELECT id FROM across_lake.public_sales_latest ORDER BY 1") == [(41,), (42,)]
    rds = shop.client("rds", account=OTHER_ACCOUNT)
    assert len(pipeline.tasks(rds)) == 1 and pipeline.tasks() == []
    until(lambda: pipeline.tasks(rds)[0]["Status"], "COMPLETE")
