"""What the activity sensor must survive, on a model of an integration whose clocks and answers a test decides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, NoCredentialsError

from zeroetl_dagster.components.zero_etl_integration import build_zero_etl_definitions
from zeroetl_dagster.connections.aws import Aws, explained
from zeroetl_dagster.connections.redshift import Redshift, RedshiftDenied, RedshiftUnavailable
from zeroetl_dagster.replication import sensor as activity_sensor
from zeroetl_dagster.replication.faults import ReplicationError
from zeroetl_dagster.replication.resources import SYNCED_CHECK, table_key
from zeroetl_dagster.settings.connections import AwsAccount, RedshiftConnection
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName
from zeroetl_dagster_tests.replication.world import DATABASE, World

NAMES = ("orders", "lines", "idle")
_numbers = itertools.count(1)


def refused(code: str, operation: str, message: str = "", status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)


class ModelAws(Aws):
    """RDS and CloudWatch of a world; `refusing` is raised by whichever is asked for."""

    def __init__(self, world: World) -> None:
        super().__init__(AwsAccount(region="ap-northeast-1"))
        self.world = world
        self.refusing: dict[str, Exception] = {}

    def client(self, service: str) -> Any:
        if service in self.refusing:
            error = self.refusing[service]
            return SimpleNamespace(get_paginator=_raising(error), get_metric_data=_raising(error))
        return self.world


def _raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


class ModelRedshift(Redshift):
    """The world's views; `refusing` is raised when a session is opened, as where a login is fetched."""

    def __init__(self, aws: ModelAws) -> None:
        super().__init__(RedshiftConnection(aws="aws", workgroup="analytics"), aws, "warehouse")
        self.world, self.refusing = aws.world, None
        self.sessions = 0

    refusing: Exception | None

    @contextmanager
    def session(self, identity: Any = "marts", *, database: str | None = None) -> Iterator[Any]:
        self.sessions += 1
        if self.refusing is not None:
            with explained("aws"):
                raise self.refusing
        yield self.world


def settings(name: str, **more: Any) -> IntegrationSettings:
    return IntegrationSettings.model_validate(
        {
            "name": name,
            "integration_name": "zeroetl-tickit",  # the world's
            "redshift": "warehouse",
            "source": {"engine": "aurora-postgresql", "cluster": "source", "database": "shop"},
            "target": {"database": DATABASE},
            "data_filter": "include: shop.public.*",
            "tables": [f"public.{name}" for name in NAMES],
            **more,
        }
    )


class Location:
    """One code location: a sensor with a cursor of its own, on an instance that others may share."""

    def __init__(self, world: World, instance: dg.DagsterInstance, *, name: str | None = None, **more: Any) -> None:
        self.world, self.instance = world, instance
        self.name = name or f"shop{next(_numbers)}"  # the tests share an instance
        self.aws = ModelAws(world)
        self.redshift = ModelRedshift(self.aws)
        self.host_skew = 0.0
        self.cursor: str | None = None
        self.told = ""
        self.health: dict[str, bool] = {}  # the integration's checks that the last tick reported
        self.declare(**more)

    def declare(self, **more: Any) -> None:
        """Load the code with other settings."""
        self.settings = settings(self.name, **more)
        tables = {TableName(*name): () for name in self.settings.tables}
        made = build_zero_etl_definitions(self.settings, tables)
        resources = dg.Definitions(resources={"warehouse": self.redshift})
        self.repository = dg.Definitions.merge(made, resources).get_repository_def()

    def tick(self, *, store: bool = True) -> list[Any]:
        """Evaluate, store the events, keep the cursor; the events' tables and states. A tick never raises."""
        self.world.now += 0.001
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(activity_sensor, "time", SimpleNamespace(time=lambda: self.world.now + self.host_skew))
            context = dg.build_sensor_context(
                self.instance,
                cursor=self.cursor,
                repository_def=self.repository,
                resources={"warehouse": self.redshift},
                sensor_name=f"{self.name}_activity_sensor",
            )
            with context:
                found = self.repository.get_sensor_def(f"{self.name}_activity_sensor").evaluate_tick(context)
        assert not found.run_requests
        self.told = found.skip_message or ""
        if store:
            for event in found.asset_events:
                self.instance.report_runless_asset_event(event)
            self.cursor = found.cursor
        of_integration = [event for event in found.asset_events if event.asset_key.path[-1] == "integration"]
        checks = [event for event in of_integration if isinstance(event, dg.AssetCheckEvaluation)]
        self.health = {check.check_name: check.passed for check in checks}
        return [_short(event) for event in found.asset_events if event not in of_integration]

    def later(self, seconds: float = 180) -> list[Any]:
        """A tick when CloudWatch has had its time."""
        self.world.wait(seconds)
        return self.tick()

    def versions(self, name: str) -> list[str]:
        """Newest first."""
        records = self.instance.fetch_materializations(
            table_key(self.name, TableName("public", name)), limit=50
        ).records
        return [(one.asset_materialization.tags or {})["dagster/data_version"] for one in records]  # type: ignore[union-attr]

    def passed(self, name: str) -> bool:
        key = dg.AssetCheckKey(table_key(self.name, TableName("public", name)), SYNCED_CHECK)
        (record,) = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert record.event is not None and record.event.asset_check_evaluation is not None
        return record.event.asset_check_evaluation.passed


