"""When both engines are compared: once for each refresh in Athena, again while they could not be compared."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import StepMaterializationData
from hypothesis import given
from hypothesis import strategies as st

from zeroetl_dagster.exports.reconcile_sensor import Checked, Twins, build_job, build_sensor, due
from zeroetl_dagster.exports.reconciliation import CHECK, NOT_COMPARABLE, VERDICT
from zeroetl_dagster_tests.exports.test_reconciliation import ATHENA, REDSHIFT, SETTINGS

REFRESHED, WAITING = "the Athena mart was refreshed", "it was not comparable, and the Redshift mart was refreshed since"


def checked(*, event: int = 10, at: float = 100.0, verdict: str = "equal") -> Checked:
    return Checked(id=1, athena_event=event, at=at, verdict=verdict)


@pytest.mark.parametrize(
    ("twins", "reason"),
    [
        (Twins(None, 20, 50, None), None),  # nothing in Athena yet
        (Twins(10, None, 0, None), None),  # nothing in Redshift yet
        (Twins(11, 20, 50, checked(), going_on=True), None),
        (Twins(10, 20, 50, None), REFRESHED),
        (Twins(11, 20, 50, checked()), REFRESHED),
        (Twins(10, 20, 150, checked()), None),
        (Twins(10, 20, 150, checked(verdict="different")), None),
        (Twins(10, 20, 150, checked(verdict=NOT_COMPARABLE)), WAITING),
        (Twins(10, 20, 50, checked(verdict=NOT_COMPARABLE)), None),  # Redshift stands where it stood
    ],
)
def test_due(twins: Twins, reason: str | None) -> None:
    assert due(twins, now=1000.0, recheck_seconds=900.0) == reason


def test_a_comparison_that_could_not_be_made_is_not_tried_too_often() -> None:
    twins = Twins(10, 20, 150, checked(verdict=NOT_COMPARABLE))
    assert due(twins, now=999.0, recheck_seconds=900.0) is None


@given(st.integers(1, 50), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_verdict_stands_until_the_athena_mart_is_refreshed(event: int, redshift_at: float, now: float) -> None:
    assert due(Twins(event, 1, redshift_at, checked(event=event)), now=now, recheck_seconds=0) is None


class Daemon:
    """The sensor's ticks on one instance; runs are what they would record."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.now = instance, 1e9
        job = build_job(SETTINGS)
        assert job is not None
        self.sensor = build_sensor(SETTINGS, job, lambda: self.now)

    def tick(self) -> list[dg.RunRequest]:
        return list(self.sensor.evaluate_tick(dg.build_sensor_context(instance=self.instance)).run_requests or [])

    def refresh(self, key: dg.AssetKey) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key))

    def evaluate(self, verdict: str) -> None:
        event = self.instance.get_latest_materialization_event(ATHENA)
        record = self.instance.get_asset_records([ATHENA])[0].asset_entry
        assert event is not None and record.last_materialization_storage_id is not None
        target = dg.AssetCheckEvaluation(
            asset_key=ATHENA,
            check_name=CHECK,
            passed=verdict == "equal",
            metadata={VERDICT: verdict},
            target_materialization_data=_target(event, record.last_materialization_storage_id),
        )
        self.instance.report_runless_asset_event(target)


def _target(event: Any, storage_id: int) -> Any:
    from dagster._core.definitions.asset_checks.asset_check_evaluation import (
        AssetCheckEvaluationTargetMaterializationData,
    )

    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=storage_id, run_id=event.run_id, timestamp=event.timestamp
    )


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(instance)


def test_each_refresh_in_athena_is_compared_once(daemon: Daemon) -> None:
    daemon.refresh(REDSHIFT)
    assert daemon.tick() == []
    daemon.refresh(ATHENA)
    (request,) = daemon.tick()
    assert request.asset_check_keys == [dg.AssetCheckKey(ATHENA, CHECK)] and request.asset_selection == []
    (again,) = daemon.tick()
    assert again.run_key == request.run_key  # the daemon starts it once, whatever becomes of the run
    daemon.evaluate("equal")
    assert daemon.tick() == []
    daemon.refresh(ATHENA)
    (next_one,) = daemon.tick()
    assert next_one.run_key != request.run_key


def test_what_could_not_be_compared_is_compared_after_redshift_moved(daemon: Daemon) -> None:
    daemon.refresh(REDSHIFT)
    daemon.refresh(ATHENA)
    (first,) = daemon.tick()
    daemon.evaluate(NOT_COMPARABLE)
    daemon.now = 4e9
    assert daemon.tick() == []
    daemon.refresh(REDSHIFT)
    (second,) = daemon.tick()
    assert second.run_key != first.run_key
    daemon.evaluate("equal")
    assert daemon.tick() == []


def test_marts_that_one_run_refreshes_are_compared_together_when_it_has_ended(daemon: Daemon) -> None:
    daemon.refresh(REDSHIFT)
    run = dg.DagsterRun(job_name="lake_marts_refresh", run_id=str(uuid.uuid4())).with_status(
        dg.DagsterRunStatus.STARTED
    )
    daemon.instance.add_run(run)
    daemon.instance.report_dagster_event(
        dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name=run.job_name,
            event_specific_data=StepMaterializationData(dg.AssetMaterialization(ATHENA)),
        ),
        run.run_id,
    )
    assert daemon.tick() == []
    daemon.instance.report_run_canceled(run)
    assert len(daemon.tick()) == 1


def test_nothing_is_asked_for_while_a_comparison_is_under_way(daemon: Daemon) -> None:
    daemon.refresh(REDSHIFT)
    daemon.refresh(ATHENA)
    job = build_job(SETTINGS)
    assert job is not None
    run = dg.DagsterRun(job_name=job.name, run_id=str(uuid.uuid4()))
    daemon.instance.add_run(run.with_status(dg.DagsterRunStatus.STARTED))
    assert daemon.tick() == []
