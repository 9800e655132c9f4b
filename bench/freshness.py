"""How long a sale takes from its commit at the source into the marts that count it.

The embedded AWS, TICKIT and its five marts, with the code that runs in production. Ticks follow each other at once and
runs are executed in this process: the sensor's interval and the start of a run's own process, seconds each, are the
same whatever is run, and would only hide what is measured. The floor does the same with a sensor and an asset that do
nothing.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

import zeroetl_dagster.defs
from bench.beds import Beds
from bench.figures import Figure
from bench.timing import percentile, seconds
from bench.watched import quiet_instance
from zeroetl_dagster.components.redshift_marts import build_mart_definitions
from zeroetl_dagster.components.zero_etl_integration import build_zero_etl_definitions
from zeroetl_dagster.connections.resources import RedshiftResource, build
from zeroetl_dagster.local import landscape
from zeroetl_dagster.settings.connections import ConnectionsSettings
from zeroetl_dagster.settings.marts import RedshiftMartsSettings
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName

if TYPE_CHECKING:
    from zeroetl_dagster.local.landscape import EmbeddedSession

SALES = 8
PAUSE_SECONDS = 0.05
GIVE_UP_SECONDS = 60.0
TABLES = ("users", "venue", "category", "date", "event", "listing", "sales")
MARTS_FOLDER = Path(zeroetl_dagster.defs.__file__).parent / "tickit_marts"
CONNECTIONS = {
    "aws": {"account": {}},
    "redshift": {"warehouse": {"aws": "account", "workgroup": landscape.WORKGROUP, "database": "dev"}},
}
MARTS: dict[str, Any] = {
    "name": "tickit_marts",
    "redshift": "warehouse",
    "schema": "tickit_marts",
    "pipelines": {"tickit": "tickit_zetl"},
    "minimum_interval_seconds": 0,
}
_SELL = """
INSERT INTO sales (salesid, listid, sellerid, buyerid, eventid, dateid, qtysold, pricepaid, commission, saletime)
SELECT (SELECT MAX(salesid) + 1 FROM sales), listid, sellerid, buyerid, eventid, dateid, qtysold, pricepaid, commission,
  saletime FROM sales LIMIT 1
"""
_COUNTED = "SELECT SUM(orders) FROM dev.tickit_marts.sales_by_event"


def freshness(beds: Beds) -> Iterator[Figure]:
    """By way of CloudWatch's metrics, as is usual for Serverless; and asking Redshift on every tick."""
    aws = beds.tickit
    home = beds.folder("freshness")
    with quiet_instance(home) as instance:
        cursor = None
        for sql, how in (
            ("when_applied", "metrics every second"),
            ("every_tick", "`sql: every_tick`"),
        ):
            path = Replicating(aws, instance, sql=sql, cursor=cursor)
            path.provision()
            path.settle()
            taken, floors = [], []
            for _ in range(SALES):
                taken.append(path.sell())
                floors.append(seconds(path.nothing))
            cursor = path.cursor
            path.close()
            for name, percent in (("median", 50), ("95th", 95)):
                yield Figure(
                    f"commit to refreshed marts, {how}, {name}",
                    percentile(taken, percent),
                    "s",
                    percentile(floors, percent),
                    "an empty tick and an empty run",
                )