def _short(event: Any) -> Any:
    if isinstance(event, dg.AssetMaterialization):
        return event.asset_key.path[-1]
    return event.asset_key.path[-1], event.metadata["zeroetl/state"].value


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture
def world() -> World:
    made = World()
    made.add(*NAMES)
    made.wait(300)
    return made


@pytest.fixture
def location(world: World, instance: dg.DagsterInstance) -> Location:
    """Everything is reported, nothing moves."""
    made = Location(world, instance)
    made.tick()
    made.later()
    assert made.later() == []
    return made


# ---- AWS does not answer ---------------------------------------------------------------------------------------------

MOMENTARY = [
    (refused("Throttling", "DescribeIntegrations", "Rate exceeded"), "AWS throttles DescribeIntegrations (Throttling)"),
    (refused("ThrottlingException", "GetMetricData"), "AWS throttles GetMetricData (ThrottlingException)"),
    (refused("", "DescribeIntegrations", status=503), "AWS answers DescribeIntegrations with 503"),
    (
        refused("ExpiredToken", "DescribeIntegrations", "it is expired"),
        "the credentials have expired (it is expired): re",
    ),
    (NoCredentialsError(), "no credentials. Use `aws sso login`"),
    (ConnectTimeoutError(endpoint_url="https://rds"), "AWS cannot be reached: Connect timeout"),
]


@pytest.mark.parametrize("service", ["rds", "cloudwatch"])
@pytest.mark.parametrize(("error", "said"), MOMENTARY)
def test_free_calls_that_are_refused_skip_the_tick(location: Location, service: str, error: Any, said: str) -> None:
    before = location.cursor
    location.world.ingest("orders")
    location.aws.refusing[service] = error
    assert location.later() == [] and location.cursor == before
    assert location.told.startswith("nothing was asked or lost: ") and said in location.told
    location.aws.refusing.clear()
    assert location.tick() == ["orders"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refused("ThrottlingException", "GetCredentials", "Rate exceeded"), "AWS throttles GetCredentials"),
        (refused("InternalFailure", "GetWorkgroup", status=500), "AWS answers GetWorkgroup with InternalFailure"),
        (refused("ExpiredTokenException", "GetCredentials", "expired"), "the credentials have expired (expired)"),
        (RedshiftUnavailable("the workgroup is being modified"), "the workgroup is being modified"),
        (RedshiftDenied("password authentication failed"), "password authentication failed"),
    ],
)
def test_a_warehouse_that_cannot_be_asked_is_asked_by_the_next_tick(location: Location, error: Any, said: str) -> None:
    location.world.ingest("orders", rows=3)
    location.redshift.refusing = error
    for _ in range(3):
        assert location.later() == [] and said in location.told
    location.world.ingest("lines")
    location.redshift.refusing = None
    assert location.later() == ["orders", "lines"]
    assert location.later() == []


def test_what_is_refused_for_good_fails_the_tick_with_what_to_do(location: Location) -> None:
    location.aws.refusing["rds"] = refused(
        "AccessDenied", "DescribeIntegrations", "not allowed: rds:DescribeIntegrations"
    )
    with pytest.raises(ReplicationError) as raised:
        location.tick()
    assert str(raised.value) == (
        "look at integration zeroetl-tickit: AccessDenied: not allowed: rds:DescribeIntegrations. To do: the "
        "credentials do not allow this call; the message names the action to add to the role's policy."
    )


def test_a_connection_of_another_kind_is_told(location: Location) -> None:
    location.redshift = location.aws  # type: ignore[assignment]
    with pytest.raises(ReplicationError) as raised:
        location.tick()
    assert str(raised.value) == (
        f"pipeline {location.name}: `redshift: warehouse` is a ModelAws; it must name a Redshift connection of a "
        "Connections component"
    )


