"""What a refresh leaves in Dagster: results, metadata, versions, failures."""

from __future__ import annotations

from datetime import datetime

import dagster as dg
import pytest
from dagster import AssetKey, DagsterEventType
from dagster._core.errors import DagsterExecutionInterruptedError

from zeroetl_dagster.connections.redshift import RedshiftSqlError, RedshiftUnavailable
from zeroetl_dagster.marts import due
from zeroetl_dagster.marts.assets import mart_key
from zeroetl_dagster.marts.recorded import plain
from zeroetl_dagster_tests.marts.conftest import SALES, USERS, Location

ALL = {SALES: "s1", USERS: "u1"}
M1, M2 = mart_key("marts", "m1"), mart_key("marts", "m2")


def failure(location: Location, result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (record,) = location.instance.get_records_for_run(result.run_id, of_type=DagsterEventType.STEP_FAILURE).records
    event = record.event_log_entry.dagster_event
    assert event is not None and event.step_failure_data.user_failure_data is not None
    return {key: plain(value) for key, value in event.step_failure_data.user_failure_data.metadata.items()}


def test_marts_are_refreshed_in_order_in_one_session_as_their_identity(location: Location) -> None:
    location.tick(ALL)
    assert location.warehouse.opened == [("marts", "dev")]
    created = [sql.split('"')[3] for sql in location.warehouse.fake.statements if sql.startswith("CREATE MAT")]
    assert created == ["lone", "m1", "m2"]


def test_the_result_says_what_was_read_and_what_was_done(location: Location) -> None:
    location.warehouse.fake.integration_views = [("public", "sales", "Synced", "{}", datetime(2026, 11, 21))]
    location.tick(ALL)
    found = location.stored("m1")
    assert found.metadata is not None
    told = {key: plain(value) for key, value in found.metadata.items()}
    assert told["dagster/row_count"] == 7
    assert told["zeroetl/action"] == "created"
    assert isinstance(told["zeroetl/duration_ms"], float)
    assert told["zeroetl/query_id"]
    assert told["zeroetl/incremental"] is True
    assert told["zeroetl/sql"].startswith("```sql\nCREATE MATERIALIZED VIEW")
    assert [c.name for c in told["dagster/column_schema"].columns] == ["x", "y"]
    assert told["dagster/column_lineage"].deps_by_column["x"] == [dg.TableColumnDep(SALES, "x")]
    assert told["zeroetl/checkpoint"].records[0].data["table"] == "public.sales"
    assert "zeroetl/readers_gap" not in told


def test_what_a_mart_computed_on_serverless_is_told_with_its_price(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROETL_PRICE_RPU_HOUR", "36")
    location.warehouse.rpu = 8
    location.tick(ALL)
    told = {key: plain(value) for key, value in (location.stored("m1").metadata or {}).items()}
    assert told["zeroetl/rpu_seconds"] == pytest.approx(8 * told["zeroetl/duration_ms"] / 1000)
    assert told["zeroetl/estimated_cost_usd"] == pytest.approx(told["zeroetl/rpu_seconds"] / 100)


def test_a_cluster_is_paid_by_the_hour_so_its_marts_have_no_price(location: Location) -> None:
    location.tick(ALL)
    assert not {"zeroetl/rpu_seconds", "zeroetl/estimated_cost_usd"} & {*(location.stored("m1").metadata or {})}


def test_the_versions_recorded_are_those_before_the_sql_ran(location: Location) -> None:
    location.report(SALES, "s1")
    location.report(USERS, "u1")

    def report_meanwhile(sql: str) -> None:
        if sql.startswith('CREATE MATERIALIZED VIEW "marts"."m1"'):
            location.report(SALES, "s2")
            location.report(USERS, "u2")

    location.warehouse.fake.fail = report_meanwhile
    location.materialize("m1", "m2")
    m1, m2 = location.stored("m1").tags or {}, location.stored("m2").tags or {}
    assert m1["dagster/input_data_version/tickit/public/sales"] == "s1"
    assert m2["dagster/input_data_version/tickit/public/users"] == "u2"  # read after the event, so it may count
    assert m2["dagster/input_data_version/marts/m1"] == m1["dagster/data_version"]
    code = m1["dagster/code_version"]
    assert m1["dagster/data_version"] == due.data_version(code, {"tickit/public/sales": "s1"})


def test_dagster_agrees_on_what_is_stale(location: Location) -> None:
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    def status(key: AssetKey) -> StaleStatus:
        resolver = CachingStaleStatusResolver(
            location.instance, location.repository.asset_graph, LoadingContextForTest(location.instance)
        )
        return resolver.get_status(key)

    location.tick(ALL)
    assert (status(M1), status(M2)) == (StaleStatus.FRESH, StaleStatus.FRESH)
    location.report(SALES, "s2")
    assert (status(M1), status(M2)) == (StaleStatus.STALE, StaleStatus.FRESH)
    location.materialize("m1", "m2")
    assert (status(M1), status(M2)) == (StaleStatus.FRESH, StaleStatus.FRESH)


def test_a_failed_mart_hides_no_other(location: Location) -> None:
    location.warehouse.fake.fail = lambda sql: RedshiftSqlError("division by zero") if '."m1"' in sql[:36] else None
    location.report(SALES, "s1")
    location.report(USERS, "u1")
    result = location.materialize("m1", "m2", "lone")
    assert not result.success
    assert [e.asset_key for e in result.get_asset_materialization_events()] == [mart_key("marts", "lone")]
    assert failure(location, result) == {
        "zeroetl/failed": {"marts/m1": "division by zero"},
        "zeroetl/skipped": ["marts/m2"],
    }


def test_an_unreachable_warehouse_ends_the_step_at_once(location: Location) -> None:
    location.warehouse.fake.fail = lambda sql: RedshiftUnavailable("paused")
    result = location.materialize("m1", "lone")
    assert not result.success and not result.get_asset_materialization_events()


def test_an_interruption_is_not_taken_for_a_failed_mart(location: Location) -> None:
    def interrupt(sql: str) -> BaseException | None:
        return DagsterExecutionInterruptedError() if sql.startswith("CREATE MATERIALIZED") else None

    location.warehouse.fake.fail = interrupt  # type: ignore[assignment]
    result = location.materialize("m1", "lone")
    assert not result.success and not result.get_asset_materialization_events()
    records = location.instance.get_records_for_run(result.run_id, of_type=DagsterEventType.STEP_FAILURE).records
    assert not any(
        r.event_log_entry.dagster_event.step_failure_data.user_failure_data  # type: ignore[union-attr]
        for r in records
    )


def test_the_spec_of_a_mart_says_where_and_how_it_is_stored(location: Location) -> None:
    location.texts["m1"] = (
        "-- description: Sales.\n-- materialized: table\n-- owners: team:sales\n-- tags: domain=sales\n-- group: fine\n"
        "select s.x as x, getdate() as at from tickit.public.sales s"
    )
    location.texts["m2"] = "-- materialized: table\n" + location.texts["m2"]
    location.settings = {"owners": ["a@b.example"], "tags": {"stage": "gold"}, "pool": "redshift"}
    location.load()
    node = location.repository.asset_graph.get(M1)
    assert node.description == (
        "Sales.\n\nA table in Redshift, refreshed when what it reads has moved.\n\n"
        "Reads the clock, but is refreshed when its data moves, not when time passes."
    )
    assert node.kinds == {"redshift", "sql", "table"}
    assert node.owners == ["a@b.example", "team:sales"]
    assert node.group_name == "fine"
    assert node.tags["domain"] == "sales" and node.tags["stage"] == "gold"
    assert node.metadata["dagster/table_name"] == "dev.marts.m1"
    assert node.pools == {"redshift"}
    assert location.repository.asset_graph.get(M2).parent_keys == {M1, USERS}


def test_a_job_of_all_marts_finds_them_and_leaves_their_checks_out(location: Location) -> None:
    job = location.repository.get_job("marts_refresh")
    assert job.asset_layer.executable_asset_keys == {mart_key("marts", n) for n in location.texts}
    assert len(list(job.nodes)) == 1