class Replicating:
    """TICKIT's zero-ETL pipeline and its marts, ticked and run by hand. `sql` is the sensor's setting of that name."""

    def __init__(
        self, aws: EmbeddedSession, instance: dg.DagsterInstance, *, sql: str, cursor: str | None = None
    ) -> None:
        self._aws, self._instance, self.cursor = aws, instance, cursor
        self._repository = _definitions(sql).get_repository_def()
        self._sensor = self._repository.get_sensor_def("tickit_activity_sensor")
        self._resources = build(ConnectionsSettings.model_validate(CONNECTIONS))
        self._source = landscape.connect_source(aws)
        self._source.autocommit = True

    def provision(self) -> None:
        """Integration, database, tables; nothing changes when all is there."""
        self._execute("tickit_provision")

    def settle(self) -> None:
        """Tick and run until the marts are there and count every sale."""
        self._until(lambda ran: not ran and self._counted() == self._sold())

    def sell(self) -> float:
        """Seconds from the commit of one more sale until the marts count it."""
        with self._source.cursor() as cursor:
            cursor.execute(_SELL)
        return seconds(lambda: self._until(lambda ran: ran and self._counted() == self._sold()))

    def _until(self, enough: Callable[[bool], bool]) -> None:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while not enough(self._tick()):
            assert time.monotonic() < deadline, f"the marts count {self._counted()} of {self._sold()} sales"
            time.sleep(PAUSE_SECONDS)

    def nothing(self) -> None:
        """An empty sensor's tick and an empty run."""
        with self._context("empty_sensor") as context:
            self._repository.get_sensor_def("empty_sensor").evaluate_tick(context)
        self._execute("empty")

    def close(self) -> None:
        self._source.close()

    def _tick(self) -> bool:
        """What the daemon does with a tick; True when it asked for runs, which have succeeded then."""
        with self._context("tickit_activity_sensor") as context, redirect_stderr(io.StringIO()):
            found = self._sensor.evaluate_tick(context)
        for event in found.asset_events:
            self._instance.report_runless_asset_event(event)
        self.cursor = found.cursor
        for request in found.run_requests or ():
            self._execute("tickit_refresh", request)
        return bool(found.run_requests)

    def _context(self, sensor: str) -> dg.SensorEvaluationContext:
        return dg.build_sensor_context(
            self._instance,
            cursor=self.cursor,
            repository_def=self._repository,
            resources=self._resources,
            sensor_name=sensor,
        )

    def _execute(self, job: str, request: dg.RunRequest | None = None) -> None:
        chosen, tags = self._repository.get_job(job), {}
        if request is not None:
            keys = set(request.asset_selection or ())
            chosen = chosen.get_subset(asset_selection=keys, asset_check_selection=set())
            tags = {**request.tags, "dagster/run_key": request.run_key or ""}
        chosen.execute_in_process(instance=self._instance, tags=tags)

    def _sold(self) -> int:
        with self._source.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM sales")
            return int(cursor.fetchone()[0])

    def _counted(self) -> int:
        warehouse = self._resources["warehouse"]
        assert isinstance(warehouse, RedshiftResource)
        with warehouse.session("marts") as session:
            return int(session.query(_COUNTED).rows[0][0])


def _definitions(sql: str) -> dg.Definitions:
    tables = [TableName("public", name) for name in TABLES]
    settings = IntegrationSettings.model_validate(
        {
            "name": "tickit",
            "redshift": "warehouse",
            "source": {"engine": "aurora-postgresql", "cluster": landscape.CLUSTER, "database": landscape.DATABASE},
            "target": {"database": "tickit_zetl"},
            "data_filter": "include: tickit.public.*",
            "tables": tables,
            "sensor": {"interval_seconds": 1, "minimum_sql_interval_seconds": 1, "sql": sql},
        }
    )

    @dg.asset
    def nothing() -> None:
        """An asset that costs what Dagster costs."""

    empty_job = dg.define_asset_job("empty", selection=[nothing], executor_def=dg.in_process_executor)

    @dg.sensor(name="empty_sensor", job=empty_job)
    def empty(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason("nothing to do")

    return dg.Definitions.merge(
        build_zero_etl_definitions(settings, dict.fromkeys(tables, ())),
        build_mart_definitions(RedshiftMartsSettings.model_validate(MARTS), MARTS_FOLDER),
        dg.Definitions(
            assets=[nothing],
            jobs=[empty_job],
            sensors=[empty],
            resources=dict(build(ConnectionsSettings.model_validate(CONNECTIONS))),
        ),
    )