# ---- the integration -------------------------------------------------------------------------------------------------


def test_deleted_and_made_again_everything_is_new_once(location: Location) -> None:
    old = {name: location.versions(name)[0] for name in NAMES}
    identifier, location.world.integration_id = location.world.integration_id, ""
    assert location.later() == [] and "there is no integration of this name any more" in location.told
    location.world.integration_id = identifier
    location.world.recreate()
    assert sorted(location.later()) == sorted(NAMES)
    for name in NAMES:
        assert len(location.versions(name)) == 2 and location.versions(name)[0] != old[name]
        assert location.versions(name)[0].startswith(location.world.integration_id[:8])
    location.later()
    assert location.later() == []


def test_before_the_integration_there_is_nothing_to_ask(world: World, instance: dg.DagsterInstance) -> None:
    identifier, world.integration_id = world.integration_id, ""
    location = Location(world, instance)
    assert location.tick() == [] and "there is no integration of this name" in location.told
    world.integration_id, world.status = identifier, "creating"
    assert location.tick() == [] and "creating: it is being made" in location.told
    assert location.redshift.sessions == 0
    world.status, world.database_made = "active", False
    assert location.tick() == [] and "materialize this pipeline's `database` asset" in location.told
    world.database_made = True
    assert len(location.later(2000)) == 6


def test_a_watcher_without_rights_is_told_and_loses_nothing(world: World, instance: dg.DagsterInstance) -> None:
    """SVV_INTEGRATION shows zero rows to a plain user: not taken for "there is nothing"."""
    world.visible = False
    location = Location(world, instance)
    assert location.tick() == []
    assert "the watch identity may not see it (`zeroetl grants` prints what it needs)" in location.told
    looks = location.redshift.sessions
    for _ in range(20):
        location.later(60)
    assert looks < location.redshift.sessions < 20, "it looks again, less and less often"
    world.visible = True
    assert len(location.later(2000)) == 6


def test_what_a_failed_integration_says_is_on_the_tick(location: Location) -> None:
    location.world.status = "failed"
    location.world.errors = [{"ErrorCode": "X", "ErrorMessage": "the source was deleted"}]
    assert location.later() == []
    assert "failed: it cannot recover" in location.told and "AWS says: the source was deleted." in location.told


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_added_dropped_and_renamed_tables(location: Location) -> None:
    world = location.world
    world.add("news")
    assert location.later() == []
    assert "1 replicated table(s) are not listed as assets: public.news" in location.told
    location.declare(tables=[*(f"public.{name}" for name in NAMES), "public.news"])
    assert location.later() == ["news", ("news", "Synced")]
    del world.tables[TableName("public", "idle")]
    world.ingest("orders")
    assert location.later() == [("idle", "Absent"), "orders"] and not location.passed("idle")
    world.tables[TableName("public", "renamed")] = world.tables.pop(TableName("public", "lines"))
    assert location.later() == []  # nothing says so before something is applied
    world.ingest("orders")
    assert location.later() == [("lines", "Absent"), "orders"]
    assert "public.renamed" in location.told
    location.declare(tables=["public.orders", "public.news", "public.renamed"])
    assert location.later() == ["renamed", ("renamed", "Synced")]


def test_a_failure_is_a_check_result_and_a_reload_is_a_move(location: Location) -> None:
    location.world.fail("orders", reason="public.orders has no primary key")
    assert location.later() == [("orders", "Failed")] and not location.passed("orders")
    assert location.later() == [], "it is said once"
    location.world.reload("orders")
    assert location.later() == ["orders", ("orders", "Synced")] and location.passed("orders")


# ---- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cloudwatch", "redshift", "host"),
    [
        (0.0, 0.0, 0.0),
        (-600.0, 0.0, 0.0),
        (400.0, 0.0, 0.0),
        (0.0, -86_400.0, 0.0),
        (0.0, 3600.0, 0.0),
        (0.0, 0.0, -1000.0),
        (0.0, 0.0, 1000.0),
        (-600.0, 3600.0, 1000.0),
        (400.0, -3600.0, -400.0),
    ],
)
def test_clocks_that_disagree(instance: dg.DagsterInstance, cloudwatch: float, redshift: float, host: float) -> None:
    world = World(cloudwatch_skew=cloudwatch, redshift_skew=redshift)
    world.add(*NAMES)
    world.wait(300)
    location = Location(world, instance)
    location.host_skew = host
    assert len(location.tick()) == 6
    location.later()
    sessions = location.redshift.sessions
    for _ in range(5):
        assert location.later(60) == []
    assert location.redshift.sessions == sessions, "an idle source costs nothing, whatever the clocks"
    world.ingest("orders")
    assert location.later(300) == ["orders"]
    world.ingest("lines", late=100)  # visible later than its record time says
    assert location.later(300) == ["lines"]


