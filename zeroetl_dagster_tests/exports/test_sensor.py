"""The completion sensor and the schedule, tick by tick on one Dagster instance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from zeroetl_dagster.exports.assets import build_assets
from zeroetl_dagster.exports.daily import asked_tables
from zeroetl_dagster.exports.partitions import daily, key_at
from zeroetl_dagster.exports.schedules import build_job, build_schedule
from zeroetl_dagster.exports.sensor import build_sensor
from zeroetl_dagster.settings.exports import SnapshotExportSettings
from zeroetl_dagster_tests.exports.conftest import NOW, settings_of
from zeroetl_dagster_tests.exports.fakes import SALES, FakeRds, FakeS3, write_export
from zeroetl_dagster_tests.exports.test_assets import CATALOGUE, DAY, EXPORT, SALES_KEY, Runner, made, writes

SENSOR = settings_of(wait={"mode": "sensor"})


class Ticker:
    """The sensor's ticks, and the runs they ask for, as the daemon would do them."""

    def __init__(self, instance: dg.DagsterInstance, resources: dict[str, Any], run: Runner) -> None:
        self.instance, self.resources, self.run = instance, resources, run
        self.cursor: str | None = None
        self.settings: SnapshotExportSettings = SENSOR
        self.now = datetime.now(UTC)  # Dagster stamps its events itself
        self.keys: list[str] = []

    def tick(self) -> SensorExecutionData:
        sensor = build_sensor(self.settings, [SALES_KEY], build_job(self.settings, [SALES_KEY]), lambda: self.now)
        definitions = dg.Definitions(
            assets=build_assets(self.settings, asked_tables(self.settings) or []),
            sensors=[sensor],
            resources=self.resources,
        )
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=self.resources, definitions=definitions
        )
        result = sensor.evaluate_tick(context)
        self.cursor = result.cursor
        self.now += timedelta(minutes=6)
        return result

    def work(self) -> list[dg.ExecuteInProcessResult]:
        """One tick, and every run that it asks for (a run key only once)."""
        done = []
        for request in self.tick().run_requests or []:
            if request.run_key not in self.keys:
                self.keys.append(str(request.run_key))
                done.append(
                    self.run(
                        self.settings,
                        partition=str(request.partition_key),
                        selection=request.asset_selection,
                        tags=request.tags,
                        now=lambda: self.now,
                    )
                )
        return done


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made_instance:
        yield made_instance


@pytest.fixture
def run(instance: dg.DagsterInstance, resources: dict[str, Any]) -> Runner:
    return Runner(instance, resources)


@pytest.fixture
def ticker(instance: dg.DagsterInstance, resources: dict[str, Any], run: Runner) -> Ticker:
    return Ticker(instance, resources, run)


def test_nothing_pending_asks_aws_nothing(ticker: Ticker, resources: dict[str, Any]) -> None:
    del resources["own"].clients["rds"]
    assert ticker.tick().skip_message == "no export is pending"


def test_a_submitted_export_is_reported_with_its_tables(ticker: Ticker, run: Runner, rds: FakeRds, s3: FakeS3) -> None:
    writes(rds, s3, {"public.sales": SALES})
    run(SENSOR)
    assert ticker.work() == []  # IN_PROGRESS 40 %
    (reported,) = ticker.work()
    assert made(reported) == {EXPORT, CATALOGUE, SALES_KEY} and len(rds.started) == 1
    assert ticker.work() == [] and "no export is pending" in str(ticker.tick().skip_message)


def test_the_percent_is_on_the_ticks_page(ticker: Ticker, run: Runner, rds: FakeRds, s3: FakeS3) -> None:
    writes(rds, s3, {"public.sales": SALES})
    run(SENSOR)
    assert "IN_PROGRESS 40 %" in str(ticker.tick().skip_message)


def test_a_failed_export_is_reported_by_a_failed_run_and_not_begun_again(
    ticker: Ticker, run: Runner, rds: FakeRds
) -> None:
    run(SENSOR)
    (identifier,) = rds.tasks
    rds.tasks[identifier] |= {"Status": "FAILED", "FailureCause": "The S3 credentials check failed."}
    (reported,) = ticker.work()
    assert not reported.success
    assert ticker.work() == [] and ticker.work() == [] and len(rds.started) == 1


def test_a_lost_cursor_reports_no_export_twice(ticker: Ticker, run: Runner, rds: FakeRds, s3: FakeS3) -> None:
    writes(rds, s3, {"public.sales": SALES})
    run(SENSOR)
    ticker.work()
    ticker.work()
    ticker.cursor = None
    assert ticker.work() == []


