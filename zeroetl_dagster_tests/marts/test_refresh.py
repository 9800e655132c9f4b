"""Plans made from what a real Dagster instance has recorded."""

from __future__ import annotations

import json
import time
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from zeroetl_dagster.connections.redshift import RedshiftSqlError
from zeroetl_dagster.marts import jobs, refresh
from zeroetl_dagster.marts.assets import mart_key
from zeroetl_dagster.settings.marts import NightlySettings
from zeroetl_dagster_tests.marts.conftest import ORDERS, SALES, USERS, Location, names

ALL = {SALES: "s1", USERS: "u1"}


def test_the_first_tick_asks_for_marts_over_tables_it_is_about_to_report(location: Location) -> None:
    assert location.tick(ALL) == ["lone", "m1", "m2"]
    assert location.plan().run_requests == ()
    assert location.plan().notes == ("3 marts are up to date",)


def test_nothing_happens_while_nothing_moves_or_the_same_is_reported_again(location: Location) -> None:
    location.tick(ALL)
    location.now = time.time() + 60
    assert location.tick() == []
    assert location.tick(ALL) == []


def test_a_change_refreshes_what_reads_it_and_no_more(location: Location) -> None:
    location.tick(ALL)
    location.now = time.time() + 60
    assert location.tick({USERS: "u2"}) == ["lone", "m2"]
    assert location.tick({SALES: "s2"}) == ["m1", "m2"]
    assert location.tick() == []


def test_a_change_during_the_run_is_not_lost(location: Location) -> None:
    location.tick(ALL)
    location.now = time.time() + 60
    (request,) = location.plan({SALES: "s2"}).run_requests
    location.report(SALES, "s2")
    reported = False

    def report_during_sql(sql: str) -> None:
        nonlocal reported
        if "REFRESH" in sql and not reported:
            reported = True
            location.report(SALES, "s3")

    location.warehouse.fake.fail = report_during_sql
    location.run(request)
    assert reported
    location.now = time.time() + 120
    assert location.tick() == ["m1", "m2"]
    assert location.tick() == []


def test_a_change_while_its_run_waits_in_the_queue_costs_no_second_run(location: Location) -> None:
    location.tick(ALL)
    location.now = time.time() + 60
    (request,) = location.plan({SALES: "s2"}).run_requests
    queued = queue(location, request)
    plan = location.plan({SALES: "s3"})
    assert plan.run_requests == ()
    assert any("marts/m1 waits" in note and queued in note for note in plan.notes)
    location.report(SALES, "s3")
    location.instance.delete_run(queued)
    location.run(request)
    assert location.tick() == []


def test_each_pipeline_leads_its_own_marts(location: Location) -> None:
    assert location.tick({ORDERS: "o1", **ALL}, pipeline="shop") == ["shops"]
    assert location.tick(ALL, pipeline="tickit") == ["lone", "m1", "m2"]


def test_a_chain_over_two_pipelines_is_led_by_the_first_of_them(location: Location) -> None:
    location.texts["m2"] = "select m1.x as x, o.y as y from m1 join shop.public.orders o on o.x = m1.x"
    location.load()
    assert location.tick({ORDERS: "o1", **ALL}, pipeline="tickit") == ["lone"]
    assert location.tick({ORDERS: "o1", **ALL}, pipeline="shop") == ["m1", "shops", "m2"]


def test_a_changed_definition_is_refreshed(location: Location) -> None:
    location.tick(ALL)
    location.texts["m1"] += " where s.x > 1"
    location.load()
    assert location.tick() == ["m1", "m2"]
    assert location.tick() == []


def test_a_mart_that_is_added_later_is_built_from_what_was_reported_before(location: Location) -> None:
    location.tick(ALL)
    location.texts["late"] = "select s.x as x from tickit.public.sales s"
    location.load()
    assert location.tick() == ["late"]


def test_the_minimum_interval_is_kept(location: Location) -> None:
    location.tick(ALL)
    plan = location.plan({SALES: "s2"})
    assert plan.run_requests == ()
    assert plan.notes == ("marts/m1 waits (tickit/public/sales moved): it is refreshed at most once in 60 s",)
    location.report(SALES, "s2")
    location.now = time.time() + 60
    assert location.tick() == ["m1", "m2"]