# ---- two code locations ----------------------------------------------------------------------------------------------


def test_two_locations_on_one_instance_report_each_change_with_one_version(location: Location) -> None:
    second = Location(location.world, location.instance, name=location.name)
    assert second.tick() == [], "what Dagster has already is not reported again"
    location.world.ingest("orders")
    assert location.later() == ["orders"]
    second.tick()
    assert len(set(location.versions("orders"))) == 2
    second.later()
    assert location.later() == [] and second.later() == []


def test_two_that_do_not_know_of_each_other_come_to_the_same_versions(location: Location) -> None:
    with dg.instance_for_test() as other:
        second = Location(location.world, other)
        assert len(second.tick()) == 6
        for name in ("orders", "lines", "orders"):
            location.world.ingest(name)
            assert location.later() == [name] and second.tick() == [name]
        for name in NAMES:
            assert second.versions(name)[0] == location.versions(name)[0]


# ---- what was remembered ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"version": 99}', '{"version": 1}', '{"version": 1, "signals": {}}'])
def test_a_cursor_that_cannot_be_read_is_begun_anew(location: Location, kept: str) -> None:
    location.world.ingest("orders")
    location.cursor = kept
    assert location.later() == ["orders"], "what Dagster has is compared, not reported again"
    assert location.later() == []


def test_a_tick_whose_outcome_is_lost_is_done_again_with_the_same_outcome(location: Location) -> None:
    location.world.ingest("orders")
    location.world.wait(180)
    assert location.tick(store=False) == ["orders"]
    assert location.tick() == ["orders"]


def test_history_that_aged_out_is_made_good_from_the_states(location: Location) -> None:
    """Nobody looked for ten days; the views keep seven."""
    location.world.ingest("orders")
    location.world.wait(10 * 86_400)
    location.world.ingest("lines")
    assert sorted(location.later()) == ["lines", "orders"]
    assert "/state/" in location.versions("orders")[0], "only its state is known by now"
    assert "/state/" not in location.versions("lines")[0]
    assert len(location.versions("idle")) == 1, "its state is the one it had"
    location.later()
    assert location.later() == []


def test_more_events_than_a_tick_may_store_are_carried_over(world: World, instance: dg.DagsterInstance) -> None:
    many = [f"t{number:02d}" for number in range(30)]
    world.add(*many)
    world.wait(300)
    location = Location(world, instance, tables=[f"public.{name}" for name in many], sensor={"events_per_tick": 20})
    first = location.tick()
    assert len(first) == 20 and "40 event(s) are carried over to the next tick" in location.told
    second, third = location.later(), location.later()
    assert len(second) == len(third) == 20 and location.later() == []
    moved = [one for one in (*first, *second, *third) if isinstance(one, str)]
    assert sorted(moved) == many


# ---- without the sensor, as the nightly net looks --------------------------------------------------------------------


def look(location: Location) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activity_sensor, "time", SimpleNamespace(time=lambda: location.world.now))
        return activity_sensor.look_anew(
            location.instance,
            SimpleNamespace(warehouse=location.redshift),
            location.settings,
            [name for name in location.settings.tables if not isinstance(name, str)],
        )


def test_what_a_stopped_sensor_missed_is_reported_once(location: Location) -> None:
    before = {name: location.versions(name) for name in ("orders", "lines", "idle")}
    location.world.ingest("orders")
    location.world.fail("lines")
    assert "3 tables, 1 moved" in look(location)
    assert len(location.versions("orders")) == len(before["orders"]) + 1
    assert location.versions("idle") == before["idle"] and not location.passed("lines")
    assert "3 tables, none moved" in look(location)
    assert len(location.versions("orders")) == len(before["orders"]) + 1


def test_the_sensor_comes_to_the_same_version(location: Location) -> None:
    location.world.ingest("orders")
    look(location)
    location.later()
    assert len(set(location.versions("orders")[:2])) == 1


def test_a_pipeline_that_does_not_answer_is_told(location: Location) -> None:
    location.redshift.refusing = RedshiftUnavailable("it is paused")
    location.world.ingest("orders")
    assert "it is paused" in look(location)
    location.aws.refusing["rds"] = RedshiftUnavailable("nobody is there")
    assert look(location) == f"pipeline {location.name} was not looked at: nobody is there"
