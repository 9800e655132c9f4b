"""Snapshots that are made for an export, and go with its end."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster.exports import face
from zeroetl_dagster_tests.exports_e2e.shop import (
    ACCOUNT,
    REGION,
    Pipeline,
    Shop,
    checks,
    day,
    describe_snapshot,
    failure,
    made,
    metadata,
)

NONE_OF_THESE = ("awsbackup",)  # so that the day has no snapshot, whatever other tests have taken


def missing(shop: Shop, name: str, **more: Any) -> Pipeline:
    return Pipeline(shop, shop.settings(name, snapshot_types=NONE_OF_THESE, make_snapshot="when_missing", **more))


def snapshots(shop: Shop, pipeline: Pipeline) -> list[str]:
    stem = f"{pipeline.settings.name.replace('_', '-')}-"
    found = shop.rds.describe_db_cluster_snapshots(SnapshotType="manual")["DBClusterSnapshots"]
    return [s["DBClusterSnapshotIdentifier"] for s in found if s["DBClusterSnapshotIdentifier"].startswith(stem)]


def config(pipeline: Pipeline, **asked: bool) -> dict[str, Any]:
    return {"ops": {f"{pipeline.settings.name}__export": {"config": asked}}}


def test_a_day_without_one_gets_one_which_is_deleted_after_its_export(shop: Shop) -> None:
    pipeline = missing(shop, "ondemand")
    result = pipeline.run()
    assert "ondemand/public/sales" in made(result)
    arn = metadata(result, "ondemand", "export")["zeroetl/snapshot_arn"]
    assert "cluster-snapshot:ondemand-" in arn and snapshots(shop, pipeline) == []
    said = [entry.user_message for entry in pipeline.instance.all_logs(result.run_id)]
    assert any("was deleted (`keep_made_snapshots: true` keeps them)" in text for text in said)


def test_one_that_a_killed_run_began_is_found_by_a_retry_and_kept_if_so_configured(shop: Shop) -> None:
    pipeline = missing(shop, "begun", keep_made_snapshots=True)
    calls: list[str] = []

    def killed(**_: Any) -> None:
        calls.append("asked")
        if len(calls) == 1:
            raise KeyboardInterrupt

    events = shop.rds.meta.events
    events.register("before-call.rds.DescribeDBClusterSnapshots", killed)
    try:
        assert not pipeline.run().success
        assert pipeline.run().success
    finally:
        events.unregister("before-call.rds.DescribeDBClusterSnapshots", killed)
    (name,) = snapshots(shop, pipeline)
    assert describe_snapshot(shop.rds, name)["TagList"] == [{"Key": "zeroetl:export", "Value": "begun"}]


def test_the_reporting_run_deletes_it_where_nobody_waited(shop: Shop) -> None:
    pipeline = missing(shop, "unwaited", wait={"mode": "sensor"})
    with shop.busy():
        pipeline.run()
        assert len(snapshots(shop, pipeline)) == 1
    shop.ended(pipeline)
    (request,) = pipeline.tick()
    assert "unwaited/export" in made(pipeline.asked(request)) and snapshots(shop, pipeline) == []


def test_a_snapshot_of_now_by_name(shop: Shop) -> None:
    shop.snapshot("before-the-sale")
    pipeline = Pipeline(shop, shop.settings("ofnow"))
    first = pipeline.run()
    shop.sql("INSERT INTO sales (id) VALUES (4)")
    try:
        anew = pipeline.run(run_config=config(pipeline, new_snapshot=True))
    finally:
        shop.sql("DELETE FROM sales WHERE id = 4")
    counts = [metadata(result, "ofnow", "public", "sales")["dagster/partition_row_count"] for result in (first, anew)]
    assert counts == [3, 4] and len(pipeline.tasks()) == 2 and snapshots(shop, pipeline) == []
    tasks = [metadata(result, "ofnow", "export")[face.TASK] for result in (first, anew, pipeline.run())]
    assert tasks[2] == tasks[1]  # what was asked for by name stays the day's export
    shop.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="before-the-sale")


def test_a_snapshot_of_now_is_not_of_another_day(shop: Shop) -> None:
    pipeline = Pipeline(shop, shop.settings("yesterday"))
    said = failure(pipeline.run(day(1), run_config=config(pipeline, new_snapshot=True)))
    assert f"`new_snapshot` is for today's partition only: a snapshot taken now is not of {day(1)}" in said


def test_a_day_of_the_past_gets_none(shop: Shop) -> None:
    pipeline = missing(shop, "past")
    result = pipeline.run(day(1))
    assert made(result) == set() and not checks(result)["snapshot_available"].passed
    assert snapshots(shop, pipeline) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("SnapshotQuotaExceeded", "delete manual snapshots that nobody needs"),
        ("InvalidDBClusterStateFault", "run the partition again when it is"),
        ("AccessDenied", "allow rds:CreateDBClusterSnapshot and rds:AddTagsToResource"),
    ],
)
def test_what_aws_refuses_is_explained(shop: Shop, code: str, words: str) -> None:
    pipeline = missing(shop, f"refused_{code.lower()}")

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "CreateDBClusterSnapshot")

    shop.rds.meta.events.register("before-call.rds.CreateDBClusterSnapshot", refuse)
    try:
        said = failure(pipeline.run())
    finally:
        shop.rds.meta.events.unregister("before-call.rds.CreateDBClusterSnapshot", refuse)
    assert words in said and f"[{code}]" in said


def test_one_that_somebody_else_exports_stays(shop: Shop) -> None:
    pipeline = missing(shop, "wanted", wait={"mode": "sensor"})
    pipeline.run()
    shop.ended(pipeline)
    (name,) = snapshots(shop, pipeline)
    with shop.busy():
        shop.export(f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster-snapshot:{name}", "other-wanted")
        (request,) = pipeline.tick()
        assert "wanted/export" in made(pipeline.asked(request)) and snapshots(shop, pipeline) == [name]
