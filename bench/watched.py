"""A pipeline of many tables and its marts, watched by the real sensor in a real Dagster instance, on a model of AWS.

The model (`zeroetl_dagster_tests.replication.world`) answers RDS, CloudWatch and Redshift's views at once, so that what
is timed is this project's code and Dagster's; it counts the sessions and statements it is asked for.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import dagster as dg

from zeroetl_dagster.components.redshift_marts import build_mart_definitions
from zeroetl_dagster.components.zero_etl_integration import build_zero_etl_definitions
from zeroetl_dagster.connections.aws import Aws
from zeroetl_dagster.connections.redshift import Redshift
from zeroetl_dagster.replication import sensor as activity_sensor
from zeroetl_dagster.settings.connections import AwsAccount, RedshiftConnection
from zeroetl_dagster.settings.marts import RedshiftMartsSettings
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName
from zeroetl_dagster_tests.marts.fake_redshift import FakeSession
from zeroetl_dagster_tests.replication.world import DATABASE, World

SENSOR = "tickit_activity_sensor"
MARTS_JOB = "marts_refresh"
MARTS: dict[str, Any] = {
    "name": "marts",
    "redshift": "warehouse",
    "schema": "marts",
    "pipelines": {"tickit": DATABASE},
    "minimum_interval_seconds": 0,
}


def quiet_instance(home: Path) -> dg.DagsterInstance:
    """A Dagster instance on SQLite, as `dagster dev` has it, that logs errors only."""
    (home / "dagster.yaml").touch()  # without one Dagster says at length that there is none
    overrides = {"python_logs": {"python_log_level": "ERROR"}, "telemetry": {"enabled": False}}
    return dg.DagsterInstance.local_temp(str(home), overrides)


class ModelAws(Aws):
    """An account in which the model answers as RDS and CloudWatch."""

    def __init__(self, world: World) -> None:
        super().__init__(AwsAccount(region="ap-northeast-1"))
        self._world = world

    def client(self, service: str) -> Any:
        assert service in ("rds", "cloudwatch"), f"the sensor asked for {service}, which costs a call more"
        return self._world


class ModelRedshift(Redshift):
    """Views from the model, marts from the stand-in of the marts' tests."""

    def __init__(self, world: World) -> None:
        super().__init__(RedshiftConnection(aws="aws", workgroup="analytics"), ModelAws(world), "warehouse")
        self._world, self._marts = world, FakeSession()

    def base_rpu(self) -> int | None:
        return 8

    @contextmanager
    def session(self, identity: Any = "marts", *, database: str | None = None) -> Iterator[Any]:
        if identity != "watch":
            yield self._marts
            return
        self._world.sessions += 1
        yield self._world


def settings_of(tables: Sequence[TableName], **more: Any) -> IntegrationSettings:
    """The pipeline that the model stands for."""
    return IntegrationSettings.model_validate(
        {
            "name": "tickit",
            "redshift": "warehouse",
            "source": {"engine": "aurora-postgresql", "cluster": "tickit-source", "database": "tickit"},
            "target": {"database": DATABASE},
            "data_filter": "include: tickit.public.*",
            "tables": list(tables),
            **more,
        }
    )


class Watched:
    """`tables` tables and `marts` marts, each over a table of its own; `tick` is what the daemon does with a sensor."""

    def __init__(self, folder: Path, *, tables: int, marts: int, **settings: Any) -> None:
        self._undo = ExitStack()
        self.world = World(now=time.time())
        self.names = [f"t{number:04d}" for number in range(tables)]
        self.world.add(*self.names)
        self.world.wait(180)
        self.redshift = ModelRedshift(self.world)
        # Three clocks are the sensor's business; the model's stands for all of them here.
        self._clock = SimpleNamespace(time=lambda: self.world.now)
        home = folder / "dagster"
        home.mkdir(parents=True)
        self.instance = self._undo.enter_context(quiet_instance(home))
        self.repository = self._definitions(folder, marts, settings).get_repository_def()
        self.sensor = self.repository.get_sensor_def(SENSOR)
        self.cursor: str | None = None

    def _definitions(self, folder: Path, marts: int, settings: dict[str, Any]) -> dg.Definitions:
        tables = [TableName("public", name) for name in self.names]
        parts = [build_zero_etl_definitions(settings_of(tables, **settings), dict.fromkeys(tables, ()))]
        if marts:
            models = folder / "marts"
            models.mkdir()
            for number in range(marts):
                sql = f"SELECT t.x AS x FROM tickit.public.{self.names[number]} AS t\n"
                (models / f"mart{number:03d}.sql").write_text(sql)
            marts_settings = RedshiftMartsSettings.model_validate(
                {
                    "name": "marts",
                    "redshift": "warehouse",
                    "schema": "marts",
                    "pipelines": {"tickit": DATABASE},
                    "minimum_interval_seconds": 0,
                }
            )
            parts.append(build_mart_definitions(marts_settings, models))
        return dg.Definitions.merge(*parts, dg.Definitions(resources={"warehouse": self.redshift}))

    def evaluate(self) -> Any:
        """One evaluation of the sensor, as the code server does it."""
        context = dg.build_sensor_context(
            self.instance,
            cursor=self.cursor,
            repository_def=self.repository,
            resources={"warehouse": self.redshift},
            sensor_name=SENSOR,
        )
        # Dagster's sensor log goes to stderr too, line by line; here it would drown the figures.
        with context, redirect_stderr(io.StringIO()), mock.patch.object(activity_sensor, "time", self._clock):
            return self.sensor.evaluate_tick(context)

    def tick(self) -> Any:
        """Evaluate, store the events one by one, keep the cursor: what `dagster._daemon.sensor` does."""
        found = self.evaluate()
        for event in found.asset_events:
            self.instance.report_runless_asset_event(event)
        assert found.cursor is not None, f"the sensor did not look: {found.skip_message}"
        self.cursor = found.cursor
        return found

    def settle(self) -> None:
        """Tick, and run what the ticks ask for, until nothing is left to be reported or refreshed."""
        while True:
            found = self.tick()
            for request in found.run_requests or ():
                self._run(request)
            if not found.asset_events and not found.run_requests:
                return
            self.world.wait(30)

    def _run(self, request: dg.RunRequest) -> None:
        keys = set(request.asset_selection or ())
        job = self.repository.get_job(MARTS_JOB).get_subset(asset_selection=keys, asset_check_selection=set())
        tags = {**request.tags, "dagster/run_key": request.run_key or ""}
        done = job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=True)
        assert done.success

    def move(self, tables: int) -> None:
        """New rows in the first so many tables, and time enough for CloudWatch to say so."""
        self.world.wait(600)
        self.world.ingest(*self.names[:tables])
        self.world.wait(180)

    def close(self) -> None:
        self._undo.close()
