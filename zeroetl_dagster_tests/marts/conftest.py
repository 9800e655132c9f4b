"""A code location with tables of two pipelines and marts, on a real Dagster instance and a stand-in Redshift."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster import AssetKey, DagsterInstance

from zeroetl_dagster.marts import checks, jobs, refresh
from zeroetl_dagster.marts.assets import mart_key
from zeroetl_dagster.marts.compile import Target, compile_marts
from zeroetl_dagster.marts.engines import redshift_assets
from zeroetl_dagster.marts.model import parse_model
from zeroetl_dagster.settings.marts import RedshiftMartsSettings
from zeroetl_dagster_tests.marts.fake_redshift import FakeSession

SALES = AssetKey(["tickit", "public", "sales"])
USERS = AssetKey(["tickit", "public", "users"])
ORDERS = AssetKey(["shop", "public", "orders"])
TABLES = (SALES, USERS, ORDERS)
SYNCED = "table_synced"

MARTS = {
    "m1": "-- minimum_interval_seconds: 60\nselect s.x as x, s.y as y from tickit.public.sales s",
    "m2": "select m1.x as x, u.y as y from m1 join tickit.public.users u on u.x = m1.x",
    "lone": "select u.x as x from tickit.public.users u",
    "shops": "select o.x as x from shop.public.orders o",
}


class FakeWarehouse:
    """What `connections.resources.RedshiftResource` is to the assets."""

    def __init__(self, session: FakeSession) -> None:
        self.fake = session
        self.opened: list[tuple[str, str | None]] = []
        self.rpu: int | None = None
        self.aws = SimpleNamespace(region="ap-northeast-1")

    def base_rpu(self) -> int | None:
        return self.rpu

    @contextmanager
    def session(self, identity: str = "marts", *, database: str | None = None) -> Iterator[FakeSession]:
        self.opened.append((identity, database))
        yield self.fake


@dataclass
class Location:
    """One loaded code location. `report` and `run` stand for the sensor's daemon."""

    instance: DagsterInstance
    warehouse: FakeWarehouse = field(default_factory=lambda: FakeWarehouse(FakeSession()))
    texts: dict[str, str] = field(default_factory=lambda: dict(MARTS))
    settings: dict[str, Any] = field(default_factory=dict)
    now: float | None = None

    def __post_init__(self) -> None:
        self.load()

    def load(self) -> None:
        self.repository = self.definitions().get_repository_def()

    def definitions(self) -> dg.Definitions:
        settings = RedshiftMartsSettings.model_validate(
            {
                "name": "marts",
                "redshift": "warehouse",
                "schema": "marts",
                "database": "dev",
                "pipelines": {"tickit": "tickit_zetl", "shop": "shop_zetl"},
                "minimum_interval_seconds": 0,
                **self.settings,
            }
        )
        target = Target(settings.name, settings.schema_name, settings.pipelines)
        compiled = compile_marts([parse_model(Path(f"{n}.sql"), t) for n, t in self.texts.items()], target)
        keys = [mart_key("marts", name) for name in compiled]
        job = jobs.component_job("marts", keys)
        tables = [dg.AssetSpec(key, metadata={"zeroetl/integration": key.path[0]}) for key in TABLES]
        synced = [dg.AssetCheckSpec(SYNCED, asset=key, blocking=True) for key in TABLES]

        @dg.multi_asset_check(specs=synced, can_subset=True, name="synced")
        def table_synced() -> Iterator[dg.AssetCheckResult]:
            yield from ()

        return dg.Definitions(
            assets=[*tables, redshift_assets(settings, compiled)],
            asset_checks=[checks.build_check("marts", keys), table_synced],
            jobs=[job],
            schedules=[jobs.nightly_schedule("marts", job, settings.nightly)] if settings.nightly else [],
            sensors=[jobs.refresh_sensor("marts", job, interval_seconds=30, default_status="stopped")],
            resources={"warehouse": self.warehouse},
        )

    def report(self, key: AssetKey, version: str) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, tags={"dagster/data_version": version}))

    def report_synced(self, key: AssetKey, synced: bool, description: str = "") -> None:
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=key, check_name=SYNCED, passed=synced, description=description)
        )

    def plan(self, pending: dict[AssetKey, str] | None = None, pipeline: str = "tickit") -> refresh.RefreshPlan:
        context = dg.build_sensor_context(self.instance, repository_def=self.repository)
        return refresh.plan(context, pending or {}, pipeline, now=self.now)

    def tick(self, pending: dict[AssetKey, str] | None = None, pipeline: str = "tickit") -> list[str]:
        """One tick as the daemon does it: plan, store the events, then run. Returns the marts that were asked for."""
        plan = self.plan(pending, pipeline)
        for key, version in (pending or {}).items():
            self.report(key, version)
        for event in plan.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in plan.run_requests:
            self.run(request)
        return names(plan)

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        tags = {**request.tags, "dagster/run_key": request.run_key or ""}
        return self.materialize(*(key.path[-1] for key in request.asset_selection or ()), tags=tags)

    def materialize(self, *marts: str, tags: dict[str, str] | None = None) -> dg.ExecuteInProcessResult:
        keys = {mart_key("marts", name) for name in marts}
        job = self.repository.get_job("marts_refresh").get_subset(asset_selection=keys, asset_check_selection=set())
        return job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def stored(self, mart: str) -> dg.AssetMaterialization:
        event = self.instance.get_latest_materialization_event(mart_key("marts", mart))
        assert event is not None and event.asset_materialization is not None
        return event.asset_materialization


def names(plan: refresh.RefreshPlan) -> list[str]:
    return [key.path[-1] for request in plan.run_requests for key in request.asset_selection or ()]


@pytest.fixture
def location() -> Iterator[Location]:
    with dg.instance_for_test() as instance:
        yield Location(instance)