def test_thirty_days_at_once_become_thirty_exports_five_at_a_time(
    ticker: Ticker, run: Runner, rds: FakeRds, s3: FakeS3, instance: dg.DagsterInstance
) -> None:
    rds.clusters["shop"]["BackupRetentionPeriod"] = 35
    days = [datetime(2024, 4, 2, 3, tzinfo=UTC) + timedelta(days=n) for n in range(30)]
    rds.cluster_snapshots.clear()
    for n, moment in enumerate(days):
        rds.add_snapshot(f"s{n}", moment)
    for moment in days:  # the backfill
        assert run(SENSOR, partition=moment.date().isoformat()).success
    assert len(rds.started) == 5
    for _ in range(40):
        running = [task for task in rds.tasks.values() if task["Status"] != "COMPLETE"]
        assert len(running) <= 5
        for task in running:
            task["Status"] = "COMPLETE"
            write_export(s3, task["ExportTaskIdentifier"], {"public.sales": SALES})
        ticker.work()
    assert len(rds.started) == 30
    assert instance.get_materialized_partitions(EXPORT) == {moment.date().isoformat() for moment in days}
    assert instance.get_materialized_partitions(SALES_KEY) == {moment.date().isoformat() for moment in days}


def test_a_snapshot_that_comes_late_is_exported_when_it_is_there(
    ticker: Ticker, run: Runner, rds: FakeRds, s3: FakeS3
) -> None:
    writes(rds, s3, {"public.sales": SALES})
    rds.cluster_snapshots[0]["Status"] = "creating"
    assert made(run(SENSOR)) == set()
    assert ticker.work() == [] and ticker.work() == []
    rds.cluster_snapshots[0]["Status"] = "available"
    assert len(ticker.work()) == 1 and len(rds.started) == 1


def test_an_export_materialised_alone_is_followed_by_its_tables(
    ticker: Ticker, run: Runner, rds: FakeRds, s3: FakeS3
) -> None:
    ticker.settings = settings_of()
    ticker.work()
    writes(rds, s3, {"public.sales": SALES})
    run(selection=[EXPORT])
    (followed,) = ticker.work()
    assert made(followed) == {CATALOGUE, SALES_KEY} and ticker.work() == []


def test_an_export_materialised_with_its_tables_is_not_followed(
    ticker: Ticker, run: Runner, rds: FakeRds, s3: FakeS3
) -> None:
    ticker.settings = settings_of()
    ticker.work()
    writes(rds, s3, {"public.sales": SALES})
    run(selection=[EXPORT, CATALOGUE, SALES_KEY])
    assert ticker.work() == []


def test_the_partition_of_today_is_there_from_midnight_in_its_time_zone() -> None:
    at = datetime(2024, 5, 1, 16, 0, tzinfo=UTC)  # 01:00 of the next day in Tokyo
    tokyo = daily(settings_of(time_zone="Asia/Tokyo"))
    assert tokyo.get_partition_keys(current_time=at)[-1] == "2024-05-02"
    assert tokyo.get_partition_keys(current_time=at - timedelta(hours=2))[-1] == "2024-05-01"
    assert daily(settings_of()).get_partition_keys(current_time=at)[-1] == DAY


def test_the_scheduled_partition_is_the_day_it_is_in_the_time_zone() -> None:
    assert key_at(settings_of(time_zone="Asia/Tokyo"), NOW) == "2024-05-02"
    assert key_at(settings_of(), NOW) == DAY


def test_the_schedule_asks_for_the_day_and_its_tables() -> None:
    settings = settings_of()
    job = build_job(settings, [SALES_KEY])
    schedule = build_schedule(settings, job)
    assert schedule is not None and schedule.cron_schedule == "0 16 * * *" and schedule.execution_timezone == "UTC"
    context = dg.build_schedule_context(scheduled_execution_time=NOW)
    request = schedule(context)
    assert isinstance(request, dg.RunRequest) and request.partition_key == DAY


def test_before_the_start_date_the_schedule_skips() -> None:
    settings = settings_of(start_date="2024-06-01")
    schedule = build_schedule(settings, build_job(settings, [SALES_KEY]))
    assert schedule is not None
    skipped = schedule(dg.build_schedule_context(scheduled_execution_time=NOW))
    assert isinstance(skipped, dg.SkipReason) and "before start_date" in str(skipped.skip_message)


def test_no_schedule_is_made_where_none_is_wanted() -> None:
    settings = settings_of(schedule=None)
    assert build_schedule(settings, build_job(settings, [SALES_KEY])) is None
