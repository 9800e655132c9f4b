"""The code location as Dagster loads it: every definition that is meant to be there, and nothing that needs AWS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from zeroetl_dagster import definitions

TABLES = ("category", "date", "event", "listing", "sales", "users", "venue")
MARTS = ("best_venues", "revenue_by_city", "sales_by_event", "sales_by_week", "seller_success_rate")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def loaded() -> dg.Definitions:
    return definitions.defs()


def test_every_asset_of_both_paths_is_there(loaded: dg.Definitions) -> None:
    steps = {f"tickit/{step}" for step in ("source", "target", "integration", "database")}
    replicated = {f"tickit/public/{table}" for table in TABLES}
    exported = {f"tickit_export/public/{table}" for table in TABLES} | {
        "tickit_export/export",
        "tickit_export/catalogue",
    }
    marts = {f"{group}/{mart}" for group in ("tickit_marts", "tickit_lake_marts") for mart in MARTS}
    assert {key.to_user_string() for key in loaded.resolve_all_asset_keys()} == steps | replicated | exported | marts


def test_marts_depend_on_the_tables_they_read(loaded: dg.Definitions) -> None:
    graph = loaded.resolve_asset_graph()
    of_event = {key.to_user_string() for key in graph.get(dg.AssetKey(["tickit_marts", "sales_by_event"])).parent_keys}
    assert of_event == {"tickit/public/sales", "tickit/public/event", "tickit/public/category"}
    of_city = {key.to_user_string() for key in graph.get(dg.AssetKey(["tickit_marts", "revenue_by_city"])).parent_keys}
    assert of_city == {"tickit_marts/best_venues", "tickit/public/users"}


def test_replicated_tables_are_external_and_named_as_in_redshift(loaded: dg.Definitions) -> None:
    spec = loaded.resolve_asset_graph().get(dg.AssetKey(["tickit", "public", "sales"]))
    assert not spec.is_executable
    assert spec.metadata["dagster/table_name"] == "tickit_zetl.public.sales"
    assert spec.metadata["dagster/storage_kind"] == "redshift"
    assert spec.kinds == {"redshift", "table", "postgresql"}


def test_jobs_sensors_and_schedules(loaded: dg.Definitions) -> None:
    repository = loaded.get_repository_def()
    jobs = {name for name in repository.job_names if not name.startswith("__")}
    assert jobs >= {
        "tickit_provision", "tickit_checks", "tickit_refresh", "tickit_resync", "tickit_teardown",
        "tickit_marts_refresh", "tickit_lake_marts_refresh",
    }  # fmt: skip
    assert {sensor.name for sensor in repository.sensor_defs} >= {
        "tickit_activity_sensor",
        "tickit_lake_marts_refresh_sensor",
    }
    assert "tickit_marts_nightly" in {schedule.name for schedule in repository.schedule_defs}


def test_nothing_runs_by_itself_that_costs_money(loaded: dg.Definitions) -> None:
    """What asks AWS on its own is switched on by a person; what only reads Dagster's own log may run."""
    repository = loaded.get_repository_def()
    running = {s.name for s in repository.sensor_defs if s.default_status == dg.DefaultSensorStatus.RUNNING}
    assert "tickit_activity_sensor" not in running
    assert all(s.default_status == dg.DefaultScheduleStatus.STOPPED for s in repository.schedule_defs)


def test_it_loads_without_credentials_region_or_network(tmp_path: Path) -> None:
    hidden = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DAGSTER_"))}
    environment = {**hidden, "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", "PYTHONWARNINGS": "ignore"}
    code = "from zeroetl_dagster.definitions import defs; print(len(list(defs().resolve_all_asset_keys())))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 30


def test_what_is_missing_is_said_when_something_is_materialized(
    loaded: dg.Definitions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    job = loaded.resolve_job_def("tickit_provision")
    result = job.execute_in_process(raise_on_error=False)
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert failure.step_failure_data.error is not None
    cause = failure.step_failure_data.error.cause or failure.step_failure_data.error
    assert "AWS connection aws_default: no Region. Set `region:` of the connection, AWS_DEFAULT_REGION" in cause.message


def test_the_instance_file_and_the_workspace_are_the_ones_dagster_reads() -> None:
    assert (ROOT / "dagster.yaml").resolve() == (ROOT / "zeroetl_dagster" / "dagster.yaml").resolve()
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    assert workspace["load_from"][0]["python_module"]["module_name"] == "zeroetl_dagster.definitions"


def test_the_code_location_has_one_name_however_dagster_finds_it() -> None:
    """Sensors, cursors and schedules belong to a location's name: what the demo switched on stays on afterwards."""
    from dagster._core.workspace.load_target import PyProjectFileTarget, WorkspaceFileTarget

    from zeroetl_dagster.cli.demo.dagster_dev import LOCATION

    targets = (PyProjectFileTarget(str(ROOT / "pyproject.toml")), WorkspaceFileTarget([str(ROOT / "workspace.yaml")]))
    names = [origin.location_name for target in targets for origin in target.create_origins()]
    assert names == [LOCATION, LOCATION]


def test_everything_that_the_ui_lists_is_described(loaded: dg.Definitions) -> None:
    repository = loaded.get_repository_def()
    graph = loaded.resolve_asset_graph()
    described = {
        **{key.to_user_string(): graph.get(key).description for key in graph.get_all_asset_keys()},
        **{f"check {key.to_user_string()}": graph.get_check_spec(key).description for key in graph.asset_check_keys},
        **{job.name: job.description for job in repository.get_all_jobs() if not job.name.startswith("__")},
        **{sensor.name: sensor.description for sensor in repository.sensor_defs},
        **{schedule.name: schedule.description for schedule in repository.schedule_defs},
    }
    assert [name for name, description in described.items() if not description] == []