def test_a_failed_mart_is_tried_again_after_a_while_and_longer_after_each_failure(location: Location) -> None:
    location.warehouse.fake.fail = lambda sql: RedshiftSqlError("out of memory") if '."m1"' in sql[:36] else None
    assert location.tick(ALL) == ["lone", "m1", "m2"]
    plan = location.plan()
    assert plan.run_requests == ()
    assert "marts/m1 waits (it has not been built yet): refreshing it failed once: out of memory" in plan.notes
    assert "marts/m2 waits (it has not been built yet): marts/m1 has not been built yet" in plan.notes
    location.now = time.time() + 61
    (request,) = location.plan().run_requests
    assert json.loads(request.tags["zeroetl/attempts"]) == {"marts/m1": 2}
    assert location.tick() == ["m1", "m2"]
    location.now = time.time() + 61
    assert location.tick() == []
    location.now = time.time() + 121
    location.warehouse.fake.fail = lambda sql: None
    assert location.tick() == ["m1", "m2"]
    assert location.tick() == []


def test_a_retry_has_a_run_key_of_its_own_and_a_repeated_tick_has_not(location: Location) -> None:
    (first,) = location.plan(ALL).run_requests
    (again,) = location.plan(ALL).run_requests
    assert first.run_key == again.run_key
    location.warehouse.fake.fail = lambda sql: RedshiftSqlError("no") if sql.startswith("CREATE") else None
    location.tick(ALL)
    location.now = time.time() + 61
    (retry,) = location.plan().run_requests
    assert retry.run_key != first.run_key


def test_a_wiped_mart_is_built_again_though_all_else_is_as_it_was_the_first_time(location: Location) -> None:
    location.tick(ALL)
    location.instance.wipe_assets([mart_key("marts", name) for name in ("lone", "m1", "m2")])
    (request,) = location.plan().run_requests
    before = {run.tags["dagster/run_key"] for run in location.instance.get_runs()}
    assert request.run_key not in before
    assert names(location.plan()) == ["lone", "m1", "m2"]


def test_a_new_definition_is_tried_at_once_though_the_old_one_failed(location: Location) -> None:
    location.warehouse.fake.fail = lambda sql: RedshiftSqlError("no such column") if "s.y" in sql else None
    location.tick(ALL)
    assert location.tick() == []
    location.texts["m1"] = "select s.x as x, s.z as y from tickit.public.sales s"
    location.load()
    assert location.tick() == ["m1", "m2"]


def test_a_cancelled_run_is_not_started_again_at_once(location: Location) -> None:
    (request,) = location.plan(ALL).run_requests
    for key, version in ALL.items():
        location.report(key, version)
    run_id = queue(location, request)
    location.instance.report_run_canceled(get_run(location, run_id))
    assert location.plan().run_requests == ()
    location.now = time.time() + 61
    assert location.tick() == ["lone", "m1", "m2"]


def test_a_run_that_was_created_and_forgotten_does_not_hold_its_marts(location: Location) -> None:
    (request,) = location.plan(ALL).run_requests
    for key, version in ALL.items():
        location.report(key, version)
    queue(location, request, status=DagsterRunStatus.NOT_STARTED)
    assert location.plan().run_requests == ()
    location.now = time.time() + 601
    assert names(location.plan()) == ["lone", "m1", "m2"]


def test_a_run_of_the_whole_job_counts_for_all_its_marts(location: Location) -> None:
    job = location.repository.get_job("marts_refresh")
    run = location.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    plan = location.plan(ALL)
    assert plan.run_requests == ()
    assert all(run.run_id in note for note in plan.notes)


def test_a_failed_table_holds_the_marts_that_read_it(location: Location) -> None:
    location.tick(ALL)
    location.now = time.time() + 60
    location.report_synced(SALES, False, "Failed: no primary key")
    plan = location.plan({SALES: "s2", USERS: "u2"})
    assert names(plan) == ["lone", "m2"]
    assert "marts/m1 waits (tickit/public/sales moved): tickit/public/sales: Failed: no primary key" in plan.notes
    location.report(SALES, "s2")
    location.report_synced(SALES, True)
    assert "m1" in names(location.plan())


