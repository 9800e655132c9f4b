"""An export takes hours: runs that wait, runs that do not, runs that are ended meanwhile, and no room at AWS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from zeroetl_dagster.exports import face
from zeroetl_dagster_tests.exports_e2e.shop import (
    ACCOUNT,
    REGION,
    Pipeline,
    Shop,
    checks,
    failure,
    made,
    metadata,
    today,
    until,
)


@pytest.fixture(scope="module", autouse=True)
def snapshot(shop: Shop) -> Iterator[str]:
    name = shop.snapshot()
    yield name
    shop.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)


def test_a_run_that_is_killed_leaves_its_task_and_a_retry_finds_it(shop: Shop) -> None:
    pipeline = Pipeline(shop, shop.settings("killed"))
    command = [sys.executable, "-m", "zeroetl_dagster_tests.exports_e2e.run_export"]
    with shop.busy():
        run = subprocess.Popen([*command, pipeline.settings.model_dump_json(), today()], stderr=subprocess.DEVNULL)
        until(lambda: len(pipeline.tasks()), 1, 90)
        run.kill()
        assert run.wait() == -signal.SIGKILL
    retried = pipeline.run()
    (task,) = pipeline.tasks()
    assert metadata(retried, "killed", "export")[face.TASK] == task["ExportTaskIdentifier"]


@pytest.mark.parametrize(("choice", "status"), [("cancel", "CANCELED"), ("leave", "COMPLETE")])
def test_a_run_that_is_terminated_does_with_its_task_what_was_configured(shop: Shop, choice: str, status: str) -> None:
    pipeline = Pipeline(shop, shop.settings(f"terminated_{choice}", wait={"mode": "run", "on_termination": choice}))

    def terminate() -> None:
        until(lambda: len(pipeline.tasks()), 1)
        os.kill(os.getpid(), signal.SIGINT)

    with shop.busy():
        killer = threading.Thread(target=terminate)
        killer.start()
        assert not pipeline.run().success
        killer.join()
    shop.ended(pipeline, status)
    (run,) = pipeline.instance.get_runs()
    said = [entry.user_message for entry in pipeline.instance.all_logs(run.run_id)]
    (line,) = [text for text in said if text.startswith("run terminated")]
    assert f"wait.on_termination: {choice}" in line
    assert pipeline.run().success
    assert [task["Status"] for task in pipeline.tasks()] == list(dict.fromkeys([status, "COMPLETE"]))


def test_the_sensor_reports_what_a_run_submitted(shop: Shop) -> None:
    pipeline = Pipeline(shop, shop.settings("submitted", wait={"mode": "sensor"}))
    with shop.busy():
        submitted = pipeline.run()
        assert submitted.success and made(submitted) == set()
        assert pipeline.tick() == []
    shop.ended(pipeline)
    (request,) = pipeline.tick()
    reported = pipeline.asked(request)
    assert made(reported) == {"submitted/export", "submitted/catalogue", "submitted/public/sales"}
    assert pipeline.tick() == [] and len(pipeline.tasks()) == 1


def test_a_run_of_a_backfill_sees_its_export_end(shop: Shop) -> None:
    """Otherwise Dagster calls the backfill failed before the sensor has reported the partition."""
    pipeline = Pipeline(shop, shop.settings("backfilled", wait={"mode": "sensor"}))
    waited = pipeline.run(tags={"dagster/backfill": "abcdefgh"})
    assert made(waited) == {"backfilled/export", "backfilled/catalogue", "backfilled/public/sales"}
    assert pipeline.tick() == []


def test_an_export_that_somebody_cancels_fails_the_run_that_reports_it(shop: Shop) -> None:
    pipeline = Pipeline(shop, shop.settings("canceled", wait={"mode": "sensor"}))
    with shop.busy():
        pipeline.run()
        shop.rds.cancel_export_task(ExportTaskIdentifier=pipeline.tasks()[0]["ExportTaskIdentifier"])
    shop.ended(pipeline, "CANCELED")
    (request,) = pipeline.tick()
    assert "was CANCELED" in failure(pipeline.asked(request))
    assert pipeline.tick() == [] and len(pipeline.tasks()) == 1  # it is not begun again by itself


def test_no_room_queues_and_the_sensor_starts_it_when_there_is(shop: Shop, snapshot: str) -> None:
    copies = [f"copy-{number}" for number in range(5)]
    pipeline = Pipeline(shop, shop.settings("queued", wait={"mode": "sensor"}))
    for name in copies:
        shop.rds.copy_db_cluster_snapshot(
            SourceDBClusterSnapshotIdentifier=snapshot, TargetDBClusterSnapshotIdentifier=name
        )
    with shop.busy():
        for name in copies:
            shop.export(f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster-snapshot:{name}", f"others-{name}")
        queued = pipeline.run()
        assert queued.success and pipeline.tasks() == [] and pipeline.tick() == []
    until(lambda: {task["Status"] for task in shop.tasks("others")}, {"COMPLETE"})
    (request,) = pipeline.tick()
    pipeline.asked(request)
    shop.ended(pipeline)
    (report,) = pipeline.tick()
    assert "queued/export" in made(pipeline.asked(report))
    for name in copies:
        shop.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)


def test_a_role_whose_session_ends_during_the_wait_is_assumed_again(shop: Shop) -> None:
    arn = shop.role("short-sessions", f"arn:aws:iam::{ACCOUNT}:root", ["*"])
    store = shop.embedded.world.store
    store.update("iam.role", f"{ACCOUNT}/short-sessions", lambda role: {**role, "MaxSessionDuration": 1})
    settings = shop.settings("expires", source={**shop.source, "aws": "assumed"})
    pipeline = Pipeline(shop, settings, assumed=shop.assumed(arn))
    with shop.delays(creating_seconds=1.5):
        assert pipeline.run().success
    sessions = [held for held in store.list("sts.session") if held["caller"]["role_name"] == "short-sessions"]
    assert len(sessions) > 1


def test_an_export_made_alone_is_followed_by_its_catalogue(shop: Shop) -> None:
    pipeline = Pipeline(shop, shop.settings("followed"))
    pipeline.run(only=[pipeline.export])
    assert pipeline.tick() == []  # the first tick does not catalogue history
    again = pipeline.run(only=[pipeline.export])
    assert made(again) == {"followed/export"}
    (request,) = pipeline.tick()
    assert made(pipeline.asked(request)) == {"followed/catalogue", "followed/public/sales"}
    assert checks(again)["nothing_skipped"].passed and request.partition_key == today()