def test_why_a_mart_waits_is_told_once_and_that_it_waits_no_more(location: Location) -> None:
    assert location.plan(ALL).asset_events == ()  # about to be built: no news yet
    location.tick(ALL)
    assert {e.asset_key.path[-1]: e.passed for e in tell(location)} == {"lone": True, "m1": True, "m2": True}
    location.report_synced(SALES, False, "Failed: no primary key")
    location.report(SALES, "s2")
    location.now = time.time() + 60
    (told_now,) = tell(location)
    assert told_now.asset_key == mart_key("marts", "m1") and not told_now.passed
    assert told_now.severity == dg.AssetCheckSeverity.WARN
    assert told_now.description == (
        "waits, although tickit/public/sales moved: tickit/public/sales: Failed: no primary key"
    )
    location.report(SALES, "s3")
    assert tell(location) == []
    location.report_synced(SALES, True)
    location.tick()
    (told_at_last,) = tell(location)
    assert told_at_last.passed
    assert tell(location) == []


def test_a_short_interval_is_no_news_and_a_long_one_is(location: Location) -> None:
    location.texts["m1"] = "-- minimum_interval_seconds: 3600\n" + location.texts["m1"].split("\n")[1]
    location.texts["lone"] = "-- minimum_interval_seconds: 299\n" + location.texts["lone"]
    location.load()
    location.tick(ALL)
    tell(location)
    location.report(SALES, "s2")
    location.report(USERS, "u2")
    told = tell(location)
    assert [e.asset_key.path[-1] for e in told] == ["m1"]
    assert told[0].description == "waits, although tickit/public/sales moved: it is refreshed at most once in 3600 s"


def test_the_check_answers_by_hand(location: Location) -> None:
    location.tick(ALL)
    location.report(SALES, "s2")
    keys = {dg.AssetCheckKey(mart_key("marts", name), "up_to_date") for name in ("m1", "lone")}
    job = location.repository.get_implicit_global_asset_job_def()
    subset = job.get_subset(asset_selection=set(), asset_check_selection=keys)
    result = subset.execute_in_process(instance=location.instance, raise_on_error=False)
    found = {e.asset_key.path[-1]: (e.passed, e.description) for e in result.get_asset_check_evaluations()}
    assert found == {
        "lone": (True, "up to date"),
        "m1": (False, "waits, although tickit/public/sales moved: it is refreshed at most once in 60 s"),
    }


def test_the_nightly_net_refreshes_what_is_stale_and_skips_otherwise(location: Location) -> None:
    schedule = location.repository.get_schedule_def("marts_nightly")

    def run() -> dg.ScheduleDefinition:
        context = dg.build_schedule_context(location.instance, repository_def=location.repository)
        return schedule.evaluate_tick(context)  # type: ignore[return-value]

    location.report(SALES, "s1")
    location.report(USERS, "u1")
    location.report(ORDERS, "o1")
    (request,) = run().run_requests  # type: ignore[attr-defined]
    assert {key.path[-1] for key in request.asset_selection} == {"lone", "m1", "m2", "shops"}
    location.run(request)
    assert run().skip_message == "4 marts are up to date"  # type: ignore[attr-defined]


def test_the_nightly_net_looks_at_the_pipelines_itself(location: Location) -> None:
    versions = iter(["u1", "u1", "u2"])

    def look(instance: dg.DagsterInstance, resources: Any) -> str:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(USERS, tags={"dagster/data_version": next(versions)})
        )
        return f"looked with {resources.warehouse}"

    job = location.repository.get_job("marts_refresh")
    net = jobs.nightly_schedule("marts", job, NightlySettings(), jobs.Looks((look,), frozenset({"warehouse"})))  # type: ignore[arg-type]

    def run() -> Any:
        context = dg.build_schedule_context(
            location.instance, repository_def=location.repository, resources={"warehouse": "w"}
        )
        return net.evaluate_tick(context)

    location.report(SALES, "s1")
    location.report(ORDERS, "o1")
    location.run(*run().run_requests)
    assert run().skip_message == "looked with w; 4 marts are up to date"
    (request,) = run().run_requests  # no sensor has reported u2
    assert [key.path[-1] for key in request.asset_selection] == ["lone", "m2"]


def test_the_sensor_of_its_own_leaves_marts_to_their_pipelines(location: Location) -> None:
    sensor = location.repository.get_sensor_def("marts_refresh_sensor")
    context = dg.build_sensor_context(location.instance, repository_def=location.repository)
    location.report(SALES, "s1")
    tick = sensor.evaluate_tick(context)
    assert not tick.run_requests


def test_marts_above_which_no_pipeline_stands_have_the_sensor_of_their_own(location: Location) -> None:
    location.texts = {"m": "select o.x as x from shop.public.loaded o"}
    location.load()
    location.report(dg.AssetKey(["shop", "public", "loaded"]), "1")
    sensor = location.repository.get_sensor_def("marts_refresh_sensor")
    context = dg.build_sensor_context(location.instance, repository_def=location.repository)
    (request,) = sensor.evaluate_tick(context).run_requests or []
    assert request.asset_selection == [mart_key("marts", "m")]
    location.run(request)
    assert sensor.evaluate_tick(context).skip_message == "1 marts are up to date"


def test_a_table_that_is_reported_without_a_version_moves_with_every_event(location: Location) -> None:
    location.texts = {"m": "select s.x as x from tickit.public.sales s"}
    location.load()
    for expected in (["m"], []):
        if expected:
            location.instance.report_runless_asset_event(dg.AssetMaterialization(SALES))
        assert location.tick() == expected
    location.instance.report_runless_asset_event(dg.AssetMaterialization(SALES))
    assert location.tick() == ["m"]


def test_a_mart_waits_for_a_run_that_makes_what_it_reads(location: Location) -> None:
    location.texts = {"m": "select l.x as x from shop.public.loaded l"}
    location.load()
    loaded = dg.AssetKey(["shop", "public", "loaded"])
    location.report(loaded, "1")
    job = dg.Definitions(assets=[dg.asset(key=loaded)(lambda: None)]).get_implicit_global_asset_job_def()
    run = location.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    plan = refresh.plan_unled(location.instance, location.repository.asset_graph, "marts")
    assert not plan.run_requests
    assert f"run {run.run_id} is refreshing shop/public/loaded, which it reads" in plan.notes[0]
    location.instance.delete_run(run.run_id)
    assert names(refresh.plan_unled(location.instance, location.repository.asset_graph, "marts")) == ["m"]


def test_an_older_day_that_is_filled_in_later_moves_nothing(location: Location) -> None:
    location.texts = {"m": "select s.x as x from tickit.public.sales s"}
    location.load()

    def report(day: str, *, newest: bool) -> None:
        location.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                SALES,
                partition=day,
                tags={"dagster/data_version": f"export-{day}"},
                metadata={"zeroetl/newest_day": newest},
            )
        )

    report("2026-11-20", newest=True)
    assert location.tick() == ["m"]
    for day in range(1, 19):
        report(f"2026-11-{day:02}", newest=False)
    assert location.tick() == []
    assert (location.stored("m").tags or {})["dagster/input_data_version/tickit/public/sales"] == "export-2026-11-20"
    report("2026-11-21", newest=True)
    assert location.tick() == ["m"]


def test_a_context_without_a_repository_is_refused(location: Location) -> None:
    with pytest.raises(ValueError, match="no repository"):
        refresh.plan(dg.build_sensor_context(location.instance), {}, "tickit")


def tell(location: Location) -> list[dg.AssetCheckEvaluation]:
    events = list(location.plan().asset_events)
    for event in events:
        location.instance.report_runless_asset_event(event)
    return events


def queue(location: Location, request: dg.RunRequest, status: DagsterRunStatus = DagsterRunStatus.STARTING) -> str:
    job = location.repository.get_job("marts_refresh")
    run = location.instance.create_run_for_job(
        job.get_subset(asset_selection=set(request.asset_selection or ())),
        asset_selection=frozenset(request.asset_selection or ()),
        status=status,
        tags=dict(request.tags),
    )
    return run.run_id


def get_run(location: Location, run_id: str) -> dg.DagsterRun:
    run = location.instance.get_run_by_id(run_id)
    assert run is not None
    return run
